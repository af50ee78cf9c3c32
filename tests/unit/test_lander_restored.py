"""`land` when the log is another one than before: recreated, restored, or read as two copies."""

import copy

import pytest
from structlog.testing import capture_logs

from support.landing import Bench, chain_of, lines_of
from support.memory_log import TRADES, frames
from tickhouse.bronze import lander as lander_module
from tickhouse.bronze.restored import choose_end, held_offsets
from tickhouse.errors import CorruptLogError, RefusedError
from tickhouse.model.positions import Stream, TopicPartition

NEW_SESSION = "0192f0a0-0000-7000-8000-00000000ffff"


@pytest.fixture(autouse=True)
def _polls_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lander_module, "POLL_S", 0.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def payloads(bench: Bench, topic_id: str) -> list[bytes]:
    """The envelopes of a chain, positions stripped."""
    lines = lines_of(bench.store, chain_of(TRADES, topic_id))
    return [b"{" + line.split(b",", 4)[4] for line in lines]


# -- topic ids --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
def test_a_recreated_topic_is_a_new_chain_and_what_was_buffered_ends_the_old_one(
    bench: Bench, *, is_told: bool
) -> None:
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander()
    lander.step(0)
    if is_told:
        bench.log.restore({}, topic_id="e2")
    else:
        bench.log.recreate("e2")
    fresh = frames(50, 7, session=NEW_SESSION)
    bench.log.append(TRADES, fresh)

    lander.drain()

    assert bench.landed(topic_id="e1") == [0, 1, 2]
    assert bench.landed(topic_id="e2") == list(range(7))
    assert payloads(bench, "e2") == fresh
    assert bench.store.get(chain_of(topic_id="e2").genesis_key) == b'{"start":0}'


def test_a_recreated_topic_that_begins_later_begins_with_a_gap_object(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander()
    lander.drain()
    bench.log.restore({}, topic_id="e2")
    bench.log.append(TRADES, frames(0, 8))
    bench.log.trim(TRADES, 4)

    lander.drain()

    assert bench.landed(topic_id="e2") == [4, 5, 6, 7]
    assert [(m.start, m.next) for m in bench.manifests(topic_id="e2") if m.gap] == [(0, 4)]


def test_what_was_buffered_of_the_old_topic_is_kept_while_the_store_refuses_it(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 3))
    lander = bench.lander(age_s_max=1)
    lander.step(0)
    is_full = [True]

    def full(operation: str, key: str) -> None:
        if operation == "put.before" and is_full[0]:
            raise RefusedError("full")

    bench.store.fault = full
    bench.log.restore({}, topic_id="e2")
    bench.log.append(TRADES, frames(0, 2))
    for _ in range(40):
        lander.step(0)
        bench.clock.now_s += 0.5
    is_full[0] = False
    lander.drain()

    assert bench.landed(topic_id="e1") == [0, 1, 2]
    assert bench.landed(topic_id="e2") == [0, 1]


# -- older copies -----------------------------------------------------------------------------


def with_older_copy(bench: Bench) -> list[bytes]:
    """Lands 10 records, then restores a copy of the log made at 6; returns those 6."""
    bench.log.append(TRADES, frames(0, 6))
    older = bench.log.snapshot()
    bench.log.append(TRADES, frames(6, 4))
    bench.lander().drain()
    bench.log.restore(older)
    return frames(0, 6)


@pytest.mark.parametrize("more", [0, 3, 4, 9], ids=lambda more: f"{more} records since")
def test_an_older_copy_of_the_log_opens_a_new_chain_and_everything_still_held_is_landed_again(
    bench: Bench, more: int
) -> None:
    held = with_older_copy(bench)
    since = frames(100, more, session=NEW_SESSION)
    bench.log.append(TRADES, since)

    with capture_logs() as logs:
        bench.lander().drain()

    assert bench.landed() == list(range(10)), "the old chain stays as it was"
    assert payloads(bench, "e1.1") == held + since
    alarms = [line for line in logs if line["event"] == "log_was_restored"]
    assert [line["chain"] for line in alarms] == [chain_of(topic_id="e1.1").prefix]


def test_a_copy_restored_while_the_lander_runs_is_noticed(bench: Bench) -> None:
    lander = bench.lander()
    bench.log.append(TRADES, frames(0, 6))
    lander.drain()
    older = bench.log.snapshot()
    bench.log.append(TRADES, frames(6, 4))
    lander.drain()
    bench.log.restore(older)
    bench.log.bounds(TRADES)
    bench.log.append(TRADES, frames(100, 2, session=NEW_SESSION))

    lander.drain()

    assert bench.landed(topic_id="e1.1") == list(range(8))


def test_the_new_chain_goes_on_after_a_restart(bench: Bench) -> None:
    with_older_copy(bench)
    bench.lander().drain()
    bench.log.append(TRADES, frames(100, 8, session=NEW_SESSION))

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == list(range(14))
    assert bench.store.folders("bronze/v1/trades") == [
        "tickhouse.trades.v1~e1",
        "tickhouse.trades.v1~e1.1",
    ]


