"""`load` is killed at each step, refused by the disk, or not told how its commit ended."""

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from support.lake_builder import Lake, chain_id, run_of
from support.processes import run_killed, run_with_failpoints
from tickhouse import telemetry
from tickhouse.errors import RefusedError, TransientError
from tickhouse.model.positions import Stream
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import Loader

TRADES = chain_id(0)
OTHER = chain_id(1)
EVENTS = chain_id(0, stream=Stream.SESSIONS)
STEPS = [
    "load.begin.before",
    "load.ledger.after",
    "load.rows.after",
    "load.commit.before",
    "load.commit.after",
]
OBJECTS, ROWS = 9, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lake = Lake(tmp_path / "lake")
    for chain in (TRADES, OTHER, EVENTS):
        lake.add(run_of(chain, objects=OBJECTS, rows=ROWS))
    return tmp_path


def open_warehouse(folder: Path) -> DuckDBWarehouse:
    warehouse = DuckDBWarehouse(folder / "w.duckdb")
    warehouse.prepare()
    return warehouse


def load_all(folder: str) -> None:
    """Run in a process of its own: load in steps of five objects, then leave without a word."""
    warehouse = open_warehouse(Path(folder))
    Loader(Lake(Path(folder) / "lake").store, warehouse, objects_max=5).load_all()
    os._exit(0)


def rows_loaded(warehouse: DuckDBWarehouse) -> int:
    """Rows of all streams, which must be distinct and equal the ledger."""
    total = 0
    for stream in Stream:
        ((rows, distinct, ledger),) = warehouse.query(
            f"select count(*), count(distinct (topic_id, part, log_offset)),"
            f" (select coalesce(sum(n), 0) from bronze.load_ledger where stream = '{stream}')"
            f" from bronze.{stream}"
        )
        assert rows == distinct == ledger
        total += rows
    ids = [row[0] for row in warehouse.query("select distinct load_id from bronze.load_ledger")]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    return total


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", STEPS)
def test_a_load_killed_at_any_step_neither_loses_nor_doubles(
    folder: Path, step: str, count: int
) -> None:
    run_killed(load_all, str(folder), failpoints=f"{step}=kill:{count}")

    warehouse = open_warehouse(folder)
    before = rows_loaded(warehouse)
    Loader(Lake(folder / "lake").store, warehouse).load_all()
    after = rows_loaded(warehouse)
    warehouse.close()

    committed = count if step == "load.commit.after" else count - 1
    assert before == committed * 5 * ROWS
    assert after == 3 * OBJECTS * ROWS


