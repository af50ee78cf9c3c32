"""Rebuild: everything again from the lake alone, equal bit for bit, and told where it is not."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proofs.stages import Stages
from support.audited import Road, first_row
from support.feeds import ListFeed
from tickhouse.audit.compare import TABLES, Comparison, TableComparison, freeze
from tickhouse.audit.rebuild import WAREHOUSE, RebuildReport, describe_rebuild, rebuild
from tickhouse.bronze.local import LocalStore
from tickhouse.errors import ConfigError
from tickhouse.transform.builder import Builder, duckdb_target
from tickhouse.warehouse.dialect import Dialect
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.warehouse import WarehouseReader


def make_builder(warehouse: DuckDBWarehouse, work_folder: Path) -> Builder:
    return Builder(
        connect=warehouse.cursor, target=duckdb_target(warehouse.path), work_folder=work_folder
    )


def rebuilt(
    lake: Path, folder: Path, compare_with: WarehouseReader | None = None, **options: Any
) -> RebuildReport:
    return rebuild(
        store=LocalStore(lake),
        folder=folder,
        make_warehouse=DuckDBWarehouse,
        make_builder=make_builder,
        compare_with=compare_with,
        sleep=lambda _seconds: None,
        **options,
    )


@pytest.fixture(scope="module")
def rebuilt_folder(road_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was rebuilt of the road's lake, all of it."""
    folder = tmp_path_factory.mktemp("rebuilt") / "to"
    rebuilt(road_folder / "lake", folder)
    return folder


@pytest.fixture
def road(road_folder: Path, tmp_path: Path) -> Road:
    return Road(road_folder, tmp_path / "data")


@pytest.fixture
def other(rebuilt_folder: Path) -> Iterator[DuckDBWarehouse]:
    with closing(DuckDBWarehouse(rebuilt_folder / WAREHOUSE)) as warehouse:
        yield warehouse


def compared(road: Road, other: DuckDBWarehouse) -> dict[str, TableComparison]:
    """Tables that differ."""
    with closing(DuckDBWarehouse(road.database)) as original:
        comparison = Comparison(
            original, freeze(original, sleep=lambda _seconds: None, attempts=1), other
        )
        found = [comparison.compare(table) for table in TABLES]
    return {table.name: table for table in found if not table.identical}


def test_incremental_builds_and_a_rebuild_are_identical_bit_for_bit(
    road: Road, tmp_path: Path
) -> None:
    told: list[str] = []
    with closing(DuckDBWarehouse(road.database)) as original:
        report = rebuilt(
            road.folder / "lake", tmp_path / "to", original,
            progress=lambda what, _done, _total: told.append(what),
        )  # fmt: skip

    assert report.identical, describe_rebuild(report)
    assert [] == report.problems
    assert {table.name for table in TABLES} == {table.name for table in report.tables}
    empty = {table.name for table in report.tables if not table.rows}
    assert empty <= {"silver.repeated_frames"}
    assert {"load", "build", "compare gold.kpi"} <= set(told)


@pytest.mark.long
def test_a_rebuild_goes_no_further_than_the_original(road: Road, tmp_path: Path) -> None:
    """What was landed or loaded since the last build is not in either side."""
    with closing(DuckDBWarehouse(road.database)) as original:
        before = original.query("select count(*) from bronze.trades")[0][0]
    stages = Stages(road.folder)
    stages.record(ListFeed([b'{"type":"ping"}'] * 7))
    stages.loader.load_all()
    stages.record(ListFeed([b'{"type":"ping"}'] * 9))
    stages.close()

    with closing(DuckDBWarehouse(road.database)) as original:
        report = rebuilt(road.folder / "lake", tmp_path / "to", original)

    assert report.identical, describe_rebuild(report)
    assert before == next(t.rows for t in report.tables if t.name == "bronze.trades")


def test_a_rebuild_without_comparison_takes_the_whole_lake(
    road: Road, other: DuckDBWarehouse
) -> None:
    count = "select count(*) from bronze.trades"

    assert road.ask(count) == other.query(count)


def test_a_folder_that_is_not_empty_is_refused(road: Road) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        rebuilt(road.folder / "lake", road.folder)


def test_a_warehouse_that_was_never_built_is_refused(tmp_path: Path) -> None:
    with closing(DuckDBWarehouse(tmp_path / "warehouse.duckdb")) as original:
        original.prepare()

        with pytest.raises(ConfigError, match="have not been built"):
            rebuilt(tmp_path / "lake", tmp_path / "to", original)


def test_a_lake_that_lost_an_object_cannot_be_rebuilt_and_says_which(
    road: Road, tmp_path: Path
) -> None:
    key, manifest = road.objects()[2]
    road.object_path(key).unlink()

    with closing(DuckDBWarehouse(road.database)) as original:
        report = rebuilt(road.folder / "lake", tmp_path / "to", original)

    assert report.identical is False
    assert any(f"rebuilt up to {manifest.start} of" in problem for problem in report.problems)
    assert not next(t for t in report.tables if t.name == "bronze.trades").identical


def test_a_corrupt_object_stops_a_rebuild_and_is_named(road: Road, tmp_path: Path) -> None:
    key, _ = road.objects()[2]
    road.rewrite_object(key, road.object_path(key).read_bytes()[:-1])

    with closing(DuckDBWarehouse(road.database)) as original:
        report = rebuilt(road.folder / "lake", tmp_path / "to", original)

    assert report.identical is False
    assert any(key in problem for problem in report.problems)


