"""Walking a chain and the ledger's rows of it side by side, objects found or not."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from tickhouse.bronze.chain import Chain
from tickhouse.bronze.object import Manifest, verify
from tickhouse.bronze.store import Store
from tickhouse.errors import CorruptObjectError, ObjectMissingError
from tickhouse.model.positions import ChainId
from tickhouse.warehouse.warehouse import WarehouseReader

LEDGER_PAGE: Final = 20_000
_OBJECT: Final = re.compile(r"^(\d{20})\.jsonl\.gz$")
_LOG_TIME: Final = re.compile(rb'"lt":(\d+),')


class Visited(msgspec.Struct, frozen=True):
    """An object found in the lake.

    Attributes:
        key: its key.
        start: first offset, by its key.
        manifest: what it holds; None where it is not what was written.
        body: the whole object.
        fault: why it is corrupt.
    """

    key: str
    start: int
    manifest: Manifest | None
    body: bytes = b""
    fault: str = ""


def walk_chain(store: Store, chain: ChainId, last_key: str | None) -> Iterator[Visited]:
    """Objects of a chain in order up to `last_key`, each verified against its own hash.

    They are listed, not followed, so that what lies behind a hole is found as well.
    """
    if last_key is None:
        return
    for info in store.list_objects(chain.prefix):
        match = _OBJECT.fullmatch(info.key.rpartition("/")[2])
        if match is None or info.key > last_key:
            continue
        start = int(match[1])
        try:
            body = store.get(info.key)
            yield Visited(info.key, start, verify(body, info.key, chain), body)
        except ObjectMissingError:
            continue
        except CorruptObjectError as error:
            yield Visited(info.key, start, None, fault=error.reason)


def genesis_fault(store: Store, chain: ChainId) -> str | None:
    """What is wrong with the object that opens a chain; None if nothing."""
    try:
        Chain(store, chain).check_genesis()
    except CorruptObjectError as error:
        return error.reason
    return None


def log_time_ms(text: bytes) -> int | None:
    """When the log took the first record of an object's lines."""
    match = _LOG_TIME.search(text[:400])
    return None if match is None else int(match[1])


class LedgerRow(msgspec.Struct, frozen=True):
    """One row of the load ledger."""

    file: str
    start: int
    next: int
    n: int
    is_gap: bool
    sha256: str
    load_id: int

    def difference(self, manifest: Manifest) -> str | None:
        """How it differs from the object's manifest; None where it agrees."""
        of_ledger = (self.next, self.n, self.is_gap, self.sha256)
        of_object = (manifest.next, manifest.n, manifest.gap, manifest.sha256)
        if of_ledger == of_object:
            return None
        return f"the ledger says (next, n, gap, sha256) = {of_ledger}, the object {of_object}"


class LedgerCursor:
    """The ledger's rows of one chain in order of start, page by page.

    Args:
        warehouse: has a ledger.
        chain: which chain.
        loaded: rows of later loads are not seen.
    """

    def __init__(self, warehouse: WarehouseReader, chain: ChainId, loaded: int) -> None:
        self._rows = self._read(warehouse, chain, loaded)
        self._next = next(self._rows, None)

    @staticmethod
    def _read(warehouse: WarehouseReader, chain: ChainId, loaded: int) -> Iterator[LedgerRow]:
        after = -1
        while loaded:
            page = warehouse.query(
                "select file, start_offset, next_offset, n, is_gap, sha256, load_id"  # noqa: S608 - a constant
                " from bronze.load_ledger where stream = ? and topic = ? and topic_id = ?"
                " and part = ? and start_offset > ? and load_id <= ?"
                f" order by start_offset, load_id limit {LEDGER_PAGE}",
                (
                    str(chain.stream),
                    chain.topic,
                    chain.topic_id,
                    chain.part,
                    after,
                    loaded,
                ),
            )
            yield from (LedgerRow(*row) for row in page)
            if len(page) < LEDGER_PAGE:
                return
            after = page[-1][1]

    def before(self, start: int | None) -> list[LedgerRow]:
        """Rows not taken yet that start below `start` (None: all)."""
        rows: list[LedgerRow] = []
        while self._next is not None and (start is None or self._next.start < start):
            rows.append(self._next)
            self._next = next(self._rows, None)
        return rows

    def take(self, start: int) -> list[LedgerRow]:
        """Rows that start exactly at `start`: one if all is well."""
        rows: list[LedgerRow] = []
        while self._next is not None and self._next.start == start:
            rows.append(self._next)
            self._next = next(self._rows, None)
        return rows
