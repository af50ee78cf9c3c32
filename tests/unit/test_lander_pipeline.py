"""`land` while objects are on their way: order, memory, partitions that come and go."""

import threading
import time
from collections.abc import Collection
from concurrent.futures import Future

import msgspec
import pytest
from structlog.testing import capture_logs

from support.landing import Bench, chain_of
from support.memory_log import SESSION, TRADES, MemoryLog, frames
from tickhouse.bronze import lander as lander_module
from tickhouse.bronze.chain import Chain, Published
from tickhouse.bronze.lander import MARKERS_AGE_S, Lander
from tickhouse.bronze.publishing import Job, ThreadsExecutor
from tickhouse.bronze.restored import holds_records
from tickhouse.errors import RefusedError, TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import (
    LogBatch,
    OnRevoked,
    Position,
    PositionOf,
    SpoolRange,
    Subscription,
    nothing_revoked,
)

OTHER = TopicPartition(Stream.TRADES, 1)


@pytest.fixture(autouse=True)
def _polls_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lander_module, "POLL_S", 0.0)


class HeldExecutor:
    """Jobs run when the test says so."""

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.jobs: list[tuple[Job, Future[Published]]] = []
        self.waits = 0

    def submit(self, job: Job) -> Future[Published]:
        future: Future[Published] = Future()
        self.jobs.append((job, future))
        return future

    def run(self) -> None:
        """Run what was submitted, in order."""
        jobs, self.jobs = self.jobs, []
        for job, future in jobs:
            try:
                future.set_result(job())
            except Exception as error:  # noqa: BLE001 - the future raises it again
                future.set_exception(error)

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        self.waits += 1

    def close(self) -> None:
        pass


class EagerExecutor(HeldExecutor):
    """Jobs run when somebody waits for them."""

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        super().wait(running, timeout_s)
        self.run()


class GroupLog(MemoryLog):
    """A log that says where records came from, and that a test can revoke partitions of."""

    def __init__(self) -> None:
        super().__init__(batch_records=2)
        self.spools: dict[int, str] = {}
        self.revoke: OnRevoked = nothing_revoked
        self.assign: PositionOf = lambda *_: Position(0)
        self.committed: list[int] = []

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        batch = super().read(partition, start, bytes_max=bytes_max)
        if batch is None or not batch.values:
            return batch
        epochs = {self.spools.get(offset) for offset in batch.offsets}
        epoch = epochs.pop() if len(epochs) == 1 else None
        spool = epoch and SpoolRange(epoch, batch.offsets[0] * 10, batch.offsets[-1] * 10)
        return msgspec.structs.replace(batch, spool=spool or None, leader_epoch=batch.offsets[-1])

    def subscribe(
        self, position_of: PositionOf, on_revoked: OnRevoked = nothing_revoked
    ) -> Subscription:
        self.assign, self.revoke = position_of, on_revoked
        return super().subscribe(position_of, on_revoked)


class Pipe(Bench):
    """A bench whose objects land when the test says so."""

    def __init__(self, executor: HeldExecutor | None = None) -> None:
        super().__init__()
        self.group = GroupLog()
        self.log = self.group
        self.executor = executor or HeldExecutor()

    def start(self, *, bytes_max: int = 1, memory_bytes_max: int = 1 << 30) -> Lander:
        return Lander(
            self.log,
            self.store,
            bytes_max=bytes_max,
            age_s_max=1.0,
            memory_bytes_max=memory_bytes_max,
            clock=self.clock,
            sleep=self.clock.sleep,
            executor=self.executor,
        )


def steps(lander: Lander, count: int) -> None:
    for _ in range(count):
        lander.step(0)


# -- order ------------------------------------------------------------------------------------


def test_reading_goes_on_while_an_object_is_on_its_way_and_one_at_a_time_keeps_the_order() -> None:
    pipe = Pipe()
    pipe.log.append(TRADES, frames(0, 8))
    lander = pipe.start(bytes_max=700)

    steps(lander, 2)
    assert len(pipe.executor.jobs) == 1
    assert pipe.landed() == []
    assert lander.facts()["positions"] == {"tickhouse.trades.v1[0]": 0}

    pipe.executor.run()
    lander.step(0)
    assert lander.facts()["positions"]["tickhouse.trades.v1[0]"] > 0
    for _ in range(20):
        pipe.clock.now_s += 1
        lander.step(0)
        assert len(pipe.executor.jobs) <= 1
        pipe.executor.run()
    assert pipe.landed() == list(range(8))


