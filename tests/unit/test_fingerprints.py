"""A model is stale when anything upstream of it changed, also after a build that was killed."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tickhouse.transform.dbt_runner import Node, _fingerprint, _with_upstream

OWN = {
    node.name: node
    for node in (
        Node("trade_conditions", "seed", "s", frozenset()),
        Node("trades", "model", "t", frozenset({"trade_conditions"})),
        Node("bars_1s", "model", "b", frozenset({"trades"})),
        Node("sessions", "model", "e", frozenset()),
    )
}


def fingerprints(own: dict[str, Node]) -> dict[str, str]:
    return {name: _with_upstream(node, own) for name, node in own.items()}


def test_what_is_downstream_of_a_change_has_another_fingerprint_until_it_is_built_itself() -> None:
    """Else a kill after the changed model, and before those made from it, would leave them."""
    before = fingerprints(OWN)
    changed = msgspec.structs.replace(OWN["trade_conditions"], fingerprint="other")
    after = fingerprints({**OWN, "trade_conditions": changed})

    assert {"trade_conditions", "trades", "bars_1s"} == {
        name for name in OWN if before[name] != after[name]
    }


def test_a_model_with_nothing_upstream_keeps_its_own_fingerprint() -> None:
    assert "e" == fingerprints(OWN)["sessions"]


def model_of(project: str = "tickhouse", **changed: str) -> tuple[Any, Any]:
    """A model with a macro that uses another, and the manifest, as dbt has them."""
    told = {"sql": "select 1", "outer": "outer", "inner": "inner", "unused": "unused"} | changed
    macros = {
        name: SimpleNamespace(
            macro_sql=told[name],
            package_name=project,
            depends_on=SimpleNamespace(macros=["inner"] if name == "outer" else []),
        )
        for name in ("outer", "inner", "unused")
    }
    node = SimpleNamespace(
        raw_code=told["sql"],
        config=SimpleNamespace(unique_key=told.get("unique_key")),
        depends_on=SimpleNamespace(macros=["outer"]),
    )
    return node, SimpleNamespace(macros=macros)


@pytest.mark.parametrize("changed", ["sql", "outer", "inner", "unique_key"])
def test_a_models_fingerprint_is_of_its_sql_and_the_macros_it_uses(changed: str) -> None:
    node, manifest = model_of()
    other, others = model_of(**{changed: "other"})

    assert _fingerprint(node, "model", manifest) != _fingerprint(other, "model", others)


def test_a_macro_that_a_model_does_not_use_or_that_dbt_brings_changes_no_fingerprint() -> None:
    alike = [
        (model_of(), model_of(unused="other")),
        (model_of("dbt_snowflake"), model_of("dbt_snowflake", outer="other")),
    ]

    for (node, manifest), (other, others) in alike:
        assert _fingerprint(node, "model", manifest) == _fingerprint(other, "model", others)


def test_a_seeds_fingerprint_is_of_its_file_and_types() -> None:
    def seed(checksum: str, **types: str) -> str:
        config = SimpleNamespace(column_types=types)
        node = SimpleNamespace(checksum=SimpleNamespace(checksum=checksum), config=config)
        return _fingerprint(node, "seed", None)

    assert seed("a", code="int") == seed("a", code="int")
    assert 3 == len({seed("a", code="int"), seed("b", code="int"), seed("a", code="text")})
