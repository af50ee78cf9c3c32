"""Rules in any order (produce, re-send, reconnect, late trades, load, build, rebuild) on the road.

The real log, lander, lake, loader, DuckDB and builder, against a plain-Python oracle of silver's
trades and of the one-minute bars. Whatever the order, what was built equals the oracle.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support import builds
from support.bronze_rows import finnhub, millis, trade
from tickhouse.bronze.lander import Lander
from tickhouse.bronze.local import LocalStore
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog, SqliteReader
from tickhouse.transform.builder import Builder, duckdb_target
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import Loader

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
"""A Monday, 10:00 in New York: regular hours, where condition "1" counts for every bar."""
SYMBOLS = ("AAPL", "MSFT")
CHECKED: list[int] = []
"""Frames of each comparison made: a run without any would prove nothing."""
TRADES = TopicPartition(Stream.TRADES, 0)


class Print(msgspec.Struct, frozen=True):
    """One trade; seconds after the start, price in cents."""

    symbol: str
    at_s: int
    price: int
    size: int


prints = st.lists(
    st.builds(
        Print,
        symbol=st.sampled_from(SYMBOLS),
        at_s=st.integers(0, 150),
        price=st.integers(9_900, 10_100),
        size=st.integers(1, 300),
    ),
    min_size=1,
    max_size=3,
)


class Frame(msgspec.Struct, frozen=True):
    """A frame as the oracle knows it, by its identity."""

    session: str
    seq: int
    trades: tuple[Print, ...]
    value: bytes


@contextmanager
def parsed_builder(warehouse: DuckDBWarehouse, folder: Path) -> Iterator[Builder]:
    """A builder that takes the project as the first one has parsed it."""
    builder = Builder(
        connect=warehouse.cursor, target=duckdb_target(warehouse.path), work_folder=folder / "dbt"
    )
    if builds._parsed:
        builder._dbt.write_profile()
        builder._dbt._runner, builder._dbt.nodes = (
            builds._parsed[0]._runner,
            builds._parsed[0].nodes,
        )
    else:
        builder.prepare()
        builds._parsed.append(builder._dbt)
    try:
        yield builder
    finally:
        builder.close()


class Road(RuleBasedStateMachine):
    """Feeds frames into the log, moves them on, and compares after each build."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tickhouse-machine-"))
        self.made: list[Frame] = []
        self.landed = self.loaded = 0
        self.built: list[Frame] | None = None
        self.session, self.seq = 0, 0
        self.sent: list[Frame] = []

    @initialize()
    def open(self) -> None:
        self.log = SqliteLog(self.folder / "log" / "log.db")
        self.reader = SqliteReader(self.folder / "log" / "log.db")
        self.store = LocalStore(self.folder / "lake")
        self.lander = Lander(self.reader, self.store)
        self.warehouse = DuckDBWarehouse(self.folder / "warehouse" / "warehouse.duckdb")
        self.warehouse.prepare()
        self.loader = Loader(self.store, self.warehouse)

    # -- the feed -----------------------------------------------------------------------------

    def _send(self, frames: Sequence[Frame]) -> None:
        self.log.append([Append(TRADES, [frame.value for frame in frames])])
        self.sent += frames

    def _frame(self, trades: Sequence[Print]) -> Frame:
        session = f"0192f0a0-0000-7000-8000-{self.session:012d}"
        newest = max(each.at_s for each in trades)
        payload = finnhub(
            *(
                trade(
                    each.symbol, START + timedelta(seconds=each.at_s), each.price / 100, each.size
                )
                for each in trades
            )
        )
        (value,) = encode_frames(
            [payload.encode()],
            source="finnhub.ws",
            session=session,
            first_seq=self.seq,
            received_at_ns=millis(START + timedelta(seconds=newest)) * 1_000_000,
        )
        frame = Frame(session, self.seq, tuple(trades), value)
        self.seq += 1
        return frame

    @rule(messages=st.lists(prints, min_size=1, max_size=4))
    def produce(self, messages: list[list[Print]]) -> None:
        frames = [self._frame(trades) for trades in messages]
        self.made += frames
        self._send(frames)

    @precondition(lambda self: self.made)
    @rule(number=st.integers(0, 999), count=st.integers(1, 3))
    def send_again(self, number: int, count: int) -> None:
        """What a relay repeats after the broker has lost its tail: the same frames."""
        first = number % len(self.made)
        self._send(self.made[first : first + count])

    @rule()
    def reconnect(self) -> None:
        """Another session: its numbers begin anew."""
        self.session, self.seq = self.session + 1, 0

    @rule(symbol=st.sampled_from(SYMBOLS), price=st.integers(9_000, 9_100))
    def trade_late(self, symbol: str, price: int) -> None:
        """A print of the first second, whenever it comes."""
        frame = self._frame([Print(symbol, 0, price, 7)])
        self.made.append(frame)
        self._send([frame])

    # -- the road -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.sent) > self.landed)
    @rule()
    def land(self) -> None:
        self.lander.drain()
        self.landed = len(self.sent)

    @precondition(lambda self: self.landed > self.loaded)
    @rule()
    def load(self) -> None:
        self.loader.load_all()
        self.loaded = self.landed

    @precondition(lambda self: self.loaded)
    @rule()
    def build(self) -> None:
        with parsed_builder(self.warehouse, self.folder / "warehouse") as builder:
            builder.build()
        self.built = list({(f.session, f.seq): f for f in self.sent[: self.loaded]}.values())

    @precondition(lambda self: len(self.sent) > self.loaded)
    @rule()
    def refine(self) -> None:
        """All three at once."""
        self.land()
        self.load()
        self.build()

    @precondition(lambda self: self.built is not None)
    @rule()
    def rebuild(self) -> None:
        """From the lake alone, into a new warehouse: silver and bars of all that was landed."""
        folder = Path(tempfile.mkdtemp(prefix="tickhouse-machine-"))
        other = DuckDBWarehouse(folder / "warehouse.duckdb")
        other.prepare()
        Loader(self.store, other).load_all()
        with parsed_builder(other, folder) as builder:
            builder.build()
        frames = {(f.session, f.seq): f for f in self.sent[: self.landed]}
        try:
            check(other, list(frames.values()))
        finally:
            other.close()
            shutil.rmtree(folder)

    @invariant()
    def what_was_built_is_right(self) -> None:
        if self.built is not None:
            check(self.warehouse, self.built)

    def teardown(self) -> None:
        """Bring everything level once more, and compare."""
        try:
            if self.sent:
                self.refine()
                self.what_was_built_is_right()
        finally:
            self._close()

    def _close(self) -> None:
        self.warehouse.close()
        self.reader.close()
        self.log.close()
        shutil.rmtree(self.folder)


