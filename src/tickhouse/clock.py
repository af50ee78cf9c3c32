"""The one clock: production reads the system's, tests and proofs one that runs faster.

Time-outs, backoff and pacing use `monotonic` and `sleep`; `time_ns` is data (receipts, events).
A scaled clock moves all three together, so a day with silences of minutes passes in minutes.
"""

import asyncio
import time
from typing import Final, Protocol

from typing_extensions import override

NANOS_PER_S: Final = 1_000_000_000


class Clock(Protocol):
    """What time it is, and how to wait."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def time_ns(self) -> int:
        """Wall clock, UNIX nanoseconds UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of this clock."""
        ...


class SystemClock(Clock):
    """The machine's own clocks."""

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    def time_ns(self) -> int:
        return time.time_ns()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ScaledClock(Clock):
    """Runs `speed` times as fast as the machine, from a moment of one's choice.

    Args:
        speed: seconds of this clock in a second of the machine; above 0.
        start_ns: what `time_ns` says first, UNIX nanoseconds UTC; None = now.
    """

    def __init__(self, speed: float, *, start_ns: int | None = None) -> None:
        self.speed = speed
        self._start_ns = time.time_ns() if start_ns is None else start_ns
        self._started = time.monotonic()

    @override
    def monotonic(self) -> float:
        return (time.monotonic() - self._started) * self.speed

    @override
    def time_ns(self) -> int:
        return self._start_ns + int(self.monotonic() * NANOS_PER_S)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)


SYSTEM_CLOCK: Final[Clock] = SystemClock()
