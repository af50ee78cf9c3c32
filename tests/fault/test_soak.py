"""T3: a minute of faults on real Kafka and S3, with as many of each as make it worth the name."""

from typing import Any

import pytest

from proofs.soak.run import Plan, soak
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable
from tests.servers.kafka import KafkaServer
from tools.reliability_table import page


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a minute of faults came to."""
    folder = tmp_path_factory.mktemp("soak")
    try:
        KafkaServer(folder / "probe")
    except UnavailableError as error:
        unavailable(error)
    return soak(Plan(seconds=60, seed=20260302, pause_s=2.0), folder / "soak", lambda _: None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_faults_on_kafka_and_s3_loses_and_doubles_nothing(
    found: dict[str, Any],
) -> None:
    assert "error" not in found, found
    assert (found["lost"], found["duplicated"], found["corrupt"]) == (0, 0, 0), found["oracle"]
    assert found["oracle"]["breaks"] == found["oracle"]["reordered"] == 0, found["oracle"]
    assert found["audit"]["ok"], found["audit"]
    assert found["gold_equal"], found["gold"]
    assert found["oracle"]["frames"] > 1_000
    assert found["kills"] >= 8
    assert set(found["kills_by_stage"]) == {"record", "land", "refine"}
    assert found["broker_restarts"] >= 1
    assert found["s3_faults"] >= 10
    assert found["other_faults"]["topics_recreated"] == 4
    assert page({**found, "command": "make soak"}, []).count("\n") > 40


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_lander_that_was_stopped_wakes_as_a_zombie(found: dict[str, Any]) -> None:
    """On a busy machine the minute may end before one is stopped, or before it is overtaken."""
    assert found["other_faults"]["frozen"] >= 1, found
    assert found["zombies"] >= 1, found
