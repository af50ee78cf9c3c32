"""Gold as its readers see it where nothing is published: asked of the warehouse itself."""

import threading
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tickhouse.model.positions import ChainId, Stream
from tickhouse.transform.level import MODEL_NAMES, MODELS
from tickhouse.warehouse.dialect import epoch_ms
from tickhouse.warehouse.warehouse import WarehouseReader

_TABLES: Final = """
select count(*) from information_schema.tables
where lower(table_schema) = 'meta' and lower(table_name) in ('positions', 'builds')
"""
_LOOK: Final = f"""
select count(*), min(load_id), max(load_id), max(build_id),
    (select case when failure is null then {epoch_ms("finished_at")} end
     from meta.builds order by build_id desc limit 1)
from meta.positions where model in ({MODEL_NAMES})
"""  # noqa: S608 - names of ours
_ENDS: Final = """
select stream, topic, topic_id, part, max(next_offset) from bronze.load_ledger
where load_id > ? and load_id <= ? group by stream, topic, topic_id, part
"""


class WarehouseManifest(msgspec.Struct, frozen=True):
    """What gold held when it was looked at last.

    Attributes:
        version: id of the build that made it.
        load_id: every model holds everything up to this load.
        published_at_ms: when the build ended, wall clock, UNIX milliseconds.
        ends: next offset of each chain at `load_id`.
    """

    version: int
    load_id: int
    published_at_ms: int
    ends: dict[ChainId, int]

    @property
    def positions(self) -> tuple[tuple[str, str, int, int], ...]:
        """(stream, topic id, partition, next offset) of every chain."""
        return tuple(
            (str(chain.stream), chain.topic_id, chain.part, end)
            for chain, end in sorted(self.ends.items())
        )

    def chain_positions(self) -> dict[ChainId, int]:
        """The next offset of every chain."""
        return self.ends


class WarehouseGold:
    """Tells which build gold is of, and answers questions; may be used from several threads.

    Each model moves in a transaction of its own, so that until a build has ended they are not of
    one version: what was asked counts only if `is_current` says so afterwards.

    Args:
        warehouse: answers.
    """

    is_remote = True

    def __init__(self, warehouse: WarehouseReader) -> None:
        self._warehouse = warehouse
        self._lock = threading.Lock()
        self._is_built = False
        self._known: tuple[int, dict[ChainId, int]] = (0, {})
        self._last: WarehouseManifest | None = None
        self.is_level = False
        """Whether all models were of one build at the last look."""

    def manifest(self) -> WarehouseManifest | None:
        """Look where gold stands; within a build, what it held before. None before the first.

        Raises:
            ConfigError, TransientError: the warehouse does not answer.
        """
        with self._lock:
            return self._look()

    def is_current(self, version: int) -> bool:
        """Whether all models are of this version now."""
        found = self.manifest()
        return self.is_level and found is not None and found.version == version

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """See `WarehouseReader.query`."""
        return self._warehouse.query(sql, parameters)

    def _look(self) -> WarehouseManifest | None:
        self.is_level = False
        if not self._is_built:
            self._is_built = self._warehouse.query(_TABLES)[0][0] == 2  # noqa: PLR2004 - both
        if not self._is_built:
            return None
        count, load_id, newest, build_id, ended_ms = self._warehouse.query(_LOOK)[0]
        if count < len(MODELS) or not load_id:
            return None
        # The load alone does not tell: a build may derive the same loads again, by other SQL.
        self.is_level = load_id == newest and ended_ms is not None
        if self._last is None or (self.is_level and self._last.version != build_id):
            version = build_id if self.is_level else 0
            self._last = WarehouseManifest(version, load_id, ended_ms or 0, self._ends(load_id))
        return self._last

    def _ends(self, load_id: int) -> dict[ChainId, int]:
        """End of every chain; of the ledger only what was loaded since is read."""
        known, ends = self._known
        if load_id < known:
            known, ends = 0, {}
        if load_id > known:
            rows = self._warehouse.query(_ENDS, (known, load_id))
            ends = {**ends, **{ChainId(Stream(row[0]), *row[1:4]): row[4] for row in rows}}
            self._known = (load_id, ends)
        return ends
