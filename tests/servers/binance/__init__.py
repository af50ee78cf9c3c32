"""A Binance of recorded real trades: the combined stream, old trades by id, and its faults.

`python -m tests.servers.binance --help`, or in process:

    async with BinanceServer() as server:
        ...  # server.ws_url, server.rest_url
        await server.emit(100)
"""

from .exchange import CAPTURE, HEAD, Exchange, RecordedTrade, read_capture
from .server import BinanceServer

__all__ = ["CAPTURE", "HEAD", "BinanceServer", "Exchange", "RecordedTrade", "read_capture"]
