"""The market simulator: exact Finnhub trade frames, each a function of seed, shard and number."""

from tickhouse.source.simulator.faults import ALL_FAULTS, Faults
from tickhouse.source.simulator.feed import Delivery, Simulator, read_address
from tickhouse.source.simulator.scenario import Scenario
from tickhouse.source.simulator.tape import DayTape, QuoteBoard, select

__all__ = [
    "ALL_FAULTS",
    "DayTape",
    "Delivery",
    "Faults",
    "QuoteBoard",
    "Scenario",
    "Simulator",
    "read_address",
    "select",
]
