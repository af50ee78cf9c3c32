"""The road with one rule broken at a time: what the simulation must find, or it proves nothing."""

import threading
from collections.abc import Generator, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import pytest

from tests.fault.simulation.group import Member
from tests.fault.simulation.real_warehouse import LedgerOutsideDuckDB
from tests.fault.simulation.relay import Relay
from tests.fault.simulation.spool import SimulatedSpool
from tests.fault.simulation.store import SimulatedStore
from tests.fault.simulation.warehouse import SimulatedWarehouse
from tests.fault.simulation.world import Parts
from tickhouse.bronze.lander import Lander
from tickhouse.model.positions import TopicPartition
from tickhouse.stream import relay_tail
from tickhouse.stream.log import Position
from tickhouse.stream.relay_tail import Tail
from tickhouse.warehouse.warehouse import BronzeObject


class OverwritingStore(SimulatedStore):
    """A plain PUT: the last writer wins."""

    def write(self, key: str, body: bytes) -> None:
        self.objects[key] = body


class ExistsIsSuccessStore(SimulatedStore):
    """412 is taken for one's own success: nothing is adopted."""

    def write(self, key: str, body: bytes) -> None:
        self.objects.setdefault(key, body)


_sent: WeakKeyDictionary[SimulatedSpool, int] = WeakKeyDictionary()
"""How far a mutant's relay has noted that it was."""


class TrustsItselfRelay(Relay):
    """Goes on where it has noted that it was, and does not look at the partition's tail."""

    def _send(self, producer: Any, values: Sequence[bytes], start: int) -> None:
        super()._send(producer, values, start)
        _sent[self.spool] = start + len(values)

    def _position_after(self, tail: Tail) -> int:
        return max(self.spool.begin, _sent.get(self.spool, 0))


class TrustsOffsetsRelay(Relay):
    """Commits without a look at where its records were put."""

    def _check(self, count: int) -> None:
        self._delivered = -1
        super()._check(count)


class StopsAtOpenTransactionRelay(Relay):
    """Takes the last record it is given for the tail, below the high watermark."""

    def _find_position(self, stop: threading.Event) -> int | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(relay_tail, "_settled_end", self._stable_end)
            return super()._find_position(stop)

    def _stable_end(self, *_arguments: object) -> int:
        return self._kafka.held[self.place].stable


class ReadsBeforeFencingRelay(StopsAtOpenTransactionRelay):
    """Finds its position first, and fences then: the last batch of the dead may still arrive."""

    def live(self) -> Generator[None]:
        position = yield from self.find_position()
        yield
        producer = self._fence()
        yield
        yield from self.carry_from(position, producer)


class LedgerFirstWarehouse(SimulatedWarehouse):
    """The ledger is committed before the rows."""

    def store(self, pending: Sequence[BronzeObject], lines: Sequence[Sequence[bytes]]) -> None:
        for item in pending:
            self.insert_ledger(item)
        self.strike()
        for item, taken in zip(pending, lines, strict=True):
            self.insert_rows(item, taken)


class LedgerLastWarehouse(SimulatedWarehouse):
    """The ledger is committed after the rows."""

    def store(self, pending: Sequence[BronzeObject], lines: Sequence[Sequence[bytes]]) -> None:
        for item, taken in zip(pending, lines, strict=True):
            self.insert_rows(item, taken)
        self.strike()
        for item in pending:
            self.insert_ledger(item)


class CommittedOffsetLander(Lander):
    """Starts where the group has committed, whatever the chain says; at the log's begin else."""

    def _assign(self, partition: TopicPartition, topic_id: str, is_cut: bool) -> Position:  # noqa: FBT001
        position = super()._assign(partition, topic_id, is_cut)
        kafka = self._log._kafka  # type: ignore[attr-defined]
        buffer = self._buffers[partition]
        if buffer.next_life is not None:
            return position
        buffer.restart(kafka.committed.get(partition, kafka.held[partition].low))
        return Position(buffer.next)


class IgnoresTruncationMember(Member):
    """Reads on at its position where a log that lost its tail has grown beyond it again."""

    def look_again(self, place: TopicPartition, position: Position) -> None:
        if position.offset <= self._kafka.held[place].stable:
            self.positions[place] = Position(position.offset)
        else:
            super().look_again(place, position)


MUTANTS: Final[dict[str, Parts]] = {
    "plain put": Parts(store=OverwritingStore),
    "412 as success": Parts(store=ExistsIsSuccessStore),
    "commit before put": Parts(lander=CommittedOffsetLander, commits_on_read=True),
    "trusting committed offsets": Parts(lander=CommittedOffsetLander),
    "truncation ignored where the log has grown again": Parts(member=IgnoresTruncationMember),
    "relay without the tail check": Parts(relay=TrustsItselfRelay),
    "relay reads the tail before fencing": Parts(relay=ReadsBeforeFencingRelay),
    "relay commits whatever its offsets": Parts(relay=TrustsOffsetsRelay),
    "relay stops at an open transaction": Parts(relay=StopsAtOpenTransactionRelay),
    "ledger before the rows": Parts(warehouse=LedgerFirstWarehouse),
    "ledger after the rows": Parts(warehouse=LedgerLastWarehouse),
    "ledger outside the transaction": Parts(warehouse=LedgerOutsideDuckDB),
}
