"""What is simulated: the universe, and the few numbers that every frame follows from."""

import csv
from fractions import Fraction
from functools import lru_cache
from importlib import resources
from typing import Final

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.source.parameters import Parameters

GENERATOR: Final = 1
"""Raised whenever the same scenario would give other frames than before."""
NOMINAL_RATE: Final = 1000
"""Trades per virtual second where the rate is not given, or is `max`."""
FRAME_TRADES_MAX: Final = 10
"""Trades in the largest frame that Finnhub is known to send."""
FRAME_SIZE_WEIGHTS: Final = (36, 20, 12, 9, 6, 5, 4, 3, 2, 3)
"""How often a frame holds 1, 2, … 10 trades, in percent."""
BATCH_MAX: Final = 1000
BLOCK_FRAMES_MAX: Final = 512
BLOCK_TRADES: Final = 8192
BLOCK_S: Final = 256
SCENARIO_PARAMETERS: Final = ("symbols", "rate", "shards", "seed", "batch")
PLACES: Final = ("", "sp500")


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


class Scenario(msgspec.Struct, frozen=True):
    """What is simulated; two equal scenarios give equal frames on any machine.

    Attributes:
        seed: of everything random.
        symbols: how many, the largest first.
        shards: connections; symbol n is on shard n modulo shards.
        rate: trades a virtual second over all shards.
        batch: trades a frame; 0 = 1 to 10 at random.
    """

    seed: int = 7
    symbols: int = 50
    shards: int = 1
    rate: int = NOMINAL_RATE
    batch: int = 0

    @property
    def frame_trades(self) -> Fraction:
        """Trades a frame on average."""
        if self.batch:
            return Fraction(self.batch)
        total = sum(size * weight for size, weight in enumerate(FRAME_SIZE_WEIGHTS, 1))
        return Fraction(total, sum(FRAME_SIZE_WEIGHTS))

    @property
    def frame_time(self) -> Fraction:
        """Virtual seconds from one frame of a shard to the next."""
        return self.frame_trades * self.shards / self.rate

    @property
    def block_frames(self) -> int:
        """Frames drawn at once: bounded in trades and in the virtual time they span."""
        by_trades = BLOCK_TRADES // max(self.batch, FRAME_TRADES_MAX)
        by_time = int(BLOCK_S / self.frame_time)
        return max(1, min(BLOCK_FRAMES_MAX, by_trades, by_time))

    @property
    def url(self) -> str:
        """The address, without what is the default: equal scenarios have equal addresses."""
        default = Scenario()
        given = [
            f"{name}={getattr(self, name)}"
            for name in SCENARIO_PARAMETERS
            if getattr(self, name) != getattr(default, name)
        ]
        return f"sim://sp500{'?' if given else ''}{'&'.join(given)}"


def read_scenario(place: str, parameters: Parameters) -> Scenario:
    """The scenario that an address describes.

    Raises:
        ConfigError: names the parameter, what was found and what is valid.
    """
    if place not in PLACES:
        raise ConfigError(f"sim://{place}: unknown universe; known: sp500")
    symbols = parameters.whole("symbols", 50, low=1, high=len(read_universe()))
    return Scenario(
        seed=parameters.whole("seed", 7, low=0, high=2**63 - 1),
        symbols=symbols,
        shards=parameters.whole("shards", 1, low=1, high=symbols),
        rate=parameters.whole("rate", NOMINAL_RATE, low=1, high=10_000_000, or_max=True),
        batch=parameters.whole("batch", 0, low=0, high=BATCH_MAX),
    )
