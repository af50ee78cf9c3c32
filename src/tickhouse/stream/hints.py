"""What a spool notes of its relay: that it has relayed, never a position."""

from typing import Protocol

from tickhouse.model.positions import TopicPartition


class Hints(Protocol):
    """Where a spool keeps its notes."""

    def has_relayed(self, partition: TopicPartition) -> bool | None:
        """Whether Kafka has taken records of this partition.

        None: never tried; False: tried, and nobody was there to note how it ended.
        """
        ...

    def note_relayed(self, partition: TopicPartition, *, is_sure: bool) -> None:
        """Keep that, durable when this returns; `is_sure`: Kafka has some, beyond doubt.

        Raises:
            RefusedError: disk full.
        """
        ...
