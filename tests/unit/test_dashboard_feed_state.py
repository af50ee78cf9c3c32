"""What the session events say of a feed of several connections, in the order in which they come."""

from typing import Any

import pytest

from support.dashboard import opened, session_event
from tickhouse.dashboard.feed_state import FeedState
from tickhouse.model.session import Channel, Closed, Coverage, Gap, Remote

NS = 1_000_000
FEED = "finnhub://AAPL,MSFT"


def begin(
    state: FeedState, *shards: int, feed: str = FEED, mode: Any = "live", at_ms: int = 1000
) -> FeedState:
    for shard in shards:
        event = opened(mode, feed, at_ms=at_ms, shard=shard, session=f"{feed}/{shard}")
        state.take(event, shard)
    return state


def told(state: FeedState, event: Any, *, shard: int = 0, seq: int = 1, feed: str = FEED) -> None:
    state.take(session_event(event, session=f"{feed}/{shard}", seq=seq), shard)


def closed(reason: str, at_ms: int = 2000) -> Closed:
    return Closed(at=at_ms * NS, reason=reason, messages={})


def covers(
    channel: Channel, *symbols: str, at_ms: int = 1, reason: str = "", every_s: float | None = None
) -> Coverage:
    return Coverage(at_ms * NS, channel, list(symbols), reason, every_s)


def gap(**changes: Any) -> Gap:
    fields = {
        "at": 5 * NS, "stream": "trades", "seq_from": None, "seq_to": None, "time_from": 3 * NS,
        "time_to": 4 * NS, "symbols": [], "cause": "connection lost", "name": "g1",
    }  # fmt: skip
    return Gap(**(fields | changes))


def test_connections_are_those_that_bring_what_happens_now() -> None:
    state = begin(FeedState(), 0, 1, 2)

    assert state.connections == 2
    assert [(link["role"], link["is_open"]) for link in state.links()] == [
        ("socket", True),
        ("poller", True),
        ("filler", True),
    ]


@pytest.mark.parametrize(
    ("feed", "roles"),
    [
        ("binance://btcusdt", ["socket", "filler"]),
        ("finnhub+rest://AAPL", ["poller", "stream"]),
        ("sim://sp500?rate=10", ["stream", "stream"]),
        ("replay:frames.gz", ["stream", "stream"]),
    ],
)
def test_each_feed_has_its_own_roles(feed: str, roles: list[str]) -> None:
    state = begin(FeedState(), 0, 1, feed=feed)

    assert [link["role"] for link in state.links()] == roles


def test_a_lost_socket_is_said_while_the_poller_goes_on() -> None:
    state = begin(FeedState(), 0, 1)
    told(state, closed("1006"))

    assert (state.connections, state.lost, state.closed_reason) == (1, "1006", None)
    assert not state.has_ended
    begin(state, 0, at_ms=3000)
    assert (state.connections, state.lost) == (2, None)


def test_a_feed_that_was_stopped_has_ended_and_one_that_was_cut_off_has_not() -> None:
    stopped = begin(FeedState(), 0, 1)
    told(stopped, closed("stopped"))
    told(stopped, closed("stopped"), shard=1)
    lost = begin(FeedState(), 0)
    told(lost, closed("silent for 151 s"))

    assert (stopped.has_ended, stopped.closed_reason, stopped.lost) == (True, "stopped", None)
    assert (lost.has_ended, lost.closed_reason) == (False, "silent for 151 s")
    assert lost.lost == "silent for 151 s"


def test_a_closed_event_of_an_earlier_session_closes_nothing() -> None:
    state = begin(FeedState(), 0)
    state.take(session_event(closed("late"), session="before"), 0)

    assert state.connections == 1


def test_connections_of_the_feed_before_count_no_more_in_whatever_order_they_are_read() -> None:
    state = begin(FeedState(), 0, feed="sim://sp500", mode="simulated", at_ms=9000)
    begin(state, 1, 2, at_ms=1000)

    assert (state.mode, state.url, state.connections) == ("simulated", "sim://sp500", 1)


