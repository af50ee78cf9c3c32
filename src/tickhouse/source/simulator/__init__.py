"""The market simulator: exact Finnhub trade frames, seeded, with a truth ledger."""

from tickhouse.source.simulator.feed import Simulator, open_simulator

__all__ = ["Simulator", "open_simulator"]
