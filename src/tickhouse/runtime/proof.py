"""The verbs that prove: `audit` and `rebuild`."""

import argparse
import contextlib
import sys
from collections.abc import Generator
from typing import Final

import msgspec

from tickhouse.audit.audit import audit as audit_road
from tickhouse.audit.rebuild import describe_rebuild
from tickhouse.audit.rebuild import rebuild as rebuild_road
from tickhouse.audit.report import Progress, describe, no_progress
from tickhouse.errors import ConfigError
from tickhouse.runtime import backends
from tickhouse.runtime.level import read_statuses
from tickhouse.runtime.owner import connect_owner
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.telemetry import write_json_atomically
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.warehouse import WarehouseReader

CLEAR_LINE: Final = "\r\x1b[K"


def audit(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Every layer against the one upstream of it; the report is kept for the page."""
    log = backends.open_log_reader(settings)
    spool = backends.open_spool_reader(settings) if settings.is_log_kafka else None
    try:
        is_published = not settings.is_warehouse_snowflake
        with warehouse_reader(settings) as warehouse, progress_line() as progress:
            report = audit_road(
                log=log,
                store=backends.open_store(settings),
                warehouse=warehouse,
                spool=spool,
                gold=PublishedGold(settings.gold_folder) if is_published else None,
                truth_path=arguments.truth,
                deep=arguments.deep,
                lag_s_max=settings.lag_s_max if _is_running(settings) else None,
                progress=progress,
            )
    finally:
        log.close()
        if spool is not None:
            spool.close()
    content = msgspec.to_builtins(report)
    write_json_atomically(settings.run_folder / "audit.json", content)
    return VerbResult(EXIT_OK if report.ok else EXIT_PROBLEM, content, describe(report))


def rebuild(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Derive everything again from the lake alone."""
    if arguments.sample is not None and not arguments.compare:
        raise ConfigError("rebuild: --sample is for --compare; a warehouse to keep needs all")
    reader = warehouse_reader(settings) if arguments.compare else contextlib.nullcontext()
    with reader as original, progress_line() as progress:
        report = rebuild_road(
            store=backends.open_store(settings),
            folder=arguments.to,
            make_warehouse=backends.new_warehouse,
            make_builder=backends.make_builder,
            compare_with=original,
            sample=arguments.sample,
            progress=progress,
        )
    ok = not report.problems and report.identical is not False
    content = {"ok": ok, **msgspec.to_builtins(report)}
    return VerbResult(EXIT_OK if ok else EXIT_PROBLEM, content, describe_rebuild(report))


def _is_running(settings: Settings) -> bool:
    return any(status.is_alive for status in read_statuses(settings.run_folder).values())


@contextlib.contextmanager
def warehouse_reader(settings: Settings) -> Generator[WarehouseReader]:
    """Snowflake; else the file's running owner, or the file itself where nobody has it."""
    if settings.is_warehouse_snowflake:
        with contextlib.closing(backends.open_snowflake(settings)) as warehouse:
            yield warehouse
        return
    owner = connect_owner(settings.run_folder)
    if owner is not None:
        with contextlib.closing(owner):
            yield owner
        return
    warehouse = backends.open_warehouse(settings)
    try:
        warehouse.prepare()
        yield warehouse
    finally:
        warehouse.close()


@contextlib.contextmanager
def progress_line() -> Generator[Progress]:
    """A line on the terminal that says how far it is; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield no_progress
        return

    def show(what: str, done: int, total: int | None) -> None:
        share = f" {done:,} of {total:,}" if total else f" {done:,}" if done else ""
        sys.stderr.write(f"{CLEAR_LINE}{what}{share}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write(CLEAR_LINE)
        sys.stderr.flush()
