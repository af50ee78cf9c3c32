"""The watched candles: which symbols and intervals viewers look at, and their bars as of now."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tickhouse.dashboard.conditions import Conditions
from tickhouse.dashboard.live_bars import INTERVALS_S, Bar, SymbolTape, Taped
from tickhouse.dashboard.prints import TradeFrame, is_trade, read_trades
from tickhouse.dashboard.queries import GoldQueries
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.symbols import is_symbol
from tickhouse.stream.log import LogReader

SCAN_S_MAX: Final = 0.3
"""Time to re-read the log between gold and now for a newly watched symbol; more, and gold tells."""
SCAN_BYTES: Final = 4 << 20
SEED_BARS: Final = 120


def parse_channel(channel: str) -> tuple[str, str] | None:
    """Symbol and interval of a bars channel; None if it is none.

    >>> parse_channel("bars:BINANCE:BTCUSDT:1m")
    ('BINANCE:BTCUSDT', '1m')
    """
    kind, _, rest = channel.partition(":")
    symbol, _, interval = rest.rpartition(":")
    if kind != "bars" or interval not in INTERVALS_S or not is_symbol(symbol):
        return None
    return symbol, interval


class LiveCandles:
    """Tapes of all watched symbols. One thread calls everything here.

    Args:
        log: the log, to re-read the little that lies between gold and now.
        gold: published gold.
        conditions: rules of gold's bars.
        monotonic: seconds, for the budget of re-reading.
    """

    def __init__(
        self,
        log: LogReader,
        gold: GoldQueries,
        conditions: Conditions,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._gold = gold
        self._conditions = conditions
        self._monotonic = monotonic
        self.tapes: dict[str, SymbolTape] = {}

    def take(self, part: int, offset: int, frame: TradeFrame) -> None:
        """Count the trades of a frame that are watched."""
        for index, trade in enumerate(frame.prints):
            tape = self.tapes.get(trade.s)
            if tape is not None:
                self._put(tape, part, offset, frame, index)

    def _put(self, tape: SymbolTape, part: int, offset: int, frame: TradeFrame, index: int) -> None:
        trade = frame.prints[index]
        if not is_trade(trade):
            return
        counts = self._conditions.flags(trade.c).counts_volume
        sets = self._conditions.sets_price(trade.s, trade.c, trade.t)
        if counts or sets:
            key = (trade.t, frame.rx // 1000, frame.ses, frame.seq, index)
            tape.add(Taped(part, offset, key, trade.p, trade.v, counts, sets))

    def watch(
        self,
        symbol: str,
        interval: str,
        *,
        gold_positions: Mapping[int, int],
        read_to: Mapping[int, int],
    ) -> list[Bar]:
        """Begin to watch (or go on), and tell the newest bars.

        Args:
            symbol: what to watch.
            interval: one of `INTERVALS_S`.
            gold_positions: trade offset by partition that published gold covers.
            read_to: trade offset by partition that `take` has been given.
        """
        tape = self.tapes.get(symbol)
        if tape is None:
            tape = self.tapes[symbol] = SymbolTape()
            for part, position in read_to.items():
                self._reread(symbol, tape, part, gold_positions.get(part, 0), position)
        is_new = interval not in tape.bars
        bars = tape.watch(interval)
        if is_new:
            since_s = {symbol: self._gold.newest_start_s(symbol, interval, SEED_BARS)}
            gold = self._gold.bars_since(interval, since_s).get(symbol, [])
            tape.rebase(gold_positions, {interval: gold})
            bars.take_changed()
        return bars.newest(SEED_BARS)

    def leave(self, symbol: str, interval: str) -> None:
        """Watch an interval no longer; without intervals the symbol's tape goes too."""
        tape = self.tapes.get(symbol)
        if tape is not None:
            tape.bars.pop(interval, None)
            if not tape.bars:
                del self.tapes[symbol]

    def forget_log(self) -> None:
        """The log is another one: its offsets mean nothing any more."""
        for symbol, tape in self.tapes.items():
            self.tapes[symbol] = SymbolTape()
            for interval in tape.bars:
                self.tapes[symbol].watch(interval)

    def leave_hole(self, part: int, before: int) -> None:
        """Trades of a partition below `before` were skipped."""
        for tape in self.tapes.values():
            tape.leave_hole(part, before)

    def gold_bars(self, positions: Mapping[int, int]) -> dict[str, dict[str, list[Bar]]]:
        """Gold's bars that changed up to `positions`, as far as they are watched.

        Returns:
            Bars by symbol and interval.
        """
        wanted: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for symbol, tape in self.tapes.items():
            for interval in tape.bars:
                since_s = tape.needs_since(positions, interval)
                if since_s is not None:
                    wanted[interval][symbol] = since_s
        found: defaultdict[str, dict[str, list[Bar]]] = defaultdict(dict)
        for interval, since in wanted.items():
            for symbol, bars in self._gold.bars_since(interval, since).items():
                found[symbol][interval] = bars
        return found

    def rebase(
        self, positions: Mapping[int, int], gold: Mapping[str, Mapping[str, Iterable[Bar]]]
    ) -> None:
        """Cut the tapes at gold's new positions and take its bars."""
        for symbol, tape in self.tapes.items():
            tape.rebase(positions, gold.get(symbol, {}))

    def _reread(self, symbol: str, tape: SymbolTape, part: int, start: int, end: int) -> None:
        """Put on the tape what `take` was given of this symbol before it was watched."""
        partition = TopicPartition(Stream.TRADES, part)
        wanted = re.split("[:/]", symbol)[-1].encode() + b'"'
        deadline = self._monotonic() + SCAN_S_MAX
        while start < end:
            batch = self._log.read(partition, start, bytes_max=SCAN_BYTES)
            if batch is None or batch.trimmed or self._monotonic() >= deadline:
                tape.leave_hole(part, end)
                return
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                if offset >= end:
                    return
                frame = read_trades(value) if wanted in value else None
                for index, trade in enumerate(frame.prints if frame is not None else ()):
                    if frame is not None and trade.s == symbol:
                        self._put(tape, part, offset, frame, index)
            start = batch.next
