"""Twelve partitions of 1,001 small objects each, all pending: loaded once, in bounded memory.

A loader that lists one page of 1,000 keys loses nine tenths of them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proofs.stages import Stages
from support.lake_builder import Lake, chain_id, frames, make_object
from support.snowflake import open_snowflake
from tests.servers.snowflake import SnowflakeServer
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.warehouse import Warehouse

PARTITIONS = 12
OBJECTS = 1_001
PEAK_GROWTH_MAX = 1.25
"""Peak memory against that of a load of a twelfth, which takes more than one step as well."""


def fill(folder: Path, parts: range) -> None:
    lake = Lake(folder)
    for part in parts:
        lake.open_chain(chain_id(part))
        for number in range(OBJECTS):
            item = make_object(chain_id(part), number, frames(part * OBJECTS + number, 1))
            path = lake.path(item.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.body)


def load(folder: Path, settings: dict[str, str]) -> int:
    """Load what is pending by the command; its peak memory, KiB."""
    environment = os.environ | {"TICKHOUSE_DATA": str(folder), **settings}
    with (folder / "load.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tickhouse", "load", "--once"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "load.log").read_text()[-2000:]
    return usage.ru_maxrss


def check(folder: Path, settings: dict[str, str]) -> None:
    fill(folder / "lake", range(1))
    peak_of_few = load(folder, settings)
    fill(folder / "lake", range(1, PARTITIONS))
    peak = load(folder, settings)

    assert peak <= peak_of_few * PEAK_GROWTH_MAX


def check_rows(warehouse: Warehouse) -> None:
    all_of_them = PARTITIONS * OBJECTS
    rows = warehouse.query(
        "select count(*), count(distinct file), count(distinct session_seq) from bronze.trades"
    )
    ledger = warehouse.query(
        "select count(*), count(distinct file), sum(n) from bronze.load_ledger"
    )
    positions = warehouse.positions()
    warehouse.close()

    assert [tuple(map(int, row)) for row in rows] == [(all_of_them, all_of_them, all_of_them)]
    assert [tuple(map(int, row)) for row in ledger] == [(all_of_them, all_of_them, all_of_them)]
    assert positions == {chain_id(part): OBJECTS for part in range(PARTITIONS)}


def test_12_000_small_objects_are_loaded_once_in_bounded_memory(tmp_path: Path) -> None:
    check(tmp_path, {})

    check_rows(DuckDBWarehouse(tmp_path / "warehouse" / "warehouse.duckdb"))
    all_of_them = PARTITIONS * OBJECTS
    stages = Stages(tmp_path)
    stages.refine()
    trades = stages.warehouse.query(
        "select count(*), count(distinct session_seq), sum(trade_size) from silver.trades"
    )
    stages.close()
    assert trades == [(all_of_them, all_of_them, 5 * all_of_them)]


@pytest.mark.warehouse
def test_12_000_small_objects_are_loaded_once_into_snowflake_in_bounded_memory(
    tmp_path: Path,
    snowflake: SnowflakeServer,
    snowflake_database: str,
) -> None:
    url = snowflake.url(snowflake_database)
    check(tmp_path, {"TICKHOUSE_WAREHOUSE": url, **snowflake.credentials})

    check_rows(open_snowflake(snowflake, snowflake_database))
