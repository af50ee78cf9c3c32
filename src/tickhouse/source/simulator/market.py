"""The simulated market: any frame from its number alone, in vectorised blocks.

Frame `k` of a shard is a function of (scenario, shard, k), so a restart goes on at any cursor and
anyone can compute the truth anew. Prices need no history: the logarithm of a price is a sum of
smoothed random lattices over virtual time, coarse to fine, the amplitude growing with the square
root of the period as a random walk's does, plus bid-ask bounce. Lattices combine a market, a sector
and an own factor.

Only raw random bits, integer tables and the four basic operations of arithmetic are used: their
results are the same on every machine and in every version of numpy, which those of random
distributions, `exp` or `pow` are not.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import exp, sqrt
from statistics import NormalDist
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tickhouse.source.simulator.scenario import FRAME_SIZE_WEIGHTS, Scenario, read_universe

PRICE_UNITS: Final = 10_000
"""Prices are integers in 1e-4 of a dollar."""
CENT: Final = PRICE_UNITS // 100
PERIODS_S: Final = (4, 16, 64, 256, 1024, 4096, 16384, 65536)
VOLATILITY_PER_ROOT_S: Final = 0.6e-4
"""Some 7 basis points a minute."""
MARKET_SHARE: Final = 0.6
SECTOR_SHARE: Final = 0.4
OWN_SHARE: Final = 0.7
HALF_SPREAD: Final = 1.0e-4
"""Of the price; half a cent at least."""
SUB_PENNY_OF_256: Final = 102
"""Off-exchange prints (40 %) are priced inside the spread, in hundredths of a cent."""

TABLE: Final = 1 << 16
ODD_LOT_ENTRIES: Final = TABLE * 3 // 4
HUNDRED_ENTRIES: Final = TABLE * 15 // 100
BLOCK_TRADE_ENTRIES: Final = 40
BLOCK_TRADE_SIZE: Final = 10_000

CONDITIONS: Final = (
    b'["1","12"]',
    b'["1","8","12"]',
    b'["1"]',
    b'["1","8"]',
    b"[]",
    b'["1","41"]',
    b'["3"]',
    b'["1","32"]',
    b'["21"]',
)
"""Condition codes as they stand in a frame; the first two are those of odd lots."""
ODD_LOT_CONDITIONS: Final = 2
_ODD_LOT_WEIGHTS: Final = (72, 28)
_ROUND_LOT_WEIGHTS: Final = (4500, 2800, 1400, 937, 60, 300, 3)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bits = NDArray[np.uint64]


class Block(msgspec.Struct, frozen=True):
    """Trades of consecutive frames of a shard.

    Attributes:
        first: number of the first frame.
        bounds: frame n of the block holds trades `bounds[n] .. bounds[n + 1]`.
        symbol: index in the shard's listings, per trade.
        price: in 1e-4 dollars, per trade.
        size: shares, per trade.
        condition: index in `CONDITIONS`, per trade.
    """

    first: int
    bounds: Ints
    symbol: Ints
    price: Ints
    size: Ints
    condition: Ints

    @property
    def end(self) -> int:
        """Number after the last frame."""
        return self.first + len(self.bounds) - 1


def _table(weights: Sequence[int], entries: int = TABLE) -> Ints:
    """The numbers 0 .. n - 1, each as often as its weight, over `entries` places."""
    total, reached, edges = sum(weights), 0, [0]
    for weight in weights:
        reached += weight
        edges.append(reached * entries // total)
    return np.repeat(np.arange(len(weights)), np.diff(edges)).astype(np.int64)


def _size_table() -> Ints:
    """Sizes: three quarters odd lots, 15 % exactly 100, the rest larger, a few blocks."""
    small = [round(1e9 * (sqrt(size) - sqrt(size - 1))) for size in range(1, 100)]
    odd = 1 + _table(small, ODD_LOT_ENTRIES)
    count = TABLE - ODD_LOT_ENTRIES - HUNDRED_ENTRIES
    normal = NormalDist(0.9, 0.9)
    larger = [
        100 * max(2, round(exp(normal.inv_cdf((place + 0.5) / count)))) for place in range(count)
    ]
    larger[-BLOCK_TRADE_ENTRIES:] = [
        BLOCK_TRADE_SIZE + 1000 * place for place in range(BLOCK_TRADE_ENTRIES)
    ]
    return np.concatenate([odd, np.full(HUNDRED_ENTRIES, 100), larger]).astype(np.int64)


_FRAME_SIZES: Final = 1 + _table(FRAME_SIZE_WEIGHTS)
_SIZES: Final = _size_table()
_CONDITIONS: Final = np.stack(
    [_table(_ODD_LOT_WEIGHTS), ODD_LOT_CONDITIONS + _table(_ROUND_LOT_WEIGHTS)]
)
_EXP_TERMS: Final = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)


def _bits(count: int, *entropy: int) -> Bits:
    return np.asarray(np.random.PCG64(list(entropy)).random_raw(count), dtype=np.uint64)


def _field(bits: Bits, shift: int, width: int = 16) -> Ints:
    return ((bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int64)


def _deviates(count: int, *entropy: int) -> Floats:
    """Random numbers of mean 0 and variance 1, with fatter tails than a normal's."""
    bits = _bits(2 * count, *entropy)
    quarters = np.zeros(count)
    for shift in (0, 16, 32, 48):
        quarters += _field(bits[:count], shift)
    near_normal = (quarters - 2.0 * (TABLE - 1)) * (sqrt(3.0) / TABLE)
    is_wild = _field(bits[count:], 0, 8) < 51  # noqa: PLR2004 - one in five
    return near_normal * np.where(is_wild, 1.8, 0.7) / sqrt(0.8 * 0.7**2 + 0.2 * 1.8**2)


