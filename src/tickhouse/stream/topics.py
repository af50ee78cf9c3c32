"""The topics of a road, one a stream, one partition a shard: as the rules of the log need them.

`message.timestamp.type` is LogAppendTime: with a recorder's wrong clock, retention would delete
records before they are landed.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false
# (the futures of the client's admin calls say nothing of what they hold)

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from confluent_kafka import OFFSET_INVALID, KafkaError, TopicCollection, Uuid
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.kafka_client import MISSING, TIMEOUT_S, answer_of, client_config
from tickhouse.stream.kafka_options import KafkaOptions

MESSAGE_BYTES_MIN: Final = 2 << 20
"""`max.message.bytes` must leave room for the largest envelope and the head of its batch."""
TIMESTAMP_TYPE: Final = "LogAppendTime"


class TopicFacts(msgspec.Struct, frozen=True):
    """A topic as it is.

    Attributes:
        topic: its name.
        topic_id: its life; another one after it was deleted and made again.
        partitions: how many.
        retention_ms: -1 = for ever.
        message_bytes_max: larger records are refused.
        timestamp_type: LogAppendTime, or CreateTime, which is wrong for us.
        cleanup_policy: delete; compaction would remove records.
    """

    topic: str
    topic_id: str
    partitions: int
    retention_ms: int
    message_bytes_max: int
    timestamp_type: str
    cleanup_policy: str

    def faults(self) -> list[str]:
        """What would lose records, in words."""
        found: list[str] = []
        if self.timestamp_type != TIMESTAMP_TYPE:
            found.append(f"message.timestamp.type is {self.timestamp_type}, not {TIMESTAMP_TYPE}")
        if self.message_bytes_max < MESSAGE_BYTES_MIN:
            found.append(f"max.message.bytes is {self.message_bytes_max}: a frame may be larger")
        if self.cleanup_policy != "delete":
            found.append(f"cleanup.policy is {self.cleanup_policy}: it would remove records")
        return found


class Topics:
    """The four topics of a prefix on a cluster.

    Args:
        options: the cluster and the prefix.
        admin: a client of the cluster, if there is one already.
    """

    def __init__(self, options: KafkaOptions, admin: AdminClient | None = None) -> None:
        self._options = options
        self._admin = AdminClient(client_config(options)) if admin is None else admin

    def name(self, stream: Stream) -> str:
        """Name of a stream's topic on the cluster."""
        return topic_name(self._options, stream)

    def topic_id(self, stream: Stream) -> str:
        """The life of a stream's topic.

        Raises:
            ConfigError, RefusedError, TransientError: see `raise_kafka`.
        """
        name = self.name(stream)
        return path_safe(self._look_at([name])[name].topic_id)

    def describe(
        self, placed: Mapping[Stream, tuple[str, int]] | None = None
    ) -> dict[Stream, TopicFacts]:
        """The topics that are there.

        Args:
            placed: what `placed` has just told, if it has.

        Raises:
            ConfigError, RefusedError, TransientError: see `raise_kafka`.
        """
        placed = self.placed() if placed is None else placed
        configs = self._configs([self.name(stream) for stream in placed])
        return {
            stream: TopicFacts(
                topic=self.name(stream),
                topic_id=topic_id,
                partitions=partitions,
                retention_ms=int(configs[self.name(stream)]["retention.ms"]),
                message_bytes_max=int(configs[self.name(stream)]["max.message.bytes"]),
                timestamp_type=configs[self.name(stream)]["message.timestamp.type"],
                cleanup_policy=configs[self.name(stream)]["cleanup.policy"],
            )
            for stream, (topic_id, partitions) in placed.items()
            if self.name(stream) in configs
        }

    def placed(self) -> dict[Stream, tuple[str, int]]:
        """Topic id and number of partitions of each topic that is there."""
        names = {self.name(stream): stream for stream in Stream}
        return {
            names[name]: (path_safe(facts.topic_id), len(facts.partitions))
            for name, facts in self._look_at(list(names), but=MISSING).items()
            if facts is not None
        }

    def _look_at(self, names: list[str], *, but: Collection[int] = ()) -> dict[str, Any]:
        """What the cluster says of topics; None of those whose error is in `but`."""
        answers = self._admin.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)
        return {
            name: answer_of(answer, f"{self._options.url}: look at {name}", but=but)
            for name, answer in answers.items()
        }

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        if not resources:
            return {}
        answers = self._admin.describe_configs(resources, request_timeout=TIMEOUT_S)
        found: dict[str, dict[str, str]] = {}
        for resource, answer in answers.items():
            what = f"{self._options.url}: read the settings of {resource.name}"
            entries: Mapping[str, ConfigEntry] | None = answer_of(answer, what, but=MISSING)
            # A topic that was deleted is known to some brokers for a moment still.
            if entries is not None:
                values = {name: str(entry.value) for name, entry in entries.items()}
                found[str(resource.name)] = values
        return found

    def ensure(self, *, partitions: int, replication: int, retention_ms: int) -> list[str]:
        """Make the topics what they have to be, and say what was done; nothing twice.

        Partitions are added, never removed. A retention that somebody set is left alone.

        Args:
            partitions: one a shard.
            replication: copies of each; at most as many as there are brokers.
            retention_ms: how long records stay, landed or not; of topics that are made now.

        Raises:
            ConfigError, RefusedError, TransientError: see `raise_kafka`.
        """
        known = self.describe()
        config = {
            "message.timestamp.type": TIMESTAMP_TYPE,
            "max.message.bytes": str(MESSAGE_BYTES_MIN),
            "cleanup.policy": "delete",
            "retention.ms": str(retention_ms),
        }
        done: list[str] = []
        for stream in Stream:
            name, facts = self.name(stream), known.get(stream)
            if facts is None:
                self._create(NewTopic(name, partitions, replication, config=config))
                done.append(f"created {name}: {partitions} partitions, {replication} copies")
                continue
            if facts.partitions < partitions:
                self._grow(name, partitions)
                done.append(f"{name}: {facts.partitions} partitions became {partitions}")
            if faults := facts.faults():
                self._set(name, {each: config[each] for each in list(config)[:3]})
                done.append(f"{name}: set right ({'; '.join(faults)})")
        self._wait_until_there()
        return done

    def _create(self, topic: NewTopic) -> None:
        answers = self._admin.create_topics([topic], request_timeout=TIMEOUT_S)
        self._wait(answers, f"create {topic.topic}", but={KafkaError.TOPIC_ALREADY_EXISTS})

    def _grow(self, name: str, partitions: int) -> None:
        answers = self._admin.create_partitions([NewPartitions(name, partitions)])
        self._wait(answers, f"add partitions to {name}")

    def _set(self, name: str, config: Mapping[str, str]) -> None:
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        for key, value in config.items():
            entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            resource.add_incremental_config(entry)
        answers = self._admin.incremental_alter_configs([resource])
        self._wait(answers, f"change the settings of {name}")

    def delete(self) -> None:
        """Delete the topics with all they hold. For tests."""
        names = [self.name(stream) for stream in self.placed()]
        if names:
            self._wait(self._admin.delete_topics(names), "delete topics")

    def _wait(
        self,
        answers: Mapping[Any, Any],
        what: str,
        *,
        but: Collection[int] = (),
    ) -> None:
        for answer in answers.values():
            answer_of(answer, f"{self._options.url}: {what}", but=but)

    def _wait_until_there(self) -> None:
        """A topic that was made is not known to every broker at once."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.placed()) < len(Stream) and time.monotonic() < deadline:
            time.sleep(0.05)


def topic_name(options: KafkaOptions, stream: Stream) -> str:
    """Name of a stream's topic on a cluster.

    >>> topic_name(KafkaOptions(bootstrap="h:1", prefix="acme"), Stream.TRADES)
    'acme.trades.v1'
    """
    return f"{options.prefix}.{stream}.v1"


def kafka_place(
    options: KafkaOptions,
    partition: TopicPartition,
    offset: int = OFFSET_INVALID,
    *,
    leader_epoch: int | None = None,
) -> KafkaPlace:
    """A position as the client takes it; under a leader epoch, a tail lost since is told."""
    topic = topic_name(options, partition.stream)
    if leader_epoch is None:
        return KafkaPlace(topic, partition.part, offset)
    return KafkaPlace(topic, partition.part, offset, leader_epoch=leader_epoch)


def path_safe(topic_id: Uuid) -> str:
    """A topic id as it may stand in a path, and as Kafka's own tools show it."""
    return str(topic_id).replace("+", "-").replace("/", "_")


def missing_topics(options: KafkaOptions) -> ConfigError:
    """The error of a road without topics."""
    return ConfigError(
        f"{options.url}: none of the topics {options.prefix}.<stream>.v1 is there;"
        " create them: tickhouse init"
    )
