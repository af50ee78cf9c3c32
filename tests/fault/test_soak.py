"""T3: a minute of faults on real Kafka and S3, with as many of each as make it worth the name."""

from pathlib import Path

import pytest

from proofs.soak.run import Plan, soak
from tests.servers.cache import UnavailableError
from tests.servers.fixtures import unavailable
from tests.servers.kafka import KafkaServer
from tools.reliability_table import page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_faults_on_kafka_and_s3_loses_and_doubles_nothing(tmp_path: Path) -> None:
    try:
        KafkaServer(tmp_path / "probe")
    except UnavailableError as error:
        unavailable(error)

    found = soak(Plan(seconds=60, seed=20260302, pause_s=2.0), tmp_path / "soak", lambda _: None)

    assert "error" not in found, found
    assert (found["lost"], found["duplicated"], found["corrupt"]) == (0, 0, 0), found["oracle"]
    assert found["oracle"]["breaks"] == found["oracle"]["reordered"] == 0, found["oracle"]
    assert found["audit"]["ok"], found["audit"]
    assert found["gold_equal"], found["gold"]
    assert found["oracle"]["frames"] > 1_000
    assert found["kills"] >= 8
    assert set(found["kills_by_stage"]) == {"record", "land", "refine"}
    # Whether one that was stopped wakes as a zombie is timing; half an hour counts them.
    assert found["zombies"] + found["other_faults"].get("frozen", 0) >= 1
    assert found["broker_restarts"] >= 1
    assert found["s3_faults"] >= 10
    assert found["other_faults"]["topics_recreated"] == 4
    assert page({**found, "command": "make soak"}, []).count("\n") > 40
