"""The report of what of the lake is old enough to go; and a comparison with a part of a rebuild."""

from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.audited import Road, first_row
from tickhouse.audit.rebuild import RebuildReport, rebuild
from tickhouse.errors import ConfigError
from tickhouse.runtime import backends
from tickhouse.runtime.proof import rebuild as rebuild_verb
from tickhouse.runtime.retention import retention
from tickhouse.settings import Settings


@pytest.fixture
def road(road_folder: Path, tmp_path: Path) -> Road:
    return Road(road_folder, tmp_path / "data")


def report(road: Road, days: float) -> dict[str, Any]:
    return retention(Settings(data=road.folder), Namespace(days=days)).content


def test_the_last_object_of_a_chain_is_never_old(road: Road) -> None:
    found = report(road, 0)

    assert found["objects"] == found["old_objects"] + len(found["chains"]) > len(found["chains"])
    assert 0 < found["old_bytes"] < found["bytes"]
    assert found["pending_objects"] == 0
    sizes = sum(path.stat().st_size for path in (road.folder / "lake").rglob("*.jsonl.gz"))
    assert found["bytes"] == sizes


def test_what_was_loaded_lately_is_not_old(road: Road) -> None:
    assert report(road, 1)["old_objects"] == 0


def test_what_is_not_loaded_yet_is_pending_however_old(road: Road) -> None:
    key, manifest = road.objects()[-1]
    road.change(
        f"delete from bronze.load_ledger where file = '{key}'",
        "update bronze.load_ledger set loaded_at = loaded_at - interval 90 days",
    )
    found = report(road, 30)
    chain = next(each for each in found["chains"] if key.startswith(each["chain"]))

    assert (1, road.object_path(key).stat().st_size) == (
        found["pending_objects"], found["pending_bytes"],
    )  # fmt: skip
    assert chain["old_objects"] == chain["objects"] - 1
    assert manifest.start > chain["begin"] == 0


def test_an_empty_lake_is_said_to_be_empty(tmp_path: Path) -> None:
    result = retention(Settings(data=tmp_path / "data"), Namespace(days=30.0))

    assert (result.content["objects"], result.text) == (0, "the lake is empty")


# -- a sample of a rebuild ---------------------------------------------------------------------


def sampled(road: Road, to: Path, sample: int) -> RebuildReport:
    with closing(backends.new_warehouse(road.database)) as original:
        return rebuild(
            store=road.store,
            folder=to,
            make_warehouse=backends.new_warehouse,
            make_builder=backends.make_builder,
            compare_with=original,
            sample=sample,
            sleep=lambda _seconds: None,
        )


def test_one_partition_is_rebuilt_and_what_follows_from_it_is_the_same(
    road: Road, tmp_path: Path
) -> None:
    found = sampled(road, tmp_path / "to", 1)

    assert found.identical, found
    assert found.sample is not None
    ((frames,),) = road.ask(f"select sum(n) from bronze.load_ledger where part = {found.sample[0]}")
    assert frames == found.rows < road.ask("select sum(n) from bronze.load_ledger")[0][0]
    assert "gold.kpi" not in {table.name for table in found.tables}
    assert next(t for t in found.tables if t.name == "silver.sessions").rows > 0


@pytest.mark.parametrize(
    "table",
    [
        pytest.param("silver.trades", marks=pytest.mark.long),
        "gold.bars_1m",
        pytest.param("silver.quotes", marks=pytest.mark.long),
    ],
)
def test_a_sample_finds_what_was_changed_in_it(road: Road, tmp_path: Path, table: str) -> None:
    column = {"silver.trades": "price", "gold.bars_1m": "volume", "silver.quotes": "price"}[table]
    road.change(f"update {table} set {column} = {column} + 1 where {first_row(table)}")
    found = sampled(road, tmp_path / "to", 99)

    assert found.identical is False
    assert [table] == [each.name for each in found.tables if not each.identical]


def test_a_sample_without_comparison_is_refused(tmp_path: Path) -> None:
    arguments = Namespace(to=tmp_path / "to", compare=False, sample=1)

    with pytest.raises(ConfigError, match="--sample is for --compare"):
        rebuild_verb(Settings(data=tmp_path), arguments)
