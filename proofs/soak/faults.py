"""What strikes a run, from a seed: each fault once in random order, then as they are weighted."""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from proofs.soak.disk import SmallDisk
from proofs.soak.preloads import CLOCK, DISK_ERRORS
from proofs.soak.road import Road
from proofs.soak.servers import SESSION_MS, Servers, TooLateError, until
from proofs.soak.verbs import Verb
from proofs.soak.watch import Watch
from tests.servers.s3.proxy import Fault
from tickhouse.stream.kafka_group import SESSION_TIMEOUT_MS

S3_RATES: Final = {
    Fault.BUSY: 0.012,
    Fault.ERROR_AFTER_APPLY: 0.012,
    Fault.RESET_AFTER_APPLY: 0.012,
    Fault.HANG_AFTER_APPLY: 0.004,
    Fault.HANG: 0.004,
    Fault.SLOW: 0.003,
    Fault.RESET: 0.006,
    Fault.DENIED: 0.003,
    Fault.THROTTLED: 0.006,
    Fault.CONFLICT: 0.003,
    Fault.CUT_ANSWER: 0.003,
}
"""Share of all requests that fails all the time, by kind."""
S3_BURST: Final = (
    Fault.BUSY,
    Fault.ERROR_AFTER_APPLY,
    Fault.RESET_AFTER_APPLY,
    Fault.HANG_AFTER_APPLY,
    Fault.SLOW,
    Fault.DENIED,
)
"""Each of them meets the next request that writes."""
WEIGHTS: Final = {
    "kill_record": 6,
    "kill_land": 8,
    "kill_refine": 4,
    "kill_all": 1,
    "freeze_land": 6,
    "kill_broker": 2,
    "s3_burst": 4,
    "s3_away": 1,
    "forget_group": 1,
    "disk_full": 2,
    "disk_errors": 1,
    "clock_wrong": 2,
}
SHIFTS: Final = ("+3h", "-3h")
BEYOND_S: Final = 5.0
"""A lander is stopped for the session time-out and this, at least."""
OVERTAKEN_S: Final = 45.0
"""… and for so long at most, until others have what it holds: a group that is struck all the time
takes long to agree."""
LOOK_S: Final = 0.5
GROUP_S: Final = 40.0
DISK_FULL_S: Final = 4.0
DISK_ERRORS_S: Final = 6.0
DISK_ERRORS_SHARE: Final = 0.3
CLOCK_S: Final = 10.0
AWAY_S: Final = 3.0


