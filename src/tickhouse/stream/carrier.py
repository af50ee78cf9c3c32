"""Carries one partition of a spool into its partition of Kafka, each record once.

A life begins with fencing: `init_transactions` ends whoever else wrote under this transactional id
and settles what was in flight. Then the position is found in the partition's own tail, and batches
go out, each a transaction. Whatever leaves a doubt ends the life; the next one finds the position
again. Nothing is remembered elsewhere but that this spool has relayed before.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tickhouse.errors import ConfigError, RefusedError, TickhouseError, TransientError
from tickhouse.model.positions import TopicPartition
from tickhouse.stream.hints import Hints
from tickhouse.stream.kafka_client import (
    DRAINED_HEADER,
    SPOOL_HEADER,
    TIMEOUT_S,
    client_config,
    raise_kafka,
    spool_header,
)
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.log import LogBatch, LogReader
from tickhouse.stream.relay_tail import Tail, read_tail
from tickhouse.stream.topics import MESSAGE_BYTES_MIN, kafka_place, topic_name
from tickhouse.telemetry import failpoint, get_logger

RECORDS_MAX: Final = 5_000
BYTES_MAX: Final = 4 << 20
"""Of one transaction: few where it is level, many where it is behind and each commit takes long."""
WAIT_S: Final = 0.2
"""The spool is looked at again after so long, unless it is told of."""
STEP_S: Final = 0.5
"""No call of the client takes longer than this, so that a stop is soon noticed."""
AGAIN_S: Final = 0.1
BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 30.0
TRANSACTION_MS: Final = 60_000

_log = get_logger("relay")


TellGap = Callable[[TopicPartition, int, int, int], None]
"""Told that offsets `from .. to` of a spool's partition are neither here nor there, since when."""


class Again(Exception):  # noqa: N818 - no error: a life that ends
    """The position is in doubt: begin anew."""


