"""Addresses of Finnhub feeds: `finnhub://AAPL,BINANCE:BTCUSDT?poll=off`, `finnhub://sp500`."""

from typing import Final
from urllib.parse import unquote

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.model.symbols import is_symbol
from tickhouse.source.parameters import Parameters, split_query
from tickhouse.source.simulator.scenario import read_universe

UNIVERSE: Final = "sp500"
UNIVERSE_SYMBOLS: Final = 50


class Watch(msgspec.Struct, frozen=True):
    """What an address asks for.

    Attributes:
        url: the address in one spelling.
        symbols: what to watch, as Finnhub writes it, in the order given.
        polls: whether quotes are polled beside the socket.
    """

    url: str
    symbols: tuple[str, ...]
    polls: bool = True


def read_address(scheme: str, rest: str) -> Watch:
    """What `<scheme>://<rest>` asks for.

    Raises:
        ConfigError: no symbol, a malformed one, one twice, or a parameter that is not one.
    """
    place, _, query = rest.partition("?")
    known = ("symbols",) if scheme.endswith("+rest") else ("symbols", "poll")
    parameters = Parameters(scheme, split_query(scheme, query), known)
    place = unquote(place).rstrip("/")
    polls = parameters.choice("poll", ("on", "off")) != "off"
    if place.lower() == UNIVERSE:
        count = parameters.whole("symbols", UNIVERSE_SYMBOLS, low=1, high=len(read_universe()))
        symbols = tuple(listing.symbol for listing in read_universe()[:count])
        given = [f"symbols={count}"]
        place = UNIVERSE
    else:
        if "symbols" in parameters:
            raise parameters.bad("symbols", f"it with {scheme}://{UNIVERSE} only")
        symbols = read_symbols(scheme, place)
        given, place = [], ",".join(symbols)
    query = "&".join([*given, *([] if polls else ["poll=off"])])
    return Watch(f"{scheme}://{place}{'?' if query else ''}{query}", symbols, polls)


def read_symbols(scheme: str, text: str) -> tuple[str, ...]:
    """The symbols of a comma-separated list, in upper case.

    Raises:
        ConfigError: none, a malformed one, or one twice.

    >>> read_symbols("finnhub", "aapl, BINANCE:BTCUSDT")
    ('AAPL', 'BINANCE:BTCUSDT')
    """
    symbols = [part.strip().upper() for part in text.split(",")]
    if symbols == [""]:
        raise ConfigError(f"{scheme}: no symbol given; such as {scheme}://AAPL,MSFT or sp500")
    for place, symbol in enumerate(symbols):
        if not is_symbol(symbol):
            raise ConfigError(
                f"{scheme}: {symbol[:40]!r} is not a symbol; give 1 to 32 of A-Z 0-9 . : - _ / ^ ="
                f" such as {scheme}://AAPL,BINANCE:BTCUSDT"
            )
        if symbol in symbols[:place]:
            raise ConfigError(f"{scheme}: {symbol} is given twice")
    return tuple(symbols)


def by_liquidity(symbols: tuple[str, ...]) -> list[str]:
    """The symbols, most liquid first by place in the universe; unknown ones last, as given."""
    ranks = {listing.symbol: rank for rank, listing in enumerate(read_universe())}
    return sorted(symbols, key=lambda symbol: ranks.get(symbol, len(ranks)))
