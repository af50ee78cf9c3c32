"""What is particular to the embedded warehouse: one owning process, one file, Parquet."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from support.lake_builder import Lake, chain_id, run_of
from tickhouse.errors import BusyError, ConfigError, RefusedError
from tickhouse.warehouse import duckdb as backend
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.loader import Loader

TRADES = chain_id(0)
HOLD = """
import sys
from pathlib import Path
from tickhouse.warehouse.duckdb import DuckDBWarehouse
warehouse = DuckDBWarehouse(Path(sys.argv[1]))
warehouse.prepare()
print("open", flush=True)
sys.stdin.readline()
warehouse.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse" / "warehouse.duckdb"


@pytest.fixture
def warehouse(path: Path) -> Iterator[DuckDBWarehouse]:
    opened = DuckDBWarehouse(path)
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the warehouse open until a line is written to it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_has_the_file_and_what_to_do(
    path: Path, holder: "subprocess.Popen[str]"
) -> None:
    waited: list[float] = []
    times = iter([0.0, 1.0, 2.0, 3.0])

    with pytest.raises(BusyError, match=f"process {holder.pid} .*tickhouse refine"):
        DuckDBWarehouse(path, wait_s=2.0, monotonic=lambda: next(times), sleep=waited.append)

    assert len(waited) == 1


def test_a_second_process_gets_the_file_when_the_first_gives_it_back(
    path: Path, holder: "subprocess.Popen[str]"
) -> None:
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()

    warehouse = DuckDBWarehouse(path, wait_s=30.0)

    assert warehouse.positions() == {}
    warehouse.close()


