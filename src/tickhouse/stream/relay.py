"""The relay: what is durable in the spool goes on into Kafka, each partition by its own thread.

It never holds up recording: where Kafka is away or refuses, frames wait in the spool.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from tickhouse.errors import ConfigError, RefusedError, TickhouseError, TransientError
from tickhouse.model.frame import FRAME_BYTES_MAX
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.carrier import Carrier, TellGap
from tickhouse.stream.hints import Hints
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import LogReader
from tickhouse.stream.topics import TopicFacts, Topics, missing_topics
from tickhouse.telemetry import get_logger

LOOK_S: Final = 0.2
"""New partitions of the spool are looked for so often."""
TOPICS_S: Final = 5.0
"""Topics are compared with those that were there so often."""
RECORD_BYTES_MAX: Final = FRAME_BYTES_MAX + 4096
"""The largest envelope with its header, and the head of its batch."""

_log = get_logger("relay")


class Relay:
    """Carries a spool into Kafka.

    Args:
        open_spool: opens a reader of the spool; each thread has its own.
        hints: where the spool notes what was relayed.
        options: the cluster.
        tell_gap: records a gap where the spool no longer has what Kafka has not.
        drains: sends the backlog of a spool whose shards another one has taken over.
    """

    def __init__(
        self,
        open_spool: Callable[[], LogReader],
        hints: Hints,
        options: KafkaOptions,
        *,
        tell_gap: TellGap,
        drains: bool = False,
    ) -> None:
        self._open_spool = open_spool
        self._hints = hints
        self._options = options
        self._tell_gap = tell_gap
        self._drains = drains
        self._topics = Topics(options)
        self._carriers: dict[TopicPartition, Carrier] = {}
        self._spool = open_spool()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        self._faults: dict[str, TickhouseError] = {}
        self._compared_at = 0.0

    def start(self) -> None:
        """Begin to carry, in threads; returns at once."""
        self._thread = threading.Thread(target=self._watch, name="relay")
        self._thread.start()

    def stop(self) -> None:
        """End every thread; what is not carried yet waits in the spool."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.wake()
        for thread in self._threads:
            thread.join()
        self._spool.close()

    def wake(self) -> None:
        """Tell that the spool has grown."""
        for carrier in list(self._carriers.values()):
            carrier.wake()

    # -- where it is --------------------------------------------------------------------------

    def held(self, partition: TopicPartition) -> int:
        """Spool offset below which Kafka holds everything; 0 while that is not known."""
        carrier = self._carriers.get(partition)
        return 0 if carrier is None else carrier.held

    def lags(self) -> dict[TopicPartition, int]:
        """Records of each partition that wait in the spool."""
        return {
            partition: max(0, self._spool.bounds(partition).end - self._position(partition))
            for partition in self._spool.partitions()
        }

    def _position(self, partition: TopicPartition) -> int:
        carrier = self._carriers.get(partition)
        return (carrier.position or 0) if carrier is not None else 0

    def failures(self) -> dict[str, TickhouseError]:
        """What does not go on, and why."""
        found = {
            str(partition): carrier.error
            for partition, carrier in list(self._carriers.items())
            if isinstance(carrier.error, TickhouseError)
        }
        return {**self._faults, **found}

    def sent(self) -> int:
        """Records that went out in this life."""
        return sum(carrier.sent for carrier in list(self._carriers.values()))

    def facts(self) -> dict[str, Any]:
        """Numbers for status and the page; `blocked` is what it only waits for."""
        carriers = list(self._carriers.items())
        return {
            "relayed": {str(place): carrier.position for place, carrier in carriers},
            "relay_lag": sum(self.lags().values()),
            "relay_failures": {place: str(error) for place, error in self.failures().items()},
            "blocked": {str(place): carrier.waits for place, carrier in carriers if carrier.waits},
        }

    def wait_until_level(
        self, stop: threading.Event, *, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until Kafka holds the whole spool, or told to stop.

        Args:
            stop: ends the wait.
            tell: called at every look.

        Raises:
            ConfigError, RefusedError: a partition has stopped, and does not go on by itself.
        """
        while any(self.lags().values()):
            for error in self.failures().values():
                if isinstance(error, ConfigError | RefusedError):
                    raise error
            tell()
            if stop.wait(LOOK_S / 4):
                return

    def settle(self, seconds: float) -> None:
        """Give what the spool holds some time to reach Kafka, unless something stands."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.failures() and any(self.lags().values()):
            time.sleep(LOOK_S / 10)

    # -- threads ------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start a thread for each partition that comes; notice a topic that was made anew."""
        while not self._stop.wait(LOOK_S):
            try:
                faults = self._start_new()
                self._compare_topics()
            except TickhouseError as error:
                faults = {"topics": error}
            for place, error in faults.items():
                if str(error) != str(self._faults.get(place)):
                    _log.error("relay_stands", partition=place, error=str(error))
            self._faults = faults

    def _start_new(self) -> dict[str, TickhouseError]:
        """Start what is new; what cannot be started, and why."""
        new = [place for place in self._spool.partitions() if place not in self._carriers]
        if not new:
            return {}
        placed = self._topics.placed()
        if not placed:
            raise missing_topics(self._options)
        described = self._described(placed)
        faults: dict[str, TickhouseError] = {}
        for place in new:
            try:
                self._check_place(place, placed.get(place.stream, ("", 0))[1])
                self._check_topic(described.get(place.stream))
            except ConfigError as error:
                faults[str(place)] = error
            else:
                self._start(place)
        return faults

    def _described(self, placed: dict[Stream, tuple[str, int]]) -> dict[Stream, TopicFacts]:
        """How the topics are set; nothing where this user may not look."""
        try:
            return self._topics.describe(placed)
        except RefusedError as error:
            _log.info("topics_not_checked", reason=str(error))
            return {}

    def _check_place(self, place: TopicPartition, partitions: int) -> None:
        if place.part >= partitions:
            raise ConfigError(
                f"{self._options.url}: {self._topics.name(place.stream)} has {partitions}"
                f" partitions, and shard {place.part} needs one of its own:"
                f" tickhouse init --partitions {place.part + 1}"
            )

    def _check_topic(self, facts: TopicFacts | None) -> None:
        """Refuse a topic that would refuse an envelope, or remove records that nobody landed."""
        if facts is None:
            return
        if facts.message_bytes_max < RECORD_BYTES_MAX:
            raise ConfigError(
                f"{self._options.url}: {facts.topic}: max.message.bytes is"
                f" {facts.message_bytes_max}, and an envelope may take {RECORD_BYTES_MAX}:"
                " tickhouse init sets it right"
            )
        if facts.cleanup_policy != "delete":
            raise ConfigError(
                f"{self._options.url}: {facts.topic}: cleanup.policy is {facts.cleanup_policy},"
                " which would remove records: tickhouse init sets it right"
            )

    def _compare_topics(self) -> None:
        """A topic that was deleted and made again is noticed though nothing is sent."""
        if time.monotonic() - self._compared_at < TOPICS_S or not self._carriers:
            return
        self._compared_at = time.monotonic()
        try:
            placed = self._topics.placed()
        except TransientError as error:
            _log.debug("topics_not_compared", reason=str(error))
            return
        for place, carrier in self._carriers.items():
            topic_id = placed.get(place.stream, ("", 0))[0]
            if carrier.topic_id and topic_id != carrier.topic_id:
                carrier.begin_anew()

    def _start(self, place: TopicPartition) -> None:
        spool = self._open_spool()
        carrier = Carrier(
            partition=place,
            spool=spool,
            hints=self._hints,
            options=self._options,
            topic_id=self._ask_topic_id,
            tell_gap=self._tell_gap,
            drains=self._drains,
        )

        def run() -> None:
            try:
                carrier.run(self._stop)
            finally:
                spool.close()

        self._carriers[place] = carrier
        thread = threading.Thread(target=run, name=f"relay-{place}")
        self._threads.append(thread)
        thread.start()

    def _ask_topic_id(self, partition: TopicPartition) -> str:
        return self._topics.topic_id(partition.stream)