def test_what_a_killed_load_left_beside_the_warehouse_is_removed(folder: Path) -> None:
    run_killed(load_all, str(folder), failpoints="load.rows.after=kill:1")
    left = list((folder / "w.duckdb.load").iterdir())

    warehouse = open_warehouse(folder)
    warehouse.close()

    assert left
    assert list((folder / "w.duckdb.load").iterdir()) == []


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_load_that_fails_at_any_step_rolls_back_and_the_next_one_loads(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = open_warehouse(folder)
    loader = Loader(Lake(folder / "lake").store, warehouse)
    monkeypatch.setitem(telemetry._failpoints, step, ["error", 1.0])

    with pytest.raises(telemetry.FailpointError):
        loader.load_once()
    before = rows_loaded(warehouse)
    result = loader.load_once()

    assert before == 0
    assert (result.load_id, result.rows) == (1, 3 * OBJECTS * ROWS)
    assert list((folder / "w.duckdb.load").iterdir()) == []
    warehouse.close()


class Unanswered:
    """A cursor whose commit answers with an error, after or instead of committing."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, *, applied: bool) -> None:
        self._cursor = cursor
        self._applied = applied

    def __getattr__(self, name: str) -> object:
        return getattr(self._cursor, name)

    def commit(self) -> None:
        if self._applied:
            self._cursor.commit()
        else:
            self._cursor.rollback()
        raise duckdb.IOException("the answer was lost")


class ForgetfulWarehouse(DuckDBWarehouse):
    """Loses the answer to the next commit of a load."""

    loses: bool | None = None

    def _commit(self, cursor: duckdb.DuckDBPyConnection, load_id: int, key: str) -> None:
        if self.loses is not None:
            cursor = Unanswered(cursor, applied=self.loses)  # type: ignore[assignment]
            self.loses = None
        super()._commit(cursor, load_id, key)


@pytest.fixture
def forgetful(folder: Path) -> Iterator[ForgetfulWarehouse]:
    warehouse = ForgetfulWarehouse(folder / "w.duckdb")
    warehouse.prepare()
    yield warehouse
    warehouse.close()


def test_after_a_commit_whose_answer_was_lost_the_ledger_decides_that_it_happened(
    folder: Path, forgetful: ForgetfulWarehouse
) -> None:
    loader = Loader(Lake(folder / "lake").store, forgetful)
    forgetful.loses = True

    first, second = loader.load_once(), loader.load_once()

    assert (first.load_id, first.rows) == (1, 3 * OBJECTS * ROWS)
    assert second.load_id is None
    assert rows_loaded(forgetful) == 3 * OBJECTS * ROWS


def test_after_a_commit_that_failed_the_ledger_decides_that_it_did_not_happen(
    folder: Path, forgetful: ForgetfulWarehouse
) -> None:
    loader = Loader(Lake(folder / "lake").store, forgetful)
    forgetful.loses = False
    with pytest.raises(TransientError, match="the answer was lost"):
        loader.load_once()

    result = loader.load_once()

    assert (result.load_id, result.rows) == (1, 3 * OBJECTS * ROWS)
    assert rows_loaded(forgetful) == 3 * OBJECTS * ROWS


def load_on_a_full_disk(folder: str, headroom: str) -> None:
    """Run in a process of its own: no file may grow beyond the largest one by `headroom`."""
    root, unlimited = Path(folder), resource.RLIM_INFINITY
    warehouse, store = open_warehouse(root), Lake(root / "lake").store
    loader = Loader(store, warehouse, objects_max=5)
    loader.load_once()
    largest = max(path.stat().st_size for path in root.glob("w.duckdb*") if path.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + int(headroom), unlimited))
    with pytest.raises(RefusedError, match="Make room"):
        loader.load_all()
    held = rows_loaded(warehouse)
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    loader.load_all()
    after = rows_loaded(warehouse)
    warehouse.close()
    reopened = open_warehouse(root)
    assert held < after == rows_loaded(reopened) == (3 * OBJECTS + 60) * ROWS
    os._exit(7)


@pytest.mark.parametrize("headroom", ["100", "20000"])
def test_a_full_disk_refuses_the_load_whole_and_it_goes_on_when_there_is_room(
    folder: Path, headroom: str
) -> None:
    Lake(folder / "lake").add(run_of(TRADES, objects=60, rows=ROWS, start=OBJECTS * ROWS))

    assert run_with_failpoints(load_on_a_full_disk, str(folder), headroom, failpoints="") == 7


def test_a_full_disk_under_the_staged_lines_refuses_the_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = open_warehouse(folder)
    monkeypatch.setattr("tickhouse.warehouse.staging.unpack", _disk_full)

    with pytest.raises(RefusedError, match="No space left"):
        Loader(Lake(folder / "lake").store, warehouse).load_once()

    assert warehouse.positions() == {}
    assert list((folder / "w.duckdb.load").iterdir()) == []
    warehouse.close()


def _disk_full(*_arguments: object) -> bytes:
    raise OSError(28, "No space left on device")


def test_a_torn_end_of_the_files_log_loses_rows_and_ledger_together_and_they_load_again(
    folder: Path,
) -> None:
    run_killed(load_all, str(folder), failpoints="load.commit.before=kill:4")
    wal = folder / "w.duckdb.wal"
    os.truncate(wal, wal.stat().st_size - 100)

    warehouse = open_warehouse(folder)
    before = rows_loaded(warehouse)
    Loader(Lake(folder / "lake").store, warehouse).load_all()
    after = rows_loaded(warehouse)
    warehouse.close()

    assert before == 2 * 5 * ROWS
    assert after == 3 * OBJECTS * ROWS


def test_an_older_copy_of_the_warehouse_loads_what_it_lacks(folder: Path) -> None:
    warehouse = open_warehouse(folder)
    store = Lake(folder / "lake").store
    Loader(store, warehouse, objects_max=5).load_once()
    warehouse.close()
    shutil.copy(folder / "w.duckdb", folder / "older")
    warehouse = open_warehouse(folder)
    Loader(store, warehouse).load_all()
    warehouse.close()
    (folder / "older").replace(folder / "w.duckdb")

    warehouse = open_warehouse(folder)
    Loader(store, warehouse).load_all()
    rows = rows_loaded(warehouse)
    warehouse.close()

    assert rows == 3 * OBJECTS * ROWS
