"""Positions: which stream, which partition of which log, which offset."""

from enum import StrEnum
from typing import Final

import msgspec

TOPIC_PREFIX: Final = "tickhouse"


class Stream(StrEnum):
    """A road of its own through log, lake and bronze tables; chosen by a frame's origin."""

    TRADES = "trades"
    QUOTES = "quotes"
    REFERENCE = "reference"
    SESSIONS = "sessions"


def topic_of(stream: Stream) -> str:
    """Topic that carries a stream.

    >>> topic_of(Stream.TRADES)
    'tickhouse.trades.v1'
    """
    return f"{TOPIC_PREFIX}.{stream}.v1"


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    """One partition of a stream's topic; offsets in it are dense in an embedded log."""

    stream: Stream
    part: int

    @property
    def topic(self) -> str:
        """Topic name."""
        return topic_of(self.stream)

    def __str__(self) -> str:
        """`topic[partition]`, the usual notation."""
        return f"{self.topic}[{self.part}]"


class ChainId(msgspec.Struct, frozen=True, order=True):
    """One offset chain of the lake: a partition of one life (topic id) of a topic."""

    stream: Stream
    topic: str
    topic_id: str
    part: int

    @property
    def prefix(self) -> str:
        """Folder of the chain's objects in the lake, without a trailing slash."""
        return f"bronze/v1/{self.stream}/{self.topic}~{self.topic_id}/p={self.part:05d}"

    def key(self, start: int) -> str:
        """Key of the object that starts at offset `start`; depends on the position alone."""
        return f"{self.prefix}/{start:020d}.jsonl.gz"

    @property
    def genesis_key(self) -> str:
        """Key of the object that opens the chain."""
        return f"{self.prefix}/GENESIS"
