"""`land`: rotation, positions, and what waits when something cannot go on."""

import threading

import pytest
from structlog.testing import capture_logs

from support.landing import Bench, chain_of
from support.memory_log import TRADES, frames
from tickhouse.bronze import lander as lander_module
from tickhouse.bronze.buffer import BACKOFF_S_MAX
from tickhouse.bronze.chain import GENESIS, Chain
from tickhouse.bronze.lander import Lander
from tickhouse.errors import (
    CorruptLogError,
    CorruptObjectError,
    RefusedError,
    TransientError,
)
from tickhouse.model.positions import Stream, TopicPartition

OTHER = TopicPartition(Stream.TRADES, 1)
EVENTS = TopicPartition(Stream.SESSIONS, 0)


@pytest.fixture(autouse=True)
def _polls_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lander_module, "POLL_S", 0.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def steps(lander: Lander, count: int) -> None:
    for _ in range(count):
        lander.step(0)


class Refusal:
    """Puts below a prefix fail with an error until it is lifted."""

    def __init__(self, prefix: str, error: Exception, *, when: str = "put.before") -> None:
        self.prefix = prefix
        self.error: Exception | None = error
        self.when = when
        self.attempts = 0

    def __call__(self, operation: str, key: str) -> None:
        if operation == self.when and key.startswith(self.prefix) and self.error is not None:
            self.attempts += 1
            raise self.error


# -- what is landed ---------------------------------------------------------------------------


def test_every_record_is_landed_once_in_order_with_its_position(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 10))
    bench.log.append(EVENTS, frames(0, 3))

    bench.lander().drain()

    assert bench.landed() == list(range(10))
    assert bench.landed(EVENTS) == [0, 1, 2]
    assert bench.store.get(chain_of().genesis_key) == GENESIS == b'{"start":0}'


def test_a_record_that_is_not_an_envelope_is_landed_never_dropped(bench: Bench) -> None:
    bench.log.append(TRADES, [b"", b"\n", b"not json", *frames(3, 1), b"\x00\xff" * 50])

    bench.lander().drain()

    assert bench.landed() == [0, 1, 2, 3, 4]


def test_offsets_that_hold_no_record_are_covered_by_next(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 2))
    bench.log.skip(TRADES, 3)
    bench.log.append(TRADES, frames(2, 1))
    bench.log.skip(TRADES, 4)

    bench.lander().drain()

    assert bench.landed() == [0, 1, 5]
    assert [(m.start, m.next, m.n) for m in bench.manifests()] == [(0, 10, 3)]
    assert not any(m.gap for m in bench.manifests())


def test_the_manifest_spans_the_receipt_times(bench: Bench) -> None:
    bench.log.append(TRADES, frames(3, 5))

    bench.lander().drain()

    (manifest,) = bench.manifests()
    assert manifest.rx_min is not None
    assert manifest.rx_max is not None
    assert (manifest.rx_max - manifest.rx_min) == 4_000_000_000


def test_the_position_is_the_tail_of_the_chain_and_nothing_else(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 6))
    bench.lander().drain()
    bench.log.append(TRADES, frames(6, 6))

    second = bench.lander()
    second.drain()

    assert [(m.start, m.next) for m in bench.manifests()] == [(0, 6), (6, 12)]
    assert second.facts()["records"] == 6
    assert second.facts()["positions"] == {"tickhouse.trades.v1[0]": 12}


def test_the_same_records_give_the_same_objects(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 9))
    bench.lander().drain()
    other = Bench()
    other.log = bench.log

    other.lander().drain()

    assert other.store.objects == bench.store.objects


def test_draining_an_empty_log_makes_nothing(bench: Bench) -> None:
    bench.lander().drain()

    assert bench.store.objects == {}


# -- rotation ---------------------------------------------------------------------------------


def test_an_object_is_closed_by_bytes(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 40, size=1_000))

    steps(bench.lander(bytes_max=10_000), 12)

    assert [m.n for m in bench.manifests()] == [12, 12, 12], "two batches of 4 are not enough"
    assert bench.landed() == list(range(36))


