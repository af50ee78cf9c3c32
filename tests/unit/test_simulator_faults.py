"""The simulator's faults: each is in the frames, and what must become of it is in the truth."""

import asyncio
import json
from collections import Counter
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from support.fake_time import FakeTime
from tickhouse.audit.elements import read_elements
from tickhouse.errors import FeedClosedError
from tickhouse.source.address import open_feed
from tickhouse.source.simulator import DayTape, Faults, QuoteBoard, Scenario, Simulator, select
from tickhouse.source.simulator.tape import NO_QUOTE
from tickhouse.source.truth import recompute

MARKETS = ("symbols=8&rate=4&market=exchange", "symbols=8&date=2026-03-02")
MONDAY = date(2026, 3, 2)


def simulator(url: str) -> Simulator:
    feed = open_feed(url)
    assert isinstance(feed, Simulator)
    return feed


def frames_of(market: str, faults: str, count: int = 9000) -> list[dict[str, Any]]:
    url = f"sim://sp500?{market}&faults={faults}"
    return [json.loads(frame) for frame in simulator(url).frames(0, 0, count)]


def truth_of(market: str, faults: str, count: int = 9000) -> Any:
    return recompute(f"sim://sp500?{market}&faults={faults}", {0: count})


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("null_price", "missing_price"), ("zero_price", "bad_price"), ("zero_size", "zero_size")],
)
def test_a_broken_print_is_a_reject_and_no_trade(market: str, fault: str, reason: str) -> None:
    url = f"sim://sp500?{market}&faults={fault}:0.01"
    frames = simulator(url).frames(0, 0, 9000)
    trades, reasons = Counter[str](), Counter[str]()
    for frame in frames:
        elements = read_elements("finnhub.ws", frame)
        trades.update(symbol for symbol, _, _ in elements.trades)
        reasons.update(elements.reasons)
    truth = recompute(url, {0: 9000})

    assert truth.rejects == dict(reasons) == {reason: reasons[reason]}
    assert reasons[reason] == pytest.approx(0.01 * trades.total(), rel=0.3)
    assert {symbol: sums.trades for symbol, sums in truth.symbols.items()} == trades


@pytest.mark.parametrize("market", MARKETS)
def test_a_late_print_keeps_its_time_and_stays_a_trade(market: str) -> None:
    usual, late = frames_of(market, "late:0"), frames_of(market, "late:0.01")
    lags: list[float] = []
    newest = 0
    for frame in late:
        newest = max(newest, *(trade["t"] for trade in frame["data"]))
        lags += [newest - trade["t"] for trade in frame["data"] if newest - trade["t"] > 1900]
    truth = truth_of(market, "late:0.01")

    assert {frame["data"][0]["t"] for frame in usual} != {frame["data"][0]["t"] for frame in late}
    assert max(lags) <= 30_100
    assert truth.rejects == {}
    assert set(truth.faults) == {"late"}
    assert len(lags) <= truth.faults["late"] <= 1.3 * len(lags) + 5
    assert truth.faults["late"] == pytest.approx(
        0.01 * sum(sums.trades for sums in truth.symbols.values()), rel=0.3
    )


@pytest.mark.parametrize("market", MARKETS)
def test_a_frame_out_of_order_has_its_newest_trade_first(market: str) -> None:
    frames = frames_of(market, "out_of_order:0.1")
    turned = [
        frame
        for frame in frames
        if any(after["t"] < before["t"] for before, after in pairwise(frame["data"]))
    ]

    assert len(turned) == truth_of(market, "out_of_order:0.1").faults["out_of_order"]
    assert len(turned) > 100
    assert all(
        [trade["t"] for trade in frame["data"]]
        == sorted((trade["t"] for trade in frame["data"]), reverse=True)
        for frame in turned
    )


@pytest.mark.parametrize("market", MARKETS)
def test_a_frame_delivered_twice_counts_twice(market: str) -> None:
    frames = frames_of(market, "double_delivery:0.02")
    repeated = sum(before == after for before, after in pairwise(frames))
    truth = truth_of(market, "double_delivery:0.02")

    assert repeated == truth.faults["double_delivery"]
    assert repeated == pytest.approx(0.02 * 9000, rel=0.4)
    assert sum(sums.trades for sums in truth.symbols.values()) == sum(
        len(frame["data"]) for frame in frames
    )


@pytest.mark.parametrize("market", MARKETS)
def test_no_fault_strikes_where_none_is_switched_on(market: str) -> None:
    truth = recompute(f"sim://sp500?{market}", {0: 9000})

    assert (truth.rejects, truth.faults) == ({}, {})


