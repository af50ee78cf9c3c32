"""The live candle: published gold's bar plus the trades that gold does not hold yet.

Published gold names the log position that it covers, so the sum is exact: a trade is either below
that position, then it is in gold's bar, or on the tape kept here. When gold advances, the tape is
cut at the new position and gold's bars take over.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

INTERVALS_S: Final = {"1s": 1, "1m": 60, "5m": 300, "1h": 3600}
"""Bars that have a live end; day bars follow rules of their own and come from gold alone."""
TAPE_MAX: Final = 50_000
"""Trades of one symbol kept while gold is behind; more, and the live bar waits for gold."""
BUCKETS_MAX: Final = 400

TickKey = tuple[int, int, str, int, int]
"""Order of trades as in gold: event time, received time, session, message number, index."""


class Taped(NamedTuple):
    """A trade with its log position and its place in the order of trades."""

    part: int
    offset: int
    key: TickKey
    price: float
    size: float
    counts_volume: bool
    sets_price: bool


class Bar(msgspec.Struct, frozen=True):
    """A bar: start in UNIX seconds UTC; prices are None where no trade may set them."""

    start_s: int
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float
    count: int


class GoldBars(msgspec.Struct, frozen=True):
    """Gold's bars of a symbol and interval that start at `since_s` (UNIX seconds) or later."""

    since_s: int
    bars: list[Bar]


class _Sum(msgspec.Struct):
    """A bar that grows by trades in any order."""

    volume: float = 0.0
    count: int = 0
    open: float | None = None
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0
    first: TickKey | None = None
    last: TickKey | None = None

    def add(self, trade: Taped) -> None:
        if trade.counts_volume:
            self.volume += trade.size
            self.count += 1
        if not trade.sets_price:
            return
        price, key = trade.price, trade.key
        if self.first is None or self.last is None:
            self.open = self.high = self.low = self.close = price
            self.first = self.last = key
            return
        if key < self.first:
            self.open, self.first = price, key
        if key >= self.last:
            self.close, self.last = price, key
        self.high = max(self.high, price)
        self.low = min(self.low, price)

    def bar(self, start_s: int) -> Bar:
        if self.first is None:
            return Bar(start_s, None, None, None, None, self.volume, self.count)
        return Bar(start_s, self.open, self.high, self.low, self.close, self.volume, self.count)


class LiveBars:
    """Bars of one symbol and interval: gold's, and the trades since.

    Args:
        interval_s: length of a bar in seconds.
    """

    def __init__(self, interval_s: int) -> None:
        self.interval_s = interval_s
        self._gold: dict[int, Bar] = {}
        self._fresh: dict[int, _Sum] = {}
        self._seen: dict[int, _Sum] = {}
        self._changed: set[int] = set()
        self.missed: set[int] = set()
        self.is_seeded = False

    def bucket(self, key: TickKey) -> int:
        """Start of the bar that a trade belongs to, UNIX seconds UTC."""
        return key[0] // 1000 // self.interval_s * self.interval_s

    def add(self, trade: Taped) -> None:
        """Count a trade that gold does not hold."""
        start_s = self.bucket(trade.key)
        self._fresh.setdefault(start_s, _Sum()).add(trade)
        self._seen.setdefault(start_s, _Sum()).add(trade)
        self._changed.add(start_s)

    def rebase(self, gold: "GoldBars | None", cut: Iterable[Taped], tape: Iterable[Taped]) -> None:
        """Take gold's bars of a newer version, and what is left of the tape after it.

        Args:
            gold: what gold answered; None if it was not asked.
            cut: trades of the tape that gold holds now.
            tape: the others.
        """
        self.missed.update(self.bucket(trade.key) for trade in cut)
        if gold is not None:
            self.is_seeded = True
            self.missed = {start_s for start_s in self.missed if start_s < gold.since_s}
            for bar in gold.bars:
                self._gold[bar.start_s] = bar
                self._changed.add(bar.start_s)
        self._fresh = {}
        for trade in tape:
            self._fresh.setdefault(self.bucket(trade.key), _Sum()).add(trade)
        _keep_newest(self._gold)
        _keep_newest(self._seen)

    def take_changed(self) -> list[Bar]:
        """Bars that changed since the last call, oldest first; none before gold was asked."""
        if not self.is_seeded:
            return []
        bars = [self.bar(start_s) for start_s in sorted(self._changed)]
        self._changed.clear()
        return [bar for bar in bars if bar is not None]

    def newest(self, count: int) -> list[Bar]:
        """The newest bars known, oldest first."""
        starts = sorted(self._gold.keys() | self._fresh.keys())[-count:]
        return [bar for bar in map(self.bar, starts) if bar is not None]

    def bar(self, start_s: int) -> Bar | None:
        """One bar as of now."""
        gold, fresh = self._gold.get(start_s), self._fresh.get(start_s)
        if fresh is None:
            return gold
        if gold is None:
            return fresh.bar(start_s)
        seen = self._seen.get(start_s)
        if seen is not None and seen.count == gold.count + fresh.count:
            return seen.bar(start_s)
        return _joined(gold, fresh, seen)


