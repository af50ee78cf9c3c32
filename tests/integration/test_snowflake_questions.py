"""The same questions on DuckDB and on Snowflake: of the same rows, the same answers."""

import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from support.audited import Road, bad_layers
from support.dashboard import serving
from support.mirror import mirror_table
from tests.servers.snowflake import SnowflakeServer
from tickhouse.audit import audit as auditing
from tickhouse.audit.compare import TABLES, Comparison, freeze
from tickhouse.audit.report import AuditReport, LayerReport, describe
from tickhouse.dashboard.polled_gold import PolledGold
from tickhouse.dashboard.queries import BAR_S, GoldQueries
from tickhouse.stream.sqlite import SqliteReader
from tickhouse.transform.published import PublishedGold
from tickhouse.transform.warehouse_gold import WarehouseGold
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.snowflake import SnowflakeWarehouse

pytestmark = pytest.mark.warehouse

STATEMENTS_MAX = 45
ALL_MS = 1 << 42


def no_sleep(_seconds: float) -> None:
    """Nothing is built meanwhile."""


class Both:
    """A road whose warehouse is there twice, and stays the same in every test."""

    def __init__(self, road: Road, snowflake: SnowflakeWarehouse, server: SnowflakeServer) -> None:
        self.road = road
        self.snowflake = snowflake
        self.server = server

    def audits(self, **options: Any) -> tuple[AuditReport, AuditReport]:
        """The road's report by DuckDB and by Snowflake."""
        return self.road.audit(**options), self.road.audit(warehouse=self.snowflake, **options)

    def change(self, *statements: str) -> None:
        """Do the same damage to both."""
        self.road.change(*statements)
        with closing(self.snowflake.cursor()) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def restore(self, table: str, original: Path) -> None:
        with duckdb.connect(original, read_only=True) as database:
            cursor = self.snowflake.cursor()
            mirror_table(database, cursor, table)
            cursor.close()


@pytest.fixture
def both(
    road_folder: Path, tmp_path: Path, mirrored: SnowflakeWarehouse, snowflake: SnowflakeServer
) -> Both:
    return Both(Road(road_folder, tmp_path / "data"), mirrored, snowflake)


def summary(found: LayerReport) -> tuple[Any, ...]:
    """What a layer found; sums as numbers, since the fake's have more noughts."""
    sums = {name: Decimal(value) for name, value in found.sums.items()}
    findings = [(f.kind, f.where) for f in found.findings]
    return found.name, found.checked, sums, findings


# -- audit -------------------------------------------------------------------------------------


def test_a_road_in_snowflake_is_clean_in_every_layer_and_counts_the_same(both: Both) -> None:
    embedded, remote = both.audits(truth=True)

    assert remote.ok, describe(remote)
    assert [summary(found) for found in embedded.layers] == [
        summary(found) for found in remote.layers
    ]
    assert "gold_to_published" not in {found.name for found in remote.layers}
    assert all(found.checked for found in remote.layers)


def test_a_lake_too_big_to_recount_is_counted_in_snowflake(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "RECOUNT_FRAMES_MAX", 0)

    embedded, remote = both.audits()

    assert (True, False) == (remote.ok, remote.recounted)
    assert [summary(found) for found in embedded.layers] == [
        summary(found) for found in remote.layers
    ]


def test_an_audit_asks_snowflake_few_statements(both: Both) -> None:
    both.server.counts()

    both.road.audit(warehouse=both.snowflake)

    counts = both.server.counts()
    asked = sum(count for word, count in counts.items() if word.lower() in {"select", "with"})
    assert 10 < asked <= STATEMENTS_MAX, counts