class Strikes:
    """The faults of a run, and how often each was seen to strike.

    Args:
        seed: decides which fault strikes what, and when.
        servers, road, watch, disk: what is struck, and who looks.
        group_protocol: of the landers' group; its session time-out differs.
    """

    def __init__(
        self,
        seed: int,
        servers: Servers,
        road: Road,
        watch: Watch,
        disk: SmallDisk,
        *,
        group_protocol: str,
    ) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a schedule
        self._servers = servers
        self._road = road
        self._watch = watch
        self._disk = disk
        session_ms = SESSION_TIMEOUT_MS if group_protocol == "classic" else SESSION_MS
        self._sleep_s = session_ms / 1000 + BEYOND_S
        self._cures: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._kinds = self._deal()
        self._held: set[str] = set()
        self._ends_at = 0.0
        self.counts: Counter[str] = Counter()
        self.skipped = self._missing()

    def _missing(self) -> dict[str, str]:
        """Faults this machine cannot have, and why."""
        reasons = {
            "disk_full": self._disk.missing,
            "disk_errors": DISK_ERRORS.missing(),
            "clock_wrong": CLOCK.missing(),
        }
        return {kind: reason for kind, reason in reasons.items() if reason}

    def _deal(self) -> Iterator[str]:
        """Each kind once, then by weight, always shuffled."""
        deck = list(WEIGHTS)
        while True:
            self._chance.shuffle(deck)
            yield from deck
            deck = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]

    # -- time ----------------------------------------------------------------------------------

    def run(self, seconds: float, pause_s: float) -> None:
        """Strike for so long, with pauses of this mean."""
        self._servers.proxy.set_rates(S3_RATES, seed=self._chance.randrange(1 << 30))
        self._ends_at = ends_at = time.monotonic() + seconds
        next_at = time.monotonic() + self._pause(pause_s)
        while (now := time.monotonic()) < ends_at:
            self._cure(now)
            self._road.tend()
            if now >= next_at:
                self._strike(next(self._kinds))
                next_at = time.monotonic() + self._pause(pause_s)
            time.sleep(0.05)

    def heal(self) -> None:
        """No more faults; those under way take their time, and everything runs as it should."""
        self._servers.proxy.set_rates({})
        while self._cures:
            self._cure(time.monotonic())
            self._road.tend()
            time.sleep(0.05)

    def _pause(self, mean_s: float) -> float:
        return min(self._chance.expovariate(1 / mean_s), 4 * mean_s)

    def _strike(self, kind: str) -> None:
        if kind not in self.skipped:
            strike: Callable[[], None] = getattr(self, f"_{kind}")
            strike()

    def _later(self, seconds: float, cure: Callable[[], None]) -> None:
        heapq.heappush(self._cures, (time.monotonic() + seconds, next(self._numbers), cure))

    def _cure(self, now: float) -> None:
        while self._cures and self._cures[0][0] <= now:
            heapq.heappop(self._cures)[2]()

    # -- processes -----------------------------------------------------------------------------

    def _kill_record(self) -> None:
        self._kill(self._road.record)

    def _kill_refine(self) -> None:
        self._kill(self._road.refine)

    def _kill_land(self) -> None:
        awake = self._awake()
        if awake:
            self._kill(self._chance.choice(awake))

    def _kill_all(self) -> None:
        for verb in self._road.verbs:
            if not verb.is_frozen:
                self._kill(verb)

    def _awake(self) -> list[Verb]:
        return [lander for lander in self._road.landers if not lander.is_frozen]

    def _kill(self, verb: Verb) -> None:
        """It is started again at once, unless another fault has it in hand."""
        if verb.name in self._held:
            return
        self._watch.expect(f"kill {verb.stage}")
        self._road.kill(verb)
        self._road.start(verb)

    def _freeze_land(self) -> None:
        """Beyond the session time-out: the group goes on without it, then it wakes up."""
        busy = [each for each in self._awake() if each.name not in self._held and _held(each)]
        if not busy or len(self._awake()) < len(self._road.landers):  # one at a time
            if time.monotonic() < self._ends_at:
                self._later(LOOK_S, self._freeze_land)
            return
        lander = self._chance.choice(busy)
        self._watch.expect("zombie")
        lander.freeze()
        held = _held(lander)
        others = {rival: rival.size() for rival in self._road.landers if rival is not lander}
        until_s = time.monotonic() + OVERTAKEN_S
        self._later(self._sleep_s, lambda: self._wake(lander, held, others, until_s))

    def _wake(
        self, lander: Verb, held: set[str], others: Mapping[Verb, int], until_s: float
    ) -> None:
        """It wakes as a zombie if others were given by then what it believes to be its own."""
        assigned = {place for rival, size in others.items() for place in _assigned(rival, size)}
        is_overtaken = bool(held & assigned)
        if lander.is_frozen and not is_overtaken and time.monotonic() < until_s:
            self._later(LOOK_S, lambda: self._wake(lander, held, others, until_s))
        elif lander.thaw():
            self.counts["frozen"] += 1
            self.counts["zombies"] += is_overtaken

    def _members(self) -> int | None:
        try:
            return self._servers.members()
        except TimeoutError:
            return None

    def _clock_wrong(self) -> None:
        """One stage lives three hours away for a while."""
        verb = self._chance.choice([self._road.record, *self._awake()])
        self._disguise(verb, "clock", CLOCK_S, clock_shift=self._chance.choice(SHIFTS))

    def _disk_errors(self) -> None:
        """The recorder's flushes fail now and then."""
        self._disguise(
            self._road.record, "disk_errors", DISK_ERRORS_S, disk_errors=DISK_ERRORS_SHARE
        )

    def _disguise(
        self,
        verb: Verb,
        kind: str,
        seconds: float,
        *,
        clock_shift: str = "",
        disk_errors: float = 0.0,
    ) -> None:
        """Kill a stage and start it in a world that is wrong; later kill it and start it again."""
        if verb.name in self._held:
            return
        self._held.add(verb.name)
        self._watch.expect(kind)
        self._road.kill(verb)
        self._road.start(verb, clock_shift=clock_shift, disk_errors=disk_errors)
        self.counts[f"{kind} {verb.stage} {clock_shift}".strip()] += 1

        def undo() -> None:
            self._held.discard(verb.name)
            self._kill(verb)

        self._later(seconds, undo)

    # -- disk, broker, store -------------------------------------------------------------------

    def _disk_full(self) -> None:
        self._watch.expect("disk full")
        self._disk.fill()
        self.counts["disk_full"] += 1
        self._later(DISK_FULL_S, self._disk.empty)

    def _kill_broker(self) -> None:
        self._watch.expect("broker")
        self._servers.kafka.kill()
        time.sleep(self._chance.uniform(0.0, 2.0))
        self._servers.kafka.start()
        self.counts["broker_restarts"] += 1

    def _s3_burst(self) -> None:
        self._watch.expect("s3 burst")
        for fault in self._chance.sample(S3_BURST, 4):
            self._servers.proxy.inject(fault, method="PUT")

    def _s3_away(self) -> None:
        self._watch.expect("s3 away")
        self._servers.proxy.refuse()
        self.counts["s3_away"] += 1
        self._later(AWAY_S, self._servers.proxy.listen)

    def _forget_group(self) -> None:
        """Kill every lander; when the group has no members, delete it and all it committed."""
        if any(lander.name in self._held or lander.is_frozen for lander in self._road.landers):
            return
        self._watch.expect("group deleted")
        for lander in self._road.landers:
            self._road.kill(lander)
        try:
            until(lambda: self._members() == 0, GROUP_S, "the group to be empty")
            self._servers.delete_group()
            self.counts["group_offsets_deleted"] += 1
        except (TooLateError, TimeoutError) as error:
            self.counts[f"group_not_deleted {type(error).__name__}"] += 1
        finally:
            for lander in self._road.landers:
                self._road.start(lander)


class _Status(msgspec.Struct, frozen=True):
    """What is read of a lander's status."""

    facts: dict[str, Any]


class _Assigned(msgspec.Struct, frozen=True):
    """What is read of a lander's log lines."""

    event: str
    partition: str = ""


def _held(lander: Verb) -> set[str]:
    """Partitions a lander believes to be its own."""
    try:
        status = msgspec.json.decode(lander.status.read_bytes(), type=_Status)
    except (OSError, msgspec.MsgspecError):
        return set()
    return set(status.facts.get("positions", ()))


def _assigned(lander: Verb, size: int) -> Iterator[str]:
    """Partitions a lander was given since its log had this size."""
    for line in lander.said_since(size):
        try:
            found = msgspec.json.decode(line, type=_Assigned)
        except msgspec.MsgspecError:
            continue
        if found.event == "partition_assigned":
            yield found.partition