def test_what_was_read_behind_an_object_that_a_rival_landed_alike_is_kept() -> None:
    pipe = Pipe()
    pipe.log.append(TRADES, frames(0, 2))
    ours = pipe.start()
    ours.step(0)
    pipe.lander().drain()
    pipe.log.append(TRADES, frames(2, 2))
    ours.step(0)
    read = pipe.log.bytes_read

    pipe.executor.run()
    steps(ours, 2)
    pipe.executor.run()
    ours.step(0)

    assert [(m.start, m.next) for m in pipe.manifests()] == [(0, 2), (2, 4)]
    assert ours.facts()["adopted"] == 1
    assert pipe.log.bytes_read - read < 2 * len(frames(2, 1)[0]), "read again beyond the check"


def test_what_was_read_behind_an_object_that_a_rival_landed_longer_is_dropped() -> None:
    pipe = Pipe()
    pipe.log.append(TRADES, frames(0, 2))
    ours = pipe.start()
    ours.step(0)
    pipe.log.append(TRADES, frames(2, 3))
    ours.step(0)
    pipe.lander().drain()
    pipe.log.append(TRADES, frames(5, 2))

    for _ in range(6):
        pipe.executor.run()
        ours.step(0)

    assert [(m.start, m.next) for m in pipe.manifests()] == [(0, 5), (5, 7)]


def test_an_object_that_fails_is_put_again_and_what_was_read_behind_it_waits() -> None:
    pipe = Pipe()
    errors = [TransientError("503"), RefusedError("full")]

    def fault(operation: str, key: str) -> None:
        if operation == "put.before" and key == chain_of().key(0) and errors:
            raise errors.pop()

    pipe.store.fault = fault
    pipe.log.append(TRADES, frames(0, 6))
    lander = pipe.start()
    for _ in range(40):
        lander.step(0)
        pipe.executor.run()
        pipe.clock.now_s += 0.2

    assert pipe.landed() == list(range(6))
    assert not errors


# -- memory -----------------------------------------------------------------------------------


def test_64_partitions_at_any_rate_stay_within_the_budget() -> None:
    pipe = Pipe(EagerExecutor(size=3))
    places = [TopicPartition(Stream.TRADES, part) for part in range(64)]
    for place in places:
        pipe.log.append(place, frames(0, 40, size=500))
    batch = 2 * 700 * len(places)
    lander = pipe.start(bytes_max=5_000, memory_bytes_max=100_000)

    highest = 0
    for number in range(3_000):
        lander.step(0)
        assert len(pipe.executor.jobs) <= 3
        if number % 5 == 0:
            pipe.executor.run()
        highest = max(highest, lander.facts()["buffered_bytes"])
        pipe.clock.now_s += 0.01

    assert highest < 100_000 + batch, "one round of batches may lie above the budget"
    assert all(pipe.landed(place) == list(range(40)) for place in places)


def test_a_full_partition_whose_object_hangs_is_paused_and_the_others_go_on() -> None:
    pipe = Pipe()
    pipe.log.append(TRADES, frames(0, 400))
    lander = pipe.start(bytes_max=900)
    lander.step(0)
    hung, pipe.executor.jobs = pipe.executor.jobs, []
    for number in range(60):
        pipe.log.append(OTHER, frames(number, 1))
        lander.step(0)
        pipe.executor.run()
        pipe.clock.now_s += 0.3

    assert len(pipe.landed(OTHER)) > 40
    assert lander.facts()["buffered_bytes"] < 5_000

    pipe.executor.jobs = hung
    for _ in range(300):
        pipe.executor.run()
        lander.step(0)
        pipe.clock.now_s += 0.3
    assert pipe.landed() == list(range(400))


def test_threads_land_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lander_module, "POLL_S", 0.001)
    pipe = Pipe()
    executor = ThreadsExecutor(3)
    for part in range(5):
        pipe.log.append(TopicPartition(Stream.TRADES, part), frames(0, 500))
    lander = Lander(pipe.log, pipe.store, bytes_max=2_000, executor=executor)

    lander.drain()
    executor.close()

    for part in range(5):
        assert pipe.landed(TopicPartition(Stream.TRADES, part)) == list(range(500))


