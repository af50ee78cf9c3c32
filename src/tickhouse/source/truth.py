"""The simulator's truth: what a warehouse must hold, known without looking at it.

The ledger (`<data>/truth.json`) says for each simulated feed how many frames of each shard the
recorder has acknowledged, and per symbol the count, shares and dollars in them. It is a witness of
what was acknowledged, up to a second behind the log after a kill, never ahead of it. The sums need
not be believed: `recompute` derives them from the feed's address and the cursors alone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from tickhouse.errors import ConfigError
from tickhouse.source.simulator.feed import read_address
from tickhouse.source.simulator.market import Block, Ints, Market
from tickhouse.source.simulator.scenario import GENERATOR
from tickhouse.telemetry import failpoint, get_logger, write_json_atomically

LEDGER_VERSION: Final = 1
WRITE_INTERVAL_S: Final = 1.0
STEP_BLOCKS_MAX: Final = 64
"""Blocks added in one acknowledgement, which must not hold up the recorder."""
PRICE_EXPONENT: Final = -4

_log = get_logger("record")


class SymbolTruth(msgspec.Struct, frozen=True):
    """Sums of one symbol.

    Attributes:
        trades: count.
        shares: sum of sizes.
        dollars: sum of price times size, exact.
        first, last: numbers of the first and the last frame, on its shard, that hold the symbol.
    """

    trades: int
    shares: int
    dollars: Decimal
    first: int
    last: int


class Truth(msgspec.Struct, frozen=True):
    """What some frames of one simulated feed hold.

    Attributes:
        feed: the feed's address, as in its `opened` events.
        generator: version of the simulator that made the frames.
        acknowledged: per shard, the number after the last frame counted.
        symbols: sums of each symbol that traded.
    """

    feed: str
    generator: int
    acknowledged: dict[int, int]
    symbols: dict[str, SymbolTruth]


class TruthLedger(msgspec.Struct, frozen=True):
    """The ledger's content: one truth a feed, by address."""

    v: int
    feeds: dict[str, Truth]


