"""The four words for a symbol and for the feed: closed, live, stale, halted-or-quiet.

A live feed is judged against the exchange's calendar. Simulated and replayed trades are not: they
come when they come, so only their receipts count.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Final

import msgspec

from tickhouse.model.calendar import Calendar, MarketSession, MarketState, is_always_open
from tickhouse.model.units import NANOS_PER_MILLI

STALE_MS: Final = 3_000
"""Without a trade for so long, a simulated or replayed feed is stale …"""
LIVE_STALE_MS: Final = 60_000
"""… a live one, …"""
EXTENDED_STALE_MS: Final = 300_000
"""… and a live one before and after regular hours, when little trades."""
QUIET_MS: Final = 300_000
"""A symbol that did not trade for so long while others do is halted or quiet …"""
EXTENDED_QUIET_MS: Final = 900_000
"""… and before and after regular hours."""
QUOTE_STALE_MS: Final = 900_000
"""So long after the opening bell a quote of an earlier day is no price, as in `silver.quotes`."""
POLLS_MISSED: Final = 3
"""A polled symbol is stale when it was left out so many times in a row."""
_DAY_BEGINS_MS: Final = 4 * 3_600_000
"""From New York's midnight to the start of pre-market."""
_NEVER: Final = 1 << 62


class Word(StrEnum):
    """What a price is worth at a moment."""

    CLOSED = "closed"
    LIVE = "live"
    STALE = "stale"
    QUIET = "halted-or-quiet"


class Market(msgspec.Struct, frozen=True):
    """What the exchange does, and until when (UNIX milliseconds; None where unknown).

    Attributes:
        state: closed, pre-market, regular, post-market; "always-open" where no calendar applies.
        until_ms: end of that.
        opens_ms: the next opening bell, none during regular hours.
        is_early_close: the session under way, or next, is a half day.
    """

    state: str
    until_ms: int | None = None
    opens_ms: int | None = None
    is_early_close: bool = False


ALWAYS_OPEN: Final = Market("always-open")


class Moment(msgspec.Struct, frozen=True):
    """What holds for all symbols at once.

    Attributes:
        now_ms: UNIX milliseconds.
        is_live: the feed is live, so that calendar and wall clock apply.
        state: what the exchange does.
        day_begins_ms: start of the exchange's day under way; 0 while it is closed.
        stale_from_ms: from then on a price of an earlier day is stale.
        feed: the feed's own word.
        began_ms: receipts are known since then.
    """

    now_ms: int
    is_live: bool
    state: MarketState
    day_begins_ms: int
    stale_from_ms: int
    feed: Word | None
    began_ms: int


class News(msgspec.Struct, frozen=True):
    """What is known of a symbol; all UNIX milliseconds, 0 = never.

    Attributes:
        is_always_open: it trades around the clock.
        heard_ms: receipt of its newest trade.
        price_ms: time of its last price by the source.
        quote_received_ms, quoted_ms: receipt and time of its newest quote.
        poll_ms: time between two quotes where it is polled, else 0.
    """

    is_always_open: bool
    heard_ms: int
    price_ms: int
    quote_received_ms: int
    quoted_ms: int
    poll_ms: int


def market_at(calendar: Calendar, now_ms: int) -> Market:
    """What the exchange does at a moment."""
    now_ns = now_ms * NANOS_PER_MILLI
    latest = calendar.latest(now_ns)
    state = MarketState.CLOSED if latest is None else latest.state(now_ns)
    if latest is None or state is MarketState.CLOSED:
        upcoming = _next(calendar, latest)
        if upcoming is None:
            return Market(state)
        early = upcoming.is_early_close
        return Market(state, _ms(upcoming.pre_open_ns), _ms(upcoming.open_ns), early)
    early = latest.is_early_close
    if state is MarketState.PRE_MARKET:
        return Market(state, _ms(latest.open_ns), _ms(latest.open_ns), early)
    if state is MarketState.REGULAR:
        return Market(state, _ms(latest.close_ns), None, early)
    upcoming = _next(calendar, latest)
    opens = _ms(upcoming.open_ns) if upcoming is not None else None
    return Market(state, _ms(latest.post_close_ns), opens, early)


