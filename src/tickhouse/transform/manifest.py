"""The manifest of published gold: which Parquet files are the current version, and of what.

```
<gold>/manifest.json                                          flipped atomically
<gold>/index/<table>/<group>.v<version>-<run>.json            files of a table, by day or month
<gold>/<table>/<partition>.v<version>-<run>.parquet           rows
```

The manifest names the index files, an index its Parquet files: a publish rewrites the indexes that
it touches, so that its cost does not grow with what was published before. No name is used twice.
"""

from pathlib import Path
from typing import Final

import msgspec

from tickhouse.model.positions import ChainId, Stream

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
INDEX: Final = "index"


class GoldFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Parquet file.

    Attributes:
        name: path below the folder of published gold.
        rows: number of rows.
        from_ms, to_ms: half-open range of the table's time column, UNIX milliseconds; None where
            the table is not cut by time.
        load_from, load_to: loads held, `load_from < load_id <= load_to`; append-only tables.
        tier: how often its rows were folded; append-only tables.
    """

    name: str
    rows: int
    from_ms: int | None = None
    to_ms: int | None = None
    load_from: int = 0
    load_to: int = 0
    tier: int = 0

    def overlaps(self, from_ms: int | None, to_ms: int | None) -> bool:
        """Whether rows of `from_ms..to_ms` (both inclusive, None = open) may be in this file."""
        return (from_ms is None or self.to_ms is None or self.to_ms > from_ms) and (
            to_ms is None or self.from_ms is None or self.from_ms <= to_ms
        )


class GoldTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """One published table.

    Attributes:
        load_id: everything up to this load is in.
        columns: name and type of each column.
        files: its files, where they are few.
        groups: its index files by group (a day or a month), where they are many.
    """

    load_id: int
    columns: tuple[tuple[str, str], ...]
    files: tuple[GoldFile, ...] = ()
    groups: dict[str, str] = {}


class LedgerEnd(msgspec.Struct, frozen=True):
    """Where the loaded objects of one chain end."""

    stream: str
    topic: str
    topic_id: str
    part: int
    next: int


class GoldManifest(msgspec.Struct, frozen=True):
    """One version of published gold.

    Attributes:
        format: of this file, 1.
        version: rises with every publish.
        run: random name of the process that published it.
        warehouse_id: the warehouse it was taken from.
        fingerprint: of all models' SQL and seeds.
        load_id: silver and gold held everything up to this load.
        published_at_ms: wall clock, UNIX milliseconds; data only.
        watermark_ms: older of the newest receipt and the newest event time.
        ledger: end of each chain at `load_id`.
        tables: by full name, such as "gold.bars_1m".
    """

    format: int
    version: int
    run: str
    warehouse_id: str
    fingerprint: str
    load_id: int
    published_at_ms: int
    watermark_ms: int | None
    ledger: tuple[LedgerEnd, ...]
    tables: dict[str, GoldTable]

    @property
    def positions(self) -> tuple[tuple[str, str, int, int], ...]:
        """(stream, topic id, partition, next offset) of every chain."""
        return tuple((end.stream, end.topic_id, end.part, end.next) for end in self.ledger)

    def chain_positions(self) -> dict[ChainId, int]:
        """The next offset of every chain."""
        return {
            ChainId(Stream(end.stream), end.topic, end.topic_id, end.part): end.next
            for end in self.ledger
        }


_decode_manifest = msgspec.json.Decoder(GoldManifest).decode
_decode_index = msgspec.json.Decoder(tuple[GoldFile, ...]).decode


def read_manifest(folder: Path) -> GoldManifest | None:
    """The current manifest; None where there is none.

    Raises:
        msgspec.DecodeError: torn, or not a manifest of this format.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    manifest = _decode_manifest(content)
    if manifest.format != FORMAT:
        raise msgspec.DecodeError(f"format {manifest.format}; this version reads {FORMAT}")
    return manifest


def read_index(folder: Path, name: str) -> tuple[GoldFile, ...]:
    """The files named by an index.

    Raises:
        FileNotFoundError: the version it belongs to is no longer kept.
        msgspec.DecodeError: torn.
    """
    return _decode_index((folder / name).read_bytes())