def _joined(gold: Bar, fresh: _Sum, seen: _Sum | None) -> Bar:
    """Gold's bar went on after we began to watch: later trades close it, gold opened it."""
    volume, count = gold.volume + fresh.volume, gold.count + fresh.count
    if fresh.first is None:
        return msgspec.structs.replace(gold, volume=volume, count=count)
    if gold.open is None or gold.high is None or gold.low is None:
        return msgspec.structs.replace(fresh.bar(gold.start_s), volume=volume, count=count)
    closes = seen is None or seen.last is None or fresh.last == seen.last
    return Bar(
        gold.start_s,
        gold.open,
        max(gold.high, fresh.high),
        min(gold.low, fresh.low),
        fresh.close if closes else gold.close,
        volume,
        count,
    )


def _keep_newest(bars: dict[int, Bar] | dict[int, _Sum]) -> None:
    for start_s in sorted(bars)[:-BUCKETS_MAX]:
        del bars[start_s]


class SymbolTape:
    """The trades of one watched symbol since published gold, and the live bars made of them."""

    def __init__(self) -> None:
        self.bars: dict[str, LiveBars] = {}
        self._trades: list[Taped] = []
        self._holes: dict[int, int] = {}
        self._positions: Mapping[int, int] = {}

    def watch(self, interval: str) -> LiveBars:
        """The live bars of an interval, made at the first call."""
        if interval not in self.bars:
            bars = LiveBars(INTERVALS_S[interval])
            for trade in self._trades:
                bars.add(trade)
            self.bars[interval] = bars
        return self.bars[interval]

    def add(self, trade: Taped) -> None:
        """Count one trade, unless gold holds it already: then gold has to be asked."""
        if _is_below(trade, self._positions):
            for bars in self.bars.values():
                bars.missed.add(bars.bucket(trade.key))
            return
        if len(self._trades) >= TAPE_MAX:
            self._shed()
        self._trades.append(trade)
        for bars in self.bars.values():
            bars.add(trade)

    def _shed(self) -> None:
        half = TAPE_MAX // 2
        for trade in self._trades[:half]:
            self.leave_hole(trade.part, trade.offset + 1)
        del self._trades[:half]

    def leave_hole(self, part: int, before: int) -> None:
        """Trades below offset `before` were not read; only gold will tell of them."""
        self._holes[part] = max(before, self._holes.get(part, 0))

    def is_whole(self, positions: Mapping[int, int]) -> bool:
        """Whether gold at `positions` and the tape hold every trade between them."""
        return all(positions.get(part, 0) >= before for part, before in self._holes.items())

    def is_asking(self, interval: str) -> bool:
        """Whether gold has to be asked even if it has not moved."""
        bars = self.bars[interval]
        return not bars.is_seeded or bool(bars.missed)

    def needs_since(self, positions: Mapping[int, int], interval: str) -> int | None:
        """From which bar on (UNIX seconds) gold at `positions` may differ from ours; None: none.

        It differs where trades of the tape moved into gold, and anywhere lately if we missed some.
        """
        bars = self.bars[interval]
        touched = bars.missed | {
            bars.bucket(trade.key) for trade in self._trades if _is_below(trade, positions)
        }
        newest = bars.newest(1)
        if self._holes and newest:
            touched.add(newest[0].start_s - BUCKETS_MAX // 2 * bars.interval_s)
        if not touched:
            return None
        return max(min(touched), max(touched) - BUCKETS_MAX * bars.interval_s)

    def rebase(self, positions: Mapping[int, int], gold: Mapping[str, GoldBars]) -> None:
        """Cut the tape at gold's new positions and take gold's bars, by interval."""
        cut = [trade for trade in self._trades if _is_below(trade, positions)]
        self._trades = [trade for trade in self._trades if not _is_below(trade, positions)]
        self._positions = positions
        for interval, bars in self.bars.items():
            bars.rebase(gold.get(interval), cut, self._trades)
        self._holes = {
            part: before for part, before in self._holes.items() if positions.get(part, 0) < before
        }


def _is_below(trade: Taped, positions: Mapping[int, int]) -> bool:
    return trade.offset < positions.get(trade.part, 0)
