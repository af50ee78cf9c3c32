"""A model is stale when anything upstream of it changed, also after a build that was killed."""

import msgspec

from tickhouse.transform.dbt_runner import Node, _with_upstream

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
