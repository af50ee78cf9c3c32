"""A disk that is nearly full: noticed before it is, and what is not taken meanwhile is counted."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from typing_extensions import override

from tickhouse.clock import Clock
from tickhouse.model.frame import decode_envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.telemetry import get_logger

CHECK_S: Final = 1.0
MIB: Final = 1 << 20

_log = get_logger("record")


class FreeSpace:
    """Whether the log's disk has room for more than what is kept free.

    Args:
        free_bytes: what is free now.
        minimum: below so much the disk counts as nearly full; 0 = never.
        clock: of the checks, one a second.
    """

    def __init__(self, free_bytes: Callable[[], int], minimum: int, *, clock: Clock) -> None:
        self._free_bytes = free_bytes
        self._minimum = minimum
        self._clock = clock
        self._checked_at = float("-inf")
        self._shortage: str | None = None

    def shortage(self) -> str | None:
        """Why nothing more should be taken, in words; None while there is room."""
        now = self._clock.monotonic()
        if self._minimum and now - self._checked_at >= CHECK_S:
            self._checked_at = now
            self._look()
        return self._shortage

    def _look(self) -> None:
        free = self._free_bytes()
        was_short, self._shortage = self._shortage is not None, None
        if free < self._minimum:
            self._shortage = (
                f"disk nearly full: {free // MIB} MiB free, {self._minimum // MIB} MiB are kept"
                " (record_free_bytes)"
            )
        if was_short and self._shortage is None:
            _log.info("disk_has_room_again", free_bytes=free)
        elif self._shortage is not None and not was_short:
            _log.error("disk_nearly_full", error=self._shortage, does="polls pause, sockets shed")


class SpoolRoom(FreeSpace):
    """Whether the disk and the spool have room: one that Kafka does not empty grows to its limit.

    Args:
        free_bytes, minimum, clock: see `FreeSpace`.
        spool_bytes: size of the spool now.
        spool_bytes_max: its limit.
    """

    def __init__(
        self,
        free_bytes: Callable[[], int],
        minimum: int,
        *,
        clock: Clock,
        spool_bytes: Callable[[], int],
        spool_bytes_max: int,
    ) -> None:
        super().__init__(free_bytes, minimum, clock=clock)
        self._spool = FreeSpace(lambda: spool_bytes_max - spool_bytes(), 1, clock=clock)
        self._spool_bytes_max = spool_bytes_max

    @override
    def shortage(self) -> str | None:
        """See `FreeSpace.shortage`."""
        if (found := super().shortage()) is not None:
            return found
        if self._spool.shortage() is None:
            return None
        return f"spool full: {self._spool_bytes_max // MIB} MiB wait for Kafka (spool_bytes)"


class _Span(msgspec.Struct):
    seq: int
    count: int
    time_from: int
    time_to: int


class Shed:
    """Message numbers of one session that were not taken: one gap a stream, however many."""

    def __init__(self) -> None:
        self._spans: dict[Stream, _Span] = {}
        self._cause = ""

    def __bool__(self) -> bool:
        """Whether something was not taken."""
        return bool(self._spans)

    def add(self, stream: Stream, seq: int, count: int, at: int, cause: str) -> None:
        """Messages `seq .. seq + count - 1`, received at `at` (UNIX nanoseconds UTC)."""
        self._cause = cause
        span = self._spans.setdefault(stream, _Span(seq, 0, at, at))
        span.count += count
        span.time_to = at

    def end(self, at: int) -> Iterator[Gap]:
        """The gaps, at the end of the shortage."""
        for stream, span in self._spans.items():
            last = span.seq + span.count - 1
            cause = f"shed: {self._cause}"
            yield Gap(at, stream, span.seq, last, span.time_from, span.time_to, [], cause)
        self._spans = {}


def runs_of_numbers(frames: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """First number and count of each unbroken run of message numbers in frames of one session.

    What lies between two runs was told of before, or is in the log.
    """
    first = count = 0
    for envelope in map(decode_envelope, frames):
        if envelope is None:
            continue
        if count and envelope.seq == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = envelope.seq, 1
    if count:
        yield first, count