def test_drain_waits_for_what_is_on_its_way() -> None:
    pipe = Pipe()
    release = threading.Event()
    put = pipe.store.put_if_absent

    def slow(key: str, body: bytes, metadata: dict[str, str]) -> None:
        assert release.wait(30) or key.endswith("GENESIS")
        put(key, body, metadata)

    pipe.log.append(TRADES, frames(0, 2))
    executor = ThreadsExecutor(1)
    lander = Lander(pipe.log, pipe.store, bytes_max=1, executor=executor)
    lander.step(0)
    pipe.store.put_if_absent = slow  # type: ignore[method-assign]
    pipe.log.append(TRADES, frames(2, 2))
    timer = threading.Timer(0.2, release.set)
    timer.start()

    began = time.monotonic()
    lander.drain()
    executor.close()

    assert time.monotonic() - began > 0.1
    assert pipe.landed() == [0, 1, 2, 3]


# -- partitions that come and go --------------------------------------------------------------


def test_a_partition_given_up_is_landed_first_and_then_forgotten() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(TRADES, frames(0, 3))
    lander = pipe.start(bytes_max=1 << 20)
    steps(lander, 2)

    pipe.group.revoke([TRADES], False)

    assert pipe.landed() == [0, 1, 2]
    assert lander.facts()["positions"] == {}
    assert lander.facts()["buffered_bytes"] == 0


def test_a_partition_given_up_while_the_store_hangs_is_forgotten_after_the_deadline() -> None:
    pipe = Pipe()
    pipe.log.append(TRADES, frames(0, 3))
    lander = pipe.start(bytes_max=1 << 20)
    steps(lander, 2)
    began = pipe.clock.now_s

    pipe.group.revoke([TRADES], False)

    assert 1.9 < pipe.clock.now_s - began < 2.5
    assert lander.facts()["positions"] == {}
    assert lander.facts()["buffered_bytes"] > 0, "what is on its way still counts"
    pipe.executor.run()
    lander.step(0)
    assert lander.facts()["buffered_bytes"] == 0
    assert pipe.landed() == [0, 1, 2], "it harms nobody where it lands at last"


def test_a_partition_lost_is_forgotten_at_once_and_the_next_reader_starts_at_the_tail() -> None:
    pipe = Pipe()
    pipe.log.append(TRADES, frames(0, 3))
    lander = pipe.start(bytes_max=1 << 20)
    steps(lander, 2)

    pipe.group.revoke([TRADES], True)

    assert not pipe.executor.jobs
    assert pipe.landed() == []
    assert pipe.group.assign(TRADES, "e1", False) == Position(0, None)
    lander.step(0)


def test_drain_is_finished_when_another_reader_has_landed_its_partition() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(TRADES, frames(0, 3))
    pipe.log.append(OTHER, frames(0, 3))
    ours = pipe.start()
    steps(ours, 2)
    pipe.group.revoke([OTHER], True)
    ours._subscription.pause(OTHER)
    pipe.lander().drain()

    ours.drain()

    assert pipe.landed() == pipe.landed(OTHER) == [0, 1, 2]


def test_drain_gives_up_on_a_reader_that_lands_nothing() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(OTHER, frames(0, 3))
    ours = pipe.start(bytes_max=1 << 20)
    ours.step(0)
    pipe.group.revoke([OTHER], True)

    with pytest.raises(TransientError, match="another reader has it"):
        ours.drain(patience_s=3)


def test_stopping_does_not_wait_for_what_other_readers_have() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(TRADES, frames(0, 3))
    pipe.log.append(OTHER, frames(0, 3))
    ours = pipe.start(bytes_max=1 << 20)
    steps(ours, 2)
    pipe.group.revoke([OTHER], True)

    ours.drain(everything=False)

    assert (pipe.landed(), pipe.landed(OTHER)) == ([0, 1, 2], [])


# -- topics that are made anew unnoticed ------------------------------------------------------


@pytest.mark.parametrize("of_old", [0, 2, 4])
def test_records_of_a_topic_made_anew_do_not_end_the_old_chain(of_old: int) -> None:
    """The reader was never told: its batches carry the old id, as a client's do."""
    bench = Bench()
    bench.log.append(TRADES, frames(0, of_old))
    lander = bench.lander()
    steps(lander, 2)
    fresh = frames(100, 8, session="0192f0a0-0000-7000-8000-00000000ffff")
    bench.log.recreate("e2")
    bench.log.append(TRADES, fresh)
    read = bench.log.read

    def stale(partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20) -> object:
        batch = read(partition, start, bytes_max=bytes_max)
        return batch and msgspec.structs.replace(batch, topic_id="e1")

    bench.log.read = stale  # type: ignore[method-assign, assignment]
    lander.step(0)
    bench.log.read = read  # type: ignore[method-assign]

    lander.drain()

    assert bench.landed(topic_id="e1") == list(range(of_old))
    assert bench.landed(topic_id="e2") == list(range(8))


