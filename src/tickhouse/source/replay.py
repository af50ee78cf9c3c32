"""`replay:<file, folder or pattern>?speed=1`: recorded frames through the live path.

Messages come in the order and at the pace in which they were recorded (`speed` times it, or as
fast as it goes); messages without a recorded time come at once, or `rate` a second. Nothing is
dropped: a line that is not JSON is delivered as it is. The receipt is that of the replay.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Final

from tickhouse.errors import ConfigError
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.model.units import NANOS_PER_SECOND
from tickhouse.source.feed import Arrivals, History
from tickhouse.source.parameters import Parameters, split_query
from tickhouse.source.recording import (
    KINDS,
    Message,
    find_files,
    fingerprint,
    kind_of,
    read_blocks,
    read_messages,
)

PARAMETERS: Final = ("speed", "rate", "kind")
BLOCK_MESSAGES: Final = 1000
TICK_S: Final = 0.01


class Replay:
    """Recorded frames as a feed of one shard that ends, and that can resume.

    Args:
        path: a file, a folder or a pattern; several separated by commas.
        speed: times the recorded pace; None = as fast as it goes.
        rate: messages a second instead of the recorded pace.
        kind: what the messages are; None = by the look of the first lines.
        clock: monotonic seconds.
        clock_ns: UNIX nanoseconds UTC.
        sleep: waits so many seconds.

    Raises:
        ConfigError: nothing found under the path, or unreadable.
    """

    def __init__(
        self,
        path: str,
        *,
        speed: float | None = None,
        rate: int | None = None,
        kind: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.files = find_files(path)
        self.url = f"replay:{path}#{fingerprint(self.files)}"
        self.source = f"replay:{kind or kind_of(self.files)}"
        self.mode: Mode = "replay"
        self.shards = 1
        self.endless = False
        self.resumes = True
        self._speed = speed
        self._rate = rate
        self._clock = clock
        self._clock_ns = clock_ns
        self._sleep = sleep

    def begin(self, history: History) -> None:
        """The cursor is all that matters."""

    def waits(self, shard: int) -> bool:  # noqa: ARG002 - all alike
        """What is not taken comes later."""
        return True

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Arrivals]:  # noqa: ARG002 - one shard
        """See `Feed.connect`; the cursor counts messages of the merged files."""
        messages = read_messages(self.files)
        await self._skip(messages, cursor)
        if self._rate is not None:
            messages = _at_rate(messages, self._rate)
        is_paced = self._rate is not None or self._speed is not None
        pace = _Pace(self._speed or 1.0, self._clock)
        for block in read_blocks(messages, BLOCK_MESSAGES):
            start = 0
            while start < len(block):
                end = pace.reach(block, start) if is_paced else len(block)
                if end > start:
                    payloads = [payload for _, payload in block[start:end]]
                    yield Arrivals(payloads, self._clock_ns())
                is_early = end < len(block)
                await self._sleep(max(TICK_S, pace.wait_s(block[end])) if is_early else 0)
                start = end

    async def _skip(self, messages: Iterator[Message], count: int) -> None:
        while count > 0:
            step = min(count, BLOCK_MESSAGES)
            if sum(1 for _ in islice(messages, step)) < step:
                return
            count -= step
            await self._sleep(0)

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to remember: the log's end is the position."""

    def close(self) -> None:
        """Nothing to release."""


class _Pace:
    """Which messages are due: recorded time runs `speed` times as fast as the clock."""

    def __init__(self, speed: float, clock: Callable[[], float]) -> None:
        self._speed = speed
        self._clock = clock
        self._first_ns: int | None = None
        self._started = 0.0

    def reach(self, block: list[Message], start: int) -> int:
        """The index after the last message from `start` on that is due."""
        reached_ns = self._reached_ns(block[start][0])
        end = start
        while end < len(block) and block[end][0] <= reached_ns:
            end += 1
        return end

    def _reached_ns(self, recorded_ns: int) -> float:
        if self._first_ns is None:
            if recorded_ns == 0:
                return 0
            self._first_ns = recorded_ns
            self._started = self._clock()
        elapsed_s = (self._clock() - self._started) * self._speed
        return self._first_ns + elapsed_s * NANOS_PER_SECOND

    def wait_s(self, message: Message) -> float:
        """Seconds until a message is due."""
        return (message[0] - self._reached_ns(message[0])) / NANOS_PER_SECOND / self._speed


def _at_rate(messages: Iterator[Message], rate: int) -> Iterator[Message]:
    """The messages as if recorded at an even rate."""
    for number, (_, payload) in enumerate(messages):
        yield 1 + number * NANOS_PER_SECOND // rate, payload


def open_replay(rest: str) -> Replay:
    """The replay that `replay:<rest>` asks for.

    Raises:
        ConfigError: no file there, or a parameter that is not one.
    """
    path, _, query = rest.rpartition("?")
    if not path or "=" not in query:
        path, query = rest, ""
    parameters = Parameters("replay", split_query("replay", query), PARAMETERS)
    if "rate" in parameters and "speed" in parameters:
        raise ConfigError("replay: speed and rate exclude each other; give one of them")
    rate = parameters.whole("rate", 0, low=1, high=10_000_000) or None
    return Replay(
        path,
        speed=None if parameters.is_max("speed") else parameters.factor("speed", 1.0),
        rate=rate,
        kind=parameters.choice("kind", KINDS),
    )
