"""`doctor --accept`: every fact is asked, what does not hold is said, nothing is left behind."""

from collections.abc import Iterator

import pytest

from support.snowflake import snowflake_options
from tests.servers.snowflake import SnowflakeServer
from tickhouse.warehouse.snowflake_acceptance import Fact, accept
from tickhouse.warehouse.snowflake_options import SnowflakeOptions
from tickhouse.warehouse.snowflake_session import Sessions

pytestmark = pytest.mark.warehouse

IDENTITY = "who and where we are"
FREED_S = 20.0


@pytest.fixture
def options(
    snowflake: SnowflakeServer,
    snowflake_database: str,
) -> Iterator[SnowflakeOptions]:
    yield snowflake_options(snowflake, snowflake_database)
    snowflake.clear_faults()


def asked(options: SnowflakeOptions) -> dict[str, Fact]:
    return {fact.name: fact for fact in accept(options, freed_within_s=FREED_S)}


def schemas(options: SnowflakeOptions) -> list[str]:
    sessions = Sessions(options, lock_wait_s=1.0)
    with sessions.session() as session:
        rows = session.run("select schema_name from information_schema.schemata")
    sessions.close()
    return [row[0] for row in rows if row[0].lower().startswith("tickhouse_accept")]


def test_every_fact_holds_that_the_stand_in_knows_and_nothing_stays(
    options: SnowflakeOptions,
) -> None:
    facts = asked(options)

    assert {name: fact.found for name, fact in facts.items() if not fact.ok}.keys() == {IDENTITY}
    assert "current_region" in facts[IDENTITY].found
    assert len(facts) > 12
    assert schemas(options) == []


def test_a_fact_that_does_not_hold_is_said_and_the_others_are_asked(
    snowflake: SnowflakeServer,
    options: SnowflakeOptions,
) -> None:
    snowflake.fault(match="copy into .*header", act="error", code="003001", message="no privilege")
    snowflake.fault(
        match=r"^\s*rollback", act="error", code="000603", message="no rollback", times=1
    )

    facts = asked(options)

    wrong = [name for name, fact in facts.items() if not fact.ok]
    assert "objects of the lake are read with the manifest in their gzip header" in wrong
    assert "COPY inside a transaction is undone by ROLLBACK" in wrong
    assert "exchange time knows summer time" not in wrong
    assert schemas(options) == []
