"""One partition's relay with a producer that answers as told: what is retried, what begins anew."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from support.memory_log import TRADES, MemoryLog, frames
from tickhouse.errors import RefusedError
from tickhouse.stream import carrier as carrier_module
from tickhouse.stream.carrier import Carrier
from tickhouse.stream.kafka_client import DRAINED_HEADER, read_spool_header
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.relay_tail import Tail
from tickhouse.stream.sqlite import SqliteLog

RETRIABLE = KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", False, True))
FATAL = KafkaException(KafkaError(KafkaError._FENCED, "fenced", True))
WAIT_S = 10.0


class Delivered:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class Broker:
    """A partition, and what its producers are answered; `errors` come first, one a call."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, Any]] = []
        self.errors: dict[str, list[Exception]] = {}
        self.calls: list[str] = []
        self.names: list[str] = []
        self.config: dict[str, Any] = {}
        self.tail: Callable[[], Tail] = lambda: Tail(0, 0)

    def producer(self, config: dict[str, Any]) -> "ScriptedProducer":
        self.config = config
        self.names.append(config["transactional.id"])
        return ScriptedProducer(self)

    def take(self, call: str) -> None:
        self.calls.append(call)
        if self.errors.get(call):
            raise self.errors[call].pop(0)


class ScriptedProducer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._open: list[tuple[bytes, Any]] = []

    def init_transactions(self, _timeout: float) -> None:
        self._broker.take("init")

    def begin_transaction(self) -> None:
        self._open = []

    def produce(self, _topic: str, value: bytes, _key: bytes, **options: Any) -> None:
        self._open.append((value, options["headers"]))
        options["on_delivery"](None, Delivered(len(self._broker.records) + len(self._open) - 1))

    def flush(self, _timeout: float) -> int:
        if self._broker.errors.get("flush"):
            self._broker.take("flush")
        return 0

    def commit_transaction(self, _timeout: float) -> None:
        self._broker.take("commit")
        self._broker.records += self._open

    def abort_transaction(self, _timeout: float) -> None:
        self._broker.take("abort")

    def purge(self) -> None:
        pass


class HintsInMemory:
    def __init__(self) -> None:
        self.noted: list[bool] = []
        self.is_full = False

    def has_relayed(self, _partition: object) -> bool | None:
        return self.noted[-1] if self.noted else None

    def note_relayed(self, _partition: object, *, is_sure: bool) -> None:
        if self.is_full and is_sure:
            raise RefusedError("disk full")
        self.noted.append(is_sure)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()

    def read_tail(*_arguments: object, **_options: object) -> Tail:
        places = [read_spool_header(headers) for _, headers in made.records]
        if not places or places[-1] is None:
            return made.tail()
        end = len(made.records)
        return Tail(0, end, places[-1][1], made.records[-1][0])

    monkeypatch.setattr(carrier_module, "Producer", made.producer)
    monkeypatch.setattr(carrier_module, "read_tail", read_tail)
    monkeypatch.setattr(carrier_module, "AGAIN_S", 0.0)
    return made


@pytest.fixture
def spool() -> MemoryLog:
    log = MemoryLog(batch_records=1_500)
    log.append(TRADES, frames(0, 2_500))
    return log


@pytest.fixture
def hints() -> HintsInMemory:
    return HintsInMemory()


@pytest.fixture
def run(spool: MemoryLog, hints: HintsInMemory) -> Iterator[Callable[..., Carrier]]:
    stop, threads = threading.Event(), []

    def start(**options: Any) -> Carrier:
        made = Carrier(
            partition=TRADES,
            spool=spool,
            hints=hints,
            options=KafkaOptions(bootstrap="h:1", compression=options.pop("compression", "lz4")),
            topic_id=lambda _place: "t1",
            tell_gap=lambda *_gap: None,
            **options,
        )
        thread = threading.Thread(target=made.run, args=(stop,))
        threads.append(thread)
        thread.start()
        return made

    yield start
    stop.set()
    for thread in threads:
        thread.join(WAIT_S)


