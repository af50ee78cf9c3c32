"""Whose quote is asked for next, and how often each was had."""

from collections.abc import Sequence
from typing import Final

from tickhouse.clock import Clock
from tickhouse.model.calendar import Calendar, is_always_open

BESIDE_TURN: Final = 4
"""Symbols that the socket covers get at most every so many turns."""
BESIDE_S: Final = 300.0
"""They give the previous close and something to compare with, so seldom is enough."""
CLOSED_S: Final = 900.0
"""While a symbol's market is closed its quote does not move: the last one is had, and no more."""


class Rounds:
    """Round robin: of the symbols that are due, whoever was asked for longest ago.

    Args:
        clock: of the rounds.
        calendar: when the exchange trades.
    """

    def __init__(self, *, clock: Clock, calendar: Calendar) -> None:
        self._clock = clock
        self._calendar = calendar
        self._asked_at: dict[str, float] = {}
        self._turn = 0

    def next(self, polled: Sequence[str], beside: Sequence[str]) -> str | None:
        """The next symbol, whose turn this is; None while none is due.

        Args:
            polled: symbols that only come by polling.
            beside: symbols that the socket covers.
        """
        self._turn += 1
        first = self._longest_ago(polled, 0.0)
        other = self._longest_ago(beside, BESIDE_S)
        is_others_turn = self._turn % BESIDE_TURN == 0
        symbol = (other or first) if is_others_turn else (first or other)
        if symbol is not None:
            self._asked_at[symbol] = self._clock.monotonic()
        return symbol

    def again(self, symbol: str) -> None:
        """The symbol's turn did not count: it is first in its next round."""
        self._asked_at.pop(symbol, None)

    def _longest_ago(self, symbols: Sequence[str], interval_s: float) -> str | None:
        now = self._clock.monotonic()
        is_open = self._calendar.is_open(self._clock.time_ns())
        never = float("-inf")
        due = [
            symbol
            for symbol in symbols
            if now - self._asked_at.get(symbol, never)
            >= (interval_s if is_open or is_always_open(symbol) else CLOSED_S)
        ]
        return min(due, key=lambda symbol: self._asked_at.get(symbol, never), default=None)


class Cadence:
    """Seconds between two quotes of a symbol, as achieved.

    Args:
        clock: of the receipts.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._count: dict[str, int] = {}
        self._told: dict[str, float] = {}

    def had(self, symbol: str) -> None:
        """A quote of the symbol has come."""
        now = self._clock.monotonic()
        self._first.setdefault(symbol, now)
        self._last[symbol] = now
        self._count[symbol] = self._count.get(symbol, -1) + 1

    def news(self, symbols: Sequence[str]) -> dict[float, list[str]]:
        """Symbols by their seconds since the last call, where these changed by a fifth or more."""
        found: dict[float, list[str]] = {}
        for symbol in symbols:
            if not self._count.get(symbol):
                continue
            every_s = round((self._last[symbol] - self._first[symbol]) / self._count[symbol], 1)
            if abs(every_s - self._told.get(symbol, 0.0)) > 0.2 * self._told.get(symbol, 0.0):
                self._told[symbol] = every_s
                found.setdefault(every_s, []).append(symbol)
            self._first[symbol], self._count[symbol] = self._last[symbol], 0
        return found
