"""The interface of the warehouse: bronze tables and the load ledger, in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from tickhouse.bronze.object import Manifest
from tickhouse.errors import CorruptObjectError
from tickhouse.model.positions import ChainId
from tickhouse.warehouse.dialect import Dialect

Row = tuple[Any, ...]


class BronzeObject(msgspec.Struct, frozen=True):
    """A verified object of the lake, ready to be loaded.

    Attributes:
        key: its key in the lake.
        chain: the chain it belongs to.
        manifest: its manifest, already checked against the bytes.
        body: the whole object as stored (gzip with the manifest in its header).
    """

    key: str
    chain: ChainId
    manifest: Manifest
    body: bytes


def extending(
    objects: Sequence[BronzeObject], positions: Mapping[ChainId, int]
) -> list[BronzeObject]:
    """Those of `objects` that extend the ledger, each chain's in order.

    Left out are objects that the ledger covers, and whatever comes after a break: an object that
    does not start exactly where its chain ends (it straddles the end, or lies beyond a hole).
    """
    ends = dict(positions)
    taken: list[BronzeObject] = []
    for item in sorted(objects, key=lambda item: (item.chain, item.manifest.start)):
        if item.manifest.start == ends.get(item.chain, 0):
            ends[item.chain] = item.manifest.next
            taken.append(item)
    return taken


class LedgerRow(msgspec.Struct, frozen=True):
    """An object in `bronze.load_ledger`, as far as it is known before its load."""

    file: str
    stream: str
    topic: str
    topic_id: str
    part: int
    start_offset: int
    next_offset: int
    n: int
    is_gap: bool
    sha256: str


def ledger_row(item: BronzeObject) -> LedgerRow:
    """The ledger's row of an object."""
    chain, manifest = item.chain, item.manifest
    return LedgerRow(
        file=item.key,
        stream=chain.stream.value,
        topic=chain.topic,
        topic_id=chain.topic_id,
        part=chain.part,
        start_offset=manifest.start,
        next_offset=manifest.next,
        n=manifest.n,
        is_gap=manifest.gap,
        sha256=manifest.sha256,
    )


def check_counts(objects: Sequence[BronzeObject], found: Mapping[str, tuple[int, int]]) -> None:
    """Each object must have given as many rows and offsets as its manifest says.

    Args:
        objects: what was loaded.
        found: rows and distinct offsets by key.

    Raises:
        CorruptObjectError: it has not; names the object.
    """
    for item in objects:
        n = item.manifest.n
        rows, offsets = found.get(item.key, (0, 0))
        if (rows, offsets) != (n, n):
            raise CorruptObjectError(
                item.key, f"gave {rows} rows of {offsets} offsets; its manifest says {n}"
            )


def loaded(load_id: int, objects: Sequence[BronzeObject]) -> "LoadResult":
    """The result of a load that committed."""
    return LoadResult(
        load_id,
        objects=len(objects),
        rows=sum(item.manifest.n for item in objects),
        bytes=sum(len(item.body) for item in objects),
    )


class LoadResult(msgspec.Struct, frozen=True):
    """What one load committed: `load_id` is None where there was nothing to load."""

    load_id: int | None
    objects: int
    rows: int
    bytes: int


NOTHING: Final = LoadResult(load_id=None, objects=0, rows=0, bytes=0)
"""The result of a load where nothing was pending."""


class Quarantined(msgspec.Struct, frozen=True):
    """An object that does not verify, set aside by name; its chain waits at it."""

    key: str
    reason: str
    found_at_ms: int


class WarehouseReader(Protocol):
    """What audit, status and the dashboard need: questions, no changes."""

    @property
    def dialect(self) -> Dialect:
        """Which SQL it speaks, where `tickhouse.warehouse.dialect` has twins."""
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Rows of a read-only query; `?` binds the parameters.

        Raises:
            ConfigError: the query is refused or wrong.
        """
        ...


class Warehouse(WarehouseReader, Protocol):
    """What the loader may do. Two loaders at once do no harm: the second finds nothing pending."""

    def prepare(self) -> None:
        """Create schemas and tables that are not there yet."""
        ...

    def positions(self) -> dict[ChainId, int]:
        """The `next` offset of each chain: where its loaded objects end, by the ledger."""
        ...

    def load(self, objects: Sequence[BronzeObject]) -> LoadResult:
        """Load objects that extend the ledger, rows and ledger rows in one transaction.

        Under the loader lock, objects that the ledger already covers are left out; one that does
        not start where its chain ends stops its chain. `load_id` is dense and rises with commits.
        Rows per object must equal its manifest's `n`, else the whole load is rolled back.

        Raises:
            CorruptObjectError: an object's rows do not equal its manifest; nothing was loaded.
            TransientError: the lock was not free in time, or the outcome is unknown: look at
                `positions` and decide again.
            RefusedError: disk full; nothing was loaded.
        """
        ...

    def quarantine(self, key: str, reason: str) -> None:
        """Remember by name an object that does not verify (once)."""
        ...

    def release(self, key: str) -> None:
        """Forget a quarantined object that verifies after all (it was restored)."""
        ...

    def quarantined(self) -> list[Quarantined]:
        """Objects set aside and not yet released, oldest first."""
        ...

    def close(self) -> None:
        """Release the warehouse."""
        ...