def until(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("waited in vain")


def values(broker: Broker) -> list[bytes]:
    return [value for value, _ in broker.records]


def test_a_lost_answer_of_a_commit_is_asked_for_again(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    broker.errors["commit"] = [RETRIABLE, RETRIABLE]
    carrier = run()
    until(lambda: carrier.held == 2_500)

    assert values(broker) == frames(0, 2_500)
    assert broker.calls[:4] == ["init", "commit", "commit", "commit"]
    assert broker.calls.count("init") == 1


def test_any_other_error_of_a_commit_ends_the_producer_and_starts_over_from_the_tail(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    broker.errors["commit"] = [FATAL]
    carrier = run()
    until(lambda: carrier.held == 2_500)

    assert values(broker) == frames(0, 2_500)
    assert broker.calls[:3] == ["init", "commit", "init"]


def test_a_fatal_error_that_the_client_lost_between_two_answers_is_asked_for_again(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    broker.errors["flush"] = [SystemError("flush returned NULL without setting an exception")]
    broker.errors["abort"] = [FATAL]
    carrier = run()
    until(lambda: carrier.held == 2_500)

    assert values(broker) == frames(0, 2_500)
    assert broker.calls[:4] == ["init", "flush", "abort", "init"]
    assert carrier.error is None


def test_a_client_that_is_broken_for_no_reason_of_the_brokers_is_told(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    broker.errors["flush"] = [SystemError("bad argument to internal function")] * 100
    carrier = run()
    until(lambda: carrier.error)

    assert carrier.state == "stopped"
    assert "bad argument" in str(carrier.error)
    assert values(broker) == []


def test_a_slow_answer_to_fencing_is_waited_for(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    broker.errors["init"] = [RETRIABLE, RETRIABLE]
    carrier = run()
    until(lambda: carrier.held == 2_500)

    assert len(broker.names) == 1


def test_records_go_out_as_documented(broker: Broker, run: Callable[..., Carrier]) -> None:
    """One transactional id a partition, acks from all, each record's place in its header."""
    carrier = run(compression="zstd")
    until(lambda: carrier.held == 2_500)

    assert broker.config["transactional.id"] == "tickhouse.trades.v1-0"
    assert broker.config["acks"] == "all"
    assert broker.config["compression.type"] == "zstd"
    places = [read_spool_header(headers) for _, headers in broker.records]
    assert places == [("e1", offset) for offset in range(2_500)]


def test_a_backlog_goes_out_marked_and_under_a_name_of_its_own(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    carrier = run(drains=True)
    until(lambda: carrier.held == 2_500)

    assert broker.names == ["tickhouse.trades.v1-0", "tickhouse.trades.v1-0-drain-e1"]
    assert all(dict(headers)[DRAINED_HEADER] == b"1" for _, headers in broker.records)


def test_the_first_commit_is_noted_before_and_after(
    broker: Broker, run: Callable[..., Carrier], hints: HintsInMemory
) -> None:
    carrier = run()
    until(lambda: carrier.held == 2_500)

    assert hints.noted == [False, True]


def test_a_full_disk_that_takes_no_hint_does_not_stop_the_relay(
    broker: Broker, run: Callable[..., Carrier], hints: HintsInMemory
) -> None:
    hints.is_full = True
    carrier = run()
    until(lambda: carrier.held == 2_500)

    assert values(broker) == frames(0, 2_500)
    assert carrier.error is None


def test_nothing_is_held_while_a_life_begins(
    broker: Broker, run: Callable[..., Carrier], spool: MemoryLog
) -> None:
    """The spool is trimmed behind `held`: of a tail that may be lost it must not be."""
    carrier = run()
    until(lambda: carrier.held == 2_500)
    broker.errors["init"] = [FATAL] * 100
    broker.errors["commit"] = [FATAL]
    spool.append(TRADES, frames(2_500, 1))
    until(lambda: carrier.error)

    assert carrier.held == 0
    assert carrier.position == 2_500


def test_a_spool_restored_with_another_record_at_the_tails_offset_is_refused(
    broker: Broker, run: Callable[..., Carrier]
) -> None:
    broker.tail = lambda: Tail(0, 11, 9, b'{"another":1}')
    carrier = run()
    until(lambda: carrier.error)

    assert "an older copy of itself" in str(carrier.error)
    assert broker.records == []


def test_hints_outlive_the_process(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    assert log.has_relayed(TRADES) is None
    log.note_relayed(TRADES, is_sure=False)
    assert log.has_relayed(TRADES) is False
    log.note_relayed(TRADES, is_sure=True)
    log.close()
    log = SqliteLog(tmp_path / "log.db")

    assert log.has_relayed(TRADES) is True
    log.close()
