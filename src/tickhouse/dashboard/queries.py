"""Questions to gold: values are bound, table names come from a fixed list.

One text for both: published gold (DuckDB over Parquet), and Snowflake where that is the warehouse.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from tickhouse.dashboard.gaps import LIMIT_MAX as GAPS_MAX
from tickhouse.dashboard.gaps import RECENT_MS, KnownGap, published_gaps
from tickhouse.dashboard.live_bars import Bar, GoldBars
from tickhouse.dashboard.universe import MarketRow
from tickhouse.model.positions import Stream
from tickhouse.warehouse.dialect import epoch_ms, epoch_s

BAR_S: Final = {"1s": 1, "1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
LIMIT_MAX: Final = 5_000
SEED_BARS: Final = 120
FINAL_AFTER_S: Final = 30
LOOK_BACK_S_MAX: Final = {"1s": 7 * 86_400, "1m": 120 * 86_400, "5m": 400 * 86_400}
LOOK_BACK_S: Final = 20 * 366 * 86_400

_COLUMNS: Final = ", ".join(
    [
        *(f"cast({name} as double)" for name in ("open", "high", "low", "close", "volume")),
        "cast(trade_count as bigint)",
    ]
)
_START_S: Final = epoch_s("bar_at")
_MARKET: Final = f"""
with missing as (
    select session_date, symbol, sum(missing_s) as missing_s,
        min(case when is_complete then 1 else 0 end) as is_complete
    from gold.gaps_daily
    where stream = 'trades' and session_date >= (select max(session_date) - 7 from gold.kpi)
    group by session_date, symbol
)
select
    kpi.symbol, coalesce(kpi.name, ''), coalesce(places.sector, ''), coalesce(places.industry, ''),
    cast(places.market_cap as double), cast(kpi.session_date as varchar),
    cast(kpi.last_price as double), coalesce({epoch_ms("kpi.last_at")}, 0),
    cast(kpi.previous_close as double), cast(kpi.day_open as double),
    cast(kpi.trade_count as bigint), cast(kpi.volume as double),
    cast(kpi.dollar_volume as double),
    coalesce(kpi.source, ''), coalesce(kpi.price_source, ''), coalesce(kpi.disagreements, ''),
    cast(greatest(coalesce(own.missing_s, 0), coalesce(shared.missing_s, 0)) as double),
    coalesce(own.is_complete, 1) = 1 and coalesce(shared.is_complete, 1) = 1
from gold.kpi as kpi
left join gold.market_map as places on places.symbol = kpi.symbol
left join missing as own
    on own.symbol = kpi.symbol and own.session_date = kpi.session_date
left join missing as shared on shared.symbol = '' and shared.session_date = kpi.session_date
"""  # noqa: S608 - names of ours
_GAP_MARK: Final = "select count(*), coalesce(max(load_id), 0) from silver.gaps"


class Manifest(Protocol):
    """What is needed of a version's manifest (see the transform stage)."""

    @property
    def version(self) -> int:
        """Rises with every publish."""
        ...

    @property
    def load_id(self) -> int:
        """Gold holds everything up to this load."""
        ...

    @property
    def published_at_ms(self) -> int:
        """Wall clock, UNIX milliseconds."""
        ...

    @property
    def positions(self) -> Sequence[tuple[str, str, int, int]]:
        """(stream, topic id, partition, next offset) of every chain."""
        ...


