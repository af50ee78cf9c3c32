"""The hub: what the log says now, on top of what gold holds, told to whoever listens."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from support.dashboard import (
    QUOTES,
    SESSIONS,
    TRADES,
    MemoryGold,
    MemoryLog,
    Trades,
    opened,
    quote_frame,
    session_event,
    trade,
)
from tickhouse.dashboard.asking import GoldAsker
from tickhouse.dashboard.conditions import seeded_conditions
from tickhouse.dashboard.hub import START_RECORDS_MAX, Hub, is_channel
from tickhouse.dashboard.prints import TradeFrame, read_trades
from tickhouse.dashboard.queries import GoldQueries
from tickhouse.dashboard.standing import Standing
from tickhouse.errors import CorruptError, TransientError
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Channel, Closed, Coverage, Gap

T0 = 1_723_213_800_000
T0_S = T0 // 1000
FACTS = [("AAPL", "Information Technology", "Phones", 4e12, 100.0), ("XOM", "Energy", "Oil", 5e11, None)]  # fmt: skip  # noqa: E501


class Stand:
    """A hub with everything around it, on a clock of its own."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.gold = MemoryGold(facts=FACTS)
        self.now_ms = T0
        self.frames: list[tuple[str, Any]] = []
        self.write = Trades()
        self.watched = True
        self.hub = self.new_hub()

    def new_hub(self) -> Hub:
        return Hub(
            self.log,
            GoldAsker(GoldQueries(self.gold), monotonic=lambda: self.now_ms / 1000),
            seeded_conditions(),
            send=lambda channel, frame: self.frames.append((channel, msgspec.json.decode(frame))),
            is_watched=lambda: self.watched,
            clock_ms=lambda: self.now_ms,
            monotonic=lambda: self.now_ms / 1000,
        )

    def trades(self, *trades: dict[str, Any]) -> None:
        self.log.append(TRADES, [self.write.frame(*trades, at_ms=self.now_ms)], at_ms=self.now_ms)

    def publish(self, upto: int | None = None) -> None:
        self.gold.publish(self.log, at_ms=self.now_ms, upto=None if upto is None else {0: upto})

    def tick(self, after_ms: int = 250) -> list[tuple[str, Any]]:
        """The next tick's frames."""
        self.now_ms += after_ms
        self.frames.clear()
        self.hub.tick()
        return list(self.frames)

    def bars(self, frames: list[tuple[str, Any]], channel: str) -> list[list[Any]]:
        return [bar for name, frame in frames if name == channel for bar in frame["bars"]]


@pytest.fixture
def stand() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.gold.close()


def test_an_empty_house_waits_without_a_fault(stand: Stand) -> None:
    frames = stand.tick(1000)

    heartbeat = stand.hub.heartbeat()
    assert [name for name, _ in frames] == ["kpi", ""]
    assert (heartbeat["tick_ms"], heartbeat["badge"], heartbeat["fault"]) == (None, "", None)
    assert stand.hub.snapshot()["kpi"] is None


def test_the_last_price_is_the_last_by_event_time_among_those_that_set_prices(
    stand: Stand,
) -> None:
    stand.trades(
        trade("AAPL", 101, T0 + 5),
        trade("AAPL", 99, T0 + 1),
        trade("AAPL", 500, T0 + 9, 3, ["1", "12"]),
    )
    frames = stand.tick(1000)

    market = next(frame for name, frame in frames if name == "market")
    assert (market["i"], market["p"], market["size"]) == ([0], [101], 1)


def test_a_price_is_sent_once_and_frames_are_numbered_without_gaps(stand: Stand) -> None:
    numbers: list[int] = []
    for step in range(4):
        stand.trades(trade("AAPL", 101 + step, T0 + step))
        numbers += [frame["seq"] for name, frame in stand.tick() if name == "market"]
    quiet = [name for name, _ in stand.tick() if name == "market"]

    assert numbers == [1, 2, 3, 4]
    assert quiet == []


