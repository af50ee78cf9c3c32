"""Kafka, SeaweedFS behind the fault proxy, and the topics and the bucket of one run."""

import contextlib
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from proofs.soak.group import ask
from tests.servers.kafka import KafkaServer, start_kafka
from tests.servers.s3 import S3Server, start_seaweedfs
from tests.servers.s3.proxy import FaultProxy
from tickhouse.model.positions import Stream

PREFIX: Final = "soak"
GROUP: Final = "soak-land"
BUCKET: Final = "soak"
LAKE: Final = "lake"
HANG_S: Final = 4.0
SESSION_MS: Final = 6_000
BROKER: Final = f"""
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms={SESSION_MS}
"""


class Servers:
    """What the stages are pointed at.

    Args:
        folder: for the servers' data.
        partitions: of each topic.
    """

    def __init__(self, folder: Path, partitions: int) -> None:
        self._partitions = partitions
        self.kafka: KafkaServer = start_kafka(folder / "kafka", extra=BROKER)
        self.s3: S3Server = start_seaweedfs(folder / "s3")
        self.proxy = FaultProxy(self.s3.endpoint, hang_s=HANG_S).start()
        self.admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap, "log_level": 0})
        self.s3.make_bucket(BUCKET)
        self.make_topics()

    @property
    def topics(self) -> list[str]:
        """One a stream."""
        return [f"{PREFIX}.{stream}.v1" for stream in Stream]

    @property
    def environment(self) -> dict[str, str]:
        """Where log and lake are, in the words of the product's settings."""
        return {
            **self.s3.credentials,
            "TICKHOUSE_LOG": f"kafka://{self.kafka.bootstrap}/{PREFIX}",
            "TICKHOUSE_LAKE": self.lake(self.proxy.endpoint),
            "TICKHOUSE_KAFKA_GROUP": GROUP,
        }

    @staticmethod
    def lake(endpoint: str) -> str:
        """The lake's URL, through the proxy or directly."""
        return f"s3://{BUCKET}/{LAKE}?endpoint={endpoint}&region=us-east-1"

    def make_topics(self) -> None:
        """Create the topics as `tickhouse init` does."""
        config = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
        wanted = [NewTopic(name, self._partitions, 1, config=config) for name in self.topics]
        for made in self.admin.create_topics(wanted).values():
            made.result(30)

    def recreate_topics(self) -> None:
        """Delete and create every topic: new lives under the same names."""
        for gone in self.admin.delete_topics(self.topics).values():
            gone.result(30)
        until(self._can_make_topics, 30, "the topics to be deleted")

    def _can_make_topics(self) -> bool:
        try:
            self.make_topics()
        except KafkaException:
            return False
        return True

    def members(self) -> int:
        """Landers that the group knows.

        Raises:
            TimeoutError: the cluster did not say.
        """
        return int(ask(self.kafka.bootstrap, GROUP, "members"))

    def delete_group(self) -> None:
        """Forget the group and every offset it committed; it must have no members.

        Raises:
            TimeoutError: the cluster did not.
        """
        ask(self.kafka.bootstrap, GROUP, "delete")

    def stop(self) -> None:
        """End all of them."""
        self.proxy.stop()
        self.s3.stop()
        self.kafka.stop()


@contextlib.contextmanager
def running(folder: Path, partitions: int) -> Generator[Servers]:
    """Servers for the time of a block."""
    servers = Servers(folder, partitions)
    try:
        yield servers
    finally:
        servers.stop()


class TooLateError(Exception):
    """Something that had to happen did not, in time."""


def until(is_so: Callable[[], bool], seconds: float, what: str, *, every_s: float = 0.1) -> float:
    """Wait for a condition; how long it took.

    Raises:
        TooLateError: it did not come.
    """
    started = time.monotonic()
    while not is_so():
        if time.monotonic() - started > seconds:
            raise TooLateError(f"waited {seconds:g} s for {what}")
        time.sleep(every_s)
    return time.monotonic() - started


class Bucket:
    """The lake's objects as the server has them, read behind the product's back."""

    def __init__(self, s3: S3Server) -> None:
        self._client = s3.client()

    def keys(self, prefix: str, start_after: str = "") -> list[str]:
        """Keys below a prefix, in order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=prefix, StartAfter=start_after
        )
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def folders(self, prefix: str) -> list[str]:
        """Prefixes one level below."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=prefix, Delimiter="/"
        )
        return [found["Prefix"] for page in pages for found in page.get("CommonPrefixes", [])]

    def get(self, key: str, *, bytes_max: int = 0) -> bytes:
        """An object, or its first bytes."""
        extra = {"Range": f"bytes=0-{bytes_max - 1}"} if bytes_max else {}
        return self._client.get_object(Bucket=BUCKET, Key=key, **extra)["Body"].read()


class ObjectManifest(msgspec.Struct, frozen=True):
    """What is used here of an object's manifest."""

    topic: str
    topic_id: str
    part: int
    start: int
    next: int
    n: int
    gap: bool = False
    spool: dict[str, str | int] | None = None


def manifest_of(body: bytes) -> ObjectManifest:
    """The manifest in a gzip header's FEXTRA field (RFC 1952: after ten bytes and a length)."""
    length = int.from_bytes(body[14:16], "little")
    return msgspec.json.decode(body[16 : 16 + length], type=ObjectManifest)
