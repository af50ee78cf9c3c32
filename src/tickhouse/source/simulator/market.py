"""The simulated market: any frame of a shard from its number, in vectorised blocks.

Frame `k` of a shard is a function of (scenario, shard, k) and, on the exchange, of the first day;
so a restart goes on at any cursor and anyone can compute the truth anew. Two schedules of arrival
share prices, sizes, conditions and faults: an open market, whose frames come evenly for ever, and
exchange days (`sessions`).
"""

from functools import lru_cache
from itertools import pairwise
from typing import Final, Protocol

import numpy as np

from tickhouse.source.simulator.block import Block, Flags, frame_flags, gather
from tickhouse.source.simulator.draws import (
    Bits,
    Ints,
    draw,
    field,
    is_below,
    key,
    ranges,
    scramble,
    table,
)
from tickhouse.source.simulator.faults import (
    LATE_US_MAX,
    LATE_US_MIN,
    NO_PRICE,
    REPEATED,
    REVERSED,
    Faults,
)
from tickhouse.source.simulator.marks import sizes_and_conditions
from tickhouse.source.simulator.prices import Axis, Prices
from tickhouse.source.simulator.profiles import rank_weights
from tickhouse.source.simulator.scenario import FRAME_SIZE_WEIGHTS, Scenario
from tickhouse.source.simulator.universe import Roster

DAY_S: Final = 1 << 16
"""Virtual seconds of an open market's "day", which only prices know of."""
MICROS: Final = 1_000_000

_FRAMES, _TRADES, _FRAME_FAULTS = range(30, 33)
_MARKS: Final = np.uint64(0xAF251AF3B0F025B5)
_REJECTS: Final = np.uint64(0xB564EF22EC7AECE5)
_LATE: Final = np.uint64(0xF7C2EBC08F67F2B5)
_FRAME_SIZES: Final = 1 + table(FRAME_SIZE_WEIGHTS)


class Market(Protocol):
    """One shard of a scenario.

    Attributes:
        symbols: those of its trades; `Block.symbol` counts them.
    """

    symbols: list[str]

    def block_of(self, frame: int) -> Block | None:
        """The block that holds a frame; None where the market has ended before."""
        ...

    def reach(self, frame: int, *, steps_max: int) -> bool:
        """Do some of the work that finding a frame takes; True when it is done."""
        ...


def shard_ranks(scenario: Scenario, shard: int) -> range:
    """Places in the universe of a shard's symbols."""
    return range(shard, scenario.symbols, scenario.shards)


def strike(faults: Faults, bits: Bits, price: Ints, size: Ints) -> None:
    """Make rejects of some prints, in place.

    Args:
        faults: how many.
        bits: random, one word a print.
        price: in 1e-4 dollars.
        size: shares.
    """
    if not (faults.null_price or faults.zero_price or faults.zero_size):
        return
    share = scramble(bits + _REJECTS)
    start = faults.null_price + faults.zero_price
    size[is_below(share, start + faults.zero_size)] = 0
    struck = is_below(share, start)
    size[struck] = 1
    price[struck] = 0
    price[is_below(share, faults.null_price)] = NO_PRICE


def mark_bits(bits: Bits) -> Bits:
    """Random words for the marks of prints, from the words that they came by."""
    return scramble(bits + _MARKS)


