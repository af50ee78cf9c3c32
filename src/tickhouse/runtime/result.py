"""What a verb gives back to the command line."""

from typing import Any, Final

import msgspec

EXIT_OK: Final = 0
EXIT_PROBLEM: Final = 1
EXIT_UNABLE: Final = 2


class VerbResult(msgspec.Struct, frozen=True):
    """Outcome of a verb.

    Attributes:
        code: 0 all well, 1 a problem was found, 2 could not run.
        content: what `--json` prints.
        text: what is printed for people.
    """

    code: int
    content: dict[str, Any]
    text: str = ""
