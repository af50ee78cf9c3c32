"""Statistics of a tape, as measured on real trades: what the simulator is held against."""

from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tickhouse.source.simulator.marks import CONDITIONS
from tickhouse.source.simulator.profiles import shares
from tickhouse.source.simulator.scenario import Scenario
from tickhouse.source.simulator.tape import DayTape
from tickhouse.source.simulator.universe import read_universe

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Measured(msgspec.Struct, frozen=True):
    """What is known of one stock's tape.

    Attributes:
        fano: variance of counts over their mean, in windows of `WINDOWS_MS`.
        same_ms: share of gaps of 0 ms.
        gap_cv: standard deviation of gaps over their mean.
        burst: prints of a burst (gaps of at most 5 ms) on average.
        sd_bp: standard deviation of 1-minute returns, basis points.
        kurtosis: of 1-minute returns.
        acf1: their autocorrelation.
        abs_acf: autocorrelation of their size after 1 and 10 minutes.
        bounce: autocorrelation of changes from print to print.
        zero_ticks: share of prints that change nothing.
    """

    fano: tuple[float, ...]
    same_ms: float
    gap_cv: float
    burst: float
    sd_bp: float
    kurtosis: float
    acf1: float
    abs_acf: tuple[float, float]
    bounce: float
    zero_ticks: float


DAYS: Final = (
    date(2026, 3, 2),
    date(2026, 3, 3),
    date(2026, 3, 4),
    date(2026, 3, 5),
    date(2026, 3, 6),
)
WINDOWS_MS: Final = (100, 1_000, 10_000, 60_000)
DETREND_MS: Final = 600_000
BURST_GAP_MS: Final = 5
HOUR_MS: Final = 3_600_000
NAMES: Final = {"SPY": 0, "BAC": 5, "IBM": 26, "AIG": 27}
"""The rank of the universe that stands for each of the four measured stocks."""
RATES: Final = {"SPY": 18.8, "BAC": 5.3, "IBM": 1.4, "AIG": 1.9}
"""Trades a second of each."""
REAL: Final = {
    "SPY": Measured((29, 44, 82, 140), 0.54, 4.0, 4.4, 3.2, 4.7, -0.03, (0.12, 0.12), -0.44, 0.85),
    "BAC": Measured((40, 69, 98, 115), 0.39, 3.5, 3.0, 6.8, 4.5, -0.20, (0.11, 0.06), -0.40, 0.88),
    "IBM": Measured((6, 10, 15, 23), 0.22, 2.6, 2.0, 4.5, 6.9, -0.06, (0.28, 0.16), -0.34, 0.59),
    "AIG": Measured((10, 15, 20, 27), 0.35, 3.2, 2.5, 6.1, 5.1, 0.0, (0.17, 0.19), -0.32, 0.83),
}
"""Measured on the US tape, regular hours of 2013-10-08 and the four days around it."""


class Prints(msgspec.Struct, frozen=True):
    """Prints of one symbol on one day, in order of time.

    Attributes:
        time_ms: from the opening bell.
        price: in 1e-4 dollars.
        size: shares.
        condition: codes as text, per print, by number in `CONDITIONS`.
        length_ms: from bell to bell.
    """

    time_ms: Ints
    price: Ints
    size: Ints
    condition: Ints
    length_ms: int

    def regular(self) -> "Prints":
        """Only those of regular hours that are not an auction's."""
        named = [codes.split(b'"') for codes in CONDITIONS]
        other = [n for n, codes in enumerate(named) if {b"19", b"20", b"36", b"16"} & set(codes)]
        keep = (self.time_ms >= 0) & (self.time_ms < self.length_ms)
        keep &= ~np.isin(self.condition, other)
        return Prints(
            self.time_ms[keep], self.price[keep], self.size[keep], self.condition[keep],
            self.length_ms,
        )  # fmt: skip


def draw_prints(scenario: Scenario, day: date, symbols: Sequence[str]) -> dict[str, Prints]:
    """What the simulator's day holds for some symbols."""
    tape = DayTape(scenario, day, symbols)
    blocks = list(tape.blocks())
    column, time_ms, price, size, condition = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("symbol", "event_ms", "price", "size", "condition")
    )
    opened_ms = tape.session.open_ns // 1_000_000
    found: dict[str, Prints] = {}
    for number, symbol in enumerate(symbols):
        mine = np.flatnonzero(column == number)
        mine = mine[np.argsort(time_ms[mine], kind="stable")]
        length_ms = tape.session.close_ns // 1_000_000 - opened_ms
        found[symbol] = Prints(
            time_ms[mine] - opened_ms, price[mine], size[mine], condition[mine], length_ms
        )
    return found


