"""Random schedules of landers, crashes, zombies and store faults: each offset lands exactly once.

A schedule is a seed. Every schedule is also run against mutants, each with one rule of the
protocol broken: a test that does not find them would prove nothing.
"""

import random
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Final

import pytest

from support.landing import Clock, chain_of, landed_offsets, lines_of
from support.memory_log import TRADES, MemoryLog, Partition, frames
from support.memory_store import FaultyStore
from tickhouse.bronze import lander as lander_module
from tickhouse.bronze.buffer import Buffer
from tickhouse.bronze.chain import Chain, Published, find_chains
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.object import Manifest
from tickhouse.bronze.publishing import Job
from tickhouse.bronze.restored import choose_end
from tickhouse.errors import CorruptObjectError, RefusedError, TransientError
from tickhouse.model.positions import Stream, TopicPartition

PARTITIONS: Final = (TRADES, TopicPartition(Stream.TRADES, 1), TopicPartition(Stream.SESSIONS, 0))
SEEDS: Final = 250
STEPS: Final = 120


class Crash(BaseException):
    """The process is gone, at the very place where this is raised."""


class LateExecutor:
    """Runs jobs whenever time is looked at, or much later, as threads do; in any order."""

    def __init__(self, chance: random.Random) -> None:
        self.size = chance.randint(1, 3)
        self._random = chance
        self._jobs: list[tuple[Job, Future[Published]]] = []

    def submit(self, job: Job) -> Future[Published]:
        future: Future[Published] = Future()
        self._jobs.append((job, future))
        return future

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        self.run_one()

    def run_one(self) -> None:
        """One of the jobs; those of a killed lander are requests that are still on their way."""
        if not self._jobs:
            return
        job, future = self._jobs.pop(self._random.randrange(len(self._jobs)))
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001 - the future raises it again
            future.set_exception(error)

    def close(self) -> None:
        pass


class World:
    """A log that grows and is trimmed, a store that fails, and up to three landers at once."""

    def __init__(
        self,
        seed: int,
        *,
        lander: type[Lander] = Lander,
        store: type[FaultyStore] = FaultyStore,
    ) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.log = MemoryLog(batch_records=self.random.randint(1, 6))
        self.store = store(self._fault)
        self.is_healed = False
        self.restores = False
        self._snapshots: list[dict[TopicPartition, Partition]] = []
        self.landers: list[Lander] = []
        self.is_late = False
        self.executors: list[LateExecutor] = []
        self._lander = lander
        self._recorded = 0

    def _fault(self, operation: str, key: str) -> None:
        if self.is_healed or self.random.random() > 0.15:
            return
        raise self.random.choice(
            [Crash(), TransientError("503"), TransientError("reset"), RefusedError("full")]
        )

    def _new_lander(self) -> None:
        executor = LateExecutor(self.random) if self.is_late else None
        if executor is not None:
            self.executors.append(executor)

        def clock() -> float:
            if executor is not None and self.random.random() < 0.1:
                executor.run_one()
            return self.clock()

        self.landers.append(
            self._lander(
                self.log,
                self.store,
                bytes_max=self.random.choice([1, 900, 3_000]),
                age_s_max=self.random.choice([0.2, 1.0, 5.0]),
                memory_bytes_max=self.random.choice([1_500, 1 << 30]),
                clock=clock,
                sleep=self.clock.sleep,
                executor=executor,
            )
        )

    def run(self, steps: int = STEPS) -> None:
        """A random schedule; then all is well again, and one lander drains the log."""
        for _ in range(steps):
            self.random.choice([self._record, self._start, self._kill, *[self._land] * 6])()
            if self.restores and self.random.random() < 0.1:
                self._restore()
            self.clock.now_s += self.random.choice([0.0, 0.05, 0.5])
            if self.random.random() < 0.05:
                self._trim()
            if self.executors and self.random.random() < 0.3:
                self._arrive_late()
        self.is_healed = True
        self._new_lander()
        self.random.shuffle(self.landers)
        for lander in self.landers:
            lander.drain()

    def _record(self) -> None:
        place = self.random.choice(PARTITIONS)
        count = self.random.randint(1, 8)
        self.log.append(place, frames(self._recorded, count))
        self._recorded += count
        if self.random.random() < 0.1:
            self.log.skip(place, self.random.randint(1, 3))

    def _restore(self) -> None:
        """Keep a copy of the log, or put an older one (or the newest again) in its place."""
        self._snapshots.append(self.log.snapshot())
        if self.random.random() < 0.3:
            self.log.restore(self.random.choice(self._snapshots))

    def _start(self) -> None:
        if len(self.landers) < 3:
            self._new_lander()

    def _kill(self) -> None:
        if self.landers:
            self.landers.pop(self.random.randrange(len(self.landers)))

    def _land(self) -> None:
        """One step of any lander: one that was not chosen for long is a zombie when it is."""
        if not self.landers:
            return
        lander = self.random.choice(self.landers)
        try:
            lander.step(0)
        except Crash:
            self.landers.remove(lander)

    def _arrive_late(self) -> None:
        """What a lander, or one that was killed, has sent arrives now."""
        executor = self.random.choice(self.executors)
        try:
            executor.run_one()
        except Crash:
            self.landers = [lander for lander in self.landers if lander._executor is not executor]

    def _trim(self) -> None:
        for place in self.log.partitions():
            healed, self.is_healed = self.is_healed, True
            held = choose_end(self.log, self.store, place, self.log.life)[0].tail()
            self.is_healed = healed
            self.log.trim(place, self.random.randint(0, held))


