"""`load` into Snowflake is killed at each step, raced, or not told how its commit ended."""

import os
import threading
import time
from pathlib import Path

import pytest

from support.lake_builder import Lake, chain_id, run_of
from support.processes import run_killed
from tests.servers.snowflake import SnowflakeServer
from tests.support.snowflake import open_snowflake, snowflake_options
from tickhouse import telemetry
from tickhouse.errors import ConfigError, TransientError
from tickhouse.model.positions import Stream
from tickhouse.warehouse import snowflake_session
from tickhouse.warehouse.loader import Loader
from tickhouse.warehouse.snowflake import SnowflakeWarehouse
from tickhouse.warehouse.snowflake_options import SnowflakeOptions
from tickhouse.warehouse.snowflake_session import Session

pytestmark = pytest.mark.warehouse

CHAINS = (chain_id(0), chain_id(1), chain_id(0, stream=Stream.SESSIONS))
STEPS = [
    "load.begin.before",
    "load.staged.after",
    "load.ledger.after",
    "load.rows.after",
    "load.commit.before",
    "load.commit.after",
]
OBJECTS, ROWS = 6, 3
ALL = 3 * OBJECTS * ROWS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lake = Lake(tmp_path / "lake")
    for chain in CHAINS:
        lake.add(run_of(chain, objects=OBJECTS, rows=ROWS))
    return tmp_path


@pytest.fixture
def warehouse(snowflake: SnowflakeServer, snowflake_database: str) -> SnowflakeWarehouse:
    opened = open_snowflake(snowflake, snowflake_database)
    opened.prepare()
    return opened


def loader_of(folder: Path, warehouse: SnowflakeWarehouse, *, at_once: int = 500) -> Loader:
    return Loader(Lake(folder / "lake").store, warehouse, objects_max=at_once)


def load_in_process(folder: str, port: str, database: str) -> None:
    """Run in a process of its own: load six objects at a time, then leave without a word."""
    server = SnowflakeServer([], port=int(port), log=Path(os.devnull))
    loader_of(Path(folder), open_snowflake(server, database), at_once=6).load_all()
    os._exit(0)


def rows_loaded(warehouse: SnowflakeWarehouse) -> int:
    """Rows of all streams, which must be distinct and equal the ledger; load ids are dense."""
    total = 0
    for stream in Stream:
        ((rows,),) = warehouse.query(f"select count(*) from bronze.{stream}")
        ((distinct,),) = warehouse.query(
            "select count(*) from"
            f" (select distinct topic_id, part, log_offset from bronze.{stream}) as positions"
        )
        ((ledger,),) = warehouse.query(
            "select coalesce(sum(n), 0) from bronze.load_ledger where stream = ?", [stream.value]
        )
        assert rows == distinct == ledger
        total += rows
    ids = [row[0] for row in warehouse.query("select distinct load_id from bronze.load_ledger")]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    return total


