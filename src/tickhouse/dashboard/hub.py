"""The hub: one thread that follows log and gold and tells the viewers, four times a second.

It decodes new frames within a fixed part of each tick, so that it can neither melt the machine nor
hold up a viewer; where that is not enough it skips ahead (see `tail`) and says so.
"""

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from tickhouse.dashboard.asking import GoldAsker
from tickhouse.dashboard.candles import LiveCandles, parse_channel
from tickhouse.dashboard.conditions import Conditions
from tickhouse.dashboard.feed_state import FeedState
from tickhouse.dashboard.live_bars import INTERVALS_S, Bar
from tickhouse.dashboard.prints import TradeFrame, is_trade, read_trades
from tickhouse.dashboard.queries import SEED_BARS, GoldVersion, Questions
from tickhouse.dashboard.tail import Chunk, LogTail
from tickhouse.dashboard.universe import Universe
from tickhouse.errors import TickhouseError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import LogReader
from tickhouse.telemetry import get_logger

TICK_S: Final = 0.25
BUDGET_S: Final = 0.08
"""Time a tick may spend on decoding: about a third of one core at the very most."""
SECOND_S: Final = 1.0
START_RECORDS_MAX: Final = 20_000
RECENT_MS: Final = 2_000
"""Older records are a backlog and not counted in the trades a second."""
FINAL_AFTER_MS: Final = 30_000
"""A bar is called final when trades this much later have been seen (venues have 10 s to report)."""
CHANNELS: Final = frozenset({"market", "kpi", "pipeline"})

Send = Callable[[str, bytes], None]

log = get_logger("serve")


def is_channel(channel: str) -> bool:
    """Whether viewers may subscribe to `channel`."""
    return channel in CHANNELS or parse_channel(channel) is not None


