"""Record a feed that never ends, until a test has seen enough."""

import asyncio
from collections.abc import Callable

from tickhouse.clock import Clock
from tickhouse.source.feed import Feed
from tickhouse.stream.log import Log
from tickhouse.stream.recorder import Recorder

WAIT_S = 60.0


async def record_until(
    log: Log,
    feed: Feed,
    clock: Clock,
    is_enough: Callable[[Recorder], bool],
    *,
    shard: int = 0,
) -> None:
    """Record until something is so, or the feed ends; what was received is durable then."""
    stop = asyncio.Event()
    recorder = Recorder(feed, log, clock=clock)
    recorder.first_shard = shard
    running = asyncio.create_task(recorder.run(stop))
    async with asyncio.timeout(WAIT_S):
        while not is_enough(recorder) and not running.done():  # noqa: ASYNC110 - counters
            await asyncio.sleep(0.01)
        stop.set()
        await running