@pytest.mark.parametrize("step", STEPS)
def test_a_load_killed_at_any_step_neither_loses_nor_doubles(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    step: str,
) -> None:
    database = warehouse.options.database
    arguments = (str(folder), str(snowflake.port), database)
    run_killed(load_in_process, *arguments, failpoints=f"{step}=kill:2")

    before = rows_loaded(warehouse)
    loader_of(folder, warehouse).load_all()

    committed = 2 if step == "load.commit.after" else 1
    assert before == committed * 6 * ROWS
    assert rows_loaded(warehouse) == ALL
    warehouse.close()


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_load_that_fails_at_any_step_rolls_back_and_the_next_one_loads(
    folder: Path, warehouse: SnowflakeWarehouse, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_of(folder, warehouse)
    monkeypatch.setitem(telemetry._failpoints, step, ["error", 1.0])

    with pytest.raises(telemetry.FailpointError):
        loader.load_once()
    before = rows_loaded(warehouse)
    result = loader.load_once()

    assert before == 0
    assert (result.load_id, result.rows) == (1, ALL)
    assert staged(warehouse) == []
    warehouse.close()


def staged(warehouse: SnowflakeWarehouse) -> list[object]:
    session = Session(warehouse.options, lock_wait_s=5)
    files = [row[0] for row in session.run("list @bronze.load_stage")]
    session.close()
    return files


def test_what_a_killed_load_left_in_the_stage_is_removed_when_it_is_stale(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
) -> None:
    database = warehouse.options.database
    arguments = (str(folder), str(snowflake.port), database)
    run_killed(load_in_process, *arguments, failpoints="load.staged.after=kill:1")

    warehouse.prepare()
    left = staged(warehouse)
    later = open_snowflake(snowflake, database, clock_ms=lambda: 1 << 45)
    later.prepare()

    assert left
    assert staged(warehouse) == []
    later.close()
    warehouse.close()


@pytest.mark.parametrize("act", ["503", "reset"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", ["^copy into bronze.trades", "^commit"])
def test_a_request_whose_answer_is_lost_is_sent_again_under_its_id_and_counts_once(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    act: str,
    when: str,
    statement: str,
) -> None:
    snowflake.fault(match=statement, act=act, when=when)

    result = loader_of(folder, warehouse).load_once()

    assert (result.load_id, result.rows) == (1, ALL)
    assert rows_loaded(warehouse) == ALL
    warehouse.close()


@pytest.mark.parametrize("act", ["hang", "broken"])
def test_after_a_commit_whose_answer_was_lost_the_ledger_decides_that_it_happened(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    act: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_up_soon(monkeypatch)
    impatient = open_snowflake(snowflake, warehouse.options.database)
    loader = loader_of(folder, impatient)
    snowflake.fault(match="^commit", act=act, when="after", times=1)

    first = loader.load_once()
    snowflake.clear_faults()

    assert (first.load_id, first.rows) == (1, ALL)
    assert loader.load_once().load_id is None
    assert rows_loaded(warehouse) == ALL
    impatient.close()
    warehouse.close()


def give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snowflake_session, "SOCKET_TIMEOUT_S", 3)
    monkeypatch.setattr(snowflake_session, "NETWORK_TIMEOUT_S", 3)


@pytest.mark.parametrize("statement", ["^commit", "^copy into bronze.sessions", "^insert into"])
def test_a_session_that_is_gone_before_its_commit_leaves_nothing_and_the_load_is_done_again(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    statement: str,
) -> None:
    loader = loader_of(folder, warehouse)
    snowflake.fault(match=statement, act="logout", when="before")

    with pytest.raises(TransientError):
        loader.load_once()
    before = rows_loaded(warehouse)
    result = loader.load_once()

    assert before == 0
    assert (result.load_id, result.rows) == (1, ALL)
    assert rows_loaded(warehouse) == ALL
    warehouse.close()


def test_two_loaders_at_once_load_everything_once(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
) -> None:
    other = open_snowflake(snowflake, warehouse.options.database)
    start = threading.Barrier(2)
    rows: list[int] = []

    def work(opened: SnowflakeWarehouse) -> None:
        loader = loader_of(folder, opened, at_once=4)
        start.wait()
        rows.append(loader.load_all().rows)

    threads = [threading.Thread(target=work, args=[opened]) for opened in (warehouse, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(rows) == 2
    assert sum(rows) == ALL
    assert rows_loaded(warehouse) == ALL
    other.close()
    warehouse.close()


def test_a_load_that_waits_longer_than_its_lock_timeout_says_so_and_leaves_nothing(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
) -> None:
    impatient = open_snowflake(snowflake, warehouse.options.database, lock_wait_s=1)
    zombie = Session(warehouse.options, lock_wait_s=5)
    zombie.run("begin")
    zombie.run("update bronze.load_lock set load_id = load_id + 1")
    began = time.monotonic()

    with pytest.raises(TransientError, match="LOCK_TIMEOUT"):
        loader_of(folder, impatient).load_once()
    waited_s = time.monotonic() - began
    before = rows_loaded(warehouse)
    zombie.close()
    result = loader_of(folder, impatient).load_once()

    assert 1 <= waited_s < 20
    assert before == 0
    assert staged(warehouse) == []
    assert (result.load_id, result.rows) == (1, ALL)
    impatient.close()
    warehouse.close()


def test_two_that_prepare_at_once_make_one_lock_row_and_one_identity(
    snowflake: SnowflakeServer,
    snowflake_database: str,
) -> None:
    opened = [open_snowflake(snowflake, snowflake_database) for _ in range(2)]
    opened[0].query("select 1")
    errors: list[Exception] = []

    def work(each: SnowflakeWarehouse) -> None:
        try:
            each.prepare()
        except (ConfigError, TransientError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[each]) for each in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened[0].prepare()

    assert len(opened[0].query("select * from bronze.load_lock")) == 1
    assert len(opened[0].query("select * from bronze.identity")) == 1
    for each in opened:
        each.close()


def test_a_zombie_that_wakes_with_a_stage_of_its_own_loads_nothing_twice(
    folder: Path,
    warehouse: SnowflakeWarehouse,
    snowflake: SnowflakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has uploaded, then sleeps until another loader has loaded the same objects."""
    zombie = SleepingWarehouse(snowflake_options(snowflake, warehouse.options.database))
    zombie.wakes = lambda: loader_of(folder, warehouse).load_all()

    result = loader_of(folder, zombie).load_once()

    assert result.load_id is None
    assert rows_loaded(warehouse) == ALL
    assert staged(warehouse) == []
    zombie.close()
    warehouse.close()


class SleepingWarehouse(SnowflakeWarehouse):
    """Does something else between its upload and its first statement."""

    def __init__(self, options: SnowflakeOptions) -> None:
        super().__init__(options)
        self.wakes = lambda: None

    def _begin(self, *arguments: object) -> object:
        wakes, self.wakes = self.wakes, lambda: None
        wakes()
        return super()._begin(*arguments)  # type: ignore[arg-type]
