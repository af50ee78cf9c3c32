"""`up --once` on real Kafka and real S3: the same gold as the embedded road, row for row."""

import shutil
from pathlib import Path

import pytest

from proofs.kills import Road
from proofs.road import IDS
from support.cluster import Cluster, rows_by_table
from tests.servers.kafka import KafkaServer

DATA = Path(__file__).parents[1] / "data"
BINANCE = f"replay:{DATA}/binance_ws_2024?speed=max"
LEVEL_S_MAX = 240
STORES = ("seaweedfs", pytest.param("minio", marks=pytest.mark.long))


class Done:
    """A road that was run to its end, and what it left."""

    def __init__(self, road: Road, cluster: Cluster) -> None:
        self.road = road
        self.cluster = cluster
        road.start("--once")
        try:
            self.code = road.wait(LEVEL_S_MAX)
        finally:
            road.stop()
        self.audit = road.ask("audit", "--deep")
        self.spool = road.data.parent / "spool"
        shutil.copytree(road.data / "log", self.spool)

    def embedded_on_a_copy_of_the_spool(self, folder: Path) -> Path:
        """The embedded road over the frames that this one recorded; its warehouse."""
        shutil.copytree(self.spool, folder / "log")
        road = Road(folder, self.road.environment["TICKHOUSE_SOURCE"])
        for verb in ("land", "load", "build"):
            assert road.ask(verb, "--once")["ok"]
        return folder / "warehouse" / "warehouse.duckdb"


@pytest.fixture(scope="module", params=STORES)
def done(
    request: pytest.FixtureRequest,
    kafka: KafkaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Done:
    store = request.getfixturevalue(request.param)
    name = f"up-{request.param}-{tmp_path_factory.getbasetemp().name}".replace("_", "-").lower()
    cluster = Cluster(kafka, store, name, name)
    folder = tmp_path_factory.mktemp(request.param)
    return Done(cluster.road(folder / "data", BINANCE), cluster)


def test_the_whole_road_is_level_and_audited_clean(done: Done) -> None:
    assert done.code == 0
    assert done.audit["ok"], done.audit
    counts = [done.audit[name] for name in ("lost", "duplicated", "corrupt", "in_flight")]
    assert counts == [0, 0, 0, 0]
    layers = {layer["name"]: layer for layer in done.audit["layers"]}
    assert layers["spool_to_log"]["checked"] == layers["log_to_bronze"]["checked"] > 0
    assert layers["spool_to_log"]["sums"] == {"sent_again": "0", "foreign": "0"}


def test_every_trade_id_of_the_exchange_is_in_silver_once(done: Done) -> None:
    rows = done.road.ask(
        "query",
        "select symbol, count(*), count(distinct trade_id), min(trade_id::bigint),"
        " max(trade_id::bigint) from silver.trades group by symbol order by symbol",
    )["rows"]

    assert rows == [
        [symbol, last - first + 1, last - first + 1, first, last]
        for symbol, (first, last) in sorted(IDS.items())
    ]


def test_silver_and_gold_equal_those_of_the_embedded_road_row_for_row(
    done: Done, tmp_path: Path
) -> None:
    database = done.embedded_on_a_copy_of_the_spool(tmp_path / "embedded")

    here = rows_by_table(done.road.data / "warehouse" / "warehouse.duckdb")
    there = rows_by_table(database)

    assert {name: len(rows) for name, rows in here.items()} == {
        name: len(rows) for name, rows in there.items()
    }
    assert [name for name in here if here[name] != there[name]] == []
    assert len(here["gold.bars_1s"]) > 100


@pytest.mark.long
def test_rebuild_from_the_bucket_alone_is_identical(done: Done, tmp_path: Path) -> None:
    found = done.road.ask("rebuild", "--to", str(tmp_path / "rebuilt"), "--compare")

    assert found["identical"], found


def test_status_shows_spool_log_lake_and_gold_level(done: Done) -> None:
    found = done.road.ask("status")

    assert found["ok"], found["problems"]
    assert len(found["partitions"]) >= 2
    for level in found["partitions"]:
        assert (level["relayed"], level["spool_lag"]) == (level["spool_end"], 0), level
        assert not level["waiting"], level


def test_show_prints_the_same_frames_from_log_and_lake(done: Done) -> None:
    log, lake = (
        done.road.ask("show", place, "--from-offset", "100", "--limit", "5")["frames"]
        for place in ("log", "lake")
    )

    assert log == lake
    assert len(log) == 5


def test_doctor_is_content(done: Done) -> None:
    found = done.road.ask("doctor")

    assert found["ok"], found["checks"]


def test_stages_run_once_more_find_nothing_to_do(done: Done) -> None:
    landed = done.road.ask("land", "--once")
    again = done.road.ask("record", "--once")

    assert landed["ok"]
    assert landed["records"] == 0
    assert again["ok"]
    assert again["frames"] == 0


def test_the_lake_in_the_bucket_is_replayed(done: Done, tmp_path: Path) -> None:
    """Into an embedded road: a bucket is a source like any other."""
    lake = done.cluster.lake.replace("?", "?speed=max&symbols=BINANCE:BTCUSDT&")
    road = Road(tmp_path / "again", f"replay:{lake}")
    road.environment |= done.cluster.store.credentials
    found = road.ask("record", "--once")

    first, last = IDS["BINANCE:BTCUSDT"]
    assert found["frames"] == last - first + 1, found
