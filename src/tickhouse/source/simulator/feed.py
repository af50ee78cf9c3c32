"""The simulator as a feed: `sim://sp500?rate=1000` or, in exchange days, `sim://sp500?speed=60`."""

from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from datetime import time as clock_time
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from tickhouse.clock import SYSTEM_CLOCK, Clock
from tickhouse.errors import FeedClosedError
from tickhouse.model.calendar import EXCHANGE_ZONE
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.model.units import NANOS_PER_MILLI
from tickhouse.source.feed import Arrivals, History
from tickhouse.source.parameters import MAX, Parameters, split_query
from tickhouse.source.simulator.block import Block
from tickhouse.source.simulator.draws import Ints
from tickhouse.source.simulator.faults import DISCONNECTED
from tickhouse.source.simulator.frames import FrameWriter
from tickhouse.source.simulator.market import Market, OpenMarket
from tickhouse.source.simulator.scenario import (
    FIRST_DAY,
    FRAME_TRADES_MAX,
    SCENARIO_PARAMETERS,
    Scenario,
    check_day,
    read_scenario,
)
from tickhouse.source.simulator.sessions import ExchangeMarket

DELIVERY_PARAMETERS: Final = ("frames", "date", "days", "speed", "pregenerate")
TICK_S: Final = 0.02
ARRIVAL_TRADES_MAX: Final = 4096
"""Trades handed over at once: bounds the work between two looks at anything else."""
SEEK_STEPS: Final = 8
OPENING: Final = clock_time(9, 30)
DISCONNECTED_REASON: Final = "simulated disconnect"


class Delivery(msgspec.Struct, frozen=True):
    """How a scenario's frames are delivered; does not change which trades they hold.

    Attributes:
        is_paced: at the scenario's rate, times `speed`; else as fast as it goes.
        frames: frames of a shard in all; None = endless.
        day: of the exchange: the first day. Of an open market: trades carry exchange time from
            09:30 New York of this date on, by their place in virtual time, so frames are the same
            bytes in every run; None = the time of delivery.
        pregenerate: frames of a shard made before the first is delivered, then delivered from
            memory (a frame of 10 trades takes 0.7 kB).
        speed: market seconds in a second of the clock.
        days: of the exchange: sessions, then the feed is drained; None = to the calendar's end.
    """

    is_paced: bool = True
    frames: int | None = None
    day: date | None = None
    pregenerate: int = 0
    speed: float = 1.0
    days: int | None = None


class Witness(Protocol):
    """Told what has become durable."""

    def acknowledge(self, shard: int, cursor: int) -> None:
        """The shard's frames below `cursor` are durable."""
        ...

    def close(self) -> None:
        """Recording ended."""
        ...


class Simulator:
    """Simulated trades in exact Finnhub frames.

    Args:
        scenario: what is simulated.
        delivery: how it is delivered.
        clock: of stamps, pacing and waits.

    Attributes:
        witness: told each acknowledgement.
        markets: one a shard.
    """

    def __init__(
        self,
        scenario: Scenario,
        delivery: Delivery | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.scenario = scenario
        self.delivery = delivery or Delivery()
        self.url = _address(scenario, self.delivery.day)
        self.source = "sim:finnhub.ws"
        self.mode: Mode = "simulated"
        self.shards = scenario.shards
        self.endless = self.delivery.frames is None and self.delivery.days is None
        self.resumes = True
        self.witness: Witness | None = None
        self.markets = open_markets(scenario, self.delivery)
        self._clock = clock
        self._writers = [FrameWriter(market.symbols) for market in self.markets]
        self._opening_ms: int | None = None
        if self.delivery.day is not None:
            self._opening_ms = 0 if scenario.is_exchange else _opening_ms(self.delivery.day)
        mean = float(scenario.frame_trades) if not scenario.is_exchange else FRAME_TRADES_MAX
        self._step = max(1, int(ARRIVAL_TRADES_MAX / mean))

    def begin(self, history: History) -> None:
        """The cursor is all that matters."""

    def waits(self, shard: int) -> bool:  # noqa: ARG002 - all alike
        """What is not taken comes later."""
        return True

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Arrivals]:
        """See `Feed.connect`; the cursor is the number of the shard's next frame.

        A slow consumer finds the frames that became due meanwhile, in bounded blocks.
        """
        while not self.markets[shard].reach(cursor, steps_max=SEEK_STEPS):
            await self._clock.sleep(0)
        stock = await self._make_stock(shard, cursor)
        started, first = self._clock.monotonic(), cursor
        origin_us: int | None = None
        while (block := self._block(shard, cursor)) is not None:
            due_us = block.due_us + block.pace_us
            origin_us = int(due_us[cursor - block.first]) if origin_us is None else origin_us
            most = until = min(cursor + self._step, self._limit(block.end))
            wait_s = 0.0
            if self.delivery.is_paced:
                elapsed_s = self._clock.monotonic() - started
                now_us = origin_us + int(elapsed_s * self.delivery.speed * 1_000_000)
                until = min(until, block.first + bisect_right(due_us, now_us))
                wait_s = 0.0 if until == most else TICK_S
            closed_at = _next_disconnect(block, first, cursor, until)
            until = until if closed_at is None else closed_at
            if until > cursor:
                payloads = stock[cursor - first : until - first]
                payloads += self.frames(shard, cursor + len(payloads), until)
                cursor = until
                yield Arrivals(payloads, self._clock.time_ns())
            if closed_at is not None:
                raise FeedClosedError(DISCONNECTED_REASON)
            await self._clock.sleep(wait_s)

    def _limit(self, end: int) -> int:
        return end if self.delivery.frames is None else min(end, self.delivery.frames)

    def _block(self, shard: int, cursor: int) -> Block | None:
        """The block to go on in; None where the feed is drained."""
        if self._limit(cursor + 1) <= cursor:
            return None
        return self.markets[shard].block_of(cursor)

    async def _make_stock(self, shard: int, cursor: int) -> list[bytes]:
        """The frames to be delivered from memory."""
        stock: list[bytes] = []
        end = self._limit(cursor + self.delivery.pregenerate)
        for start in range(cursor, end, self._step):
            stock += self.frames(shard, start, min(end, start + self._step))
            await self._clock.sleep(0)
        return stock

    def frames(self, shard: int, start: int, end: int) -> list[bytes]:
        """Frames `start .. end` of a shard, stamped now unless the delivery has a date.

        Fewer where the market ends before.
        """
        market, writer = self.markets[shard], self._writers[shard]
        found: list[bytes] = []
        while start < end and (block := market.block_of(start)) is not None:
            stop = min(end, block.end)
            found += writer.write(block, start, stop, self._times_ms(block, start, stop))
            start = stop
        return found

    def _times_ms(self, block: Block, start: int, end: int) -> Ints:
        """Event time of each trade of some frames, UNIX milliseconds UTC."""
        bounds = block.bounds[start - block.first : end - block.first + 1]
        event_ms = block.event_ms[block.trades(start, end)]
        if self._opening_ms is not None:
            return self._opening_ms + event_ms
        due_ms = block.due_us[start - block.first : end - block.first] // 1000
        now_ms = self._clock.time_ns() // NANOS_PER_MILLI
        return now_ms + event_ms - np.repeat(due_ms, np.diff(bounds))

    def acknowledge(self, shard: int, cursor: int) -> None:
        """See `Feed.acknowledge`."""
        if self.witness is not None:
            self.witness.acknowledge(shard, cursor)

    def close(self) -> None:
        """See `Feed.close`."""
        if self.witness is not None:
            self.witness.close()


