"""When trades happen on an exchange day: a Hawkes process by branching, with bursts.

Spontaneous events come at an intensity of half-hour weights times activity, and in rare shocks that
strike every listing. Each event has children after it, those have theirs, and each is a burst of
prints within milliseconds. What follows from the spontaneous events of one period is a `Family`;
it is bounded in time, so a moment needs the families of a few periods before it and no more.
"""

from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tickhouse.source.simulator.draws import (
    EXPONENTIAL,
    TABLE,
    UNIT,
    Bits,
    Floats,
    Ints,
    draw,
    exp,
    field,
    is_below,
    key,
    keys,
    ranges,
    scramble,
)
from tickhouse.source.simulator.faults import LATE_US_MAX, LATE_US_MIN, Faults
from tickhouse.source.simulator.prices import CHUNK_S, GRID_S, Axis, Prices, half_hourly
from tickhouse.source.simulator.profiles import HALF_HOUR_TRADES, PROFILES, stacked
from tickhouse.source.simulator.universe import Roster

SECOND_US: Final = 1_000_000
SPAN_S: Final = 320
"""Descendants of an event come within this time, or not at all."""
OFF_HOURS_INTENSITY: Final = 0.007
"""Of the mean of regular hours: some 1 % of the trades come outside them."""
BURST_GAP_US: Final = 1000
SHOCKS_MIN: Final = 2
SHOCKS_MAX: Final = 4
SHOCK_FACTOR: Final = 20
"""More trades than usual in a shock; spontaneous events must be more, for their children lag."""
SHOCK_S_MAX: Final = 3
HALT_S: Final = 300
HALT_EDGE_S: Final = 900
"""No halt begins in the first or the last quarter of an hour."""
SPARE_DRAWS: Final = 12

_ROOTS, _SHOCKS, _HALTS, _LATE = range(20, 24)
_BRANCH: Final = np.uint64(0xD1B54A32D192ED03)
_PRINT: Final = np.uint64(0x8CB92BA72F3D8DD7)


class Prints(msgspec.Struct, frozen=True):
    """Prints in order of delivery.

    Attributes:
        deliver_us: when each is handed to the feed, microseconds from the day's start.
        event_us: when each happened.
        column: place of its symbol in the roster.
        bits: random, its own.
        kind: see `marks`.
    """

    deliver_us: Ints
    event_us: Ints
    column: Ints
    bits: Bits
    kind: Ints

    def __len__(self) -> int:
        """How many."""
        return len(self.deliver_us)

    def taken(self, places: Ints | slice | NDArray[np.bool_]) -> "Prints":
        """Those at some places."""
        return Prints(
            self.deliver_us[places],
            self.event_us[places],
            self.column[places],
            self.bits[places],
            self.kind[places],
        )


def merged(parts: list[Prints]) -> Prints:
    """All of them in order of delivery."""
    whole = Prints(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _PRINT_FIELDS)
    )
    return whole.taken(np.argsort(whole.deliver_us, kind="stable"))


_PRINT_FIELDS: Final = Prints.__struct_fields__


