"""`replay:<file, folder, pattern or lake>?speed=1`: recorded frames through the live path.

Messages come in the order and at the pace in which they were recorded (`speed` times it, or as
fast as it goes); messages without a recorded time come at once, or `rate` a second. Nothing is
dropped: a line that is not JSON is delivered as it is. The receipt is that of the replay.

`from` and `to` cut by recorded time, `symbols` by symbol (messages are then cut to the trades of
these), `times` repeats the whole. `replay:lake` is the configured lake, `replay:file:///…` and
`replay:s3://…` are others.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.model.units import NANOS_PER_MICRO, NANOS_PER_SECOND, read_moment
from tickhouse.source.cutting import cut
from tickhouse.source.feed import Arrivals, History
from tickhouse.source.parameters import Parameters, split_query
from tickhouse.source.recording import (
    KINDS,
    find_files,
    fingerprint,
    kind_of,
    read_blocks,
    read_messages,
)

PARAMETERS: Final = ("speed", "rate", "kind", "from", "to", "symbols", "times")
STORE_PARAMETERS: Final = ("endpoint", "region", "path_style")
"""Of a bucket's address, not of the replay."""
BLOCK_MESSAGES: Final = 1000
TICK_S: Final = 0.01
OWN_LAKE: Final = "lake"
TIMES_MAX: Final = 1_000_000


class Recorded(NamedTuple):
    """A recorded message.

    Attributes:
        received_at_ns: recorded receipt, UNIX nanoseconds UTC; 0 = unknown.
        payload, symbol, stream: see `Arrivals`.
        kind: payload kind, without a mode.
    """

    received_at_ns: int
    payload: bytes
    kind: str
    symbol: str | None = None
    stream: Stream = Stream.TRADES


class Cut(msgspec.Struct, frozen=True):
    """What of a recording is replayed.

    Attributes:
        received_from, received_to: recorded receipts, UNIX nanoseconds UTC, inclusive; None = open.
        symbols: only trades of these; empty = everything, byte for byte.
        times: how often.
        text: as in the address; a cursor counts for the same cut only.
    """

    received_from: int | None = None
    received_to: int | None = None
    symbols: frozenset[str] = frozenset()
    times: int = 1
    text: str = ""

    def of(self, messages: Iterator[Recorded]) -> Iterator[Recorded]:
        """The messages that are replayed, once."""
        for message in messages:
            if self.received_from is not None and message.received_at_ns < self.received_from:
                continue
            if self.received_to is not None and message.received_at_ns > self.received_to:
                continue
            if not self.symbols:
                yield message
                continue
            payload = cut(message.payload, message.kind, self.symbols, symbol=message.symbol)
            if payload is not None:
                yield message._replace(payload=payload)


LakeReader = Callable[[str, Cut], Iterator[Recorded]]
"""Frames of a lake ("" = the configured one) in order of receipt, at least those of the cut.

Raises ConfigError at once where there is no lake.
"""


class Recording(msgspec.Struct, frozen=True):
    """Something to replay.

    Attributes:
        url: its identity: a cursor counts for the same one only.
        source: mode and payload kind; "replay" where frames say theirs themselves.
        read: all messages, from the first on.
        is_asked_for: whether it is an error that there are none.
    """

    url: str
    source: str
    read: Callable[[], Iterator[Recorded]]
    is_asked_for: bool = True


class Replay:
    """Recorded frames as a feed of one shard that ends, and that can resume.

    Args:
        recording: what is replayed.
        speed: times the recorded pace; None = as fast as it goes.
        rate: messages a second instead of the recorded pace.
        times: how often the whole comes.
        clock: monotonic seconds.
        clock_ns: UNIX nanoseconds UTC.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        speed: float | None = None,
        rate: int | None = None,
        times: int = 1,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = recording.url
        self.source = recording.source
        self._read = recording.read
        self._is_asked_for = recording.is_asked_for
        self._times = times
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
        """See `Feed.connect`; the cursor counts the messages of all repetitions."""
        found = 0
        for _ in range(self._times):
            messages = self._read()
            skipped = await self._skip(messages, cursor)
            cursor -= skipped
            found += skipped
            if cursor:
                continue
            async for arrivals in self._deliver(messages):
                found += len(arrivals.payloads)
                yield arrivals
            if not found and self._is_asked_for:
                raise ConfigError(f"{self.url}: nothing there to replay")

    async def _deliver(self, messages: Iterator[Recorded]) -> AsyncIterator[Arrivals]:
        if self._rate is not None:
            messages = _at_rate(messages, self._rate)
        is_paced = self._rate is not None or self._speed is not None
        pace = _Pace(self._speed or 1.0, self._clock)
        for block in read_blocks(messages, BLOCK_MESSAGES):
            start = 0
            while start < len(block):
                end = pace.reach(block, start) if is_paced else len(block)
                for arrivals in _together(block[start:end], self._clock_ns()):
                    yield arrivals
                is_early = end < len(block)
                await self._sleep(max(TICK_S, pace.wait_s(block[end])) if is_early else 0)
                start = end

    async def _skip(self, messages: Iterator[Recorded], count: int) -> int:
        """Pass over so many messages; how many there were."""
        skipped = 0
        while skipped < count:
            step = min(count - skipped, BLOCK_MESSAGES)
            found = sum(1 for _ in islice(messages, step))
            skipped += found
            if found < step:
                break
            await self._sleep(0)
        return skipped

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to remember: the log's end is the position."""

    def close(self) -> None:
        """Nothing to release."""