def _next_disconnect(block: Block, first: int, start: int, end: int) -> int | None:
    """The first frame of `start .. end` before which the connection ends.

    Args:
        block: that holds them.
        first: the frame that the connection began with, before which it does not end again.
        start: number of a frame.
        end: number after the last frame looked at.
    """
    begin = max(start, first + 1)
    struck = block.frame_faults[begin - block.first : end - block.first] & DISCONNECTED
    return begin + int(struck.argmax()) if struck.any() else None


def open_markets(scenario: Scenario, delivery: Delivery) -> list[Market]:
    """The scenario's markets, one a shard."""
    shards = range(scenario.shards)
    if not scenario.is_exchange:
        return [OpenMarket(scenario, shard) for shard in shards]
    day = delivery.day or FIRST_DAY
    return [ExchangeMarket(scenario, shard, day=day, days=delivery.days) for shard in shards]


def _address(scenario: Scenario, day: date | None) -> str:
    """The feed's identity: a cursor counts for this address only."""
    if day is None or (scenario.is_exchange and day == FIRST_DAY):
        return scenario.url
    return f"{scenario.url}{'&' if '?' in scenario.url else '?'}date={day}"


def _opening_ms(day: date) -> int:
    opening = datetime.combine(day, OPENING, tzinfo=ZoneInfo(EXCHANGE_ZONE))
    return int(opening.timestamp()) * 1000


def read_address(rest: str) -> tuple[Scenario, Delivery]:
    """What `sim://<rest>` asks for.

    Raises:
        ConfigError: names the parameter, what was found and what is valid.
    """
    place, _, query = rest.partition("?")
    values: Mapping[str, str] = split_query("sim", query)
    parameters = Parameters("sim", values, (*SCENARIO_PARAMETERS, *DELIVERY_PARAMETERS))
    scenario = read_scenario(place.rstrip("/"), parameters)
    frames = parameters.whole("frames", -1, low=0, high=2**53)
    day = parameters.day("date")
    if scenario.is_exchange:
        day = check_day(parameters, day or FIRST_DAY)
    speed_is_max = parameters.text("speed") == MAX
    days = parameters.whole("days", 0, low=1, high=10_000) if "days" in parameters else None
    delivery = Delivery(
        is_paced=not (parameters.is_max("rate") or speed_is_max),
        frames=None if frames < 0 else frames,
        day=day,
        pregenerate=parameters.whole("pregenerate", 0, low=0, high=10**8),
        speed=1.0 if speed_is_max else parameters.factor("speed", 1.0),
        days=days,
    )
    if delivery.pregenerate and delivery.day is None:
        raise parameters.bad("pregenerate", "a date as well: frames made before carry its time")
    return scenario, delivery
