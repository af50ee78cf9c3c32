"""Prices: efficient ones of market, sector and own moves, and the prints around them.

An efficient price is a walk over the seconds of a day, in three layers so that any second is found
without those before it: the day's opening (a sum of slow random lattices over days), the price at
each chunk's edge, and the seconds of a chunk, drawn when needed and tied to its edges. Returns of
a second are Student's t with 4 degrees of freedom, times the volatility of the half hour, times
activity that comes and goes.
"""

from functools import lru_cache
from math import fsum, sqrt
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tickhouse.source.simulator.draws import (
    NORMAL,
    STUDENT,
    Bits,
    Floats,
    Ints,
    draw,
    exp,
    field,
    is_below,
    key,
    keys,
    smoothed,
)
from tickhouse.source.simulator.profiles import HALF_HOUR_MOVES
from tickhouse.source.simulator.universe import Roster

PRICE_UNITS: Final = 10_000
"""Prices are integers in 1e-4 of a dollar."""
CENT: Final = PRICE_UNITS // 100
CHUNK_S: Final = 1024
GRID_S: Final = 4
"""Step of the activity, which arrivals and volatility share."""
SLOW_S: Final = 64
"""Step of the slow volatility."""
SLOW_KEEP: Final = 0.96
SLOW_SD: Final = 0.30
ACTIVE_MOVES_SD: Final = 0.20
HISTORY: Final = 64
LAG_MAX: Final = 16
MARKET_SHARE: Final = 0.6
SECTOR_SHARE: Final = 0.4
OWN_SHARE: Final = 0.7
OFF_HOURS_MOVES: Final = 0.25
DAY_PERIODS: Final = (1, 4, 16, 64, 256)
DAY_STEP: Final = 0.005
OVERNIGHT_SD: Final = 0.006
SIDE_S: Final = 4
"""So long most prints stay on one side of the spread."""
OFF_EXCHANGE: Final = 0.4
"""Share of prints inside the spread, in hundredths of a cent."""

_MARKET, _SECTOR, _OWN = range(3)
_DAYS, _OVERNIGHT, _EDGES, _SECONDS, _SLOW, _ACTIVITY, _SIDES = range(10, 17)


class Axis(msgspec.Struct, frozen=True):
    """The seconds of one day.

    Attributes:
        number: of the day, which all randomness hangs on; the next day's is `following`.
        following: see there.
        length_s: seconds from its start to its end.
        regular_s: start and end of regular trading; None = always the same.
    """

    number: int
    following: int
    length_s: int
    regular_s: tuple[int, int] | None = None

    @property
    def bells_s(self) -> tuple[int, int]:
        """Start and end of regular trading.

        Raises:
            ValueError: the market is always open.
        """
        if self.regular_s is None:
            raise ValueError("an open market has no bells")
        return self.regular_s

    def moves(self, seconds: Floats) -> Floats:
        """Volatility at moments of the day, relative to its mean."""
        if self.regular_s is None:
            return np.ones_like(seconds)
        return half_hourly(HALF_HOUR_MOVES, seconds, self.regular_s, OFF_HOURS_MOVES)


def half_hourly(
    curve: tuple[float, ...], seconds: Floats, regular_s: tuple[int, int], outside: float
) -> Floats:
    """A curve over regular trading (a half day takes it faster), relative to its mean."""
    opened, closed = regular_s
    place = np.floor((seconds - opened) * len(curve) / (closed - opened)).astype(np.int64)
    values = np.array([*curve, 0.0]) * (len(curve) / fsum(curve))
    values[-1] = outside
    is_regular = (seconds >= opened) & (seconds < closed)
    return values[np.where(is_regular, place, len(curve))]