class Published(Protocol):
    """What is needed of published gold, or of a warehouse that readers ask themselves."""

    @property
    def is_remote(self) -> bool:
        """Whether asking costs: not done while nobody looks."""
        ...

    def manifest(self) -> Manifest | None:
        """The current version, None before the first. Does not wait."""
        ...

    def is_current(self, version: int) -> bool:
        """Whether all of gold is still of this version, looked at anew."""
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only query over the current version."""
        ...


class GoldVersion(msgspec.Struct, frozen=True):
    """A version of published gold and the log positions that it covers.

    Attributes:
        positions: (stream, topic id, partition, next offset) of every chain.
    """

    version: int
    load_id: int
    published_at_ms: int
    positions: tuple[tuple[str, str, int, int], ...]

    def offsets(self, stream: Stream, topic_id: str) -> dict[int, int]:
        """Offsets up to which gold holds a stream of one life of the log, by partition."""
        return {
            part: next_offset
            for name, topic, part, next_offset in self.positions
            if name == stream and topic == topic_id
        }


Questions = dict[str, dict[str, int | None]]
"""Bars wanted, by interval and symbol: from a start on (UNIX seconds), or None for the newest."""


class GoldAnswer(msgspec.Struct, frozen=True):
    """What the live view takes over from one version of gold: all of it of that version.

    Attributes:
        version: the version.
        market: facts of all symbols.
        bars: bars by symbol and interval.
        gap_mark: another value means other gaps.
        gaps: gaps of the day before it was published.
    """

    version: GoldVersion
    market: list[MarketRow]
    bars: dict[str, dict[str, GoldBars]]
    gap_mark: tuple[int, int]
    gaps: list[KnownGap]


class Candles(msgspec.Struct, frozen=True):
    """Bars of a symbol, oldest first: [start s, open, high, low, close, volume, count, final]."""

    symbol: str
    interval: str
    version: int | None
    rows: list[tuple[Any, ...]]


class GoldQueries:
    """Everything the page asks of gold. May be called from several threads.

    Args:
        published: published gold.
    """

    def __init__(self, published: Published) -> None:
        self._published = published
        self._last_ms: dict[str, int] = {}

    @property
    def is_remote(self) -> bool:
        """Whether asking costs: not done while nobody looks."""
        return self._published.is_remote

    def version(self) -> GoldVersion | None:
        """The current version; None before the first build was published."""
        manifest = self._published.manifest()
        return None if manifest is None else _version_of(manifest)

    def market(self) -> list[MarketRow]:
        """Facts of every symbol in its current session."""
        rows = [_market_row(row) for row in self._published.query(_MARKET)]
        self._last_ms = {row.symbol: row.last_ms for row in rows}
        return rows

    def answer(self, version: GoldVersion, questions: Questions) -> GoldAnswer | None:
        """Answer the live view's questions from one version; None if gold moved meanwhile."""
        market = self.market()
        count, load_id = self._published.query(_GAP_MARK)[0]
        at_ms = version.published_at_ms
        gaps = self.gaps("", at_ms - RECENT_MS, at_ms + RECENT_MS, GAPS_MAX) if count else []
        bars: dict[str, dict[str, GoldBars]] = {}
        for interval, since in questions.items():
            from_s = {
                symbol: self.newest_start_s(symbol, interval, SEED_BARS) if at is None else at
                for symbol, at in since.items()
            }
            for symbol, found in self.bars_since(interval, from_s).items():
                bars.setdefault(symbol, {})[interval] = GoldBars(from_s[symbol], found)
        answer = GoldAnswer(version, market, bars, (count, load_id), gaps)
        return answer if self._published.is_current(version.version) else None

    def newest_start_s(self, symbol: str, interval: str, count: int) -> int:
        """Start of the bar that lies `count` bars before the symbol's last trade, UNIX seconds."""
        step = BAR_S[interval]
        return self._last_s(symbol) // step * step - count * step

    def bars_since(self, interval: str, since_s: Mapping[str, int]) -> dict[str, list[Bar]]:
        """Bars of several symbols, each from its own start on, oldest first."""
        if not since_s or self.version() is None:
            return {}
        marks = ", ".join("?" * len(since_s))
        rows = self._published.query(
            f"select symbol, {_START_S}, {_COLUMNS} from gold.bars_{_known(interval)}"  # noqa: S608 - fixed names
            f" where symbol in ({marks}) and bar_at >= ? order by bar_at",
            [*since_s, _naive_utc(min(since_s.values()))],
        )
        found: dict[str, list[Bar]] = {symbol: [] for symbol in since_s}
        for symbol, *bar in rows:
            if bar[0] >= since_s[symbol]:
                found[symbol].append(Bar(*bar))
        return found

    def candles(
        self,
        symbol: str,
        interval: str,
        *,
        from_s: int | None = None,
        to_s: int | None = None,
        limit: int = 600,
    ) -> Candles:
        """Bars that start in [from, to), the newest `limit` of them.

        Args:
            symbol: a valid symbol.
            interval: a key of `BAR_S`.
            from_s: UNIX seconds UTC; None looks as far back as `limit` needs.
            to_s: UNIX seconds UTC; None is the end.
            limit: at most this many.
        """
        version = self.version()
        if version is None:
            return Candles(symbol, interval, None, [])
        step = BAR_S[interval]
        end_s = to_s if to_s is not None else self._last_s(symbol) + step
        if from_s is not None:
            rows = self._rows(symbol, interval, from_s, end_s, limit)
        else:
            rows = self._newest_rows(symbol, interval, end_s, limit)
        final_before_s = max(self._last_ms.values(), default=0) // 1000 - FINAL_AFTER_S - step
        return Candles(
            symbol, interval, version.version, [(*row, row[0] <= final_before_s) for row in rows]
        )

    def gaps(self, symbol: str, from_ms: int, to_ms: int, limit: int) -> list[KnownGap]:
        """Gaps that overlap a range, the newest `limit`; "" = of any symbol. UNIX milliseconds."""
        if self.version() is None:
            return []
        return published_gaps(self._published, symbol, from_ms, to_ms, limit)

    def _newest_rows(
        self, symbol: str, interval: str, end_s: int, limit: int
    ) -> list[tuple[Any, ...]]:
        """Look back further and further: only the files of that time are opened."""
        span_s = 2 * limit * BAR_S[interval]
        look_back_s = LOOK_BACK_S_MAX.get(interval, LOOK_BACK_S)
        while True:
            rows = self._rows(symbol, interval, end_s - span_s, end_s, limit)
            if len(rows) >= limit or span_s >= look_back_s:
                return rows
            span_s *= 8

    def _rows(
        self, symbol: str, interval: str, from_s: int, to_s: int, limit: int
    ) -> list[tuple[Any, ...]]:
        rows = self._published.query(
            f"select {_START_S}, {_COLUMNS} from gold.bars_{_known(interval)}"  # noqa: S608 - fixed names
            " where symbol = ? and bar_at >= ? and bar_at < ?"
            f" order by bar_at desc limit {int(limit)}",
            [symbol, _naive_utc(from_s), _naive_utc(to_s)],
        )
        return rows[::-1]

    def _last_s(self, symbol: str) -> int:
        if not self._last_ms:
            self.market()
        last_ms = self._last_ms.get(symbol) or max(self._last_ms.values(), default=0)
        return last_ms // 1000