def test_a_log_restored_twice_opens_a_chain_each_time(bench: Bench) -> None:
    with_older_copy(bench)
    older = bench.log.snapshot()
    bench.log.append(TRADES, frames(100, 3, session=NEW_SESSION))
    bench.lander().drain()
    bench.log.restore(older)

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == list(range(9))
    assert bench.landed(topic_id="e1.2") == list(range(6))


def test_the_original_log_put_back_goes_on_in_its_own_chain(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 6))
    older = bench.log.snapshot()
    bench.log.append(TRADES, frames(6, 4))
    bench.lander().drain()
    original = bench.log.snapshot()
    bench.log.restore(older)
    bench.log.append(TRADES, frames(100, 1, session=NEW_SESSION))
    bench.lander().drain()
    bench.log.restore(original)
    bench.log.append(TRADES, frames(10, 1))

    bench.lander().drain()

    assert bench.landed() == list(range(11))
    assert bench.landed(topic_id="e1.1") == list(range(7))


def test_of_several_chains_that_agree_the_newest_goes_on(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 6))
    older = bench.log.snapshot()
    bench.log.append(TRADES, frames(6, 4))
    bench.lander().drain()
    original = bench.log.snapshot()
    bench.log.restore(older)
    bench.lander().drain()
    bench.log.restore(original)

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == list(range(10))
    assert choose_end(bench.log, bench.store, TRADES, "e1")[0].id.topic_id == "e1.1"


def test_a_crash_after_opening_the_new_chain_changes_nothing(bench: Bench) -> None:
    with_older_copy(bench)
    chosen, _ = choose_end(bench.log, bench.store, TRADES, "e1")
    chosen.open()

    bench.lander().drain()

    assert chosen.id.topic_id == "e1.1"
    assert bench.landed(topic_id="e1.1") == list(range(6))


def test_every_lander_chooses_the_same_chain_from_the_lake_alone(bench: Bench) -> None:
    with_older_copy(bench)
    first, second = bench.lander(), bench.lander()
    first.step(0)
    second.step(0)
    first.drain()
    second.drain()

    assert bench.landed(topic_id="e1.1") == list(range(6))
    assert len(bench.store.folders("bronze/v1/trades")) == 2


def test_an_object_of_a_rival_that_read_another_copy_of_the_log_is_not_taken_for_ours(
    bench: Bench,
) -> None:
    """Without the comparison, records 8 and 9 of the restored log would be in no object."""
    bench.log.append(TRADES, frames(0, 6))
    bench.lander().drain()
    rival_bench = copy.copy(bench)
    rival_bench.log = copy.deepcopy(bench.log)
    rival_bench.log.append(TRADES, frames(6, 4))
    rival = rival_bench.lander()
    rival.step(0)
    bench.log.append(TRADES, frames(100, 5, session=NEW_SESSION))
    ours = bench.lander()
    ours.step(0)
    rival.drain()

    ours.drain()

    assert bench.landed() == list(range(10))
    assert payloads(bench, "e1.1") == frames(0, 6) + frames(100, 5, session=NEW_SESSION)


def test_a_copy_that_has_records_where_the_last_object_has_only_markers_opens_a_new_chain(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 4))
    older = bench.log.snapshot()
    bench.lander().drain()
    bench.log.skip(TRADES, 2)
    bench.lander().drain()
    assert [m.n for m in bench.manifests()] == [4, 0]
    bench.log.restore(older)
    bench.log.append(TRADES, frames(100, 5, session=NEW_SESSION))

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == list(range(9))


def test_the_record_before_trailing_markers_is_compared_too(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 2))
    older = bench.log.snapshot()
    bench.log.append(TRADES, frames(2, 2))
    bench.lander().drain()
    bench.log.skip(TRADES, 2)
    bench.lander().drain()
    bench.log.restore(older)
    bench.log.append(TRADES, frames(100, 2, session=NEW_SESSION))
    bench.log.skip(TRADES, 2)
    bench.log.append(TRADES, frames(102, 1, session=NEW_SESSION))

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == [0, 1, 2, 3, 6]


def test_a_copy_whose_last_landed_record_is_trimmed_may_still_differ_behind_it(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 4))
    older = bench.log.snapshot()
    bench.log.skip(TRADES, 2)
    bench.lander().drain()
    bench.log.restore(older)
    bench.log.append(TRADES, frames(100, 3, session=NEW_SESSION))
    bench.log.trim(TRADES, 4)

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == [4, 5, 6]


def test_a_copy_that_still_holds_what_the_lake_calls_a_gap_is_landed_whole(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 9))
    whole = bench.log.snapshot()
    bench.log.trim(TRADES, 9)
    bench.lander().drain()
    assert [m.gap for m in bench.manifests()] == [True]
    bench.log.restore(whole)

    bench.lander().drain()

    assert bench.landed(topic_id="e1.1") == list(range(9))


