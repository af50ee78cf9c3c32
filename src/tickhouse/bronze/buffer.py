"""What waits to become an object: the lines of one partition, from the chain's tail on.

A draft collects lines. When it is due it becomes a flight, which is packed and put in another
thread, and the draft that follows starts where the flight ends. One flight a partition at a time
keeps the order of objects.
"""

import time
from typing import TYPE_CHECKING, Final

from tickhouse.bronze.chain import Chain, Published
from tickhouse.bronze.object import VERSION, Manifest, pack_text
from tickhouse.model.frame import splice_positions
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.stream.log import LogBatch, SpoolRange

if TYPE_CHECKING:
    from concurrent.futures import Future

BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 30.0


class Draft:
    """Lines of the object that is to start at `start`.

    Attributes:
        start, next: offsets covered, half-open.
        bytes, n: size and number of the lines.
        is_gap: the object says that retention removed `start .. next`.
        born: when the first record was taken, or the first marker; None while empty.
    """

    def __init__(self, start: int) -> None:
        self.start = self.next = start
        self.texts: list[bytes] = []
        self.bytes = self.n = 0
        self.is_gap = False
        self.born: float | None = None
        self._received: list[int] = []
        self._spool: SpoolRange | None = None
        self._has_strangers = False
        self._leader_epoch: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that an object could cover."""
        return self.next == self.start

    @property
    def is_worthy(self) -> bool:
        """Whether there is more than markers of transactions."""
        return self.n > 0 or self.is_gap

    def takes(self, batch: LogBatch) -> bool:
        """Whether a batch may be part of the same object: one spool, and nothing beside a gap."""
        if batch.trimmed:
            return self.is_empty
        return self._spool is None or batch.spool is None or self._spool.epoch == batch.spool.epoch

    def add(self, batch: LogBatch, chain: ChainId, now: float) -> None:
        """Take a batch that follows; of a trimmed one, that its offsets are gone."""
        if batch.values and not self.n:
            self.born = now
        self.born = now if self.born is None else self.born
        spliced = splice_positions(
            batch.values,
            topic_id=chain.topic_id,
            part=batch.partition.part,
            offsets=batch.offsets,
            log_times_ms=batch.log_times_ms,
        )
        if spliced.n:
            self.texts.append(spliced.text)
            self._note_origin(batch)
        self.bytes += len(spliced.text)
        self.n += spliced.n
        self._received += [at for at in (spliced.rx_min, spliced.rx_max) if at is not None]
        self.next = batch.next
        self.is_gap = batch.trimmed

    def _note_origin(self, batch: LogBatch) -> None:
        if batch.leader_epoch is not None:
            self._leader_epoch = batch.leader_epoch
        if batch.spool is None:
            self._has_strangers = True
            return
        first = batch.spool.first if self._spool is None else self._spool.first
        self._spool = SpoolRange(batch.spool.epoch, first, batch.spool.last)

    def lines(self) -> list[bytes]:
        """The lines one by one, without newlines."""
        return b"".join(self.texts).split(b"\n")[:-1]

    def cut(self, n: int, next_offset: int) -> None:
        """Keep the first `n` lines; offsets from `next_offset` on are not covered any more."""
        self.texts = [line + b"\n" for line in self.lines()[:n]]
        self.bytes, self.n = sum(map(len, self.texts)), n
        self.next = next_offset if n else self.start
        self._has_strangers, self._leader_epoch = True, None

    def pack(self, chain: ChainId) -> tuple[bytes, Manifest]:
        """The object that holds what was taken; the same bytes whenever it is asked again."""
        manifest = Manifest(
            ver=VERSION,
            topic=chain.topic,
            topic_id=chain.topic_id,
            part=chain.part,
            start=self.start,
            next=self.next,
            n=self.n,
            gap=self.is_gap,
            rx_min=min(self._received, default=None),
            rx_max=max(self._received, default=None),
            writer="",
            sha256="",
            spool=None if self._has_strangers else self._spool,
            leader_epoch=self._leader_epoch,
        )
        return pack_text(b"".join(self.texts), manifest)


class Flight:
    """An object on its way into the lake; `fly` runs in another thread.

    Attributes:
        start, next: offsets covered, half-open.
        bytes: what it counts for in memory, until it has landed.
        attempt: the one that runs, or has ended and was not looked at yet; else None.
    """

    def __init__(self, draft: Draft, chain: Chain) -> None:
        self.start, self.next, self.bytes = draft.start, draft.next, draft.bytes
        self.born = draft.born
        self.attempt: Future[Published] | None = None
        self._chain = chain
        self._draft: Draft | None = draft
        self._packed: tuple[bytes, Manifest] | None = None
        self._took_off = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was closed."""
        return time.monotonic() - self._took_off

    @property
    def is_running(self) -> bool:
        """Whether an attempt has not ended."""
        return self.attempt is not None and not self.attempt.done()

    @property
    def body_bytes(self) -> int:
        """Size of the object."""
        return 0 if self._packed is None else len(self._packed[0])

    def fly(self) -> Published:
        """Pack once, put: after a failure the same bytes again."""
        if self._draft is not None:
            self._packed = self._draft.pack(self._chain.id)
            self._draft = None
        assert self._packed is not None  # noqa: S101 - for the type checker
        return self._chain.publish(*self._packed)


