"""What the benchmarks share: frames made beforehand, and how results are printed."""

import asyncio
import json
import logging
import os
import platform
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.address import open_feed
from tickhouse.source.feed import Arrivals, Delivery, History
from tickhouse.source.simulator import Simulator


def quiet() -> None:
    """Only warnings on the terminal."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def show(name: str, result: dict[str, Any]) -> None:
    """One JSON line."""
    machine = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    print(json.dumps({"benchmark": name, **result, "machine": machine}), flush=True)


def simulated_frames(count: int, *, batch: int = 10, seed: int = 7) -> list[bytes]:
    """Frames of the simulator, made beforehand."""
    feed = open_feed(f"sim://sp500?symbols=100&batch={batch}&seed={seed}&date=2026-03-02")
    assert isinstance(feed, Simulator)
    return feed.frames(0, 0, count)


class FramesFeed:
    """Frames from memory at a rate, the same ones over and over.

    Args:
        frames: made beforehand.
        total: how many to deliver.
        rate: frames a second; None = as fast as they are taken.
    """

    def __init__(self, frames: Sequence[bytes], total: int, rate: float | None) -> None:
        self.url = "frames:"
        self.source = "sim:finnhub.ws"
        self.mode: Mode = "simulated"
        self.shards = 1
        self.endless = False
        self.resumes = True
        self._frames = frames
        self._total = total
        self._rate = rate

    def begin(self, history: History) -> None:
        """Nothing to know."""

    def waits(self, shard: int) -> bool:  # noqa: ARG002 - all alike
        """What is not taken comes later."""
        return True

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:  # noqa: ARG002
        """See `Feed.connect`."""
        started = time.monotonic()
        done = cursor
        while done < self._total:
            due = self._total
            if self._rate is not None:
                due = min(due, int((time.monotonic() - started) * self._rate) + 1)
            if due > done:
                at = done % len(self._frames)
                block = list(self._frames[at : at + min(due - done, 2000)])
                done += len(block)
                yield Arrivals(block, time.time_ns())
            await asyncio.sleep(0 if due > done else 0.001)

    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
