"""One schedule: everybody acts in an order that the seed decides, then all is well again."""

import contextlib
from collections.abc import Callable, Generator
from typing import Final

import msgspec

from tests.fault.simulation.chance import Chance, Crash
from tests.fault.simulation.clients import Clients
from tests.fault.simulation.executor import SimulatedExecutor
from tests.fault.simulation.group import Group, Member
from tests.fault.simulation.kafka import (
    AwayError,
    FencedError,
    SimulatedKafka,
    SimulatedReader,
)
from tests.fault.simulation.real_warehouse import CrashingDuckDB
from tests.fault.simulation.relay import Relay
from tests.fault.simulation.spool import SimulatedSpool
from tests.fault.simulation.store import SimulatedStore
from tests.fault.simulation.warehouse import SimulatedWarehouse
from tickhouse.bronze.lander import Lander
from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import OnRevoked, PositionOf, Subscription
from tickhouse.warehouse.loader import Loader

PLACES: Final = (
    TopicPartition(Stream.TRADES, 0),
    TopicPartition(Stream.TRADES, 1),
    TopicPartition(Stream.SESSIONS, 0),
)
STEPS: Final = 100
GRACE_STEPS: Final = 25
"""What Kafka has held for so many steps is on its disk, and may be trimmed from the spool."""
TICKS_MAX: Final = 20_000


