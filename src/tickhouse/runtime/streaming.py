"""The verbs `record` and `land`: until stopped, or `--once` until level with what is upstream."""

import argparse
import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tickhouse.bronze.lander import Lander, held_offsets
from tickhouse.bronze.publishing import ThreadsExecutor
from tickhouse.clock import SYSTEM_CLOCK
from tickhouse.errors import ConfigError, TickhouseError, TransientError
from tickhouse.model.positions import TopicPartition
from tickhouse.runtime import backends, relaying
from tickhouse.runtime.result import EXIT_OK, VerbResult
from tickhouse.runtime.stopping import stop_event, stopping
from tickhouse.settings import Settings
from tickhouse.source.feed import Feed
from tickhouse.stream.log import Log
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.shedding import FreeSpace, SpoolRoom
from tickhouse.telemetry import Report, StageStatus, get_logger

if TYPE_CHECKING:
    from tickhouse.stream.relay import Relay
    from tickhouse.stream.sqlite import SqliteLog

Held = Callable[[TopicPartition], int]

RETENTION_INTERVAL_S: Final = 30.0
RETENTION_GRACE_S: Final = 60.0
SETTLE_S: Final = 3.0
"""A recorder that was stopped gives its last commits so long to reach Kafka."""

_log = get_logger("runtime")


