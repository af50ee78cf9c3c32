"""How liquid names and less liquid ones trade: parameters fitted to four real stocks.

Fitted to SPY, BAC, IBM and AIG of one regular session; see `docs/simulator.md`. A listing has the
profile of its rank in the universe.
"""

from math import fsum
from typing import Final

import msgspec
import numpy as np

from tickhouse.source.simulator.draws import Floats, Ints, table

BRANCHES_MAX: Final = 12


class Profile(msgspec.Struct, frozen=True):
    """One kind of stock.

    Attributes:
        name: the stock that it was fitted to.
        branching: children an event has on average.
        tail, burst_max: P(burst of k prints) is proportional to k^-(tail + 1) up to `burst_max`.
        same_instant: share of gaps within a burst that are 0.
        activity_sd, activity_s: log standard deviation and time constant of the activity.
        delays_s, delay_weights: exponentials that the delay of a child is drawn from.
        minute_bp: standard deviation of 1-minute returns, basis points.
        half_spread_bp: half of the spread; a tick is the least.
        flips: share of prints on the other side than most.
        lag_s: seconds in which the market's moves reach the stock.
    """

    name: str
    branching: float
    tail: float
    burst_max: int
    same_instant: float
    activity_sd: float
    activity_s: float
    minute_bp: float
    half_spread_bp: float
    flips: float
    lag_s: int
    delays_s: tuple[float, float, float] = (0.03, 1.0, 15.0)
    delay_weights: tuple[float, float, float] = (0.5, 0.3, 0.2)

    @property
    def burst_mean(self) -> float:
        """Prints of a burst on average."""
        weights = self._burst_weights()
        mean = fsum(size * weight for size, weight in enumerate(weights, 1)) / fsum(weights)
        return round(mean, 9)

    @property
    def cluster_mean(self) -> float:
        """Prints that follow from one spontaneous event, on average."""
        return self.burst_mean / (1 - self.branching)

    def _burst_weights(self) -> list[float]:
        return [size ** -(self.tail + 1) for size in range(1, self.burst_max + 1)]

    def burst_table(self) -> Ints:
        """Sizes of bursts, each as often as it comes."""
        return 1 + table(self._burst_weights())

    def children_table(self) -> Ints:
        """Numbers of children: Poisson."""
        weights = [1.0]
        for count in range(1, BRANCHES_MAX):
            weights.append(weights[-1] * self.branching / count)
        return table(weights)


LIQUID: Final = Profile("SPY", 0.74, 1.15, 250, 0.66, 0.34, 60, 3.2, 0.25, 0.09, 1,
                        (0.03, 1.2, 12.0), (0.35, 0.35, 0.30))  # fmt: skip
LARGE: Final = Profile("BAC", 0.72, 0.98, 320, 0.36, 0.35, 60, 6.8, 1.5, 0.08, 4)
STEADY: Final = Profile("IBM", 0.64, 1.60, 100, 0.33, 0.45, 45, 4.5, 1.2, 0.15, 8)
QUIET: Final = Profile("AIG", 0.64, 1.45, 120, 0.50, 0.40, 45, 6.1, 1.5, 0.11, 8)
PROFILES: Final = (LIQUID, LARGE, STEADY, QUIET)
LIQUID_RANKS: Final = 5
LARGE_RANKS: Final = 25

HALF_HOUR_TRADES: Final = (
    *(0.102, 0.080, 0.091, 0.067, 0.074, 0.054, 0.046),
    *(0.054, 0.052, 0.081, 0.071, 0.082, 0.147),
)
"""Share of the day's trades by half hour of regular trading."""
HALF_HOUR_MOVES: Final = (
    *(1.78, 1.27, 1.04, 1.03, 1.07, 0.83, 0.73, 0.84, 0.80, 0.96, 0.77, 0.85, 1.03),
)
"""Size of 1-minute returns by half hour of regular trading, in their mean."""
RANK_OFFSET: Final = 10
RANK_EXPONENT: Final = -1.05


def profile_number(rank: int) -> int:
    """Which of `PROFILES` the listing of a rank (0 = the largest) has."""
    if rank < LIQUID_RANKS:
        return 0
    return 1 if rank < LARGE_RANKS else 2 + rank % 2


def rank_weights(symbols: int) -> list[int]:
    """Trades of each rank, relative to one another."""
    return [round(1e9 * (rank + RANK_OFFSET) ** RANK_EXPONENT) for rank in range(symbols)]


def shares(symbols: int) -> Floats:
    """Each rank's share of all trades."""
    weights = rank_weights(symbols)
    return np.array(weights, dtype=np.float64) / sum(weights)


def stacked(tables: list[Ints]) -> Ints:
    """Tables of all profiles behind one another: profile n's begins at `n * TABLE`."""
    return np.concatenate(tables)
