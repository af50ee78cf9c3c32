"""The live candle: gold's bar plus the trades since, cut exactly at gold's log position."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickhouse.dashboard.live_bars import TAPE_MAX, Bar, GoldBars, LiveBars, SymbolTape, Taped

T0_MS = 1_723_213_800_000
T0_S = T0_MS // 1000


def watched(tape: SymbolTape, interval: str = "1m") -> LiveBars:
    """Bars of which gold has said that it has none yet."""
    bars = tape.watch(interval)
    bars.is_seeded = True
    return bars


def taped(
    offset: int, after_ms: int, price: float, size: float = 1, *, sets: bool = True, part: int = 0
) -> Taped:
    key = (T0_MS + after_ms, offset, "s", offset, 0)
    return Taped(part, offset, key, price, size, True, sets)


def gold_of(trades: Sequence[Taped], interval_s: int = 60) -> list[Bar]:
    """Bars by the plain definition: sort, then first, highest, lowest, last."""
    found: list[Bar] = []
    for start_s in sorted({t.key[0] // 1000 // interval_s * interval_s for t in trades}):
        mine = sorted(
            (t for t in trades if t.key[0] // 1000 // interval_s * interval_s == start_s),
            key=lambda t: t.key,
        )
        prices = [t.price for t in mine if t.sets_price]
        counted = [t.size for t in mine if t.counts_volume]
        values = (prices[0], max(prices), min(prices), prices[-1]) if prices else (None,) * 4
        found.append(Bar(start_s, *values, sum(counted), len(counted)))
    return found


def test_a_bar_grows_with_each_trade() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    for offset, price in enumerate([10.0, 12.0, 9.0, 11.0]):
        tape.add(taped(offset, offset * 1000, price, 5))

    assert bars.take_changed() == [Bar(T0_S, 10.0, 12.0, 9.0, 11.0, 20.0, 4)]
    assert bars.take_changed() == []


def test_a_late_trade_does_not_close_the_bar_but_may_open_it() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    tape.add(taped(0, 5000, 10.0))
    tape.add(taped(1, 9000, 11.0))
    tape.add(taped(2, 1000, 8.0))

    assert bars.bar(T0_S) == Bar(T0_S, 8.0, 11.0, 8.0, 11.0, 3.0, 3)


def test_a_trade_that_sets_no_price_adds_volume_only() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    tape.add(taped(0, 0, 99.0, 7, sets=False))

    assert bars.bar(T0_S) == Bar(T0_S, None, None, None, None, 7.0, 1)

    tape.add(taped(1, 10, 10.0, 1))

    assert bars.bar(T0_S) == Bar(T0_S, 10.0, 10.0, 10.0, 10.0, 8.0, 2)


def test_no_trade_is_counted_twice_when_gold_takes_it_over() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    trades = [taped(offset, offset * 100, 10.0 + offset) for offset in range(10)]
    for trade in trades:
        tape.add(trade)
    before = bars.bar(T0_S)

    tape.rebase({0: 6}, {"1m": GoldBars(0, gold_of(trades[:6]))})

    assert bars.bar(T0_S) == before == gold_of(trades)[0]


def test_a_bar_that_began_before_we_watched_keeps_golds_open_and_extremes() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    earlier = [taped(offset, offset, price) for offset, price in enumerate([10.0, 30.0, 5.0])]
    tape.rebase({0: 3}, {"1m": GoldBars(0, gold_of(earlier))})
    tape.add(taped(3, 500, 12.0, 2))

    assert bars.bar(T0_S) == Bar(T0_S, 10.0, 30.0, 5.0, 12.0, 5.0, 4)


def test_a_late_trade_after_golds_close_does_not_close_the_bar() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    seen = [taped(5, 9000, 20.0), taped(6, 9500, 21.0)]
    for trade in seen:
        tape.add(trade)
    unseen = [taped(offset, offset, 10.0) for offset in range(5)]
    tape.rebase({0: 7}, {"1m": GoldBars(0, gold_of([*unseen, *seen]))})
    tape.add(taped(7, 8000, 15.0))

    bar = bars.bar(T0_S)
    assert bar is not None
    assert bar.close == 21.0


def test_gold_asks_only_for_bars_that_it_changed() -> None:
    tape = SymbolTape()
    watched(tape)
    tape.add(taped(0, 0, 10.0))
    tape.add(taped(1, 60_000, 10.0))
    tape.add(taped(2, 120_000, 10.0))

    assert tape.needs_since({}, "1m") is None
    assert tape.needs_since({0: 1}, "1m") == T0_S
    tape.rebase({0: 1}, {"1m": GoldBars(T0_S, [])})
    assert tape.needs_since({0: 1}, "1m") is None
    assert tape.needs_since({0: 3}, "1m") == T0_S + 60


def test_skipped_trades_leave_a_hole_until_gold_has_passed_them() -> None:
    tape = SymbolTape()
    watched(tape)
    tape.add(taped(0, 0, 10.0))
    tape.leave_hole(0, 100)

    assert not tape.is_whole({0: 50})
    assert tape.needs_since({0: 50}, "1m") is not None
    tape.rebase({0: 50}, {})
    assert not tape.is_whole({0: 50})
    tape.rebase({0: 100}, {})
    assert tape.is_whole({0: 100})


def test_a_tape_that_gold_does_not_cut_stays_bounded_and_says_so() -> None:
    tape = SymbolTape()
    for offset in range(TAPE_MAX + 1):
        tape.add(taped(offset, 0, 10.0))

    assert len(tape._trades) <= TAPE_MAX
    assert not tape.is_whole({})


def answer(trades: Sequence[Taped], since_s: int | None) -> dict[str, GoldBars]:
    """What gold of these trades answers; nothing if it was not asked."""
    if since_s is None:
        return {}
    return {"1m": GoldBars(since_s, [bar for bar in gold_of(trades) if bar.start_s >= since_s])}


@given(
    st.lists(
        st.tuples(st.integers(0, 200_000), st.integers(1, 50), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from(["1s", "1m", "5m"]),
)
def test_whenever_gold_takes_over_the_bars_equal_their_definition(
    arrivals: list[tuple[int, int, bool]], cuts: list[int], interval: str
) -> None:
    trades = [
        taped(offset, after_ms, float(price), sets=sets)
        for offset, (after_ms, price, sets) in enumerate(arrivals)
    ]
    seconds = {"1s": 1, "1m": 60, "5m": 300}[interval]
    tape = SymbolTape()
    bars = watched(tape, interval)
    published = 0
    for offset, trade in enumerate(trades):
        tape.add(trade)
        if offset in cuts:
            published = random.Random(offset).randint(published, offset + 1)
            tape.rebase(
                {0: published}, {interval: GoldBars(0, gold_of(trades[:published], seconds))}
            )

    assert bars.newest(1000) == gold_of(trades, seconds)


@pytest.mark.parametrize("part", [0, 1])
def test_each_partition_is_cut_at_its_own_position(part: int) -> None:
    tape = SymbolTape()
    bars = watched(tape)
    tape.add(taped(10, 0, 10.0, part=0))
    tape.add(taped(10, 1, 11.0, part=1))

    tape.rebase({part: 11}, {})

    bar = bars.bar(T0_S)
    assert bar is not None
    assert bar.count == 1


def test_nothing_is_shown_before_gold_was_asked_for_what_came_before() -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    tape.add(taped(5, 0, 10.0))

    assert tape.is_asking("1m")
    assert bars.take_changed() == []
    tape.rebase({0: 5}, {"1m": GoldBars(0, gold_of([taped(1, 0, 8.0)]))})
    assert not tape.is_asking("1m")
    assert bars.take_changed() == [Bar(T0_S, 8.0, 10.0, 8.0, 10.0, 2.0, 2)]


def test_a_trade_that_gold_holds_before_we_read_it_is_not_added_but_asked_for() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    trades = [taped(offset, 0, 10.0 + offset) for offset in range(4)]
    tape.rebase({0: 3}, {})
    for trade in trades:
        tape.add(trade)

    assert tape.is_asking("1m")
    assert tape.needs_since({0: 3}, "1m") == T0_S
    tape.rebase({0: 3}, {"1m": GoldBars(T0_S, gold_of(trades[:3]))})
    assert not tape.is_asking("1m")
    assert bars.bar(T0_S) == gold_of(trades)[0]


def test_a_bar_that_gold_took_over_without_being_asked_is_asked_for_next() -> None:
    tape = SymbolTape()
    bars = watched(tape)
    tape.add(taped(0, 0, 10.0))
    tape.rebase({0: 1}, {})

    assert bars.bar(T0_S) is None
    assert tape.is_asking("1m")
    assert tape.needs_since({0: 1}, "1m") == T0_S
    tape.rebase({0: 1}, {"1m": GoldBars(T0_S, [])})
    assert not tape.is_asking("1m")


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 50)), min_size=1, max_size=50),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12), st.booleans()), max_size=8),
)
def test_gold_ahead_of_the_reader_or_asked_too_early_never_counts_a_trade_twice(
    arrivals: list[tuple[int, int]], moves: list[tuple[int, int, bool]]
) -> None:
    trades = [taped(offset, at, float(price)) for offset, (at, price) in enumerate(arrivals)]
    tape = SymbolTape()
    bars = watched(tape)
    published = 0
    for offset, trade in enumerate(trades):
        for at, ahead, is_asked_early in moves:
            if at == offset:
                since_s = tape.needs_since({0: published}, "1m")
                published = min(max(published, offset + ahead), len(trades))
                if not is_asked_early:
                    since_s = tape.needs_since({0: published}, "1m")
                tape.rebase({0: published}, answer(trades[:published], since_s))
        tape.add(trade)
    since_s = tape.needs_since({0: len(trades)}, "1m")
    tape.rebase({0: len(trades)}, answer(trades, since_s))

    shown = {bar.start_s: bar for bar in bars.newest(1000)}
    assert shown == {bar.start_s: bar for bar in gold_of(trades)}