def test_the_live_candle_is_golds_bar_plus_the_trades_since(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0 + 1000), trade("AAPL", 105, T0 + 2000))
    stand.publish()
    stand.trades(trade("AAPL", 103, T0 + 3000), trade("XOM", 7, T0 + 3000))
    stand.tick(1000)
    stand.hub.join("bars:AAPL:1m")
    seed = stand.bars(stand.tick(), "bars:AAPL:1m")
    stand.trades(trade("AAPL", 99, T0 + 4000))
    live = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert seed == [[T0_S, 100, 105, 100, 103, 300, 3, False]]
    assert live == [[T0_S, 100, 105, 99, 99, 400, 4, False]]


def test_a_newer_gold_changes_no_candle_that_was_right(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0 + 1000))
    stand.publish()
    stand.tick(1000)
    stand.hub.join("bars:AAPL:1m")
    stand.tick()
    for step in range(5):
        stand.trades(trade("AAPL", 101 + step, T0 + 2000 + step))
        stand.tick()
    stand.publish(upto=3)
    taken_over = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert taken_over[-1] == [T0_S, 100, 105, 100, 105, 600, 6, False]


def test_a_late_trade_in_gold_corrects_the_bar_on_the_page(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.trades(trade("AAPL", 110, T0 + 61_000))
    stand.publish()
    stand.tick(1000)
    stand.hub.join("bars:AAPL:1m")
    stand.tick()
    stand.trades(trade("AAPL", 90, T0 + 30_000))
    live = stand.bars(stand.tick(), "bars:AAPL:1m")
    stand.publish()
    corrected = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert live == [[T0_S, 100, 100, 90, 90, 200, 2, False]]
    assert corrected[:1] == live


def test_bars_are_final_once_trades_thirty_seconds_later_were_seen(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.tick(1000)
    stand.hub.join("bars:AAPL:1m")
    stand.tick()
    stand.trades(trade("XOM", 1, T0 + 60_000 + 30_000), trade("AAPL", 100, T0 + 1))
    bars = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert [bar[-1] for bar in bars] == [True]


def test_several_viewers_of_a_candle_cost_one_frame_and_none_costs_nothing(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.hub.join("bars:AAPL:1s")
    stand.hub.join("bars:AAPL:1s")
    stand.tick(1000)
    stand.trades(trade("AAPL", 101, T0 + 1))
    both = [name for name, _ in stand.tick() if name.startswith("bars")]
    stand.hub.leave("bars:AAPL:1s")
    stand.trades(trade("AAPL", 102, T0 + 2))
    none = [name for name, _ in stand.tick() if name.startswith("bars")]

    assert both == ["bars:AAPL:1s"]
    assert none == []


def test_far_behind_it_skips_ahead_and_marks_the_candle_until_gold_has_passed(
    stand: Stand,
) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.tick(1000)
    stand.hub.join("bars:AAPL:1m")
    stand.tick()
    value = stand.write.frame(trade("AAPL", 101, T0 + 1), at_ms=T0)
    stand.log.append(TRADES, [value] * 3000, at_ms=T0)
    stand.now_ms += 60_000
    original, calls = stand.hub._monotonic, iter(range(10**9))
    stand.hub._monotonic = lambda: next(calls) * 0.05
    stand.tick()
    stand.hub._monotonic = original
    skipped = stand.hub.heartbeat()["skipped"]
    stand.trades(trade("AAPL", 102, T0 + 2))
    notes = [frame["note"] for name, frame in stand.tick() if name == "bars:AAPL:1m"]
    stand.publish()
    healed = [frame for name, frame in stand.tick() if name == "bars:AAPL:1m"]

    assert skipped > 2000
    assert notes == ["catching_up"]
    assert healed[-1]["note"] == ""
    assert healed[-1]["bars"][-1][6] == 3002


def test_it_begins_near_the_end_of_a_long_log(stand: Stand) -> None:
    value = stand.write.frame(trade("AAPL", 101, T0), at_ms=T0)
    stand.log.append(TRADES, [value] * (START_RECORDS_MAX + 5), at_ms=T0)
    stand.tick(1000)

    assert stand.hub._tail.position(TRADES) >= 5
    assert stand.log.bounds(TRADES).end == START_RECORDS_MAX + 5


def test_a_silence_that_only_gold_found_is_told_as_an_open_gap(stand: Stand) -> None:
    stand.gold.gap(T0 - 60_000, T0, name="s2", kind="silence", cause="no closed event")
    stand.gold.gap(T0 - 90_000_000, T0 - 89_000_000, name="s1", kind="silence")
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.tick(1000)

    heartbeat = stand.hub.heartbeat()
    assert (heartbeat["gaps"], heartbeat["last_gap"]) == (1, "no closed event")


def test_session_events_tell_mode_address_and_gaps_before_any_trade(stand: Stand) -> None:
    at = T0 * 1_000_000
    gap = Gap(
        at=at, stream="trades", seq_from=None, seq_to=None, time_from=at - 1, time_to=at,
        symbols=[], cause="connection lost",
    )  # fmt: skip
    stand.log.append(
        SESSIONS,
        [opened("replay", "replay:frames.gz", at_ms=T0), session_event(gap, seq=1), b"poison"],
        at_ms=T0,
    )
    stand.tick(1000)
    heartbeat = stand.hub.heartbeat()

    assert (heartbeat["badge"], heartbeat["feed"]) == ("REPLAY", "replay:frames.gz")
    assert (heartbeat["connections"], heartbeat["gaps"]) == (1, 1)
    assert heartbeat["last_gap"] == "connection lost"

    stand.log.append(
        SESSIONS, [session_event(Closed(at=3, reason="drained", messages={}), seq=2)], at_ms=T0
    )
    stand.tick(1000)

    assert (stand.hub.heartbeat()["connections"], stand.hub.heartbeat()["closed"]) == (0, "drained")


@pytest.mark.parametrize(
    ("source", "badge"),
    [("sim:finnhub.ws", "SIMULATED"), ("replay:finnhub.ws", "REPLAY"), ("finnhub.ws", "LIVE")],
)
def test_without_session_events_the_frames_source_gives_the_badge(
    stand: Stand, source: str, badge: str
) -> None:
    stand.write = Trades(source=source)
    stand.trades(trade("AAPL", 1, T0))
    stand.tick(1000)

    assert stand.hub.heartbeat()["badge"] == badge


def test_the_lag_is_the_age_of_the_oldest_record_that_gold_does_not_hold(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.tick(1000)
    level = stand.hub.heartbeat()
    stand.trades(trade("AAPL", 100, T0))
    stand.now_ms += 5000
    stand.trades(trade("AAPL", 100, T0))
    stand.tick(1000)
    behind = stand.hub.heartbeat()

    assert (level["lag_ms"], level["behind"]) == (0, 0)
    assert (behind["lag_ms"], behind["behind"]) == (6000, 2)


def test_kpis_are_golds_totals_with_movers_by_the_live_price(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0), trade("XOM", 50, T0, 10))
    stand.publish()
    stand.trades(trade("AAPL", 90, T0 + 1))
    frames = stand.tick(1000)

    kpi = next(frame["kpi"] for name, frame in frames if name == "kpi")
    assert (kpi["trades"], kpi["dollar_volume"], kpi["symbols"]) == (2, 10_500, 2)
    assert kpi["most_active"] == {"symbol": "AAPL", "value": 10_000}
    assert kpi["loser"] == {"symbol": "AAPL", "value": pytest.approx(-10.0)}
    assert kpi["gainer"] == {"symbol": "XOM", "value": 0.0}
    assert (kpi["advancers"], kpi["decliners"], kpi["unchanged"]) == (0, 1, 1)


def test_the_snapshot_holds_gold_and_the_live_price_by_the_same_row_numbers(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0), trade("XOM", 50, T0, 10))
    stand.publish()
    stand.trades(trade("NEW", 5, T0), trade("XOM", 51, T0 + 1))
    stand.tick(1000)
    market = stand.hub.snapshot()["market"]

    rows = {symbol: number for number, symbol in enumerate(market["symbol"])}
    assert sorted(rows) == ["AAPL", "NEW", "XOM"]
    assert market["price"][rows["XOM"]] == 51
    assert market["reference"][rows["AAPL"]] == 100
    assert market["reference_is"][rows["XOM"]] == "open"
    assert market["sector"][rows["NEW"]] == ""
    assert {len(column) for column in market.values()} == {3}


def test_a_broken_feed_fills_neither_memory_nor_page(stand: Stand) -> None:
    stand.trades(trade("<script>", 1, T0), trade("x; drop table", 1, T0), trade("OK", 1, T0))
    stand.tick(1000)

    assert stand.hub.snapshot()["market"]["symbol"] == ["OK"]
    assert stand.hub.universe.refused == 2


def test_a_fault_of_gold_is_shown_and_does_not_stop_the_live_view(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.gold.fault = CorruptError("version 1 lacks a file")
    frames = stand.tick(1000)

    assert next(frame["p"] for name, frame in frames if name == "market") == [100]
    assert stand.hub.heartbeat()["fault"] == "version 1 lacks a file"

    stand.gold.fault = None
    stand.tick(2000)

    assert stand.hub.heartbeat()["fault"] is None
    assert stand.hub.version is not None


def test_a_slow_answer_of_gold_does_not_hold_up_the_live_view(stand: Stand) -> None:
    waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def later(work: Callable[[], Any]) -> Future[Any]:
        waiting.append((Future(), work))
        return waiting[-1][0]

    stand.hub._gold._aside = later
    stand.trades(trade("AAPL", 100, T0), trade("XOM", 1, T0))
    stand.publish()
    stand.hub.join("bars:AAPL:1m")
    before = stand.tick(1000)
    stand.trades(trade("AAPL", 101, T0 + 1))
    during = stand.tick()
    future, work = waiting[0]
    future.set_result(work())
    after = stand.tick()

    assert [frame["p"] for name, frame in before if name == "market"] == [[100, 1]]
    assert [frame["p"] for name, frame in during if name == "market"] == [[101]]
    assert stand.bars(before + during, "bars:AAPL:1m") == []
    assert stand.bars(after, "bars:AAPL:1m") == [[T0_S, 100, 101, 100, 101, 200, 2, False]]
    assert len(waiting) == 1


def test_without_any_gold_the_candle_is_made_of_the_log_alone(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.hub.join("bars:AAPL:1m")
    stand.tick(1000)
    stand.trades(trade("AAPL", 101, T0 + 1))
    bars = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert bars == [[T0_S, 100, 101, 100, 101, 200, 2, False]]
    assert stand.hub.heartbeat()["fault"] is None


def test_a_fault_of_the_log_is_shown_and_passes(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Once:
        def __init__(self) -> None:
            self.ticks = 0

        def is_set(self) -> bool:
            return self.ticks >= 1

        def wait(self, _seconds: float) -> bool:
            self.ticks += 1
            return True

    def away() -> list[TopicPartition]:
        raise TransientError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(stand.log, "partitions", away)
        stand.hub.run(Once())  # type: ignore[arg-type]

    assert stand.hub.heartbeat()["fault"] == "the disk is away"
    assert stand.frames[-1][1]["fault"] == "the disk is away"

    stand.now_ms += 1000
    stand.hub.run(Once())  # type: ignore[arg-type]

    assert stand.hub.heartbeat()["fault"] is None


def test_trades_a_second_count_those_that_were_skipped(stand: Stand) -> None:
    stand.tick(1000)
    for _ in range(4):
        stand.trades(trade("AAPL", 100, T0))
    stand.tick(1000)
    assert stand.hub.heartbeat()["rate"] == 4
    for _ in range(4):
        stand.trades(trade("AAPL", 100, T0))
    stand.hub._tail.skipped_records += 12
    stand.tick(1000)

    assert stand.hub.heartbeat()["rate"] == 16


def test_a_replaced_log_starts_the_live_view_anew(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.hub.join("bars:AAPL:1m")
    stand.tick(1000)
    stand.tick()
    stand.log.records.clear()
    stand.log.epoch = "epoch2"
    stand.trades(trade("AAPL", 200, T0 + 1000))
    frames = stand.tick(1000)

    assert stand.bars(frames, "bars:AAPL:1m")[-1][4] == 200


def test_gold_of_two_versions_is_never_mixed(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    query = stand.gold.query

    def publishing_query(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        rows = query(sql, parameters)
        stand.gold.query = query  # type: ignore[method-assign]
        stand.trades(trade("AAPL", 101, T0 + 1))
        stand.publish()
        return rows

    stand.gold.query = publishing_query  # type: ignore[method-assign]
    stand.tick(1000)
    assert stand.hub.version is None
    stand.tick()

    assert stand.hub.version is not None
    assert stand.hub.version.version == 2


@pytest.mark.parametrize(
    ("channel", "is_known"),
    [
        ("market", True), ("kpi", True), ("pipeline", True), ("bars:AAPL:1m", True),
        ("bars:BINANCE:BTCUSDT:1s", True), ("bars:IC MARKETS:1:1h", True), ("bars:AAPL:1d", False),
        ("bars:AAPL:2m", False), ("bars::1m", False), ("bars:x';--:1m", False), ("", False),
        ("other", False),
    ],
)  # fmt: skip
def test_only_known_channels_exist(channel: str, *, is_known: bool) -> None:
    assert is_channel(channel) is is_known


def test_a_newly_watched_symbol_gets_the_trades_between_gold_and_now(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.tick(1000)
    for step in range(20):
        stand.trades(trade("AAPL", 101 + step, T0 + 1 + step), trade("XOM", 50, T0))
    stand.tick()
    stand.hub.join("bars:AAPL:1m")
    seed = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert seed[-1] == [T0_S, 100, 120, 100, 120, 2100, 21, False]


def test_without_viewers_no_trade_is_decoded_and_with_the_first_one_all_is_there(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counted(value: bytes) -> TradeFrame | None:
        decoded.append(value)
        return read_trades(value)

    monkeypatch.setattr("tickhouse.dashboard.hub.read_trades", counted)
    stand.watched = False
    stand.log.append(SESSIONS, [opened(at_ms=T0)], at_ms=T0)
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.trades(trade("AAPL", 101, T0 + 1))
    stand.tick(1000)
    resting = stand.hub.heartbeat()

    assert decoded == []
    assert (resting["badge"], resting["tick_ms"], resting["rate"]) == ("SIMULATED", T0, None)
    assert resting["skipped"] == 0

    stand.watched = True
    stand.hub.join("bars:AAPL:1m")
    frames = stand.tick()

    assert stand.bars(frames, "bars:AAPL:1m")[-1] == [T0_S, 100, 101, 100, 101, 200, 2, False]
    assert [frame["p"] for name, frame in frames if name == "market"] == [[101]]


def test_a_viewer_that_comes_while_the_last_one_leaves_sees_no_trade_twice(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.tick(1000)
    stand.trades(trade("AAPL", 101, T0 + 1))
    stand.watched = False
    stand.hub.join("bars:AAPL:1m")
    stand.tick()
    stand.watched = True
    stand.trades(trade("AAPL", 102, T0 + 2))
    bars = stand.bars(stand.tick(), "bars:AAPL:1m")

    assert bars == [[T0_S, 100, 102, 100, 102, 300, 3, False]]


# -- live feeds ------------------------------------------------------------------------------

REGULAR = 1_723_471_200_000
"""Monday, 2024-08-12, 10:00 in New York."""
FRIDAY_CLOSE = 1_723_233_600_000
SUNDAY = 1_723_384_800_000


def go_live(stand: Stand, at_ms: int, *coverage: Coverage, feed: str = "finnhub://AAPL") -> None:
    """A live feed begins, and says how symbols come."""
    stand.now_ms = at_ms
    stand.write = Trades(source="finnhub.ws")
    events = [session_event(event, seq=n) for n, event in enumerate(coverage, 1)]
    stand.log.append(SESSIONS, [opened("live", feed, at_ms=at_ms), *events], at_ms=at_ms)


def covers(channel: Channel, *symbols: str, reason: str = "", every_s: float | None = None) -> Any:
    return Coverage(REGULAR * 1_000_000, channel, list(symbols), reason, every_s)


def standing(stand: Stand, symbol: str) -> Standing:
    return stand.hub.standings.rows[stand.hub.universe.symbols.index(symbol)]


def test_a_polled_quote_moves_the_last_price_and_says_that_it_is_one(stand: Stand) -> None:
    go_live(stand, REGULAR, covers("polling", "XOM", reason="beyond the socket's 50", every_s=61))
    stand.log.append(
        QUOTES, [quote_frame("XOM", 50.5, REGULAR - 1000, at_ms=REGULAR)], at_ms=REGULAR
    )
    frames = stand.tick(1000)

    market = next(frame for name, frame in frames if name == "market")
    assert (market["i"], market["p"]) == ([0], [50.5])
    assert market["s"] == [
        [0, "live", "quote", "polling", "beyond the socket's 50", 61, REGULAR - 1000]
    ]
    assert stand.hub.heartbeat()["tick_ms"] == REGULAR
    assert stand.hub.heartbeat()["coverage"]["polling"] == 1


def test_a_quote_makes_no_candle(stand: Stand) -> None:
    go_live(stand, REGULAR)
    stand.hub.join("bars:XOM:1m")
    stand.tick(1000)
    stand.log.append(QUOTES, [quote_frame("XOM", 50, REGULAR, at_ms=REGULAR)], at_ms=REGULAR)

    assert stand.bars(stand.tick(1000), "bars:XOM:1m") == []
    assert stand.hub.universe.prices == [50]


def test_the_later_of_trade_and_quote_is_the_price_and_a_trade_wins_a_tie(stand: Stand) -> None:
    go_live(stand, REGULAR)
    stand.trades(trade("XOM", 50, REGULAR))
    quotes = [quote_frame("XOM", 51, REGULAR, at_ms=REGULAR)]
    stand.log.append(QUOTES, quotes, at_ms=REGULAR)
    stand.tick(1000)
    tie = (stand.hub.universe.prices[0], stand.hub.universe.price_from[0])
    later = [
        quote_frame("XOM", 52, REGULAR + 1000, at_ms=REGULAR, seq=1),
        quote_frame("XOM", 53, REGULAR + 1000, at_ms=REGULAR, seq=2),
    ]
    stand.log.append(QUOTES, later, at_ms=REGULAR)
    stand.tick()
    quoted = (stand.hub.universe.prices[0], stand.hub.universe.price_from[0])
    stand.trades(trade("XOM", 54, REGULAR + 1000))
    stand.tick()

    assert tie == (50, "trade")
    assert quoted == (53, "quote")
    assert (stand.hub.universe.prices[0], stand.hub.universe.price_from[0]) == (54, "trade")


def test_a_quote_of_friday_on_an_open_monday_is_stale_and_no_price(stand: Stand) -> None:
    go_live(stand, REGULAR, covers("polling", "XOM"))
    stand.trades(trade("AAPL", 100, REGULAR))
    quotes = [quote_frame("XOM", 50, FRIDAY_CLOSE, at_ms=REGULAR)]
    stand.log.append(QUOTES, quotes, at_ms=REGULAR)
    stand.tick(1000)

    assert stand.hub.universe.prices[stand.hub.universe.symbols.index("XOM")] is None
    assert standing(stand, "XOM").word == "stale"
    assert standing(stand, "XOM").quoted_ms == FRIDAY_CLOSE
    assert standing(stand, "AAPL").word == "live"


def test_on_a_sunday_shares_are_closed_and_coins_are_not(stand: Stand) -> None:
    go_live(stand, SUNDAY, covers("socket", "AAPL"))
    stand.trades(trade("AAPL", 100, FRIDAY_CLOSE))
    stand.now_ms += 3_600_000
    stand.tick(1000)
    shares = stand.hub.heartbeat()

    assert (shares["word"], shares["market"].state) == ("closed", "closed")
    assert shares["market"].opens_ms == REGULAR - 30 * 60_000
    assert shares["words"] == {"closed": 1}

    event = covers("socket", "BINANCE:BTCUSDT")
    stand.log.append(SESSIONS, [session_event(event, seq=5)], at_ms=stand.now_ms)
    stand.trades(trade("BINANCE:BTCUSDT", 60_000, stand.now_ms))
    stand.tick(1000)

    assert stand.hub.heartbeat()["word"] == "live"
    assert standing(stand, "BINANCE:BTCUSDT").word == "live"
    assert standing(stand, "AAPL").word == "closed"


def test_a_symbol_that_does_not_trade_while_others_do_is_halted_or_quiet(stand: Stand) -> None:
    go_live(stand, REGULAR, covers("socket", "AAPL", "XOM"))
    stand.trades(trade("AAPL", 100, REGULAR), trade("XOM", 50, REGULAR))
    stand.tick(1000)
    stand.now_ms = REGULAR + 400_000
    stand.trades(trade("AAPL", 101, stand.now_ms))
    frames = stand.tick(1000)

    assert standing(stand, "XOM").word == "halted-or-quiet"
    assert standing(stand, "AAPL").word == "live"
    told = next(frame["s"] for name, frame in frames if name == "market")
    assert [row[:2] for row in told] == [[1, "halted-or-quiet"]]


def test_pings_without_trades_are_quiet_and_nothing_at_all_is_stale(stand: Stand) -> None:
    go_live(stand, REGULAR, covers("socket", "AAPL"))
    stand.trades(trade("AAPL", 100, REGULAR))
    stand.tick(1000)
    stand.now_ms = REGULAR + 100_000
    ping = encode_frames(
        [b'{"type":"ping"}'], source="finnhub.ws", session="s1", first_seq=9,
        received_at_ns=stand.now_ms * 1_000_000,
    )  # fmt: skip
    stand.log.append(TRADES, ping, at_ms=stand.now_ms)
    stand.tick(1000)
    quiet = stand.hub.heartbeat()["word"]
    stand.now_ms += 100_000
    stand.tick(1000)

    assert quiet == "halted-or-quiet"
    assert stand.hub.heartbeat()["word"] == "stale"
    assert stand.hub.heartbeat()["tick_ms"] == REGULAR
    assert standing(stand, "AAPL").word == "stale"


def test_a_simulated_feed_is_live_on_a_sunday(stand: Stand) -> None:
    stand.now_ms = SUNDAY
    stand.log.append(SESSIONS, [opened(at_ms=SUNDAY)], at_ms=SUNDAY)
    stand.trades(trade("AAPL", 100, SUNDAY))
    stand.tick(1000)
    heartbeat = stand.hub.heartbeat()

    assert (heartbeat["word"], heartbeat["market"].state) == ("live", "always-open")
    assert standing(stand, "AAPL").word == "live"
    stand.now_ms += 4_000
    stand.tick(1000)
    assert stand.hub.heartbeat()["word"] == "stale"
    assert standing(stand, "AAPL").word == "stale"


def test_without_viewers_the_words_follow_gold(stand: Stand) -> None:
    stand.watched = False
    go_live(stand, REGULAR, covers("socket", "AAPL", "XOM"))
    stand.trades(trade("AAPL", 100, REGULAR), trade("XOM", 50, REGULAR - 400_000))
    stand.publish()
    stand.tick(1000)

    assert standing(stand, "AAPL").word == "live"
    assert standing(stand, "XOM").word == "halted-or-quiet"
    assert stand.hub.heartbeat()["words"] == {"live": 1, "halted-or-quiet": 1}


def test_the_snapshot_has_the_standing_of_every_row(stand: Stand) -> None:
    go_live(stand, REGULAR, covers("none", "XOM", reason="the plan lacks it"))
    stand.trades(trade("AAPL", 100, REGULAR), trade("XOM", 50, REGULAR))
    stand.tick(1000)
    stand.trades(trade("NEW", 5, REGULAR))
    stand.tick(100)
    rows = stand.hub.snapshot()["market"]["standing"]

    assert [row.word for row in rows] == ["live", "live", ""]
    assert rows[1][2:4] == ("none", "the plan lacks it")


def test_an_error_answer_is_no_sign_of_life_of_a_polled_feed(stand: Stand) -> None:
    go_live(stand, REGULAR, covers("polling", "XOM"), feed="finnhub+rest://XOM")
    refusal = quote_frame("XOM", 0, 0, at_ms=REGULAR, source="finnhub.http.429")
    stand.log.append(QUOTES, [refusal, b"poison"], at_ms=REGULAR)
    stand.tick(1000)

    assert stand.hub.heartbeat()["tick_ms"] is None
    assert stand.hub.heartbeat()["word"] is None


def test_frames_that_fill_a_gap_are_part_of_the_live_candle(stand: Stand) -> None:
    stand.trades(trade("BINANCE:BTCUSDT", 100, T0))
    stand.publish()
    stand.tick(1000)
    stand.hub.join("bars:BINANCE:BTCUSDT:1m")
    stand.tick()
    page = msgspec.json.encode(
        [
            {"id": 1, "price": "101.5", "qty": "0.25", "time": T0 + 10},
            {"id": 2, "price": "99", "qty": "0.25", "time": T0 + 20},
        ]
    )
    filled = encode_frames(
        [page], source="binance.trades", session="f1", first_seq=0,
        received_at_ns=T0 * 1_000_000, symbol="BTCUSDT",
    )  # fmt: skip
    stand.log.append(TopicPartition(Stream.TRADES, 1), filled, at_ms=stand.now_ms)
    bars = stand.bars(stand.tick(1000), "bars:BINANCE:BTCUSDT:1m")

    assert bars[-1][1:7] == [100, 101.5, 99, 99, 100.5, 3]


def test_quotes_that_gold_lacks_count_as_lag(stand: Stand) -> None:
    go_live(stand, REGULAR)
    stand.log.append(QUOTES, [quote_frame("XOM", 50, REGULAR, at_ms=REGULAR)], at_ms=REGULAR)
    stand.publish()
    stand.tick(1000)
    level = stand.hub.heartbeat()["behind"]
    stand.log.append(QUOTES, [quote_frame("XOM", 51, REGULAR, at_ms=REGULAR)], at_ms=REGULAR)
    stand.tick(1000)

    assert (level, stand.hub.heartbeat()["behind"]) == (0, 1)


def test_gold_does_not_take_back_a_price_of_the_same_moment(stand: Stand) -> None:
    stand.trades(trade("AAPL", 100, T0))
    stand.publish()
    stand.trades(trade("AAPL", 101, T0))
    stand.tick(1000)
    stand.tick(1000)

    assert stand.hub.universe.prices == [101]


def test_reference_data_is_not_followed(stand: Stand) -> None:
    reference = TopicPartition(Stream.REFERENCE, 1)
    stand.log.append(reference, [b"x"] * 10, at_ms=T0)
    stand.tick(1000)

    assert reference not in stand.hub._tail.partitions()
    assert stand.hub.heartbeat()["behind"] == 0