def test_an_object_is_closed_by_age_without_new_data(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander(age_s_max=5)
    steps(lander, 3)
    assert bench.landed() == []
    assert 0 < lander.facts()["oldest_age_s"] < 1

    bench.clock.now_s += 5
    lander.step(0)

    assert bench.landed() == [0, 1, 2]
    assert lander.facts()["oldest_age_s"] == 0


def test_the_age_is_that_of_the_first_record_and_records_that_follow_do_not_renew_it(
    bench: Bench,
) -> None:
    lander = bench.lander(age_s_max=5)
    for number in range(5):
        bench.log.append(TRADES, frames(number, 1))
        lander.step(0)
        bench.clock.now_s += 1.1

    lander.step(0)

    assert bench.landed() == [0, 1, 2, 3, 4]


def test_rotation_uses_monotonic_time_the_wall_clock_may_jump(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> float:
        raise AssertionError("the wall clock was read")

    monkeypatch.setattr("time.time", never)
    monkeypatch.setattr("time.time_ns", never)
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander(age_s_max=5)
    lander.step(0)
    bench.clock.now_s += 5

    lander.step(0)

    assert bench.landed() == [0, 1, 2]


def test_above_the_memory_budget_nothing_is_read_and_the_largest_object_is_closed_first(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 8, size=1_000))
    bench.log.append(OTHER, frames(0, 2, size=100))
    lander = bench.lander(memory_bytes_max=10_000)
    lander.step(0)
    assert (bench.landed(), bench.landed(OTHER)) == ([], [])

    lander.step(0)
    assert lander.facts()["buffered_bytes"] < 10_000
    assert (bench.landed(), bench.landed(OTHER)) == ([*range(8)], [])

    bench.log.append(TRADES, frames(8, 100, size=1_000))
    for _ in range(40):
        lander.step(0)
        assert lander.facts()["buffered_bytes"] < 10_000 + 4 * 1_200
    assert bench.landed() == list(range(104))


def test_the_memory_budget_is_no_reason_to_spin_when_all_partitions_wait(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 50, size=1_000))
    bench.log.append(OTHER, frames(0, 3))
    lander = bench.lander(bytes_max=4_000, memory_bytes_max=4_000, age_s_max=1)
    refusal = Refusal(chain_of().key(0), RefusedError("disk full"))
    bench.store.fault = refusal

    for number in range(200):
        lander.step(0)
        bench.clock.now_s += 0.1
        if number % 10 == 0:
            bench.log.append(OTHER, frames(number, 1))
        assert lander.facts()["buffered_bytes"] < 4_000 + 4 * 1_200 + 300

    assert refusal.attempts < 12, "backoff is capped at 30 s, this was 20 s"
    assert len(bench.landed(OTHER)) > 15, "others go on though the waiting one held all memory"
    refusal.error = None
    lander.drain()
    assert bench.landed() == list(range(50))


def test_what_was_dropped_to_make_room_is_read_again_without_new_data(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4, size=1_000))
    bench.store.fault = refusal = Refusal(chain_of().key(0), RefusedError("disk full"))
    lander = bench.lander(memory_bytes_max=4_000)
    steps(lander, 2)
    assert lander.facts()["buffered_bytes"] == 0

    refusal.error = None
    for _ in range(10):
        lander.step(0)
        bench.clock.now_s += 0.1

    assert bench.landed() == [0, 1, 2, 3]


# -- the key is taken -------------------------------------------------------------------------


def test_our_own_lost_answer_is_adopted(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    lost = Refusal(chain_of().key(0), TransientError("answer lost"), when="put.after")
    bench.store.fault = lost
    lander = bench.lander()

    lander.drain()

    assert lost.attempts == 1
    assert bench.landed() == [0, 1, 2, 3]
    assert lander.facts()["adopted"] == 1


def test_after_a_fault_the_same_bytes_are_put_again(bench: Bench) -> None:
    bodies: list[bytes] = []
    put = bench.store.put_if_absent

    def remember(key: str, body: bytes, metadata: dict[str, str]) -> None:
        if key == chain_of().key(0):
            bodies.append(body)
            bench.log.append(TRADES, frames(100 + len(bodies), 1))
            if len(bodies) < 3:
                raise TransientError("503")
        put(key, body, metadata)

    bench.store.put_if_absent = remember
    bench.log.append(TRADES, frames(0, 4))

    bench.lander().drain()

    assert len(bodies) == 3
    assert len(set(bodies)) == 1


def test_a_rival_that_went_less_far_is_adopted_and_the_rest_landed_behind_it(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 3))
    first = bench.lander()
    first.step(0)
    bench.lander().drain()
    bench.log.append(TRADES, frames(3, 3))

    first.drain()

    assert [(m.start, m.next) for m in bench.manifests()] == [(0, 3), (3, 6)]


