"""A feed's address: the scheme picks the feed, the rest sets it up."""

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from tickhouse.errors import ConfigError
from tickhouse.source.feed import Feed
from tickhouse.source.replay import Replay
from tickhouse.source.simulator import open_simulator

KNOWN: Final = "sim://sp500?rate=1000, replay:<file>?speed=10"


def open_feed(url: str, *, truth_path: Path | None = None) -> Feed:
    """The feed behind a URL.

    Args:
        url: `sim://…` or `replay:…`.
        truth_path: where the simulator keeps its truth ledger.

    Raises:
        ConfigError: unknown scheme, or a parameter that is not one.
    """
    scheme, separator, rest = url.partition(":")
    place, parameters = split_parameters(rest.removeprefix("//"))
    if separator and scheme == "sim":
        return open_simulator(place, parameters, truth_path=truth_path)
    if separator and scheme == "replay":
        return _open_replay(place, parameters)
    raise ConfigError(f"source: {url!r} is not a feed of this version. Known: {KNOWN}")


def split_parameters(text: str) -> tuple[str, dict[str, str]]:
    """Place and parameters of `place?name=value&…`.

    >>> split_parameters("a folder/x.gz?speed=2")
    ('a folder/x.gz', {'speed': '2'})
    """
    place, _, query = text.rpartition("?")
    if not place or "=" not in query:
        return text, {}
    return place, dict(parse_qsl(query, keep_blank_values=True))


def _open_replay(place: str, parameters: dict[str, str]) -> Replay:
    speed = parameters.pop("speed", "1")
    if parameters:
        raise ConfigError(f"replay: unknown parameter {sorted(parameters)}; known: speed")
    if speed == "max":
        return Replay(place)
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise ConfigError(f"replay: speed={speed!r}; give a number above 0, or max")
    return Replay(place, speed=factor)
