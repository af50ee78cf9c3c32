"""The hub: one thread that follows log and gold and tells the viewers, four times a second.

It decodes new frames within a fixed part of each tick, so that it can neither melt the machine nor
hold up a viewer; where that is not enough it skips ahead (see `tail`) and says so.
"""

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tickhouse.dashboard.asking import GoldAsker
from tickhouse.dashboard.candles import LiveCandles, parse_channel
from tickhouse.dashboard.conditions import Conditions
from tickhouse.dashboard.feed_state import FeedState
from tickhouse.dashboard.gaps import KnownGap
from tickhouse.dashboard.live_bars import INTERVALS_S, Bar
from tickhouse.dashboard.liveness import (
    ALWAYS_OPEN,
    STALE_MS,
    Market,
    Word,
    feed_word,
    is_stale_quote,
    market_at,
    moment_at,
    stale_after_ms,
)
from tickhouse.dashboard.prints import TradeFrame, is_ping, is_trade, read_trades
from tickhouse.dashboard.queries import SEED_BARS, GoldVersion, Questions
from tickhouse.dashboard.quotes import read_quote
from tickhouse.dashboard.standing import UNKNOWN, Standings
from tickhouse.dashboard.tail import Chunk, LogTail
from tickhouse.dashboard.universe import Universe
from tickhouse.errors import TickhouseError
from tickhouse.model.calendar import MarketState, new_york
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import LogReader
from tickhouse.stream.newest import newest_batch
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
        aside: the log once more, to look at what lies elsewhere than the live end: a reader of
            Kafka goes on cheaply and seeks slowly. None: `reader` does both.
        clock_ms: wall clock, UNIX milliseconds.
        monotonic: seconds, for budgets and pauses.
    """

    def __init__(  # noqa: PLR0913 - parts and callbacks, mostly by keyword
        self,
        reader: LogReader,
        gold: GoldAsker,
        conditions: Conditions,
        *,
        send: Send,
        is_watched: Callable[[], bool] = lambda: True,
        aside: LogReader | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = reader
        self._aside = reader if aside is None else aside
        self._gold = gold
        self._sets_price = conditions.sets_price
        self._send = send
        self._is_watched = is_watched
        self._rests = False
        self._calendar = new_york()
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._tail = LogTail(reader, clock_ms=clock_ms)
        self._candles = LiveCandles(self._aside, conditions, monotonic=monotonic)
        self._commands: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._sequence: defaultdict[str, int] = defaultdict(int)
        self._second_at = monotonic() - SECOND_S
        self._trades = self._records = self._skipped = 0
        self._watermark_ms = 0
        self._lag_ms: int | None = None
        self._behind = 0
        self._rate = 0.0
        self._tick_at_ms: int | None = None
        self._record_at_ms: int | None = None
        self._word: Word | None = None
        self._stale_ms = STALE_MS
        self._market: Market = ALWAYS_OPEN
        self._facts: dict[str, Any] = {}
        self._gap_mark = (0, 0)
        self._fault: str | None = None
        self._spent_s = 0.0
        self._run = self._began_ms = clock_ms()
        self.universe = Universe()
        self.standings = Standings()
        self.feed = FeedState()
        self._facts = self.feed.facts(self._run)
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
        columns = self.universe.columns()
        standings = self.standings.rows[: len(columns["symbol"])]
        standings += [UNKNOWN] * (len(columns["symbol"]) - len(standings))
        return {
            "run": self._run,
            "gold": version.version if version is not None else None,
            "kpi": self.universe.kpi(),
            "market": {**columns, "standing": standings},
        }

    def told_gaps(self, symbol: str, from_ms: int, to_ms: int) -> list[KnownGap]:
        """Gaps that the log's end tells of; "" = of any symbol."""
        return self.feed.gaps.gaps(symbol, from_ms, to_ms)

    def heartbeat(self) -> dict[str, Any]:
        """State of feed, log and gold in a few words: what every viewer is told once a second."""
        version = self.version
        return {
            "op": "hb",
            "run": self._run,
            "ts": self._clock_ms(),
            "tick_ms": self._tick_at_ms,
            "rate": None if self._rests else round(self._rate, 1),
            **self._facts,
            "word": self._word,
            "stale_ms": self._stale_ms,
            "words": self.standings.words(),
            "market": self._market,
            "gap_mark": [*self._gap_mark, self.feed.gaps.told],
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
            "feed": self._word,
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
        self._rest_or_wake(is_second=is_second)
        self._take_commands()
        self._take_gold()
        self._follow_log()
        self._send_market(self._judge() if is_second else [])
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
        positions = self._gold_positions(partition.stream)
        return max(near_end, min(positions.get(partition.part, 0), bounds.end))

    def _gold_positions(self, stream: Stream = Stream.TRADES) -> Mapping[int, int]:
        """Offsets up to which gold holds a stream of the log, by partition."""
        version = self.version
        return version.offsets(stream, self._tail.topic_id(stream)) if version is not None else {}

    def _take_gold(self) -> None:
        """Take over what a newer version of gold holds; the live view goes on without it."""
        if self._rests and self._gold.is_remote and self.version is not None:
            return
        answer = self._gold.poll(self.version, self._questions, is_asking=self._candles.is_asking())
        if not self._gold.has_gold:
            self._candles.go_without_gold()
        if answer is not None:
            self.version = answer.version
            self.universe.take_gold(answer.market)
            self._gap_mark = answer.gap_mark
            self.feed.gaps.take_published(answer.gaps)
            self._candles.rebase(self._gold_positions(), answer.bars)

    def _questions(self, version: GoldVersion) -> Questions:
        offsets = version.offsets(Stream.TRADES, self._tail.topic_id(Stream.TRADES))
        return self._candles.questions(offsets)

    def _follow_log(self) -> None:
        deadline = self._monotonic() + BUDGET_S
        for chunk in self._tail.read(lambda: self._monotonic() >= deadline):
            self._take_chunk(chunk)
        for partition, position in self._tail.skip_if_behind().items():
            if partition.stream is Stream.TRADES:
                self._candles.leave_hole(partition.part, position)

    def _rest_or_wake(self, *, is_second: bool) -> None:
        if not self._is_watched():
            if is_second or not self._rests:
                self._rest()
        elif self._rests:
            self._rests = self._tail.is_resting = False
            self._began_ms = self._clock_ms()
            if not self._candles.tapes:  # a tape counts from where we are
                self._tail.move(self._start_of)

    def _rest(self) -> None:
        """Nobody looks: stay at the log's end without decoding what passes."""
        self._rests = self._tail.is_resting = True
        for partition in self._tail.partitions():
            end = self._log.bounds(partition).end
            if partition.stream is Stream.TRADES and end > self._tail.position(partition):
                batch = newest_batch(self._aside, partition)
                if batch is not None:
                    self._note(batch.log_times_ms[-1], is_news=not is_ping(batch.values[-1]))
        self._tail.move(lambda partition: self._log.bounds(partition).end)

    def _note(self, log_ms: int, *, is_news: bool) -> None:
        """A record of the feed reached the log; news are trades and quotes."""
        self._record_at_ms = max(log_ms, self._record_at_ms or 0)
        if is_news:
            self._tick_at_ms = max(log_ms, self._tick_at_ms or 0)

    def _take_chunk(self, chunk: Chunk) -> None:
        part = chunk.partition.part
        if chunk.partition.stream is Stream.SESSIONS:
            for value in chunk.values:
                self.feed.take(value, part)
            return
        if chunk.partition.stream is Stream.QUOTES:
            if self._take_quotes(chunk.values):
                self._note(chunk.log_ms, is_news=True)
            return
        trades = 0
        for offset, value in zip(chunk.offsets, chunk.values, strict=True):
            frame = read_trades(value)
            if frame is not None:
                trades += self._take_prices(frame)
                self._candles.take(part, offset, frame)
        self._note(chunk.log_ms, is_news=trades > 0)
        if chunk.log_ms >= self._clock_ms() - RECENT_MS:
            self._trades += trades
            self._records += len(chunk.values)

    def _take_quotes(self, values: Sequence[bytes]) -> bool:
        """Take polled prices; tells whether there were any."""
        found = [quote for quote in map(read_quote, values) if quote is not None]
        for quote in found:
            self.feed.take_source(quote.source)
            is_stale = self.feed.is_live and is_stale_quote(
                self._calendar, quote.symbol, quote.quoted_ms, quote.received_ms
            )
            self.universe.quote(quote, is_stale=is_stale)
        return bool(found)

    def _take_prices(self, frame: TradeFrame) -> int:
        """Take the frame's last prices; tells its number of trades."""
        count = 0
        universe, sets_price = self.universe, self._sets_price
        heard_ms, received_ms = universe.heard_ms, frame.rx // 1_000_000
        self.feed.take_source(frame.src)
        for trade in frame.prints:
            number = universe.number(trade.s)
            if number is None or not is_trade(trade):
                continue
            count += 1
            heard_ms[number] = received_ms
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
        waits = [0]
        self._behind = 0
        for partition in self._tail.partitions():
            position = self._gold_positions(partition.stream).get(partition.part, 0)
            missing = self._log.bounds(partition).end - position
            if partition.stream is Stream.SESSIONS or missing <= 0:
                continue
            batch = self._aside.read(partition, position, bytes_max=1)
            if batch is not None and batch.log_times_ms:
                self._behind += missing
                waits.append(self._clock_ms() - batch.log_times_ms[0])
        self._lag_ms = max(waits)

    def _judge(self) -> list[int]:
        """The words of feed and symbols; gives the symbols whose standing changed."""
        now_ms, is_live = self._clock_ms(), self.feed.is_live
        has_exchange, has_always_open = self.feed.markets()
        is_calendar = is_live and has_exchange
        self._facts = self.feed.facts(now_ms)
        self._market = market_at(self._calendar, now_ms) if is_calendar else ALWAYS_OPEN
        state = MarketState(self._market.state) if is_calendar else MarketState.REGULAR
        self._stale_ms = stale_after_ms(state, is_live=is_live, has_always_open=has_always_open)
        self._word = feed_word(
            is_closed=state is MarketState.CLOSED and not has_always_open,
            heard_ago_ms=_ago(now_ms, self._tick_at_ms),
            record_ago_ms=_ago(now_ms, self._record_at_ms),
            stale_ms=self._stale_ms,
        )
        began_ms = now_ms if self._rests else self._began_ms  # receipts are not read at rest
        moment = moment_at(
            self._calendar, now_ms, is_live=is_live, feed=self._word, began_ms=began_ms
        )
        return self.standings.judge(self.universe, self.feed, moment)

    # -- to the viewers ------------------------------------------------------------------------

    def _send_market(self, judged: list[int]) -> None:
        changed = self.universe.take_changed()
        if not changed and not judged:
            return
        prices, standings = self.universe.prices, self.standings.rows
        content: dict[str, Any] = {
            "i": changed,
            "p": [prices[number] for number in changed],
            "size": len(self.universe.symbols),
        }
        if judged:
            content["s"] = [(number, *standings[number]) for number in judged]
        self._send_frame("market", content)

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


def _ago(now_ms: int, at_ms: int | None) -> int | None:
    return None if at_ms is None else now_ms - at_ms