def test_a_rival_that_went_further_is_adopted_and_what_it_holds_is_not_landed_again(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 3))
    zombie = bench.lander()
    zombie.step(0)
    bench.log.append(TRADES, frames(3, 7))
    bench.lander().drain()
    bench.log.append(TRADES, frames(10, 2))

    zombie.drain()

    assert [(m.start, m.next) for m in bench.manifests()] == [(0, 10), (10, 12)]


def test_bytes_need_not_be_equal_between_writers_positions_decide(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.log.append(TRADES, frames(0, 3))
    late = bench.lander()
    late.step(0)
    with monkeypatch.context() as patch:
        patch.setattr("tickhouse.bronze.object.__version__", "0.0.older")
        bench.lander().drain()

    late.drain()

    assert [m.writer for m in bench.manifests()] == ["tickhouse/0.0.older"]
    assert bench.landed() == [0, 1, 2]


def test_a_zombie_far_behind_goes_to_the_tail_instead_of_adopting_each_object(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 1))
    zombie = bench.lander()
    zombie.step(0)
    for number in range(1, 40):
        bench.lander().drain()
        bench.log.append(TRADES, frames(number, 1))

    zombie.drain()

    assert bench.landed() == list(range(40))
    assert zombie.facts()["adopted"] == 1


def test_two_landers_taking_turns_land_everything_once(bench: Bench) -> None:
    pair = [bench.lander(bytes_max=600), bench.lander(bytes_max=900)]
    for number in range(0, 120, 3):
        bench.log.append(TRADES, frames(number, 3))
        pair[number % 2].step(0)

    for lander in pair:
        lander.drain()

    assert bench.landed() == list(range(120))


# -- what waits -------------------------------------------------------------------------------


@pytest.mark.parametrize("refused_key", ["objects", "genesis"])
def test_a_refusal_stops_only_its_own_partition_keeps_the_position_and_is_tried_again(
    bench: Bench, refused_key: str
) -> None:
    prefix = chain_of().genesis_key if refused_key == "genesis" else chain_of().key(0)[:-22]
    bench.store.fault = refusal = Refusal(prefix, RefusedError("bucket full"))
    bench.log.append(TRADES, frames(0, 4))
    bench.log.append(OTHER, frames(0, 4))
    lander = bench.lander(age_s_max=1)
    for _ in range(100):
        lander.step(0)
        bench.clock.now_s += 0.1
        bench.log.append(OTHER, frames(4, 1))

    assert len(bench.landed(OTHER)) > 90
    assert lander.blocked() == {"tickhouse.trades.v1[0]": "bucket full"}
    assert lander.facts()["positions"]["tickhouse.trades.v1[0]"] == 0
    assert 3 <= refusal.attempts <= 8

    refusal.error = None
    bench.clock.now_s += BACKOFF_S_MAX
    bench.log.append(TRADES, frames(4, 2))
    steps(lander, 4)
    bench.clock.now_s += 2
    steps(lander, 2)

    assert bench.landed() == [0, 1, 2, 3, 4, 5]
    assert lander.blocked() == {}


def test_a_lander_that_is_blocked_reports_failed_until_it_goes_on(bench: Bench) -> None:
    bench.store.fault = refusal = Refusal("bronze", RefusedError("read-only"))
    bench.log.append(TRADES, frames(0, 1))
    stop = threading.Event()
    states: list[str] = []

    def report(state: str, facts: object) -> None:
        states.append(state)
        bench.clock.now_s += 1
        if len(states) == 5:
            refusal.error = None
        if len(states) > 5 and state == "running":
            stop.set()

    lander = bench.lander(age_s_max=0.5)
    lander.run(stop, report)

    assert states[:5] == ["failed"] * 5
    assert states[-1] == "running"
    assert len(states) < 200


