"""A double of Finnhub, built from its Swagger and its real frames."""

from .market import RecordedFrames, SimulatedDay
from .server import FinnhubDouble

__all__ = ["FinnhubDouble", "RecordedFrames", "SimulatedDay"]