def test_the_clock_is_mentioned_only_where_it_is_off_by_more_than_two_seconds() -> None:
    state = begin(FeedState(), 0, 1)
    told(state, Remote(1, "ray", -900))
    assert state.clock_offset_ms is None
    told(state, Remote(1, None, -10_800_000), shard=1)
    told(state, Remote(2, "ray"), shard=1, seq=2)

    assert state.clock_offset_ms == -10_800_000
    begin(state, 1, at_ms=5000)
    assert state.clock_offset_ms is None, "another connection"


def test_coverage_is_the_newest_of_all_connections() -> None:
    state = begin(FeedState(), 0, 1)
    told(state, covers("socket", "AAPL", "MSFT", at_ms=10, reason="subscribed"))
    told(state, covers("polling", "AAPL", at_ms=30, reason="silent for 900 s"), seq=2)
    told(state, covers("polling", "AAPL", at_ms=20, reason="the socket is down"), shard=1)

    known = state.covered("AAPL")
    assert known is not None
    assert (known.channel, known.reason) == ("polling", "silent for 900 s")
    assert state.coverage() == {
        "socket": 1, "polling": 1, "none": 0, "silent": 1, "every_s": None,
    }  # fmt: skip


def test_the_achieved_cadence_keeps_the_reason_why_a_symbol_is_polled() -> None:
    state = begin(FeedState(), 0, 1)
    told(state, covers("polling", "AAPL", at_ms=1, reason="beyond the socket's 50"))
    told(state, covers("polling", "AAPL", at_ms=2, reason="achieved", every_s=61.5), shard=1)

    known = state.covered("AAPL")
    assert known is not None
    assert (known.reason, known.every_s) == ("beyond the socket's 50", 61.5)
    told(state, covers("socket", "AAPL", at_ms=3, reason="trades again"), seq=2)
    known = state.covered("AAPL")
    assert known is not None
    assert (known.reason, known.every_s) == ("trades again", None)


def test_coverage_of_the_feed_before_is_forgotten() -> None:
    state = begin(FeedState(), 0)
    told(state, covers("polling", "AAPL"))
    begin(state, 0, feed="sim://sp500", mode="simulated", at_ms=9000)

    assert state.covered("AAPL") is None
    assert state.coverage() is None


@pytest.mark.parametrize(
    ("feed", "symbols", "markets"),
    [
        ("binance://btcusdt", [], (False, True)),
        ("finnhub://AAPL", [], (True, False)),
        ("finnhub://AAPL,BINANCE:BTCUSDT", [], (True, True)),
        ("finnhub://x", ["BINANCE:BTCUSDT"], (False, True)),
        ("finnhub://x", ["AAPL"], (True, False)),
        ("finnhub://x", ["AAPL", "OANDA:EUR_USD"], (True, True)),
    ],
)
def test_the_markets_of_a_feed_are_those_of_its_symbols(
    feed: str, symbols: list[str], markets: tuple[bool, bool]
) -> None:
    state = begin(FeedState(), 0, feed=feed)
    if symbols:
        told(state, covers("socket", *symbols), feed=feed)

    assert state.markets() == markets


def test_a_gap_that_was_filled_later_is_not_counted_as_open() -> None:
    state = begin(FeedState(), 0, 1, feed="binance://btcusdt")
    told(state, gap(), feed="binance://btcusdt")
    before = state.gaps.summary(now_ms=5)
    told(state, gap(filled_by="binance.trades"), shard=1, feed="binance://btcusdt")

    assert (before["gaps"], before["gaps_filled"], before["last_gap"]) == (1, 0, "connection lost")
    assert state.gaps.summary(now_ms=5) == {"gaps": 0, "gaps_filled": 1, "last_gap": None}


def test_a_feed_that_went_on_exactly_has_no_gap() -> None:
    state = begin(FeedState(), 0)
    told(state, gap(filled_by="ids", name="session"))

    assert state.gaps.summary(now_ms=5) == {"gaps": 0, "gaps_filled": 0, "last_gap": None}
    assert state.gaps.told == 1


def test_what_is_no_event_is_passed_over() -> None:
    state = FeedState()
    state.take(b"poison")
    state.take(session_event(closed("x")).replace(b'"closed"', b'"unheard-of"'))

    assert (state.badge, state.connections, state.links()) == ("", 0, [])
