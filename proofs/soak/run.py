"""One run: chaos, topics made anew, drain, and what two oracles say of the lake and of gold."""

import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from proofs.soak import gold, oracle
from proofs.soak.disk import SmallDisk
from proofs.soak.faults import Strikes
from proofs.soak.road import Road
from proofs.soak.servers import Bucket, Servers, TooLateError, running, until
from proofs.soak.watch import Watch, percentiles
from tests.servers.kafka.broker import VERSION as KAFKA

LEVEL_S: Final = 240.0
RECREATED_S: Final = 6.0
"""So long is recorded into the new topics before the end."""
DISK_BYTES: Final = 64 << 20
DISK_BYTES_PER_S: Final = 1 << 20


class Plan(msgspec.Struct, frozen=True):
    """What is to happen.

    Attributes:
        seconds: of faults.
        seed: of the market and of the faults.
        pause_s: mean pause between two faults.
        rate: trades a second of the simulated market.
        symbols: of it.
        shards: connections, and partitions of each topic.
        landers: how many share them.
        group_protocol: "classic" or "consumer" (KIP-848).
        recreates_topics: whether the topics are deleted and made anew in the end.
    """

    seconds: float = 60.0
    seed: int = 1
    pause_s: float = 3.0
    rate: int = 600
    symbols: int = 30
    shards: int = 3
    landers: int = 3
    group_protocol: str = "classic"
    recreates_topics: bool = True

    @property
    def source(self) -> str:
        """The feed's address."""
        return (
            f"sim://sp500?symbols={self.symbols}&rate={self.rate}"
            f"&shards={self.shards}&seed={self.seed}"
        )


Tell = Callable[[str], None]


