"""The simulated market: any frame from its number alone, in vectorised blocks.

Frame `k` of a shard is a function of (seed, shard, k), so a restart goes on at any cursor and the
truth can be computed anew by anyone. Prices need no history: the logarithm of a price is a sum of
smoothed random lattices over virtual time, coarse to fine, the amplitude growing with the square
root of the period as a random walk's does, plus bid-ask bounce. Lattices combine a market, a sector
and an own factor.
"""

import csv
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

BLOCK_FRAMES: Final = 512
PRICE_UNITS: Final = 10_000
"""Prices are integers in 1e-4 of a dollar."""
PERIODS_S: Final = (4, 16, 64, 256, 1024, 4096, 16384, 65536)
VOLATILITY_PER_ROOT_S: Final = 1.0e-4
"""About 1.5 % a trading day of 23,400 s."""
MARKET_SHARE: Final = 0.6
SECTOR_SHARE: Final = 0.4
OWN_SHARE: Final = 0.7
BUYER_SHARE: Final = 0.5
SUB_PENNY_SHARE: Final = 0.4
ODD_LOT_SHARE: Final = 0.75
HUNDRED_SHARE: Final = 0.15
FRAME_TRADES_MAX: Final = 10
NOMINAL_RATE: Final = 1000.0
"""Virtual time runs at this many trades a second where the rate is `max`."""
_SIZE_WEIGHTS: Final = np.array([0.36, 0.2, 0.12, 0.09, 0.06, 0.05, 0.04, 0.03, 0.02, 0.03])

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

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
"""Condition codes as they stand in a frame; the first two are odd lots."""
_ODD_LOT_SHARES: Final = np.cumsum([0.72, 0.28])
_ROUND_SHARES: Final = np.cumsum([0.45, 0.28, 0.14, 0.0937, 0.006, 0.03, 0.0003])


class Listing(msgspec.Struct, frozen=True):
    """A symbol of the universe."""

    symbol: str
    sector: str
    price: float


class Scenario(msgspec.Struct, frozen=True):
    """What is simulated; two equal scenarios give equal frames.

    Attributes:
        seed: of everything random.
        symbols: how many, the largest first.
        shards: connections; symbol n is on shard n modulo shards.
        rate: trades a second over all shards; sets the pace of virtual time.
        batch: trades a frame; 0 = 1 to 10 at random.
    """

    seed: int
    symbols: int
    shards: int
    rate: float
    batch: int

    @property
    def frame_trades_mean(self) -> float:
        """Trades a frame on average."""
        if self.batch:
            return float(self.batch)
        return float(np.dot(_SIZE_WEIGHTS, np.arange(1, FRAME_TRADES_MAX + 1)))

    @property
    def frame_s(self) -> float:
        """Virtual seconds from one frame of a shard to the next."""
        return self.frame_trades_mean * self.shards / self.rate