def check(world: World, ever: dict[TopicPartition, dict[int, bytes]]) -> None:
    """Every record that was ever in the log is in the lake once, in order, with its own bytes."""
    for place, values in ever.items():
        chain = chain_of(place)
        assert landed_offsets(world.store, chain) == sorted(values)
        for line, (_, value) in zip(
            lines_of(world.store, chain), sorted(values.items()), strict=True
        ):
            assert line.endswith(value[1:])
        assert not any(manifest.gap for _, manifest in Chain(world.store, chain).walk())
        assert Chain(world.store, chain).tail() == world.log.bounds(place).end


def simulate(
    seed: int,
    *,
    lander: type[Lander] = Lander,
    store: type[FaultyStore] = FaultyStore,
    is_late: bool = False,
) -> World:
    world = World(seed, lander=lander, store=store)
    world.is_late = is_late
    ever: dict[TopicPartition, dict[int, bytes]] = {}
    append = world.log.append

    def remember(partition: TopicPartition, values: list[bytes], *, at_ms: int = 7) -> None:
        base = world.log.held[partition].end if partition in world.log.held else 0
        ever.setdefault(partition, {}).update(enumerate(values, base))
        append(partition, values, at_ms=at_ms)

    world.log.append = remember  # type: ignore[method-assign]
    world.run()
    check(world, ever)
    return world


@pytest.fixture(autouse=True)
def _polls_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lander_module, "POLL_S", 0.0)


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "in threads"])
def test_every_offset_lands_exactly_once_whatever_crashes(*, is_late: bool) -> None:
    adopted = 0
    for seed in range(SEEDS):
        try:
            world = simulate(seed, is_late=is_late)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        adopted += sum(lander.facts()["adopted"] for lander in world.landers)

    assert adopted > SEEDS / 10, "the schedules hardly ever made two landers meet"


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "in threads"])
def test_whatever_copies_of_the_log_are_restored_what_it_holds_is_landed(*, is_late: bool) -> None:
    generations = 0
    for seed in range(SEEDS):
        try:
            generations += _restore_at_random(seed, is_late=is_late)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

    assert generations > SEEDS, "the schedules hardly ever opened a new chain"


def _restore_at_random(seed: int, *, is_late: bool) -> int:
    world = World(seed)
    world.is_late = is_late
    world.restores = True
    world.run()
    chains = find_chains(world.store)
    landed = {line.split(b",", 4)[4] for chain in chains for line in lines_of(world.store, chain)}
    for place, held in world.log.held.items():
        chain, _ = choose_end(world.log, world.store, place, world.log.life)
        offsets = landed_offsets(world.store, chain.id)
        lines = dict(zip(offsets, lines_of(world.store, chain.id), strict=True))
        gaps = [range(m.start, m.next) for _, m in chain.walk() if m.gap]
        assert len(lines) == len(offsets)
        assert chain.tail() == held.end
        for offset, (_, value) in held.records.items():
            assert value[1:] in landed
            if offset in lines:
                assert lines[offset].endswith(value[1:])
            else:
                assert any(offset in gap for gap in gaps)
    return len(chains) - len(world.log.held)