def record(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stage 1; with a log on Kafka, what is durable in the spool is relayed there."""
    feed = backends.open_source(settings)
    if arguments.once and feed.endless:
        raise ConfigError(
            f"{feed.url} never ends, so --once cannot: give the feed an end (frames=N), or --for"
        )
    status = StageStatus(settings.run_folder, "record")
    recorder, _ = record_feed(feed, settings, arguments, report=status.report)
    status.report("stopped", {"feed": feed.url, "mode": feed.mode, "frames": recorder.frames})
    content = {"ok": True, "frames": recorder.frames, "refused": recorder.refused}
    return VerbResult(EXIT_OK, content, f"recorded {recorder.frames} frames from {feed.url}")


def record_feed(
    feed: Feed, settings: Settings, arguments: argparse.Namespace, *, report: Report, shard: int = 0
) -> tuple[Recorder, bool]:
    """Record a feed until it ends or is told to stop; the recorder, and whether it was told to.

    Args:
        feed: what is recorded.
        settings: where to.
        arguments: tell when to stop.
        report: told how it goes.
        shard: of the feed's first connection.

    Raises:
        BusyError: another recorder holds the log.
    """
    spool = backends.open_spool(settings)
    relay = relaying.open_relay(settings, spool) if settings.is_log_kafka else None
    relay_report = None if relay is None else relaying.RelayReport(report, relay)
    recorder = Recorder(
        feed,
        spool,
        commit_ms=settings.record_commit_ms,
        commit_bytes=settings.record_commit_bytes,
        buffer_bytes=settings.record_buffer_bytes,
        report=relay_report or report,
    )
    recorder.first_shard = shard
    recorder.space = _room(settings, spool)
    try:
        if relay is not None:
            relay.start()
            recorder.committed = relay.wake
        with stop_event(arguments) as stop:
            held = _held(settings, spool, relay)
            is_stopped = asyncio.run(_record(recorder, spool, held, settings, stop))
        if relay_report is not None:
            _finish_relay(relay_report, arguments, is_stopped=is_stopped)
    finally:
        if relay is not None:
            relay.stop()
        spool.close()
    return recorder, is_stopped


def _finish_relay(
    report: relaying.RelayReport, arguments: argparse.Namespace, *, is_stopped: bool
) -> None:
    """Carry on what is durable: all of it where the feed has ended, else what goes out soon."""
    if is_stopped:
        report.relay.settle(SETTLE_S)
        return
    with stop_event(arguments) as stop:
        report.relay.wait_until_level(stop, tell=report.again)


def _room(settings: Settings, spool: "SqliteLog") -> FreeSpace:
    """Room on the spool's disk and, where Kafka has to empty it, in the spool."""

    def free_bytes() -> int:
        return backends.spool_free_bytes(settings)

    if not settings.is_log_kafka:
        return FreeSpace(free_bytes, settings.record_free_bytes, clock=SYSTEM_CLOCK)
    return SpoolRoom(
        free_bytes,
        settings.record_free_bytes,
        clock=SYSTEM_CLOCK,
        spool_bytes=spool.size_bytes,
        spool_bytes_max=settings.spool_bytes,
    )


def _held(settings: Settings, spool: Log, relay: "Relay | None") -> Held:
    """Below which offset the spool may be trimmed: what Kafka holds, or else the lake."""
    if relay is not None:
        return relay.held
    return held_offsets(spool, backends.open_store(settings))


async def _record(
    recorder: Recorder, spool: Log, held: Held, settings: Settings, stop: threading.Event
) -> bool:
    """Record until the feed ends (False), or told to stop (True)."""
    retention = asyncio.create_task(_retain(spool, held, settings))
    try:
        async with stopping(stop) as stopped:
            await recorder.run(stopped)
            return stopped.is_set()
    finally:
        retention.cancel()


async def _retain(log: Log, held: Held, settings: Settings) -> None:
    """Trim the log now and then; what fails is said, and tried again."""
    while True:
        await asyncio.sleep(RETENTION_INTERVAL_S)
        try:
            trimmed = await asyncio.to_thread(
                log.retain,
                age_s_max=settings.log_retention_hours * 3600,
                bytes_max=settings.log_retention_bytes,
                grace_s=RETENTION_GRACE_S,
                held=held,
            )
        except TickhouseError as error:
            _log.warning("log_not_trimmed", error=str(error))
            continue
        for partition, begin in trimmed.items():
            _log.info("log_trimmed", partition=str(partition), begin=begin)


def land(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stage 2."""
    backends.check_lake(settings)
    status = StageStatus(settings.run_folder, "land")
    log = backends.open_log_reader(settings)
    store, executor = backends.open_store(settings), ThreadsExecutor()

    def join() -> Lander:
        return Lander(
            log,
            store,
            bytes_max=settings.land_bytes,
            age_s_max=settings.land_age_s,
            memory_bytes_max=settings.land_memory_bytes,
            executor=executor,
        )

    try:
        facts = _land(join, arguments, status)
    finally:
        executor.close()
        log.close()
    status.report("stopped", facts)
    text = f"landed {facts.get('records', 0)} records in {facts.get('objects', 0)} objects"
    return VerbResult(EXIT_OK, {"ok": True, **facts}, text)


def _land(
    join: Callable[[], Lander], arguments: argparse.Namespace, status: StageStatus
) -> dict[str, Any]:
    """Land until told to stop, or once; what a lander then tells of itself."""
    lander = join() if arguments.once else _run_until_stopped(join, arguments, status)
    if lander is None:
        return {}
    with contextlib.closing(lander):
        lander.drain(everything=arguments.once)
    return lander.facts()


def _run_until_stopped(
    join: Callable[[], Lander], arguments: argparse.Namespace, status: StageStatus
) -> Lander | None:
    with stop_event(arguments) as stop:
        lander = _when_it_answers(join, stop, status)
        if lander is None:
            return None
        try:
            lander.run(stop, status.report)
        except BaseException:
            lander.close()
            raise
    return lander


def _when_it_answers(
    join: Callable[[], Lander], stop: threading.Event, status: StageStatus
) -> Lander | None:
    """Begin once the log answers; None where told to stop before."""
    while not stop.is_set():
        try:
            return join()
        except TransientError as error:
            _log.warning("log_away", error=str(error), retry_s=error.retry_after_s)
            status.report("failed", {"error": str(error)})
            stop.wait(error.retry_after_s)
    return None
