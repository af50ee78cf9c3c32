"""Time for tests: a clock that only `sleep` moves."""

import asyncio


class FakeTime:
    """Monotonic seconds, UNIX nanoseconds and a sleep that agree with one another.

    Args:
        start_s: UNIX seconds at which it starts.
    """

    def __init__(self, start_s: int = 1_700_000_000) -> None:
        self._start_s = start_s
        self.elapsed_s = 0.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.elapsed_s

    def ns(self) -> int:
        return self._start_s * 1_000_000_000 + int(self.elapsed_s * 1e9)

    def time_ns(self) -> int:
        return self.ns()

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.elapsed_s += seconds
        await asyncio.sleep(0)
