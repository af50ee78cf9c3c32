"""What the recorder has acknowledged: frames of one shard, durable on its own disk."""

from tests.support.memory_log import frames
from tickhouse.model.positions import TopicPartition


class SimulatedSpool:
    """The frames of one partition, by offset; a full disk takes none.

    Attributes:
        has_relayed: what the relay has noted.
        told_gaps: ranges that the relay could not send, nor find.
    """

    def __init__(self, place: TopicPartition, number: int) -> None:
        self.place = place
        self.epoch = f"s{number}"
        self.session = f"0192f0a0-0000-7000-8000-{number:012d}"
        self.frames: list[bytes] = []
        self.begin = 0
        self.has_relayed: bool | None = None
        self.told_gaps: list[tuple[int, int]] = []
        self.is_full = False
        self._numbers = 0

    @property
    def end(self) -> int:
        return len(self.frames)

    def append(self, count: int) -> bool:
        """Acknowledge frames; False where they are refused, which consumes their numbers."""
        first, self._numbers = self._numbers, self._numbers + count
        if self.is_full:
            return False
        self.frames += frames(first, count, session=self.session)
        return True

    def trim(self, before: int) -> None:
        self.begin = max(self.begin, min(before, self.end))
