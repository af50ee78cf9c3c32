"""Bronze rows and ledger straight into a DuckDB file, without log, lake and loader."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from tickhouse.model.positions import Stream

T0 = datetime(2024, 8, 9, 14, 30, tzinfo=UTC)
"""A Friday, 10:30 in New York: regular hours."""
TOPIC_ID = "0123456789abcdef"
Row = tuple[Any, ...]


class BronzeFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One row of bronze; the log offset is given by the order of insertion."""

    payload: str | None
    seq: int
    session: str = "s1"
    source: str = "finnhub.ws"
    received_at: datetime = T0
    log_delay_ms: int = 2
    stream: str = "trades"
    poison: str | None = None
    text: str | None = None
    symbol: str | None = None


def millis(at: datetime) -> int:
    """UNIX milliseconds of a UTC time."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def nanos(at: datetime) -> int:
    """UNIX nanoseconds of a UTC time."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def trade(
    symbol: str, at: datetime, price: Any, size: Any, conditions: Sequence[str] | None = ("1",)
) -> dict[str, Any]:
    """An element of a Finnhub trade message."""
    codes = None if conditions is None else list(conditions)
    return {"c": codes, "p": price, "s": symbol, "t": millis(at), "v": size}


def finnhub(*trades: dict[str, Any]) -> str:
    """A Finnhub trade message."""
    return json.dumps({"data": list(trades), "type": "trade"}, separators=(",", ":"))


def binance(symbol: str, at: datetime, price: str, size: str, trade_id: int) -> str:
    """A Binance trade message of a combined stream."""
    data = {"e": "trade", "E": millis(at), "T": millis(at), "s": symbol, "t": trade_id}
    data |= {"p": price, "q": size, "m": False, "M": True}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":"))


def quote(at: datetime, price: Any, **fields: Any) -> str:
    """A body of Finnhub's /quote."""
    body = {"c": price, "d": 0.29, "dp": 0.1786, "h": 163.09, "l": 162.13, "o": 162.44}
    return json.dumps(body | {"pc": 162.36, "t": millis(at) // 1000} | fields)


class BronzeWarehouse:
    """A DuckDB file with the bronze tables; each `load` is one load_id.

    Args:
        path: the file; created if needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.load_id = 0
        self._offsets: dict[str, int] = {}
        with self.connect() as connection:
            schema = files("tickhouse.warehouse").joinpath("duckdb.sql").read_text()
            connection.execute(schema)
            newest = connection.execute("select max(load_id) from bronze.load_ledger").fetchone()
            self.load_id = (newest[0] or 0) if newest else 0
            for stream, offset in connection.execute(
                "select stream, max(next_offset) from bronze.load_ledger group by stream"
            ).fetchall():
                self._offsets[stream] = offset

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the file."""
        return duckdb.connect(str(self.path))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self.connect() as connection:
            return connection.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        """Run statements."""
        with self.connect() as connection:
            connection.execute(sql)

    def load(self, frames: Iterable[BronzeFrame], *, loaded_at: datetime = T0) -> int:
        """Insert frames as the next load; returns its load_id."""
        rows, starts = self._arrived(frames)
        with self.connect() as connection:
            connection.execute("begin")
            for stream, values in rows.items():
                if values:
                    self._insert(connection, stream, values, starts.get(stream, 0), loaded_at)
            connection.execute("commit")
        return self.load_id

    def _arrived(
        self, frames: Iterable[BronzeFrame]
    ) -> tuple[dict[str, list[Row]], dict[str, int]]:
        """Rows of the next load by stream, and the offset at which each stream's begin."""
        self.load_id += 1
        rows: dict[str, list[Row]] = {str(stream): [] for stream in Stream}
        starts = dict(self._offsets)
        for frame in frames:
            offset = self._offsets.get(frame.stream, 0)
            self._offsets[frame.stream] = offset + 1
            rows[frame.stream].append(self._row(frame, offset))
        return rows, starts

    def _row(self, frame: BronzeFrame, offset: int) -> Row:
        received = frame.received_at.replace(tzinfo=None)
        is_poison = frame.poison is not None
        return (
            f"{TOPIC_ID}-{frame.stream}",
            0,
            offset,
            received + timedelta(milliseconds=frame.log_delay_ms),
            None if is_poison else received,
            None if is_poison else frame.source,
            None if is_poison else frame.session,
            None if is_poison else frame.seq,
            frame.symbol,
            frame.payload,
            frame.text,
            None,
            frame.poison,
            f"bronze/{frame.stream}/{self.load_id}",
            self.load_id,
        )

    def _insert(
        self,
        connection: duckdb.DuckDBPyConnection,
        stream: str,
        rows: list[tuple[Any, ...]],
        start: int,
        loaded_at: datetime,
    ) -> None:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"insert into bronze.{stream} values ({marks})", rows)
        ledger = self._ledger_row(stream, rows, start, loaded_at)
        marks = ", ".join("?" * len(ledger))
        connection.execute(f"insert into bronze.load_ledger values ({marks})", ledger)

    def _ledger_row(self, stream: str, rows: list[Row], start: int, loaded_at: datetime) -> Row:
        return (
            f"bronze/{stream}/{self.load_id}",
            stream,
            f"tickhouse.{stream}.v1",
            f"{TOPIC_ID}-{stream}",
            0,
            start,
            start + len(rows),
            len(rows),
            False,
            "",
            self.load_id,
            loaded_at.replace(tzinfo=None),
        )
