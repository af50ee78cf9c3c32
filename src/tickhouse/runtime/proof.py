"""The verbs that prove: `audit` and `rebuild`."""

import argparse
import contextlib
import sys
from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from tickhouse.audit.audit import audit as run_audit
from tickhouse.audit.rebuild import describe_rebuild
from tickhouse.audit.rebuild import rebuild as run_rebuild
from tickhouse.audit.report import Progress, describe, no_progress
from tickhouse.runtime import backends
from tickhouse.runtime.level import read_statuses
from tickhouse.runtime.owner import connect_owner
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.telemetry import write_json_atomically
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.warehouse import Row, WarehouseReader


def audit(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Everything that was recorded is in every layer exactly once; code 1 if not."""
    log = backends.open_log_reader(settings)
    try:
        with _warehouse(settings) as warehouse, _shown_progress() as progress:
            report = run_audit(
                log=log,
                store=backends.open_store(settings),
                warehouse=warehouse,
                gold=PublishedGold(settings.gold_folder),
                truth_path=arguments.truth,
                deep=arguments.deep,
                lag_s_max=settings.lag_s_max if _runs(settings) else None,
                progress=progress,
            )
    finally:
        log.close()
    content: dict[str, Any] = msgspec.to_builtins(report)
    write_json_atomically(settings.run_folder / "audit.json", content)
    return VerbResult(EXIT_OK if report.ok else EXIT_PROBLEM, content, describe(report))


def rebuild(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Warehouse, silver and gold again from the lake alone; code 1 if they differ."""
    with contextlib.ExitStack() as stack:
        report = run_rebuild(
            store=backends.open_store(settings),
            folder=arguments.to.expanduser().absolute(),
            make_warehouse=DuckDBWarehouse,
            make_builder=backends.make_builder,
            compare_with=stack.enter_context(_warehouse(settings)) if arguments.compare else None,
            progress=stack.enter_context(_shown_progress()),
        )
    ok = report.identical is not False and not report.problems
    content: dict[str, Any] = {"ok": ok, **msgspec.to_builtins(report)}
    return VerbResult(EXIT_OK if ok else EXIT_PROBLEM, content, describe_rebuild(report))


class _NoWarehouse:
    """Answers where nothing was ever loaded: there is no table."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:  # noqa: ARG002
        """See `WarehouseReader.query`."""
        return [(0,)]


@contextlib.contextmanager
def _warehouse(settings: Settings) -> Generator[WarehouseReader]:
    """The warehouse's owner where it runs, else the file itself; it is not made here."""
    owner = connect_owner(settings.run_folder)
    if owner is not None:
        with contextlib.closing(owner):
            yield owner
    elif backends.warehouse_path(settings).exists():
        with contextlib.closing(backends.open_warehouse(settings)) as warehouse:
            yield warehouse
    else:
        yield _NoWarehouse()


def _runs(settings: Settings) -> bool:
    """Whether a stage runs, so that what is in flight should be moving."""
    statuses = read_statuses(settings.run_folder).values()
    return any(status.is_alive and status.stage != "audit" for status in statuses)


@contextlib.contextmanager
def _shown_progress() -> Generator[Progress]:
    """On a terminal, one line that says what is being looked at."""
    if not sys.stderr.isatty():
        yield no_progress
        return

    def show(layer: str, done: int, total: int | None) -> None:
        of = "" if total is None else f" of {total:,}"
        sys.stderr.write(f"\r\033[K{layer} {done:,}{of}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\033[K")
