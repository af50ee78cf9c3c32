"""Parameters of a feed's address: `place?name=value&…`, checked where they are read."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from tickhouse.errors import ConfigError

MAX: Final = "max"
"""Value that means "as fast as it goes"."""


class Parameters:
    """Values by name; each reader names the parameter, what was found and what is valid.

    Args:
        feed: what the messages call the feed, such as "sim".
        values: values by name.
        known: every name the feed knows.

    Raises:
        ConfigError: a name the feed does not know.
    """

    def __init__(self, feed: str, values: Mapping[str, str], known: Sequence[str]) -> None:
        self.feed = feed
        self._values = values
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{feed}: unknown parameter {name}={values[name]!r}; known: {', '.join(known)}"
                )

    def __contains__(self, name: str) -> bool:
        """Whether the address gives this parameter."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """The value as written."""
        return self._values.get(name)

    def is_max(self, name: str) -> bool:
        """Whether the value is `max`."""
        return self._values.get(name) == MAX

    def whole(self, name: str, default: int, *, low: int, high: int, or_max: bool = False) -> int:
        """A whole number between `low` and `high`; `default` where none is given, or `max` is."""
        text = self._values.get(name)
        if text is None or (or_max and text == MAX):
            return default
        if text.isascii() and text.isdecimal() and low <= int(text[:20]) <= high:
            return int(text)
        raise self.bad(name, f"a whole number from {low} to {high}{', or max' if or_max else ''}")

    def factor(self, name: str, default: float) -> float:
        """A finite number above 0."""
        text = self._values.get(name)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if 0.0 < number < float("inf"):
            return number
        raise self.bad(name, "a number above 0, or max")

    def day(self, name: str) -> date | None:
        """A date, or None where none is given."""
        text = self._values.get(name)
        if text is None:
            return None
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise self.bad(name, "a date such as 2026-03-02") from None

    def choice(self, name: str, valid: Sequence[str]) -> str | None:
        """One of `valid`, or None where none is given."""
        text = self._values.get(name)
        if text is None or text in valid:
            return text
        raise self.bad(name, " or ".join(valid))

    def bad(self, name: str, valid: str) -> ConfigError:
        """The error for a value that is not valid."""
        return ConfigError(f"{self.feed}: {name}={self._values.get(name)!r}; give {valid}")


def split_query(feed: str, query: str) -> dict[str, str]:
    """Values by name of `name=value&…`.

    Raises:
        ConfigError: a part without `=`, or a name given twice.

    >>> split_query("sim", "seed=7&rate=max")
    {'seed': '7', 'rate': 'max'}
    """
    values: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"{feed}: {part!r} is not a parameter; give name=value")
        if name in values:
            raise ConfigError(f"{feed}: {name} is given twice: {values[name]!r} and {value!r}")
        values[name] = value
    return values