class Hub:
    """Live state of market, feed and watched candles; `tick` is one turn of its thread.

    Args:
        reader: the log to follow; its writer is never blocked.
        gold: asks published gold.
        conditions: rules of gold's bars.
        send: takes a channel and an encoded frame, in the hub's thread; "" is every viewer.
        is_watched: whether there are viewers; without any, trades are not decoded.
        clock_ms: wall clock, UNIX milliseconds.
        monotonic: seconds, for budgets and pauses.
    """

    def __init__(
        self,
        reader: LogReader,
        gold: GoldAsker,
        conditions: Conditions,
        *,
        send: Send,
        is_watched: Callable[[], bool] = lambda: True,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = reader
        self._gold = gold
        self._sets_price = conditions.sets_price
        self._send = send
        self._is_watched = is_watched
        self._rests = False
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._tail = LogTail(reader, clock_ms=clock_ms)
        self._candles = LiveCandles(reader, conditions, monotonic=monotonic)
        self._commands: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._sequence: defaultdict[str, int] = defaultdict(int)
        self._second_at = monotonic() - SECOND_S
        self._trades = self._records = self._skipped = 0
        self._watermark_ms = 0
        self._lag_ms: int | None = None
        self._behind = 0
        self._rate = 0.0
        self._tick_at_ms: int | None = None
        self._fault: str | None = None
        self._spent_s = 0.0
        self._run = clock_ms()
        self.universe = Universe()
        self.feed = FeedState()
        self.version: GoldVersion | None = None

    # -- called from any thread --------------------------------------------------------------

    def join(self, channel: str) -> None:
        """A viewer subscribed: the next tick sends the channel's state."""
        self._commands.put(("join", channel))

    def leave(self, channel: str) -> None:
        """The channel's last viewer left."""
        self._commands.put(("leave", channel))

    def snapshot(self) -> dict[str, Any]:
        """The whole market, for a page that begins (or begins anew)."""
        version = self.version
        return {
            "run": self._run,
            "gold": version.version if version is not None else None,
            "kpi": self.universe.kpi(),
            "market": self.universe.columns(),
        }

    def heartbeat(self) -> dict[str, Any]:
        """State of feed, log and gold in a few words: what every viewer is told once a second."""
        version = self.version
        return {
            "op": "hb",
            "run": self._run,
            "ts": self._clock_ms(),
            "tick_ms": self._tick_at_ms,
            "rate": None if self._rests else round(self._rate, 1),
            "badge": self.feed.badge,
            "feed": self.feed.url,
            "connections": self.feed.connections,
            "closed": self.feed.closed_reason,
            "gaps": self.feed.gaps,
            "last_gap": self.feed.last_gap,
            "gold": version.version if version is not None else None,
            "gold_at_ms": version.published_at_ms if version is not None else None,
            "lag_ms": self._lag_ms,
            "behind": self._behind,
            "skipped": self._tail.skipped_records,
            "fault": self._fault or self._gold.fault or self._tail.damage,
        }

    def load(self) -> dict[str, Any]:
        """Facts for the stage's status file."""
        return {
            "trades_per_s": None if self._rests else round(self._rate, 1),
            "skipped_records": self._tail.skipped_records,
            "busy_s": round(self._spent_s, 2),
            "fault": self._fault or self._gold.fault,
        }

    # -- the hub's thread ----------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Tick until stopped; a fault is shown and tried again, it does not end the page."""
        while not stop.is_set():
            began = self._monotonic()
            try:
                self.tick()
                self._fault = None
            except Exception as error:  # the stage's loop: shown, logged, tried again
                if self._fault is None:
                    unplanned = None if isinstance(error, TickhouseError) else error
                    log.warning("hub_fault", error=str(error), exc_info=unplanned)
                self._fault = str(error) or type(error).__name__
                self._send("", msgspec.json.encode(self.heartbeat()))
            self._spent_s += self._monotonic() - began
            stop.wait(max(TICK_S - (self._monotonic() - began), TICK_S / 5))

    def tick(self) -> None:
        """One turn: gold, log, viewers."""
        elapsed_s = self._monotonic() - self._second_at
        is_second = elapsed_s >= SECOND_S
        if is_second:
            self._second_at = self._monotonic()
            self._discover()
        self._rest_or_wake()
        self._take_commands()
        self._take_gold()
        self._follow_log()
        self._send_market()
        self._send_bars()
        if is_second:
            self._measure(elapsed_s)
            self._send_frame("kpi", {"kpi": self.universe.kpi()})
            self._send("", msgspec.json.encode(self.heartbeat()))

    def _discover(self) -> None:
        if self._tail.discover(self._start_of):
            self._candles.forget_log()
            self.feed = FeedState()
            self.version = None

    def _start_of(self, partition: TopicPartition) -> int:
        bounds = self._log.bounds(partition)
        near_end = max(bounds.begin, bounds.end - START_RECORDS_MAX)
        if partition.stream is Stream.SESSIONS:
            return near_end
        return max(near_end, min(self._gold_positions().get(partition.part, 0), bounds.end))

    def _gold_positions(self) -> Mapping[int, int]:
        """Offsets up to which gold holds the log's trades, by partition."""
        version = self.version
        return version.trade_positions(self._tail.topic_id) if version is not None else {}

    def _take_gold(self) -> None:
        """Take over what a newer version of gold holds; the live view goes on without it."""
        answer = self._gold.poll(self.version, self._questions, is_asking=self._candles.is_asking())
        if not self._gold.has_gold:
            self._candles.go_without_gold()
        if answer is not None:
            self.version = answer.version
            self.universe.take_gold(answer.market)
            self._candles.rebase(self._gold_positions(), answer.bars)

    def _questions(self, version: GoldVersion) -> Questions:
        return self._candles.questions(version.trade_positions(self._tail.topic_id))

    def _follow_log(self) -> None:
        deadline = self._monotonic() + BUDGET_S
        for chunk in self._tail.read(lambda: self._monotonic() >= deadline):
            self._take_chunk(chunk)
        for partition, position in self._tail.skip_if_behind().items():
            if partition.stream is Stream.TRADES:
                self._candles.leave_hole(partition.part, position)

    def _rest_or_wake(self) -> None:
        if not self._is_watched():
            self._rest()
        elif self._rests:
            self._rests = False
            if not self._candles.tapes:  # a tape counts from where we are
                self._tail.move(self._start_of)

    def _rest(self) -> None:
        """Nobody looks: stay at the log's end without decoding what passes."""
        self._rests = True
        for partition in self._tail.partitions():
            end = self._log.bounds(partition).end
            if partition.stream is Stream.TRADES and end > self._tail.position(partition):
                batch = self._log.read(partition, end - 1, bytes_max=1)
                if batch is not None and batch.log_times_ms:
                    self._tick_at_ms = max(batch.log_times_ms[-1], self._tick_at_ms or 0)
        self._tail.move(lambda partition: self._log.bounds(partition).end)

    def _take_chunk(self, chunk: Chunk) -> None:
        if chunk.partition.stream is Stream.SESSIONS:
            for value in chunk.values:
                self.feed.take(value)
            return
        part = chunk.partition.part
        trades = 0
        for offset, value in zip(chunk.offsets, chunk.values, strict=True):
            frame = read_trades(value)
            if frame is not None:
                trades += self._take_prices(frame)
                self._candles.take(part, offset, frame)
        self._tick_at_ms = max(chunk.log_ms, self._tick_at_ms or 0)
        if chunk.log_ms >= self._clock_ms() - RECENT_MS:
            self._trades += trades
            self._records += len(chunk.values)

    def _take_prices(self, frame: TradeFrame) -> int:
        """Take the frame's last prices; tells its number of trades."""
        count = 0
        universe, sets_price = self.universe, self._sets_price
        self.feed.take_source(frame.src)
        for trade in frame.prints:
            number = universe.number(trade.s)
            if number is None or not is_trade(trade):
                continue
            count += 1
            self._watermark_ms = max(self._watermark_ms, trade.t)
            if sets_price(trade.s, trade.c, trade.t):
                universe.price(number, trade.p, trade.t)
        return count

    def _take_commands(self) -> None:
        while True:
            try:
                verb, channel = self._commands.get_nowait()
            except queue.Empty:
                return
            watched = parse_channel(channel)
            if watched is None:
                continue
            if verb == "leave":
                self._candles.leave(*watched)
            else:
                self._watch(channel, *watched)

    def _watch(self, channel: str, symbol: str, interval: str) -> None:
        """Begin to watch; a viewer of what is watched already gets its newest bars."""
        read_to = {
            partition.part: self._tail.position(partition)
            for partition in self._tail.partitions()
            if partition.stream is Stream.TRADES
        }
        bars = self._candles.watch(
            symbol, interval, gold_positions=self._gold_positions(), read_to=read_to
        )
        if bars.is_seeded:
            self._send_bar_frame(channel, symbol, interval, bars.newest(SEED_BARS))

    def _measure(self, elapsed_s: float) -> None:
        """Age of the oldest record that gold does not hold; trades a second, with those skipped."""
        skipped = self._tail.skipped_records - self._skipped
        share = 1 + skipped / self._records if self._records else 1.0
        self._rate = self._trades * share / max(elapsed_s, SECOND_S)
        self._trades = self._records = 0
        self._skipped = self._tail.skipped_records
        positions, waits = self._gold_positions(), [0]
        self._behind = 0
        for partition in self._tail.partitions():
            position = positions.get(partition.part, 0)
            missing = self._log.bounds(partition).end - position
            if partition.stream is not Stream.TRADES or missing <= 0:
                continue
            self._behind += missing
            batch = self._log.read(partition, position, bytes_max=1)
            if batch is not None and batch.log_times_ms:
                waits.append(self._clock_ms() - batch.log_times_ms[0])
        self._lag_ms = max(waits)

    # -- to the viewers ------------------------------------------------------------------------

    def _send_market(self) -> None:
        changed = self.universe.take_changed()
        if changed:
            prices = self.universe.prices
            self._send_frame(
                "market",
                {
                    "i": changed,
                    "p": [prices[number] for number in changed],
                    "size": len(self.universe.symbols),
                },
            )

    def _send_bars(self) -> None:
        for symbol, tape in self._candles.tapes.items():
            for interval, bars in tape.bars.items():
                changed = bars.take_changed()
                if changed:
                    self._send_bar_frame(f"bars:{symbol}:{interval}", symbol, interval, changed)

    def _send_bar_frame(self, channel: str, symbol: str, interval: str, bars: list[Bar]) -> None:
        tape = self._candles.tapes[symbol]
        step_ms = INTERVALS_S[interval] * 1000
        final_before_ms = self._watermark_ms - FINAL_AFTER_MS - step_ms
        rows = [
            (*msgspec.structs.astuple(bar), bar.start_s * 1000 <= final_before_ms) for bar in bars
        ]
        note = "" if tape.is_whole(self._gold_positions()) else "catching_up"
        self._send_frame(channel, {"bars": rows, "note": note})

    def _send_frame(self, channel: str, content: dict[str, Any]) -> None:
        self._sequence[channel] += 1
        head = {"ch": channel, "seq": self._sequence[channel], "ts": self._clock_ms()}
        self._send(channel, msgspec.json.encode(head | content))
