"""The simulator as a feed: `sim://sp500?symbols=50&rate=1000&shards=1&seed=7`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, datetime
from datetime import time as clock_time
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec

from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.model.units import NANOS_PER_MILLI
from tickhouse.source.feed import Arrivals, History
from tickhouse.source.parameters import Parameters, split_query
from tickhouse.source.simulator.frames import FrameWriter
from tickhouse.source.simulator.market import Market
from tickhouse.source.simulator.scenario import SCENARIO_PARAMETERS, Scenario, read_scenario

DELIVERY_PARAMETERS: Final = ("frames", "date", "pregenerate")
TICK_S: Final = 0.02
ARRIVAL_TRADES_MAX: Final = 4096
"""Trades handed over at once: bounds the work between two looks at anything else."""
EXCHANGE_ZONE: Final = "America/New_York"
OPENING: Final = clock_time(9, 30)


class Delivery(msgspec.Struct, frozen=True):
    """How a scenario's frames are delivered; does not change which trades they hold.

    Attributes:
        is_paced: at the scenario's rate; else as fast as it goes.
        frames: frames of a shard in all; None = endless.
        day: trades carry exchange time from 09:30 New York of this date on, by their place in
            virtual time, so frames are the same bytes in every run; None = the time of delivery
            (an always-open market).
        pregenerate: frames of a shard made before the first is delivered, then delivered from
            memory (a frame of 10 trades takes 0.7 kB).
    """

    is_paced: bool = True
    frames: int | None = None
    day: date | None = None
    pregenerate: int = 0


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
        clock: monotonic seconds.
        clock_ns: UNIX nanoseconds UTC.
        sleep: waits so many seconds.

    Attributes:
        witness: told each acknowledgement.
        markets: one a shard.
    """

    def __init__(
        self,
        scenario: Scenario,
        delivery: Delivery | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.scenario = scenario
        self.delivery = delivery or Delivery()
        self.url = _address(scenario, self.delivery.day)
        self.source = "sim:finnhub.ws"
        self.mode: Mode = "simulated"
        self.shards = scenario.shards
        self.endless = self.delivery.frames is None
        self.resumes = True
        self.witness: Witness | None = None
        self.markets = [Market(scenario, shard) for shard in range(scenario.shards)]
        self._clock = clock
        self._clock_ns = clock_ns
        self._sleep = sleep
        self._writers = [FrameWriter(market) for market in self.markets]
        self._opening_ms = None if self.delivery.day is None else _opening_ms(self.delivery.day)
        self._frame_s = float(scenario.frame_time)
        self._frame_ms = (scenario.frame_time * 1000).as_integer_ratio()
        self._step = max(1, int(ARRIVAL_TRADES_MAX / scenario.frame_trades))

    def begin(self, history: History) -> None:
        """The cursor is all that matters."""

    def waits(self, shard: int) -> bool:  # noqa: ARG002 - all alike
        """What is not taken comes later."""
        return True

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Arrivals]:
        """See `Feed.connect`; the cursor is the number of the shard's next frame.

        A slow consumer finds the frames that became due meanwhile, in bounded blocks.
        """
        stock = await self._make_stock(shard, cursor)
        started, first = self._clock(), cursor
        end = self.delivery.frames
        while end is None or cursor < end:
            most = cursor + self._step
            until = most if end is None else min(most, end)
            if self.delivery.is_paced:
                due = first + int((self._clock() - started) / self._frame_s) + 1
                until = min(until, due)
            if until > cursor:
                payloads = stock[cursor - first : until - first]
                payloads += self.frames(shard, cursor + len(payloads), until)
                cursor = until
                yield Arrivals(payloads, self._clock_ns())
            await self._sleep(0 if until == most else TICK_S)

    async def _make_stock(self, shard: int, cursor: int) -> list[bytes]:
        """The frames to be delivered from memory."""
        stock: list[bytes] = []
        end = cursor + self.delivery.pregenerate
        if self.delivery.frames is not None:
            end = min(end, self.delivery.frames)
        for start in range(cursor, end, self._step):
            stock += self.frames(shard, start, min(end, start + self._step))
            await self._sleep(0)
        return stock

    def frames(self, shard: int, start: int, end: int) -> list[bytes]:
        """Frames `start .. end` of a shard, stamped now unless the delivery has a date."""
        market, writer = self.markets[shard], self._writers[shard]
        found: list[bytes] = []
        while start < end:
            block = market.block_of(start)
            stop = min(end, block.end)
            found += writer.write(block, start, stop, self._times_ms(start, stop))
            start = stop
        return found

    def _times_ms(self, start: int, end: int) -> list[int]:
        """Event time of each frame, UNIX milliseconds UTC."""
        if self._opening_ms is None:
            return [self._clock_ns() // NANOS_PER_MILLI] * (end - start)
        opening, (numerator, denominator) = self._opening_ms, self._frame_ms
        return [opening + number * numerator // denominator for number in range(start, end)]

    def acknowledge(self, shard: int, cursor: int) -> None:
        """See `Feed.acknowledge`."""
        if self.witness is not None:
            self.witness.acknowledge(shard, cursor)

    def close(self) -> None:
        """See `Feed.close`."""
        if self.witness is not None:
            self.witness.close()


def _address(scenario: Scenario, day: date | None) -> str:
    """The feed's identity: a cursor counts for this address only."""
    if day is None:
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
    known = (*SCENARIO_PARAMETERS, *DELIVERY_PARAMETERS)
    parameters = Parameters("sim", split_query("sim", query), known)
    scenario = read_scenario(place.rstrip("/"), parameters)
    frames = parameters.whole("frames", -1, low=0, high=2**53)
    delivery = Delivery(
        is_paced=not parameters.is_max("rate"),
        frames=None if frames < 0 else frames,
        day=parameters.day("date"),
        pregenerate=parameters.whole("pregenerate", 0, low=0, high=10**8),
    )
    if delivery.pregenerate and delivery.day is None:
        raise parameters.bad("pregenerate", "a date as well: frames made before carry its time")
    return scenario, delivery
