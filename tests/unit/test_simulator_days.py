"""The simulator's exchange days: sessions, auctions, halts, and frames found from their number."""

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from contextlib import aclosing
from datetime import date
from typing import Any

import numpy as np
import pytest

from support.fake_time import FakeTime
from tickhouse.errors import ConfigError
from tickhouse.model.calendar import MarketSession, new_york
from tickhouse.source.address import open_feed
from tickhouse.source.simulator import DayTape, Scenario, Simulator, read_address
from tickhouse.source.simulator.block import Block
from tickhouse.source.simulator.faults import Faults
from tickhouse.source.simulator.marks import CONDITIONS
from tickhouse.source.simulator.sessions import ExchangeMarket

MONDAY = date(2026, 3, 2)
SMALL = Scenario(market="exchange", symbols=8, rate=4)
BUSY = Scenario(market="exchange", symbols=50, rate=20)


def simulator(url: str, clock: FakeTime | None = None) -> Simulator:
    scenario, delivery = read_address(url.removeprefix("sim://"))
    return Simulator(scenario, delivery, clock=clock or FakeTime())


def session_of(day: date) -> MarketSession:
    session = new_york().session_on(day)
    assert session is not None
    return session


def all_frames(scenario: Scenario, day: date = MONDAY) -> list[tuple[int, bytes]]:
    return list(DayTape(scenario, day).frames())


def trades_of(frames: list[bytes]) -> list[dict[str, Any]]:
    return [trade for frame in frames for trade in json.loads(frame)["data"]]


def blocks_of(market: ExchangeMarket) -> list[Block]:
    blocks: list[Block] = []
    frame = 0
    while (block := market.block_of(frame)) is not None:
        blocks.append(block)
        frame = block.end
    return blocks


@pytest.fixture(scope="module")
def monday() -> list[tuple[int, bytes]]:
    return all_frames(SMALL)


def test_a_day_is_the_same_bytes_on_every_machine_and_in_every_version() -> None:
    """Fails where the hash or the arithmetic differ: raise `GENERATOR` if on purpose."""
    digest = hashlib.sha256()
    faulty = Scenario(market="exchange", symbols=20, rate=10, seed=5, faults=Faults(late=0.01))
    for scenario in (SMALL, faulty):
        for due_ns, frame in all_frames(scenario):
            digest.update(b"%d %b\n" % (due_ns, frame))

    expected = "06c920d516c38e91db8c044a006567f8c3f8ade74280385f42f704fdb44562ac"
    assert digest.hexdigest() == expected


def test_trades_lie_within_the_sessions_hours_and_frames_come_in_order(
    monday: list[tuple[int, bytes]],
) -> None:
    session = session_of(MONDAY)
    times = [trade["t"] * 1_000_000 for _, frame in monday for trade in json.loads(frame)["data"]]

    assert session.pre_open_ns <= min(times)
    assert max(times) < session.post_close_ns
    assert [due for due, _ in monday] == sorted(due for due, _ in monday)
    assert all(
        0 <= due - trade["t"] * 1_000_000 <= 101_000_000
        for due, frame in monday
        for trade in json.loads(frame)["data"]
    )


def test_a_frame_holds_ten_trades_at_most_unless_a_batch_is_given() -> None:
    counts = [len(json.loads(frame)["data"]) for _, frame in all_frames(BUSY)[::7]]
    single = Scenario(market="exchange", symbols=3, rate=3, batch=1)

    assert (min(counts), max(counts)) == (1, 10)
    assert {len(json.loads(frame)["data"]) for _, frame in all_frames(single)} == {1}


def test_the_rate_is_the_mean_of_regular_hours_and_one_percent_comes_outside_them() -> None:
    tape = DayTape(BUSY, MONDAY)
    event_ms = np.concatenate([block.event_ms for block in tape.blocks()])
    opened, closed = tape.session.open_ns // 10**6, tape.session.close_ns // 10**6
    is_regular = (event_ms >= opened) & (event_ms < closed)

    assert is_regular.sum() / 23_400 == pytest.approx(20, rel=0.05)
    assert 0.002 < np.mean(~is_regular) < 0.025


