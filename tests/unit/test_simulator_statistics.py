"""The simulated exchange day against what was measured on four real stocks, with a fixed seed.

The band is 40 % either way unless a test says otherwise.
"""

import json
from functools import lru_cache

import numpy as np
import pytest

from tickhouse.source.simulator import Scenario
from tickhouse.source.simulator.profiles import HALF_HOUR_MOVES, HALF_HOUR_TRADES
from tickhouse.source.simulator.universe import read_universe
from tools.simulator_statistics import (
    DAYS,
    NAMES,
    RATES,
    REAL,
    WINDOWS_MS,
    Prints,
    burst_mean,
    by_half_hour,
    correlation,
    draw_prints,
    fano,
    gap_variation,
    kurtosis,
    minute_returns,
    same_ms_share,
    scenario_for,
    tick_changes,
)

BAND = 0.4


@lru_cache(maxsize=1)
def week() -> dict[str, list[Prints]]:
    """Regular hours of five days of each of the four stocks' stand-ins."""
    found: dict[str, list[Prints]] = {}
    for name in NAMES:
        scenario, symbol = scenario_for(name)
        found[name] = [draw_prints(scenario, day, [symbol])[symbol].regular() for day in DAYS]
    return found


def mean(values: list[float]) -> float:
    return float(np.mean(values))


@pytest.mark.parametrize("name", NAMES)
def test_the_stand_in_trades_at_the_stocks_own_rate(name: str) -> None:
    per_second = mean([len(day.time_ms) / 23_400 for day in week()[name]])

    assert per_second == pytest.approx(RATES[name], rel=0.1)


@pytest.mark.parametrize("window_ms", WINDOWS_MS)
@pytest.mark.parametrize("name", NAMES)
def test_counts_vary_as_much_more_than_a_poisson_process_as_real_ones(
    name: str, window_ms: int
) -> None:
    real = REAL[name].fano[WINDOWS_MS.index(window_ms)]

    assert mean([fano(day.time_ms, window_ms) for day in week()[name]]) == pytest.approx(
        real, rel=BAND
    )


@pytest.mark.parametrize("name", NAMES)
def test_as_many_prints_share_a_millisecond_as_in_reality(name: str) -> None:
    same = mean([same_ms_share(day.time_ms) for day in week()[name]])

    assert same == pytest.approx(REAL[name].same_ms, rel=BAND)


@pytest.mark.parametrize("name", NAMES)
def test_gaps_and_bursts_are_as_uneven_as_real_ones(name: str) -> None:
    variation = mean([gap_variation(day.time_ms) for day in week()[name]])
    burst = mean([burst_mean(day.time_ms) for day in week()[name]])

    assert variation == pytest.approx(REAL[name].gap_cv, rel=BAND)
    assert burst == pytest.approx(REAL[name].burst, rel=0.6)


@pytest.mark.parametrize("name", NAMES)
def test_the_busiest_second_is_that_of_a_real_day(name: str) -> None:
    peaks = [
        float(np.bincount(day.time_ms // 1000).max()) / (len(day.time_ms) / 23_400)
        for day in week()[name]
    ]

    assert 34 * (1 - BAND) < mean(peaks) < 200 * (1 + BAND)


def test_trades_have_the_u_shape_of_the_real_day() -> None:
    real = np.array(HALF_HOUR_TRADES) / sum(HALF_HOUR_TRADES)
    days = [day for name in NAMES for day in week()[name]]
    found = np.mean([by_half_hour(day.time_ms, day.length_ms) for day in days], axis=0)

    assert found == pytest.approx(real, rel=BAND)
    assert found[0] > 1.5 * found[6]
    assert found[-1] > 2 * found[6]


def test_moves_are_larger_near_the_bells_as_in_reality() -> None:
    moves = np.array(
        [np.abs(minute_returns(day)) / np.abs(minute_returns(day)).mean()
         for name in NAMES for day in week()[name]]
    )  # fmt: skip
    by_minute = np.append(moves.mean(axis=0), moves[:, -1].mean())
    found = by_minute.reshape(13, 30).mean(axis=1)
    real = np.array(HALF_HOUR_MOVES) / np.mean(HALF_HOUR_MOVES)

    assert found == pytest.approx(real, rel=BAND)


@pytest.mark.parametrize("name", NAMES)
def test_returns_of_a_minute_have_the_size_and_the_tails_of_real_ones(name: str) -> None:
    returns = np.concatenate([minute_returns(day) for day in week()[name]])

    assert returns.std() * 1e4 == pytest.approx(REAL[name].sd_bp, rel=BAND)
    assert 4 * (1 - BAND) < kurtosis(returns) < 8 * (1 + BAND)


@pytest.mark.parametrize("name", NAMES)
def test_returns_are_not_predictable_and_their_size_is(name: str) -> None:
    returns = [minute_returns(day) for day in week()[name]]
    sizes = [np.abs(day) for day in returns]

    assert -0.25 < correlation(returns, 1) < 0.1
    assert correlation(sizes, 1) > 0.05
    assert correlation(sizes, 10) > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_prints_bounce_between_bid_and_ask_as_real_ones(name: str) -> None:
    bounce = correlation([tick_changes(day) for day in week()[name]], 1)
    unchanged = mean([float(np.mean(tick_changes(day) == 0)) for day in week()[name]])

    assert bounce == pytest.approx(REAL[name].bounce, rel=BAND)
    assert -0.45 <= bounce <= -0.3 * (1 - BAND)
    assert unchanged == pytest.approx(REAL[name].zero_ticks, rel=BAND)


def test_symbols_move_together_and_more_so_over_longer_times() -> None:
    symbols = [read_universe()[rank].symbol for rank in (0, 6, 9, 10, 14, 19)]
    scenario = Scenario(market="exchange", rate=60)
    by_day = [draw_prints(scenario, day, symbols) for day in DAYS[:3]]

    def coupling(minutes: int) -> float:
        returns = np.concatenate(
            [
                np.array(
                    [
                        np.add.reduceat(
                            minute_returns(day[symbol].regular()), range(0, 389, minutes)
                        )
                        for symbol in symbols
                    ]
                )
                for day in by_day
            ],
            axis=1,
        )
        pairs = np.corrcoef(returns)[np.triu_indices(len(symbols), 1)]
        return float(pairs.mean())

    assert 0.22 * (1 - BAND) < coupling(1) < 0.37 * (1 + BAND)
    assert coupling(1) < coupling(5) < 0.49 * (1 + BAND)


def test_the_ten_largest_have_a_fifth_of_the_trades() -> None:
    scenario = Scenario(market="exchange", symbols=503, rate=20)
    listed = [listing.symbol for listing in read_universe()]
    prints = draw_prints(scenario, DAYS[0], listed)
    counts = np.array([len(prints[symbol].time_ms) for symbol in listed])

    assert 0.15 <= counts[:10].sum() / counts.sum() <= 0.22
    assert counts[0] > counts[50:60].mean() > counts[400:].mean()


def test_what_it_is_held_against_is_written_down_once() -> None:
    """The documentation's table is that of the code."""
    from tools.simulator_plots import DOCUMENT, real_rows

    text = DOCUMENT.read_text()
    assert [row for row in real_rows() if row not in text] == []
    assert json.dumps(WINDOWS_MS) == "[100, 1000, 10000, 60000]"
