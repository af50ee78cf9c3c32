"""`binance://btcusdt,ethusdt`: the public trade streams, gaps found by trade id and filled."""

from tickhouse.source.binance.feed import BinanceFeed, open_binance

__all__ = ["BinanceFeed", "open_binance"]
