"""Loaders of DuckDB and of Snowflake killed and put to sleep at random: nothing lost or doubled."""

import os
from pathlib import Path

import pytest

from proofs.warehouse import prove
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable
from tests.servers.snowflake import start_snowflake

KILLS = int(os.environ.get("TICKHOUSE_LOADER_KILLS", "15"))
"""Of loaders of each warehouse; 150 make 300 altogether, with 20 zombies."""


@pytest.mark.warehouse
@pytest.mark.timeout(3000)
def test_random_kills_of_loaders_lose_and_double_nothing_in_either_warehouse(
    tmp_path: Path,
) -> None:
    try:
        start_snowflake(tmp_path / "probe").stop()
    except UnavailableError as error:
        unavailable(error)

    found = prove(KILLS, zombies=max(KILLS // 15, 1), seed=20261129)

    assert found["ok"], found
    assert found["kills"] >= 2 * KILLS * 0.8
    assert (found["lost"], found["duplicated"], found["corrupt"]) == (0, 0, 0)
    assert found["tables_compared"] == found["tables_equal"] >= 40
    assert set(found["warehouses"]) == {"duckdb", "snowflake"}