def _next(calendar: Calendar, latest: MarketSession | None) -> MarketSession | None:
    if latest is None:
        return calendar.sessions[0] if calendar.sessions else None
    return calendar.session_at_or_after(latest.day + timedelta(days=1))


def _ms(time_ns: int) -> int:
    return time_ns // NANOS_PER_MILLI


def moment_at(
    calendar: Calendar, now_ms: int, *, is_live: bool, feed: Word | None, began_ms: int
) -> Moment:
    """What holds for all symbols now."""
    now_ns = now_ms * NANOS_PER_MILLI
    session = calendar.latest(now_ns)
    state = MarketState.CLOSED if session is None else session.state(now_ns)
    begins, stale_from = 0, _NEVER
    if session is not None and state is not MarketState.CLOSED:
        begins = _ms(session.pre_open_ns) - _DAY_BEGINS_MS
        stale_from = _ms(session.open_ns) + QUOTE_STALE_MS
    return Moment(now_ms, is_live, state, begins, stale_from, feed, began_ms)


def stale_after_ms(state: MarketState, *, is_live: bool, has_always_open: bool) -> int:
    """Milliseconds without a trade or quote after which the feed is not live any more."""
    if not is_live:
        return STALE_MS
    if has_always_open or state is MarketState.REGULAR:
        return LIVE_STALE_MS
    return EXTENDED_STALE_MS


def feed_word(
    *, is_closed: bool, heard_ago_ms: int | None, record_ago_ms: int | None, stale_ms: int
) -> Word | None:
    """The feed's word; None before anything was received.

    Args:
        is_closed: no market of its symbols is open.
        heard_ago_ms: since the last trade or quote.
        record_ago_ms: since the last message of any kind.
        stale_ms: see `stale_after_ms`.
    """
    if is_closed:
        return Word.CLOSED
    if heard_ago_ms is None:
        return None
    if heard_ago_ms < stale_ms:
        return Word.LIVE
    is_connected = record_ago_ms is not None and record_ago_ms < stale_ms
    return Word.QUIET if is_connected else Word.STALE


def is_stale_quote(calendar: Calendar, symbol: str, quoted_ms: int, received_ms: int) -> bool:
    """Whether a live quote was no price of the session under way when it came (silver's rule)."""
    if is_always_open(symbol):
        return received_ms > quoted_ms + QUOTE_STALE_MS
    moment = moment_at(calendar, received_ms, is_live=True, feed=None, began_ms=0)
    return received_ms >= moment.stale_from_ms and quoted_ms < moment.day_begins_ms


def word_of(news: News, moment: Moment) -> Word:
    """The word of a symbol."""
    if not moment.is_live:
        heard_ms = max(news.heard_ms, news.quote_received_ms, moment.began_ms)
        return _by_age(moment, moment.now_ms - heard_ms, QUIET_MS)
    if not news.is_always_open and moment.state is MarketState.CLOSED:
        return Word.CLOSED
    newest_ms = max(news.heard_ms, news.price_ms, news.quoted_ms)
    if _is_of_earlier_day(news, newest_ms, moment) or _is_left_out(news, moment):
        return Word.STALE
    is_regular = news.is_always_open or moment.state is MarketState.REGULAR
    quiet_ms = QUIET_MS if is_regular else EXTENDED_QUIET_MS
    return _by_age(moment, moment.now_ms - newest_ms, quiet_ms + news.poll_ms)


def _is_of_earlier_day(news: News, newest_ms: int, moment: Moment) -> bool:
    """Nothing is known of it today, as far as that would be due."""
    if news.is_always_open:
        return newest_ms == 0
    return moment.now_ms >= moment.stale_from_ms and newest_ms < moment.day_begins_ms


def _is_left_out(news: News, moment: Moment) -> bool:
    """It is polled, and was not for too long; trades may come all the same."""
    if not news.poll_ms:
        return False
    received_ms = max(news.quote_received_ms, news.heard_ms, moment.began_ms)
    return moment.now_ms - received_ms > POLLS_MISSED * news.poll_ms + LIVE_STALE_MS


def _by_age(moment: Moment, age_ms: int, quiet_ms: int) -> Word:
    if moment.feed is Word.STALE:
        return Word.STALE
    return Word.LIVE if age_ms < quiet_ms else Word.QUIET
