"""Builders over bronze rows; the dbt project is parsed once for all tests of a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from support.bronze_rows import BronzeWarehouse
from tickhouse.transform.builder import Builder, duckdb_target
from tickhouse.transform.dbt_runner import DbtRunner

RUN_COLUMNS = ("load_id", "revision")
EXACT_TABLES = (
    "silver.repeated_frames",
    "silver.trades",
    "silver.rejected_trades",
    "silver.quotes",
    "silver.rejected_quotes",
    "silver.sessions",
    "silver.coverage",
    "silver.gaps",
    "silver.instruments",
    "silver.latency_counts",
    "gold.bars_1s",
    "gold.bars_1m",
    "gold.bars_5m",
    "gold.bars_1h",
    "gold.bars_1d",
    "gold.kpi",
    "gold.market_map",
    "gold.volatility_1m",
    "gold.latency",
    "gold.completeness",
    "gold.gaps_daily",
)
_parsed: list[DbtRunner] = []


@contextmanager
def builder_of(warehouse: BronzeWarehouse, **options: Any) -> Iterator[Builder]:
    """A builder of a warehouse whose file is named `warehouse.duckdb` (dbt keeps that name)."""
    assert warehouse.path.name == "warehouse.duckdb"
    builder = Builder(
        connect=warehouse.connect,
        target=duckdb_target(warehouse.path),
        work_folder=warehouse.path.parent / "dbt",
        **options,
    )
    if _parsed:
        builder._dbt.write_profile()
        builder._dbt._runner, builder._dbt.nodes = _parsed[0]._runner, _parsed[0].nodes
    else:
        builder.prepare()
        _parsed.append(builder._dbt)
    try:
        yield builder
    finally:
        builder.close()


def dbt_by_hand(
    target: Mapping[str, object], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A command of dbt over the project, as a user types it; its own files go into `folder`."""
    runner = DbtRunner(target, folder)
    runner.write_profile()
    with as_file(files("tickhouse.transform") / "project") as project:
        return subprocess.run(
            [
                *(str(Path(sys.executable).parent / "dbt"), *arguments),
                *("--project-dir", str(project), "--profiles-dir", str(folder)),
                *("--target-path", str(folder / "target"), "--log-path", str(folder / "logs")),
            ],
            env=os.environ | runner._secrets, capture_output=True, text=True, check=False,
        )  # fmt: skip


def spied_statements(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with what the builder's dbt runs from now on: lower case, no quotes, one line each."""
    statements: list[str] = []
    runner = builder._dbt._runner

    def note(event: Any) -> None:
        if event.info.name == "SQLQuery":
            statements.append(" ".join(event.data.sql.lower().replace('"', "").split()))

    monkeypatch.setattr(runner, "callbacks", [*runner.callbacks, note])
    return statements


def new_warehouse(folder: Path) -> BronzeWarehouse:
    """An empty warehouse in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return BronzeWarehouse(folder / "warehouse.duckdb")


def copied_warehouse(template: BronzeWarehouse, folder: Path) -> BronzeWarehouse:
    """A copy of a warehouse that nothing has open, to build on."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template.path, folder / "warehouse.duckdb")
    return BronzeWarehouse(folder / "warehouse.duckdb")


def rows_of(
    warehouse: BronzeWarehouse, table: str, *, without: Sequence[str] = RUN_COLUMNS
) -> list[tuple[Any, ...]]:
    """All rows of a table in a fixed order, without the columns that differ from run to run."""
    columns = [row[0] for row in warehouse.query(f"describe {table}") if row[0] not in without]
    return warehouse.query(f"select {', '.join(columns)} from {table} order by all")
