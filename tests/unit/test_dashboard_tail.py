"""The log's live end is followed within a budget; too far behind, it is skipped, never hidden."""

from collections.abc import Callable

from support.dashboard import SESSIONS, TRADES, MemoryLog
from support.memory_log import MemoryLog as LogWithHoles
from tickhouse.dashboard.tail import RECORDS_A_STEP, LogTail
from tickhouse.errors import CorruptLogError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import LogBatch

OTHER = TopicPartition(Stream.TRADES, 1)


def steps(count: int) -> Callable[[], bool]:
    """A budget that is spent after `count` questions."""
    left = [count]

    def is_spent() -> bool:
        left[0] -= 1
        return left[0] < 0

    return is_spent


def never() -> bool:
    return False


def values_of(tail: LogTail, is_spent: Callable[[], bool] = never) -> list[bytes]:
    return [value for chunk in tail.read(is_spent) for value in chunk.values]


def tail_of(log: MemoryLog, *, now_ms: int = 0, start: int = 0) -> LogTail:
    tail = LogTail(log, clock_ms=lambda: now_ms, lag_ms_max=1000)
    tail.discover(lambda _: start)
    return tail


def fill(log: MemoryLog, partition: TopicPartition, count: int, *, at_ms: int = 0) -> list[bytes]:
    values = [b"%d-%d" % (partition.part, n) for n in range(count)]
    log.append(partition, values, at_ms=at_ms)
    return values


def test_every_record_is_read_once_and_in_order() -> None:
    log = MemoryLog()
    first = fill(log, TRADES, 700)
    tail = tail_of(log)

    assert values_of(tail) == first
    assert values_of(tail) == []
    second = fill(log, TRADES, 3)
    assert values_of(tail) == second


def test_a_spent_budget_stops_in_the_middle_and_goes_on_there() -> None:
    log = MemoryLog()
    expected = fill(log, TRADES, 3 * RECORDS_A_STEP)
    tail = tail_of(log)

    first = values_of(tail, steps(2))
    assert len(first) < len(expected)
    assert first + values_of(tail) == expected


def test_partitions_take_turns_so_that_none_waits_for_another() -> None:
    log = MemoryLog()
    fill(log, TRADES, 10 * RECORDS_A_STEP)
    fill(log, OTHER, 5)
    tail = tail_of(log)

    chunks = [chunk.partition for chunk in tail.read(steps(3))]
    assert chunks[:2] == [TRADES, OTHER]


def test_old_records_left_at_the_end_of_the_budget_are_skipped_and_told() -> None:
    log = MemoryLog()
    fill(log, TRADES, 4 * RECORDS_A_STEP, at_ms=0)
    tail = tail_of(log, now_ms=1001)
    values_of(tail, steps(2))

    assert tail.skip_if_behind() == {TRADES: 4 * RECORDS_A_STEP}
    assert tail.skipped_records == 3 * RECORDS_A_STEP
    assert values_of(tail) == []
    fresh = fill(log, TRADES, 2, at_ms=1001)
    assert values_of(tail) == fresh
    assert tail.skip_if_behind() == {}


def test_recent_records_left_at_the_end_of_the_budget_wait_for_the_next_one() -> None:
    log = MemoryLog()
    fill(log, TRADES, 4 * RECORDS_A_STEP, at_ms=500)
    tail = tail_of(log, now_ms=1001)
    values_of(tail, steps(2))

    assert tail.skip_if_behind() == {}
    assert tail.skipped_records == 0


def test_a_range_that_retention_removed_is_passed_and_told() -> None:
    log = MemoryLog()
    values = fill(log, TRADES, 10)
    log.begin[TRADES] = 4
    tail = tail_of(log)

    assert values_of(tail) == values[4:]
    assert tail.skip_if_behind() == {TRADES: 4}