def test_two_loaders_in_one_process_over_two_openings_load_everything_once(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake")
    lake.add([*run_of(TRADES, objects=30, rows=2), *run_of(chain_id(1), objects=30, rows=2)])
    second = DuckDBWarehouse(path)
    second.prepare()
    loaders = [Loader(lake.store, opened, objects_max=7) for opened in (warehouse, second)]
    rows: list[int] = []
    threads = [
        threading.Thread(target=lambda loader=loader: rows.append(loader.load_all().rows))
        for loader in loaders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counts = warehouse.query(
        "select count(*), count(distinct (part, log_offset)),"
        " (select sum(n) from bronze.load_ledger) from bronze.trades"
    )
    assert sum(rows) == 120
    assert counts == [(120, 120, 120)]
    second.close()


def test_dbt_and_the_loader_have_the_file_open_at_once_and_see_each_others_commits(
    warehouse: DuckDBWarehouse, path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from dbt.adapters.duckdb.credentials import DuckDBCredentials
        from dbt.adapters.duckdb.environments import create
    environment = create(DuckDBCredentials(path=str(path), database="warehouse", schema="gold"))
    handle = environment.handle()
    cursor = handle.cursor()

    warehouse.load(run_of(TRADES, objects=1, rows=3))
    seen_by_dbt = cursor.execute("select count(*) from bronze.trades").fetchall()
    cursor.execute("create table bronze.made_by_dbt as select 7 as x")
    seen_here = warehouse.query("select x from bronze.made_by_dbt")
    second = DuckDBWarehouse(path)
    handle.close()
    environment.close()
    second.close()

    assert (seen_by_dbt, seen_here) == ([(3,)], [(7,)])
    assert warehouse.load(run_of(TRADES, objects=2, rows=3)).rows == 3


def test_a_warehouse_opens_after_dbt_has_opened_the_file_first(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from dbt.adapters.duckdb.credentials import DuckDBCredentials
        from dbt.adapters.duckdb.environments import create
    path.parent.mkdir()
    environment = create(DuckDBCredentials(path=str(path), database="warehouse", schema="gold"))
    handle = environment.handle()

    warehouse = DuckDBWarehouse(path)
    warehouse.prepare()

    assert handle.cursor().execute("select count(*) from bronze.trades").fetchall() == [(0,)]
    warehouse.close()
    handle.close()
    environment.close()


def test_the_warehouse_has_a_random_id_of_its_own(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    other = DuckDBWarehouse(tmp_path / "other.duckdb")
    other.prepare()

    ids = {w.query("select warehouse_id from bronze.identity")[0][0] for w in (warehouse, other)}

    assert len(ids) == 2
    other.close()


def damaged_copies(content: bytes) -> Iterator[tuple[str, bytes]]:
    yield "rubbish", b"torn" * 1000
    yield "cut in half", content[: len(content) // 2]
    yield "cut in its header", content[:5000]
    for place in (3, 5000, 9000, 13_000):
        yield (
            f"bit flipped at {place}",
            (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]),
        )


def test_a_torn_file_is_named_with_what_to_do_and_left_as_it_is(path: Path) -> None:
    warehouse = DuckDBWarehouse(path)
    warehouse.prepare()
    warehouse.load(run_of(TRADES, objects=2, rows=500))
    warehouse.close()
    content = path.read_bytes()

    for name, damaged in damaged_copies(content):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"warehouse\.duckdb: .*move this file"):
            _open_and_read(path)
        assert path.read_bytes() == damaged, name


def _open_and_read(path: Path) -> None:
    warehouse = DuckDBWarehouse(path)
    try:
        warehouse.prepare()
        warehouse.query("select max(payload) from bronze.trades")
    finally:
        warehouse.close()


def test_a_file_whose_making_was_cut_short_is_made_again(path: Path) -> None:
    path.parent.mkdir()
    path.touch()

    warehouse = DuckDBWarehouse(path)
    warehouse.prepare()

    assert warehouse.positions() == {}
    warehouse.close()


def test_a_query_of_too_many_rows_is_refused(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "QUERY_ROWS_MAX", 10)

    assert len(warehouse.query("from range(10)")) == 10
    with pytest.raises(ConfigError, match="over 10 rows"):
        warehouse.query("from range(11)")


def test_a_query_that_takes_too_long_is_stopped(path: Path) -> None:
    warehouse = DuckDBWarehouse(path, query_s_max=0.1)

    with pytest.raises(ConfigError, match=r"over 0\.1 s"):
        warehouse.query("select count(*) from range(100000000) a, range(100000) b")

    assert warehouse.query("select 1") == [(1,)]
    warehouse.close()


def test_queries_run_in_several_threads_while_a_load_runs(warehouse: DuckDBWarehouse) -> None:
    objects = run_of(TRADES, objects=30, rows=5)
    seen: list[list[tuple[int, int]]] = []
    done = threading.Event()

    def read() -> None:
        rows: list[tuple[int, int]] = []
        while not done.is_set():
            rows.extend(
                warehouse.query(
                    "select count(*), coalesce((select sum(n) from bronze.load_ledger), 0)::bigint"
                    " from bronze.trades"
                )
            )
        seen.append(rows)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for end in range(1, 31):
        warehouse.load(objects[:end])
    done.set()
    for thread in threads:
        thread.join()

    assert len(seen) == 3
    assert all(rows == ledger for answers in seen for rows, ledger in answers)
    assert warehouse.query("select count(*) from bronze.trades") == [(150,)]


def test_rows_are_copied_to_a_parquet_file_in_the_order_asked_for(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    target = tmp_path / "it's gold.parquet"

    rows = warehouse.copy_to_parquet(
        "select i, (i / 8)::decimal(18,8) as price from range(1000) r(i)",
        target,
        order_by="i desc",
    )

    name = str(target).replace("'", "''")
    read = duckdb.sql(f"from read_parquet('{name}')").fetchall()
    compressions = duckdb.sql(f"select distinct compression from parquet_metadata('{name}')")
    assert rows == 1000
    assert read[0] == (999, Decimal("124.87500000"))
    assert [row[0] for row in read] == list(range(999, -1, -1))
    assert compressions.fetchall() == [("ZSTD",)]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [target.name]


def test_a_parquet_file_is_flushed_before_it_has_its_name(
    warehouse: DuckDBWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    flushed: list[tuple[Path, int, bool]] = []

    def note(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((name, os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    warehouse.copy_to_parquet("select 1 as i", path)

    assert flushed == [(tmp_path / ".rows.parquet.tmp", path.stat().st_size, False)]


def test_a_wrong_select_leaves_no_parquet_file(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refused"):
        warehouse.copy_to_parquet("select nothing from nowhere", tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="only one SELECT"):
        warehouse.copy_to_parquet("select 1; drop table bronze.trades", tmp_path / "x.parquet")

    assert not list(tmp_path.glob("*.parquet*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_parquet_file(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    (tmp_path / ".x.parquet.tmp").symlink_to("/dev/full")

    with pytest.raises(RefusedError, match="Make room"):
        warehouse.copy_to_parquet("select * from range(100000)", tmp_path / "x.parquet")

    assert not (tmp_path / "x.parquet").exists()
    assert not list(tmp_path.glob(".x.parquet*"))
