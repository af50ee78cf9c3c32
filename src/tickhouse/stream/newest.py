"""The newest records of a partition, found from its end, which may hold markers alone."""

from collections.abc import Callable, Iterator
from typing import Final

from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogBatch, LogReader

REACH: Final = 16
"""Offsets looked at first: a transaction's marker and some records before it."""
WIDER: Final = 16
BYTES: Final = 8 << 20

Batches = Callable[[LogReader, TopicPartition, int, int], Iterator[LogBatch]]


def batches(log: LogReader, partition: TopicPartition, start: int, end: int) -> Iterator[LogBatch]:
    """Batches from `start` until one reaches `end`.

    Raises:
        CorruptLogError: a stored batch is damaged.
        TransientError: the log cannot be reached for the moment.
    """
    while start < end and (batch := log.read(partition, start)) is not None:
        yield batch
        start = batch.next


def batches_by_spool(
    log: LogReader, partition: TopicPartition, start: int, end: int
) -> Iterator[LogBatch]:
    """As `batches`; records of a batch that do not all come from one spool come one by one."""
    mixed_until = start
    while start < end:
        batch = log.read(partition, start, bytes_max=1 if start < mixed_until else BYTES)
        if batch is None:
            return
        if batch.spool is None and len(batch.values) > 1 and start >= mixed_until:
            mixed_until = batch.next
            continue
        yield batch
        start = batch.next


def newest_batch(
    log: LogReader,
    partition: TopicPartition,
    *,
    is_wanted: Callable[[LogBatch], bool] = lambda batch: bool(batch.values),
    read: Batches = batches,
) -> LogBatch | None:
    """The last batch that is wanted; looks back further and further, at last over all offsets.

    Args:
        log: the log.
        partition: where to look.
        is_wanted: of a batch.
        read: `batches` or `batches_by_spool`.

    Raises:
        CorruptLogError: a stored batch is damaged.
        TransientError: the log cannot be reached for the moment.
    """
    bounds, reach = log.bounds(partition), REACH
    while True:
        start = max(bounds.begin, bounds.end - reach)
        found: LogBatch | None = None
        for batch in read(log, partition, start, bounds.end):
            found = batch if is_wanted(batch) else found
        if found is not None or start <= bounds.begin:
            return found
        reach *= WIDER


def relayed_end(log: LogReader, partition: TopicPartition, epoch: str) -> int:
    """Spool offset after the last record of a spool that the log holds; 0 where it holds none."""

    def is_of_spool(batch: LogBatch) -> bool:
        return batch.spool is not None and batch.spool.epoch == epoch

    last = newest_batch(log, partition, is_wanted=is_of_spool, read=batches_by_spool)
    return 0 if last is None or last.spool is None else last.spool.last + 1
