"""A consumer group: who reads which partition, who believes to, and where each of them is."""

from collections.abc import Callable

from tests.fault.simulation.kafka import Partition, SimulatedKafka
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.log import LogBatch, OnRevoked, Position, PositionOf


class Group:
    """Assigns partitions to members; a member learns of it when it polls next.

    Attributes:
        owners: who is to read a partition now.
        pass_time: called with seconds where a poll finds nothing.
    """

    def __init__(
        self,
        kafka: SimulatedKafka,
        pass_time: Callable[[float], None],
        kind: "type[Member] | None" = None,
    ) -> None:
        self.kafka = kafka
        self.pass_time = pass_time
        self._kind = kind or Member
        self.members: list[Member] = []
        self.owners: dict[TopicPartition, Member] = {}

    def join(self, position_of: PositionOf, on_revoked: OnRevoked) -> "Member":
        member = self._kind(self, position_of, on_revoked)
        self.members.append(member)
        for place in self.kafka.held:
            self.owners.setdefault(place, member)
        return member

    def leave(self, member: "Member") -> None:
        """A member is gone: the next one reads what it read."""
        if member in self.members:
            self.members.remove(member)
        for place, owner in list(self.owners.items()):
            if owner is member:
                del self.owners[place]
                if self.members:
                    self.owners[place] = self.members[0]

    def give(self, place: TopicPartition, member: "Member", *, is_lost: bool) -> None:
        """Give a partition to another member: at once, or when its owner has let it go."""
        owner = self.owners.get(place)
        if owner is not None and owner is not member and not is_lost:
            owner.let_go(place)
        self.owners[place] = member


class Member:
    """A `Subscription`; `sleeps` polls it does not hear what the group has decided."""

    def __init__(self, group: Group, position_of: PositionOf, on_revoked: OnRevoked) -> None:
        self._group = group
        self._kafka = group.kafka
        self._position_of = position_of
        self._on_revoked = on_revoked
        self.positions: dict[TopicPartition, Position] = {}
        self._topic_ids: dict[TopicPartition, str] = {}
        self._paused: set[TopicPartition] = set()
        self.sleeps = 0

    def poll(self, timeout_s: float) -> list[LogBatch]:
        self._kafka.before("poll")
        if self.sleeps:
            self.sleeps -= 1
        else:
            self._listen()
        batches = []
        for place in list(self.positions):
            batch = None if place in self._paused else self._fetch(place)
            if batch is not None:
                batches.append(batch)
        if not batches:
            self._group.pass_time(timeout_s)
        return batches

    def _listen(self) -> None:
        mine = [place for place, owner in self._group.owners.items() if owner is self]
        lost = [place for place in self.positions if place not in mine]
        if lost:
            self._forget(lost)
            self._on_revoked(lost, True)
        for place in mine:
            if place not in self.positions:
                self._assign(place)

    def let_go(self, place: TopicPartition) -> None:
        """An orderly rebalance takes a partition away; its owner may still land what it holds."""
        if place in self.positions:
            self._on_revoked([place], False)
            self._forget([place])

    def _forget(self, places: list[TopicPartition]) -> None:
        for place in places:
            del self.positions[place]
            self._topic_ids.pop(place, None)
            self._paused.discard(place)

    def _assign(self, place: TopicPartition, *, is_cut: bool = False) -> None:
        topic_id = self._kafka.held[place].topic_id
        self._topic_ids[place] = topic_id
        self.positions[place] = self._position_of(place, topic_id, is_cut)

    def _fetch(self, place: TopicPartition) -> LogBatch | None:
        held, position = self._kafka.held[place], self.positions[place]
        if held.topic_id != self._topic_ids[place]:
            self._assign(place)
            return None
        if is_cut(held, position):
            self.look_again(place, position)
            return None
        batch = self._kafka.read_batch(place, position.offset, count=self._kafka.batch_records)
        if batch is not None:
            self.positions[place] = Position(batch.next, held.epoch_of(batch.next - 1))
            if self._kafka.commits_on_read:
                self._kafka.committed[place] = batch.next
        return batch

    def look_again(self, place: TopicPartition, position: Position) -> None:
        """The log has lost records below a position: ask for it anew.

        If it is what it was, the caller has seen that its last record is still there, so that only
        markers were lost: it is not asked again.
        """
        self._assign(place, is_cut=True)
        if self.positions[place].offset == position.offset:
            self.positions[place] = Position(position.offset)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on elsewhere, still under the last epoch known: a tail lost meanwhile shows by it."""
        known = self.positions.get(partition)
        if known is not None:
            self.positions[partition] = Position(offset, known.leader_epoch)

    def pause(self, partition: TopicPartition) -> None:
        self._paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        self._paused.discard(partition)

    def partitions(self) -> dict[TopicPartition, str]:
        return dict(self._topic_ids)

    def commit(self, partition: TopicPartition, next_offset: int) -> None:
        if self._topic_ids.get(partition) == self._kafka.held[partition].topic_id:
            self._kafka.committed[partition] = next_offset

    def close(self) -> None:
        self._group.leave(self)


def is_cut(held: Partition, position: Position) -> bool:
    """Whether the log has lost records below a position."""
    if position.offset > held.end:
        return True
    epoch = position.leader_epoch
    return epoch is not None and held.end_of_epoch(epoch) < position.offset
