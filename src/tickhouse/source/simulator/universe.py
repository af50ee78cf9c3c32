"""The universe that is simulated: who is listed, in which sector, and where prices start."""

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import msgspec
import numpy as np

from tickhouse.source.simulator.draws import Floats, Ints
from tickhouse.source.simulator.profiles import PROFILES, profile_number


class Listing(msgspec.Struct, frozen=True):
    """A symbol of the universe; `price` (USD) is where it starts."""

    symbol: str
    sector: str
    price: float


@lru_cache(maxsize=1)
def read_universe() -> tuple[Listing, ...]:
    """The S&P 500, largest first."""
    text = resources.files("tickhouse.source.simulator").joinpath("sp500.csv").read_text()
    return tuple(
        Listing(row["symbol"], row["sector"], float(row["price"]))
        for row in csv.DictReader(text.splitlines())
    )


class Roster:
    """Some listings with what their simulation needs, as arrays over columns.

    Args:
        ranks: places in the universe, 0 = the largest.

    Attributes:
        ranks: of each column.
        symbols: of each column.
        price: where each starts, USD.
        sector: number of each one's sector.
        sectors: how many there are.
        profile: number of each one's profile in `PROFILES`.
        profiles: each one's profile.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        universe = read_universe()
        listings = [universe[rank] for rank in ranks]
        sectors = sorted({listing.sector for listing in universe})
        self.ranks = list(ranks)
        self.symbols = [listing.symbol for listing in listings]
        self.price: Floats = np.array([listing.price for listing in listings])
        self.sector: Ints = np.array([sectors.index(item.sector) for item in listings])
        self.sectors = len(sectors)
        numbers = [profile_number(rank) for rank in ranks]
        self.profile: Ints = np.array(numbers)
        self.profiles = [PROFILES[number] for number in numbers]

    def __len__(self) -> int:
        """How many listings."""
        return len(self.symbols)

    def of_profiles(self, field: str) -> Floats:
        """A number of each column's profile."""
        return np.array([float(getattr(profile, field)) for profile in self.profiles])
