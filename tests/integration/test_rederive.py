"""Silver and gold once more from bronze: the same, mended where damaged, whole when killed."""

import signal
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from support.audited import Road, first_row
from support.builds import EXACT_TABLES, RUN_COLUMNS
from support.processes import run_with_failpoints
from tickhouse.errors import ConfigError
from tickhouse.runtime import backends
from tickhouse.runtime.owner import OwnerServer, connect_owner
from tickhouse.runtime.rederiving import rederive
from tickhouse.runtime.result import VerbResult
from tickhouse.runtime.warehousing import refine
from tickhouse.settings import Settings
from tickhouse.transform.published import PublishedGold
from tickhouse.transform.rederiving import Anew

MIDDLE = 2
"""A load in the middle."""


@pytest.fixture
def road(road_folder: Path, tmp_path: Path) -> Road:
    return Road(road_folder, tmp_path / "data")


def again(folder: Path, received_from: str | None = None, to: str | None = None) -> VerbResult:
    return rederive(Settings(data=folder), Namespace(received_from=received_from, received_to=to))


def again_from(folder: str, load_id: str) -> None:
    """Derive once more what came after a load, in a process that is killed."""
    settings = Settings(data=Path(folder))
    with closing(backends.open_warehouse(settings)) as warehouse:
        builder = backends.make_builder(warehouse, Path(folder) / "warehouse" / "dbt")
        builder.build(Anew(int(load_id)))


def tables(road: Road) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of every table of silver and gold, run columns aside."""
    with duckdb.connect(road.database, read_only=True) as connection:
        return {
            table: connection.execute(
                f"select * exclude ({', '.join(_run_columns(connection, table))}) from {table}"
                " order by all"
            ).fetchall()
            for table in EXACT_TABLES
        }


def _run_columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    columns = [row[0] for row in connection.execute(f"describe {table}").fetchall()]
    return [column for column in RUN_COLUMNS if column in columns]


def differing(here: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    return [name for name in here if here[name] != there[name]]


def receipt_of(road: Road, load_id: int) -> str:
    """A receipt of a load that no earlier one has reached."""
    rows = road.ask(
        f"select max(received_at) from bronze.trades where load_id = {load_id} and received_at >"
        f" (select max(received_at) from bronze.trades where load_id < {load_id})"
    )
    return f"{rows[0][0].isoformat()}Z"


EVERYTHING: Callable[[Road], str | None] = lambda _road: None  # noqa: E731 - a parameter
A_RANGE: Callable[[Road], str | None] = lambda road: receipt_of(road, MIDDLE + 1)  # noqa: E731


@pytest.mark.long
def test_deriving_twice_more_changes_nothing(road: Road) -> None:
    before, version = tables(road), published(road)
    done = [again(road.folder), again(road.folder, A_RANGE(road))]

    assert [] == differing(before, tables(road))
    assert [True, True] == [result.content["built"] for result in done]
    assert version + 2 == published(road)
    assert road.audit(gold=True).ok


@pytest.mark.parametrize("received_from", [EVERYTHING, A_RANGE], ids=["everything", "a range"])
def test_what_was_changed_by_hand_is_mended_and_published(
    road: Road, received_from: Callable[[Road], str | None]
) -> None:
    before, start = tables(road), received_from(road)
    road.change(
        f"update silver.trades set price = price + 1 where {newest('silver.trades')}",
        "delete from silver.trades where rowid = (select max(rowid) - 1 from silver.trades)",
        f"update gold.bars_1d set volume = volume + 7 where {first_row('gold.bars_1d')}",
        f"update silver.quotes set price = price + 1 where {first_row('silver.quotes')}",
    )
    damaged = differing(before, tables(road))
    again(road.folder, start)
    gold = PublishedGold(road.folder / "gold")

    assert {"silver.trades", "silver.quotes", "gold.bars_1d"} <= set(damaged)
    assert [] == differing(before, tables(road))
    assert (
        road.ask("select sum(price), count(*) from silver.trades")
        == gold.query("select sum(price), count(*) from silver.trades").rows
    )


def newest(table: str) -> str:
    return f"rowid = (select max(rowid) from {table})"


@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param("rederive.rewind.before", marks=pytest.mark.long),
        pytest.param("rederive.rewind.after", marks=pytest.mark.long),
        pytest.param("build.trades.after", marks=pytest.mark.long),
        "build.kpi.after",
    ],
)
def test_a_killed_one_leaves_what_the_next_build_completes(road: Road, failpoint: str) -> None:
    before = tables(road)
    code = run_with_failpoints(
        again_from, str(road.folder), str(MIDDLE), failpoints=f"{failpoint}=kill", timeout_s=240
    )
    refine(Settings(data=road.folder), Namespace(once=True))

    assert code == -signal.SIGKILL
    assert [] == differing(before, tables(road))
    assert road.audit(gold=True).ok


def test_a_range_reads_only_what_was_loaded_since(road: Road) -> None:
    """Older rows of appended tables are not touched: a change by hand stays there."""
    road.change("update silver.trades set conditions = 'by hand'")
    after = again(road.folder, A_RANGE(road)).content["after_load_id"]
    rows = road.ask(
        "select load_id > $1, count(*) from silver.trades where conditions = 'by hand' group by all"
        .replace("$1", str(after))
    )  # fmt: skip

    assert 1 <= after < road.ask("select max(load_id) from silver.trades")[0][0]
    ((is_newer, count),) = rows
    assert not is_newer
    assert count > 0


def test_a_range_without_frames_builds_nothing(road: Road) -> None:
    version = published(road)
    result = again(road.folder, to="2001-01-01T00:00:00Z")

    assert result.content == {"ok": True, "built": False, "after_load_id": None}
    assert version == published(road)


def test_a_wrong_moment_is_refused(road: Road) -> None:
    with pytest.raises(ConfigError, match="--from 'yesterday': give a moment such as"):
        again(road.folder, "yesterday")


def test_the_owner_of_the_file_is_asked_to_do_it(tmp_path: Path) -> None:
    server = OwnerServer(tmp_path, reader=Nothing())
    owner = connect_owner(tmp_path)
    assert owner is not None
    asked: list[Anew | None] = []
    try:

        def answer() -> None:
            cycle, future = server.cycles.get(timeout=10)
            asked.append(cycle.anew)
            future.set_result({"gold_load_id": 5})

        answering = threading.Thread(target=answer)
        answering.start()
        facts = owner.cycle(load=False, build=True, anew=Anew(4))
        answering.join()
    finally:
        owner.close()
        server.close()

    assert (facts, asked) == ({"gold_load_id": 5}, [Anew(4)])


class Nothing:
    def query(self, sql: str, parameters: object = ()) -> list[tuple[Any, ...]]:
        return []


def published(road: Road) -> int:
    manifest = PublishedGold(road.folder / "gold").manifest()
    assert manifest is not None
    return manifest.version
