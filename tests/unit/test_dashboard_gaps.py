"""Gaps told by the log's end: one a name, merged with those of gold."""

from typing import Any

from tickhouse.dashboard.gaps import GAPS_MAX, GapBook, KnownGap, merge
from tickhouse.model.session import Gap

MS = 1_000_000


def event(**changes: Any) -> Gap:
    fields = {
        "at": 50 * MS, "stream": "trades", "seq_from": None, "seq_to": None,
        "time_from": 10 * MS, "time_to": 20 * MS, "symbols": ["AAPL"], "cause": "lost",
        "name": "g1",
    }  # fmt: skip
    return Gap(**(fields | changes))


def take(book: GapBook, *events: Gap, feed: str = "finnhub://x") -> GapBook:
    for seq, found in enumerate(events):
        book.take(found, session="s1", seq=seq, feed=feed)
    return book


def known(**changes: Any) -> KnownGap:
    fields = {
        "name": "g1", "kind": "missed", "stream": "trades", "from_ms": 10, "to_ms": 20,
        "symbols": ["AAPL"], "cause": "lost", "filled_by": None, "trades": None, "feed": "",
    }  # fmt: skip
    return KnownGap(**(fields | changes))


def test_events_of_one_name_are_one_gap_that_grows_and_is_filled_once() -> None:
    book = take(
        GapBook(),
        event(id_from=101, id_to=149),
        event(time_from=5 * MS, time_to=30 * MS),
        event(filled_by="binance.trades"),
        event(filled_by=None),
    )

    (gap,) = book.gaps("AAPL", 0, 100)
    assert (gap.from_ms, gap.to_ms, gap.filled_by) == (5, 30, "binance.trades")
    assert (gap.trades, gap.kind, gap.feed) == (49, "missed", "finnhub://x")


def test_refused_messages_are_a_gap_each() -> None:
    refused = event(name=None, seq_from=7, seq_to=7, cause="frame too large")
    book = take(GapBook(), refused, refused)

    found = book.gaps("AAPL", 0, 100)
    assert [gap.name for gap in found] == ["s1:0", "s1:1"]
    assert {gap.kind for gap in found} == {"refused"}


def test_gaps_are_of_a_range_and_a_symbol() -> None:
    book = take(GapBook(), event(), event(name="all", symbols=[]), event(name="ref", stream="x"))

    assert [gap.name for gap in book.gaps("AAPL", 0, 100)] == ["g1", "all"]
    assert [gap.name for gap in book.gaps("MSFT", 20, 100)] == ["all"]
    assert [gap.name for gap in book.gaps("", 0, 100)] == ["g1", "all"]
    assert book.gaps("AAPL", 21, 100) == []
    assert book.gaps("AAPL", 0, 10) == []


def test_a_binance_connections_gap_is_of_no_share() -> None:
    book = take(GapBook(), event(symbols=[]), feed="binance://btcusdt")

    assert book.gaps("AAPL", 0, 100) == []
    assert len(book.gaps("BINANCE:BTCUSDT", 0, 100)) == 1


def test_the_summary_is_of_the_last_day() -> None:
    book = take(GapBook(), event(), event(name="g2", time_to=25 * MS, cause="killed"))

    assert book.summary(30) == {"gaps": 2, "gaps_filled": 0, "last_gap": "killed"}
    assert book.summary(30 + 86_400_000)["gaps"] == 0


def test_a_feed_without_end_of_gaps_does_not_fill_the_memory() -> None:
    book = GapBook()
    for number in range(GAPS_MAX + 10):
        book.take(event(name=f"g{number}"), session="s", seq=number, feed="")

    assert len(book.gaps("", 0, 100)) == GAPS_MAX


def test_a_gap_that_gold_and_log_know_is_one_with_what_both_say() -> None:
    published = [known(), known(name="old", from_ms=1, to_ms=2, filled_by="finnhub.tick")]
    told = [known(filled_by="finnhub.tick", to_ms=25), known(name="new", from_ms=40, to_ms=50)]

    merged = merge(published, told, 10)
    assert [(gap.name, gap.to_ms, gap.filled_by) for gap in merged] == [
        ("old", 2, "finnhub.tick"),
        ("g1", 25, "finnhub.tick"),
        ("new", 50, None),
    ]
    assert [gap.name for gap in merge(published, told, 1)] == ["new"]


def test_a_silence_and_a_missed_gap_of_one_session_are_two_gaps() -> None:
    silence = known(kind="silence", name="session", to_ms=15)

    merged = merge([silence], [known(name="session", from_ms=30, filled_by="finnhub.tick")], 10)
    assert [(gap.kind, gap.filled_by) for gap in merged] == [
        ("silence", None),
        ("missed", "finnhub.tick"),
    ]


def test_the_summary_counts_what_only_gold_knows_and_nothing_twice() -> None:
    book = take(GapBook(), event(filled_by="finnhub.tick"))
    silence = known(kind="silence", name="s1", cause="no closed event", to_ms=25)
    book.take_published([known(), silence])

    assert book.summary(30) == {"gaps": 1, "gaps_filled": 1, "last_gap": "no closed event"}
    assert book.summary(30 + 86_400_000)["gaps"] == 0
