"""A wall clock that jumps three hours either way: times are data, nothing is lost by them."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from support.feeds import ListFeed
from tickhouse.bronze.lander import Lander, held_offsets
from tickhouse.bronze.local import LocalStore
from tickhouse.clock import SystemClock
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

TRADES = TopicPartition(Stream.TRADES, 0)
HOURS_3_MS = 3 * 3600 * 1000
NOW_MS = 1_732_300_000_000


def jumping_clock(scale: int) -> Callable[[], int]:
    jumps = itertools.cycle([0, HOURS_3_MS, -HOURS_3_MS, 1])
    return lambda: (NOW_MS + next(jumps)) * scale


class JumpingClock(SystemClock):
    def __init__(self) -> None:
        self.time_ns = jumping_clock(10**6)


@pytest.fixture
def messages() -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(2_000)]


def test_a_clock_that_jumps_changes_neither_order_nor_completeness(
    tmp_path: Path, messages: list[bytes]
) -> None:
    log = SqliteLog(tmp_path / "log.db", clock_ms=jumping_clock(1))
    recorder = Recorder(ListFeed(messages, pause_every=200), log, commit_ms=1, clock=JumpingClock())
    asyncio.run(recorder.run(asyncio.Event()))
    reader = SqliteReader(tmp_path / "log.db")
    store = LocalStore(tmp_path / "lake")

    Lander(reader, store).drain()

    assert held_offsets(reader, store)(TRADES) == len(messages)
    assert log.bounds(TRADES).end == len(messages)
    reader.close()
    log.close()


def test_a_clock_that_jumps_ahead_does_not_let_retention_pass_the_lake(
    tmp_path: Path, messages: list[bytes]
) -> None:
    now_ms = [NOW_MS]
    log = SqliteLog(tmp_path / "log.db", clock_ms=lambda: now_ms[0])
    asyncio.run(Recorder(ListFeed(messages, pause_every=200), log).run(asyncio.Event()))
    reader = SqliteReader(tmp_path / "log.db")
    store = LocalStore(tmp_path / "lake")
    now_ms[0] += 30 * 24 * 3600 * 1000

    log.retain(age_s_max=60, bytes_max=1, grace_s=1, held=held_offsets(log, store))
    unlanded = log.bounds(TRADES).begin
    Lander(reader, store).drain()
    log.retain(age_s_max=60, bytes_max=1, grace_s=1, held=held_offsets(log, store))
    landed = log.bounds(TRADES).begin

    assert unlanded == 0
    assert 0 < landed < len(messages)
    reader.close()
    log.close()
