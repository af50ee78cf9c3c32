"""What may go wrong in a schedule, how often it did, and the dice that decide."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

KINDS: Final = (
    "kill_lander",
    "kill_relay",
    "kill_loader",
    "zombie_lander",
    "zombie_relay",
    "rebalance",
    "partitions_lost",
    "group_offsets_lost",
    "broker_tail_lost",
    "topic_recreated",
    "retention_passed",
    "aborted_transaction",
    "late_request",
    "foreign_record",
    "foreign_transaction",
    "kafka_answer_lost",
    "kafka_away",
    "s3_503",
    "s3_applied_but_error",
    "s3_applied_late",
    "s3_reset",
    "s3_refused",
    "s3_403",
    "spool_full",
    "clock_jump",
    "interleaved",
)
"""Every kind of fault, as it is counted."""


class Crash(BaseException):
    """The process is gone, at the very place where this is raised."""


class Chance:
    """A seed's dice. Each seed turns a third of the kinds off, so that rare ones meet.

    Attributes:
        counts: how often each kind struck.
        is_healed: nothing strikes any more.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.is_healed = False
        self._enabled = {kind for kind in KINDS if self.random.random() < 2 / 3}

    def strikes(self, kind: str, probability: float) -> bool:
        """Whether a fault of this kind happens here and now."""
        if self.is_healed or kind not in self._enabled or self.random.random() >= probability:
            return False
        self.counts[kind] += 1
        return True

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random.random() * len(items))]

    def below(self, limit: int) -> int:
        """A number from 0 up to `limit`, exclusive."""
        return int(self.random.random() * limit)
