"""The verbs `load`, `build` and `refine`: of a file in the one process that owns it.

Of Snowflake in any: the lock row and the positions keep two of them apart, and nobody need ask.
"""

import argparse
import queue
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from tickhouse.errors import BusyError
from tickhouse.runtime import backends
from tickhouse.runtime.owner import Cycle, OwnerClient, OwnerServer, connect_owner
from tickhouse.runtime.refining import Refinery
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.runtime.stopping import stop_event
from tickhouse.settings import Settings
from tickhouse.telemetry import StageStatus
from tickhouse.transform.publisher import Publisher
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import Loader

if TYPE_CHECKING:
    from tickhouse.warehouse.snowflake import SnowflakeWarehouse


def load(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stage 3 alone."""
    return _refine(settings, arguments, load=True, build=False)


def build(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stage 4 alone."""
    return _refine(settings, arguments, load=False, build=True)


def refine(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stages 3 and 4."""
    return _refine(settings, arguments, load=True, build=True)


def _refine(
    settings: Settings, arguments: argparse.Namespace, *, load: bool, build: bool
) -> VerbResult:
    is_remote = settings.is_warehouse_snowflake
    owner = None if is_remote else connect_owner(settings.run_folder)
    if owner is not None:
        return _ask_owner(owner, arguments, load=load, build=build)
    for stage in ("load", "build"):
        StageStatus(settings.run_folder, stage).report("starting")
    warehouse = backends.open_warehouse(settings)
    refinery = make_refinery(settings, warehouse, build=build)
    nobody = queue.SimpleQueue[tuple[Cycle, Future[dict[str, Any]]]]()
    server = None if is_remote else OwnerServer(settings.run_folder, warehouse)
    try:
        if arguments.once:
            facts = asdict(refinery.cycle(load=load, build=build))
        else:
            with stop_event(arguments) as stop:
                refinery.run(
                    stop,
                    interval_s=settings.build_interval_s,
                    requests=nobody if server is None else server.cycles,
                    load=load,
                    build=build,
                )
            facts = refinery.totals
    finally:
        if server is not None:
            server.close()
        refinery.close()
        warehouse.close()
    return _told(facts, f"loaded {facts['rows']} rows")


def _told(facts: dict[str, Any], text: str) -> VerbResult:
    """What was done; a chain that does not go on is a problem, though all others did."""
    problems = facts.get("problems", [])
    content = {"ok": not problems, **facts}
    return VerbResult(EXIT_PROBLEM if problems else EXIT_OK, content, "\n".join([text, *problems]))


def make_refinery(
    settings: Settings, warehouse: "DuckDBWarehouse | SnowflakeWarehouse", *, build: bool = True
) -> Refinery:
    """Loader, builder and publisher over one warehouse."""
    warehouse.prepare()
    run = settings.run_folder
    work_folder = settings.data / "warehouse" / "dbt"
    return Refinery(
        Loader(
            backends.open_store(settings),
            warehouse,
            bytes_max=settings.load_bytes,
            objects_max=settings.load_objects,
        ),
        backends.make_builder(warehouse, work_folder) if build else None,
        _publisher(settings, warehouse),
        StageStatus(run, "load"),
        StageStatus(run, "build"),
    )


def _publisher(
    settings: Settings, warehouse: "DuckDBWarehouse | SnowflakeWarehouse"
) -> Publisher | None:
    """Nothing is published where readers ask the warehouse itself."""
    if settings.is_warehouse_snowflake or not isinstance(warehouse, DuckDBWarehouse):
        return None
    return Publisher(
        settings.gold_folder,
        query=warehouse.query,
        copy_to_parquet=warehouse.copy_to_parquet,
    )


def _ask_owner(
    owner: OwnerClient, arguments: argparse.Namespace, *, load: bool, build: bool
) -> VerbResult:
    """A second load or build goes through the process that owns the file."""
    try:
        if not arguments.once:
            raise BusyError("a running `tickhouse up` or `refine` owns the warehouse; use --once")
        facts = owner.cycle(load=load, build=build)
    finally:
        owner.close()
    text = f"the running refine process loaded {facts['rows']} rows"
    return _told({"owner": True, **facts}, text)
