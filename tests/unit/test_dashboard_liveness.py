"""The four words, each by the calendar, the receipts and the mode of the feed."""

from datetime import UTC, datetime

import pytest

from tickhouse.dashboard.liveness import (
    EXTENDED_QUIET_MS,
    EXTENDED_STALE_MS,
    LIVE_STALE_MS,
    QUIET_MS,
    STALE_MS,
    Market,
    Moment,
    News,
    Word,
    feed_word,
    is_stale_quote,
    market_at,
    moment_at,
    stale_after_ms,
    word_of,
)
from tickhouse.model.calendar import Calendar, MarketState, new_york


def millis(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc]


FRIDAY_CLOSE = millis(2024, 8, 9, 20, 0)
MONDAY_OPEN = millis(2024, 8, 12, 13, 30)
MONDAY_NOON = millis(2024, 8, 12, 16, 0)
MINUTE = 60_000
HOUR = 3_600_000
CALENDAR = new_york()


def moment(
    now_ms: int = MONDAY_NOON,
    *,
    is_live: bool = True,
    feed: Word | None = Word.LIVE,
    began: int = 0,
) -> Moment:
    return moment_at(CALENDAR, now_ms, is_live=is_live, feed=feed, began_ms=began)


def news(
    *,
    heard: int = 0,
    price: int = 0,
    received: int = 0,
    quoted: int = 0,
    poll: int = 0,
    always: bool = False,
) -> News:
    return News(always, heard, price, received, quoted, poll)


@pytest.mark.parametrize(
    ("now", "market"),
    [
        (
            millis(2024, 8, 11, 12, 0),
            Market("closed", MONDAY_OPEN - 5 * HOUR - 30 * MINUTE, MONDAY_OPEN),
        ),
        (millis(2024, 8, 12, 12, 0), Market("pre-market", MONDAY_OPEN, MONDAY_OPEN)),
        (MONDAY_NOON, Market("regular", millis(2024, 8, 12, 20, 0), None)),
        (
            millis(2024, 8, 12, 21, 0),
            Market("post-market", millis(2024, 8, 13, 0, 0), millis(2024, 8, 13, 13, 30)),
        ),
        (millis(2024, 11, 29, 15, 0), Market("regular", millis(2024, 11, 29, 18, 0), None, True)),
        (
            millis(2024, 12, 25, 15, 0),
            Market("closed", millis(2024, 12, 26, 9, 0), millis(2024, 12, 26, 14, 30)),
        ),
        (
            millis(2000, 1, 1),
            Market("closed", millis(2004, 1, 2, 9, 0), millis(2004, 1, 2, 14, 30)),
        ),
        (millis(2099, 1, 1), Market("closed")),
    ],
)
def test_the_market_says_what_it_does_and_until_when(now: int, market: Market) -> None:
    assert market_at(CALENDAR, now) == market


def test_without_a_calendar_the_market_is_closed() -> None:
    assert market_at(Calendar([]), MONDAY_NOON) == Market("closed")


@pytest.mark.parametrize(
    ("is_closed", "heard", "record", "word"),
    [
        (True, None, None, Word.CLOSED),
        (True, 1, 1, Word.CLOSED),
        (False, None, None, None),
        (False, None, 5, None),
        (False, 59_999, 59_999, Word.LIVE),
        (False, 60_000, 60_000, Word.STALE),
        (False, 60_000, 59_999, Word.QUIET),
    ],
)
def test_the_feeds_word(
    *, is_closed: bool, heard: int | None, record: int | None, word: Word | None
) -> None:
    found = feed_word(
        is_closed=is_closed, heard_ago_ms=heard, record_ago_ms=record, stale_ms=60_000
    )

    assert found == word


def test_a_live_feed_may_be_silent_for_longer_when_little_trades() -> None:
    def limit(state: MarketState, *, is_live: bool = True, always: bool = False) -> int:
        return stale_after_ms(state, is_live=is_live, has_always_open=always)

    assert limit(MarketState.REGULAR) == LIVE_STALE_MS
    assert limit(MarketState.PRE_MARKET) == EXTENDED_STALE_MS
    assert limit(MarketState.CLOSED, always=True) == LIVE_STALE_MS
    assert limit(MarketState.CLOSED, is_live=False) == STALE_MS


