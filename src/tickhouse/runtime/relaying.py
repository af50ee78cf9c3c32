"""The relay from the spool to Kafka, as `record` and `drain` run it."""

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Gap, encode_event
from tickhouse.runtime import backends
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.runtime.stopping import stop_event
from tickhouse.settings import Settings
from tickhouse.stream.log import Append, Log
from tickhouse.stream.session import new_session_id
from tickhouse.telemetry import Report, get_logger

if TYPE_CHECKING:
    from tickhouse.stream.carrier import TellGap
    from tickhouse.stream.relay import Relay
    from tickhouse.stream.sqlite import SqliteLog

REPORT_S: Final = 1.0

_log = get_logger("relay")


def open_relay(settings: Settings, spool: "SqliteLog", *, drains: bool = False) -> "Relay":
    """The relay of an open spool.

    Raises:
        ConfigError: the extra is missing, or the address is wrong.
    """
    with backends.needs("kafka"):
        from tickhouse.stream.relay import Relay
    return Relay(
        lambda: backends.open_spool_reader(settings),
        spool,
        backends.kafka_options(settings),
        tell_gap=_gap_teller(spool),
        drains=drains,
    )


def _gap_teller(spool: Log) -> "TellGap":
    """Records a gap in the spool itself, so that it takes the road of all gaps."""

    def tell(partition: TopicPartition, first: int, until: int, since_ms: int) -> None:
        now = time.time_ns()
        gap = Gap(
            at=now,
            stream=partition.stream,
            seq_from=None,
            seq_to=None,
            time_from=since_ms * 1_000_000 or now,
            time_to=now,
            symbols=[],
            cause=f"spool offsets {first} to {until - 1} were trimmed, and Kafka has lost them",
            name=f"relay:{partition.topic}:{partition.part}:{first}",
        )
        frame = encode_event(gap, session=new_session_id(), seq=0)
        spool.append([Append(TopicPartition(Stream.SESSIONS, partition.part), [frame])])
        _log.error("spool_gap", partition=str(partition), first=first, until=until)

    return tell


class RelayReport:
    """A recorder's report with what the relay does, once a second.

    Args:
        report: where it goes.
        relay: asked for its facts.
    """

    def __init__(self, report: Report, relay: "Relay") -> None:
        self._report = report
        self.relay = relay
        self._told: tuple[str, Mapping[str, Any]] = ("starting", {})
        self._told_at = float("-inf")

    def __call__(self, state: str, facts: Mapping[str, Any]) -> None:
        """See `Report`; a relay that stands is a failed stage, though recording goes on."""
        failures = self.relay.failures()
        told, self._told = self._told, (state, facts)
        is_due = time.monotonic() - self._told_at >= REPORT_S
        if not is_due and told[0] == state and not failures:
            return
        self._told_at = time.monotonic()
        facts = {**facts, **self.relay.facts()}
        if state == "running" and failures:
            place, error = next(iter(failures.items()))
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            state, facts["error"] = "failed", f"relay of {place}: {error}{more}"
        self._report(state, facts)

    def again(self) -> None:
        """Tell what the relay does after the recorder has ended."""
        self(*self._told)


def drain(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Send what a spool still holds, though another one has taken over its shards.

    Raises:
        ConfigError: the log is not on Kafka, or the spool's recorder runs.
    """
    if not settings.is_log_kafka:
        raise ConfigError("drain: the log is not on Kafka, so there is nothing to send")
    spool = backends.open_spool(settings)
    relay = open_relay(settings, spool, drains=True)
    try:
        with stop_event(arguments) as stop:
            relay.start()
            relay.wait_until_level(stop)
            left = sum(relay.lags().values())
            sent = relay.sent()
    finally:
        relay.stop()
        spool.close()
    content = {"ok": not left, "sent": sent, "left": left}
    text = f"sent {sent} records of the spool to Kafka, {left} are left"
    return VerbResult(EXIT_PROBLEM if left else EXIT_OK, content, text)
