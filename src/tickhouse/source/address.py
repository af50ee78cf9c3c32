"""A feed's address: the scheme picks the feed, the rest sets it up."""

from pathlib import Path
from typing import Final

from tickhouse.errors import ConfigError
from tickhouse.source.feed import Feed
from tickhouse.source.replay import open_replay
from tickhouse.source.simulator import Simulator, read_address
from tickhouse.source.truth import TruthKeeper

KNOWN: Final = "sim://sp500?rate=1000, replay:<file, folder or pattern>?speed=10"


def open_feed(url: str, *, truth_path: Path | None = None) -> Feed:
    """The feed behind a URL.

    Args:
        url: `sim://…` or `replay:…`.
        truth_path: where the simulator keeps its truth ledger; None = nowhere.

    Raises:
        ConfigError: unknown scheme, or a parameter that is not one.
    """
    scheme, separator, rest = url.partition(":")
    if separator and scheme == "sim":
        return _open_simulator(rest.removeprefix("//"), truth_path)
    if separator and scheme == "replay":
        return open_replay(rest.removeprefix("//"))
    raise ConfigError(f"source: {url!r} is not a feed of this version. Known: {KNOWN}")


def _open_simulator(rest: str, truth_path: Path | None) -> Simulator:
    scenario, delivery = read_address(rest)
    feed = Simulator(scenario, delivery)
    if truth_path is not None:
        feed.witness = TruthKeeper(truth_path, feed.markets, feed=feed.url)
    return feed