class Soak:
    """One run in a folder.

    Args:
        plan: what is to happen.
        folder: for everything; must not be there.
        tell: told what happens, for people.
    """

    def __init__(self, plan: Plan, folder: Path, tell: Tell) -> None:
        self._plan = plan
        self._folder = folder
        self._tell = tell
        self._result: dict[str, Any] = {}

    @property
    def figures(self) -> dict[str, Any]:
        """What is known so far."""
        return self._result

    def run(self) -> dict[str, Any]:
        """All of it; the figures. Whatever was started has ended then."""
        plan = self._plan
        started = time.monotonic()
        disk = SmallDisk(self._folder / "disk", int(DISK_BYTES + plan.seconds * DISK_BYTES_PER_S))
        try:
            with running(self._folder / "servers", plan.shards) as servers:
                self._result = {"plan": msgspec.to_builtins(plan), "kafka": KAFKA}
                self._run(servers, disk)
        finally:
            disk.close()
        self._result["seconds"] = round(time.monotonic() - started, 1)
        return self._result

    def _run(self, servers: Servers, disk: SmallDisk) -> None:
        plan = self._plan
        road = Road(
            self._folder,
            disk.folder / "spool.db",
            servers.environment,
            source=plan.source,
            landers=plan.landers,
            group_protocol=plan.group_protocol,
        )
        watch = Watch(Bucket(servers.s3), road.spool)
        strikes = Strikes(plan.seed, servers, road, watch, disk, group_protocol=plan.group_protocol)
        try:
            for verb in road.verbs:
                road.start(verb)
            watch.start()
            self._settle(road, watch)
            self._tell(f"faults for {plan.seconds:g} s, seed {plan.seed}")
            strikes.run(plan.seconds, plan.pause_s)
            strikes.heal()
            self._recover(road, watch)
            if plan.recreates_topics:
                self._recreate(servers, road, strikes, watch)
            self._end(road, watch)
        finally:
            watch.stop()
            road.end_all()
            self._count(servers, road, strikes, watch)
        self._judge(servers, road)

    def _settle(self, road: Road, watch: Watch) -> None:
        """Until the first frames are in the lake."""

        def is_going() -> bool:
            road.tend()
            return watch.frames > 0 and watch.objects > 0

        until(is_going, LEVEL_S, "the first frames in the lake")

    def _recover(self, road: Road, watch: Watch) -> None:
        """From the end of all faults until the lake has all that was acknowledged then."""
        self._tell("faults have ended; waiting for the lake")
        recovery = watch.expect("all healed")
        self._await(road, lambda: recovery.seconds is not None, watch)
        self._result["recovery_after_all_s"] = round(recovery.seconds or 0.0, 2)

    def _recreate(self, servers: Servers, road: Road, strikes: Strikes, watch: Watch) -> None:
        """Topics deleted and made anew under running landers, with everything landed before."""
        self._tell("topics are deleted and made anew")
        self._stop_record(road)
        self._await(road, watch.is_level, watch)
        servers.recreate_topics()
        strikes.counts["topics_recreated"] += len(servers.topics)
        road.start(road.record)
        before = watch.frames
        ends_at = time.monotonic() + RECREATED_S
        self._await(road, lambda: time.monotonic() > ends_at and watch.frames > before, watch)

    def _end(self, road: Road, watch: Watch) -> None:
        """Stop in the order of the data, each when what is upstream of it is through."""
        self._tell("draining")
        self._stop_record(road)
        self._await(road, watch.is_level, watch)
        for verb in (*road.landers, road.refine):
            road.stop(verb)
        road.drain()

    @staticmethod
    def _stop_record(road: Road) -> None:
        """Stop recording, and send on what the spool still holds."""
        road.stop(road.record)
        road.finish("drain")

    def _await(self, road: Road, is_so: Callable[[], bool], watch: Watch) -> None:
        def tended() -> bool:
            road.tend()
            return is_so()

        try:
            until(tended, LEVEL_S, "the lake")
        except TooLateError:
            self._result["behind"] = watch.behind()
            self._tell(f"the lake is behind: {watch.behind()}")
            raise

    # -- what came of it -----------------------------------------------------------------------

    def _count(self, servers: Servers, road: Road, strikes: Strikes, watch: Watch) -> None:
        """What was seen to happen, also where the run broke off."""
        counts = dict(strikes.counts)
        by_kind: dict[str, list[float]] = {}
        for recovery in watch.recoveries:
            if recovery.seconds is not None and recovery.kind != "all healed":
                by_kind.setdefault(recovery.kind, []).append(recovery.seconds)
        self._result |= {
            "kills": sum(road.kills.values()),
            "kills_by_stage": dict(road.kills),
            "zombies": counts.pop("zombies", 0),
            "broker_restarts": counts.pop("broker_restarts", 0),
            "s3_faults": sum(servers.proxy.faults.values()),
            "s3_faults_by_kind": dict(sorted(servers.proxy.faults.items())),
            "s3_requests": sum(servers.proxy.requests.values()),
            "other_faults": dict(sorted(counts.items())),
            "skipped": strikes.skipped,
            "recovery_s": percentiles([s for found in by_kind.values() for s in found]),
            "recovery_s_by_kind": {kind: percentiles(s) for kind, s in sorted(by_kind.items())},
            "not_recovered": sum(found.seconds is None for found in watch.recoveries),
            "own_exits": dict(sorted(road.exit_counts.items())),
            "own_exit_tails": [f"{found.verb}: {found.tail}" for found in road.exits],
            "refused_by_disk": road.events("record")["log_refused"],
        }

    def _judge(self, servers: Servers, road: Road) -> None:
        self._tell("comparing the spool with the lake's objects")
        found = oracle.compare(road.spool, Bucket(servers.s3))
        self._result |= {
            "oracle": msgspec.to_builtins(found),
            **{
                name: getattr(found, name) for name in ("lost", "duplicated", "corrupt", "repeated")
            },
        }
        self._tell("audit --deep --truth")
        truth = str(road.data / "truth.json")
        audit = road.ask("audit", "--deep", "--truth", truth)
        self._result["audit"] = _audit_facts(audit)
        self._tell("the embedded road on a copy of the spool")
        embedded = self._folder / "embedded"
        gold.run_embedded(road.spool, embedded, road.logs)
        with gold.open_embedded(road.data) as here, gold.open_embedded(embedded) as there:
            compared = gold.compare(here, there)
        self._result["gold"] = msgspec.to_builtins(compared)
        self._result["gold_equal"] = compared.equal
        self._result["ok"] = found.ok and bool(audit["ok"]) and compared.equal


def _audit_facts(audit: dict[str, Any]) -> dict[str, Any]:
    """The verdict, and of the layers what is wrong."""
    facts = {name: audit.get(name) for name in ("ok", "lost", "duplicated", "corrupt", "in_flight")}
    facts["problems"] = [
        f"{layer['name']}: {found['kind']}: {found['where']}: {found['text']}"
        for layer in audit.get("layers", [])
        if not layer["ok"]
        for found in layer["findings"][:5]
    ]
    return facts


def show_progress(what: str) -> None:
    """A line on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)  # noqa: T201


def end_by_sigterm() -> None:
    """Let SIGTERM end a run as Ctrl-C does: with every process and mount that it made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def soak(plan: Plan, folder: Path, tell: Tell = show_progress) -> dict[str, Any]:
    """A run in a new folder; one that broke off says where, beside what it had counted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = Soak(plan, folder, tell)
    try:
        return run.run()
    except Exception as error:  # noqa: BLE001 - the figures so far are worth more than a traceback
        return {**run.figures, "ok": False, "error": f"{type(error).__name__}: {error}"}
