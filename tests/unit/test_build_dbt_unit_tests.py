"""Runs the dbt unit tests of the project: one a rule."""

from pathlib import Path

import pytest

from support.builds import builder_of, new_warehouse


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    warehouse = new_warehouse(tmp_path_factory.mktemp("dbt") / "w")
    with builder_of(warehouse) as builder:
        builder.build()
        results = builder._dbt.run(["test", "--select", "test_type:unit"])
    return {result.name: (result.status, result.message) for result in results}


def _names() -> list[str]:
    models = Path(__file__).parents[2] / "src/tickhouse/transform/project/models"
    files = models.rglob("*unit_tests.yml")
    lines = [line for path in files for line in path.read_text().splitlines()]
    return [line.split(":")[1].strip() for line in lines if line.startswith("  - name:")]


@pytest.mark.parametrize("name", _names())
def test_dbt_unit_test_passes(name: str, outcomes: dict[str, tuple[str, str]]) -> None:
    status, message = outcomes[name]

    assert "pass" == status, message
