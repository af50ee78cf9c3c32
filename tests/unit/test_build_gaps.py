"""Session events to silver and gold: gaps that are told, filled and merged, coverage, remotes."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.bronze_rows import T0, BronzeFrame, BronzeWarehouse, nanos, quote
from support.builds import EXACT_TABLES, builder_of, copied_warehouse, new_warehouse, rows_of
from tickhouse.model.session import (
    Closed,
    Coverage,
    Gap,
    Opened,
    PreviousSession,
    Remote,
    SessionEvent,
)

FEED = "finnhub://AAPL,MSFT,BINANCE:BTCUSDT"
MINUTE = timedelta(minutes=1)
CLOSE = datetime(2024, 8, 9, 20, 0, tzinfo=UTC)
"""The closing bell of T0's day, a Friday."""


class Events:
    """Session events as bronze frames, numbered by session."""

    def __init__(self) -> None:
        self.frames: list[BronzeFrame] = []
        self._numbers: dict[str, int] = {}

    def add(self, session: str, *events: SessionEvent) -> "Events":
        for event in events:
            seq = self._numbers.get(session, 0)
            self._numbers[session] = seq + 1
            self.frames.append(
                BronzeFrame(
                    payload=msgspec.json.encode(event).decode(),
                    seq=seq,
                    session=session,
                    source="tickhouse",
                    stream="sessions",
                )
            )
        return self

    def session(
        self,
        name: str,
        at: datetime,
        *events: SessionEvent,
        shard: int = 0,
        feed: str = FEED,
        previous: str | None = None,
        closed_at: datetime | None = None,
        messages: dict[str, int] | None = None,
    ) -> "Events":
        before = None if previous is None else PreviousSession(previous, None)
        self.add(name, Opened(nanos(at), shard, feed, "live", None, before), *events)
        if closed_at is not None:
            self.add(name, Closed(nanos(closed_at), "dropped", messages or {}))
        return self


def gap(name: str | None, since: datetime, until: datetime, **options: Any) -> Gap:
    told: dict[str, Any] = {
        "at": nanos(until),
        "stream": "trades",
        "seq_from": None,
        "seq_to": None,
        "time_from": nanos(since),
        "time_to": nanos(until),
        "symbols": ["AAPL"],
        "cause": "dropped",
        "name": name,
    }
    return Gap(**(told | options))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> BronzeWarehouse:
    warehouse = new_warehouse(tmp_path_factory.mktemp("template") / "w")
    with builder_of(warehouse) as builder:
        builder.build()
    return warehouse