def _together(messages: list[Recorded], received_at_ns: int) -> Iterator[Arrivals]:
    """Messages as arrivals, one a run of the same kind, symbol and stream."""
    for (kind, symbol, stream), run in groupby(messages, itemgetter(2, 3, 4)):
        payloads = [message.payload for message in run]
        yield Arrivals(payloads, received_at_ns, stream, symbol, f"replay:{kind}")


class _Pace:
    """Which messages are due: recorded time runs `speed` times as fast as the clock."""

    def __init__(self, speed: float, clock: Callable[[], float]) -> None:
        self._speed = speed
        self._clock = clock
        self._first_ns: int | None = None
        self._started = 0.0

    def reach(self, block: list[Recorded], start: int) -> int:
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

    def wait_s(self, message: Recorded) -> float:
        """Seconds until a message is due."""
        return (message[0] - self._reached_ns(message[0])) / NANOS_PER_SECOND / self._speed


def _at_rate(messages: Iterator[Recorded], rate: int) -> Iterator[Recorded]:
    """The messages as if recorded at an even rate."""
    for number, message in enumerate(messages):
        yield message._replace(received_at_ns=1 + number * NANOS_PER_SECOND // rate)


def open_replay(rest: str, read_lake: LakeReader | None = None) -> Replay:
    """The replay that `replay:<rest>` asks for.

    Args:
        rest: path and parameters.
        read_lake: opens lakes; None = there are none.

    Raises:
        ConfigError: nothing there, or a parameter that is not one.
    """
    path, values = _split(rest)
    parameters = Parameters("replay", values, PARAMETERS)
    if "rate" in parameters and "speed" in parameters:
        raise ConfigError("replay: speed and rate exclude each other; give one of them")
    wanted = read_cut(parameters)
    if path == OWN_LAKE or path.startswith(("file:", "s3:")):
        if read_lake is None:
            raise ConfigError(f"replay: no lake can be read here: {path}")
        if "kind" in parameters:
            raise parameters.bad("kind", "it for files only: a lake knows its kinds")
        lake = "" if path == OWN_LAKE else path
        read_lake(lake, wanted)
        recording = Recording(
            f"replay:{path}{wanted.text}", "replay", lambda: wanted.of(read_lake(lake, wanted))
        )
    else:
        recording = recording_of_files(path, parameters.choice("kind", KINDS), wanted)
    return Replay(
        recording,
        speed=_speed(parameters),
        rate=parameters.whole("rate", 0, low=1, high=10_000_000, or_max=True) or None,
        times=wanted.times,
    )


def _split(rest: str) -> tuple[str, dict[str, str]]:
    """Where the recording is, and the parameters of its replay; a bucket keeps its own."""
    path, _, query = rest.rpartition("?")
    if not path or "=" not in query:
        path, query = rest, ""
    values = split_query("replay", query)
    if path.startswith("s3:"):
        kept = [f"{name}={values.pop(name)}" for name in STORE_PARAMETERS if name in values]
        path = f"{path}?{'&'.join(kept)}" if kept else path
    return path, values


def _speed(parameters: Parameters) -> float | None:
    """Times the recorded pace; None = as fast as it goes."""
    if parameters.is_max("speed") or parameters.is_max("rate"):
        return None
    return parameters.factor("speed", 1.0)


def recording_of_files(path: str, kind: str | None = None, wanted: Cut | None = None) -> Recording:
    """The recording in files.

    Args:
        path: a file, a folder or a pattern; several separated by commas.
        kind: what the messages are; None = by the look of the first lines.
        wanted: what of it; None = everything.

    Raises:
        ConfigError: nothing found under the path, or unreadable.
    """
    wanted = wanted or Cut()
    files = find_files(path)
    known = kind or kind_of(files)

    def read() -> Iterator[Recorded]:
        return wanted.of(Recorded(*message, known) for message in read_messages(files))

    url = f"replay:{path}{wanted.text}#{fingerprint(files)}"
    return Recording(url, f"replay:{known}", read, is_asked_for=bool(wanted.text))


def read_cut(parameters: Parameters) -> Cut:
    """What of the recording an address asks for.

    Raises:
        ConfigError: not a time, or a range that holds nothing.
    """
    bounds = [_moment(parameters, name) for name in ("from", "to")]
    if None not in bounds and bounds[0] > bounds[1]:  # type: ignore[operator]
        raise parameters.bad("to", "a moment after from")
    symbols = sorted(filter(None, (parameters.text("symbols") or "").upper().split(",")))
    if "symbols" in parameters and not symbols:
        raise parameters.bad("symbols", "some, such as AAPL,MSFT")
    times = parameters.whole("times", 1, low=1, high=TIMES_MAX)
    given = {
        "from": parameters.text("from"),
        "to": parameters.text("to"),
        "symbols": ",".join(symbols),
        "times": parameters.text("times"),
    }
    text = "&".join(f"{name}={value}" for name, value in given.items() if value)
    return Cut(bounds[0], bounds[1], frozenset(symbols), times, f"?{text}" if text else "")


def _moment(parameters: Parameters, name: str) -> int | None:
    """A moment in UNIX nanoseconds UTC; without a zone it is UTC."""
    text = parameters.text(name)
    if text is None:
        return None
    try:
        return read_moment(text) + (NANOS_PER_MICRO - 1 if name == "to" else 0)
    except ValueError:
        raise parameters.bad(name, "a moment such as 2026-03-02T14:30:00Z") from None
