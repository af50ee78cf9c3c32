"""Silver and gold tables straight into DuckDB, for tests of publishing and of its readers."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from tickhouse.transform.publisher import Publisher

DAY = datetime(2024, 8, 9, tzinfo=UTC).replace(tzinfo=None)
START = DAY + timedelta(hours=14, minutes=30)

_SCHEMA = """
create schema bronze; create schema meta; create schema silver; create schema gold;
create table bronze.identity as select 'w1' as warehouse_id;
create table bronze.load_ledger (
    stream varchar, topic varchar, topic_id varchar, part integer, next_offset bigint,
    load_id bigint
);
create table meta.positions (model varchar, fingerprint varchar, watermark timestamp);
insert into meta.positions values ('trades', 'f1', null), ('bars_1s', 'f2', null);
create table silver.trades (
    symbol varchar, event_at timestamp, price decimal(18,8), session_seq bigint, load_id bigint
);
create table silver.instruments as
    select 'AAPL' as symbol, 'Apple' as name, cast(1 as bigint) as load_id;
create table silver.trade_conditions as select '1' as code;
create table gold.bars_1s (symbol varchar, bar_at timestamp, close decimal(18,8), load_id bigint);
create table gold.bars_1d as from gold.bars_1s;
create table gold.kpi (symbol varchar, last_price decimal(18,8), load_id bigint);
"""


class GoldSource:
    """A warehouse that holds a few silver and gold tables, changed by hand.

    Every `trade` and `bar` belongs to the current load; `publish` publishes up to it.
    """

    def __init__(self, folder: Path) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(_SCHEMA)
        self.folder = folder
        self.load_id = 0
        self.now_s = 0.0
        self.exported: list[str] = []
        self.wrote: list[str] = []

    def publisher(self, **options: Any) -> Publisher:
        return Publisher(
            self.folder,
            query=self.query,
            copy_to_parquet=self.copy_to_parquet,
            clock_ms=lambda: 1_723_213_800_000,
            monotonic=lambda: self.now_s,
            **options,
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def copy_to_parquet(self, select_sql: str, path: Path, *, order_by: str = "") -> int:
        self.exported.append(select_sql)
        self.wrote.append(str(path.relative_to(self.folder)))
        assert not path.exists()
        target = str(path).replace("'", "''")
        row = self.connection.execute(
            f"copy (from ({select_sql}) order by {order_by}) to '{target}' (format parquet)"
        ).fetchone()
        return int(row[0]) if row else 0

    def next_load(self) -> int:
        self.load_id += 1
        self.exported.clear()
        self.wrote.clear()
        self.connection.execute(
            "insert into bronze.load_ledger values ('trades', ?, 'e1', 0, ?, ?)",
            ["tickhouse.trades.v1", 100 * self.load_id, self.load_id],
        )
        return self.load_id

    def trade(self, count: int = 1, *, symbol: str = "AAPL", at: datetime = START) -> None:
        self.connection.execute(
            "insert into silver.trades select ?, ?, 100 + i, i, ? from range(?) as r(i)",
            [symbol, at, self.load_id, count],
        )

    def bar(self, at: datetime, close: float = 1, *, symbol: str = "AAPL") -> None:
        """Replace one bar, as delete+insert does."""
        for table in ("bars_1s", "bars_1d"):
            self.connection.execute(
                f"delete from gold.{table} where symbol = ? and bar_at = ?", [symbol, at]
            )
            self.connection.execute(
                f"insert into gold.{table} values (?, ?, ?, ?)", [symbol, at, close, self.load_id]
            )

    def files(self) -> set[str]:
        return {
            str((Path(folder) / name).relative_to(self.folder))
            for folder, _, names in os.walk(self.folder)
            for name in names
        }

    def short_names(self) -> list[str]:
        """What was exported in this load, without version: `bars_1s/2024-08-09T1430`."""
        return sorted(name.split(".v")[0] for name in self.wrote)

    def rows(self, table: str) -> Sequence[tuple[Any, ...]]:
        return sorted(self.query(f"from {table}"))

    def close(self) -> None:
        self.connection.close()
