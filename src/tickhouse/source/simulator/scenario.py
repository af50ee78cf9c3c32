"""What is simulated: the few numbers that every frame follows from."""

from datetime import date
from fractions import Fraction
from typing import Final

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.model.calendar import new_york
from tickhouse.source.parameters import Parameters
from tickhouse.source.simulator.faults import Faults, read_faults
from tickhouse.source.simulator.universe import read_universe

GENERATOR: Final = 2
"""Raised whenever the same scenario would give other frames than before."""
OPEN: Final = "open"
EXCHANGE: Final = "exchange"
RATES: Final = {OPEN: 1000, EXCHANGE: 100}
"""Trades a second where the rate is not given, by market."""
RATES_MAX: Final = {OPEN: 10_000_000, EXCHANGE: 100_000}
FIRST_DAY: Final = date(2026, 3, 2)
"""The first exchange day where none is given."""
FRAME_TRADES_MAX: Final = 10
"""Trades in the largest frame that Finnhub is known to send."""
FRAME_SIZE_WEIGHTS: Final = (36, 20, 12, 9, 6, 5, 4, 3, 2, 3)
"""How often a frame of the open market holds 1, 2, … 10 trades, in percent."""
BATCH_MAX: Final = 1000
BLOCK_FRAMES_MAX: Final = 512
BLOCK_TRADES: Final = 8192
BLOCK_S: Final = 256
PERIODS_S: Final = (1024, 256, 64, 16, 4, 1)
PERIOD_TRADES: Final = 32768
SCENARIO_PARAMETERS: Final = ("market", "symbols", "rate", "shards", "seed", "batch", "faults")
PLACES: Final = ("", "sp500")


class Scenario(msgspec.Struct, frozen=True):
    """What is simulated; two equal scenarios give equal frames on any machine.

    Attributes:
        seed: of everything random.
        symbols: how many, the largest first.
        shards: connections; symbol n is on shard n modulo shards.
        rate: trades a virtual second over all shards; of the exchange, in regular hours.
        batch: trades a frame; 0 = 1 to 10 at random. Of the exchange: the most a frame holds.
        market: "open" never closes and its trades come evenly; "exchange" has sessions, auctions
            and bursts.
        faults: how often what goes wrong.
    """

    seed: int = 7
    symbols: int = 50
    shards: int = 1
    rate: int = RATES[OPEN]
    batch: int = 0
    market: str = OPEN
    faults: Faults = Faults()

    @property
    def is_exchange(self) -> bool:
        """Whether trades come by the exchange's calendar."""
        return self.market == EXCHANGE

    @property
    def frame_trades(self) -> Fraction:
        """Trades a frame of the open market on average."""
        if self.batch:
            return Fraction(self.batch)
        total = sum(size * weight for size, weight in enumerate(FRAME_SIZE_WEIGHTS, 1))
        return Fraction(total, sum(FRAME_SIZE_WEIGHTS))

    @property
    def frame_time(self) -> Fraction:
        """Virtual seconds from one frame of a shard of the open market to the next."""
        return self.frame_trades * self.shards / self.rate

    @property
    def block_frames(self) -> int:
        """Frames of the open market drawn at once: bounded in trades and in virtual time."""
        by_trades = BLOCK_TRADES // max(self.batch, FRAME_TRADES_MAX)
        by_time = int(BLOCK_S / self.frame_time)
        return max(1, min(BLOCK_FRAMES_MAX, by_trades, by_time))

    @property
    def period_s(self) -> int:
        """Seconds of the exchange drawn at once."""
        return next((s for s in PERIODS_S if s * self.rate <= PERIOD_TRADES), PERIODS_S[-1])

    @property
    def url(self) -> str:
        """The address, without what is the default: equal scenarios have equal addresses."""
        default = Scenario(rate=RATES[self.market])
        given = [
            f"{name}={getattr(self, name)}"
            for name in SCENARIO_PARAMETERS
            if name != "faults" and getattr(self, name) != getattr(default, name)
        ]
        given += [f"faults={self.faults.text}"] if self.faults.text else []
        return f"sim://sp500{'?' if given else ''}{'&'.join(given)}"


def read_scenario(place: str, parameters: Parameters) -> Scenario:
    """The scenario that an address describes.

    `speed` and `days` speak of exchange days, so they imply that market.

    Raises:
        ConfigError: names the parameter, what was found and what is valid.
    """
    if place not in PLACES:
        raise ConfigError(f"sim://{place}: unknown universe; known: sp500")
    of_days = [name for name in ("speed", "days") if name in parameters]
    market = parameters.choice("market", (OPEN, EXCHANGE)) or (EXCHANGE if of_days else OPEN)
    if market == OPEN and of_days:
        raise parameters.bad(of_days[0], "market=exchange with it, or nothing")
    if market == EXCHANGE and parameters.is_max("rate"):
        raise parameters.bad("rate", "speed=max: an exchange day's rate is part of the market")
    symbols = parameters.whole("symbols", 50, low=1, high=len(read_universe()))
    return Scenario(
        seed=parameters.whole("seed", 7, low=0, high=2**63 - 1),
        symbols=symbols,
        shards=parameters.whole("shards", 1, low=1, high=symbols),
        rate=parameters.whole("rate", RATES[market], low=1, high=RATES_MAX[market], or_max=True),
        batch=parameters.whole("batch", 0, low=0, high=BATCH_MAX),
        market=market,
        faults=read_faults(parameters),
    )


def check_day(parameters: Parameters, day: date) -> date:
    """The day, if the exchange calendar knows a session on or after it.

    Raises:
        ConfigError: beyond the calendar.
    """
    sessions = new_york().sessions
    if sessions[0].day <= day and new_york().session_at_or_after(day) is not None:
        return day
    raise parameters.bad("date", f"a date from {sessions[0].day} to {sessions[-1].day}")