class Buffer:
    """What is read of one partition and not yet in the lake, and whether it has to wait.

    Attributes:
        partition: what it reads.
        chain: the chain it extends; None until one was chosen.
        leader_epoch: of the last record that the chain held when it was chosen.
        life: topic id of the log under which the chain was chosen.
        next_life: topic id for which a chain is to be chosen before anything more is read.
        flight: what is on its way into the lake, or is to be put again.
        draft: what was read behind it.
        is_cut: the log has said that it lost records below the end of the chain.
        is_paused: the subscription was told to read nothing of this partition.
        full_since: since when the draft is full and cannot take off; None while it can.
        blocked_by: why the last attempt failed; None after a success.
        blocked_since, failed_at, blocked_until: when that began, the last attempt, and when to try
            again (monotonic seconds).
    """

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.chain: Chain | None = None
        self.leader_epoch: int | None = None
        self.life = ""
        self.next_life: str | None = None
        self.is_cut = False
        self.is_paused = False
        self.full_since: float | None = None
        self.blocked_by: Exception | None = None
        self.blocked_since = self.failed_at = 0.0
        self.blocked_until: float | None = None
        self._backoff_s = BACKOFF_S_MIN
        self.restart(0)

    @property
    def start(self) -> int:
        """Offset at which the next object starts: the chain's tail."""
        return self.draft.start if self.flight is None else self.flight.start

    @property
    def next(self) -> int:
        """Offset after what was taken so far."""
        return self.draft.next

    @property
    def bytes(self) -> int:
        """Lines held."""
        return self.draft.bytes + (0 if self.flight is None else self.flight.bytes)

    @property
    def born(self) -> float | None:
        """When the oldest record that is held was taken."""
        if self.flight is not None:
            return self.flight.born
        return self.draft.born if self.draft.is_worthy else None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that an object could cover."""
        return self.flight is None and self.draft.is_empty

    @property
    def is_up(self) -> bool:
        """Whether an object is being put, or nobody has looked yet how that ended."""
        return self.flight is not None and self.flight.attempt is not None

    @property
    def has_arrived(self) -> bool:
        """Whether an attempt has ended that nobody has looked at."""
        return self.is_up and self.flight is not None and not self.flight.is_running

    @property
    def is_worthy(self) -> bool:
        """Whether it holds more than markers of transactions."""
        return self.flight is not None or self.draft.is_worthy

    @property
    def may_read(self) -> bool:
        """Whether nothing keeps it from reading on."""
        is_well = self.is_empty or self.blocked_by is None
        return is_well and not self.is_waiting and self.full_since is None

    @property
    def is_waiting(self) -> bool:
        """Whether nothing may be added for the moment."""
        return self.blocked_until is not None or self.next_life is not None or self.draft.is_gap

    @property
    def is_ready(self) -> bool:
        """Whether there is something that may take off."""
        may_go = self.blocked_until is None and self.next_life is None
        return may_go and not self.is_empty and not self.is_up

    def add(self, batch: LogBatch, now: float) -> None:
        """Take a batch that follows."""
        assert self.chain is not None, "a chain is chosen before anything is taken"  # noqa: S101
        self.draft.add(batch, self.chain.id, now)

    def take_off(self, chain: Chain) -> Flight:
        """What is to be put next: what failed before, else all that was taken."""
        if self.flight is None:
            self.flight = Flight(self.draft, chain)
            self.draft = Draft(self.flight.next)
        self.full_since = None
        return self.flight

    def restart(self, start: int) -> None:
        """Hold nothing, and go on at `start`."""
        self.flight: Flight | None = None
        self.draft = Draft(start)
        self.full_since = None

    def block(self, error: Exception, now: float) -> None:
        """Wait before the next attempt, longer each time."""
        self.blocked_since = now if self.blocked_by is None else self.blocked_since
        self.blocked_by, self.failed_at = error, now
        self.blocked_until = now + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)

    def succeed(self) -> None:
        """Forget why it waited."""
        self.blocked_by = self.blocked_until = None
        self._backoff_s = BACKOFF_S_MIN
