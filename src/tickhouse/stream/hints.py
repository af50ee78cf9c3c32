"""What a spool notes of its relay: hints, never a position that is trusted."""

from typing import Protocol

import msgspec

from tickhouse.model.positions import TopicPartition


class Hint(msgspec.Struct, frozen=True):
    """What a spool notes of its relay: the topic's life, and how far it was then."""

    topic_id: str
    next: int


class Hints(Protocol):
    """Where a spool keeps its hints."""

    def relayed(self, partition: TopicPartition) -> Hint | None:
        """The last hint; None where nothing of this partition was ever relayed."""
        ...

    def note_relayed(self, partition: TopicPartition, hint: Hint) -> None:
        """Keep a hint, durable when this returns."""
        ...
