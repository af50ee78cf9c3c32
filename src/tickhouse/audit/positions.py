"""Where every stage stands, taken downstream first: nothing may seem ahead of its source."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from tickhouse.audit.report import Layer
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.store import Store
from tickhouse.errors import CorruptError
from tickhouse.model.positions import ChainId, Stream, TopicPartition
from tickhouse.stream.log import Bounds, LogReader
from tickhouse.transform.level import LEVEL, MODEL_NAMES, MODELS
from tickhouse.transform.manifest import GoldManifest
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.warehouse import Row, WarehouseReader

ATTEMPTS: Final = 60
PAUSE_S: Final = 0.5


class Sources(msgspec.Struct, frozen=True):
    """What an audit reads.

    Attributes:
        log, store, warehouse: the log, the lake, the warehouse.
        gold: None where published gold is not looked at.
        spool: what is upstream of a log that a relay writes; None for other logs.
    """

    log: LogReader
    store: Store
    warehouse: WarehouseReader
    gold: PublishedGold | None
    spool: LogReader | None = None


class Positions(msgspec.Struct, frozen=True):
    """Positions at the start of an audit.

    Attributes:
        published: the manifest of published gold, None if there is none.
        published_fault: why it cannot be read, if so.
        built: silver holds everything up to this load_id; 0 before the first build.
        loaded: the last load_id of the ledger.
        loaded_ends: the ledger's end of each chain at `loaded`.
        lake: key of the last object of each chain of the lake.
        log: offsets held by each partition of the log, with its topic id.
        spool: offsets held by each partition of the spool, with its epoch.
    """

    published: GoldManifest | None
    published_fault: str | None
    built: int
    loaded: int
    loaded_ends: Mapping[ChainId, int]
    lake: Mapping[ChainId, str | None]
    log: Mapping[TopicPartition, tuple[str, Bounds]]
    spool: Mapping[TopicPartition, tuple[str, Bounds]]

    @property
    def chains(self) -> list[ChainId]:
        """Every chain that lake or ledger know."""
        return sorted({*self.lake, *self.loaded_ends})


def take_positions(sources: Sources) -> Positions:
    """Ask every stage where it stands: gold, warehouse, lake, log, spool, in this order.

    In log and spool, sessions come before trades: what a `closed` event counts is then in sight.
    """
    log, store, warehouse = sources.log, sources.store, sources.warehouse
    published, fault = _published(sources.gold)
    built = built_load(warehouse)
    loaded, ends = _loaded(warehouse)
    lake = {chain: Chain(store, chain).last_key() for chain in find_chains(store)}
    held = _held(log)
    spooled = {} if sources.spool is None else _held(sources.spool)
    return Positions(published, fault, built, loaded, ends, lake, held, spooled)


def _held(log: LogReader) -> dict[TopicPartition, tuple[str, Bounds]]:
    places = sorted(log.partitions(), key=lambda place: place.stream is not Stream.SESSIONS)
    return {place: (log.topic_id(place), log.bounds(place)) for place in places}


def _published(gold: PublishedGold | None) -> tuple[GoldManifest | None, str | None]:
    try:
        return (None if gold is None else gold.manifest()), None
    except CorruptError as error:
        return None, str(error)


def has_table(warehouse: WarehouseReader, schema: str, table: str) -> bool:
    """Whether a table is there."""
    found = warehouse.query(
        "select count(*) from information_schema.tables"
        " where lower(table_schema) = ? and lower(table_name) = ?",
        (schema, table),
    )
    return bool(found[0][0])


def built_load(warehouse: WarehouseReader) -> int:
    """The load_id up to which silver and bars hold everything."""
    if not has_table(warehouse, "meta", "positions") or not has_table(warehouse, "gold", "bars_1d"):
        return 0
    rows = warehouse.query(
        f"select count(*), min(load_id) from meta.positions where model in ({MODEL_NAMES})"  # noqa: S608
    )
    count, load_id = rows[0]
    return load_id if count == len(MODELS) else 0


def _loaded(warehouse: WarehouseReader) -> tuple[int, dict[ChainId, int]]:
    if not has_table(warehouse, "bronze", "load_ledger"):
        return 0, {}
    rows = warehouse.query(
        "select stream, topic, topic_id, part, max(next_offset), max(load_id)"
        " from bronze.load_ledger group by stream, topic, topic_id, part"
    )
    ends = {ChainId(Stream(row[0]), row[1], row[2], row[3]): row[4] for row in rows}
    return max((row[5] for row in rows), default=0), ends


class Patience:
    """How often an audit waits, altogether, for a moment between two builds.

    Args:
        sleep: waits.
        attempts: number of waits, of `PAUSE_S` each.
    """

    def __init__(self, sleep: Callable[[float], None], attempts: int = ATTEMPTS) -> None:
        self._sleep = sleep
        self._left = attempts

    def wait(self) -> bool:
        """Wait a moment; False where patience has ended."""
        if not self._left:
            return False
        self._left -= 1
        self._sleep(PAUSE_S)
        return True


class LevelAsker:
    """Asks until a statement meets all models at one load: between two builds.

    Args:
        warehouse: has been built.
        layer: told where that never came.
        patience: shared by all statements of an audit.
    """

    def __init__(self, warehouse: WarehouseReader, layer: Layer, patience: Patience) -> None:
        self._warehouse = warehouse
        self._layer = layer
        self._patience = patience

    def level_rows(self, sql: str, where: str, **parts: str) -> list[Row]:
        """Rows of a statement whose first column is the level; none is null in what comes back.

        Args:
            sql: names `{level}`, and `parts`.
            where: what is compared, for a finding.
            parts: expressions of ours by name.
        """
        sql = sql.format(level=LEVEL, **parts)
        while True:
            rows = self._warehouse.query(sql)
            if all(row[0] is not None for row in rows):
                return rows
            if not self._patience.wait():
                text = "could not be compared: its models never stood at one load"
                self._layer.find("late", where, text)
                return []