# -- what is no older copy --------------------------------------------------------------------


def test_a_log_trimmed_up_to_the_tail_goes_on_in_its_chain(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 10))
    bench.lander().drain()
    bench.log.trim(TRADES, 10)
    bench.log.append(TRADES, frames(10, 2))

    bench.lander().drain()

    assert bench.landed() == list(range(12))


def test_a_last_record_that_was_trimmed_before_markers_cannot_be_compared_and_agrees(
    bench: Bench,
) -> None:
    bench.log.append(TRADES, frames(0, 4))
    bench.log.skip(TRADES, 4)
    bench.lander().drain()
    bench.log.trim(TRADES, 6)
    bench.log.append(TRADES, frames(4, 1))

    bench.lander().drain()

    assert bench.landed() == [0, 1, 2, 3, 8]


def test_a_chain_that_ends_with_markers_goes_on(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    bench.lander().drain()
    bench.log.skip(TRADES, 2)
    bench.lander().drain()
    bench.log.append(TRADES, frames(4, 1))

    bench.lander().drain()

    assert [m.n for m in bench.manifests()] == [4, 0, 1]
    assert bench.landed() == [0, 1, 2, 3, 6]


def test_a_chain_that_ends_with_a_gap_object_goes_on(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 9))
    bench.log.trim(TRADES, 5)
    lander = bench.lander()
    lander.step(0)
    bench.log.append(TRADES, frames(9, 1))

    bench.lander().drain()

    assert bench.landed() == [5, 6, 7, 8, 9]


def test_poison_as_the_last_record_is_compared_like_any_other(bench: Bench) -> None:
    bench.log.append(TRADES, [b"poison"])
    bench.lander().drain()
    bench.log.append(TRADES, [b"more"])

    bench.lander().drain()

    assert bench.landed() == [0, 1]


def test_a_folder_of_somebody_elses_is_no_generation(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 2))
    bench.lander().drain()
    for life in ("e1.0", "e1.x", "e1.", "e1.07", "e10.1"):
        other = chain_of(topic_id=life)
        bench.store.put_if_absent(other.key(0), bench.store.get(chain_of().key(0)), {})
    bench.log.append(TRADES, frames(2, 1))

    bench.lander().drain()

    assert bench.landed() == [0, 1, 2]


def test_a_damaged_record_to_compare_with_stops_the_partition_by_name(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    bench.lander().drain()
    bench.log.append(TRADES, frames(4, 1))
    bench.log.damaged.add((TRADES, 3))

    with pytest.raises(CorruptLogError, match="@3"):
        bench.lander().drain()

    assert bench.landed() == [0, 1, 2, 3]
    assert len(bench.store.folders("bronze/v1/trades")) == 1


# -- what retention may remove ----------------------------------------------------------------


def test_the_lake_holds_what_lies_below_the_tail_of_the_chain_that_the_log_continues(
    bench: Bench,
) -> None:
    held = held_offsets(bench.log, bench.store)
    other = TopicPartition(Stream.TRADES, 1)
    assert held(TRADES) == 0

    with_older_copy(bench)
    assert held(TRADES) == 0, "the restored log is not landed yet"

    bench.lander().drain()
    assert held(TRADES) == 6
    assert held(other) == 0

    bench.log.append(TRADES, frames(6, 3, session=NEW_SESSION))
    bench.lander().drain()
    assert held(TRADES) == 9
    bench.log.restore({TRADES: bench.log.snapshot()[TRADES]}, topic_id="e2")
    assert held(TRADES) == 0


def test_the_lake_does_not_hold_what_lies_in_a_damaged_last_object(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    bench.lander().drain()
    key = chain_of().key(0)
    bench.store.objects[key] = bench.store.objects[key][:-12] + bytes(12)

    assert held_offsets(bench.log, bench.store)(TRADES) == 0


def test_asking_again_what_the_lake_holds_costs_what_was_landed_since(bench: Bench) -> None:
    held = held_offsets(bench.log, bench.store)
    for number in range(20):
        bench.log.append(TRADES, frames(number, 1))
        bench.lander().drain()
    assert held(TRADES) == 20
    bench.log.append(TRADES, frames(20, 1))
    bench.lander().drain()
    asked: list[str] = []
    bench.store.fault = lambda operation, _key: asked.append(operation)

    assert held(TRADES) == 21
    assert "list" not in asked


def test_a_lake_that_cannot_be_read_holds_nothing(bench: Bench) -> None:
    bench.log.append(TRADES, frames(0, 4))
    bench.lander().drain()
    held = held_offsets(bench.log, bench.store)
    assert held(TRADES) == 4

    bench.store.objects[chain_of().key(0)] = b"damaged"

    assert held(TRADES) == 0