class Prices:
    """Prices of a roster.

    Args:
        seed: of everything random.
        roster: whose prices.
    """

    def __init__(self, seed: int, roster: Roster) -> None:
        self._seed = seed
        self._roster = roster
        self._columns = 1 + roster.sectors + len(roster)
        self._per_second = roster.of_profiles("minute_bp") * (1e-4 / sqrt(60))
        self._lag: Ints = roster.of_profiles("lag_s").astype(np.int64)
        self._flips = roster.of_profiles("flips")
        spread = 2e-4 * roster.of_profiles("half_spread_bp") * roster.price * PRICE_UNITS
        self._spread = np.maximum(CENT, np.rint(spread / CENT) * CENT)
        self._own = len(roster)
        self.activity = lru_cache(maxsize=8)(self._draw_activity)
        self._edges = lru_cache(maxsize=4)(self._draw_edges)
        self._keys = lru_cache(maxsize=32)(self._make_keys)
        self._path = lru_cache(maxsize=4)(self._draw_path)

    # -- the efficient price ------------------------------------------------------------------

    def _make_keys(self, purpose: int, day: int) -> Bits:
        """A key for the market, each sector and each listing."""
        return np.concatenate(
            [
                keys([0], self._seed, purpose, day, _MARKET),
                keys(range(self._roster.sectors), self._seed, purpose, day, _SECTOR),
                keys(self._roster.ranks, self._seed, purpose, day, _OWN),
            ]
        )

    def _deviates(self, values: Floats, purpose: int, day: int, numbers: Ints) -> Floats:
        """Random numbers for each of `numbers` (rows) and each key (columns)."""
        bits = draw(self._keys(purpose, day)[None, :], numbers[:, None])
        return values[field(bits, 0)]

    def _combined(self, drawn: Floats) -> Floats:
        """The listings' moves (columns) from those of market, sectors and listings."""
        sectors, own = drawn[..., 1 : 1 + self._roster.sectors], drawn[..., -self._own :]
        return (
            MARKET_SHARE * drawn[..., :1]
            + SECTOR_SHARE * sectors[..., self._roster.sector]
            + OWN_SHARE * own
        )

    def _opening(self, day: int) -> Floats:
        """Logarithm of each listing's price at the start of a day, from where it starts."""
        total = np.zeros(self._own)
        for period in DAY_PERIODS:
            point, place = divmod(day, period)
            share = place / period
            share = share * share * (3 - 2 * share)
            purpose = key(_DAYS, period) >> 1
            rows = self._deviates(NORMAL, purpose, 0, np.array([point, point + 1]))
            before, after = self._combined(rows)
            total += DAY_STEP * sqrt(period) * (before + (after - before) * share)
        return total

    def _draw_edges(self, axis: Axis) -> Floats:
        """Logarithm of prices at the edges of a day's chunks (rows)."""
        count = -(-axis.length_s // CHUNK_S)
        middles = (np.arange(count, dtype=np.float64) + 0.5) * CHUNK_S
        drawn = self._combined(self._deviates(STUDENT, _EDGES, axis.number, np.arange(count)))
        steps = drawn * (sqrt(CHUNK_S) * axis.moves(middles))[:, None] * self._per_second
        walk = np.zeros((count + 1, self._own))
        np.cumsum(steps, axis=0, out=walk[1:])
        start, end = self._opening(axis.number), self._opening(axis.following)
        if axis.regular_s is not None:
            gap = self._deviates(STUDENT, _OVERNIGHT, axis.number, np.array([0]))
            end = end - OVERNIGHT_SD * self._combined(gap)[0]
        share = (np.arange(count + 1) / count)[:, None]
        return start + walk + share * (end - start - walk[-1])

    def _draw_activity(self, axis: Axis, chunk: int) -> Floats:
        """Activity of each listing (columns) every `GRID_S` of a chunk: mean 0, variance 1."""
        steps = CHUNK_S // GRID_S
        numbers = np.arange(-HISTORY, steps) + chunk * steps
        noise = self._deviates(NORMAL, _ACTIVITY, axis.number, numbers)[:, -self._own :]
        found = np.empty((steps, self._own))
        for activity_s in {profile.activity_s for profile in self._roster.profiles}:
            columns = np.flatnonzero(self._roster.of_profiles("activity_s") == activity_s)
            keep = 1 - GRID_S / activity_s
            found[:, columns] = smoothed(noise[:, columns], keep, HISTORY)
        return found

    def _volatility(self, axis: Axis, chunk: int) -> Floats:
        """The market's volatility in each second of a chunk, relative to its mean."""
        steps = CHUNK_S // SLOW_S
        numbers = np.arange(-HISTORY, steps) + chunk * steps
        noise = NORMAL[field(draw(key(self._seed, _SLOW, axis.number), numbers), 0)]
        slow = exp(SLOW_SD * smoothed(noise, SLOW_KEEP, HISTORY) - SLOW_SD * SLOW_SD)
        seconds = np.arange(chunk * CHUNK_S, (chunk + 1) * CHUNK_S, dtype=np.float64)
        return np.repeat(slow, SLOW_S) * axis.moves(seconds)

    def _draw_path(self, axis: Axis, chunk: int) -> Floats:
        """Prices (USD) at each second of a chunk (rows), its end included, flattened."""
        numbers = np.arange(chunk * CHUNK_S - LAG_MAX, (chunk + 1) * CHUNK_S)
        drawn = self._deviates(STUDENT, _SECONDS, axis.number, numbers)
        lagged = np.arange(LAG_MAX, LAG_MAX + CHUNK_S)[:, None] - self._lag
        moves = MARKET_SHARE * drawn[lagged, 0]
        moves += SECTOR_SHARE * drawn[lagged, 1 + self._roster.sector]
        activity = np.repeat(self.activity(axis, chunk), GRID_S, axis=0)
        activity = exp(ACTIVE_MOVES_SD * activity - ACTIVE_MOVES_SD * ACTIVE_MOVES_SD)
        moves += OWN_SHARE * drawn[LAG_MAX:, -self._own :] * activity
        moves *= self._volatility(axis, chunk)[:, None] * self._per_second
        walk = np.zeros((CHUNK_S + 1, self._own))
        np.cumsum(moves, axis=0, out=walk[1:])
        edges = self._edges(axis)
        start, end = edges[chunk], edges[chunk + 1]
        share = (np.arange(CHUNK_S + 1) / CHUNK_S)[:, None]
        walk += start + share * (end - start - walk[-1])
        return (self._roster.price * exp(walk)).ravel()

    def middle(self, axis: Axis, at_us: Ints, column: Ints) -> Floats:
        """Efficient prices, USD.

        Args:
            axis: the day.
            at_us: moments from the day's start, in any order, microseconds.
            column: of each.
        """
        second, rest = np.divmod(at_us, 1_000_000)
        chunk, row = np.divmod(second, CHUNK_S)
        share = rest * 1e-6
        found = np.empty(len(at_us))
        if not len(at_us):
            return found
        first, last = int(chunk.min()), int(chunk.max())
        for number in range(first, last + 1):
            path = self._path(axis, number)
            of_chunk = slice(None) if first == last else chunk == number
            place = row[of_chunk] * self._own + column[of_chunk]
            before = path[place]
            found[of_chunk] = before + (path[place + self._own] - before) * share[of_chunk]
        return found

    # -- prints ---------------------------------------------------------------------------------

    def prints(self, axis: Axis, at_us: Ints, column: Ints, bits: Bits) -> Ints:
        """Prices of prints in 1e-4 dollars: at bid or ask, or between them off exchange.

        Args:
            axis: the day.
            at_us: moments, microseconds from the day's start.
            column: of each.
            bits: random, of which the upper 32 are used.
        """
        middle = self.middle(axis, at_us, column) * PRICE_UNITS
        spread = self._spread[column]
        half = spread / 2
        bid = np.floor(middle / spread) * spread
        is_flipped = field(bits, 56, 8) < (self._flips * 256)[column]
        is_high = self._sides(axis, at_us, column) ^ is_flipped
        inside = bid + half + np.where(is_high, half, -half) * (1 + 2 * field(bits, 52, 4)) / 32
        is_inside = field(bits, 36, 16) < OFF_EXCHANGE * (1 << 16)
        on_tick = np.where(is_high, bid + spread, bid)
        return np.maximum(np.where(is_inside, np.rint(inside), on_tick), 1.0).astype(np.int64)

    def _sides(self, axis: Axis, at_us: Ints, column: Ints) -> NDArray[np.bool_]:
        """On which side of the spread most prints are: True = the high one."""
        own = self._keys(_SIDES, axis.number)[-self._own :]
        return is_below(draw(own[column], at_us // (SIDE_S * 1_000_000)), 0.5)
