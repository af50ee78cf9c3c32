"""A feed for tests: delivers what it is given, and can break."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from tickhouse.errors import FeedClosedError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.feed import Arrivals, Delivery, History


class ListFeed:
    """Delivers the same list of payloads on each shard, from a cursor on.

    Args:
        payloads: the messages.
        breaks_after: message counts after which the connection is dropped, once each.
        resumes: whether it honours the cursor.
        waits: stay open after the last message instead of draining.
        pause_every: let commits catch up after so many messages.
    """

    def __init__(
        self,
        payloads: Sequence[bytes],
        *,
        breaks_after: Sequence[int] = (),
        resumes: bool = True,
        waits: bool = False,
        shards: int = 1,
        url: str = "list:",
        batch: int = 1,
        pause_every: int = 0,
    ) -> None:
        self.url = url
        self.source = "sim:finnhub.ws"
        self.mode: Mode = "simulated"
        self.shards = shards
        self.endless = waits
        self.resumes = resumes
        self.payloads = list(payloads)
        self.breaks_after = list(breaks_after)
        self.batch = batch
        self.pause_every = pause_every
        self.acknowledged: dict[int, int] = {}
        self.delivered = asyncio.Event()

    def begin(self, history: History) -> None:
        pass

    def waits(self, shard: int) -> bool:
        return self.resumes

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        for start in range(cursor, len(self.payloads), self.batch):
            if self.breaks_after and start >= self.breaks_after[0]:
                self.breaks_after.pop(0)
                raise FeedClosedError("dropped", retry_after_s=0.001)
            payloads = self.payloads[start : start + self.batch]
            yield Arrivals(payloads, 1_700_000_000_000_000_000 + start, Stream.TRADES)
            paused = self.pause_every and start % self.pause_every == 0
            await asyncio.sleep(0.02 if paused else 0)
        self.delivered.set()
        if self.endless:
            await asyncio.Event().wait()

    def acknowledge(self, shard: int, cursor: int) -> None:
        self.acknowledged[shard] = cursor

    def close(self) -> None:
        pass