# -- mutants ----------------------------------------------------------------------------------


class OverwritingStore(FaultyStore):
    """A plain put: the last writer wins."""

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        self.objects.pop(key, None)
        super().put_if_absent(key, body, metadata)


class ExistsIsSuccessLander(Lander):
    """A taken key is taken for its own success."""

    def _adopt(self, buffer: Buffer, chain: Chain, found: Manifest) -> None:
        buffer.restart(buffer.next)
        buffer.succeed()


class KeepsCoveredLinesLander(Lander):
    """Moves its start behind the object found, and lands lines again that it covers."""

    def _publish(self, buffer: Buffer) -> bool:
        self.kept = buffer.draft
        return super()._publish(buffer)

    def _adopt(self, buffer: Buffer, chain: Chain, found: Manifest) -> None:
        buffer.restart(found.next)
        buffer.draft = self.kept
        buffer.draft.start, buffer.draft.next = found.next, max(found.next, self.kept.next)
        buffer.succeed()


class ForgetsToSeekLander(Lander):
    """Adopts a shorter object, drops its lines and reads on where it was."""

    def _go_on(self, buffer: Buffer) -> None:
        position = self._subscription._positions.get(buffer.partition, 0)  # type: ignore[attr-defined]
        buffer.restart(max(buffer.next, position))
        super()._go_on(buffer)


class NewNameOnTransientErrorLander(Lander):
    """Takes an unknown outcome for a failure, drops what it held and reads on."""

    def _block(self, buffer: Buffer, error: Exception) -> None:
        if isinstance(error, TransientError):
            buffer.restart(buffer.next)
            return
        super()._block(buffer, error)


class CommittedOffsetLander(Lander):
    """Commits what it has read, before it is put, and trusts that instead of the chain."""

    def _settle(self, buffer: Buffer) -> bool:
        committed: dict[TopicPartition, int] = self._log.__dict__.setdefault("committed", {})
        settled = super()._settle(buffer)
        if settled:
            buffer.restart(max(committed.get(buffer.partition, 0), 0))
        return settled

    def _publish(self, buffer: Buffer) -> bool:
        self._log.__dict__.setdefault("committed", {})[buffer.partition] = buffer.next
        return super()._publish(buffer)


MUTANTS: Final[dict[str, Callable[[int], World]]] = {
    "plain put": lambda seed: simulate(seed, store=OverwritingStore),
    "exists is success": lambda seed: simulate(seed, lander=ExistsIsSuccessLander),
    "covered lines kept": lambda seed: simulate(seed, lander=KeepsCoveredLinesLander),
    "no seek after adopting": lambda seed: simulate(seed, lander=ForgetsToSeekLander),
    "unknown is failure": lambda seed: simulate(seed, lander=NewNameOnTransientErrorLander),
    "commit before put": lambda seed: simulate(seed, lander=CommittedOffsetLander),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_lander_with_one_rule_broken_is_found(mutant: str) -> None:
    for seed in range(40):
        try:
            MUTANTS[mutant](seed)
        except (AssertionError, CorruptObjectError):
            return

    pytest.fail(f"40 schedules did not find: {mutant}")


# -- every step -------------------------------------------------------------------------------


def test_a_crash_at_every_single_step_of_a_schedule_loses_nothing() -> None:
    """Two landers; one of them is killed at the n-th thing that it asks of the store, for all n."""
    asked = _crash_at(-1)
    assert asked > 15

    for place in range(asked):
        _crash_at(place)


def _crash_at(place: int) -> int:
    count = 0

    def fault(operation: str, key: str) -> None:
        nonlocal count
        count += 1
        if count - 1 == place:
            raise Crash

    clock = Clock()
    log = MemoryLog(batch_records=3)
    store = FaultyStore(fault)

    def start() -> Lander:
        return Lander(log, store, bytes_max=700, age_s_max=0.5, clock=clock, sleep=clock.sleep)

    pair = [start(), start()]
    for number in range(0, 30, 3):
        log.append(TRADES, frames(number, 3))
        clock.now_s += 0.3
        try:
            pair[number % 2].step(0)
        except Crash:
            pair[number % 2] = start()
    store.fault = lambda _operation, _key: None
    start().drain()

    assert landed_offsets(store, chain_of()) == list(range(30))
    return count