def test_a_half_day_closes_at_one_and_has_about_half_the_trades() -> None:
    half, full = DayTape(SMALL, date(2026, 11, 27)), DayTape(SMALL, date(2026, 11, 25))
    counts = [sum(len(block.symbol) for block in tape.blocks()) for tape in (half, full)]
    closing = [
        trade["t"] for trade in trades_of([f for _, f in half.frames()]) if "36" in trade["c"]
    ]

    assert half.session.is_early_close
    assert 0.4 < counts[0] / counts[1] < 0.7
    assert all(0 <= t - half.session.close_ns // 10**6 < 60_000 for t in closing)


def test_there_is_no_tape_of_a_holiday_and_a_run_goes_on_to_the_next_session() -> None:
    with pytest.raises(ConfigError, match="2026-04-03"):
        DayTape(SMALL, date(2026, 4, 3))
    market = ExchangeMarket(SMALL, 0, day=date(2026, 4, 3), days=2)

    assert [session.day for session in market.sessions] == [date(2026, 4, 6), date(2026, 4, 7)]


def test_each_symbol_opens_and_closes_with_an_auction_of_the_days_volume() -> None:
    tape = DayTape(Scenario(market="exchange", rate=10), MONDAY)
    trades = trades_of([frame for _, frame in tape.frames()])
    shares: Counter[str] = Counter()
    of_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for trade in trades:
        for code in ("19", "36", "20", "16"):
            if code in trade["c"]:
                of_kind[code].append(trade)
        if not {"16", "20"} & set(trade["c"]):
            shares[trade["s"]] += trade["v"]
    total = sum(shares.values())
    opened, closed = tape.session.open_ns // 10**6, tape.session.close_ns // 10**6

    assert [len({trade["s"] for trade in of_kind[code]}) for code in ("19", "36")] == [50, 50]
    assert [len(of_kind[code]) for code in ("19", "36", "20", "16")] == [50] * 4
    assert all(0 <= trade["t"] - opened < 60_000 for trade in of_kind["19"])
    assert all(0 <= trade["t"] - closed < 60_000 for trade in of_kind["36"])
    assert 0.01 < sum(trade["v"] for trade in of_kind["19"]) / total < 0.02
    assert 0.065 < sum(trade["v"] for trade in of_kind["36"]) / total < 0.085
    assert all(round(trade["p"] * 100, 6) % 1 == 0 for trade in of_kind["36"])
    official = {trade["s"]: (trade["p"], trade["v"]) for trade in of_kind["16"]}
    assert {trade["s"]: (trade["p"], trade["v"]) for trade in of_kind["36"]} == official


def test_every_print_outside_regular_hours_is_form_t_and_none_within(
    monday: list[tuple[int, bytes]],
) -> None:
    session = session_of(MONDAY)
    trades = trades_of([frame for _, frame in monday])
    auctions = {"16", "36"}
    for trade in trades:
        is_regular = session.open_ns <= trade["t"] * 10**6 < session.close_ns
        if not auctions & set(trade["c"]):
            assert ("24" in trade["c"]) == (not is_regular)


def test_condition_codes_come_at_the_frequencies_of_2026() -> None:
    blocks = list(DayTape(BUSY, MONDAY).blocks())
    condition = np.concatenate([block.condition for block in blocks])
    size = np.concatenate([block.size for block in blocks])

    def share(code: bytes) -> float:
        has = np.array([b'"%b"' % code in codes for codes in CONDITIONS])
        return float(has[condition].mean())

    assert share(b"12") == pytest.approx(0.75, abs=0.01)
    assert share(b"8") == pytest.approx(0.28, abs=0.01)
    assert share(b"32") == pytest.approx(0.03, abs=0.003)
    assert share(b"3") == pytest.approx(0.006, abs=0.001)
    assert share(b"21") == pytest.approx(0.0003, abs=0.0002)
    assert np.mean(size == 100) == pytest.approx(0.15, abs=0.01)
    assert np.mean(size >= 10_000) > 0


def test_prices_go_on_from_one_day_to_the_next_with_a_gap_overnight() -> None:
    first, second = DayTape(SMALL, MONDAY), DayTape(SMALL, date(2026, 3, 3))
    closing = {
        trade["s"]: trade["p"]
        for trade in trades_of([frame for _, frame in first.frames()])
        if "36" in trade["c"]
    }
    opening = {
        trade["s"]: trade["p"]
        for trade in trades_of([frame for _, frame in second.frames()])
        if "19" in trade["c"]
    }

    assert {s: float(second.previous_close(s)) for s in second.symbols} == closing
    moves = [abs(opening[s] / closing[s] - 1) for s in closing]
    assert 0 < max(moves) < 0.05


def test_a_symbols_trades_are_its_own_whoever_else_is_on_the_tape() -> None:
    whole = trades_of([frame for _, frame in DayTape(SMALL, MONDAY).frames()])
    alone = trades_of([frame for _, frame in DayTape(SMALL, MONDAY, ["MSFT"]).frames()])
    sharded = Scenario(market="exchange", symbols=8, rate=4, shards=3)
    feed = Simulator(sharded, read_address("sp500?days=1")[1], clock=FakeTime())
    parts = [trades_of(feed.frames(shard, 0, 10**9)) for shard in range(3)]

    assert alone == [trade for trade in whole if trade["s"] == "MSFT"]
    assert sum(map(len, parts)) == len(whole)
    assert [t for part in parts for t in part if t["s"] == "MSFT"] == alone


def test_a_day_does_not_depend_on_the_day_the_run_began() -> None:
    later = ExchangeMarket(SMALL, 0, day=date(2026, 3, 3), days=1)
    market = ExchangeMarket(SMALL, 0, day=MONDAY, days=2)
    monday_frames = sum(
        len(b.due_us) for b in blocks_of(ExchangeMarket(SMALL, 0, day=MONDAY, days=1))
    )
    block, same = market.block_of(monday_frames), later.block_of(0)

    assert block is not None
    assert same is not None
    assert block.price.tolist() == same.price.tolist()
    assert block.event_ms.tolist() == same.event_ms.tolist()
    assert block.due_us[0] + block.pace_us == same.due_us[0] + same.pace_us + 16 * 3600 * 10**6


def test_any_frame_of_a_run_is_found_without_those_before_it() -> None:
    url = "sim://sp500?symbols=8&rate=4&market=exchange&faults=all"
    whole = simulator(url).frames(0, 0, 12_000)

    for start in (11_000, 5, 8_191):
        assert simulator(url).frames(0, start, start + 300) == whole[start : start + 300]


def test_a_shock_strikes_the_whole_market_at_once() -> None:
    tape = DayTape(Scenario(market="exchange", symbols=50, rate=100), MONDAY)
    opened = tape.session.open_ns // 10**9
    event_s = np.concatenate([block.event_ms for block in tape.blocks()]) // 1000 - opened
    symbol = np.concatenate([block.symbol for block in tape.blocks()])
    counts = np.bincount(event_s[(event_s >= 0) & (event_s < 23_400)], minlength=23_400)
    busiest = int(counts.argmax())

    assert 10 < counts[busiest] / 100 < 60
    assert len(set(symbol[event_s == busiest].tolist())) > 40


# -- delivery -------------------------------------------------------------------------------------


async def take_until(feed: Simulator, clock: FakeTime, seconds: float) -> tuple[int, float]:
    """Frames that came within so many seconds, and when the last came."""
    frames = 0
    async with aclosing(feed.connect(0, 0)) as arrivals:
        async for item in arrivals:
            frames += len(item.payloads)
            if clock.elapsed_s >= seconds:
                break
    return frames, clock.elapsed_s


def test_a_run_at_speed_sixty_passes_an_hour_in_a_minute() -> None:
    clock = FakeTime()
    feed = simulator("sim://sp500?symbols=8&rate=4&speed=60", clock)
    due = [due for due, _ in DayTape(SMALL, MONDAY).frames()]
    frames, elapsed_s = asyncio.run(take_until(feed, clock, 60))

    market_ns = int(elapsed_s * 60 * 10**9)
    assert 60 <= elapsed_s < 120
    assert frames == sum(at <= due[0] + market_ns for at in due)


def test_a_run_of_some_days_is_drained_after_them_and_its_pace_leaves_nights_out() -> None:
    clock = FakeTime()
    feed = simulator("sim://sp500?symbols=2&rate=1&speed=3600&days=2&date=2026-11-27", clock)
    assert not feed.endless

    async def drain() -> list[int]:
        return [
            trade["t"] async for item in feed.connect(0, 0) for trade in trades_of(item.payloads)
        ]

    times = asyncio.run(drain())

    assert clock.elapsed_s == pytest.approx(13 + 16, abs=2)
    assert session_of(date(2026, 11, 27)).state(times[0] * 10**6) == "pre-market"
    assert session_of(date(2026, 11, 30)).state(times[-1] * 10**6) == "post-market"


def test_a_restart_goes_on_in_the_middle_of_a_day() -> None:
    url = "sim://sp500?symbols=8&rate=4&speed=max&days=1"

    async def take(cursor: int) -> list[bytes]:
        return [p async for item in simulator(url).connect(0, cursor) for p in item.payloads]

    whole, rest = asyncio.run(take(0)), asyncio.run(take(20_000))

    assert len(whole) > 20_100
    assert rest == whole[20_000:]
    assert asyncio.run(take(len(whole))) == []


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("sim://sp500?seed=7&speed=60", "sim://sp500?market=exchange"),
        ("sim://sp500?days=1&speed=max", "sim://sp500?market=exchange"),
        ("sim://sp500?speed=1&date=2026-03-02&rate=100", "sim://sp500?market=exchange"),
        (
            "sim://sp500?date=2026-07-03&speed=60&rate=1000",
            "sim://sp500?market=exchange&rate=1000&date=2026-07-03",
        ),
        ("sim://sp500?market=open&date=2026-03-02", "sim://sp500?date=2026-03-02"),
        (
            "sim://sp500?faults=null_price,late:0.5&speed=60",
            "sim://sp500?market=exchange&faults=null_price,late:0.5",
        ),
        ("sim://sp500?faults=all", "sim://sp500?faults=all"),
        ("sim://sp500?faults=late,all", "sim://sp500?faults=all"),
        ("sim://sp500?faults=late:0.5,all", "sim://sp500?faults=all,late:0.5"),
        ("sim://sp500?faults=zero_size:0.5,all:0", "sim://sp500?faults=zero_size:0.5"),
    ],
)
def test_the_address_of_a_market_names_what_its_frames_follow_from(
    given: str, address: str
) -> None:
    assert open_feed(given).url == address
    assert open_feed(address).url == address


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("market=open&speed=60", ["speed", "market=exchange"]),
        ("market=open&days=1", ["days", "market=exchange"]),
        ("market=closed", ["market", "'closed'", "open or exchange"]),
        ("speed=60&rate=max", ["rate", "speed=max"]),
        ("speed=0", ["speed", "'0'"]),
        ("speed=nan", ["speed", "'nan'"]),
        ("speed=60&rate=100001", ["rate", "1 to 100000"]),
        ("days=0", ["days", "'0'"]),
        ("speed=60&date=2003-01-02", ["date", "2003-01-02", "2004"]),
        ("speed=60&date=2999-01-02", ["date", "2999-01-02"]),
        ("faults=lat", ["faults", "'lat'", "null_price"]),
        ("faults=late,late", ["faults", "each once"]),
        ("faults=late:2", ["faults", "0 to 1"]),
        ("faults=late:x", ["faults", "0 to 1"]),
        ("faults=", ["faults", "all, or some of"]),
    ],
)
def test_a_bad_parameter_of_a_day_is_named_with_what_is_valid(query: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        open_feed(f"sim://sp500?{query}")

    assert [word for word in words if word not in str(error.value)] == []
