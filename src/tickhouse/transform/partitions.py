"""How each published table is cut into files: small enough that a build rewrites little."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec


class Cut(StrEnum):
    """How a table is cut."""

    WHOLE = "whole"
    BY_TIME = "by time"
    APPEND = "append"


class TablePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one table is published.

    Attributes:
        name: full name in the warehouse.
        cut: whole; by time, a touched bucket rewritten whole; or append-only by load_id.
        order_by: order of the rows in a file.
        time_column: what a reader's time range is compared with.
        bucket_s: seconds of a bucket; 0 = a calendar month.
        group: `strftime` of a bucket's index (of an append-only table: of the publish).
        has_load_id: False for seeds, which change only with the project's fingerprint.
    """

    name: str
    cut: Cut
    order_by: str
    time_column: str = ""
    bucket_s: int = 0
    group: str = ""
    has_load_id: bool = True

    @property
    def short_name(self) -> str:
        """Name without its schema; unique among the published tables."""
        return self.name.partition(".")[2]

    @property
    def bucket_sql(self) -> str:
        """Expression that gives the start of a row's bucket."""
        interval = f"{self.bucket_s} seconds" if self.bucket_s else "1 month"
        origin = "timestamp '2000-01-01 00:00:00'"
        return f"time_bucket(interval '{interval}', {self.time_column}, {origin})"

    def bucket_end(self, start: datetime) -> datetime:
        """End (exclusive) of the bucket that starts at `start`."""
        if self.bucket_s:
            return start + timedelta(seconds=self.bucket_s)
        return (start + timedelta(days=32)).replace(day=1)


def unix_ms(at: datetime) -> int:
    """UNIX milliseconds of a naive UTC time."""
    return (at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _whole(name: str, order_by: str, *, has_load_id: bool = True) -> TablePlan:
    return TablePlan(name=name, cut=Cut.WHOLE, order_by=order_by, has_load_id=has_load_id)


def _by_time(
    name: str, bucket_s: int, group: str, column: str = "bar_at", key: str = "symbol"
) -> TablePlan:
    return TablePlan(
        name=name,
        cut=Cut.BY_TIME,
        order_by=f"{key}, {column}",
        time_column=column,
        bucket_s=bucket_s,
        group=group,
    )


def _append(name: str, column: str, order_by: str) -> TablePlan:
    return TablePlan(
        name=name, cut=Cut.APPEND, order_by=order_by, time_column=column, group="%Y-%m-%d"
    )


_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400

PLANS: Final = (
    _append("silver.trades", "event_at", "symbol, event_at"),
    _append("silver.rejected_trades", "received_at", "topic_id, part, log_offset, trade_index"),
    _by_time("silver.quotes", _HOUR, "%Y-%m-%d", "received_at"),
    _append("silver.rejected_quotes", "received_at", "topic_id, part, log_offset"),
    _whole("silver.sessions", "opened_at, session_id"),
    _append("silver.coverage", "told_at", "symbol, told_at"),
    _whole("silver.gaps", "time_from, kind, name"),
    _whole("silver.instruments", "symbol"),
    _whole("silver.trade_conditions", "code", has_load_id=False),
    _whole("silver.calendar", "session_date", has_load_id=False),
    _by_time("gold.bars_1s", 5 * _MINUTE, "%Y-%m-%d"),
    _by_time("gold.bars_1m", _HOUR, "%Y-%m-%d"),
    _by_time("gold.bars_5m", 4 * _HOUR, "%Y-%m"),
    _by_time("gold.bars_1h", _DAY, "%Y-%m"),
    _by_time("gold.bars_1d", 0, "%Y"),
    _by_time("gold.volatility_1m", _HOUR, "%Y-%m-%d"),
    _by_time("gold.latency", _DAY, "%Y-%m", "minute_at", "source"),
    _whole("gold.completeness", "opened_at, session_id, stream"),
    _whole("gold.gaps_daily", "session_date, symbol, stream"),
    _whole("gold.kpi", "symbol"),
    _whole("gold.market_map", "symbol"),
)
"""Every published table."""

PLAN_OF: Final = {plan.name: plan for plan in PLANS} | {plan.short_name: plan for plan in PLANS}
"""Plans by full and by short name."""
