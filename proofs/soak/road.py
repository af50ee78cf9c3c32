"""The stages of a run: one recorder, several landers, one refine, each kept running."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from proofs.soak.verbs import Exit, Verb, VerbFailedError, run_verb

EXITS_MAX: Final = 50
RESTART_S: Final = 0.5
"""A stage that ended by itself is started again after this time, as a supervisor would."""
DRAIN_S: Final = 900.0


class Road:
    """All stages over one log and one lake.

    Args:
        folder: for the data folders and logs of all of them.
        spool: file where `record` makes frames durable.
        servers: environment that names log and lake.
        source: the feed.
        landers: how many share the topics.
        group_protocol: of their consumer group.
    """

    def __init__(
        self,
        folder: Path,
        spool: Path,
        servers: Mapping[str, str],
        *,
        source: str,
        landers: int,
        group_protocol: str,
    ) -> None:
        self.data = folder / "data"
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.spool = spool
        self.environment = {
            **servers,
            "TICKHOUSE_DATA": str(self.data),
            "TICKHOUSE_SOURCE": source,
            "TICKHOUSE_SPOOL": f"sqlite:///{spool}",
            "TICKHOUSE_RECORD_FREE_BYTES": "0",
            "TICKHOUSE_LAND_AGE_S": "0.5",
            "TICKHOUSE_BUILD_INTERVAL_S": "2",
            "TICKHOUSE_KAFKA_GROUP_PROTOCOL": group_protocol,
        }
        self.record = self._verb("record", "record")
        self.refine = self._verb("refine", "refine")
        # Landers share nothing but log and lake; a folder of its own keeps each one's status.
        self.landers = [
            self._verb(f"land-{number}", "land", data=folder / f"lander-{number}")
            for number in range(1, landers + 1)
        ]
        self.kills: Counter[str] = Counter()
        self.exits: list[Exit] = []
        self.exit_counts: Counter[str] = Counter()
        self._wanted: set[str] = set()
        self._gone_at: dict[str, float] = {}

    def _verb(self, name: str, stage: str, *, data: Path | None = None) -> Verb:
        environment = self.environment | ({} if data is None else {"TICKHOUSE_DATA": str(data)})
        return Verb(name, [stage], environment, self.logs)

    @property
    def verbs(self) -> list[Verb]:
        """All of them."""
        return [self.record, *self.landers, self.refine]

    def start(self, verb: Verb, *, clock_shift: str = "", disk_errors: float = 0.0) -> None:
        """Start one, and keep it running from now on."""
        self._wanted.add(verb.name)
        self._gone_at.pop(verb.name, None)
        verb.start(clock_shift=clock_shift, disk_errors=disk_errors)

    def kill(self, verb: Verb) -> bool:
        """`kill -9`, counted where it was running; it stays down until it is started."""
        self._wanted.discard(verb.name)
        was_running = verb.kill()
        self.kills[verb.stage] += was_running
        return was_running

    def stop(self, verb: Verb) -> None:
        """End one as an operator does."""
        self._wanted.discard(verb.name)
        code = verb.stop()
        if code:
            self._tell(Exit(verb.name, code, "after SIGTERM"))

    def tend(self) -> None:
        """Start again, after a moment, what ended by itself."""
        for verb in self.verbs:
            ended = verb.exit()
            if ended is not None:
                self._tell(ended)
                self._gone_at[verb.name] = time.monotonic()
            gone_at = self._gone_at.get(verb.name)
            is_due = gone_at is not None and time.monotonic() - gone_at > RESTART_S
            if is_due and verb.name in self._wanted:
                self.start(verb)

    def _tell(self, ended: Exit) -> None:
        self.exit_counts[f"{ended.verb} {ended.code}"] += 1
        if len(self.exits) < EXITS_MAX:
            self.exits.append(ended)

    def end_all(self) -> None:
        """SIGKILL to whatever is left."""
        for verb in self.verbs:
            verb.kill()

    def drain(self) -> None:
        """Land, load and build to the end of what is upstream, one after the other."""
        for verb in ("land", "refine"):
            self.finish(verb, "--once")

    def finish(self, *arguments: str) -> None:
        """Run a verb to its end.

        Raises:
            VerbFailedError: it did not get there.
        """
        done = self.ask(*arguments)
        if done["code"]:
            raise VerbFailedError(f"{arguments}: {done}")

    def ask(self, *arguments: str) -> dict[str, object]:
        """Run a verb over the same log and lake; its document."""
        return run_verb(
            list(arguments),
            self.environment,
            self.logs / f"{arguments[0]}-once.log",
            timeout_s=DRAIN_S,
        )

    def events(self, name: str) -> Counter[str]:
        """How often each event was logged by a verb."""
        counts: Counter[str] = Counter()
        path = self.logs / f"{name}.log"
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    counts[msgspec.json.decode(line, type=_LogLine).event] += 1
                except msgspec.MsgspecError:
                    counts["(not an event)"] += 1
        return counts


class _LogLine(msgspec.Struct, frozen=True):
    """What is read of a log line."""

    event: str
