"""The simulator as a feed: `sim://sp500?symbols=50&rate=1000&shards=1&seed=7`."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from datetime import time as clock_time
from itertools import islice, pairwise
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from tickhouse.errors import ConfigError
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.feed import Arrivals
from tickhouse.source.simulator.market import (
    BLOCK_FRAMES,
    CONDITIONS,
    NOMINAL_RATE,
    PRICE_UNITS,
    Block,
    Market,
    Scenario,
    read_universe,
)
from tickhouse.source.simulator.truth import TruthLedger

PARAMETERS: Final = ("symbols", "rate", "shards", "seed", "batch", "frames", "date")
TICK_S: Final = 0.02
FRAMES_AT_ONCE_MAX: Final = 1024
EXCHANGE_ZONE: Final = "America/New_York"
PRICES_MAX: Final = 1_000_000
OPENING: Final = clock_time(9, 30)


class Simulator:
    """Simulated trades in exact Finnhub frames.

    Args:
        scenario: what is simulated.
        paced: deliver at the scenario's rate; else as fast as it goes.
        frames: frames a shard delivers in all; None = endless.
        day: stamp trades in exchange time of this date from 09:30 New York on, by their place in
            virtual time; None = stamp now (an always-open market).
        truth_path: where the truth ledger is kept; None = nowhere.
        url: address to show; also the identity that a cursor belongs to.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        url: str,
        paced: bool = True,
        frames: int | None = None,
        day: date | None = None,
        truth_path: Path | None = None,
    ) -> None:
        self.url = url
        self.source = "sim:finnhub.ws"
        self.mode: Mode = "simulated"
        self.shards = scenario.shards
        self.endless = frames is None
        self.resumes = True
        self.scenario = scenario
        self._paced = paced
        self._frames = frames
        self._opening_ms = _opening_ms(day) if day is not None else None
        self._markets = [Market(scenario, shard) for shard in range(scenario.shards)]
        self._writers = [FrameWriter(market) for market in self._markets]
        self._ledger = TruthLedger(truth_path, url, scenario, self._markets) if truth_path else None

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Arrivals]:
        """See `Feed.connect`; the cursor is the number of the shard's next frame."""
        started, first = time.monotonic(), cursor
        while self._frames is None or cursor < self._frames:
            until = cursor + FRAMES_AT_ONCE_MAX
            if self._paced:
                due = first + int((time.monotonic() - started) / self.scenario.frame_s) + 1
                until = min(until, due)
            if self._frames is not None:
                until = min(until, self._frames)
            if until > cursor:
                payloads = self.frames(shard, cursor, until)
                cursor = until
                yield Arrivals(payloads, time.time_ns())
            await asyncio.sleep(TICK_S if self._paced else 0)

    def frames(self, shard: int, start: int, end: int) -> list[bytes]:
        """Frames `start .. end` of a shard."""
        found: list[bytes] = []
        while start < end:
            block = self._markets[shard].block(start // BLOCK_FRAMES)
            stop = min(end, block.first + BLOCK_FRAMES)
            found += self._writers[shard].write(block, start, stop, self._times_ms(start, stop))
            start = stop
        return found

    def _times_ms(self, start: int, end: int) -> list[int]:
        """Event time of each frame, UNIX milliseconds UTC."""
        if self._opening_ms is None:
            return [time.time_ns() // 1_000_000] * (end - start)
        frame_ms = self.scenario.frame_s * 1000
        return [self._opening_ms + int(number * frame_ms) for number in range(start, end)]

    def acknowledge(self, shard: int, cursor: int) -> None:
        """See `Feed.acknowledge`: the truth ledger counts what is durable."""
        if self._ledger is not None:
            self._ledger.acknowledge(shard, cursor)

    def close(self) -> None:
        """See `Feed.close`."""
        if self._ledger is not None:
            self._ledger.write()


class FrameWriter:
    """Writes trades as the bytes of Finnhub frames."""

    def __init__(self, market: Market) -> None:
        self._symbols = [listing.symbol.encode() for listing in market.listings]
        self._prices: dict[int, bytes] = {}

    def write(self, block: Block, start: int, end: int, times_ms: list[int]) -> list[bytes]:
        """Frames `start .. end` of a block, stamped with the times given."""
        bounds = block.bounds[start - block.first : end - block.first + 1].tolist()
        span = slice(bounds[0], bounds[-1])
        symbols, price = self._symbols, self._price
        frames: list[bytes] = []
        columns = zip(
            block.condition[span].tolist(),
            block.price[span].tolist(),
            block.symbol[span].tolist(),
            block.size[span].tolist(),
            strict=True,
        )
        for (before, after), at_ms in zip(pairwise(bounds), times_ms, strict=True):
            trades = [
                b'{"c":%b,"p":%b,"s":"%b","t":%d,"v":%d}'
                % (CONDITIONS[code], price(units), symbols[symbol], at_ms, size)
                for code, units, symbol, size in islice(columns, after - before)
            ]
            frames.append(b'{"data":[%b],"type":"trade"}' % b",".join(trades))
        return frames

    def _price(self, units: int) -> bytes:
        text = self._prices.get(units)
        if text is None:
            if len(self._prices) > PRICES_MAX:
                self._prices.clear()
            text = (b"%d.%04d" % divmod(units, PRICE_UNITS)).rstrip(b"0").rstrip(b".")
            self._prices[units] = text
        return text


def _opening_ms(day: date) -> int:
    opening = datetime.combine(day, OPENING, tzinfo=ZoneInfo(EXCHANGE_ZONE))
    return int(opening.timestamp() * 1000)


def open_simulator(
    place: str, parameters: Mapping[str, str], *, truth_path: Path | None
) -> Simulator:
    """The simulator behind `sim://<place>?<parameters>`.

    Raises:
        ConfigError: names the parameter, what was found and what is valid.
    """
    if place not in {"", "sp500"}:
        raise ConfigError(f"sim://{place}: unknown universe; known: sp500")
    unknown = sorted(set(parameters) - set(PARAMETERS))
    if unknown:
        raise ConfigError(f"sim: unknown parameter {unknown}; known: {', '.join(PARAMETERS)}")
    listed = len(read_universe())
    symbols = _whole(parameters, "symbols", 50, 1, listed)
    paced = parameters.get("rate") != "max"
    scenario = Scenario(
        seed=_whole(parameters, "seed", 7, 0, 2**63 - 1),
        symbols=symbols,
        shards=_whole(parameters, "shards", 1, 1, symbols),
        rate=float(_whole(parameters, "rate", 1000, 1, 10_000_000)) if paced else NOMINAL_RATE,
        batch=_whole(parameters, "batch", 0, 0, 1000),
    )
    frames = _whole(parameters, "frames", 0, 0, 2**62) or None
    day = _day(parameters.get("date"))
    identity = {name: parameters[name] for name in sorted(parameters) if name != "frames"}
    query = "&".join(f"{name}={value}" for name, value in identity.items())
    return Simulator(
        scenario,
        url=f"sim://sp500{'?' if query else ''}{query}",
        paced=paced,
        frames=frames,
        day=day,
        truth_path=truth_path,
    )


def _whole(parameters: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"sim: {name}={text!r}; give a whole number from {low} to {high}")
    return int(text)


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"sim: date={text!r}; give a date as 2026-03-02") from None
