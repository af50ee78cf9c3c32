"""The REST budget of a plan: calls a minute, 30 a second at most, pauses as the server asks."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from tickhouse.clock import NANOS_PER_S, Clock

MINUTE_S: Final = 60.0
CALLS_PER_SECOND_MAX: Final = 30
"""Hard limit of every plan."""
BURST_SHARE: Final = 6
"""A burst after idleness is at most this part of a minute's calls (and 30)."""
JITTER_S: Final = 2.0


class Budget:
    """Hands out turns: a token bucket inside sliding windows, so no 60 s ever hold more calls.

    Turns are given in the order asked for. After a pause, or a full window, calls go on evenly:
    the bucket starts empty.

    Args:
        calls_per_minute: what the plan allows.
        clock: paces.
        chance: uniform between two numbers; spreads what waits for the same moment.
    """

    def __init__(
        self,
        calls_per_minute: int,
        *,
        clock: Clock,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.rate = calls_per_minute / MINUTE_S
        self.burst = max(1, min(CALLS_PER_SECOND_MAX, calls_per_minute // BURST_SHARE))
        self._clock = clock
        self._chance = chance
        self._calls: deque[float] = deque(maxlen=calls_per_minute)
        self._tokens = float(self.burst)
        self._refilled_at = clock.monotonic()
        self._paused_until = self._refilled_at
        self._order = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until one more call is allowed, and count it."""
        async with self._order:
            while (wait_s := self._wait_s()) > 0:
                await self._clock.sleep(wait_s)
            self._tokens -= 1
            self._calls.append(self._clock.monotonic())

    def _wait_s(self) -> float:
        now = self._clock.monotonic()
        blocked_s = max(self._paused_until, self._windows_open_at()) - now
        if blocked_s > 0:
            self._tokens, self._refilled_at = 1.0, now + blocked_s
            return blocked_s
        idle_s = max(0.0, now - self._refilled_at)
        self._tokens = min(self.burst, self._tokens + idle_s * self.rate)
        self._refilled_at = max(now, self._refilled_at)
        return (1 - self._tokens) / self.rate

    def _windows_open_at(self) -> float:
        """When neither the minute's nor the second's window is full (monotonic seconds)."""
        calls = self._calls
        opens_at = float("-inf")
        if calls and len(calls) == calls.maxlen:
            opens_at = calls[0] + MINUTE_S
        if len(calls) >= CALLS_PER_SECOND_MAX:
            opens_at = max(opens_at, calls[-CALLS_PER_SECOND_MAX] + 1.0)
        return opens_at

    def pause(self, seconds: float) -> None:
        """No turn for so long; a longer pause in force stays."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def pause_to_next_minute(self, now_ns: int) -> None:
        """No turn until the minute changes on the clock that says `now_ns`, and a little longer."""
        into_minute_s = now_ns / NANOS_PER_S % MINUTE_S
        self.pause(MINUTE_S - into_minute_s + self._chance(0.0, JITTER_S))

    def learn(self, remaining: int, now_ns: int) -> None:
        """The server's own count of calls left, which others with the same key use up too."""
        if remaining <= 0:
            self.pause_to_next_minute(now_ns)
        self._tokens = min(self._tokens, float(remaining))

    @property
    def paused_s(self) -> float:
        """Seconds that a pause still lasts; 0 = none."""
        return max(0.0, self._paused_until - self._clock.monotonic())
