"""What `load` does when the lake is damaged: by name, loudly, and nothing else stops."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from support.lake_builder import Lake, chain_id, frames, make_object, pack_lines, run_of
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import LOOK_AHEAD_S, RECHECK_S, Loader

TRADES = chain_id(0)
OTHER = chain_id(1)


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[DuckDBWarehouse]:
    opened = DuckDBWarehouse(tmp_path / "w.duckdb")
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def truncated(body: bytes) -> bytes:
    return body[: len(body) // 2]


def emptied(body: bytes) -> bytes:
    return b""


def flipped(at: float) -> Callable[[bytes], bytes]:
    def flip(body: bytes) -> bytes:
        place = int(len(body) * at)
        return body[:place] + bytes([body[place] ^ 0x10]) + body[place + 1 :]

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(truncated, id="truncated"),
        pytest.param(emptied, id="emptied"),
        *[pytest.param(flipped(at), id=f"bit flipped at {at}") for at in (0.0, 0.2, 0.6, 0.99)],
    ],
)
def test_a_damaged_object_is_named_and_only_its_chain_waits(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock, damage: Callable[[bytes], bytes]
) -> None:
    objects = run_of(TRADES, objects=4, rows=3)
    lake.add([*objects, *run_of(OTHER, objects=4, rows=2)])
    lake.overwrite(objects[2].key, damage(objects[2].body))
    loader = Loader(lake.store, warehouse, monotonic=clock)

    with structlog.testing.capture_logs() as logs:
        loader.load_all()

    assert warehouse.positions() == {TRADES: 6, OTHER: 8}
    assert [found.key for found in warehouse.quarantined()] == [objects[2].key]
    assert list(loader.alarms) == [TRADES]
    assert loader.facts()["quarantined"] == [objects[2].key]
    loud = [line for line in logs if line["event"] == "object_quarantined"]
    assert [(line["log_level"], line["key"]) for line in loud] == [("error", objects[2].key)]


def test_a_damaged_object_is_reported_once_while_the_rest_goes_on(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock
) -> None:
    objects = run_of(TRADES, objects=2, rows=1)
    lake.add(objects)
    lake.overwrite(objects[0].key, truncated(objects[0].body))
    loader = Loader(lake.store, warehouse, monotonic=clock)

    with structlog.testing.capture_logs() as logs:
        for position in range(5):
            lake.add(run_of(OTHER, objects=1, rows=1, start=position))
            loader.load_once()
            clock.now_s += RECHECK_S

    assert warehouse.positions() == {OTHER: 5}
    assert len([line for line in logs if line["log_level"] == "error"]) == 2
    assert len(warehouse.quarantined()) == 1


def test_a_restored_object_is_released_and_the_chain_goes_on(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock
) -> None:
    objects = run_of(TRADES, objects=3, rows=2)
    lake.add(objects)
    lake.overwrite(objects[1].key, truncated(objects[1].body))
    loader = Loader(lake.store, warehouse, monotonic=clock)
    loader.load_all()
    lake.overwrite(objects[1].key, objects[1].body)
    clock.now_s += RECHECK_S

    result = loader.load_all()

    assert (result.objects, result.rows) == (2, 4)
    assert warehouse.quarantined() == []
    assert loader.alarms == {}


def test_an_object_restored_while_nothing_ran_is_released_by_the_next_loader(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock
) -> None:
    objects = run_of(TRADES, objects=2, rows=2)
    lake.add(objects)
    lake.overwrite(objects[1].key, truncated(objects[1].body))
    Loader(lake.store, warehouse).load_all()
    lake.overwrite(objects[1].key, objects[1].body)

    Loader(lake.store, warehouse).load_all()

    assert warehouse.quarantined() == []
    assert warehouse.positions() == {TRADES: 4}


def test_a_damaged_object_is_not_read_again_in_every_step(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock
) -> None:
    objects = run_of(TRADES, objects=1, rows=2)
    lake.add(objects)
    lake.overwrite(objects[0].key, truncated(objects[0].body))
    loader = Loader(lake.store, warehouse, monotonic=clock)
    loader.load_once()
    lake.overwrite(objects[0].key, objects[0].body)

    assert loader.load_once().load_id is None
    clock.now_s += RECHECK_S
    assert loader.load_once().objects == 1


def test_an_object_that_does_not_hold_what_its_manifest_says_is_set_aside(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    """Its hash is right, so it was written so: lines of positions that are not its own."""
    line = b'{"t":"e1","p":0,"o":%d,"lt":1,"poison_b64":""}'
    wrong = pack_lines(TRADES, 2, [line % 2, line % 9])
    lake.add([make_object(TRADES, 0, frames(0, 2)), wrong, make_object(TRADES, 4, frames(4, 1))])
    lake.add(run_of(OTHER, objects=2, rows=1))
    loader = Loader(lake.store, warehouse)

    loader.load_all()

    assert warehouse.positions() == {TRADES: 2, OTHER: 2}
    assert [found.key for found in warehouse.quarantined()] == [wrong.key]


def test_an_object_deleted_by_hand_is_a_hole_that_is_reported_and_never_skipped(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock
) -> None:
    objects = run_of(TRADES, objects=4, rows=2)
    lake.add([*objects, *run_of(OTHER, objects=1, rows=1)])
    lake.delete(objects[1].key)
    loader = Loader(lake.store, warehouse, monotonic=clock)
    loader.load_all()

    assert warehouse.positions() == {TRADES: 2, OTHER: 1}
    assert loader.alarms == {TRADES: f"{objects[1].key} is missing, though the chain goes on to 8"}

    lake.add([objects[1]])
    clock.now_s += RECHECK_S
    loader.load_all()
    assert warehouse.positions() == {TRADES: 8, OTHER: 1}
    assert loader.alarms == {}


def test_a_hole_is_seen_at_once_by_a_new_loader(lake: Lake, warehouse: DuckDBWarehouse) -> None:
    objects = run_of(TRADES, objects=3, rows=2)
    lake.add(objects)
    lake.delete(objects[0].key)
    loader = Loader(lake.store, warehouse)

    loader.load_once()

    assert "is missing" in loader.alarms[TRADES]


def test_a_hole_in_an_idle_chain_is_found_within_the_look_ahead_time(
    lake: Lake, warehouse: DuckDBWarehouse, clock: Clock
) -> None:
    lake.add(run_of(TRADES, objects=1, rows=2))
    loader = Loader(lake.store, warehouse, monotonic=clock)
    loader.load_all()
    objects = run_of(TRADES, objects=2, rows=2, start=2)
    lake.add(objects[1:])

    loader.load_once()
    assert loader.alarms == {}
    clock.now_s += LOOK_AHEAD_S
    loader.load_once()
    assert "is missing" in loader.alarms[TRADES]


def test_a_lake_that_ends_before_what_was_loaded_is_reported(
    lake: Lake, warehouse: DuckDBWarehouse
) -> None:
    objects = run_of(TRADES, objects=2, rows=2)
    lake.add(objects)
    Loader(lake.store, warehouse).load_all()
    lake.delete(objects[1].key)
    loader = Loader(lake.store, warehouse)

    loader.load_all()

    assert "the lake ends at 2, but 4 was loaded" in loader.alarms[TRADES]
    assert warehouse.positions() == {TRADES: 4}


def test_an_object_that_straddles_the_position_is_reported(
    lake: Lake, warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    other = Lake(tmp_path / "other lake")
    other.add([make_object(TRADES, 0, frames(0, 3))])
    Loader(other.store, warehouse).load_all()
    lake.add(run_of(TRADES, objects=2, rows=2))
    loader = Loader(lake.store, warehouse)

    loader.load_all()

    assert f"{TRADES.key(2)} straddles 3" in loader.alarms[TRADES]
    assert warehouse.positions() == {TRADES: 3}


@pytest.mark.parametrize("content", [None, b'{"start":7}'])
def test_a_missing_or_wrong_genesis_is_reported(
    lake: Lake, warehouse: DuckDBWarehouse, content: bytes | None
) -> None:
    lake.add(run_of(TRADES, objects=1, rows=2))
    if content is None:
        lake.delete(TRADES.genesis_key)
    else:
        lake.overwrite(TRADES.genesis_key, content)
    loader = Loader(lake.store, warehouse)

    loader.load_all()

    assert TRADES.genesis_key in loader.alarms[TRADES]
    assert warehouse.positions() == {TRADES: 2}


def test_a_lake_that_holds_nothing_of_what_was_loaded_is_reported(
    lake: Lake, warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    lake.add([*run_of(TRADES, objects=2, rows=2), *run_of(OTHER, objects=1, rows=2)])
    Loader(lake.store, warehouse).load_all()
    loader = Loader(Lake(tmp_path / "other lake").store, warehouse)

    loader.load_all()

    assert loader.alarms.keys() == {TRADES, OTHER}
    assert "up to 4, but the lake holds nothing" in loader.alarms[TRADES]
