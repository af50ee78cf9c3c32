"""The market simulator: exact Finnhub trade frames, each a function of seed, shard and number."""

from tickhouse.source.simulator.feed import Delivery, Simulator, read_address
from tickhouse.source.simulator.scenario import Scenario

__all__ = ["Delivery", "Scenario", "Simulator", "read_address"]
