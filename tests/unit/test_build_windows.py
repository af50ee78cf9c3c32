"""How a build is pinned, repeated, stopped halfway, refused and reported."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.bronze_rows import T0, BronzeFrame, BronzeWarehouse, finnhub, trade
from support.builds import (
    EXACT_TABLES,
    builder_of,
    new_warehouse,
    rows_of,
    spied_statements,
)
from tickhouse.errors import BusyError
from tickhouse.transform.builder import Builder, BuildError
from tickhouse.transform.positions import pin, read_positions

NOW = datetime(2024, 8, 9, tzinfo=UTC).replace(tzinfo=None)


def frames(first: int, count: int = 5) -> list[BronzeFrame]:
    return [
        BronzeFrame(
            payload=finnhub(
                trade("AAPL", T0 + timedelta(seconds=7 * seq), 100 + seq % 3, 10),
                trade("MSFT", T0 + timedelta(seconds=seq), None, 10),
            ),
            seq=seq,
            received_at=T0 + timedelta(seconds=7 * seq + 1),
        )
        for seq in range(first, first + count)
    ]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[BronzeWarehouse, Builder]]:
    warehouse = new_warehouse(tmp_path / "w")
    with builder_of(warehouse) as builder:
        yield warehouse, builder


def positions(warehouse: BronzeWarehouse) -> set[tuple[int, ...]]:
    return set(
        warehouse.query(
            "select load_id from meta.positions where model not in"
            " ('instrument_list', 'trade_conditions', 'calendar')"
        )
    )


def test_a_build_with_nothing_new_runs_nothing(bench: tuple[BronzeWarehouse, Builder]) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    first = builder.build()
    second = builder.build()

    assert (True, 1, 0) == (first.changed, first.load_id, first.previous_load_id)
    assert (False, 1, 1, 0) == (
        second.changed,
        second.load_id,
        second.previous_load_id,
        second.models,
    )


def test_an_empty_warehouse_gets_all_tables_once(bench: tuple[BronzeWarehouse, Builder]) -> None:
    warehouse, builder = bench

    assert builder.build().changed
    assert not builder.build().changed
    assert [] == warehouse.query("from gold.bars_1m")


def test_every_model_moves_its_position_when_its_result_is_empty(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    warehouse.load([BronzeFrame(payload='{"type":"ping"}', seq=5)])
    builder.build()

    assert {(2,)} == positions(warehouse)


def test_a_build_is_pinned_to_the_highest_load_id_at_its_start(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    run = builder._dbt.run

    def load_meanwhile(arguments: list[str], **options: int) -> object:
        if warehouse.load_id == 1 and arguments[0] == "build":
            warehouse.load(frames(5))
        return run(arguments, **options)

    builder._dbt.run = load_meanwhile  # type: ignore[method-assign,assignment]
    result = builder.build()

    assert (2, 1) == (warehouse.load_id, result.load_id)
    assert {(1,)} == positions(warehouse)
    assert [(1, 5)] == warehouse.query("select max(load_id), count(*) from silver.trades")


def test_temporary_tables_carry_the_build_id(
    bench: tuple[BronzeWarehouse, Builder], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    warehouse.load(frames(5))
    statements = spied_statements(builder, monkeypatch)
    build_id = builder.build().build_id

    temporary = [text for text in statements if "temporary table" in text]
    assert len(temporary) > 5
    assert [] == [text for text in temporary if f"__build_{build_id} as" not in text]


def test_what_is_far_behind_is_built_in_several_windows(tmp_path: Path) -> None:
    warehouse = new_warehouse(tmp_path / "w")
    for load in range(4):
        warehouse.load(frames(5 * load))
    with builder_of(warehouse, frames_max=10) as builder:
        result = builder.build()

    assert (2, 4) == (result.builds, result.load_id)
    assert [(20,)] == warehouse.query("select count(*) from silver.trades")


@pytest.mark.parametrize(
    "built",
    [
        pytest.param(["frame_ranges", "repeated_frames"], marks=pytest.mark.long),
        ["+trades"],
        pytest.param(["+bars_1d", "+completeness"], marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_build_stopped_between_models_goes_on_where_each_stands(
    tmp_path: Path, built: list[str]
) -> None:
    whole, stopped = new_warehouse(tmp_path / "whole"), new_warehouse(tmp_path / "stopped")
    loads = [frames(0), [*frames(5), *frames(8, 1)], [*frames(10), *frames(3, 4)]]
    with builder_of(whole) as builder:
        for load in loads:
            whole.load(load)
        builder.build()
    with builder_of(stopped) as builder:
        stopped.load(loads[0])
        builder.build()
        stopped.load(loads[1])
        with stopped.connect() as connection:
            windows = builder._windows(connection, read_positions(connection), 2, frozenset())
            assert windows is not None
            build_id = pin(connection, windows, started_at=NOW)
        builder._dbt.run(["run", "--select", *built], build_id=build_id)
        stopped.load(loads[2])
        builder.build()

    for table in EXACT_TABLES:
        assert rows_of(whole, table) == rows_of(stopped, table), table


def test_a_failing_data_test_is_named_with_a_sample_until_it_is_mended(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    warehouse.load(frames(5))
    run = builder._dbt.run

    def damage(arguments: list[str], **options: int) -> object:
        results = run(arguments, **options)
        warehouse.execute("update silver.trades set price = 0 where session_seq = 7")
        return [*results, *run(["test", "--select", "test_type:data"])]

    builder._dbt.run = damage  # type: ignore[method-assign,assignment]
    with pytest.raises(BuildError, match=r"silver_trades_are_whole found 1 rows.*'session_seq': 7"):
        builder.build()
    builder._dbt.run = run  # type: ignore[method-assign]
    with pytest.raises(BuildError, match="silver_trades_are_whole"):
        builder.build()
    warehouse.execute("update silver.trades set price = 100 where session_seq = 7")
    builder.build()

    outcomes = warehouse.query("select failure is null from meta.builds order by build_id")
    assert [(True,), (False,), (False,), (True,)] == outcomes


def test_a_failing_model_leaves_its_rows_and_position_alone(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    before = rows_of(warehouse, "gold.bars_1s", without=())
    warehouse.load(frames(5))
    warehouse.execute("alter table gold.bars_1s add column surprise int")
    with pytest.raises(BuildError, match="model bars_1s failed"):
        builder.build()
    warehouse.execute("alter table gold.bars_1s drop column surprise")

    assert before == rows_of(warehouse, "gold.bars_1s", without=())
    assert [(1, 2)] == warehouse.query(
        "select b.load_id, t.load_id from meta.positions b, meta.positions t"
        " where b.model = 'bars_1s' and t.model = 'trades'"
    )
    assert 2 == builder.build().load_id


def test_a_build_aborts_where_another_moved_a_models_position(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    warehouse.load(frames(5))
    run = builder._dbt.run

    def overtaken(arguments: list[str], **options: int) -> object:
        warehouse.execute("update meta.positions set load_id = 2 where model = 'bars_1m'")
        return run(arguments, **options)

    builder._dbt.run = overtaken  # type: ignore[method-assign,assignment]
    with pytest.raises(BuildError, match="position of bars_1m was moved by another build"):
        builder.build()
    rows = warehouse.query("select max(load_id) from gold.bars_1m")

    assert [(1,)] == rows


def test_a_second_build_at_the_same_time_is_refused(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    started, go_on = threading.Event(), threading.Event()
    run = builder._dbt.run

    def wait(arguments: list[str], **options: int) -> object:
        started.set()
        go_on.wait(30)
        return run(arguments, **options)

    builder._dbt.run = wait  # type: ignore[method-assign,assignment]
    thread = threading.Thread(target=builder.build)
    thread.start()
    started.wait(30)
    try:
        with pytest.raises(BusyError, match="a build is running already"):
            builder.build()
    finally:
        go_on.set()
        thread.join()

    assert [(5,)] == warehouse.query("select count(*) from silver.trades")


@pytest.mark.parametrize(
    "change",
    [
        "update meta.positions set fingerprint = 'other' where model = 'bars_1m'",
        "update gold.bars_1m set close = 1; drop table gold.bars_1m",
    ],
)
def test_a_model_with_another_fingerprint_or_without_table_is_built_afresh_with_all_downstream(
    bench: tuple[BronzeWarehouse, Builder], change: str
) -> None:
    warehouse, builder = bench
    for first in (0, 5):
        warehouse.load(frames(first))
        builder.build()
    before = {table: rows_of(warehouse, table) for table in EXACT_TABLES}
    warehouse.execute("update gold.bars_5m set close = 1")
    warehouse.execute(change)
    builder.build()

    full = warehouse.query("select model from meta.windows where is_full order by model")
    assert [("bars_1h",), ("bars_1m",), ("bars_5m",), ("tests",), ("volatility_1m",)] == full
    assert before == {table: rows_of(warehouse, table) for table in EXACT_TABLES}


def test_seeds_are_loaded_when_their_file_changed(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    warehouse.execute(
        "delete from silver.instrument_list;"
        "update meta.positions set fingerprint = 'older' where model = 'instrument_list'"
    )
    warehouse.load(frames(5))
    builder.build()

    assert [("Apple Inc.",)] == warehouse.query("select name from gold.kpi where symbol = 'AAPL'")


def test_a_bar_that_does_not_change_keeps_its_load_id(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(frames(0))
    builder.build()
    official_close = trade("AAPL", T0, 150, 10, ["16"])
    late = trade("AAPL", T0 + timedelta(seconds=7), 50, 10)
    warehouse.load([BronzeFrame(payload=finnhub(official_close, late), seq=5, received_at=T0)])
    builder.build()

    bars = warehouse.query(
        "select load_id, cast(low as int) from gold.bars_1s where symbol = 'AAPL' order by bar_at"
    )
    assert [(1, 100), (2, 50), (1, 102), (1, 100), (1, 101)] == bars


def test_nothing_is_written_into_the_package_nor_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project = Path(__file__).parents[2] / "src/tickhouse/transform/project"
    before = sorted(project.rglob("*"))
    warehouse = new_warehouse(tmp_path / "w")
    with builder_of(warehouse) as builder:
        builder.build()

    assert before == sorted(project.rglob("*"))
    assert "" == capfd.readouterr().out
    assert [] == list((tmp_path / "w" / "dbt").glob("logs/*"))


def test_the_file_is_free_after_close(tmp_path: Path) -> None:
    warehouse = new_warehouse(tmp_path / "w")
    with builder_of(warehouse) as builder:
        builder.build()
    moved = warehouse.path.rename(tmp_path / "moved.duckdb")

    assert [(0,)] == BronzeWarehouse(moved).query("select count(*) from silver.trades")


@pytest.mark.long
def test_a_rebuild_that_loads_in_another_order_agrees(tmp_path: Path) -> None:
    """Ticks of the same event time and repeats come in every order of loads and log positions."""
    at = T0 + timedelta(seconds=1)
    everything = [
        BronzeFrame(
            payload=finnhub(
                trade("AAPL", at, 100 + seq, 10), trade("AAPL", at, 200 + seq, 0), {"p": seq}
            ),
            seq=seq,
            session=session,
            received_at=at + timedelta(milliseconds=seq % 2),
        )
        for session in ("s1", "s10", "s2")
        for seq in range(4)
    ]
    everything.append(everything[3])
    forwards, backwards = new_warehouse(tmp_path / "forwards"), new_warehouse(tmp_path / "back")
    for warehouse, order in ((forwards, everything), (backwards, everything[::-1])):
        with builder_of(warehouse) as builder:
            for first in (0, 5):
                warehouse.load(order[first : first + 5] if first == 0 else order[5:])
                builder.build()

    placed = ("load_id", "revision", "topic_id", "part", "log_offset")
    for table in EXACT_TABLES:
        assert rows_of(forwards, table, without=placed) == rows_of(
            backwards, table, without=placed
        ), table
    bars = forwards.query("select cast(open as int), cast(close as int) from gold.bars_1s")
    assert [(100, 103)] == bars


def test_no_model_calls_now() -> None:
    project = Path(__file__).parents[2] / "src/tickhouse/transform/project"
    clocks = re.compile(
        r"\b(now|today|get_current_\w+|random|uuid)\s*\(|\bcurrent_(timestamp|date)"
    )
    sql = {path.name: path.read_text() for path in project.rglob("*.sql")}

    assert len(sql) > 25
    assert [] == [name for name, text in sql.items() if clocks.search(text)]
