"""Trade conditions for the live candle: the same seed, and so the same rules, as gold's bars."""

import csv
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Final, NamedTuple

SEED: Final = "project/seeds/trade_conditions.csv"
COMBINATIONS_MAX: Final = 10_000
"""Combinations remembered; real tapes have some hundred, a broken feed may invent more."""
HOUR_MS: Final = 3_600_000
OPEN_MINUTE: Final = 9 * 60 + 30
CLOSE_MINUTE: Final = 16 * 60
SATURDAY: Final = 5


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
    """Whether US exchanges trade (weekdays, 09:30 to 16:00 in New York).

    Symbols with a venue in front, such as BINANCE:BTCUSDT, trade around the clock.
    """
    if ":" in symbol:
        return True
    offset_hours, weekday = _new_york(event_ms // HOUR_MS)
    minute = (event_ms // 60_000 + offset_hours * 60) % (24 * 60)
    return weekday < SATURDAY and OPEN_MINUTE <= minute < CLOSE_MINUTE


@lru_cache(maxsize=1024)
def _new_york(hour: int) -> tuple[int, int]:
    """New York's offset from UTC in hours and its weekday, at an hour since 1970.

    By the rule in force since 2007, so that no time zone data need be installed: daylight saving
    from the second Sunday of March to the first of November, at 2 o'clock local time.
    """
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    begins = _sunday(at.year, 3, 8) + timedelta(hours=7)
    ends = _sunday(at.year, 11, 1) + timedelta(hours=6)
    offset_hours = -4 if begins <= at < ends else -5
    return offset_hours, (at + timedelta(hours=offset_hours)).weekday()


def _sunday(year: int, month: int, first_day: int) -> datetime:
    """Midnight UTC of the first Sunday on or after a day."""
    day = date(year, month, first_day)
    day += timedelta(days=6 - day.weekday())
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
