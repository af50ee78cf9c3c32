"""What live feeds are set up with besides their address: keys, plans, base addresses."""

import msgspec

from tickhouse.source.secret import Secret


class FinnhubOptions(msgspec.Struct, frozen=True):
    """Finnhub's key and plan.

    Attributes:
        token: the API key; empty = none given.
        ws_url, rest_url: base addresses, without a key.
        can_fetch_ticks: whether the plan has `/stock/tick`, from which gaps are filled.
        symbols_max: symbols allowed on the socket.
        calls_per_minute: REST calls the plan allows.
        silence_s: a connection silent for so long while something trades is dead.
    """

    token: Secret = Secret()
    ws_url: str = "wss://ws.finnhub.io"
    rest_url: str = "https://finnhub.io/api/v1"
    can_fetch_ticks: bool = False
    symbols_max: int = 50
    calls_per_minute: int = 60
    silence_s: float = 150.0


class BinanceOptions(msgspec.Struct, frozen=True):
    """Base addresses of the public market data."""

    ws_url: str = "wss://stream.binance.com:9443"
    rest_url: str = "https://api.binance.com"
