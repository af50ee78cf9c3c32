"""How long a lost connection waits for the next."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from support.fake_time import FakeTime
from support.feeds import ListFeed
from tickhouse.errors import FeedClosedError
from tickhouse.source.feed import Delivery
from tickhouse.stream.recorder import RECONNECT_S_MAX, STABLE_S, Recorder
from tickhouse.stream.sqlite import SqliteLog


class DroppedFeed(ListFeed):
    """Is dropped at once, or after a while, and notes how long it was not connected."""

    def __init__(
        self, clock: FakeTime, lives_s: Sequence[float], *, retry_after_s: float = 0
    ) -> None:
        super().__init__([], resumes=False)
        self.clock, self.lives_s, self.retry_after_s = clock, list(lives_s), retry_after_s
        self.dropped_at: float | None = None
        self.waits_s: list[float] = []

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        if self.dropped_at is not None:
            self.waits_s.append(self.clock.monotonic() - self.dropped_at)
        if not self.lives_s:
            return
        self.clock.elapsed_s += self.lives_s.pop(0)
        self.dropped_at = self.clock.monotonic()
        raise FeedClosedError("dropped", retry_after_s=self.retry_after_s)
        yield


def waits(
    path: Path,
    lives_s: Sequence[float],
    *,
    jitter: Callable[[float, float], float] = lambda _low, high: high,
    retry_after_s: float = 0,
) -> list[float]:
    clock = FakeTime()
    feed = DroppedFeed(clock, lives_s, retry_after_s=retry_after_s)
    log = SqliteLog(path / "log.db")
    recorder = Recorder(feed, log, commit_ms=1, clock=clock)
    recorder.jitter = jitter
    asyncio.run(recorder.run(asyncio.Event()))
    log.close()
    return feed.waits_s


def test_the_wait_doubles_up_to_a_minute(tmp_path: Path) -> None:
    assert waits(tmp_path, [0] * 8) == [1, 2, 4, 8, 16, 32, RECONNECT_S_MAX, RECONNECT_S_MAX]


def test_a_minute_without_trouble_begins_anew(tmp_path: Path) -> None:
    assert waits(tmp_path, [0, 0, 0, STABLE_S + 1, 0]) == [1, 2, 4, 1, 2]


def test_less_than_a_minute_does_not(tmp_path: Path) -> None:
    assert waits(tmp_path, [0, 0, 0, STABLE_S - 1, 0]) == [1, 2, 4, 8, 16]


def test_jitter_takes_up_to_half_of_the_wait(tmp_path: Path) -> None:
    assert waits(tmp_path, [0] * 4, jitter=lambda low, _high: low) == [0.5, 1, 2, 4]


def test_what_the_feed_asks_for_is_waited_for(tmp_path: Path) -> None:
    assert waits(tmp_path, [0] * 4, retry_after_s=3) == [3, 3, 4, 8]
