"""A simulated day through the Finnhub double, every fault, every layer compared with its record."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proofs.feed_check import Found, check
from proofs.feeds import Plan, prove, run
from proofs.stages import Stages
from servers.finnhub.faults import KINDS
from servers.finnhub.record import Record

TOLERANCE_S = 6.0
SHORT = Plan(seed=3, symbols=8, rate=20, hours=0.35, speed=60, pause_s=8)
DAY = Plan(seed=11, symbols=50, rate=20, begins_h=-5.5, hours=16, speed=240, times=20, pause_s=45)


class Recorded:
    def __init__(self, folder: Path) -> None:
        self.stages = Stages(folder)
        self.record = run(self.stages, SHORT).record

    def check(self, record: Record | None = None) -> Found:
        return check(self.stages, record or self.record, tolerance_s=TOLERANCE_S)

    def check_after(self, statement: str) -> Found:
        cursor = self.stages.warehouse.cursor()
        cursor.begin()
        cursor.execute(statement)
        query, self.stages.warehouse.query = (
            self.stages.warehouse.query,
            lambda sql, *_: cursor.execute(sql).fetchall(),
        )
        try:
            return self.check()
        finally:
            self.stages.warehouse.query = query
            cursor.rollback()
            cursor.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    found = Recorded(tmp_path_factory.mktemp("finnhub") / "data")
    yield found
    found.stages.close()


def test_a_short_day_with_every_fault_loses_nothing_and_tells_every_gap(
    recorded: Recorded,
) -> None:
    found = recorded.check()

    assert found.problems == []
    assert (found.lost, found.duplicated, found.bars_differ) == (0, 0, 0)
    assert found.gaps_expected == found.gaps_recorded >= 3
    assert found.trades > 10_000
    assert found.rejects >= 5
    assert recorded.stages.audit().ok


def forget_a_message(record: Record) -> None:
    sent = max(record.connections.values(), key=lambda sent: len(sent.messages))
    sent.messages.pop()
    sent.due_ns.pop()


def send_one_more(record: Record) -> None:
    sent = min(record.connections.values(), key=lambda sent: -len(sent.messages))
    sent.messages.append(sent.messages[0])
    sent.due_ns.append(sent.due_ns[len(sent.due_ns) // 2])


def send_other_bytes(record: Record) -> None:
    sent = max(record.connections.values(), key=lambda sent: len(sent.messages))
    sent.messages[10] += b" "


@pytest.mark.parametrize(
    ("tamper", "lost", "duplicated"),
    [
        (forget_a_message, False, True),
        (send_one_more, True, False),
        (send_other_bytes, True, False),
    ],
)
def test_the_check_sees_what_was_sent_and_is_not_stored_or_the_reverse(
    recorded: Recorded,
    tamper: Callable[[Record], None],
    lost: bool,  # noqa: FBT001
    duplicated: bool,  # noqa: FBT001
) -> None:
    record = copy.deepcopy(recorded.record)
    tamper(record)

    found = recorded.check(record)

    assert not found.is_ok
    assert (found.lost > 0, found.duplicated > 0) == (lost, duplicated)


FIRST = "rowid = (select min(rowid) from {0})"


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        (f"delete from silver.trades where {FIRST.format('silver.trades')}", "lost"),
        (
            f"insert into silver.trades from silver.trades where {FIRST.format('silver.trades')}",
            "duplicated",
        ),
        (
            f"update silver.trades set price = price * 2 where {FIRST.format('silver.trades')}",
            "lost",
        ),
        ("update gold.bars_1m set volume = volume + 1", "bars_differ"),
    ],
)
def test_the_check_sees_a_changed_warehouse(recorded: Recorded, statement: str, seen: str) -> None:
    found = recorded.check_after(statement)

    assert not found.is_ok
    assert getattr(found, seen) > 0


def test_the_check_sees_a_gap_that_was_not_told(recorded: Recorded) -> None:
    """Which faults leave gaps of which kind depends on when they strike."""
    told = {kind for (kind,) in recorded.stages.warehouse.query("select kind from silver.gaps")}
    kinds = told & {"missed", "refused"}

    assert kinds
    for kind in kinds:
        found = recorded.check_after(f"delete from silver.gaps where kind = '{kind}'")
        assert found.gaps_recorded < found.gaps_expected
        assert not found.is_ok


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_whole_day_of_50_symbols_with_every_fault_twenty_times(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "data")
    try:
        proof = prove(DAY, stages)
    finally:
        stages.close()

    assert proof["problems"] == []
    assert proof["not_struck"] == {}
    assert (proof["lost"], proof["duplicated"], proof["bars_differ"]) == (0, 0, 0)
    assert proof["gaps_expected"] == proof["gaps_recorded"]
    assert proof["faults"] >= 20 * len(KINDS) > 300  # type: ignore[operator]
    assert proof["ok"]
