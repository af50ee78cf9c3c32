"""Trade conditions for the live candle: the same seed, and so the same rules, as gold's bars."""

import csv
from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Final, NamedTuple

from tickhouse.model.calendar import is_always_open, new_york
from tickhouse.model.units import NANOS_PER_MILLI

SEED: Final = "project/seeds/trade_conditions.csv"
COMBINATIONS_MAX: Final = 10_000
"""Combinations remembered; real tapes have some hundred, a broken feed may invent more."""
DAY_MS: Final = 86_400_000


class Flags(NamedTuple):
    """What a trade may do to a bar shorter than a day.

    Attributes:
        counts_volume: it adds to volume and number of trades.
        sets_price: it may set open, high, low and close …
        off_hours_only: … but only outside the exchange's regular hours.
    """

    counts_volume: bool
    sets_price: bool
    off_hours_only: bool


REGULAR: Final = Flags(True, True, False)


class Conditions:
    """Combines the codes of a trade: all have to allow, any may forbid.

    Args:
        rules: code to flags; a code that is not listed is neutral, and so is no code at all.
    """

    def __init__(self, rules: dict[str, Flags]) -> None:
        self._rules = rules
        self._known: dict[tuple[str, ...] | None, Flags] = {None: REGULAR}

    def flags(self, codes: tuple[str, ...] | None) -> Flags:
        """Flags of a trade with these codes, in any order; remembered per combination."""
        known = self._known.get(codes)
        if known is None:
            known = self._combined(codes or ())
            if len(self._known) < COMBINATIONS_MAX:
                self._known[codes] = known
        return known

    def _combined(self, codes: Iterable[str]) -> Flags:
        rules = [self._rules.get(code, REGULAR) for code in codes]
        return Flags(
            all(rule.counts_volume for rule in rules),
            all(rule.sets_price for rule in rules),
            any(rule.off_hours_only for rule in rules),
        )

    def sets_price(self, symbol: str, codes: tuple[str, ...] | None, event_ms: int) -> bool:
        """Whether a trade may set prices of the bar that it falls into."""
        flags = self.flags(codes)
        return flags.sets_price and not (
            flags.off_hours_only and is_regular_hours(symbol, event_ms)
        )


def read_conditions(lines: Iterable[str]) -> Conditions:
    """Parse the seed: CSV with a code and true or false for each flag."""
    return Conditions(
        {
            row["code"]: Flags(
                row["volume"] == "true",
                row["bar_price"] == "true",
                row["bar_price_off_hours_only"] == "true",
            )
            for row in csv.DictReader(lines)
        }
    )


@cache
def seeded_conditions() -> Conditions:
    """The conditions that gold is built with."""
    seed = resources.files("tickhouse.transform").joinpath(SEED)
    return read_conditions(seed.read_text("utf-8").splitlines())


def is_regular_hours(symbol: str, event_ms: int) -> bool:
    """Whether US exchanges trade: regular hours of the calendar, holidays and half days included.

    Symbols with a venue in front, such as BINANCE:BTCUSDT, trade around the clock.
    """
    if is_always_open(symbol):
        return True
    open_ms, close_ms = _hours(event_ms // DAY_MS)
    return open_ms <= event_ms < close_ms


@lru_cache(maxsize=1024)
def _hours(day: int) -> tuple[int, int]:
    """Regular hours of a day since 1970 (UTC and New York agree on it), UNIX milliseconds."""
    session = new_york().session_on(date(1970, 1, 1) + timedelta(days=day))
    if session is None:
        return 0, 0
    return session.open_ns // NANOS_PER_MILLI, session.close_ns // NANOS_PER_MILLI
