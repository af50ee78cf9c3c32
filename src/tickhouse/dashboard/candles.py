"""The watched candles: which symbols and intervals viewers look at, and their bars as of now."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from tickhouse.dashboard.conditions import Conditions
from tickhouse.dashboard.live_bars import INTERVALS_S, GoldBars, LiveBars, SymbolTape, Taped
from tickhouse.dashboard.prints import TradeFrame, is_trade, read_trades
from tickhouse.dashboard.queries import Questions
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.symbols import is_symbol
from tickhouse.stream.log import LogReader

SCAN_S_MAX: Final = 0.3
"""Time to re-read the log between gold and now for a newly watched symbol; more, and gold tells."""
SCAN_BYTES: Final = 4 << 20


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
        conditions: rules of gold's bars.
        monotonic: seconds, for the budget of re-reading.
    """

    def __init__(
        self,
        log: LogReader,
        conditions: Conditions,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
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
    ) -> LiveBars:
        """Begin to watch, or go on.

        Args:
            symbol: what to watch.
            interval: one of `INTERVALS_S`.
            gold_positions: trade offset by partition that published gold covers.
            read_to: trade offset by partition that `take` has been given.
        """
        tape = self.tapes.get(symbol)
        if tape is None:
            tape = self.tapes[symbol] = SymbolTape()
            tape.rebase(gold_positions, {})
            for part, position in read_to.items():
                self._reread(symbol, tape, part, gold_positions.get(part, 0), position)
        return tape.watch(interval)

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

    def is_asking(self) -> bool:
        """Whether gold has to be asked even if it has not moved."""
        return any(
            tape.is_asking(interval) for tape in self.tapes.values() for interval in tape.bars
        )

    def questions(self, positions: Mapping[int, int]) -> Questions:
        """What gold at `positions` has to be asked: since when, or None for the newest bars."""
        found: Questions = {}
        for symbol, tape in self.tapes.items():
            for interval, bars in tape.bars.items():
                since_s = tape.needs_since(positions, interval) if bars.is_seeded else None
                if since_s is not None or not bars.is_seeded:
                    found.setdefault(interval, {})[symbol] = since_s
        return found

    def rebase(
        self, positions: Mapping[int, int], gold: Mapping[str, Mapping[str, GoldBars]]
    ) -> None:
        """Cut the tapes at gold's new positions and take its bars, by symbol and interval."""
        for symbol, tape in self.tapes.items():
            tape.rebase(positions, gold.get(symbol, {}))

    def go_without_gold(self) -> None:
        """There is no gold yet: what was read of the log is all there is."""
        for tape in self.tapes.values():
            for bars in tape.bars.values():
                bars.is_seeded = True

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