class Block(msgspec.Struct, frozen=True):
    """Trades of `BLOCK_FRAMES` consecutive frames of a shard.

    Attributes:
        first: number of the first frame.
        bounds: frame n holds trades `bounds[n] .. bounds[n + 1]`.
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


@lru_cache(maxsize=1)
def read_universe() -> tuple[Listing, ...]:
    """The S&P 500, largest first."""
    text = resources.files("tickhouse.source.simulator").joinpath("sp500.csv").read_text()
    return tuple(
        Listing(row["symbol"], row["sector"], float(row["price"]))
        for row in csv.DictReader(text.splitlines())
    )


class Market:
    """One shard of a scenario."""

    def __init__(self, scenario: Scenario, shard: int) -> None:
        self.scenario = scenario
        self.shard = shard
        ranks = range(shard, scenario.symbols, scenario.shards)
        self.listings = [read_universe()[rank] for rank in ranks]
        weights = (np.array(ranks, dtype=np.float64) + 6.0) ** -1.05
        self._cumulative: Floats = np.cumsum(weights / weights.sum())
        self._log_price: Floats = np.log([listing.price for listing in self.listings])
        sectors = sorted({listing.sector for listing in read_universe()})
        self._sector: Ints = np.array([sectors.index(item.sector) for item in self.listings])
        self._ranks: Ints = np.array(ranks, dtype=np.int64)
        self._sectors = len(sectors)
        self.block = lru_cache(maxsize=8)(self._draw)
        self._lattice = lru_cache(maxsize=64)(self._draw_lattice)

    def _draw(self, number: int) -> Block:
        scenario = self.scenario
        random = np.random.Generator(np.random.PCG64([scenario.seed, self.shard, number, 1]))
        if scenario.batch:
            counts = np.full(BLOCK_FRAMES, scenario.batch, dtype=np.int64)
        else:
            edges = np.cumsum(_SIZE_WEIGHTS)
            counts = 1 + np.minimum(
                np.searchsorted(edges, random.random(BLOCK_FRAMES)), FRAME_TRADES_MAX - 1
            )
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        total = int(bounds[-1])
        symbol = np.minimum(
            np.searchsorted(self._cumulative, random.random(total)), len(self.listings) - 1
        ).astype(np.int64)
        frames = number * BLOCK_FRAMES + np.repeat(np.arange(BLOCK_FRAMES), counts)
        price = self._prices(symbol, frames * scenario.frame_s, random)
        size, condition = _sizes(total, random)
        return Block(number * BLOCK_FRAMES, bounds, symbol, price, size, condition)

    def _prices(
        self, symbol: Ints, at_s: NDArray[np.floating[Any]], random: np.random.Generator
    ) -> Ints:
        log_price = self._log_price[symbol].copy()
        for octave, period in enumerate(PERIODS_S):
            position = at_s / period
            index = np.floor(position).astype(np.int64)
            share = position - index
            share = share * share * (3.0 - 2.0 * share)
            first = int(index[0])
            rows = np.stack(
                [self._lattice(octave, row) for row in range(first, int(index[-1]) + 2)]
            )
            before, after = rows[index - first, symbol], rows[index - first + 1, symbol]
            amplitude = VOLATILITY_PER_ROOT_S * float(np.sqrt(period))
            log_price += amplitude * (before + (after - before) * share)
        cents = np.exp(log_price) * 100.0
        bounce = np.where(random.random(len(symbol)) < BUYER_SHARE, -0.5, 0.5) * np.maximum(
            1.0, cents * 2e-4
        )
        on_tick = np.rint(cents + bounce) * (PRICE_UNITS // 100)
        inside = np.rint((cents + bounce * random.random(len(symbol))) * (PRICE_UNITS / 100))
        price = np.where(random.random(len(symbol)) < SUB_PENNY_SHARE, inside, on_tick)
        return np.maximum(price, 1.0).astype(np.int64)

    def _draw_lattice(self, octave: int, row: int) -> Floats:
        """Values of all the shard's symbols at one lattice point of one octave."""
        random = np.random.Generator(np.random.PCG64([self.scenario.seed, octave, row, 2]))
        market = random.standard_normal()
        sectors = random.standard_normal(self._sectors)
        own = random.standard_normal(len(read_universe()))[self._ranks]
        return MARKET_SHARE * market + SECTOR_SHARE * sectors[self._sector] + OWN_SHARE * own


def _sizes(total: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Sizes and condition codes: three quarters odd lots, 15 % exactly 100, the rest larger."""
    kind = random.random(total)
    odd = 1 + np.floor(99 * random.random(total) ** 2)
    larger = 100 * np.rint(np.exp(0.9 + 0.9 * random.standard_normal(total)))
    size = np.where(
        kind < ODD_LOT_SHARE,
        odd,
        np.where(kind < ODD_LOT_SHARE + HUNDRED_SHARE, 100.0, np.maximum(larger, 200.0)),
    )
    pick = random.random(total)
    odd_codes = np.minimum(np.searchsorted(_ODD_LOT_SHARES, pick), 1)
    round_codes = 2 + np.minimum(np.searchsorted(_ROUND_SHARES, pick), len(CONDITIONS) - 3)
    condition = np.where(kind < ODD_LOT_SHARE, odd_codes, round_codes)
    return size.astype(np.int64), condition.astype(np.int64)
