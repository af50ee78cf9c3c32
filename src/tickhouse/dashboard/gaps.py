"""Gaps as the chart shades them: those of published gold, and those that the log just told of."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from tickhouse.model.calendar import is_always_open
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.model.units import NANOS_PER_MILLI
from tickhouse.warehouse.dialect import epoch_ms

GAPS_MAX: Final = 5_000
"""Gaps kept of the log's end; gold has all."""
LIMIT_MAX: Final = 1_000
RECENT_MS: Final = 86_400_000
NOTHING_MISSING: Final = frozenset({"cursor", "ids"})
"""Values of `filled_by` that say that the feed went on exactly where it had been."""
STREAMS: Final = frozenset({Stream.TRADES, Stream.QUOTES})

_PUBLISHED: Final = f"""
select
    gaps.name, gaps.kind, gaps.stream, {epoch_ms("gaps.time_from")}, {epoch_ms("gaps.time_to")},
    gaps.symbols, gaps.cause, gaps.filled_by, gaps.id_from, gaps.id_to,
    coalesce(sessions.feed, '')
from silver.gaps as gaps left join silver.sessions as sessions
    on gaps.session_id = sessions.session_id
where gaps.time_to >= ? and gaps.time_from < ?
    and gaps.stream in ('trades', 'quotes')
    and gaps.cause is distinct from 'another feed'
    and coalesce(gaps.filled_by, '') not in ('cursor', 'ids')
    and (? = '' or gaps.symbols = ''
        or contains(concat(',', gaps.symbols, ','), concat(',', ?, ',')))
order by gaps.time_from desc
limit {{limit}}
"""  # noqa: S608 - names of ours


class Tables(Protocol):
    """What answers questions to published gold."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only query over the current version."""
        ...


class KnownGap(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing, or was until it was filled.

    Attributes:
        name: the same gap has the same name, however often it is told; unique with the kind.
        kind: refused, missed or silence (see `silver.gaps`).
        stream: trades or quotes.
        from_ms, to_ms: UNIX milliseconds UTC.
        symbols: symbols concerned; empty = all of the connection.
        cause: why, in words.
        filled_by: payload kind that filled it; None while it is missing.
        trades: trades known to be missing, where the feed numbers them.
        feed: address of the feed, "" where unknown.
    """

    name: str
    kind: str
    stream: str
    from_ms: int
    to_ms: int
    symbols: list[str]
    cause: str
    filled_by: str | None
    trades: int | None
    feed: str

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name: a session names its own silence, and the next one what it missed of it."""
        return self.kind, self.name

    def concerns(self, symbol: str) -> bool:
        """Whether anything of this symbol may be missing."""
        if self.symbols:
            return symbol in self.symbols
        return is_always_open(symbol) or not self.feed.startswith("binance:")


class GapBook:
    """Gaps of the log's end by name, and gold's newest. One thread takes; any may read."""

    def __init__(self) -> None:
        self._gaps: dict[str, KnownGap] = {}
        self._published: list[KnownGap] = []
        self.told = 0

    def take_published(self, gaps: list[KnownGap]) -> None:
        """Take over what gold knows of late: only gold finds silences that nobody told."""
        self._published = gaps

    def take(self, event: Gap, *, session: str, seq: int, feed: str) -> None:
        """Take one event; a later one of the same name tells more of the same gap.

        Args:
            event: what was told.
            session: id of the session that told it.
            seq: message number of the event in it.
            feed: address of the feed, "" where unknown.
        """
        self.told += 1
        if event.stream not in STREAMS:
            return
        is_named = event.seq_from is None and event.name is not None
        name = event.name if is_named and event.name else f"{session}:{seq}"
        known = self._gaps.get(name)
        gap = KnownGap(
            name=name,
            kind="missed" if event.seq_from is None else "refused",
            stream=event.stream,
            from_ms=event.time_from // NANOS_PER_MILLI,
            to_ms=event.time_to // NANOS_PER_MILLI,
            symbols=event.symbols,
            cause=event.cause,
            filled_by=event.filled_by,
            trades=_count(event.id_from, event.id_to),
            feed=feed,
        )
        self._gaps[name] = gap if known is None else _joined(known, gap)
        while len(self._gaps) > GAPS_MAX:
            self._gaps.pop(next(iter(self._gaps)))

    def gaps(self, symbol: str, from_ms: int, to_ms: int) -> list[KnownGap]:
        """Gaps of a symbol ("" = of any) that overlap a range."""
        return [
            gap
            for gap in list(self._gaps.values())
            if gap.to_ms >= from_ms
            and gap.from_ms < to_ms
            and gap.filled_by not in NOTHING_MISSING
            and (not symbol or gap.concerns(symbol))
        ]

    def summary(self, now_ms: int) -> dict[str, Any]:
        """What a viewer is told of the last 24 hours: how many are open, filled, the last cause."""
        since_ms = now_ms - RECENT_MS
        published = [gap for gap in self._published if gap.to_ms >= since_ms]
        recent = merge(published, self.gaps("", since_ms, 1 << 62), GAPS_MAX)
        missing = [gap for gap in recent if gap.filled_by is None]
        last = max(missing, key=lambda gap: gap.to_ms, default=None)
        return {
            "gaps": len(missing),
            "gaps_filled": len(recent) - len(missing),
            "last_gap": last.cause if last is not None else None,
        }


def _count(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None else last - first + 1


def _joined(known: KnownGap, more: KnownGap) -> KnownGap:
    return msgspec.structs.replace(
        known,
        from_ms=min(known.from_ms, more.from_ms),
        to_ms=max(known.to_ms, more.to_ms),
        filled_by=known.filled_by or more.filled_by,
        trades=known.trades if known.trades is not None else more.trades,
    )


def published_gaps(
    tables: Tables, symbol: str, from_ms: int, to_ms: int, limit: int
) -> list[KnownGap]:
    """Gaps in published gold that overlap a range, the newest `limit`, newest first."""
    sql = _PUBLISHED.format(limit=int(limit))
    rows = tables.query(sql, [_utc(from_ms), _utc(to_ms), symbol, symbol])
    found = [
        KnownGap(
            name=name,
            kind=kind,
            stream=stream,
            from_ms=from_,
            to_ms=to,
            symbols=symbols.split(",") if symbols else [],
            cause=cause or "",
            filled_by=filled_by,
            trades=_count(id_from, id_to),
            feed=feed,
        )
        for name, kind, stream, from_, to, symbols, cause, filled_by, id_from, id_to, feed in rows
    ]
    return [gap for gap in found if not symbol or gap.concerns(symbol)]


def merge(published: Iterable[KnownGap], told: Iterable[KnownGap], limit: int) -> list[KnownGap]:
    """Each gap once, with what both know of it; the newest `limit`, oldest first."""
    gaps = {gap.key: gap for gap in published}
    for gap in told:
        known = gaps.get(gap.key)
        gaps[gap.key] = gap if known is None else _joined(known, gap)
    return sorted(gaps.values(), key=lambda gap: (gap.from_ms, gap.name))[-limit:]


def _utc(milliseconds: int) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    return epoch + timedelta(milliseconds=milliseconds)