class Carrier:
    """One partition's relay; its thread calls `run`.

    Args:
        partition: of the spool, and of the stream's topic.
        spool: a reader of its own.
        hints: where the spool notes what was relayed.
        options: the cluster.
        topic_id: asks for the topic's life.
        tell_gap: see `TellGap`.
        drains: sends a backlog that the shard's next spool does not know of.

    Attributes:
        position: spool offset of the next record to send; None while it was never known.
        held: spool offset below which Kafka holds everything, as far as this life has seen.
        state: what it does, in a word: starting, running, away, stopped.
        error: why it does not run.
        waits: what it waits for, without being at fault.
        topic_id: the topic's life that it writes to; empty before the first one.
        sent: records that went out.
    """

    def __init__(
        self,
        *,
        partition: TopicPartition,
        spool: LogReader,
        hints: Hints,
        options: KafkaOptions,
        topic_id: Callable[[TopicPartition], str],
        tell_gap: TellGap,
        drains: bool = False,
    ) -> None:
        self.partition = partition
        self.position: int | None = None
        self.held = 0
        self.state = "starting"
        self.error: Exception | None = None
        self.waits = ""
        self.topic_id = ""
        self.sent = 0
        self._spool = spool
        self._hints = hints
        self._options = options
        self._ask_topic_id = topic_id
        self._tell_gap = tell_gap
        self._drains = drains
        self._topic = topic_name(options, partition.stream)
        self._name = f"{self._topic}-{partition.part}"
        self._epoch = spool.topic_id(partition)
        self._has_relayed: bool | None = None
        self._delivered = -1
        self._acked: list[int] = []
        self._failed: KafkaError | None = None
        self._came = threading.Event()
        self._stop = threading.Event()
        self._is_barred = False
        self._has_fenced_shard = False
        self._topic_changed = False

    def wake(self) -> None:
        """Tell that the spool has grown."""
        self._came.set()

    def begin_anew(self) -> None:
        """Tell that the topic is another one now."""
        self._topic_changed = True
        self._came.set()

    # -- lives --------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Carry until told to stop; what fails is said and tried again."""
        self._stop = stop
        backoff_s = BACKOFF_S_MIN
        while not stop.is_set():
            try:
                self._live(stop)
            except Again as reason:
                _log.warning("relay_begins_anew", partition=self._name, reason=str(reason))
                backoff_s = BACKOFF_S_MIN
                stop.wait(AGAIN_S)
            except Exception as error:  # noqa: BLE001 - its thread ends when told to, by nothing else
                self._stand(error)
                stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
            else:
                return

    def _stand(self, error: Exception) -> None:
        state = "away" if isinstance(error, TransientError) else "stopped"
        if not isinstance(error, TickhouseError):
            _log.error("relay_failed", partition=self._name, exc_info=error)
            error = TransientError(f"{self._name}: {error!r}")
        if str(error) != str(self.error):
            _log.error("relay_stands", partition=self._name, state=state, error=str(error))
        # Its traceback would keep the life's producer.
        self.state, self.error = state, error.with_traceback(None)

    def _live(self, stop: threading.Event) -> None:
        self.held, self._topic_changed = 0, False
        if self._is_barred and self._find_position(stop) is None:
            # Fencing again and again would only disturb the spool that goes on here.
            return
        producer = self._fence()
        try:
            position = self._find_position(stop)
            if position is None:
                return
            self.position = self.held = position
            self.error, self.state = None, "running"
            _log.info("relay_runs", partition=self._name, position=position)
            self._carry(producer, stop)
        finally:
            producer.purge()

    def _fence(self) -> Producer:
        """A producer that is the only one of this name; what another had in flight is settled.

        A backlog goes out under a name of its own: the shard's next spool goes on meanwhile.
        """
        if not self._drains:
            return self._settled_producer(self._name)
        if not self._has_fenced_shard:
            self._settled_producer(self._name).purge()
            self._has_fenced_shard = True
        return self._settled_producer(f"{self._name}-drain-{self._epoch}")

    def _settled_producer(self, name: str) -> Producer:
        producer = Producer(
            {
                **client_config(self._options),
                "transactional.id": name,
                "transaction.timeout.ms": TRANSACTION_MS,
                "acks": "all",
                "compression.type": self._options.compression,
                "linger.ms": 1,
                "batch.num.messages": RECORDS_MAX,
                "queue.buffering.max.kbytes": 16 << 10,
                "message.max.bytes": MESSAGE_BYTES_MIN,
            }
        )
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                producer.init_transactions(STEP_S)
            except KafkaException as error:
                is_late = self._stop.is_set() or time.monotonic() >= deadline
                if is_late or not error.args[0].retriable():
                    raise_kafka(error, f"{self._options.url}: begin to write {name}")
            else:
                return producer

    # -- the position -------------------------------------------------------------------------

    def _find_position(self, stop: threading.Event) -> int | None:
        """Spool offset to go on at; None where told to stop.

        Raises:
            ConfigError: another spool goes on here, or this one is an older copy of itself.
        """
        failpoint("relay.tail.before")
        self.topic_id = self._ask_topic_id(self.partition)
        self._has_relayed = self._hints.has_relayed(self.partition)
        # Of one that has relayed before, a rival's record says enough; so it does of a fresh one.
        looks_behind_rivals = self._drains or self._has_relayed is False
        tail = read_tail(
            self._options,
            kafka_place(self._options, self.partition),
            self._epoch,
            stop,
            looks_behind_rivals=looks_behind_rivals,
            tell_wait=self._tell_wait,
        )
        if tail is None:
            return None
        self.waits = ""
        self._delivered = tail.end - 1
        position = self._position_after(tail)
        self._is_barred = True
        self._check_rival(tail)
        self._check_copy(tail, position)
        self._is_barred = False
        begin = self._spool.bounds(self.partition).begin
        if position < begin:
            self._tell_gap(self.partition, position, begin, tail.at_ms)
            position = begin
        if tail.offset is not None:
            self._note(is_sure=True)
        return position

    def _tell_wait(self, what: str) -> None:
        if not self.waits:
            _log.warning("relay_waits", partition=self._name, reason=what)
        self.waits = what

    def _check_rival(self, tail: Tail) -> None:
        """Refuse to go on where another spool does; a fresh one may take a shard over."""
        has_relayed = tail.offset is not None or self._has_relayed
        if tail.rival is not None and has_relayed and not self._drains:
            raise ConfigError(
                f"{self._options.url}: {self._name}: another spool ({tail.rival}) goes on here, so"
                f" {self._spool_name()} stops; what it still holds is sent by `tickhouse drain`"
            )

    def _check_copy(self, tail: Tail, position: int) -> None:
        """Refuse to go on with a spool that is not what Kafka holds of it."""
        end = self._spool.bounds(self.partition).end
        if position > end or not self._is_same(tail):
            raise ConfigError(
                f"{self._options.url}: {self._name} holds {self._spool_name()} up to {position},"
                f" which is not what the spool holds (it ends at {end}): it is an older copy"
                " of itself. Record into a new one: move the file away, or set `spool`"
            )

    def _position_after(self, tail: Tail) -> int:
        """Behind the own last record; where there is none, everything that the spool holds.

        Retention may have emptied the partition. How far it had come then could be noted, but not
        whether the broker lost its tail before: what is repeated, silver removes.
        """
        if tail.offset is not None:
            return tail.offset + 1
        return self._spool.bounds(self.partition).begin

    def _is_same(self, tail: Tail) -> bool:
        """Whether the spool holds the tail's record, too; what was trimmed does not count."""
        bounds = self._spool.bounds(self.partition)
        if tail.offset is None or not bounds.begin <= tail.offset < bounds.end:
            return True
        batch = self._spool.read(self.partition, tail.offset, bytes_max=1)
        return batch is None or batch.trimmed or batch.values[0] == tail.value

    def _spool_name(self) -> str:
        return f"spool {self._epoch}, partition {self.partition.part} of {self.partition.stream},"

    def _note(self, *, is_sure: bool) -> None:
        """Note that this spool relays; once it does, a full disk does not stop it."""
        if self._has_relayed or self._has_relayed is is_sure:
            return
        try:
            self._hints.note_relayed(self.partition, is_sure=is_sure)
        except (RefusedError, TransientError) as error:
            _log.warning("hint_not_noted", partition=self._name, error=str(error))
            if not is_sure:
                raise
        self._has_relayed = is_sure

    # -- sending ------------------------------------------------------------------------------

    def _carry(self, producer: Producer, stop: threading.Event) -> None:
        while not stop.is_set():
            if self._topic_changed:
                raise Again("the topic was made anew")
            # Cleared before the look: what comes behind it wakes us.
            self._came.clear()
            position = self.position or 0
            batch = self._spool.read(self.partition, position, bytes_max=BYTES_MAX)
            if batch is None:
                self._came.wait(WAIT_S)
                continue
            if batch.trimmed or batch.topic_id != self._epoch:
                raise Again("the spool is another one now")
            self._send_batch(producer, batch)

    def _send_batch(self, producer: Producer, batch: LogBatch) -> None:
        # From the first commit on this spool has relayed, even if it dies before it notes so.
        self._note(is_sure=False)
        for first in range(0, len(batch.values), RECORDS_MAX):
            values = batch.values[first : first + RECORDS_MAX]
            self._send(producer, values, batch.start + first)
            self.position = self.held = batch.start + first + len(values)
            self.sent += len(values)
            self._note(is_sure=True)

    def _send(self, producer: Producer, values: Sequence[bytes], start: int) -> None:
        """One transaction."""
        self._acked, self._failed = [], None
        try:
            producer.begin_transaction()
            failpoint("relay.begin.after")
            for offset, value in enumerate(values, start):
                self._produce(producer, value, offset)
            self._flush(producer)
            failpoint("relay.produce.after")
            self._check(len(values))
            failpoint("relay.commit.before")
            self._commit(producer)
        except KafkaException as error:
            self._doubt(producer, error.args[0])
        except SystemError as error:
            self._doubt(producer, _fatal_error(producer, error))
        failpoint("relay.commit.after")
        self._delivered = self._acked[-1]

    def _produce(self, producer: Producer, value: bytes, offset: int) -> None:
        headers: list[tuple[str, bytes]] = [(SPOOL_HEADER, spool_header(self._epoch, offset))]
        if self._drains:
            headers.append((DRAINED_HEADER, b"1"))
        options: dict[str, Any] = {
            "partition": self.partition.part,
            "headers": headers,
            "on_delivery": self._take_answer,
        }
        while True:
            try:
                producer.produce(self._topic, value, b"%d" % self.partition.part, **options)
            except BufferError:
                producer.poll(0.05)
            else:
                return

    def _flush(self, producer: Producer) -> None:
        """Wait for the answers; what is not answered in time shows in their number."""
        deadline = time.monotonic() + TIMEOUT_S
        while producer.flush(STEP_S) and not self._stop.is_set() and time.monotonic() < deadline:
            pass

    def _take_answer(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = self._failed or error
        else:
            self._acked.append(message.offset() or 0)

    def _check(self, count: int) -> None:
        """Whether all arrived, behind what was there before.

        Raises:
            Again: the broker has lost its tail, or the topic is another one.
        """
        if self._failed is not None:
            raise KafkaException(self._failed)
        if len(self._acked) != count:
            raise Again(f"{len(self._acked)} of {count} records were answered in time")
        if self._acked[0] <= self._delivered:
            raise Again(
                f"delivered at {self._acked[0]} after {self._delivered}: the partition has lost its"
                " tail, or was made anew"
            )

    def _commit(self, producer: Producer) -> None:
        """Commit; a lost answer is asked for again, which the broker knows."""
        while True:
            try:
                producer.commit_transaction(STEP_S)
            except KafkaException as error:
                if self._stop.is_set() or not error.args[0].retriable():
                    raise
            else:
                return

    def _doubt(self, producer: Producer, error: KafkaError) -> None:
        """What to do after an error in a transaction: say what stops us, else begin anew."""
        if error.txn_requires_abort():
            try:
                producer.abort_transaction(STEP_S)
            except KafkaException as aborted:
                _log.debug("not_aborted", partition=self._name, error=str(aborted))
        try:
            raise_kafka(error, f"{self._options.url}: write {self._name}")
        except TransientError as passing:
            raise Again(str(passing)) from None


def _fatal_error(producer: Producer, error: SystemError) -> KafkaError:
    """The fatal error that the client raises between the answers it hands out.

    Handing out the rest of them may lose what it was; the producer then says it again when
    asked to abort.
    """
    if isinstance(error.__cause__, KafkaException):
        return error.__cause__.args[0]
    try:
        producer.abort_transaction(STEP_S)
    except KafkaException as said_again:
        return said_again.args[0]
    raise error