class Totals:
    """Exact sums over consecutive frames of each shard, moved forward block by block."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self.cursors = dict.fromkeys(range(len(markets)), 0)
        self._markets = markets
        self._sums = [_ShardSums(len(market.listings)) for market in markets]

    def start(self, truth: Truth) -> None:
        """Go on from sums known already."""
        self.cursors.update(truth.acknowledged)
        for market, sums in zip(self._markets, self._sums, strict=True):
            for column, listing in enumerate(market.listings):
                known = truth.symbols.get(listing.symbol)
                if known is not None:
                    sums.start(column, known)

    def advance(self, shard: int, cursor: int, *, blocks_max: int | None = None) -> None:
        """Add the frames of a shard below `cursor` that are not in yet, at most so many blocks."""
        market = self._markets[shard]
        while (start := self.cursors[shard]) < cursor and blocks_max != 0:
            block = market.block_of(start)
            end = min(cursor, block.end)
            self._sums[shard].add(block, start, end)
            self.cursors[shard] = end
            blocks_max = None if blocks_max is None else blocks_max - 1

    def truth(self, feed: str) -> Truth:
        """The sums so far."""
        symbols = {
            listing.symbol: truth
            for market, sums in zip(self._markets, self._sums, strict=True)
            for column, listing in enumerate(market.listings)
            if (truth := sums.truth(column)) is not None
        }
        return Truth(feed, GENERATOR, dict(self.cursors), symbols)


class _ShardSums:
    """Sums of one shard's symbols; integers of any size, a block's part of them in 64 bits."""

    def __init__(self, symbols: int) -> None:
        self._symbols = symbols
        self._trades, self._shares, self._units = ([0] * symbols for _ in range(3))
        self._first, self._last = ([-1] * symbols for _ in range(2))

    def start(self, column: int, known: SymbolTruth) -> None:
        self._trades[column] = known.trades
        self._shares[column] = known.shares
        self._units[column] = int(known.dollars.scaleb(-PRICE_EXPONENT))
        self._first[column] = known.first
        self._last[column] = known.last

    def add(self, block: Block, start: int, end: int) -> None:
        bounds = block.bounds[start - block.first : end - block.first + 1]
        trades = slice(int(bounds[0]), int(bounds[-1]))
        symbol, size = block.symbol[trades], block.size[trades]
        frame = np.repeat(np.arange(start, end), np.diff(bounds))
        first, last = (np.full(self._symbols, -1, dtype=np.int64) for _ in range(2))
        last[symbol] = frame
        first[symbol[::-1]] = frame[::-1]
        counts = np.bincount(symbol, minlength=self._symbols)
        shares = self._sum(symbol, size)
        units = self._sum(symbol, block.price[trades] * size)
        for column in np.flatnonzero(counts).tolist():
            self._trades[column] += int(counts[column])
            self._shares[column] += int(shares[column])
            self._units[column] += int(units[column])
            self._last[column] = int(last[column])
            if self._first[column] < 0:
                self._first[column] = int(first[column])

    def _sum(self, symbol: Ints, values: Ints) -> Ints:
        sums = np.zeros(self._symbols, dtype=np.int64)
        np.add.at(sums, symbol, values)
        return sums

    def truth(self, column: int) -> SymbolTruth | None:
        if not self._trades[column]:
            return None
        return SymbolTruth(
            self._trades[column],
            self._shares[column],
            Decimal(self._units[column]).scaleb(PRICE_EXPONENT),
            self._first[column],
            self._last[column],
        )


class TruthKeeper:
    """Keeps the ledger file while frames are acknowledged; a simulator's witness.

    What the file knows of other feeds stays in it; what it knows of this one is gone on from.

    Args:
        path: the ledger.
        markets: the feed's, one a shard.
        feed: the feed's address.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        markets: Sequence[Market],
        *,
        feed: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._feed = feed
        self._clock = clock
        self._written_at = -WRITE_INTERVAL_S
        self._acknowledged: dict[int, int] = {}
        self._totals = Totals(markets)
        self._feeds = self._read_feeds()
        known = self._feeds.get(feed)
        if known is not None and known.generator == GENERATOR:
            self._totals.start(known)

    def _read_feeds(self) -> dict[str, Truth]:
        if not self._path.exists():
            return {}
        try:
            return dict(read_truth(self._path).feeds)
        except ConfigError as error:
            aside = self._path.with_name(f"{self._path.stem}.{time.time_ns()}.broken")
            self._path.rename(aside)
            _log.exception("truth_ledger_set_aside", error=str(error), moved_to=str(aside))
            return {}

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Count what is durable now; the file is written about once a second."""
        self._acknowledged[shard] = cursor
        self._totals.advance(shard, cursor, blocks_max=STEP_BLOCKS_MAX)
        if self._clock() - self._written_at >= WRITE_INTERVAL_S:
            self._write(durable=False)

    def close(self) -> None:
        """Count the rest and write the file."""
        for shard, cursor in self._acknowledged.items():
            self._totals.advance(shard, cursor)
        self._write(durable=True)

    def _write(self, *, durable: bool) -> None:
        self._written_at = self._clock()
        self._feeds[self._feed] = self._totals.truth(self._feed)
        failpoint("record.truth.before")
        write_json_atomically(self._path, TruthLedger(LEDGER_VERSION, self._feeds), durable=durable)
        failpoint("record.truth.after")


def read_truth(path: Path) -> TruthLedger:
    """Read a ledger.

    Raises:
        ConfigError: missing, not a ledger, or of another version.
    """
    try:
        ledger = msgspec.json.decode(path.read_bytes(), type=TruthLedger)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no truth ledger there; the simulator writes one") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not a truth ledger: {error}") from error
    if ledger.v != LEDGER_VERSION:
        raise ConfigError(f"{path}: truth ledger of version {ledger.v}, not {LEDGER_VERSION}")
    return ledger


def recompute(
    source_url: str, cursors: Mapping[int, int], *, since: Mapping[int, int] | None = None
) -> Truth:
    """What the frames `since[shard] .. cursors[shard]` of each shard hold, from the seed alone.

    Args:
        source_url: the feed's address, as in its `opened` events or as a user writes it.
        cursors: per shard, the number after the last frame; shards left out count as 0.
        since: per shard, the first frame counted; 0 where left out.

    Raises:
        ConfigError: not a simulator's address, or a shard that it does not have.
    """
    scheme, _, rest = source_url.partition("://")
    if scheme != "sim":
        raise ConfigError(f"truth: {source_url!r} is not a simulator's address (sim://…)")
    scenario, _ = read_address(rest)
    beyond = sorted(set(cursors) - set(range(scenario.shards)))
    if beyond:
        raise ConfigError(f"truth: {source_url!r} has {scenario.shards} shards; asked for {beyond}")
    totals = Totals([Market(scenario, shard) for shard in range(scenario.shards)])
    totals.cursors.update(since or {})
    for shard, cursor in cursors.items():
        totals.advance(shard, cursor)
    return totals.truth(source_url)