def _known(interval: str) -> str:
    if interval not in BAR_S:
        raise ValueError(interval)
    return interval


def _naive_utc(seconds: int) -> datetime:
    """A time as gold keeps it, within what it can hold."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    return epoch + timedelta(seconds=max(seconds, 0))


def _market_row(row: tuple[Any, ...]) -> MarketRow:
    symbol, name, sector, industry, cap, date, last, last_ms, previous, opened, *totals = row
    reference, reference_is = (previous, "close") if previous else (opened, "open")
    trades, volume, dollars, source, price_from, disagreements, missing_s, is_complete = totals
    return MarketRow(
        symbol=symbol,
        name=name,
        sector=sector,
        industry=industry,
        market_cap=cap,
        session_date=date,
        last_price=last,
        last_ms=last_ms,
        reference=reference,
        reference_is=reference_is if reference else "",
        trade_count=trades or 0,
        volume=volume or 0.0,
        dollar_volume=dollars or 0.0,
        source=source,
        price_from=price_from,
        disagreements=disagreements,
        missing_s=missing_s,
        is_complete=is_complete,
    )


def _version_of(manifest: Manifest) -> GoldVersion:
    return GoldVersion(
        version=manifest.version,
        load_id=manifest.load_id,
        published_at_ms=manifest.published_at_ms,
        positions=tuple(manifest.positions),
    )