def test_a_halt_stops_one_symbol_for_five_minutes_and_ends_in_a_re_opening_print() -> None:
    scenario = Scenario(market="exchange", symbols=4, rate=20, faults=Faults(halt=1.0))
    tape = DayTape(scenario, MONDAY)
    trades = [trade for _, frame in tape.frames() for trade in json.loads(frame)["data"]]
    session = tape.session
    for symbol in tape.symbols:
        times = [t["t"] for t in trades if t["s"] == symbol]
        re_opened = [t["t"] for t in trades if t["s"] == symbol and "34" in t["c"]]

        assert len(re_opened) == 1
        before = max(t for t in times if t < re_opened[0])
        assert 300_000 <= re_opened[0] - before < 330_000
        assert session.open_ns < before * 10**6 < re_opened[0] * 10**6 < session.close_ns


# -- disconnects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("market", MARKETS)
def test_a_disconnect_ends_the_connection_once_and_nothing_is_missing(market: str) -> None:
    url = f"sim://sp500?{market}&frames=6000&faults=disconnect:0.001"
    feed = simulator(url.replace("market=exchange", "speed=max"))
    taken: list[bytes] = []
    closed = 0

    async def once() -> bool:
        feed_time = FakeTime()
        again = Simulator(feed.scenario, feed.delivery, clock=feed_time)
        try:
            async for item in again.connect(0, len(taken)):
                taken.extend(item.payloads)
                feed_time.elapsed_s += 3600
        except FeedClosedError:
            return True
        return False

    while asyncio.run(once()):
        closed += 1
    truth = recompute(feed.url, {0: 6000})

    assert closed == truth.faults["disconnect"] > 2
    assert taken == feed.frames(0, 0, 6000)


# -- quotes of a tape -----------------------------------------------------------------------------


def test_a_quote_follows_the_trades_that_may_set_it() -> None:
    tape = DayTape(Scenario(market="exchange", symbols=2, rate=2), MONDAY, ["AAPL"])
    board = QuoteBoard(tape)
    close = float(tape.previous_close("AAPL"))
    before = json.loads(board.body("AAPL", tape.session.pre_open_ns))
    prices: list[float] = []
    opened = last = 0.0
    for _, frame in tape.frames(None, tape.session.close_ns):
        board.add(frame)
        for trade in json.loads(frame)["data"]:
            if not {"12", "24", "3", "21", "32", "20", "16"} & set(trade["c"]):
                last = trade["p"]
            if not {"12", "24", "3", "20", "16"} & set(trade["c"]):
                prices.append(trade["p"])
            if "19" in trade["c"]:
                opened = trade["p"]
    quote = json.loads(board.body("AAPL", tape.session.close_ns))

    assert before["c"] == before["pc"] == close
    assert list(quote) == ["c", "d", "dp", "h", "l", "o", "pc", "t"]
    assert (quote["c"], quote["o"], quote["pc"]) == (last, opened, close)
    assert (quote["h"], quote["l"]) == (max(prices), min(prices))
    assert quote["d"] == pytest.approx(last - close)
    assert quote["dp"] == pytest.approx((last / close - 1) * 100, abs=1e-4)
    assert tape.session.open_ns <= quote["t"] * 10**9 < tape.session.close_ns
    assert board.body("NOPE", 0) == NO_QUOTE


def test_a_zero_quote_strikes_in_some_minutes_and_never_unasked() -> None:
    scenario = Scenario(market="exchange", symbols=2, rate=2, faults=Faults(zero_quote=0.2))
    tape = DayTape(scenario, MONDAY)
    minutes = range(tape.session.open_ns, tape.session.close_ns, 60 * 10**9)
    struck = [tape.has_zero_quote("AAPL", at) for at in minutes]
    other = DayTape(Scenario(market="exchange", symbols=2, rate=2), MONDAY)

    assert 0.1 < sum(struck) / len(struck) < 0.3
    assert QuoteBoard(tape).body("AAPL", minutes[struck.index(True)]) == NO_QUOTE
    assert QuoteBoard(tape).body("AAPL", minutes[struck.index(False)]) != NO_QUOTE
    assert not any(other.has_zero_quote("AAPL", at) for at in minutes)


def test_a_frame_is_narrowed_to_the_symbols_that_were_asked_for() -> None:
    frames = simulator("sim://sp500?symbols=8&date=2026-03-02&faults=null_price:0.1").frames(
        0, 0, 200
    )
    for frame in frames:
        wanted = [t for t in json.loads(frame, parse_float=Decimal)["data"] if t["s"] == "NVDA"]
        narrowed = select(frame, {"NVDA"})

        assert (narrowed is None) == (not wanted)
        if narrowed is not None:
            assert json.loads(narrowed, parse_float=Decimal) == {"data": wanted, "type": "trade"}
            assert narrowed.startswith(b'{"data":[{"c":[')
        assert select(frame, {t["s"] for t in json.loads(frame)["data"]}) == frame