@pytest.mark.parametrize(
    ("symbol", "quoted", "received", "is_stale"),
    [
        ("AAPL", FRIDAY_CLOSE, MONDAY_NOON, True),
        ("AAPL", FRIDAY_CLOSE, MONDAY_OPEN + 15 * MINUTE, True),
        ("AAPL", FRIDAY_CLOSE, MONDAY_OPEN + 15 * MINUTE - 1, False),
        ("AAPL", FRIDAY_CLOSE, millis(2024, 8, 11, 12, 0), False),
        ("AAPL", FRIDAY_CLOSE, millis(2024, 8, 12, 23, 59), True),
        ("AAPL", FRIDAY_CLOSE, millis(2024, 8, 13, 0, 0), False),
        ("AAPL", millis(2024, 8, 12, 4, 0), MONDAY_NOON, False),
        ("AAPL", millis(2024, 8, 12, 3, 59), MONDAY_NOON, True),
        ("BINANCE:BTCUSDT", MONDAY_NOON - 15 * MINUTE, MONDAY_NOON, False),
        ("BINANCE:BTCUSDT", MONDAY_NOON - 15 * MINUTE - 1, MONDAY_NOON, True),
    ],
)
def test_a_quote_of_an_earlier_day_is_stale_once_today_should_have_one(
    symbol: str, quoted: int, received: int, *, is_stale: bool
) -> None:
    assert is_stale_quote(CALENDAR, symbol, quoted, received) is is_stale


@pytest.mark.parametrize(
    ("name", "given", "at", "word"),
    [
        ("traded just now", news(heard=MONDAY_NOON - 1), moment(), Word.LIVE),
        ("no trade for five minutes", news(heard=MONDAY_NOON - QUIET_MS), moment(), Word.QUIET),
        ("its feed is stale", news(heard=MONDAY_NOON - 1), moment(feed=Word.STALE), Word.STALE),
        ("its price is Friday's", news(price=FRIDAY_CLOSE), moment(), Word.STALE),
        ("nothing is known", news(), moment(), Word.STALE),
        (
            "its price is Friday's before today's is due",
            news(price=FRIDAY_CLOSE),
            moment(MONDAY_OPEN - HOUR),
            Word.QUIET,
        ),
        (
            "the exchange is closed",
            news(heard=FRIDAY_CLOSE),
            moment(FRIDAY_CLOSE + 24 * HOUR),
            Word.CLOSED,
        ),
        (
            "closed, whatever the feed is",
            news(price=FRIDAY_CLOSE),
            moment(FRIDAY_CLOSE + 24 * HOUR, feed=Word.STALE),
            Word.CLOSED,
        ),
        (
            "a coin on a Saturday",
            news(heard=FRIDAY_CLOSE + 24 * HOUR - 1, always=True),
            moment(FRIDAY_CLOSE + 24 * HOUR),
            Word.LIVE,
        ),
        ("a coin of which nothing is known", news(always=True), moment(), Word.STALE),
        (
            "after hours a pause of ten minutes is usual",
            news(heard=millis(2024, 8, 12, 21, 0) - EXTENDED_QUIET_MS + 1),
            moment(millis(2024, 8, 12, 21, 0)),
            Word.LIVE,
        ),
        (
            "polled, and its last price is of a minute ago",
            news(received=MONDAY_NOON - 1, quoted=MONDAY_NOON - MINUTE, poll=61_000),
            moment(),
            Word.LIVE,
        ),
        (
            "polled, and its last price is of an hour ago",
            news(received=MONDAY_NOON - 1, quoted=MONDAY_NOON - HOUR, poll=61_000),
            moment(),
            Word.QUIET,
        ),
        (
            "polled, and left out for too long",
            news(received=MONDAY_NOON - 5 * MINUTE, quoted=MONDAY_NOON - 5 * MINUTE, poll=61_000),
            moment(),
            Word.STALE,
        ),
        (
            "polled, but trades come",
            news(heard=MONDAY_NOON - 1, received=MONDAY_NOON - HOUR, poll=61_000),
            moment(),
            Word.LIVE,
        ),
        (
            "polled, and its turn has not come since the page began to look",
            news(price=MONDAY_NOON - MINUTE, poll=61_000),
            moment(began=MONDAY_NOON - MINUTE),
            Word.LIVE,
        ),
        (
            "simulated on a Saturday",
            news(heard=FRIDAY_CLOSE + 24 * HOUR - 1),
            moment(FRIDAY_CLOSE + 24 * HOUR, is_live=False),
            Word.LIVE,
        ),
        (
            "replayed trades of years ago",
            news(heard=MONDAY_NOON - 1, price=millis(2010, 1, 1)),
            moment(is_live=False),
            Word.LIVE,
        ),
        (
            "simulated, and halted",
            news(heard=MONDAY_NOON - QUIET_MS, price=MONDAY_NOON),
            moment(is_live=False),
            Word.QUIET,
        ),
        (
            "simulated, and not yet heard of",
            news(),
            moment(is_live=False, began=MONDAY_NOON - 1),
            Word.LIVE,
        ),
        (
            "simulated, and the feed is stale",
            news(heard=MONDAY_NOON - 1),
            moment(is_live=False, feed=Word.STALE),
            Word.STALE,
        ),
    ],
)
def test_the_word_of_a_symbol(name: str, given: News, at: Moment, word: Word) -> None:
    assert word_of(given, at) == word, name