def scenario_for(name: str, *, seed: int = 7) -> tuple[Scenario, str]:
    """A scenario in which the stand-in of a measured stock trades at its rate, and its symbol."""
    rank = NAMES[name]
    rate = round(RATES[name] / float(shares(rank + 1)[rank]))
    scenario = Scenario(market="exchange", symbols=rank + 1, rate=rate, seed=seed)
    return scenario, read_universe()[rank].symbol


# -- arrivals -------------------------------------------------------------------------------------


def fano(time_ms: Ints, window_ms: int) -> float:
    """Variance of counts in windows over their mean, 10:30 to 15:30, around 10-minute means."""
    start, end = HOUR_MS, 6 * HOUR_MS
    inside = time_ms[(time_ms >= start) & (time_ms < end)] - start
    counts = np.bincount(inside // window_ms, minlength=(end - start) // window_ms)
    table = counts.reshape(-1, DETREND_MS // window_ms)
    return float(table.var(axis=1, ddof=1).mean() / table.mean())


def same_ms_share(time_ms: Ints) -> float:
    """Share of gaps between prints that are 0 ms."""
    return float(np.mean(np.diff(time_ms) == 0))


def gap_variation(time_ms: Ints) -> float:
    """Standard deviation of the gaps over their mean."""
    gaps = np.diff(time_ms)
    return float(gaps.std() / gaps.mean())


def burst_mean(time_ms: Ints) -> float:
    """Mean size of runs of prints with gaps of at most 5 ms."""
    return len(time_ms) / (1 + int(np.sum(np.diff(time_ms) > BURST_GAP_MS)))


def by_half_hour(time_ms: Ints, length_ms: int) -> Floats:
    """Share of the regular prints in each half hour."""
    counts = np.bincount(time_ms // (HOUR_MS // 2), minlength=length_ms * 2 // HOUR_MS)
    return counts / counts.sum()


# -- prices ---------------------------------------------------------------------------------------


def minute_returns(prints: Prints) -> Floats:
    """Log returns of the last price of each minute of regular hours."""
    edges = np.arange(60_000, prints.length_ms + 1, 60_000)
    place = np.searchsorted(prints.time_ms, edges) - 1
    return np.diff(np.log(prints.price[np.maximum(place, 0)]))


def kurtosis(values: Floats) -> float:
    """Fourth moment over the squared second; 3 for a normal."""
    centred = values - values.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


def correlation(values: Sequence[Floats], lag: int) -> float:
    """Autocorrelation, pooled over days."""
    centred = [day - day.mean() for day in values]
    product = sum(float((day[lag:] * day[:-lag]).sum()) for day in centred)
    total = sum(float((day * day).sum()) for day in centred)
    return product / total


def tick_changes(prints: Prints) -> Floats:
    """Changes from print to print, of those on a cent."""
    return np.diff(prints.price[prints.price % 100 == 0].astype(np.float64))


def measure(days: Sequence[Prints]) -> Measured:
    """The same of simulated days, regular hours only."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    returns = [minute_returns(day) for day in days]
    pooled = np.concatenate(returns)
    sizes = [np.abs(day) for day in returns]
    changes = [tick_changes(day) for day in days]
    return Measured(
        fano=tuple(mean([fano(day.time_ms, window) for day in days]) for window in WINDOWS_MS),
        same_ms=mean([same_ms_share(day.time_ms) for day in days]),
        gap_cv=mean([gap_variation(day.time_ms) for day in days]),
        burst=mean([burst_mean(day.time_ms) for day in days]),
        sd_bp=float(pooled.std() * 1e4),
        kurtosis=kurtosis(pooled),
        acf1=correlation(returns, 1),
        abs_acf=(correlation(sizes, 1), correlation(sizes, 10)),
        bounce=correlation(changes, 1),
        zero_ticks=mean([float(np.mean(day == 0)) for day in changes]),
    )
