"""kill -9 at random moments of a run: nothing lost, nothing doubled, rebuild identical."""

import os
import subprocess
from pathlib import Path

import pytest

from proofs.kills import TICKHOUSE, Road, kill_at_random

KILLS = int(os.environ.get("TICKHOUSE_KILLS", "30"))
"""200 take eight minutes."""


def check_after_kills(road: Road, tmp_path: Path) -> None:
    for verb in ("land", "load", "build"):
        subprocess.run(
            [*TICKHOUSE, verb, "--once"], env=road.environment, check=True, capture_output=True
        )
    audit = road.ask("audit", "--deep", "--truth", str(road.data / "truth.json"))
    rebuilt = road.ask("rebuild", "--to", str(tmp_path / "rebuilt"), "--compare")

    assert "lost" in audit, audit
    assert (audit["ok"], audit["lost"], audit["duplicated"], audit["corrupt"]) == (True, 0, 0, 0), (
        audit
    )
    assert rebuilt["identical"] is True, rebuilt


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_random_kills_of_up_lose_and_double_nothing(tmp_path: Path) -> None:
    road = Road(tmp_path / "data", "sim://sp500?symbols=50&rate=2000&shards=2&seed=11")
    try:
        kill_at_random(road, KILLS, seed=20260302, pause_s=(0.1, 3.0), share_of_stages=0.7)
    finally:
        road.stop()

    assert len(road.killed) == KILLS
    # Which ones is drawn: 200 strike all of them, 30 need not.
    assert len(set(road.killed)) > 3
    check_after_kills(road, tmp_path)
