"""A value that no log, error or `repr` may show."""

from typing import Final

from typing_extensions import override

MASK: Final = "***"


class Secret:
    """Holds a secret; only `reveal` gives it away.

    >>> Secret("abc123"), f"{Secret('abc123')}"
    (Secret(***), '***')
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the wire alone."""
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the secret, for messages that others wrote."""
        return text.replace(self._value, MASK) if self._value else text

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._value)

    @override
    def __repr__(self) -> str:
        return f"Secret({MASK})"

    @override
    def __str__(self) -> str:
        return MASK

    def __reduce__(self) -> tuple[object, ...]:
        """Refuse to be copied to another process."""
        raise TypeError("a secret is not serialised")