def everything() -> Events:
    """One of each: two connections of the socket, a poller, a filler, and other feeds."""
    ids = {"id_from": 101, "id_to": 149, "symbols": ["BINANCE:BTCUSDT"]}
    part = {"id_from": 120, "id_to": 149, "symbols": ["BINANCE:BTCUSDT"]}
    since, until = T0 + MINUTE, T0 + 3 * MINUTE
    events = Events()
    covered = [
        Coverage(nanos(T0), "socket", ["AAPL", "MSFT"], "subscribed"),
        Coverage(nanos(T0 + MINUTE), "polling", ["MSFT"], "silent for 900 s", 61.5),
    ]
    events.session(
        "a", T0, Remote(nanos(T0), "8f1-EWR", -12), *covered, closed_at=since,
        messages={"trades": 0},
    )  # fmt: skip
    events.session("b", until, gap("a", since, until, symbols=["AAPL", "MSFT"]), previous="a")
    # told again by a connection that overlaps, and once more of the same name
    later = T0 + 5 * MINUTE
    events.session("c", later, gap("b", T0 + 2 * MINUTE, later), gap("a", since, until),
                   previous="b")  # fmt: skip
    # numbered trades: a part was filled, the rest has a name of its own
    events.add("c", gap("BTCUSDT:101-149", since, until, **ids))
    filler = Events().session("f1", T0, shard=2, closed_at=T0 + MINUTE)
    filler.session("f2", until, gap("BTCUSDT:120-149", since, until, **part),
                   gap("BTCUSDT:101-149", since, until, filled_by="binance.trades", **ids),
                   shard=2, previous="f1")  # fmt: skip
    poller = Events().session("p1", T0, shard=1, closed_at=CLOSE - MINUTE, messages={"quotes": 2})
    monday = CLOSE + timedelta(days=2, hours=18)
    outage = gap(f"quotes:{nanos(monday)}", monday, monday + MINUTE, stream="quotes", symbols=[])
    poller.session("p2", monday, outage, shard=1, previous="p1")
    other = Events().session("r1", T0, shard=3, feed="replay:x", closed_at=T0 + MINUTE)
    other.session("r2", T0 + 9 * MINUTE, shard=3, previous="r1")
    other.session("q1", T0, shard=5, feed="replay:lake", closed_at=T0 + MINUTE)
    other.add("q2", Opened(nanos(T0 + 2 * MINUTE), 5, "replay:lake", "replay", 5,
                           PreviousSession("q1", seq=1, others=3)))  # fmt: skip
    other.session("n1", T0, shard=4, feed="binance://btcusdt", closed_at=T0 + MINUTE)
    unbroken = gap("n1", T0 + MINUTE, T0 + 2 * MINUTE, symbols=[], filled_by="ids")
    other.session("n2", T0 + 2 * MINUTE, unbroken, shard=4, feed="binance://btcusdt",
                  previous="n1", closed_at=T0 + 3 * MINUTE)  # fmt: skip
    other.session("n3", T0 + 4 * MINUTE, shard=4, feed="binance://btcusdt,ethusdt", previous="n2")
    other.session("i1", T0, shard=900, feed="finnhub+profile2:", closed_at=T0 + MINUTE)
    other.session("i2", T0 + 9 * MINUTE, shard=900, feed="finnhub+profile2:", previous="i1")
    other.add("r2", gap(None, T0, T0, seq_from=3, seq_to=4, cause="shed", symbols=[]))
    for found in (filler, poller, other):
        events.frames += found.frames
    events.frames += [
        BronzeFrame(payload=quote(T0, 100 + seq), seq=seq, session="p1", source="finnhub.quote",
                    stream="quotes", symbol="AAPL") for seq in range(2)
    ] + [
        BronzeFrame(payload=quote(monday, 103), seq=0, session="p2", source="finnhub.quote",
                    stream="quotes", symbol="AAPL", received_at=monday)
    ]  # fmt: skip
    return events


@pytest.fixture(scope="module")
def built(template: BronzeWarehouse, tmp_path_factory: pytest.TempPathFactory) -> BronzeWarehouse:
    warehouse = copied_warehouse(template, tmp_path_factory.mktemp("built") / "w")
    warehouse.load(everything().frames)
    with builder_of(warehouse) as builder:
        builder.build()
    return warehouse


def utc(at: datetime) -> datetime:
    return at.replace(tzinfo=None)


def test_a_gap_that_the_feed_named_is_one_row_however_often_it_is_told(
    built: BronzeWarehouse,
) -> None:
    rows = built.query(
        "select name, session_id, symbols, id_from, id_to, filled_by, told_at, filled_at"
        " from silver.gaps where kind = 'missed' and stream = 'trades' order by name"
    )
    until = utc(T0 + 3 * MINUTE)
    fill = ("binance.trades", until, until)
    assert [
        ("BTCUSDT:101-149", "c", "BINANCE:BTCUSDT", 101, 149, *fill),
        ("BTCUSDT:120-149", "f2", "BINANCE:BTCUSDT", 120, 149, None, until, None),
        ("a", "b", "AAPL,MSFT", None, None, None, until, None),
        ("b", "c", "AAPL", None, None, None, utc(T0 + 5 * MINUTE), None),
        ("n1", "n2", "", None, None, "ids", None, utc(T0 + 2 * MINUTE)),
    ] == rows