def test_a_damaged_batch_is_named_and_does_not_stop_the_page() -> None:
    class Damaged(MemoryLog):
        def read(
            self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
        ) -> LogBatch | None:
            if start < 10:
                raise CorruptLogError(partition.topic, partition.part, start, "checksum differs")
            return super().read(partition, start, bytes_max=bytes_max)

    log = Damaged()
    fill(log, TRADES, 10)
    tail = tail_of(log)

    assert values_of(tail) == []
    assert tail.damage == "tickhouse.trades.v1[0]@0: checksum differs"
    assert tail.skip_if_behind() == {TRADES: 10}
    assert values_of(tail) == []
    fresh = fill(log, TRADES, 1)
    assert values_of(tail) == fresh


def test_a_replaced_log_is_noticed_by_its_topic_id_and_read_anew() -> None:
    log = MemoryLog()
    fill(log, TRADES, 5)
    tail = tail_of(log)
    values_of(tail)
    log.records.clear()
    log.epoch = "epoch2"
    other = fill(log, TRADES, 2)

    assert tail.discover(lambda _: 0) is True
    assert values_of(tail) == other
    assert tail.discover(lambda _: 0) is False


def test_new_partitions_are_found() -> None:
    log = MemoryLog()
    tail = tail_of(log)
    assert tail.partitions() == []
    fill(log, TRADES, 1)
    fill(log, SESSIONS, 1)
    tail.discover(lambda _: 0)

    assert sorted(tail.partitions()) == [SESSIONS, TRADES]


def test_session_events_are_never_skipped_however_old_they_are() -> None:
    log = MemoryLog()
    told = fill(log, SESSIONS, 3 * RECORDS_A_STEP)
    fill(log, TRADES, 3 * RECORDS_A_STEP)
    tail = tail_of(log, now_ms=60_000)

    read = [chunk for chunk in tail.read(steps(3)) if chunk.partition == SESSIONS]
    jumps = tail.skip_if_behind()
    read += [chunk for chunk in tail.read(never) if chunk.partition == SESSIONS]

    assert jumps == {TRADES: 3 * RECORDS_A_STEP}
    assert [value for chunk in read for value in chunk.values] == told


def test_each_stream_has_a_topic_of_its_own_and_reference_data_is_not_followed() -> None:
    class Topics(MemoryLog):
        def topic_id(self, partition: TopicPartition) -> str:
            return f"{self.epoch}-{partition.stream}"

    log = Topics()
    fill(log, TopicPartition(Stream.REFERENCE, 0), 1)
    fill(log, TRADES, 1)
    tail = tail_of(log)

    assert tail.partitions() == [TRADES]
    assert tail.topic_id(Stream.TRADES) == "epoch1-trades"
    assert tail.topic_id(Stream.QUOTES) == ""
    fill(log, TopicPartition(Stream.QUOTES, 0), 1)
    assert tail.discover(lambda _: 0) is False
    log.epoch = "epoch2"
    assert tail.discover(lambda _: 0) is True
    assert tail.topic_id(Stream.QUOTES) == "epoch2-quotes"


def test_offsets_without_records_are_passed_and_not_told_as_skipped() -> None:
    """Markers of Kafka's transactions use offsets."""
    log = LogWithHoles(batch_records=2)
    log.append(TRADES, [b"1", b"2"])
    log.skip(TRADES, 5)
    log.append(TRADES, [b"3"])
    log.skip(TRADES, 3)
    tail = LogTail(log, clock_ms=lambda: 7)
    tail.discover(lambda _: 0)

    assert values_of(tail) == [b"1", b"2", b"3"]
    assert tail.skipped_records == 0
    assert tail.skip_if_behind() == {}
    assert tail.position(TRADES) == log.bounds(TRADES).end


def test_a_resting_reader_follows_all_but_trades() -> None:
    log = MemoryLog()
    fill(log, TRADES, 3)
    sessions = fill(log, SESSIONS, 2)
    tail = tail_of(log)
    tail.is_resting = True

    assert values_of(tail) == sessions
    tail.is_resting = False
    assert len(values_of(tail)) == 3