# -- the oracle -------------------------------------------------------------------------------


def check(warehouse: DuckDBWarehouse, frames: Sequence[Frame]) -> None:
    silver = warehouse.query(
        "select session_id, session_seq, symbol, event_at, price, trade_size from silver.trades"
    )
    bars = warehouse.query(
        "select symbol, bar_at, open, high, low, close, volume, trade_count from gold.bars_1m"
    )

    assert sorted(silver) == expected_trades(frames)
    assert sorted(bars) == expected_bars(frames)
    CHECKED.append(len(frames))


def naive(at_s: int) -> datetime:
    return (START + timedelta(seconds=at_s)).replace(tzinfo=None)


def dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def expected_trades(frames: Sequence[Frame]) -> list[tuple[Any, ...]]:
    return sorted(
        (frame.session, frame.seq, t.symbol, naive(t.at_s), dollars(t.price), Decimal(t.size))
        for frame in frames
        for t in frame.trades
    )


def expected_bars(frames: Sequence[Frame]) -> list[tuple[Any, ...]]:
    minutes: dict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
    for frame in frames:
        received = max(t.at_s for t in frame.trades)
        for index, t in enumerate(frame.trades):
            order = (t.at_s, received, frame.session, frame.seq, index)
            minutes[t.symbol, t.at_s // 60].append((order, t.price, t.size))
    return sorted(bar(symbol, minute, sorted(found)) for (symbol, minute), found in minutes.items())


def bar(symbol: str, minute: int, found: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    prices = [price for _, price, _ in found]
    ends = (prices[0], max(prices), min(prices), prices[-1])
    volume = Decimal(sum(size for _, _, size in found))
    return (symbol, naive(60 * minute), *map(dollars, ends), volume, len(found))


def run_machine(examples: int, steps: int) -> None:
    CHECKED.clear()
    run_state_machine_as_test(
        Road,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_any_order_of_rules_gives_what_the_oracle_says() -> None:
    run_machine(3, 12)

    assert max(CHECKED) > 1


@pytest.mark.long
def test_any_order_of_many_rules_gives_what_the_oracle_says() -> None:
    run_machine(15, 30)

    assert max(CHECKED) > 5
