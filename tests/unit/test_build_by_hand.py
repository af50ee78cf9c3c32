"""Plain dbt beside the builder: the same rows from either, and nothing passed over in between."""

from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.bronze_rows import T0, BronzeFrame, BronzeWarehouse, finnhub, trade
from support.builds import EXACT_TABLES, builder_of, dbt_by_hand, new_warehouse
from support.comparable_rows import assert_same, comparable_rows
from tickhouse.transform.builder import duckdb_target


def frame(seq: int) -> BronzeFrame:
    at = T0 + timedelta(seconds=17 * seq)
    payload = finnhub(trade("AAPL", at, 100 + seq % 7, 10), trade("MSFT", at, 50, 1))
    return BronzeFrame(payload=payload, seq=seq, received_at=at + timedelta(seconds=1))


LOADS = [[frame(0), frame(1)], [frame(2), frame(1)], [frame(3), frame(4)], [frame(5), frame(0)]]


def dbt(warehouse: BronzeWarehouse, *arguments: str) -> CompletedProcess[str]:
    return dbt_by_hand(duckdb_target(warehouse.path), warehouse.path.parent / "by hand", *arguments)


@pytest.fixture
def warehouse(tmp_path: Path) -> BronzeWarehouse:
    """One load, built."""
    made = new_warehouse(tmp_path / "ours")
    made.load(LOADS[0])
    with builder_of(made) as builder:
        builder.build()
    return made


def full_models(warehouse: BronzeWarehouse) -> list[str]:
    rows = warehouse.query("select model from meta.windows where is_full and model <> 'tests'")
    return [row[0] for row in rows]


def assert_as_if_built(warehouse: BronzeWarehouse, loads: int, tmp_path: Path) -> None:
    quiet = new_warehouse(tmp_path / f"quiet {loads}")
    for load in LOADS[:loads]:
        quiet.load(load)
    with builder_of(quiet) as builder:
        builder.build()
    for table in EXACT_TABLES:
        rows = (comparable_rows(each, table) for each in (quiet, warehouse))
        assert_same(*rows, table)


def test_dbt_build_and_tickhouse_build_go_on_where_the_other_ended(
    warehouse: BronzeWarehouse, tmp_path: Path
) -> None:
    warehouse.load(LOADS[1])
    done = dbt(warehouse, "build", "--exclude-resource-type", "unit_test")
    assert done.returncode == 0, done.stdout
    assert full_models(warehouse) == []
    ended = "select started_at < finished_at and failure is null from meta.builds order by build_id"
    assert warehouse.query(ended) == [(True,), (True,)]
    assert_as_if_built(warehouse, 2, tmp_path)

    warehouse.load(LOADS[2])
    with builder_of(warehouse) as builder:
        builder.build()
    assert full_models(warehouse) == []
    assert_as_if_built(warehouse, 3, tmp_path)


def test_a_model_whose_upstream_is_not_selected_refuses_and_loses_nothing(
    warehouse: BronzeWarehouse, tmp_path: Path
) -> None:
    warehouse.load(LOADS[1])
    alone = dbt(warehouse, "run", "--select", "bars_1s")
    with_upstream = dbt(warehouse, "run", "--select", "+bars_1s")
    stands = warehouse.query("select model, load_id from meta.positions")
    with builder_of(warehouse) as builder:
        builder.build()

    assert alone.returncode == 1
    assert "bars_1s reads" in alone.stdout
    assert "dbt run --select +bars_1s" in alone.stdout
    assert with_upstream.returncode == 0, with_upstream.stdout
    assert {("bars_1s", 2), ("kpi", 1)} <= set(stands)
    assert_as_if_built(warehouse, 2, tmp_path)


@pytest.mark.long
def test_a_full_refresh_makes_tables_anew_and_docs_and_freshness_are_there(
    warehouse: BronzeWarehouse, tmp_path: Path
) -> None:
    warehouse.execute("delete from gold.bars_1s")
    done = dbt(warehouse, "run", "--full-refresh")
    docs = dbt(warehouse, "docs", "generate")
    freshness = dbt(warehouse, "source", "freshness")

    assert done.returncode == 0, done.stdout
    assert_as_if_built(warehouse, 1, tmp_path)
    assert docs.returncode == 0, docs.stdout
    assert "freshness of bronze" in freshness.stdout, freshness.stdout
