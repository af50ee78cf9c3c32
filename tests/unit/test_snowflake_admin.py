"""The administrator's SQL: complete, in order, with the names that are used."""

import re
from pathlib import Path

from tickhouse.warehouse.snowflake_admin import admin_scripts

DEPLOY = Path(__file__).parents[2] / "deploy" / "snowflake"


def statements(script: str) -> list[str]:
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    return [" ".join(text.split()) for text in code.split(";") if text.strip()]


def test_deploy_shows_the_same_files() -> None:
    shown = {path.name: path.read_text() for path in sorted(DEPLOY.glob("*.sql"))}

    assert shown == admin_scripts(database="tickhouse")
    assert [name[:2] for name in shown] == ["01", "02", "03", "04", "05"]


def test_names_of_the_address_are_used_and_comments_kept() -> None:
    scripts = admin_scripts(database="market", warehouse="load_wh", role="etl")

    code = "\n".join(text for script in scripts.values() for text in statements(script))
    assert "create database if not exists market" in code
    assert "create warehouse if not exists load_wh" in code
    assert "grant role tickhouse_loader to role etl" in code
    assert not re.search(r"\btickhouse\b|tickhouse_wh|tickhouse_pipeline", code)
    assert "`tickhouse load`" in scripts["01_roles.sql"]


def test_a_role_of_the_scripts_keeps_its_part() -> None:
    assert admin_scripts(database="tickhouse", role="TICKHOUSE_LOADER") == admin_scripts(
        database="tickhouse"
    )


def test_a_stage_lies_within_what_its_integration_allows() -> None:
    script = admin_scripts(database="tickhouse")["04_s3_stage.sql"]

    (allowed,) = re.findall(r"storage_allowed_locations = \('([^']+)'\)", script)
    (url,) = re.findall(r"url = '([^']+)'", script)
    assert url.startswith(allowed)


def test_no_role_of_the_service_gets_more_than_it_needs() -> None:
    granted = [
        text
        for script in admin_scripts(database="tickhouse").values()
        for text in statements(script)
        if text.startswith("grant")
    ]

    to_reader = [text for text in granted if text.endswith("to role tickhouse_reader")]
    assert to_reader
    assert all(
        text.startswith(("grant usage on ", "grant select on ", "grant role")) for text in to_reader
    )
    to_loader = [text for text in granted if text.endswith("to role tickhouse_loader")]
    assert not [text for text in to_loader if re.search(r"schema tickhouse\.(?!bronze)", text)]
    assert not [
        text for text in granted if re.search(r"\ball privileges\b|\bownership on (?!future)", text)
    ]
    administrators = r"to role (account|security|user)admin"
    assert not [text for text in granted if re.search(administrators, text)]


def test_every_statement_can_be_run_again() -> None:
    made = [
        text
        for script in admin_scripts(database="tickhouse").values()
        for text in statements(script)
        if text.startswith("create")
    ]

    assert made
    assert [text for text in made if " if not exists " not in text] == []