class Arrivals:
    """Prints of continuous trading of a roster.

    Args:
        seed: of everything random.
        roster: whose trades.
        rates: trades a second of each in regular hours, on average.
        faults: `late` and `halt` count here.
        prices: whose activity the arrivals share.
        period_s: length of a period; divides a chunk.
    """

    def __init__(
        self,
        seed: int,
        roster: Roster,
        rates: Floats,
        *,
        faults: Faults,
        prices: Prices,
        period_s: int,
    ) -> None:
        self.period_s = period_s
        self.reach = -(-(SPAN_S + (LATE_US_MAX // SECOND_US if faults.late else 0)) // period_s)
        self._seed = seed
        self._roster = roster
        self._faults = faults
        self._prices = prices
        profiles = roster.profiles
        self._root_rate = rates / np.array([each.cluster_mean for each in profiles])
        self._activity_sd = roster.of_profiles("activity_sd")
        self._shock_factor = 1 + (SHOCK_FACTOR - 1) * np.array(
            [
                (1 - each.branching * each.delay_weights[0]) / (1 - each.branching)
                for each in profiles
            ]
        )
        self._children = stacked([each.children_table() for each in PROFILES])
        self._bursts = stacked([each.burst_table() for each in PROFILES])
        self._delay_us = np.stack([_delay_table(number) for number in range(len(PROFILES))])
        self._same = np.array([round(each.same_instant * TABLE) for each in PROFILES])
        self.family = lru_cache(maxsize=self.reach + 4)(self._make_family)
        self._root_keys = lru_cache(maxsize=4)(self._make_root_keys)
        self.halts = lru_cache(maxsize=4)(self._find_halts)
        self.shocks = lru_cache(maxsize=4)(self._find_shocks)

    # -- the day ------------------------------------------------------------------------------

    def _make_root_keys(self, day: int) -> Bits:
        return keys(self._roster.ranks, self._seed, _ROOTS, day)

    def _find_shocks(self, axis: Axis) -> frozenset[int]:
        """Seconds in which the whole market is struck."""
        opened, closed = axis.bells_s
        bits = draw(key(self._seed, _SHOCKS, axis.number), np.arange(1 + SHOCKS_MAX))
        count = SHOCKS_MIN + int(bits[0]) % (SHOCKS_MAX - SHOCKS_MIN + 1)
        starts = opened + field(bits[1 : 1 + count], 0, 32) * (closed - opened) // (1 << 32)
        lengths = 1 + field(bits[1 : 1 + count], 32) % SHOCK_S_MAX
        return frozenset(
            start + second
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
            for second in range(length)
        )

    def _find_halts(self, axis: Axis) -> dict[int, int]:
        """Columns halted on a day, each with the second at which the halt begins."""
        if not self._faults.halt:
            return {}
        own = keys(self._roster.ranks, self._seed, _HALTS, axis.number)
        bits = draw(own, np.zeros(len(own), dtype=np.int64))
        opened, closed = axis.bells_s
        room = closed - opened - 2 * HALT_EDGE_S - HALT_S
        shares = field(draw(own, np.ones(len(own), dtype=np.int64)), 0, 32)
        starts = opened + HALT_EDGE_S + (shares * room >> 32)
        struck = np.flatnonzero(is_below(bits, self._faults.halt))
        return {column: int(starts[column]) for column in struck.tolist()}

    # -- one family -----------------------------------------------------------------------------

    def _make_family(self, axis: Axis, period: int) -> Prints:
        """What follows from the spontaneous events of one period."""
        at_us, column, bits = self._roots(axis, period)
        end_us = (period + 1) * self.period_s * SECOND_US + SPAN_S * SECOND_US
        events = [(at_us, column, bits)]
        while len(at_us):
            at_us, column, bits = self._branch(at_us, column, bits, end_us)
            events.append((at_us, column, bits))
        at_us, column, bits = (np.concatenate(parts) for parts in zip(*events, strict=True))
        at_us, column, bits = self._burst(at_us, column, bits)
        deliver_us = at_us
        if self._faults.late:
            deliver_us = at_us + self._lateness(bits)
        prints = Prints(deliver_us, at_us, column, bits, np.zeros_like(at_us))
        keep = (deliver_us < axis.length_s * SECOND_US) & ~self._is_halted(axis, at_us, column)
        if not keep.all():
            prints = prints.taken(keep)
        return prints.taken(np.argsort(prints.deliver_us, kind="stable"))

    def _intensity(self, axis: Axis, period: int) -> Floats:
        """Spontaneous events a second of each listing (rows) in each second of a period."""
        start = period * self.period_s
        seconds = start + np.arange(self.period_s)
        chunk, row = divmod(start, CHUNK_S)
        steps = slice(row // GRID_S, -(-(row + self.period_s) // GRID_S))
        activity = self._prices.activity(axis, chunk)[steps].T
        spread = self._activity_sd[:, None]
        factor = np.repeat(exp(spread * activity - spread * spread / 2), GRID_S, axis=1)
        if self.period_s < GRID_S:
            factor = factor[:, row % GRID_S :][:, : self.period_s]
        share = half_hourly(
            HALF_HOUR_TRADES, seconds.astype(np.float64), axis.bells_s, OFF_HOURS_INTENSITY
        )
        intensity = self._root_rate[:, None] * factor * share
        for second in self.shocks(axis):
            if start <= second < start + self.period_s:
                intensity[:, second - start] *= self._shock_factor
        return intensity

    def _roots(self, axis: Axis, period: int) -> tuple[Ints, Ints, Bits]:
        """Spontaneous events: a Poisson process of unit rate in operational time."""
        cells = np.rint(self._intensity(axis, period) * UNIT).astype(np.int64)
        totals = cells.sum(axis=1)
        edges = np.concatenate([[0], np.cumsum(cells.ravel())])
        expected = totals / UNIT
        counts = (expected + 6 * np.sqrt(expected)).astype(np.int64) + SPARE_DRAWS
        column = np.repeat(np.arange(len(counts)), counts)
        root_keys = self._root_keys(axis.number)[column]
        bits = draw(root_keys, ranges(counts) + (period << 32))
        reached = np.cumsum(EXPONENTIAL[field(bits, 0)])
        ends = np.cumsum(counts)
        starts = np.concatenate([[0], reached[ends[:-1] - 1]])
        reached -= np.repeat(starts, counts)
        keep = reached < totals[column]
        column, bits = column[keep], scramble(bits[keep] + _PRINT)
        position = reached[keep] + edges[column * self.period_s]
        cell = np.searchsorted(edges, position, side="right") - 1
        inside = (position - edges[cell]) / cells.ravel()[cell]
        second = period * self.period_s + cell % self.period_s
        return ((second + inside) * SECOND_US).astype(np.int64), column, bits

    def _branch(
        self, at_us: Ints, column: Ints, bits: Bits, end_us: int
    ) -> tuple[Ints, Ints, Bits]:
        """The children of some events."""
        profile = self._roster.profile[column]
        counts = self._children[profile * TABLE + field(bits, 16)]
        parent = np.repeat(np.arange(len(counts)), counts)
        child = ranges(counts).astype(np.uint64) + np.uint64(1)
        bits = scramble(bits[parent] + child * _BRANCH)
        column, profile = column[parent], profile[parent]
        scale_us = self._delay_us[profile, field(bits, 56, 8)]
        at_us = at_us[parent] + (EXPONENTIAL[field(bits, 0)] * scale_us >> 16)
        keep = at_us < end_us
        return at_us[keep], column[keep], bits[keep]

    def _burst(self, at_us: Ints, column: Ints, bits: Bits) -> tuple[Ints, Ints, Bits]:
        """The prints of each event."""
        profile = self._roster.profile[column]
        counts = self._bursts[profile * TABLE + field(bits, 32)]
        place = ranges(counts)
        bits = scramble(np.repeat(bits, counts) + place.astype(np.uint64) * _PRINT)
        is_same = field(bits, 0) < np.repeat(self._same[profile], counts)
        gaps = np.where(is_same, 0, EXPONENTIAL[field(bits, 16)] * BURST_GAP_US >> 16)
        gaps[place == 0] = 0
        reached = np.cumsum(gaps)
        starts = reached[np.cumsum(counts) - counts] if len(counts) else reached
        reached += np.repeat(at_us - starts, counts)
        return reached, np.repeat(column, counts), bits

    def _lateness(self, bits: Bits) -> Ints:
        """How much later than it happened each print is delivered."""
        chosen = scramble(bits + np.uint64(_LATE))
        wait_us = LATE_US_MIN + (field(bits, 0, 32) * (LATE_US_MAX - LATE_US_MIN) >> 32)
        return np.where(is_below(chosen, self._faults.late), wait_us, 0)

    def _is_halted(self, axis: Axis, at_us: Ints, column: Ints) -> NDArray[np.bool_]:
        halted = np.zeros(len(at_us), dtype=np.bool_)
        for struck, start_s in self.halts(axis).items():
            since = at_us - start_s * SECOND_US
            halted |= (column == struck) & (since >= 0) & (since < HALT_S * SECOND_US)
        return halted


def _delay_table(profile: int) -> Ints:
    """Means of the delay of a child, microseconds, each as often as it is used, in 256 places."""
    found = PROFILES[profile]
    places: list[int] = []
    for weight, delay_s in zip(found.delay_weights, found.delays_s, strict=True):
        places += [round(delay_s * SECOND_US)] * round(weight * 256)
    return np.array((places + [places[-1]] * 256)[:256], dtype=np.int64)


def expected_trades(rates: Floats, axis: Axis) -> Floats:
    """Trades of each listing on a day of continuous trading, about."""
    opened, closed = axis.bells_s
    return rates * (closed - opened + OFF_HOURS_INTENSITY * (axis.length_s - closed + opened))
