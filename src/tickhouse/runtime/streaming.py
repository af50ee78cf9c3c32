"""The verbs `record` and `land`: until stopped, or `--once` until level with what is upstream."""

import argparse
import asyncio
import threading
from typing import Final

from tickhouse.bronze.lander import Lander, held_offsets
from tickhouse.clock import SYSTEM_CLOCK
from tickhouse.errors import ConfigError, TickhouseError
from tickhouse.runtime import backends
from tickhouse.runtime.result import EXIT_OK, VerbResult
from tickhouse.runtime.stopping import stop_event, stopping
from tickhouse.settings import Settings
from tickhouse.stream.log import Log
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.shedding import FreeSpace
from tickhouse.telemetry import StageStatus, get_logger

RETENTION_INTERVAL_S: Final = 30.0
RETENTION_GRACE_S: Final = 60.0

_log = get_logger("runtime")


def record(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stage 1."""
    feed = backends.open_source(settings)
    if arguments.once and feed.endless:
        raise ConfigError(
            f"{feed.url} never ends, so --once cannot: give the feed an end (frames=N), or --for"
        )
    log = backends.open_spool(settings)
    status = StageStatus(settings.run_folder, "record")
    recorder = Recorder(
        feed,
        log,
        commit_ms=settings.record_commit_ms,
        commit_bytes=settings.record_commit_bytes,
        buffer_bytes=settings.record_buffer_bytes,
        report=status.report,
    )
    recorder.space = FreeSpace(
        lambda: backends.spool_free_bytes(settings),
        settings.record_free_bytes,
        clock=SYSTEM_CLOCK,
    )
    try:
        with stop_event(arguments) as stop:
            asyncio.run(_record(recorder, log, settings, stop))
    finally:
        log.close()
    status.report("stopped", {"feed": feed.url, "mode": feed.mode, "frames": recorder.frames})
    content = {"ok": True, "frames": recorder.frames, "refused": recorder.refused}
    return VerbResult(EXIT_OK, content, f"recorded {recorder.frames} frames from {feed.url}")


async def _record(recorder: Recorder, log: Log, settings: Settings, stop: threading.Event) -> None:
    retention = asyncio.create_task(_retain(log, settings))
    try:
        async with stopping(stop) as stopped:
            await recorder.run(stopped)
    finally:
        retention.cancel()


async def _retain(log: Log, settings: Settings) -> None:
    """Trim the log now and then; what fails is said, and tried again."""
    held = held_offsets(log, backends.open_store(settings))
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
    status = StageStatus(settings.run_folder, "land")
    log = backends.open_log_reader(settings)
    lander = Lander(
        log,
        backends.open_store(settings),
        bytes_max=settings.land_bytes,
        age_s_max=settings.land_age_s,
        memory_bytes_max=settings.land_memory_bytes,
    )
    try:
        if not arguments.once:
            with stop_event(arguments) as stop:
                lander.run(stop, status.report)
        lander.drain()
    finally:
        log.close()
    facts = lander.facts()
    status.report("stopped", facts)
    text = f"landed {facts['records']} records in {facts['objects']} objects"
    return VerbResult(EXIT_OK, {"ok": True, **facts}, text)