def test_a_silence_is_a_gap_unless_the_session_tells_it_or_misses_nothing(
    built: BronzeWarehouse,
) -> None:
    """B and c tell what they missed, n2 and q2 that it was nothing; f2, i2 fetch what is there."""
    rows = built.query(
        "select session_id, stream, cause, filled_by, name from silver.gaps where kind = 'silence'"
        " order by session_id"
    )

    assert [
        ("n3", "trades", "stopped", None, "n3"),
        ("p2", "quotes", "stopped", None, "p2"),
        ("q2", "trades", "stopped", "cursor", "q2"),
        ("r2", "trades", "another feed", None, "r2"),
    ] == rows


def test_coverage_and_the_servers_words_are_data(built: BronzeWarehouse) -> None:
    assert [
        ("a", 2, "AAPL", utc(T0), "socket", "subscribed", None),
        ("a", 2, "MSFT", utc(T0), "socket", "subscribed", None),
        ("a", 3, "MSFT", utc(T0 + MINUTE), "polling", "silent for 900 s", 61.5),
    ] == built.query(
        "select session_id, session_seq, symbol, told_at, channel, reason, every_s"
        " from silver.coverage order by told_at, symbol"
    )
    assert [("8f1-EWR", -12)] == built.query(
        "select ray, clock_offset_ms from silver.sessions where session_id = 'a'"
    )


def test_what_is_missing_is_counted_once_a_symbol_and_day(built: BronzeWarehouse) -> None:
    """AAPL misses minutes 1 to 3 and 2 to 5; a poller's weekend is 1 minute and post-market."""
    rows = built.query(
        "select session_date::varchar, symbol, stream, missing_s, missing_regular_s, filled_s,"
        " ids_missing, ids_filled, messages_refused, is_complete from gold.gaps_daily order by all"
    )
    hour = 3600.0
    assert [
        ("2024-08-09", "", "quotes", 4 * hour + 60, 60.0, 0.0, 0, 0, 0, False),
        ("2024-08-09", "", "trades", 60.0, 60.0, 120.0, 0, 0, 2, False),
        ("2024-08-09", "AAPL", "trades", 240.0, 240.0, 0.0, 0, 0, 0, False),
        ("2024-08-09", "BINANCE:BTCUSDT", "trades", 120.0, 120.0, 0.0, 30, 19, 0, False),
        ("2024-08-09", "MSFT", "trades", 120.0, 120.0, 0.0, 0, 0, 0, False),
        ("2024-08-12", "", "quotes", 6 * hour + 60, 1860.0, 0.0, 0, 0, 0, False),
    ] == rows


def test_sessions_are_complete_by_stream_with_the_seconds_they_missed(
    built: BronzeWarehouse,
) -> None:
    rows = built.query(
        "select session_id, stream, frames_received, quotes, is_complete, gap_s"
        " from gold.completeness where gap_s > 0 or stream = 'quotes' order by all"
    )
    assert [
        ("b", "trades", 0, 0, True, 120.0),
        ("c", "trades", 0, 0, True, 180.0),
        ("f2", "trades", 0, 0, True, 120.0),
        ("n3", "trades", 0, 0, True, 60.0),
        ("p1", "quotes", 2, 2, True, 0.0),
        ("p2", "quotes", 1, 1, True, 237720.0),
    ] == rows


@pytest.mark.long
def test_gaps_do_not_depend_on_the_order_or_size_of_loads(
    template: BronzeWarehouse, built: BronzeWarehouse, tmp_path: Path
) -> None:
    frames = everything().frames
    chance = random.Random(3)
    warehouse = copied_warehouse(template, tmp_path / "w")
    with builder_of(warehouse) as builder:
        for taken in (frames[::-1][:9], chance.sample(frames[:-9], len(frames) - 9)):
            for start in range(0, len(taken), 9):
                warehouse.load(taken[start : start + 9])
                builder.build()

    placed = ("load_id", "revision", "log_offset")
    for table in EXACT_TABLES:
        there = rows_of(warehouse, table, without=placed)
        assert rows_of(built, table, without=placed) == there, table
