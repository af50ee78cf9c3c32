"""The embedded warehouse in a schedule: real transactions, cut off at the loader's failpoints."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fault.simulation.chance import Chance, Crash
from tests.fault.simulation.warehouse import Identity
from tickhouse.model.positions import ChainId, Stream, topic_of
from tickhouse.warehouse import duckdb as duckdb_module
from tickhouse.warehouse.duckdb import Cursor, DuckDBWarehouse
from tickhouse.warehouse.warehouse import BronzeObject

_LOADED = """
    select 'trades', topic_id, part, log_offset, session_id, session_seq from bronze.trades
    union all
    select 'sessions', topic_id, part, log_offset, session_id, session_seq from bronze.sessions
    order by all
"""


class CrashingDuckDB(DuckDBWarehouse):
    """A DuckDB file of its own, gone with the schedule; loads are cut off where dice say so."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._folder = Path(tempfile.mkdtemp(prefix="tickhouse-simulated-"))
        self._patch = pytest.MonkeyPatch()
        super().__init__(self._folder / "warehouse.duckdb", lock_wait_s=0.0)
        self._patch.setattr(duckdb_module, "failpoint", self._strike)
        self.prepare()

    def _strike(self, _point: str) -> None:
        if self._chance.strikes("kill_loader", 0.05):
            self._known = (-1, {})
            raise Crash

    def loaded(self) -> dict[ChainId, list[Identity]]:
        """What the bronze tables hold, by chain and in order."""
        found: dict[ChainId, list[Identity]] = {}
        for stream, topic_id, part, *identity in self.query(_LOADED):
            place = Stream(stream)
            chain = ChainId(place, topic_of(place), topic_id, part)
            found.setdefault(chain, []).append(tuple(identity))
        return found

    def close(self) -> None:
        self._patch.undo()
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)


class LedgerOutsideDuckDB(CrashingDuckDB):
    """The ledger is written in a transaction of its own, before that of the rows."""

    def _insert_ledger(self, cursor: Cursor, pending: list[BronzeObject], load_id: int) -> None:
        own = self.cursor()
        super()._insert_ledger(own, pending, load_id)
        own.close()


__all__: Sequence[str] = ["CrashingDuckDB", "LedgerOutsideDuckDB"]