class MovesOn:
    """A warehouse that is built further once it has been asked for its digests."""

    dialect: Dialect = "duckdb"

    def __init__(self, warehouse: DuckDBWarehouse) -> None:
        self._warehouse = warehouse
        self.has_moved = False

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        rows = self._warehouse.query(sql, parameters)
        if "bit_xor" in sql and not self.has_moved:
            self.has_moved = True
            cursor = self._warehouse.cursor()
            cursor.execute("update meta.positions set load_id = load_id + 1")
            cursor.execute("update gold.kpi set last_price = last_price + 1, load_id = load_id + 1")
            cursor.close()
        return rows


def test_the_original_may_go_on_while_a_rebuild_runs(road: Road, tmp_path: Path) -> None:
    with closing(DuckDBWarehouse(road.database)) as warehouse:
        original = MovesOn(warehouse)
        report = rebuilt(road.folder / "lake", tmp_path / "to", original)

    assert original.has_moved
    assert report.identical, describe_rebuild(report)


# -- differences -------------------------------------------------------------------------------


def test_nothing_differs_where_nothing_was_changed(road: Road, other: DuckDBWarehouse) -> None:
    assert {} == compared(road, other)


def changed(table: str, change: str, condition: str = "true") -> str:
    return f"update {table} set {change} where {first_row(table, condition)}"


def removed(table: str) -> str:
    return f"delete from {table} where {first_row(table)}"


@pytest.mark.parametrize(
    ("statement", "table", "text"),
    [
        (changed("bronze.trades", "payload = '{}'"), "bronze.trades", "bronze/v1/trades"),
        (changed("bronze.load_ledger", "sha256 = 'x'"), "bronze.load_ledger", "'sha256': 'x'"),
        (removed("silver.trades"), "silver.trades", "rebuilt"),
        (
            changed("silver.trades", "price = price + 0.00000001", "symbol = 'AAPL'"),
            "silver.trades",
            "AAPL 20",
        ),
        (
            changed("silver.rejected_trades", "payload = ''", "reason = 'zero_size'"),
            "silver.rejected_trades",
            "zero_size",
        ),
        (changed("silver.sessions", "shard = 9"), "silver.sessions", "only here: {"),
        (changed("gold.bars_1s", "vwap = vwap + 0.00000001"), "gold.bars_1s", "only rebuilt: {"),
        (
            changed("gold.bars_1m", "close = null", "close is not null"),
            "gold.bars_1m",
            "'close': None",
        ),
        (removed("gold.market_map"), "gold.market_map", "0 rows"),
        (
            changed("gold.completeness", "is_complete = not is_complete"),
            "gold.completeness",
            "only here",
        ),
    ],
)
def test_a_difference_is_named_by_table_and_place_with_its_rows(
    road: Road, other: DuckDBWarehouse, statement: str, table: str, text: str
) -> None:
    road.change(statement)

    found = compared(road, other)

    assert [table] == list(found)
    assert text in "\n".join(found[table].differences)


def test_a_row_that_is_there_three_times_is_seen(road: Road, other: DuckDBWarehouse) -> None:
    """An exclusive or of hashes alone would not see it."""
    again = f"insert into silver.trades from silver.trades where {first_row('silver.trades')}"
    road.change(again, again)

    found = compared(road, other)["silver.trades"]

    assert 2 == found.rows - found.rows_rebuilt


def test_run_columns_are_not_compared(road: Road, other: DuckDBWarehouse) -> None:
    road.change(
        "update bronze.load_ledger set loaded_at = loaded_at + interval 1 hour",
        "update gold.bars_1s set revision = revision + 1, load_id = 1",
    )

    assert {} == compared(road, other)


@pytest.mark.parametrize(
    ("factor", "differing"), [(1 + 1e-14, []), (1 + 1e-9, ["gold.volatility_1m"])]
)
def test_volatility_is_compared_to_a_relative_error_of_1e_12(
    road: Road, rebuilt_folder: Path, tmp_path: Path, factor: float, differing: list[str]
) -> None:
    shutil.copytree(rebuilt_folder, tmp_path / "rebuilt")
    seed = "update gold.volatility_1m set realised_volatility = 0.123456789"
    road.change(f"{seed} * {factor!r}")
    Road.change(Rebuilt(tmp_path / "rebuilt"), seed)  # pyright: ignore[reportArgumentType]

    with closing(DuckDBWarehouse(tmp_path / "rebuilt" / WAREHOUSE)) as other:
        found = compared(road, other)

    assert differing == list(found)


class Rebuilt:
    def __init__(self, folder: Path) -> None:
        self.database = folder / WAREHOUSE


@pytest.mark.long
def test_frames_delivered_twice_do_not_make_a_rebuild_differ(tmp_path: Path) -> None:
    """Which delivery counts may differ; what it says may not."""
    folder = tmp_path / "data"
    trade = b'{"type":"trade","data":[{"s":"AAPL","p":1.5,"v":2,"t":1723213800000},{"s":"","p":1}]}'
    stages = Stages(folder)
    stages.record(ListFeed([trade] * 30))
    stages.refine()
    stages.close()
    log = folder / "log" / "log.db"
    backup = log.read_bytes()
    stages = Stages(folder)
    stages.record(ListFeed([trade] * 5, url="list:2"))
    stages.close()
    for path in log.parent.glob("log.db*"):
        path.unlink()
    log.write_bytes(backup)
    stages = Stages(folder)
    stages.record(ListFeed([trade] * 6, url="list:3"))
    stages.refine()
    stages.close()

    with closing(DuckDBWarehouse(folder / WAREHOUSE)) as original:
        repeats = original.query("select count(*) from silver.repeated_frames")[0][0]
        report = rebuilt(folder / "lake", tmp_path / "to", original)

    assert repeats > 30
    assert report.identical, describe_rebuild(report)
