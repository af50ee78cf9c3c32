"""Following the topics as a member of a consumer group; positions are the caller's, not Kafka's."""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPlace

from tickhouse.errors import ConfigError, RefusedError, TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka_client import MISSING, raise_kafka
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.kafka_records import make_batch, reading_config, take
from tickhouse.stream.log import LogBatch, LogReader, OnRevoked, PositionOf
from tickhouse.stream.topics import kafka_place, topic_name
from tickhouse.telemetry import get_logger

SESSION_TIMEOUT_MS: Final = 10_000
AWAY_S: Final = 5.0
"""Brokers that cannot be reached for so long are told of; the client goes on by itself."""
TOPICS_S: Final = 5.0
"""Topics are looked at so often: one that was made anew may be silent."""

_ELSEWHERE: Final = (
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - the library's own names
    KafkaError._LOG_TRUNCATION,  # noqa: SLF001
    KafkaError.OFFSET_OUT_OF_RANGE,
)
_AWAY: Final = (
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
)
_log = get_logger("land")


class KafkaSubscription:
    """One member of the group of landers. One thread calls it.

    Args:
        options: the cluster, the topics, the group.
        reader: asked for topic ids and bounds.
        position_of, on_revoked: see `LogReader.subscribe`.
    """

    def __init__(
        self,
        options: KafkaOptions,
        reader: LogReader,
        position_of: PositionOf,
        on_revoked: OnRevoked,
    ) -> None:
        self._options = options
        self._reader = reader
        self._position_of = position_of
        self._on_revoked = on_revoked
        self._streams = {topic_name(options, stream): stream for stream in Stream}
        self._positions: dict[TopicPartition, int] = {}
        self._leader_epochs: dict[TopicPartition, int | None] = {}
        self._topic_ids: dict[TopicPartition, str] = {}
        self._elsewhere: dict[TopicPartition, bool] = {}
        self._failed: Exception | None = None
        self._away_since: float | None = None
        self._known_ids: dict[Stream, str] = {}
        self._has_new_topic = False
        self._checked_at = time.monotonic()
        self._consumer = self._join()

    def _join(self) -> Consumer:
        # Of every topic: the client knows leader epochs of those, too, that it was never given.
        for stream in Stream:
            with contextlib.suppress(ConfigError, RefusedError, TransientError):
                self._look_up(TopicPartition(stream, 0))
        consumer = Consumer(self._config())
        consumer.subscribe(
            list(self._streams),
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        return consumer

    def _config(self) -> dict[str, Any]:
        config = reading_config(self._options, self._options.group)
        tell_error = config["error_cb"]

        def on_error(error: KafkaError) -> None:
            tell_error(error)
            self._note_error(error)

        config |= {"error_cb": on_error, "group.protocol": self._options.group_protocol}
        if self._options.group_protocol == "classic":
            config |= {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 5,
            }
        return config

    def _note_error(self, error: KafkaError) -> None:
        """What the client itself met: away for long, or never to be let in."""
        if error.code() in _AWAY:
            self._away_since = self._away_since or time.monotonic()
            return
        try:
            raise_kafka(error, self._options.url)
        except TransientError:
            return
        except Exception as refused:  # noqa: BLE001 - raised by the next `poll`
            self._failed = refused

    # -- who reads what -----------------------------------------------------------------------

    def _assigned(self, consumer: Consumer, places: Sequence[KafkaPlace]) -> None:
        consumer.incremental_assign([self._begun(place) for place in places])

    def _begun(self, place: KafkaPlace, *, is_cut: bool = False) -> KafkaPlace:
        """A place with the position where its reader's output ends."""
        partition = self._partition(place.topic, place.partition)
        topic_id = self._look_up(partition)
        position = self._position_of(partition, topic_id, is_cut)
        self._topic_ids[partition] = topic_id
        self._positions[partition] = position.offset
        self._leader_epochs[partition] = position.leader_epoch
        return self._under_epoch(partition, position.offset)

    def _under_epoch(self, partition: TopicPartition, offset: int) -> KafkaPlace:
        """A position under the last leader epoch known."""
        epoch = self._leader_epochs.get(partition)
        return kafka_place(self._options, partition, offset, leader_epoch=epoch)

    def _look_up(self, partition: TopicPartition) -> str:
        """The topic's id now; notes if this client has known another one."""
        topic_id = self._reader.topic_id(partition)
        if self._known_ids.setdefault(partition.stream, topic_id) != topic_id:
            self._has_new_topic = True
        return topic_id

    def _revoked(self, consumer: Consumer, places: Sequence[KafkaPlace]) -> None:
        self._forget(consumer, places, is_lost=False)

    def _lost(self, consumer: Consumer, places: Sequence[KafkaPlace]) -> None:
        _log.warning("partitions_lost", reason="the group went on without us", n=len(places))
        self._forget(consumer, places, is_lost=True)

    def _forget(self, consumer: Consumer, places: Sequence[KafkaPlace], *, is_lost: bool) -> None:
        partitions = [self._partition(place.topic, place.partition) for place in places]
        self._on_revoked(partitions, is_lost)
        for partition in partitions:
            self._elsewhere.pop(partition, None)
            self._positions.pop(partition, None)
            self._leader_epochs.pop(partition, None)
            self._topic_ids.pop(partition, None)
        consumer.incremental_unassign(list(places))

    def _partition(self, topic: str | None, part: int) -> TopicPartition:
        return TopicPartition(self._streams[topic or ""], part)

    def _place(self, partition: TopicPartition, offset: int) -> KafkaPlace:
        return kafka_place(self._options, partition, offset)

    # -- reading ------------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> list[LogBatch]:
        """See `Subscription.poll`.

        Raises:
            ConfigError, RefusedError: this user is not let in, or may not read.
            TransientError: the cluster has been away for some seconds.
        """
        self._raise_failed()
        self._check_topics()
        told = [each for place in list(self._elsewhere) for each in self._look_again(place)]
        if self._has_new_topic:
            self._join_again()
        messages = take(self._consumer, 0.0 if told else timeout_s)
        if not messages:
            if not told:
                self._raise_failed()
                self._check_away()
            return told
        self._away_since = None
        ends: dict[TopicPartition, int] = {}
        if any(map(Message.error, messages)):
            for message in messages:
                if message.error() is not None:
                    self._note_problem(message, ends)
            messages = [message for message in messages if message.error() is None]
        return told + self._batches(messages, ends)

    def _raise_failed(self) -> None:
        """Raise what a poll before this one met."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def _note_problem(self, message: Message, ends: dict[TopicPartition, int]) -> None:
        """Take note of an error; what makes a poll fail fails the next: this one's records count.

        They would be passed over for good: the client gives each only once.
        """
        try:
            self._take_problem(message, ends)
        except (ConfigError, RefusedError, TransientError) as error:
            self._failed = self._failed or error

    def _check_topics(self) -> None:
        """Look whether topics were made anew: the client would not tell."""
        if time.monotonic() - self._checked_at < TOPICS_S:
            return
        self._checked_at = time.monotonic()
        with contextlib.suppress(ConfigError, RefusedError, TransientError):
            for partition in {place.stream: place for place in self._topic_ids}.values():
                self._look_up(partition)

    def _join_again(self) -> None:
        """Begin with a new client where topics were made anew.

        A client keeps the leader epochs it has seen. A new topic's are lower than those of one
        whose broker was restarted, so the old client would wait for good, without an error.
        """
        _log.warning("topics_made_anew", topics=list(self._streams))
        self._consumer.close()
        self._elsewhere.clear()
        self._positions.clear()
        self._leader_epochs.clear()
        self._topic_ids.clear()
        self._known_ids.clear()
        self._has_new_topic = False
        self._consumer = self._join()

    def _check_away(self) -> None:
        if self._away_since is None or time.monotonic() - self._away_since < AWAY_S:
            return
        try:
            self._consumer.list_topics(topic=next(iter(self._streams)), timeout=1.0)
        except KafkaException as error:
            raise_kafka(error, f"{self._options.url}: cannot be reached")
        self._away_since = None

    def _take_problem(self, message: Message, ends: dict[TopicPartition, int]) -> None:
        error, topic = message.error(), message.topic()
        assert error is not None  # noqa: S101 - only such messages come here
        code = error.code()
        if topic is None or topic not in self._streams:
            self._note_error(error)
            return
        partition = self._partition(topic, message.partition() or 0)
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001
            ends[partition] = message.offset() or 0
        elif partition in self._positions and code in _ELSEWHERE:
            # What came before it in this poll counts; the next one looks where the log is.
            self._elsewhere[partition] = True
            ends.pop(partition, None)
        elif code in MISSING:
            raise TransientError(f"{self._options.url}: {topic} is gone; tickhouse init makes it")
        elif not error.retriable():
            raise_kafka(error, f"{self._options.url}: read {topic}[{partition.part}]")

    def _look_again(self, partition: TopicPartition) -> list[LogBatch]:
        """The position is not in the log: retention passed it, or the log is another one there.

        Or a new leader writes: whether it still has what was read, only the caller can tell.
        """
        position, topic_id = self._positions[partition], self._topic_ids[partition]
        now_id, bounds = self._look_up(partition), self._reader.bounds(partition)
        is_cut = self._elsewhere[partition] and now_id == topic_id
        if now_id == topic_id and bounds.begin > position:
            del self._elsewhere[partition]
            self._positions[partition] = bounds.begin
            self._go(self._place(partition, bounds.begin))
            _log.error("retention_passed", partition=str(partition), at=position, to=bounds.begin)
            trimmed = LogBatch(
                partition, topic_id, position, bounds.begin, [], [], [], trimmed=True
            )
            return [trimmed]
        if now_id != topic_id or bounds.end < position:
            _log.error("log_is_another", partition=str(partition), at=position, end=bounds.end)
        begun = self._begun(self._place(partition, position), is_cut=is_cut)
        # Until here an error leaves the mark: what was not taken is not passed over.
        del self._elsewhere[partition]
        if begun.offset == position:
            # Its owner has just seen it to be right: only markers were lost below it. Validated
            # again, it would lead here for ever.
            self._leader_epochs[partition] = None
            begun = self._place(partition, position)
        self._go(begun)
        return []

    def _go(self, place: KafkaPlace) -> None:
        """Read on there; of a topic that was made anew, the client has to begin again."""
        try:
            self._consumer.seek(place)
        except KafkaException:
            self._consumer.incremental_unassign([place])
            self._consumer.incremental_assign([place])

    def _batches(
        self, messages: Sequence[Message], ends: Mapping[TopicPartition, int]
    ) -> list[LogBatch]:
        found = self._by_partition(messages)
        batches: list[LogBatch] = []
        for partition in {*found, *ends}:
            start = self._positions.get(partition)
            if start is None:
                continue
            records = found.get(partition, [])
            if records and self._is_of_new_leader(partition, records[0]):
                self._elsewhere.setdefault(partition, False)
                continue
            if records and (records[0].offset() or 0) < start:
                records = [each for each in records if (each.offset() or 0) >= start]
            following = (records[-1].offset() or 0) + 1 if records else start
            following = max(following, ends.get(partition, 0))
            if following > start:
                topic_id = self._topic_ids[partition]
                batch = make_batch(partition, topic_id, start, records, following)
                batches.append(batch)
                self._positions[partition] = following
                if batch.leader_epoch is not None:
                    self._leader_epochs[partition] = batch.leader_epoch
        return batches

    def _is_of_new_leader(self, partition: TopicPartition, record: Message) -> bool:
        """Whether a later leader wrote it than the last one known: it may have lost records.

        The client validates positions, too, but not while it has no connection.
        """
        known, epoch = self._leader_epochs.get(partition), record.leader_epoch()
        return known is not None and epoch is not None and epoch > known

    def _by_partition(self, messages: Sequence[Message]) -> dict[TopicPartition, list[Message]]:
        found: dict[TopicPartition, list[Message]] = {}
        placed: Iterable[tuple[str, int, Message]] = zip(
            map(Message.topic, messages), map(Message.partition, messages), messages, strict=True
        )  # pyright: ignore[reportAssignmentType] - a message without an error has a place
        for (topic, part), run in groupby(placed, itemgetter(0, 1)):
            found.setdefault(self._partition(topic, part), []).extend(map(itemgetter(2), run))
        return found

    # -- what the caller decides --------------------------------------------------------------

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Subscription.seek`; the topic may be another one by now.

        It is sought under the last leader epoch known: a tail that the broker lost shows by it.
        """
        if partition not in self._positions:
            return
        self._elsewhere.pop(partition, None)
        with contextlib.suppress(TransientError):  # `_check_topics` asks again
            self._topic_ids[partition] = self._look_up(partition)
        self._positions[partition] = offset
        self._go(self._under_epoch(partition, offset))

    def pause(self, partition: TopicPartition) -> None:
        """See `Subscription.pause`."""
        if partition in self._positions:
            self._consumer.pause([self._place(partition, self._positions[partition])])

    def resume(self, partition: TopicPartition) -> None:
        """See `Subscription.resume`."""
        if partition in self._positions:
            self._consumer.resume([self._place(partition, self._positions[partition])])

    def partitions(self) -> dict[TopicPartition, str]:
        """See `Subscription.partitions`."""
        return dict(self._topic_ids)

    def commit(self, partition: TopicPartition, next_offset: int) -> None:
        """See `Subscription.commit`: a hint; that it failed harms nothing."""
        if partition not in self._positions:
            return
        try:
            self._consumer.commit(offsets=[self._place(partition, next_offset)], asynchronous=True)
        except KafkaException as error:
            _log.debug("commit_refused", partition=str(partition), error=str(error))

    def close(self) -> None:
        """See `Subscription.close`: leaves the group."""
        self._consumer.close()
