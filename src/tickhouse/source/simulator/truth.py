"""The simulator's truth: what a warehouse must hold, known without looking at it.

The ledger (`<data>/truth.json`) names the scenario, how many frames of each shard were
acknowledged, and per symbol the count, shares, dollars, first and last frame among those. The sums
can be computed anew from the scenario alone, so the ledger is a witness of what was acknowledged,
not a source.
"""

import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from tickhouse.errors import ConfigError
from tickhouse.source.simulator.market import BLOCK_FRAMES, PRICE_UNITS, Market, Scenario
from tickhouse.telemetry import write_json_atomically

WRITE_INTERVAL_S: Final = 1.0


class SymbolTruth(msgspec.Struct):
    """Sums of one symbol over acknowledged frames.

    Attributes:
        trades: count.
        shares: sum of sizes.
        dollars: sum of price times size, exact.
        first, last: numbers of the first and last frame that hold the symbol, on its shard.
    """

    trades: int = 0
    shares: int = 0
    dollars: Decimal = Decimal(0)
    first: int = -1
    last: int = -1


class Truth(msgspec.Struct, frozen=True):
    """The ledger's content."""

    feed: str
    scenario: Scenario
    acknowledged: list[int]
    symbols: dict[str, SymbolTruth]


class Totals:
    """Sums over the first frames of each shard, moved forward frame by frame."""

    def __init__(self, scenario: Scenario, markets: list[Market]) -> None:
        self.scenario = scenario
        self.cursors = [0] * scenario.shards
        self._markets = markets
        self._sums = [np.zeros((5, len(market.listings)), dtype=np.int64) for market in markets]
        for sums in self._sums:
            sums[3:] = -1

    def advance(self, shard: int, cursor: int) -> None:
        """Add the frames of a shard below `cursor` that are not yet in."""
        while (start := self.cursors[shard]) < cursor:
            block = self._markets[shard].block(start // BLOCK_FRAMES)
            end = min(cursor, block.first + BLOCK_FRAMES)
            self._add(shard, block.first, start, end)
            self.cursors[shard] = end

    def _add(self, shard: int, first: int, start: int, end: int) -> None:
        block = self._markets[shard].block(first // BLOCK_FRAMES)
        bounds = block.bounds[start - first : end - first + 1]
        trades = slice(int(bounds[0]), int(bounds[-1]))
        symbol, size = block.symbol[trades], block.size[trades]
        frames = np.repeat(np.arange(start, end), np.diff(bounds))
        sums = self._sums[shard]
        np.add.at(sums[0], symbol, 1)
        np.add.at(sums[1], symbol, size)
        np.add.at(sums[2], symbol, block.price[trades] * size)
        np.maximum.at(sums[4], symbol, frames)
        unseen = np.where(sums[3] < 0, np.iinfo(np.int64).max, sums[3])
        np.minimum.at(unseen, symbol, frames)
        sums[3] = np.where(unseen == np.iinfo(np.int64).max, -1, unseen)

    def by_symbol(self) -> dict[str, SymbolTruth]:
        """Sums of every symbol that traded."""
        return {
            listing.symbol: SymbolTruth(
                trades=int(sums[0, column]),
                shares=int(sums[1, column]),
                dollars=Decimal(int(sums[2, column])) / PRICE_UNITS,
                first=int(sums[3, column]),
                last=int(sums[4, column]),
            )
            for market, sums in zip(self._markets, self._sums, strict=True)
            for column, listing in enumerate(market.listings)
            if sums[0, column]
        }


class TruthLedger:
    """Keeps the ledger file while frames are acknowledged.

    Args:
        path: the ledger.
        feed: the feed's URL.
        scenario: what is simulated.
        markets: one a shard.
    """

    def __init__(self, path: Path, feed: str, scenario: Scenario, markets: list[Market]) -> None:
        self._path = path
        self._feed = feed
        self._totals = Totals(scenario, markets)
        self._written_at = 0.0

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Count what is durable now; written about once a second."""
        self._totals.advance(shard, cursor)
        if time.monotonic() - self._written_at > WRITE_INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Replace the file."""
        self._written_at = time.monotonic()
        totals = self._totals
        truth = Truth(self._feed, totals.scenario, list(totals.cursors), totals.by_symbol())
        write_json_atomically(self._path, truth)


def read_truth(path: Path) -> Truth:
    """Read a ledger.

    Raises:
        ConfigError: missing or not a ledger.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Truth)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no truth ledger there; the simulator writes one") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not a truth ledger: {error}") from error


def recompute(scenario: Scenario, cursors: Mapping[int, int]) -> dict[str, SymbolTruth]:
    """The sums of the first `cursors[shard]` frames of each shard, from the scenario alone."""
    markets = [Market(scenario, shard) for shard in range(scenario.shards)]
    totals = Totals(scenario, markets)
    for shard, cursor in cursors.items():
        totals.advance(shard, cursor)
    return totals.by_symbol()
