"""Builds in the fake Snowflake: overtaken, failing and stopped halfway, rows and position agree."""

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from support.bronze_rows import T0, BronzeFrame, finnhub, trade
from support.snowflake_bronze import SnowflakeBronze, snowflake_builder
from tests.servers.snowflake import SnowflakeServer
from tickhouse.transform.builder import Builder, BuildError
from tickhouse.warehouse.snowflake_session import Session

pytestmark = pytest.mark.warehouse

LOCK_HELD_S = 4
Bench = tuple[SnowflakeBronze, Builder]


def frames(first: int, count: int = 3) -> list[BronzeFrame]:
    return [
        BronzeFrame(
            payload=finnhub(trade("AAPL", T0 + timedelta(seconds=7 * seq), 100 + seq, 10)),
            seq=seq,
            received_at=T0 + timedelta(seconds=7 * seq + 1),
        )
        for seq in range(first, first + count)
    ]


@pytest.fixture
def bench(
    snowflake: SnowflakeServer,
    snowflake_database: str,
    tmp_path: Path,
) -> Iterator[Bench]:
    """A database with one load, built."""
    warehouse = SnowflakeBronze(snowflake, snowflake_database)
    with snowflake_builder(warehouse, tmp_path) as builder:
        warehouse.load(frames(0))
        builder.build()
        yield warehouse, builder
    warehouse.session.close()


def bars(warehouse: SnowflakeBronze, table: str = "gold.bars_1m") -> list[tuple[object, ...]]:
    return warehouse.query(f"select symbol, bar_at, close, volume from {table} order by 1, 2")


def test_an_overtaken_build_waits_for_the_lock_and_changes_nothing(bench: Bench) -> None:
    warehouse, builder = bench
    before = bars(warehouse)
    warehouse.load(frames(3))
    other = warehouse.new_session()
    run = builder._dbt.run

    def overtaken(arguments: list[str], **options: int) -> object:
        other.run("begin")
        other.run("update meta.positions set load_id = 2 where model = 'bars_1m'")
        timer = threading.Timer(LOCK_HELD_S, lambda: other.run("commit"))
        timer.start()
        return run(arguments, **options)

    builder._dbt.run = overtaken  # type: ignore[method-assign,assignment]
    with pytest.raises(BuildError, match="position of bars_1m was moved by another build"):
        builder.build()
    other.close()

    assert before == bars(warehouse)


def test_a_failing_insert_leaves_rows_and_position_alone_and_no_lock(bench: Bench) -> None:
    warehouse, builder = bench
    before = bars(warehouse, "gold.bars_1s")
    warehouse.load(frames(3))
    warehouse.execute("alter table gold.bars_1s add column surprise int")
    with pytest.raises(BuildError, match="model bars_1s failed"):
        builder.build()
    with closing(Session(warehouse.options, lock_wait_s=1)) as other:
        # Waits for whoever still has a transaction open, and then fails.
        other.run("update meta.positions set build_id = build_id")
        other.run("delete from gold.bars_1s where false")
    warehouse.execute("alter table gold.bars_1s drop column surprise")

    assert before == bars(warehouse, "gold.bars_1s")
    assert [(1,)] == warehouse.query("select load_id from meta.positions where model = 'bars_1s'")
    assert 2 == builder.build().load_id
    assert 6 == len(bars(warehouse, "gold.bars_1s"))


def test_a_table_that_another_build_made_than_its_position_tells_is_built_afresh(
    bench: Bench,
) -> None:
    """Snowflake commits a new table at once: a build may die before its position follows."""
    warehouse, builder = bench
    before = bars(warehouse), bars(warehouse, "gold.bars_1h")
    warehouse.execute(
        "create or replace transient table gold.bars_1m comment = 'made by build 99'"
        " as select * from gold.bars_1m where false"
    )
    assert [] == bars(warehouse)
    builder.build()

    assert before == (bars(warehouse), bars(warehouse, "gold.bars_1h"))
    full = warehouse.query("select model from meta.windows where is_full order by model")
    assert [("bars_1h",), ("bars_1m",), ("bars_5m",), ("tests",), ("volatility_1m",)] == full
    assert not builder.build().changed
