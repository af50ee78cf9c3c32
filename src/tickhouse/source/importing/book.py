"""Which objects are in the log: an index of its `imported` events, made anew for each run.

It lies in a temporary file of SQLite's own, which goes away with the process: the position is the
log, and memory is bounded for however many objects.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from tickhouse.model.session import ImportedObject

_TABLES: Final = """
create table imported (key text primary key, size integer, modified integer) without rowid;
create table seen (key text primary key, size integer, reason text) without rowid;
"""
_PRAGMAS: Final = ("journal_mode = off", "synchronous = off", "cache_size = -32000")


class ImportBook:
    """What the log holds of a place, and what was seen there."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for pragma in _PRAGMAS:
            self._file.execute(f"pragma {pragma}")
        self._file.executescript(_TABLES)

    def forget_imported(self) -> None:
        """Begin anew with what the log holds."""
        self._file.execute("delete from imported")

    def note(self, objects: Sequence[ImportedObject]) -> list[str]:
        """Note objects that the log holds; keys of those that were noted before."""
        doubled = [found.key for found in objects if self.imported(found.key) is not None]
        self._file.execute("begin")
        self._file.executemany(
            "insert or ignore into imported values (?, ?, ?)",
            [(found.key, found.size, found.modified) for found in objects],
        )
        self._file.execute("commit")
        return doubled

    def imported(self, key: str) -> tuple[int, int] | None:
        """Size and time of an object that the log holds."""
        return self._file.execute(
            "select size, modified from imported where key = ?", (key,)
        ).fetchone()

    def see(self, key: str, size: int) -> bool:
        """Note that an object was listed; False where it was before."""
        added = self._file.execute(
            "insert or ignore into seen values (?, ?, null)", (key, size)
        ).rowcount
        return added == 1

    def refuse(self, key: str, reason: str) -> None:
        """Note why a listed object is not taken."""
        self._file.execute("update seen set reason = ? where key = ?", (reason, key))

    def missing(self) -> Iterator[str]:
        """Listed objects that the log does not hold though nothing was said against them."""
        rows = self._file.execute(
            "select key from seen where reason is null and not exists"
            " (select 1 from imported as i where i.key = seen.key and i.size = seen.size)"
            " order by key"
        )
        return (key for (key,) in rows)

    def close(self) -> None:
        """Remove it."""
        self._file.close()
