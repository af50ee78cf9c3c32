"""The loader over a real lake and the embedded warehouse."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.lake_builder import Lake, chain_id, frames, make_gap, make_object, run_of
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.store import ObjectInfo
from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import LOOK_AHEAD_S, Loader
from tickhouse.warehouse.warehouse import BronzeObject, LoadResult

TRADES = chain_id(0)
OTHER = chain_id(1)
EVENTS = chain_id(0, stream=Stream.SESSIONS)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[DuckDBWarehouse]:
    opened = DuckDBWarehouse(tmp_path / "w.duckdb")
    opened.prepare()
    yield opened
    opened.close()


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def rows_of(warehouse: DuckDBWarehouse) -> int:
    (row,) = warehouse.query(
        "select count(*), count(distinct (topic_id, part, log_offset)),"
        " (select sum(n) from bronze.load_ledger where stream = 'trades') from bronze.trades"
    )
    assert row[0] == row[1] == row[2]
    return row[0]


def test_everything_landed_is_loaded_and_then_nothing_is_pending(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add([*run_of(TRADES, objects=3, rows=2), *run_of(EVENTS, objects=2, rows=1)])
    loader = Loader(lake.store, warehouse)

    first, second = loader.load_once(), loader.load_once()

    assert (first.load_id, first.objects, first.rows) == (1, 5, 8)
    assert second == LoadResult(None, 0, 0, 0)
    assert warehouse.positions() == {TRADES: 6, EVENTS: 2}


@pytest.mark.parametrize("objects_max", [1, 2, 5])
def test_how_objects_are_batched_does_not_change_the_rows(
    lake: Lake, warehouse: DuckDBWarehouse, tmp_path: Path, objects_max: int
) -> None:
    lake.add([*run_of(TRADES, objects=5, rows=2), *run_of(OTHER, objects=3, rows=3)])
    batched = DuckDBWarehouse(tmp_path / "batched.duckdb")
    batched.prepare()

    Loader(lake.store, warehouse).load_all()
    Loader(lake.store, batched, objects_max=objects_max).load_all()

    sql = "select * exclude (load_id) from bronze.trades order by topic_id, part, log_offset"
    assert batched.query(sql) == warehouse.query(sql)
    batched.close()


def test_an_empty_lake_loads_nothing(lake: Lake, warehouse: DuckDBWarehouse) -> None:
    loader = Loader(lake.store, warehouse)

    assert loader.load_all() == LoadResult(None, 0, 0, 0)
    assert loader.alarms == {}


def test_a_load_is_bounded_by_objects_and_the_next_goes_on(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add(run_of(TRADES, objects=7, rows=1))
    loader = Loader(lake.store, warehouse, objects_max=3)

    assert [loader.load_once().objects for _ in range(4)] == [3, 3, 1, 0]


def test_a_load_is_bounded_by_bytes_but_takes_at_least_one_object(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add(run_of(TRADES, objects=3, rows=1))
    loader = Loader(lake.store, warehouse, bytes_max=1)

    assert [loader.load_once().objects for _ in range(4)] == [1, 1, 1, 0]


def test_a_chain_with_much_to_load_does_not_starve_the_others(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add([*run_of(TRADES, objects=9, rows=1), *run_of(OTHER, objects=2, rows=1)])
    one_at_a_time = Loader(lake.store, warehouse, objects_max=1)

    Loader(lake.store, warehouse, objects_max=4).load_once()
    assert warehouse.positions() == {TRADES: 2, OTHER: 2}

    lake.add(run_of(OTHER, objects=1, rows=1, start=2))
    one_at_a_time.load_once()
    one_at_a_time.load_once()
    assert warehouse.positions() == {TRADES: 3, OTHER: 3}


def test_a_chain_that_appears_later_is_found(lake: Lake, warehouse: DuckDBWarehouse) -> None:
    clock = Clock()
    loader = Loader(lake.store, warehouse, monotonic=clock)
    loader.load_once()
    recreated = chain_id(0, topic_id="e2")
    lake.add(run_of(recreated, objects=1, rows=2))
    clock.now_s += 1.0

    loader.load_once()

    assert warehouse.positions() == {recreated: 2}


def test_another_loader_goes_on_where_the_ledger_ends(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add(run_of(TRADES, objects=2, rows=2))
    Loader(lake.store, warehouse).load_all()
    lake.add(run_of(TRADES, objects=1, rows=2, start=4))

    result = Loader(lake.store, warehouse).load_all()

    assert (result.load_id, result.objects) == (2, 1)
    assert rows_of(warehouse) == 6


def test_until_stops_each_chain_at_the_position_asked_for(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add([*run_of(TRADES, objects=5, rows=2), *run_of(OTHER, objects=5, rows=2)])
    lake.add(run_of(EVENTS, objects=1, rows=2))

    loader = Loader(lake.store, warehouse, until={TRADES: 6, OTHER: 5})
    loader.load_all()

    assert warehouse.positions() == {TRADES: 6, OTHER: 4}
    assert loader.alarms == {}


def test_gap_objects_are_walked_over(lake: Lake, warehouse: DuckDBWarehouse) -> None:
    lake.add([make_gap(TRADES, 0, 100), make_object(TRADES, 100, frames(100, 3))])

    Loader(lake.store, warehouse).load_all()

    assert warehouse.positions() == {TRADES: 103}
    assert rows_of(warehouse) == 3


class NotingStore(LocalStore):
    """Notes what the loader does to the lake, and can be out of reach."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.notes: list[str] = []
        self.fails = False

    def get(self, key: str) -> bytes:
        if self.fails:
            raise TransientError("the store is away")
        self.notes.append(f"get {key}")
        return super().get(key)

    def last(self, prefix: str) -> str | None:
        self.notes.append(f"last {prefix}")
        return super().last(prefix)

    def secure(self, key: str) -> None:
        self.notes.append(f"secure {key}")
        super().secure(key)

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        raise AssertionError("the loader lists no history")


