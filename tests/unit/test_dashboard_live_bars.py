"""The live candle: gold's bar plus the trades since, cut exactly at gold's log position."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickhouse.dashboard.live_bars import TAPE_MAX, Bar, SymbolTape, Taped

T0_MS = 1_723_213_800_000
T0_S = T0_MS // 1000


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
    bars = tape.watch("1m")
    for offset, price in enumerate([10.0, 12.0, 9.0, 11.0]):
        tape.add(taped(offset, offset * 1000, price, 5))

    assert bars.take_changed() == [Bar(T0_S, 10.0, 12.0, 9.0, 11.0, 20.0, 4)]
    assert bars.take_changed() == []


def test_a_late_trade_does_not_close_the_bar_but_may_open_it() -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    tape.add(taped(0, 5000, 10.0))
    tape.add(taped(1, 9000, 11.0))
    tape.add(taped(2, 1000, 8.0))

    assert bars.bar(T0_S) == Bar(T0_S, 8.0, 11.0, 8.0, 11.0, 3.0, 3)


def test_a_trade_that_sets_no_price_adds_volume_only() -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    tape.add(taped(0, 0, 99.0, 7, sets=False))

    assert bars.bar(T0_S) == Bar(T0_S, None, None, None, None, 7.0, 1)

    tape.add(taped(1, 10, 10.0, 1))

    assert bars.bar(T0_S) == Bar(T0_S, 10.0, 10.0, 10.0, 10.0, 8.0, 2)


def test_no_trade_is_counted_twice_when_gold_takes_it_over() -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    trades = [taped(offset, offset * 100, 10.0 + offset) for offset in range(10)]
    for trade in trades:
        tape.add(trade)
    before = bars.bar(T0_S)

    tape.rebase({0: 6}, {"1m": gold_of(trades[:6])})

    assert bars.bar(T0_S) == before == gold_of(trades)[0]


def test_a_bar_that_began_before_we_watched_keeps_golds_open_and_extremes() -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    earlier = [taped(offset, offset, price) for offset, price in enumerate([10.0, 30.0, 5.0])]
    tape.rebase({0: 3}, {"1m": gold_of(earlier)})
    tape.add(taped(3, 500, 12.0, 2))

    assert bars.bar(T0_S) == Bar(T0_S, 10.0, 30.0, 5.0, 12.0, 5.0, 4)


def test_a_late_trade_after_golds_close_does_not_close_the_bar() -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    seen = [taped(5, 9000, 20.0), taped(6, 9500, 21.0)]
    for trade in seen:
        tape.add(trade)
    unseen = [taped(offset, offset, 10.0) for offset in range(5)]
    tape.rebase({0: 7}, {"1m": gold_of([*unseen, *seen])})
    tape.add(taped(7, 8000, 15.0))

    bar = bars.bar(T0_S)
    assert bar is not None
    assert bar.close == 21.0


def test_gold_asks_only_for_bars_that_it_changed() -> None:
    tape = SymbolTape()
    tape.watch("1m")
    tape.add(taped(0, 0, 10.0))
    tape.add(taped(1, 60_000, 10.0))
    tape.add(taped(2, 120_000, 10.0))

    assert tape.needs_since({}, "1m") is None
    assert tape.needs_since({0: 1}, "1m") == T0_S
    tape.rebase({0: 1}, {})
    assert tape.needs_since({0: 1}, "1m") is None
    assert tape.needs_since({0: 3}, "1m") == T0_S + 60


def test_skipped_trades_leave_a_hole_until_gold_has_passed_them() -> None:
    tape = SymbolTape()
    tape.watch("1m")
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
    bars = tape.watch(interval)
    published = 0
    for offset, trade in enumerate(trades):
        tape.add(trade)
        if offset in cuts:
            published = random.Random(offset).randint(published, offset + 1)
            tape.rebase({0: published}, {interval: gold_of(trades[:published], seconds)})

    assert bars.newest(1000) == gold_of(trades, seconds)


@pytest.mark.parametrize("part", [0, 1])
def test_each_partition_is_cut_at_its_own_position(part: int) -> None:
    tape = SymbolTape()
    bars = tape.watch("1m")
    tape.add(taped(10, 0, 10.0, part=0))
    tape.add(taped(10, 1, 11.0, part=1))

    tape.rebase({part: 11}, {})

    bar = bars.bar(T0_S)
    assert bar is not None
    assert bar.count == 1
