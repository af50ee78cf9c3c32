"""How each symbol stands: its word, where its price is from, and how the feed covers it."""

from collections import Counter
from typing import NamedTuple

from tickhouse.dashboard.feed_state import FeedState
from tickhouse.dashboard.liveness import Moment, News, word_of
from tickhouse.dashboard.universe import Universe

POLL_MS = 60_000
"""Assumed time between two quotes of a polled symbol until it was measured."""


class Standing(NamedTuple):
    """What a viewer has to know of a symbol besides its price.

    Attributes:
        word: see `liveness.Word`.
        price_from: "trade", "quote" or "".
        channel: socket, polling, none; "" where the feed does not say.
        reason: why it comes that way.
        every_s: seconds between two quotes, where polled and known.
        quoted_ms: time of its newest quote by the source, UNIX milliseconds; 0 = none.
    """

    word: str
    price_from: str
    channel: str
    reason: str
    every_s: float | None
    quoted_ms: int


UNKNOWN = Standing("", "", "", "", None, 0)


class Standings:
    """The standing of every row of the market. One thread judges; any may read."""

    def __init__(self) -> None:
        self.rows: list[Standing] = []

    def judge(self, universe: Universe, feed: FeedState, moment: Moment) -> list[int]:
        """Judge all rows anew; gives those that changed."""
        changed: list[int] = []
        for number in range(len(universe.symbols)):
            standing = _standing(universe, feed, moment, number)
            if number == len(self.rows):
                self.rows.append(standing)
                changed.append(number)
            elif self.rows[number] != standing:
                self.rows[number] = standing
                changed.append(number)
        return changed

    def words(self) -> dict[str, int]:
        """Number of symbols by word."""
        return dict(Counter(standing.word for standing in self.rows))


def _standing(universe: Universe, feed: FeedState, moment: Moment, number: int) -> Standing:
    covered = feed.covered(universe.symbols[number])
    quote = universe.quotes.get(number)
    poll_ms = 0
    if covered is not None and covered.channel == "polling":
        poll_ms = POLL_MS if covered.every_s is None else int(covered.every_s * 1000)
    news = News(
        universe.always_open[number],
        universe.heard_ms[number],
        universe.times_ms[number],
        quote.received_ms if quote is not None else 0,
        quote.quoted_ms if quote is not None else 0,
        poll_ms,
    )
    return Standing(
        word_of(news, moment),
        universe.price_from[number],
        covered.channel if covered is not None else "",
        covered.reason if covered is not None else "",
        covered.every_s if covered is not None else None,
        news.quoted_ms,
    )