# -- markers ----------------------------------------------------------------------------------


def test_markers_alone_are_not_landed_while_it_runs_and_the_chain_is_level_without_them() -> None:
    bench = Bench()
    lander = bench.lander(age_s_max=1)
    for number in range(20):
        bench.log.append(TRADES, frames(number, 1))
        lander.step(0)
        bench.clock.now_s += 1
        lander.step(0)
        bench.log.skip(TRADES, 1)
        for _ in range(5):
            lander.step(0)
            bench.clock.now_s += 1

    manifests = bench.manifests()
    assert [m.n for m in manifests] == [1] * 20
    assert manifests[-1].next == 39
    assert bench.log.bounds(TRADES).end == 40
    assert not holds_records(bench.log, TRADES, 39, 40)
    assert holds_records(bench.log, TRADES, 38, 40)


def test_markers_alone_are_landed_once_after_a_long_time_so_that_retention_loses_nothing() -> None:
    bench = Bench()
    bench.log.append(TRADES, frames(0, 1))
    lander = bench.lander(age_s_max=1)
    lander.drain()
    bench.log.skip(TRADES, 1)
    for _ in range(50):
        lander.step(0)
        bench.clock.now_s += MARKERS_AGE_S / 10

    assert [(m.n, m.start, m.next, m.gap) for m in bench.manifests()] == [
        (1, 0, 1, False),
        (0, 1, 2, False),
    ]


def test_the_last_object_with_records_is_found_without_listing_the_chain() -> None:
    bench = Bench()
    lander = bench.lander(bytes_max=1)
    bench.log.append(TRADES, frames(0, 400))
    lander.drain()
    bench.log.skip(TRADES, 1)
    lander.drain()
    listed: list[str] = []
    list_objects = bench.store.list_objects

    def count(prefix: str, *, start_after: str = "") -> object:
        for found in list_objects(prefix, start_after=start_after):
            listed.append(found.key)
            yield found

    bench.store.list_objects = count  # type: ignore[method-assign, assignment]
    chain = Chain(bench.store, chain_of())
    found = chain.last_with_records(100_000_000)
    assert found is not None
    assert found.next == 400
    listed.clear()
    found = chain.last_with_records(400)
    assert found is not None
    assert found.next == 400


# -- where records came from ------------------------------------------------------------------


def test_the_manifest_says_which_spool_offsets_and_which_leader_the_records_had() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(TRADES, frames(0, 4))
    pipe.group.spools = dict.fromkeys(range(4), "s1")

    pipe.start(bytes_max=1 << 20).drain()

    (manifest,) = pipe.manifests()
    assert manifest.spool == SpoolRange("s1", 0, 30)
    assert manifest.leader_epoch == 3
    other = pipe.start()
    other.step(0)
    assert pipe.group.assign(TRADES, "e1", False) == Position(4, 3)


def test_an_object_holds_records_of_one_spool() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(TRADES, frames(0, 8))
    pipe.group.spools = {**dict.fromkeys(range(4), "s1"), **dict.fromkeys(range(4, 8), "s2")}

    pipe.start(bytes_max=1 << 20).drain()

    assert [m.spool for m in pipe.manifests()] == [
        SpoolRange("s1", 0, 30),
        SpoolRange("s2", 40, 70),
    ]
    assert pipe.landed() == list(range(8))


def test_records_of_nobody_we_know_leave_the_spool_unsaid() -> None:
    pipe = Pipe(EagerExecutor())
    pipe.log.append(TRADES, frames(0, 6))
    pipe.group.spools = {0: "s1", 1: "s1", 4: "s1", 5: "s1"}

    pipe.start(bytes_max=1 << 20).drain()

    assert [m.spool for m in pipe.manifests()] == [None]
    assert pipe.landed() == list(range(6))


def test_a_session_that_the_check_reads_as_a_whole_lands_its_own_bytes() -> None:
    bench = Bench(batch_records=5_000)
    values = frames(10_000, 5_000, session=SESSION)
    bench.log.append(TRADES, values)

    with capture_logs():
        bench.lander().drain()

    assert bench.landed() == list(range(5_000))
