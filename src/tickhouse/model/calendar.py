"""The exchange calendar: when New York trades, with pre-market and post-market hours.

Regular hours are those of the seed `calendar` (made from `exchange_calendars`, XNYS; silver has the
same table). Extended hours are the consolidated tape's: from 04:00 New York to the open, and from
the close to 20:00, on early closes to 17:00.
"""

import csv
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from tickhouse.model.units import NANOS_PER_SECOND

EXCHANGE_ZONE: Final = "America/New_York"
PRE_MARKET: Final = clock_time(4, 0)
POST_MARKET_H: Final = 4
"""Hours of post-market trading after the close, on a full day and on a half day."""


class MarketState(StrEnum):
    """What the exchange does at a moment."""

    CLOSED = "closed"
    PRE_MARKET = "pre-market"
    REGULAR = "regular"
    POST_MARKET = "post-market"


class MarketSession(msgspec.Struct, frozen=True):
    """One trading day; all times UNIX nanoseconds UTC.

    Attributes:
        day: date in New York.
        pre_open_ns: start of pre-market.
        open_ns, close_ns: regular hours.
        post_close_ns: end of post-market.
        is_early_close: half day.
    """

    day: date
    pre_open_ns: int
    open_ns: int
    close_ns: int
    post_close_ns: int
    is_early_close: bool

    def state(self, at_ns: int) -> MarketState:
        """What the exchange does at a moment, as far as this day says."""
        if not self.pre_open_ns <= at_ns < self.post_close_ns:
            return MarketState.CLOSED
        if at_ns < self.open_ns:
            return MarketState.PRE_MARKET
        return MarketState.REGULAR if at_ns < self.close_ns else MarketState.POST_MARKET


class Calendar:
    """Sessions in order.

    Args:
        sessions: every trading day of the span.
    """

    def __init__(self, sessions: list[MarketSession]) -> None:
        self.sessions = sessions
        self._starts = [session.pre_open_ns for session in sessions]
        self._by_day = {session.day: session for session in sessions}

    @property
    def last_day(self) -> date:
        """The last trading day that is known; after it every day looks closed."""
        return self.sessions[-1].day

    def session_on(self, day: date) -> MarketSession | None:
        """The session of a date; None on weekends and holidays."""
        return self._by_day.get(day)

    def session_at_or_after(self, day: date) -> MarketSession | None:
        """The first session on or after a date; None beyond the calendar's end."""
        opening = datetime.combine(day, clock_time(), tzinfo=ZoneInfo(EXCHANGE_ZONE))
        place = bisect_right(self._starts, int(opening.timestamp()) * NANOS_PER_SECOND)
        return self.sessions[place] if place < len(self.sessions) else None

    def latest(self, at_ns: int) -> MarketSession | None:
        """The session whose pre-market began last; None before the first."""
        place = bisect_right(self._starts, at_ns)
        return self.sessions[place - 1] if place else None

    def state(self, at_ns: int) -> MarketState:
        """What the exchange does at a moment (UNIX nanoseconds UTC)."""
        session = self.latest(at_ns)
        return MarketState.CLOSED if session is None else session.state(at_ns)

    def is_open(self, at_ns: int) -> bool:
        """Whether trades may come at a moment, extended hours included."""
        return self.state(at_ns) is not MarketState.CLOSED


def is_always_open(symbol: str) -> bool:
    """Whether a symbol trades around the clock (crypto and FX, which name their venue).

    >>> is_always_open("BINANCE:BTCUSDT"), is_always_open("AAPL")
    (True, False)
    """
    return ":" in symbol


@lru_cache(maxsize=1)
def new_york() -> Calendar:
    """The calendar of the seed."""
    seed = resources.files("tickhouse").joinpath("transform/project/seeds/calendar.csv")
    rows = csv.DictReader(seed.read_text().splitlines())
    return Calendar([_session(row) for row in rows])


def _session(row: dict[str, str]) -> MarketSession:
    day = date.fromisoformat(row["session_date"])
    opened, closed = (
        datetime.fromisoformat(row[name]).replace(tzinfo=UTC) for name in ("open_at", "close_at")
    )
    pre_open = datetime.combine(day, PRE_MARKET, tzinfo=ZoneInfo(EXCHANGE_ZONE))
    return MarketSession(
        day=day,
        pre_open_ns=_ns(pre_open),
        open_ns=_ns(opened),
        close_ns=_ns(closed),
        post_close_ns=_ns(closed + timedelta(hours=POST_MARKET_H)),
        is_early_close=row["is_early_close"] == "true",
    )


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NANOS_PER_SECOND
