"""The verbs that ask, with Snowflake as the warehouse."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from support.audited import Road
from support.mirror import DATABASE
from tests.servers.snowflake import SnowflakeServer
from tickhouse.errors import ConfigError
from tickhouse.runtime.ask import doctor, query, status
from tickhouse.runtime.backend_checks import probe_snowflake
from tickhouse.runtime.proof import audit, rebuild
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM
from tickhouse.settings import Settings
from tickhouse.warehouse.snowflake import SnowflakeWarehouse

pytestmark = pytest.mark.warehouse

NOTHING = argparse.Namespace(accept=False)


@pytest.fixture
def settings(
    road_folder: Path, tmp_path: Path, mirrored: SnowflakeWarehouse, snowflake: SnowflakeServer
) -> Settings:
    """A road whose warehouse and gold are in Snowflake alone."""
    road = Road(road_folder, tmp_path / "data")
    (road.folder / "gold").rename(tmp_path / "no-gold")
    (road.folder / "warehouse").rename(tmp_path / "no-warehouse")
    return Settings(
        data=road.folder,
        warehouse=snowflake.url(mirrored.options.database),
        snowflake_user="fake",
        snowflake_authenticator="password",
        snowflake_password=SecretStr("snow"),
        snowflake_allow_password=True,
    )


def asked(sql: str, rows: int = 100) -> argparse.Namespace:
    return argparse.Namespace(sql=sql, rows=rows)


def test_status_tells_what_gold_in_snowflake_holds_of_the_log(settings: Settings) -> None:
    found = status(settings, NOTHING)

    partitions: list[dict[str, Any]] = found.content["partitions"]
    assert (EXIT_OK, []) == (found.code, found.content["problems"])
    assert len(partitions) > 3
    for level in partitions:
        assert level["log_end"] == level["landed"] == level["published"] > 0
        assert not level["waiting"]


def test_status_says_that_snowflake_does_not_let_us_in(settings: Settings) -> None:
    shut = settings.model_copy(update={"snowflake_allow_password": False})

    found = status(shut, NOTHING)

    assert found.code == EXIT_PROBLEM
    assert "gold cannot be looked at: " in found.content["problems"][0]
    assert "snowflake_allow_password" in found.content["problems"][0]
    assert {level["published"] for level in found.content["partitions"]} == {-1}


def test_query_asks_snowflake_for_no_more_rows_than_were_asked_for(settings: Settings) -> None:
    found = query(settings, asked("select symbol, volume from gold.kpi order by symbol", rows=2))

    assert found.content["columns"] == ["symbol", "volume"]
    assert [row[0] for row in found.content["rows"]] == ["AAPL", "AMZN"]


@pytest.mark.parametrize(
    "sql",
    [
        "delete from gold.kpi",
        "select 1; delete from gold.kpi",
        "with p as procedure () returns varchar language sql as 'begin return 1; end' call p()",
        "call system$wait(1)",
        "select * from gold.no_such_table",
        "selec 1",
    ],
)
def test_query_refuses_what_is_not_one_good_select(settings: Settings, sql: str) -> None:
    with pytest.raises(ConfigError):
        query(settings, asked(sql))

    assert query(settings, asked("select count(*) from gold.kpi")).content["rows"] == [[10]]


def test_doctor_says_what_the_role_may_do(settings: Settings) -> None:
    checks = {check["name"]: check for check in doctor(settings, NOTHING).content["checks"]}

    assert checks["warehouse"]["ok"]
    assert checks["warehouse"]["found"].endswith("may read, load, build")
    assert f"snowflake://fakesnow/{DATABASE}: role " in checks["warehouse"]["found"]
    assert checks["gold"]["found"].startswith("version ")


def test_doctor_names_a_missing_privilege(settings: Settings, snowflake: SnowflakeServer) -> None:
    snowflake.fault(
        match="update bronze.load_lock",
        act="error",
        code="003001",
        message="Insufficient privileges",
    )
    try:
        found = probe_snowflake(settings)
    finally:
        snowflake.clear_faults()

    assert "may read, build" in found
    assert "it may not load: update bronze.load_lock" in found
    assert "Insufficient privileges" in found


def test_audit_proves_the_road_into_snowflake(settings: Settings) -> None:
    options = argparse.Namespace(truth=settings.data / "truth.json", deep=True)

    found = audit(settings, options)

    assert found.code == EXIT_OK, found.text
    assert "silver_to_gold" in found.text
    assert "gold_to_published" not in found.text
    assert (settings.run_folder / "audit.json").exists()


def test_a_rebuild_from_the_lake_equals_what_is_in_snowflake(
    settings: Settings, tmp_path: Path
) -> None:
    options = argparse.Namespace(to=tmp_path / "rebuilt", compare=True, sample=None)

    found = rebuild(settings, options)

    assert found.code == EXIT_OK, found.text
    assert found.content["identical"]
    assert len(found.content["tables"]) > 20
