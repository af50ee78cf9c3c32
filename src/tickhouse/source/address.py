"""A feed's address: the scheme picks the feed, the rest sets it up."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tickhouse.clock import SYSTEM_CLOCK, Clock
from tickhouse.errors import ConfigError
from tickhouse.source.feed import Feed
from tickhouse.source.options import BinanceOptions, FinnhubOptions
from tickhouse.source.replay import LakeReader, open_replay

KNOWN: Final = (
    "sim://sp500?rate=1000, replay:<file, folder or pattern>?speed=10, finnhub://AAPL,MSFT,"
    " finnhub+rest://AAPL,MSFT, binance://btcusdt,ethusdt"
)


class FeedOptions(msgspec.Struct, frozen=True):
    """What a feed is given besides its address.

    Attributes:
        truth_path: where the simulator keeps its truth ledger; None = nowhere.
        finnhub: key, plan and addresses.
        binance: addresses.
        read_lake: gives the recorded trade frames of a lake; None = no lake can be replayed.
        clock: of receipts, waits and time-outs.
    """

    truth_path: Path | None = None
    finnhub: FinnhubOptions = FinnhubOptions()
    binance: BinanceOptions = BinanceOptions()
    read_lake: LakeReader | None = None
    clock: Clock = SYSTEM_CLOCK


def open_feed(url: str, options: FeedOptions | None = None) -> Feed:
    """The feed behind a URL.

    Args:
        url: `<scheme>:<rest>`; slashes after the colon do not matter.
        options: see there.

    Raises:
        ConfigError: unknown scheme, or a parameter that is not one.
    """
    scheme, separator, rest = url.partition(":")
    opener = _OPENERS.get(scheme) if separator else None
    if opener is None:
        raise ConfigError(f"source: {url!r} is not a feed of this version. Known: {KNOWN}")
    return opener(rest.removeprefix("//"), options or FeedOptions())


def _open_simulator(rest: str, options: FeedOptions) -> Feed:
    from tickhouse.source.simulator import Simulator, read_address
    from tickhouse.source.truth import TruthKeeper

    scenario, delivery = read_address(rest)
    feed = Simulator(scenario, delivery, clock=options.clock)
    if options.truth_path is not None:
        feed.witness = TruthKeeper(options.truth_path, feed.markets, feed=feed.url)
    return feed


def _open_replay(rest: str, options: FeedOptions) -> Feed:
    return open_replay(rest, options.read_lake)


def _open_finnhub(rest: str, options: FeedOptions) -> Feed:
    from tickhouse.source.finnhub.feed import open_finnhub

    return open_finnhub(rest, options.finnhub, clock=options.clock)


def _open_finnhub_rest(rest: str, options: FeedOptions) -> Feed:
    from tickhouse.source.finnhub.feed import open_finnhub_rest

    return open_finnhub_rest(rest, options.finnhub, clock=options.clock)


def _open_binance(rest: str, options: FeedOptions) -> Feed:
    from tickhouse.source.binance import open_binance

    return open_binance(rest, options.binance, clock=options.clock)


_OPENERS: Final[dict[str, Callable[[str, FeedOptions], Feed]]] = {
    "sim": _open_simulator,
    "replay": _open_replay,
    "finnhub": _open_finnhub,
    "finnhub+rest": _open_finnhub_rest,
    "binance": _open_binance,
}