class Clock:
    """Monotonic seconds, passing a little whenever they are read, and by sleeping."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self._ticks = 0

    def __call__(self) -> float:
        self._ticks += 1
        assert self._ticks < TICKS_MAX, "this does not end"
        self.now_s += 0.001
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Parts(msgspec.Struct, frozen=True):
    """What a schedule is built from; a mutant replaces one of them."""

    lander: type[Lander] = Lander
    relay: type[Relay] = Relay
    store: type[SimulatedStore] = SimulatedStore
    warehouse: Callable[[Chance], SimulatedWarehouse | CrashingDuckDB] = SimulatedWarehouse
    member: type[Member] = Member
    commits_on_read: bool = False


class LanderProcess:
    """A lander and its seat in the group."""

    def __init__(self, world: "World") -> None:
        self.member: Member | None = None
        self._world = world
        chance = world.chance
        self.executor = SimulatedExecutor(chance, world.clock.sleep)
        self.lander = world.parts.lander(
            SimulatedReader(world.kafka, self._join),
            world.store,
            bytes_max=chance.pick([1, 900, 3_000]),
            age_s_max=chance.pick([0.2, 1.0, 5.0]),
            memory_bytes_max=chance.pick([1_500, 1 << 30]),
            clock=world.clock,
            sleep=world.clock.sleep,
            executor=self.executor,
        )

    def _join(self, position_of: PositionOf, on_revoked: OnRevoked) -> Subscription:
        self.member = self._world.group.join(position_of, on_revoked)
        return self.member


class World:
    """A recorder's spools, relays, Kafka, landers, the lake, loaders and a warehouse."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self.parts = parts
        self.chance = Chance(seed)
        self.clock = Clock()
        self.kafka = SimulatedKafka(PLACES)
        self.kafka.batch_records = 1 + self.chance.below(6)
        self.kafka.commits_on_read = parts.commits_on_read
        self.kafka.before = self._kafka_may_be_away
        self.group = Group(self.kafka, self._idle, parts.member)
        self.store = parts.store(self.chance)
        self.store.interrupt = self._interrupt
        self.warehouse = parts.warehouse(self.chance)
        self.spools = [SimulatedSpool(place, number) for number, place in enumerate(PLACES)]
        self.clients = Clients(self.kafka, self.chance, self._interrupt)
        self.relays: list[tuple[Relay, Generator[None]]] = []
        self.landers: list[LanderProcess] = []
        self.loaders: list[Loader] = []
        self.excused: set[bytes] = set()
        self.lost_tails: set[str] = set()
        self.resent: set[TopicPartition] = set()
        self.has_foreign: set[TopicPartition] = set()
        self._acting: list[object] = []
        self._ends: list[dict[TopicPartition, tuple[str, int]]] = []
        self._foreign: dict[TopicPartition, tuple[str, int, int]] = {}
        self._foreign_count = 0
        self._actions = self._weighted()

    def _weighted(self) -> list[Callable[[], None]]:
        weights: dict[Callable[[], None], int] = {
            self._record: 6,
            self._relay: 16,
            self._land: 24,
            self._put: 8,
            self._load: 6,
            self._start: 6,
            self._disturb_kafka: 4,
            self._disturb_group: 4,
            self._arrive_late: 2,
            self._keep_house: 3,
        }
        return [action for action, weight in weights.items() for _ in range(weight)]

    # -- running ------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """A random schedule; then all is well again, and everything is brought to its end."""
        for spool in self.spools:
            self._start_relay(spool)
        self.landers.append(LanderProcess(self))
        for _ in range(steps):
            self.step()
        self.heal()
        self.finish()

    def step(self) -> None:
        self.chance.pick(self._actions)()
        self.clock.now_s += self.chance.pick([0.0, 0.05, 0.5])
        if self.chance.strikes("clock_jump", 0.01):
            self.clock.now_s += 3_600
            self.kafka.now_ms += self.chance.pick([-10_800_000, 10_800_000])
        if not self._acting:
            self._ends.append({p: (held.topic_id, held.end) for p, held in self.kafka.held.items()})

    def heal(self) -> None:
        """Nothing fails from here on; what was in flight arrives, or never will."""
        self.chance.is_healed = True
        self.store.is_forbidden = False
        for spool in self.spools:
            spool.is_full = False
        while self.clients.in_flight or self.store.late:
            self._arrive_late()
        for place in list(self._foreign):
            self._end_foreign(place, is_committed=False)

    def finish(self) -> None:
        """Whoever still lives goes on once more as a zombie; then fresh ones take over."""
        for spool in self.spools:
            spool.append(1)
            self._start_relay(spool)
        for _ in range(6):
            for running in [*self.relays]:
                self._advance(running)
        for place, spool in zip(PLACES, self.spools, strict=True):
            self._finish_relay(place, spool)
        self._finish_landers()
        self._new_loader()
        for loader in self.loaders:
            loader.load_all()

    def _finish_relay(self, place: TopicPartition, spool: SimulatedSpool) -> None:
        for _ in range(2_000):
            running = [one for one in self.relays if one[0].place == place]
            if any(relay.position == spool.end for relay, _ in running):
                return
            self._advance(running[-1])
        raise AssertionError(f"{place}: the relay does not end")

    def _finish_landers(self) -> None:
        for process in self.landers:
            for _ in range(3):
                process.lander.step(0)
        last = LanderProcess(self)
        for process in self.landers:
            process.lander.close()
        for place in PLACES:
            self.group.give(place, self._member(last), is_lost=True)
        self.landers.append(last)
        last.lander.drain()

    # -- the recorder and the relays ----------------------------------------------------------

    def close(self) -> None:
        self.warehouse.close()
        self.clients.close()

    def _idle(self, seconds: float) -> None:
        """Somebody waits: time passes, and at the end, threads get on with their work."""
        self.clock.sleep(seconds)
        if self.chance.is_healed:
            for process in self.landers:
                process.executor.run_one()

    def _record(self) -> None:
        spool = self.chance.pick(self.spools)
        if self.chance.strikes("spool_full", 0.05):
            spool.is_full = True
        elif self.chance.random.random() < 0.5:
            spool.is_full = False
        spool.append(1 + self.chance.below(6))

    def _start_relay(self, spool: SimulatedSpool) -> None:
        relay = self.parts.relay(self.kafka, spool, batch=1 + self.chance.below(5))
        self.relays.append((relay, relay.run()))

    def _relay(self) -> None:
        free = [running for running in self.relays if running[0] not in self._acting]
        if free:
            self._advance(self.chance.pick(free))

    def _advance(self, running: tuple[Relay, Generator[None]]) -> None:
        self._acting.append(running[0])
        try:
            next(running[1])
        except (Crash, StopIteration):
            self.relays.remove(running)
        finally:
            self._acting.remove(running[0])
        if running[0].resent:
            self.resent.add(running[0].place)

    # -- landers and loaders ------------------------------------------------------------------

    def _land(self) -> None:
        free = [process for process in self.landers if process not in self._acting]
        if not free:
            return
        process = self.chance.pick(free)
        self._act(process, lambda: process.lander.step(0))

    def _put(self) -> None:
        """A thread of a lander gets round to its object."""
        free = [process for process in self.landers if process not in self._acting]
        if free:
            process = self.chance.pick(free)
            self._act(process, process.executor.run_one)

    def _act(self, process: LanderProcess, action: Callable[[], object]) -> None:
        self._acting.append(process)
        self.store.crashing = "kill_lander"
        try:
            action()
        except Crash:
            self.landers.remove(process)
            self.group.leave(self._member(process))
        finally:
            self._acting.remove(process)

    def _member(self, process: LanderProcess) -> Member:
        assert process.member is not None
        return process.member

    def _new_loader(self) -> None:
        self.loaders.append(
            Loader(
                self.store,
                self.warehouse,
                objects_max=self.chance.pick([2, 500]),
                monotonic=self.clock,
            )
        )

    def _load(self) -> None:
        free = [loader for loader in self.loaders if loader not in self._acting]
        if not free:
            self._new_loader()
            return
        loader = self.chance.pick(free)
        self._acting.append(loader)
        self.store.crashing = "kill_loader"
        try:
            loader.load_once()
        except Crash:
            self.loaders.remove(loader)
        except TransientError:
            pass
        finally:
            self.store.crashing = "kill_lander"
            self._acting.remove(loader)

    def _start(self) -> None:
        """Another process of a kind; two of it at once are a zombie and its successor."""
        kind = self.chance.below(3)
        if kind == 0 and len(self.landers) < 3:
            self.landers.append(LanderProcess(self))
        elif kind == 1 and len(self.loaders) < 2:
            self._new_loader()
        else:
            spool = self.chance.pick(self.spools)
            running = sum(relay.spool is spool for relay, _ in self.relays)
            if running == 0 or self.chance.strikes("zombie_relay", 0.3):
                self._start_relay(spool)

    # -- what goes wrong ----------------------------------------------------------------------

    def _kafka_may_be_away(self, _what: str) -> None:
        if self.chance.strikes("kafka_away", 0.005):
            raise AwayError

    def _interrupt(self) -> None:
        """Others act while a call of somebody is on its way."""
        if len(self._acting) > 2 or not self.chance.strikes("interleaved", 0.05):
            return
        for _ in range(1 + self.chance.below(4)):
            self.step()
        self.store.crashing = "kill_loader" if self._is_loading() else "kill_lander"

    def _is_loading(self) -> bool:
        return bool(self._acting) and isinstance(self._acting[-1], Loader)

    def _disturb_group(self) -> None:
        if not self.landers:
            return
        process = self.chance.pick(self.landers)
        member, place = self._member(process), self.chance.pick(PLACES)
        if self.chance.strikes("zombie_lander", 0.3):
            member.sleeps = self.chance.below(6)
        if self.chance.strikes("partitions_lost", 0.4):
            self.group.give(place, member, is_lost=True)
        elif not self._acting and self.chance.strikes("rebalance", 0.8):
            self._rebalance(place, member)
        if self.chance.strikes("group_offsets_lost", 0.1):
            self.kafka.committed.clear()

    def _rebalance(self, place: TopicPartition, member: Member) -> None:
        owner = next((p for p in self.landers if p.member is self.group.owners.get(place)), None)
        if owner is None:
            self.group.owners[place] = member
        else:
            self._act(owner, lambda: self.group.give(place, member, is_lost=False))
        if self.group.owners.get(place) is not member and member in self.group.members:
            self.group.owners[place] = member

    def _arrive_late(self) -> None:
        self.store.apply_late()
        if not self.clients.in_flight:
            return
        method, arguments, options = self.clients.in_flight.pop(0)
        with contextlib.suppress(FencedError):
            getattr(self.kafka, method)(*arguments, **options)

    def _disturb_kafka(self) -> None:
        place = self.chance.pick(PLACES)
        strikes = self.chance.strikes
        if place in self._foreign and self.chance.random.random() < 0.3:
            self._end_foreign(place, is_committed=self.chance.random.random() < 0.5)
        elif self._may_share(place) and strikes("foreign_record", 0.1):
            self.has_foreign.add(place)
            self.kafka.append_plain(place, self._foreign_value())
        elif (
            place not in self._foreign
            and self._may_share(place)
            and strikes("foreign_transaction", 0.2)
        ):
            self.has_foreign.add(place)
            self._begin_foreign(place)
        elif place not in self.has_foreign and strikes("broker_tail_lost", 0.15):
            self._lose_tail(place)
        elif not self._is_shared(place.stream) and strikes("topic_recreated", 0.03):
            self._recreate(place)
        elif strikes("retention_passed", 0.05):
            self._pass_retention(place)

    def _may_share(self, place: TopicPartition) -> bool:
        """Whether a topic is in its first life and has lost nothing."""
        topic_id = self.kafka.held[place].topic_id
        return topic_id not in self.lost_tails and topic_id.endswith("0")

    def _is_shared(self, stream: Stream) -> bool:
        """Whether somebody else has written this topic, which hides from the relay what is lost."""
        return any(place.stream is stream for place in self.has_foreign)

    def _foreign_value(self) -> bytes:
        self._foreign_count += 1
        number = b"%d" % self._foreign_count
        return self.chance.pick([b"", b"nobody's " + number, b'{"v":1,"not":' + number + b"}"])

    def _begin_foreign(self, place: TopicPartition) -> None:
        self._foreign_count += 1
        name = f"foreign-{self._foreign_count}"
        epoch = self.kafka.fence(name)
        number = self.kafka.begin(name, epoch, place)
        self.kafka.produce(name, epoch, place, [(b"foreign %d" % self._foreign_count, None)])
        self._foreign[place] = (name, epoch, number)

    def _end_foreign(self, place: TopicPartition, *, is_committed: bool) -> None:
        name, epoch, number = self._foreign.pop(place)
        if not is_committed:
            self.chance.counts["aborted_transaction"] += 1
        with contextlib.suppress(FencedError):
            self.kafka.end_transaction(name, epoch, number, is_committed=is_committed)

    def _safe(self, place: TopicPartition) -> int:
        """Below which offset the broker has everything on its disk."""
        if len(self._ends) <= GRACE_STEPS:
            return 0
        topic_id, end = self._ends[-GRACE_STEPS][place]
        return end if topic_id == self.kafka.held[place].topic_id else 0

    def _lose_tail(self, place: TopicPartition) -> None:
        """The broker loses what is not yet on its disk."""
        held = self.kafka.held[place]
        safe = max(self._safe(place), held.low)
        starts = [at for at in held.transaction_starts() if at >= safe]
        if starts:
            start = self.chance.pick(starts)
            held.lose_tail(start)
            self.lost_tails.add(held.topic_id)
            landed = self.kafka.committed.get(place, 0)
            self.kafka.committed[place] = min(landed, start)

    def _recreate(self, place: TopicPartition) -> None:
        for other in [other for other in PLACES if other.stream is place.stream]:
            self._foreign.pop(other, None)
            held, spool = self.kafka.held[other], self.spools[PLACES.index(other)]
            self.excused.update(spool.frames[: spool.begin])
            self.excused.update(
                slot.value for slot in held.slots if slot.spool is None and slot.value
            )
        self.kafka.recreate(place)

    def _pass_retention(self, place: TopicPartition) -> None:
        """Records go before they are landed: a recorded gap."""
        held = self.kafka.held[place]
        before = held.low + self.chance.below(max(1, held.stable - held.low))
        gone = [slot for offset, slot in held.records(held.low, before)]
        self.excused.update(slot.value for slot in gone if slot.value is not None)
        held.trim(before)

    def _keep_house(self) -> None:
        """The spool is trimmed behind what Kafka holds for good; Kafka behind what was landed."""
        spool = self.chance.pick(self.spools)
        held = self.kafka.held[spool.place]
        carried = [
            slot.spool[1] + 1
            for _, slot in held.records(held.low, self._safe(spool.place))
            if slot.spool is not None and slot.spool[0] == spool.epoch
        ]
        spool.trim(max(carried, default=0))
        committed = self.kafka.committed.get(spool.place, 0)
        held.trim(self.chance.below(committed + 1))