def _sides(symbol: Ints, bits: Bits) -> Ints:
    """1 for a buyer's trade, -1 for a seller's; one in four goes on with its symbol's last side."""
    order = np.argsort(symbol.astype(np.int16), kind="stable")
    drawn = 2 * _field(bits, 48, 1)[order] - 1
    follows = _field(bits, 62, 2)[order] == 0
    follows[1:] &= np.diff(symbol[order]) == 0
    follows[:1] = False
    origin = np.maximum.accumulate(np.where(follows, 0, np.arange(len(symbol))))
    sides = np.empty_like(symbol)
    sides[order] = drawn[origin]
    return sides


def _exp(exponent: Floats) -> Floats:
    """The exponential of small numbers (less than 1 either way), to six digits."""
    result = np.zeros_like(exponent)
    for term in _EXP_TERMS:
        result = result * exponent + term
    return result


class Market:
    """One shard of a scenario."""

    def __init__(self, scenario: Scenario, shard: int) -> None:
        self.scenario = scenario
        self.shard = shard
        universe = read_universe()
        ranks = range(shard, scenario.symbols, scenario.shards)
        self.listings = [universe[rank] for rank in ranks]
        self._frame_s = float(scenario.frame_time)
        self._symbols = _table([round(1e9 * (rank + 6) ** -1.05) for rank in ranks])
        self._prices: Floats = np.array([listing.price * PRICE_UNITS for listing in self.listings])
        sectors = sorted({listing.sector for listing in universe})
        self._sector: Ints = np.array([sectors.index(item.sector) for item in self.listings])
        self._ranks: Ints = np.array(ranks, dtype=np.int64)
        self._sectors = len(sectors)
        self._listed = len(universe)
        self.block = lru_cache(maxsize=16)(self._draw)
        self._lattice = lru_cache(maxsize=256)(self._draw_lattice)

    def block_of(self, frame: int) -> Block:
        """The block that holds a frame."""
        return self.block(frame // self.scenario.block_frames)

    def _draw(self, number: int) -> Block:
        count = self.scenario.block_frames
        first = number * count
        if self.scenario.batch:
            sizes = np.full(count, self.scenario.batch, dtype=np.int64)
        else:
            sizes = _FRAME_SIZES[_field(_bits(count, self.scenario.seed, self.shard, number, 0), 0)]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        bits = _bits(int(bounds[-1]), self.scenario.seed, self.shard, number, 1)
        symbol = self._symbols[_field(bits, 0)]
        lot = _field(bits, 16)
        is_odd = lot < ODD_LOT_ENTRIES
        return Block(
            first=first,
            bounds=bounds,
            symbol=symbol,
            price=self._draw_prices(symbol, first, sizes, bits),
            size=_SIZES[lot],
            condition=_CONDITIONS[np.where(is_odd, 0, 1), _field(bits, 32)],
        )

    def _draw_prices(self, symbol: Ints, first: int, sizes: Ints, bits: Bits) -> Ints:
        at_s = (first + np.arange(len(sizes))) * self._frame_s
        frame = np.repeat(np.arange(len(sizes)), sizes)
        log_move = np.zeros(len(symbol))
        for octave, period in enumerate(PERIODS_S):
            log_move += self._octave(octave, at_s / period, frame, symbol)
        middle = self._prices[symbol] * _exp(log_move)
        half_spread = np.maximum(CENT / 2, middle * HALF_SPREAD)
        bounce = _sides(symbol, bits) * half_spread
        on_tick = np.rint((middle + bounce) / CENT) * CENT
        inside = np.rint(middle + bounce * (_field(bits, 57, 5) / 32.0))
        is_inside = _field(bits, 49, 8) < SUB_PENNY_OF_256
        return np.maximum(np.where(is_inside, inside, on_tick), 1.0).astype(np.int64)

    def _octave(
        self, octave: int, position: NDArray[np.floating[Any]], frame: Ints, symbol: Ints
    ) -> Floats:
        """One octave of the logarithm of prices: lattice points joined smoothly."""
        point = np.floor(position).astype(np.int64)
        share = position - point
        share = (share * share * (3.0 - 2.0 * share))[frame]
        lowest = int(point[0])
        points = range(lowest, int(point[-1]) + 2)
        rows = np.stack([self._lattice(octave, number) for number in points])
        row = (point - lowest)[frame]
        before = rows[row, symbol]
        return before + (rows[row + 1, symbol] - before) * share

    def _draw_lattice(self, octave: int, point: int) -> Floats:
        """Values of all the shard's symbols at one point of one octave, as log moves."""
        drawn = _deviates(1 + self._sectors + self._listed, self.scenario.seed, octave, point, 2)
        sectors, own = drawn[1 : 1 + self._sectors], drawn[1 + self._sectors :]
        amplitude = VOLATILITY_PER_ROOT_S * sqrt(PERIODS_S[octave])
        return amplitude * (
            MARKET_SHARE * drawn[0]
            + SECTOR_SHARE * sectors[self._sector]
            + OWN_SHARE * own[self._ranks]
        )