def test_drain_lands_all_other_partitions_before_it_tells_of_a_refusal(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 40))
    bench.log.append(OTHER, frames(0, 40))
    bench.store.fault = Refusal(chain_of().prefix, RefusedError("no permission"))

    with pytest.raises(RefusedError, match="no permission"):
        bench.lander(bytes_max=500).drain()

    assert bench.landed(OTHER) == list(range(40))


def test_drain_waits_for_faults_that_pass_and_gives_up_on_those_that_do_not(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    faults = iter([TransientError("503")] * 5)

    def five_times(operation: str, key: str) -> None:
        if operation == "put.before" and (error := next(faults, None)) is not None:
            raise error

    bench.store.fault = five_times
    bench.lander().drain()
    assert bench.landed() == [0, 1, 2, 3]

    bench.log.append(TRADES, frames(4, 1))
    bench.store.fault = Refusal("bronze", TransientError("503 for ever"))
    with pytest.raises(TransientError, match="for ever"):
        bench.lander().drain(patience_s=3)


def test_drain_covers_the_log_as_of_the_call_and_ends_though_the_log_grows(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    put = bench.store.put_if_absent

    def grow(key: str, body: bytes, metadata: dict[str, str]) -> None:
        bench.log.append(TRADES, frames(1_000, 9))
        put(key, body, metadata)

    bench.store.put_if_absent = grow

    bench.lander().drain()

    assert bench.landed()[:4] == [0, 1, 2, 3]


def test_a_damaged_batch_stops_only_its_partition_and_is_named(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 12))
    bench.log.append(OTHER, frames(0, 5))
    bench.log.damaged.add((TRADES, 6))
    lander = bench.lander()

    with (
        capture_logs() as logs,
        pytest.raises(CorruptLogError, match=r"tickhouse\.trades\.v1\[0\]@6"),
    ):
        lander.drain()

    assert bench.landed() == [0, 1, 2, 3, 4, 5], "what lies before the damage is landed"
    assert bench.landed(OTHER) == [0, 1, 2, 3, 4]
    alarms = [line for line in logs if line["log_level"] == "error"]
    assert "tickhouse.trades.v1[0]@6" in alarms[0]["error"]

    bench.log.damaged.clear()
    waits_until = bench.clock.now_s
    lander.drain()
    assert bench.clock.now_s < waits_until + 0.1, "drain tries at once"
    assert bench.landed() == list(range(12))
    assert lander.blocked() == {}


def test_an_unreadable_tail_stops_only_its_partition_and_names_the_object(bench: Bench) -> None:
    for partition in (TRADES, OTHER):
        bench.log.append(partition, frames(0, 4))
    bench.lander().drain()
    key = chain_of().key(0)
    whole = bench.store.objects[key]
    bench.store.objects[key] = whole[:20]
    for partition in (TRADES, OTHER):
        bench.log.append(partition, frames(4, 1))
    lander = bench.lander()

    with pytest.raises(CorruptObjectError, match=key):
        lander.drain()
    assert bench.landed(OTHER) == [0, 1, 2, 3, 4]

    bench.store.objects[key] = whole
    bench.clock.now_s += BACKOFF_S_MAX
    lander.drain()
    assert bench.landed() == [0, 1, 2, 3, 4]


def test_a_damaged_body_of_the_last_object_is_told_and_landing_goes_on(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    bench.lander().drain()
    key = chain_of().key(0)
    whole = bench.store.objects[key]
    bench.store.objects[key] = whole[:-12] + bytes(12)
    bench.log.append(TRADES, frames(4, 1))

    with capture_logs() as logs:
        bench.lander().drain()

    bench.store.objects[key] = whole
    assert bench.landed() == [0, 1, 2, 3, 4]
    assert any(line["event"] == "last_object_damaged" and key in line["error"] for line in logs)


def test_what_is_buffered_is_landed_by_age_while_the_log_is_away(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander(age_s_max=2)
    lander.step(0)
    bench.log.is_away = True
    for _ in range(20):
        lander.step(0.2)
    bench.log.is_away = False

    assert bench.landed() == [0, 1, 2]
    bench.log.append(TRADES, frames(3, 1))
    bench.clock.now_s += 1
    lander.drain()
    assert bench.landed() == [0, 1, 2, 3]


# -- retention --------------------------------------------------------------------------------


def test_genesis_is_always_0_and_a_log_that_starts_later_begins_with_a_gap_object(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 9))
    bench.log.trim(TRADES, 5)
    lander = bench.lander()

    with capture_logs() as logs:
        lander.drain()

    assert bench.store.get(chain_of().genesis_key) == b'{"start":0}'
    assert [(m.start, m.next, m.n, m.gap) for m in bench.manifests()] == [
        (0, 5, 0, True),
        (5, 9, 4, False),
    ]
    (alarm,) = [line for line in logs if line["event"] == "records_lost_to_retention"]
    assert (alarm["start"], alarm["next"], alarm["log_level"]) == (0, 5, "error")
    assert lander.facts()["gaps"] == 1


def test_where_retention_passed_us_what_is_buffered_is_landed_before_the_gap(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander()
    lander.step(0)
    bench.log.append(TRADES, frames(3, 9))
    bench.log.trim(TRADES, 7)

    lander.drain()

    assert bench.landed() == [0, 1, 2, 7, 8, 9, 10, 11]
    assert [(m.start, m.next) for m in bench.manifests() if m.gap] == [(3, 7)]


@pytest.mark.parametrize("when", ["put.before", "put.after"])
def test_a_gap_object_whose_put_fails_is_put_again(bench: Bench, when: str) -> None:
    bench.log.append(TRADES, frames(0, 9))
    bench.log.trim(TRADES, 5)
    bench.store.fault = refusal = Refusal(chain_of().key(0), TransientError("503"), when=when)
    lander = bench.lander(age_s_max=1)
    for _ in range(10):
        lander.step(0)
        bench.clock.now_s += 0.1
    refusal.error = None

    for _ in range(60):
        lander.step(0)
        bench.clock.now_s += 0.1

    assert bench.landed() == [5, 6, 7, 8]
    assert [(m.start, m.next) for m in bench.manifests() if m.gap] == [(0, 5)]


def test_nothing_is_added_to_a_gap_object_that_waits(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 9))
    bench.log.trim(TRADES, 5)
    bench.store.fault = refusal = Refusal(chain_of().key(0), TransientError("503"))
    lander = bench.lander()
    lander.step(0)
    refusal.error = None
    bench.clock.now_s += 1

    lander.drain()

    assert [(m.start, m.next, m.n, m.gap) for m in bench.manifests()] == [
        (0, 5, 0, True),
        (5, 9, 4, False),
    ]


def test_a_zombie_whom_retention_passed_raises_no_alarm_for_what_a_rival_landed(
    bench: Bench,
) -> None:
    zombie = bench.lander()
    bench.log.append(TRADES, frames(0, 2))
    zombie.step(0)
    zombie_landed_first = bench.lander()
    zombie_landed_first.drain()
    bench.log.append(TRADES, frames(2, 8))
    zombie_landed_first.drain()
    bench.log.trim(TRADES, 10)
    bench.log.append(TRADES, frames(10, 1))

    with capture_logs() as logs:
        zombie.drain()

    assert bench.landed() == list(range(11))
    assert not any(line["event"] == "records_lost_to_retention" for line in logs)


def test_the_sequence_of_objects_is_told_one_line_an_object(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))

    with capture_logs() as logs:
        bench.lander().drain()

    (line,) = [line for line in logs if line["event"] == "object_landed"]
    assert line["partition"] == "tickhouse.trades.v1[0]"
    assert (line["start"], line["next"], line["n"]) == (0, 4, 4)
    assert line["bytes"] == len(Chain(bench.store, chain_of()).get(0)[1])  # type: ignore[index]
    assert line["seconds"] >= 0