DAMAGES = {
    "a deleted row of bronze": (
        "bronze.trades",
        "delete from bronze.trades where part = 0 and log_offset = 40",
        "bronze_to_warehouse",
    ),
    "a doubled row of bronze": (
        "bronze.trades",
        "insert into bronze.trades select * from bronze.trades where part = 0 and log_offset = 40",
        "bronze_to_warehouse",
    ),
    "a missing row of the ledger": (
        "bronze.load_ledger",
        "delete from bronze.load_ledger where stream = 'trades' and part = 0 and start_offset = 28",
        "bronze_to_warehouse",
    ),
    "a deleted trade": ("silver.trades", "delete from silver.trades where {one}", None),
    "a doubled trade": (
        "silver.trades",
        "insert into silver.trades select * from silver.trades where {one}",
        None,
    ),
    "a changed price": (
        "silver.trades",
        "update silver.trades set price = price + 1 where {one}",
        None,
    ),
    "a deleted reject": (
        "silver.rejected_trades",
        "delete from silver.rejected_trades where reason = 'zero_size'",
        None,
    ),
    "a doubled quote": (
        "silver.quotes",
        "insert into silver.quotes select * from silver.quotes where session_seq = 0",
        None,
    ),
    "a changed bar": (
        "gold.bars_1m",
        "update gold.bars_1m set volume = volume + 1 where symbol = 'MSFT'",
        "silver_to_gold",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_same_damage_is_found_on_both(both: Both, road_folder: Path, damage: str) -> None:
    table, statement, where = DAMAGES[damage]
    ((session, seq, index),) = both.road.ask(
        "select session_id, session_seq, trade_index from silver.trades"
        " where counts_volume order by all limit 1"
    )
    one = f"session_id = '{session}' and session_seq = {seq} and trade_index = {index}"

    try:
        both.change(statement.format(one=one))
        embedded, remote = both.audits()
    finally:
        both.restore(table, road_folder / "warehouse" / "warehouse.duckdb")

    assert not remote.ok
    assert (where or "warehouse_to_silver") in bad_layers(remote)
    assert [summary(found) for found in embedded.layers] == [
        summary(found) for found in remote.layers
    ]


# -- compare -----------------------------------------------------------------------------------


def test_snowflake_is_compared_with_what_duckdb_derived_from_the_lake(
    both: Both, road_folder: Path
) -> None:
    original = road_folder / "warehouse" / "warehouse.duckdb"
    with closing(DuckDBWarehouse(both.road.database)) as rebuilt:
        frozen = freeze(both.snowflake, sleep=no_sleep)
        comparison = Comparison(both.snowflake, frozen, rebuilt)
        clean = [comparison.compare(table) for table in TABLES]
        try:
            with closing(both.snowflake.cursor()) as cursor:
                cursor.execute("update gold.kpi set last_price = 1 where symbol = 'MSFT'")
            damaged = Comparison(both.snowflake, freeze(both.snowflake, sleep=no_sleep), rebuilt)
            (kpi,) = (damaged.compare(table) for table in TABLES if table.name == "gold.kpi")
        finally:
            both.restore("gold.kpi", original)

    assert [] == [table for table in clean if not table.identical]
    assert sum(table.rows for table in clean) > 10_000
    assert not kpi.identical
    assert "MSFT: 1 rows, rebuilt 1" in kpi.differences[0]
    assert "only here" in kpi.differences[0]


# -- the page ----------------------------------------------------------------------------------


def test_the_page_is_told_the_same_of_both(both: Both) -> None:
    published = GoldQueries(PublishedGold(both.road.folder / "gold"))
    remote = GoldQueries(WarehouseGold(both.snowflake))
    versions = published.version(), remote.version()
    symbols = sorted(row.symbol for row in remote.market())

    assert versions[0] is not None
    assert versions[1] is not None
    assert versions[0].load_id == versions[1].load_id
    assert sorted(versions[0].positions) == sorted(versions[1].positions)
    assert sorted(published.market(), key=lambda row: row.symbol) == sorted(
        remote.market(), key=lambda row: row.symbol
    )
    for symbol in ("", "AAPL", "MSFT"):
        gaps = [queries.gaps(symbol, 0, ALL_MS, 100) for queries in (published, remote)]
        assert gaps[0] == gaps[1]
    for interval in BAR_S:
        since = dict.fromkeys(symbols, 0)
        assert published.bars_since(interval, since) == remote.bars_since(interval, since)
        assert published.candles("MSFT", interval, limit=3).rows == (
            remote.candles("MSFT", interval, limit=3).rows
        )
    questions: dict[str, dict[str, int | None]] = {"1m": {"AAPL": None}}
    answers = published.answer(versions[0], questions), remote.answer(versions[1], questions)
    assert answers[0] is not None
    assert answers[1] is not None
    assert answers[0].bars == answers[1].bars
    assert answers[0].gap_mark == answers[1].gap_mark


A_MODEL_MOVED = "update meta.positions set load_id = load_id + 1 where model = 'trades'"
THE_SAME_LOADS_BY_OTHER_SQL = (
    "insert into meta.builds"
    " select max(build_id) + 1, 0, 1, max(started_at), null, null from meta.builds"
)


@pytest.mark.parametrize("within_build", [A_MODEL_MOVED, THE_SAME_LOADS_BY_OTHER_SQL])
def test_an_answer_from_within_a_build_is_not_taken(
    both: Both, road_folder: Path, within_build: str
) -> None:
    queries = GoldQueries(WarehouseGold(both.snowflake))
    version = queries.version()
    assert version is not None

    try:
        with closing(both.snowflake.cursor()) as cursor:
            cursor.execute(within_build)
        within = queries.answer(version, {})
        still = queries.version()
    finally:
        for table in ("meta.positions", "meta.builds"):
            both.restore(table, road_folder / "warehouse" / "warehouse.duckdb")

    assert within is None
    assert still == version
    assert queries.answer(version, {}) is not None


def test_the_page_is_served_from_snowflake(both: Both, tmp_path: Path) -> None:
    with (
        closing(SqliteReader(both.road.folder / "log" / "log.db")) as log,
        closing(PolledGold(WarehouseGold(both.snowflake))) as gold,
        serving(log, gold, tmp_path / "run") as url,
    ):
        deadline = time.monotonic() + 60
        while not (market := httpx.get(f"{url}/api/v1/snapshot").json())["gold"]:
            assert time.monotonic() < deadline, market
            time.sleep(0.1)
        bars = httpx.get(f"{url}/api/v1/candles/MSFT", params={"interval": "1m"}, timeout=30)
        gaps = httpx.get(f"{url}/api/v1/gaps", params={"symbol": "AAPL"}, timeout=30)
        both.server.counts()
        for _ in range(20):
            httpx.get(f"{url}/api/v1/candles/MSFT", params={"interval": "1m"}, timeout=30)
        asked = sum(both.server.counts().values())

    assert "MSFT" in market["market"]["symbol"]
    assert bars.json()["rows"]
    assert gaps.json()["gaps"]
    assert asked <= 4, "twenty viewers ask once"
