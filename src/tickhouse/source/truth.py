"""The simulator's truth: what a warehouse must hold, known without looking at it.

The ledger (`<data>/truth.json`) says for each simulated feed how many frames of each shard the
recorder has acknowledged, per symbol the count, shares and dollars of the trades in them, how many
prints in them are none (by reason), and how often each fault struck. It is a witness of what was
acknowledged, up to a second behind the log after a kill, never ahead of it. The sums need not be
believed: `recompute` derives them from the feed's address and the cursors alone.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from tickhouse.errors import ConfigError
from tickhouse.source.simulator.block import Block
from tickhouse.source.simulator.draws import Ints
from tickhouse.source.simulator.faults import (
    DISCONNECTED,
    LATE_US_MIN,
    NO_PRICE,
    REPEATED,
    REVERSED,
)
from tickhouse.source.simulator.feed import open_markets, read_address
from tickhouse.source.simulator.market import Market
from tickhouse.source.simulator.scenario import GENERATOR
from tickhouse.telemetry import failpoint, get_logger, write_json_atomically

LEDGER_VERSION: Final = 1
WRITE_INTERVAL_S: Final = 1.0
STEP_BLOCKS_MAX: Final = 16
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
        rejects: prints that must not become trades, by silver's reason.
        faults: how often each fault struck: prints `late`, frames `out_of_order` and
            `double_delivery`, and `disconnect`s before a frame.
    """

    feed: str
    generator: int
    acknowledged: dict[int, int]
    symbols: dict[str, SymbolTruth]
    rejects: dict[str, int] = {}
    faults: dict[str, int] = {}


class TruthLedger(msgspec.Struct, frozen=True):
    """The ledger's content: one truth a feed, by address."""

    v: int
    feeds: dict[str, Truth]


class Totals:
    """Exact sums over consecutive frames of each shard, moved forward block by block."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self.cursors = dict.fromkeys(range(len(markets)), 0)
        self._markets = markets
        self._sums = [_ShardSums(len(market.symbols)) for market in markets]
        self._rejects: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    def start(self, truth: Truth) -> None:
        """Go on from sums known already."""
        self.cursors.update(truth.acknowledged)
        self._rejects.update(truth.rejects)
        self._faults.update(truth.faults)
        for market, sums in zip(self._markets, self._sums, strict=True):
            for column, symbol in enumerate(market.symbols):
                known = truth.symbols.get(symbol)
                if known is not None:
                    sums.start(column, known)

    def advance(self, shard: int, cursor: int, *, blocks_max: int | None = None) -> None:
        """Add the frames of a shard below `cursor` that are not in yet, at most so many blocks."""
        market = self._markets[shard]
        while (start := self.cursors[shard]) < cursor and blocks_max != 0:
            block = market.block_of(start)
            if block is None:
                break
            end = min(cursor, block.end)
            self._sums[shard].add(block, start, end)
            self._rejects.update(count_rejects(block, start, end))
            self._faults.update(count_faults(block, start, end))
            self.cursors[shard] = end
            blocks_max = None if blocks_max is None else blocks_max - 1

    def truth(self, feed: str) -> Truth:
        """The sums so far."""
        symbols = {
            symbol: truth
            for market, sums in zip(self._markets, self._sums, strict=True)
            for column, symbol in enumerate(market.symbols)
            if (truth := sums.truth(column)) is not None
        }
        rejects, faults = (dict(sorted(each.items())) for each in (self._rejects, self._faults))
        return Truth(feed, GENERATOR, dict(self.cursors), symbols, rejects, faults)


def count_rejects(block: Block, start: int, end: int) -> dict[str, int]:
    """Prints of the frames `start .. end` of a block that are no trades, by reason."""
    trades = block.trades(start, end)
    price, size = block.price[trades], block.size[trades]
    counts = {
        "missing_price": int(np.count_nonzero(price == NO_PRICE)),
        "bad_price": int(np.count_nonzero(price == 0)),
        "zero_size": int(np.count_nonzero((price > 0) & (size == 0))),
    }
    return {reason: count for reason, count in counts.items() if count}


def count_faults(block: Block, start: int, end: int) -> dict[str, int]:
    """Faults of the frames `start .. end` of a block that change no trade."""
    flags = block.frame_faults[start - block.first : end - block.first]
    due_ms = np.repeat(
        block.due_us[start - block.first : end - block.first] // 1000,
        np.diff(block.bounds[start - block.first : end - block.first + 1]),
    )
    wait_ms = due_ms - block.event_ms[block.trades(start, end)]
    counts = {
        "late": int(np.count_nonzero(wait_ms >= LATE_US_MIN // 1000)),
        "out_of_order": int(np.count_nonzero(flags & REVERSED)),
        "double_delivery": int(np.count_nonzero(flags & REPEATED)),
        "disconnect": int(np.count_nonzero(flags & DISCONNECTED)),
    }
    return {fault: count for fault, count in counts.items() if count}


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
        frame = np.repeat(np.arange(start, end), np.diff(bounds))
        trades = block.trades(start, end)
        symbol, size, price = block.symbol[trades], block.size[trades], block.price[trades]
        is_trade = (price > 0) & (size > 0)
        if not is_trade.all():
            symbol, size, price, frame = (each[is_trade] for each in (symbol, size, price, frame))
        first, last = (np.full(self._symbols, -1, dtype=np.int64) for _ in range(2))
        last[symbol] = frame
        first[symbol[::-1]] = frame[::-1]
        counts = np.bincount(symbol, minlength=self._symbols)
        shares = self._sum(symbol, size)
        units = self._sum(symbol, price * size)
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
    scenario, delivery = read_address(rest)
    beyond = sorted(set(cursors) - set(range(scenario.shards)))
    if beyond:
        raise ConfigError(f"truth: {source_url!r} has {scenario.shards} shards; asked for {beyond}")
    totals = Totals(open_markets(scenario, delivery))
    totals.cursors.update(since or {})
    for shard, cursor in cursors.items():
        totals.advance(shard, cursor)
    return totals.truth(source_url)