class OpenMarket(Market):
    """A market that never closes: frames come evenly, symbols by their weight.

    Args:
        scenario: what is simulated.
        shard: which part of it.
    """

    def __init__(self, scenario: Scenario, shard: int) -> None:
        self.scenario = scenario
        self._shard = shard
        roster = Roster(shard_ranks(scenario, shard))
        self.symbols = roster.symbols
        self.prices = Prices(scenario.seed, roster)
        weights = rank_weights(scenario.symbols)
        self._columns = table([weights[rank] for rank in roster.ranks])
        self._frame_key = key(scenario.seed, _FRAME_FAULTS, shard)
        time = scenario.frame_time * MICROS
        self._frame_us = (time.numerator, time.denominator)
        self.block = lru_cache(maxsize=16)(self._draw)

    def block_of(self, frame: int) -> Block:
        """See `Market`."""
        return self.block(frame // self.scenario.block_frames)

    def reach(self, frame: int, *, steps_max: int) -> bool:  # noqa: ARG002 - nothing to do
        """See `Market`: any frame is found at once."""
        return True

    def _due_us(self, first: int, count: int) -> Ints:
        """When frames are due, virtual microseconds."""
        numerator, denominator = self._frame_us
        whole, rest = divmod(first * numerator, denominator)
        step, over = divmod(numerator, denominator)
        numbers = np.arange(count)
        return whole + numbers * step + (rest + numbers * over) // denominator

    def _draw(self, number: int) -> Block:
        scenario, count = self.scenario, self.scenario.block_frames
        first = number * count
        numbers = np.arange(first, first + count)
        if scenario.batch:
            sizes = np.full(count, scenario.batch, dtype=np.int64)
        else:
            frames_key = key(scenario.seed, _FRAMES, self._shard)
            sizes = _FRAME_SIZES[field(draw(frames_key, numbers), 0)]
        due_us = self._due_us(first, count)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        trades_key = key(scenario.seed, _TRADES, self._shard, number)
        bits = draw(trades_key, np.arange(int(bounds[-1])))
        column = self._columns[field(bits, 0)]
        bits = mark_bits(bits)
        at_us = np.repeat(due_us, sizes)
        size, condition = sizes_and_conditions(bits)
        price = self._prices_at(at_us, column, bits)
        strike(scenario.faults, bits, price, size)
        flags = self._flags(numbers, sizes)
        is_reversed = np.repeat((flags & REVERSED) != 0, sizes)
        event_us = at_us - self._lateness(bits) - 1000 * ranges(sizes) * is_reversed
        arrays = [column, price, size, condition, event_us // 1000]
        if (flags & REPEATED).any():
            source = np.arange(count) - ((flags & REPEATED) != 0)
            bounds, order = gather(bounds, source)
            arrays = [array[order] for array in arrays]
            flags = flags & ~np.uint8(REVERSED) | flags[source] & np.uint8(REVERSED)
        column, price, size, condition, event_ms = arrays
        return Block(first, bounds, column, price, size, condition, event_ms, due_us, flags)

    def _prices_at(self, at_us: Ints, column: Ints, bits: Bits) -> Ints:
        day_us = DAY_S * MICROS
        days = range(int(at_us[0]) // day_us, int(at_us[-1]) // day_us + 1)
        edges = np.searchsorted(at_us, [day * day_us for day in (*days, days.stop)])
        parts = [
            self.prices.prints(
                Axis(day, day + 1, DAY_S),
                at_us[start:end] - day * day_us,
                column[start:end],
                bits[start:end],
            )
            for day, (start, end) in zip(days, pairwise(edges.tolist()), strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _lateness(self, bits: Bits) -> Ints | int:
        rate = self.scenario.faults.late
        if not rate:
            return 0
        words = scramble(bits + _LATE)
        wait_us = LATE_US_MIN + (field(bits, 0, 32) * (LATE_US_MAX - LATE_US_MIN) >> 32)
        return np.where(is_below(words, rate), wait_us, 0)

    def _flags(self, numbers: Ints, sizes: Ints) -> Flags:
        """Faults of frames; a repeated one takes another's place, so that numbers stay."""
        flags = frame_flags(self.scenario.faults, self._frame_key, numbers)
        flags[sizes == 1] &= ~np.uint8(REVERSED)
        is_repeated = (flags & REPEATED) != 0
        is_repeated[1:] &= ~is_repeated[:-1].copy()
        is_repeated[0] = False
        return np.where(is_repeated, flags, flags & ~np.uint8(REPEATED))
