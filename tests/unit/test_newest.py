"""The newest records of a partition, whatever lies behind them."""

from support.memory_log import TRADES, MemoryLog
from tickhouse.stream.newest import newest_batch, relayed_end


def test_the_newest_records_are_found_behind_a_long_tail_without_any() -> None:
    log = MemoryLog(batch_records=100)
    log.append(TRADES, [b"1", b"2"])
    log.skip(TRADES, 5_000)

    found = newest_batch(log, TRADES)

    assert found is not None
    assert found.values[-1] == b"2"


def test_a_partition_without_records_has_no_newest() -> None:
    log = MemoryLog(batch_records=100)
    log.skip(TRADES, 40)

    assert newest_batch(log, TRADES) is None


def test_what_retention_removed_is_not_looked_for() -> None:
    log = MemoryLog()
    log.append(TRADES, [b"%d" % number for number in range(50)])
    log.trim(TRADES, 50)

    assert newest_batch(log, TRADES) is None


def test_a_log_that_no_relay_wrote_holds_nothing_of_a_spool() -> None:
    log = MemoryLog()
    log.append(TRADES, [b"%d" % number for number in range(50)])

    assert relayed_end(log, TRADES, "s1") == 0
