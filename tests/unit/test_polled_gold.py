"""Gold over a network, for the page: one looks, all viewers are answered, nobody waits."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from support.dashboard import MemoryManifest
from tickhouse.dashboard import polled_gold
from tickhouse.dashboard.polled_gold import PolledGold
from tickhouse.errors import TransientError


class SlowGold:
    """A warehouse's gold whose answers can be held up."""

    def __init__(self) -> None:
        self.is_level = True
        self.version = 1
        self.looks = self.queries = 0
        self.fault: TransientError | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def manifest(self) -> MemoryManifest:
        self.looks += 1
        self.go_on.wait(10)
        if self.fault is not None:
            raise self.fault
        return MemoryManifest(self.version, self.version, 0, ())

    def is_current(self, version: int) -> bool:
        self.looks += 1
        return self.is_level and version == self.version

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        self.queries += 1
        return [(sql, *parameters, self.version)]


@pytest.fixture
def slow() -> SlowGold:
    return SlowGold()


@pytest.fixture
def gold(slow: SlowGold) -> Iterator[PolledGold]:
    with closing(PolledGold(slow, poll_s=0.01)) as polled:
        yield polled


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def seen(gold: PolledGold) -> int | None:
    manifest = gold.manifest()
    return None if manifest is None else manifest.version


def test_a_version_is_told_without_waiting_for_the_warehouse(slow: SlowGold) -> None:
    slow.go_on.clear()

    with closing(PolledGold(slow, poll_s=0.01)) as gold:
        assert seen(gold) is None
        slow.go_on.set()
        wait_for(lambda: seen(gold) == 1)


def test_what_many_ask_is_asked_once_until_gold_moves(slow: SlowGold, gold: PolledGold) -> None:
    wait_for(lambda: seen(gold) == 1)
    answers = [gold.query("select ?", ["MSFT"]) for _ in range(20)]
    other = gold.query("select ?", ["AAPL"])
    asked = slow.queries
    slow.version = 2
    wait_for(lambda: seen(gold) == 2)

    assert [[("select ?", "MSFT", 1)]] * 20 == answers
    assert other != answers[0]
    assert asked == 2
    assert [("select ?", "MSFT", 2)] == gold.query("select ?", ["MSFT"])


def test_within_a_build_nothing_is_kept_and_no_version_is_whole(
    slow: SlowGold, gold: PolledGold
) -> None:
    wait_for(lambda: seen(gold) == 1)
    slow.is_level = False

    assert not gold.is_current(1)
    gold.query("select 1")
    gold.query("select 1")
    assert slow.queries == 2


def test_a_warehouse_that_is_away_is_told_and_asked_again(slow: SlowGold, gold: PolledGold) -> None:
    slow.fault = TransientError("snowflake://a/b: away")

    def is_told() -> bool:
        try:
            gold.manifest()
        except TransientError:
            return True
        return False

    wait_for(is_told)
    slow.fault = None
    wait_for(lambda: not is_told())
    wait_for(lambda: seen(gold) == 1)


def test_where_nobody_looks_the_warehouse_is_left_alone(
    slow: SlowGold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polled_gold, "INTEREST_S", 0.05)
    with closing(PolledGold(slow, poll_s=0.01)) as gold:
        wait_for(lambda: seen(gold) == 1)
        time.sleep(0.2)
        looks = slow.looks
        time.sleep(0.2)
        rested = slow.looks
        slow.version = 2
        wait_for(lambda: seen(gold) == 2)

    assert rested == looks
