"""`record`: frames from a feed into the log, acknowledged once durable (group commit).

Each connection ("shard") is one session and writes to its own partition. Frames gather in one
buffer that a committer empties into the log every few milliseconds, in one transaction over all
partitions, so a session's `opened` event is never younger than its frames. Only then is the feed
told. Where the log cannot take more, or its disk is nearly full, a shard that loses nothing by it
waits; one that cannot is shed, with a recorded gap.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from tickhouse.clock import SYSTEM_CLOCK, Clock
from tickhouse.errors import FeedClosedError, RefusedError, TransientError
from tickhouse.model.frame import FRAME_BYTES_MAX, encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Imported, Opened, SessionEvent, encode_event
from tickhouse.source.feed import Arrivals, Delivery, Feed, Together
from tickhouse.stream.history import LogHistory
from tickhouse.stream.log import Append, Log
from tickhouse.stream.session import OpenSession, find_resume_point, gap_of_refused
from tickhouse.stream.shedding import CHECK_S, FreeSpace, runs_of_numbers
from tickhouse.telemetry import Report, get_logger

RECONNECT_S_MAX: Final = 60.0
STABLE_S: Final = 60.0
"""A connection that lived so long starts the backoff anew."""
RETRY_S: Final = 1.0
REPORT_S: Final = 1.0
"""An idle recorder says so this often."""

_log = get_logger("record")


class Recorder:
    """Records one feed until it is drained or stopped.

    Args:
        feed: where frames come from.
        log: where they go; this is its one writer.
        commit_ms: a frame waits at most this long for its commit.
        commit_bytes: a buffer of this size is committed at once.
        buffer_bytes: above this the connections wait (or, if they cannot, are shed).
        clock: of receipts, waits and backoff.
        report: told the state and the facts of the moment after each commit.

    Attributes:
        first_shard: number of the feed's first shard, and so of the first partition written to. A
            feed that is recorded now and then beside another must not end that one's sessions.
        space: whether the log's disk has room; None = it is not looked at before it is full.
        jitter: draws the part of a backoff that is waited for, such as `random.uniform`.
        committed: called after each commit, in the loop's thread; must not block.
    """

    first_shard = 0
    space: FreeSpace | None = None

    def __init__(
        self,
        feed: Feed,
        log: Log,
        *,
        commit_ms: int = 10,
        commit_bytes: int = 4 << 20,
        buffer_bytes: int = 64 << 20,
        clock: Clock = SYSTEM_CLOCK,
        report: Report = lambda _state, _facts: None,
    ) -> None:
        self._feed = feed
        self._log = log
        self._commit_s = commit_ms / 1000
        self._commit_bytes = commit_bytes
        self._buffer_bytes = buffer_bytes
        self._clock = clock
        self._report = report
        self._buffer: dict[TopicPartition, list[bytes]] = {}
        self._buffered = 0
        self._cursors: dict[int, int] = {}
        self._filled = asyncio.Event()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._all_durable = asyncio.Event()
        self._done = False
        self._refused_since: str | None = None
        self.jitter: Callable[[float, float], float] = random.uniform
        self.committed: Callable[[], None] = lambda: None
        self.frames = 0
        self.refused = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Record until the feed is drained or `stop` is set; everything received is committed.

        Raises:
            ConfigError: the feed refuses for good.
        """
        self._feed.begin(LogHistory(self._log))
        committer = asyncio.create_task(self._commit_until_done())
        shards = [
            asyncio.create_task(self._record_shard(self.first_shard + number))
            for number in range(self._feed.shards)
        ]
        stopper = asyncio.create_task(stop.wait())
        try:
            await self._wait(shards, committer, stopper)
        finally:
            await _cancel([*shards, stopper])
            self._done = True
            self._filled.set()
            self._wake.set()
            await committer
            self._feed.close()
        for shard in shards:
            if not shard.cancelled() and (error := shard.exception()) is not None:
                raise error

    @staticmethod
    async def _wait(
        shards: list[asyncio.Task[None]],
        committer: asyncio.Task[None],
        stopper: asyncio.Task[bool],
    ) -> None:
        """Wait for the stop, the last shard, the first error, whichever comes first."""
        running: set[asyncio.Task[None]] = set(shards)
        while running and not stopper.done() and not committer.done():
            done, _ = await asyncio.wait(
                {*running, committer, stopper}, return_when=asyncio.FIRST_COMPLETED
            )
            running -= done
            if any(task.exception() for task in done if task is not stopper):
                return

    async def _record_shard(self, shard: int) -> None:
        backoff_s = RETRY_S
        while True:
            started = self._clock.monotonic()
            try:
                await self._record_session(shard)
            except FeedClosedError as error:
                if self._clock.monotonic() - started > STABLE_S:
                    backoff_s = RETRY_S
                delay_s = max(error.retry_after_s, backoff_s * self.jitter(0.5, 1.0))
                _log.warning("session_lost", shard=shard, reason=error.reason, retry_s=delay_s)
                await self._clock.sleep(delay_s)
                await self._all_durable.wait()
                backoff_s = min(backoff_s * 2, RECONNECT_S_MAX)
            else:
                return

    async def _record_session(self, shard: int) -> None:
        resume = find_resume_point(self._log, shard, self._feed.url)
        cursor = resume.cursor if self._feed.resumes else 0
        session = OpenSession(shard)
        self._cursors[shard] = cursor
        opened = Opened(
            at=self._clock.time_ns(),
            shard=shard,
            feed=self._feed.url,
            mode=self._feed.mode,
            cursor=cursor if self._feed.resumes else None,
            previous=resume.previous,
        )
        self._put_event(session, opened)
        _log.info("session_opened", shard=shard, session=session.id, cursor=cursor)
        reason = "stopped"
        arrivals = self._feed.connect(shard, cursor)
        try:
            async for item in arrivals:
                self._take(session, item)
                await self._wait_for_room(session)
            reason = "drained"
        except FeedClosedError as error:
            reason = error.reason
            raise
        finally:
            await _close(arrivals)
            self._tell_shed(session)
            self._put_event(session, session.closed(self._clock.time_ns(), reason))
            _log.info("session_closed", shard=shard, session=session.id, reason=reason)

    def _take(self, session: OpenSession, item: Delivery | Imported) -> None:
        if isinstance(item, Together):
            for each in item.items:  # without a pause between, so that one commit takes them all
                self._take(session, each)
            return
        if not isinstance(item, Arrivals):
            self._put_event(session, item)
            return
        count = len(item.payloads)
        first = session.take_numbers(item.stream, count)
        shortage = self._shortage()
        if shortage is not None and not self._feed.waits(session.shard):
            if not session.shed:
                _log.error("feed_shed", session=session.id, seq=first, cause=shortage)
            session.shed.add(item.stream, first, count, item.received_at_ns, shortage)
            self.refused += count
            return
        self._tell_shed(session)
        frames = encode_frames(
            item.payloads,
            source=item.source or self._feed.source,
            session=session.id,
            first_seq=first,
            received_at_ns=item.received_at_ns,
            symbol=item.symbol,
        )
        if max(map(len, frames), default=0) > FRAME_BYTES_MAX:
            frames = self._without_oversized(session, item, first, frames)
        self._put(TopicPartition(item.stream, session.shard), frames)
        self._cursors[session.shard] += count

    def _shortage(self) -> str | None:
        return None if self.space is None else self.space.shortage()

    def _tell_shed(self, session: OpenSession) -> None:
        """What was shed while the disk was nearly full, if anything was."""
        for gap in session.shed.end(self._clock.time_ns()):
            self._put_event(session, gap)
            _log.info("feed_taken_again", session=session.id, seq_to=gap.seq_to)

    def _without_oversized(
        self, session: OpenSession, item: Arrivals, first: int, frames: list[bytes]
    ) -> list[bytes]:
        symbols = [] if item.symbol is None else [item.symbol]
        for seq, frame in enumerate(frames, first):
            if len(frame) > FRAME_BYTES_MAX:
                cause = f"frame of {len(frame)} bytes is over the limit of {FRAME_BYTES_MAX}"
                at = self._clock.time_ns()
                self._put_event(session, gap_of_refused(item.stream, seq, 1, at, cause, symbols))
                self.refused += 1
                _log.error("frame_refused", session=session.id, seq=seq, cause=cause)
        return [frame for frame in frames if len(frame) <= FRAME_BYTES_MAX]

    async def _wait_for_room(self, session: OpenSession) -> None:
        while self._shortage() is not None and self._feed.waits(session.shard):
            await self._clock.sleep(CHECK_S)
        while self._buffered >= self._buffer_bytes:
            if self._refused_since is not None and not self._feed.waits(session.shard):
                self._shed(session)
                return
            self._room.clear()
            self._wake.set()
            await self._room.wait()

    def _shed(self, session: OpenSession) -> None:
        """Drop what a feed that cannot wait delivered while the log takes nothing: a gap."""
        cause = f"shed: {self._refused_since}"
        for partition in [TopicPartition(stream, session.shard) for stream in session.messages]:
            frames = [] if partition.stream is Stream.SESSIONS else self._buffer.pop(partition, [])
            if not frames:
                continue
            self._buffered -= sum(map(len, frames))
            self.refused += len(frames)
            for seq, count in runs_of_numbers(frames):
                at = self._clock.time_ns()
                self._put_event(session, gap_of_refused(partition.stream, seq, count, at, cause))
                _log.error("frames_shed", session=session.id, seq=seq, n=count, cause=cause)

    def _put_event(self, session: OpenSession, event: SessionEvent) -> None:
        seq = session.take_numbers(Stream.SESSIONS, 1)
        frame = encode_event(event, session=session.id, seq=seq)
        self._put(TopicPartition(Stream.SESSIONS, session.shard), [frame])

    def _put(self, partition: TopicPartition, frames: list[bytes]) -> None:
        self._buffer.setdefault(partition, []).extend(frames)
        self._buffered += sum(map(len, frames))
        self._all_durable.clear()
        self._filled.set()
        if self._buffered >= self._commit_bytes:
            self._wake.set()

    # -- committing ---------------------------------------------------------------------------

    async def _commit_until_done(self) -> None:
        while not (self._done and not self._buffer):
            if not self._buffer:
                await _wait_for(self._filled, REPORT_S)
            self._filled.clear()
            if not self._done:
                await _wait_for(self._wake, self._commit_s)
            self._wake.clear()
            if self._buffer:
                await self._commit()
            shortage = self._shortage()
            if shortage is None:
                self._report("running", self._facts())
            else:
                self._report("failed", {**self._facts(), "error": shortage})

    async def _commit(self) -> None:
        taken, self._buffer = self._buffer, {}
        size, cursors = self._buffered, dict(self._cursors)
        appends = [Append(partition, values) for partition, values in taken.items()]
        try:
            await asyncio.to_thread(self._log.append, appends)
        except (RefusedError, TransientError) as error:
            self._put_back(taken)
            await self._refused(error)
            return
        if self._refused_since is not None:
            self._refused_since = None
            self._log.restore_reserve()
            _log.info("log_writable_again")
        self._buffered -= size
        self.frames += sum(
            len(values) for place, values in taken.items() if place.stream is not Stream.SESSIONS
        )
        if self._buffered < self._buffer_bytes:
            self._room.set()
        if not self._buffer:
            self._all_durable.set()
        self.committed()
        for shard, cursor in cursors.items():
            self._feed.acknowledge(shard, cursor)

    def _put_back(self, taken: dict[TopicPartition, list[bytes]]) -> None:
        """Nothing was appended: what was taken goes in front of what has come since."""
        for partition, values in taken.items():
            self._buffer[partition] = values + self._buffer.get(partition, [])

    async def _refused(self, error: RefusedError | TransientError) -> None:
        if self._refused_since is None:
            _log.error("log_refused", error=str(error))
        self._refused_since = str(error)
        self._room.set()
        self._log.release_reserve()
        self._report("failed", {**self._facts(), "error": str(error)})
        if self._done:
            raise error
        await asyncio.sleep(RETRY_S)

    def _facts(self) -> dict[str, object]:
        return {
            "feed": self._feed.url,
            "mode": self._feed.mode,
            "source": self._feed.source,
            "frames": self.frames,
            "refused": self.refused,
            "buffered_bytes": self._buffered,
            "cursors": {str(shard): cursor for shard, cursor in self._cursors.items()},
        }


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or the time is over, which sets it too."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _close(arrivals: AsyncIterator[Delivery]) -> None:
    close = getattr(arrivals, "aclose", None)
    if close is not None:
        await close()