class NotingWarehouse(DuckDBWarehouse):
    """Notes loads in the store's notes."""

    notes: list[str]

    def load(self, objects: Sequence[BronzeObject]) -> LoadResult:
        self.notes.append(f"load {len(objects)}")
        return super().load(objects)


def test_whoever_loads_a_local_object_first_flushes_its_folder(lake: Lake, tmp_path: Path) -> None:
    lake.add([*run_of(TRADES, objects=2, rows=1), *run_of(OTHER, objects=1, rows=1)])
    store, warehouse = NotingStore(lake.folder), NotingWarehouse(tmp_path / "noting.duckdb")
    warehouse.prepare()
    warehouse.notes = store.notes

    Loader(store, warehouse).load_once()
    warehouse.close()

    before = store.notes[: store.notes.index("load 3")]
    assert f"secure {TRADES.key(1)}" in before
    assert f"secure {OTHER.key(0)}" in before


def test_a_step_reads_only_what_is_new(lake: Lake, warehouse: DuckDBWarehouse) -> None:
    lake.add(run_of(TRADES, objects=50, rows=1))
    store = NotingStore(lake.folder)
    loader = Loader(store, warehouse)
    loader.load_all()
    lake.add(run_of(TRADES, objects=1, rows=1, start=50))
    store.notes.clear()

    loader.load_once()

    reads = [note for note in store.notes if note.startswith("get")]
    assert reads == [f"get {TRADES.key(50)}", f"get {TRADES.key(51)}"]


def test_a_chain_that_advances_is_searched_for_its_end_only_once(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    store, clock = NotingStore(lake.folder), Clock()
    loader = Loader(store, warehouse, monotonic=clock)
    for position in range(5):
        lake.add(run_of(TRADES, objects=1, rows=1, start=position))
        clock.now_s += LOOK_AHEAD_S - 1
        loader.load_once()

    assert store.notes.count(f"last {TRADES.prefix}") == 2  # the key, and its manifest's `next`
    assert warehouse.positions() == {TRADES: 5}


def test_a_store_that_is_away_is_reported_and_the_next_step_goes_on(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    lake.add(run_of(TRADES, objects=2, rows=1))
    store = NotingStore(lake.folder)
    loader = Loader(store, warehouse)
    store.fails = True
    with pytest.raises(TransientError, match="away"):
        loader.load_once()
    store.fails = False

    assert loader.load_once().rows == 2
    assert loader.alarms == {}
    assert warehouse.quarantined() == []


def test_facts_say_what_was_loaded_and_where_it_ends(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    keys = lake.add(run_of(TRADES, objects=2, rows=3))
    loader = Loader(lake.store, warehouse, objects_max=1)
    loader.load_all()

    size = sum(lake.path(key).stat().st_size for key in keys)
    assert loader.facts() == {
        "load_id": 2,
        "rows_loaded": 6,
        "objects_loaded": 2,
        "bytes_loaded": size,
        "positions": {TRADES.prefix: 6},
        "alarms": {},
        "quarantined": [],
    }
