"""What waits to become an object: the lines of one partition, from the chain's tail on."""

from typing import Final

from tickhouse.bronze.chain import Chain
from tickhouse.bronze.object import Manifest, pack, read_manifest
from tickhouse.model.frame import splice_positions
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogBatch

BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 30.0


class Buffer:
    """Lines of one partition, and whether it has to wait.

    Attributes:
        partition: what it reads.
        chain: the chain it extends; None until one was chosen.
        life: topic id of the log under which the chain was chosen.
        next_life: topic id for which a chain is to be chosen before anything more is read.
        start: offset at which the next object starts: the chain's tail.
        next: offset after what was taken so far.
        lines, bytes: what the next object holds.
        is_gap: the next object says that retention removed `start .. next`.
        born: when the first record was taken, monotonic seconds; None while empty.
        is_paused: the subscription was told to read nothing of this partition.
        blocked_by: why the last attempt failed; None after a success.
        blocked_since, failed_at, blocked_until: when that began, the last attempt, and when to try
            again (monotonic seconds).
    """

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.chain: Chain | None = None
        self.life = ""
        self.next_life: str | None = None
        self.is_paused = False
        self.blocked_by: Exception | None = None
        self.blocked_since = self.failed_at = 0.0
        self.blocked_until: float | None = None
        self._backoff_s = BACKOFF_S_MIN
        self.restart(0)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that an object could cover."""
        return self.next == self.start

    @property
    def is_waiting(self) -> bool:
        """Whether nothing may be added for the moment."""
        return self.blocked_until is not None or self.next_life is not None or self.is_gap

    def add(self, batch: LogBatch, now: float) -> None:
        """Take a batch that follows; of a trimmed one, that its offsets are gone."""
        chain = self._chosen()
        spliced = splice_positions(
            batch.values,
            topic_id=chain.id.topic_id,
            part=self.partition.part,
            offsets=batch.offsets,
            log_times_ms=batch.log_times_ms,
        )
        self.lines += spliced.lines
        self.bytes += sum(map(len, spliced.lines)) + len(spliced.lines)
        self._received += [at for at in (spliced.rx_min, spliced.rx_max) if at is not None]
        self.next = batch.next
        self.is_gap = batch.trimmed
        self.born = now if self.born is None else self.born

    def pack(self) -> tuple[bytes, Manifest]:
        """The object that holds what was taken; the same bytes whenever it is asked again."""
        chain = self._chosen()
        body = pack(
            self.lines,
            chain=chain.id,
            start=self.start,
            next_offset=self.next,
            rx_min=min(self._received, default=None),
            rx_max=max(self._received, default=None),
            gap=self.is_gap,
        )
        return body, read_manifest(body, chain.id.key(self.start))

    def _chosen(self) -> Chain:
        assert self.chain is not None, "a chain is chosen before anything is taken"  # noqa: S101
        return self.chain

    def restart(self, start: int) -> None:
        """Hold nothing, and go on at `start`."""
        self.start = self.next = start
        self.lines: list[bytes] = []
        self.bytes = 0
        self._received: list[int] = []
        self.is_gap = False
        self.born: float | None = None

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
