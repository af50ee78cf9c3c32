"""Every failpoint, beside every durable step, struck with kill -9: the road heals by itself.

A stage is run with `--once`, killed where it passes the point, and everything is run again.
Afterwards all that the feed gave is in silver exactly once. A point that is never reached fails.
"""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from proofs.kills import TICKHOUSE, Road
from proofs.stages import Stages
from tickhouse.source.address import FeedOptions, open_feed

SOURCES = Path(__file__).parents[2] / "src" / "tickhouse"
FRAMES = 400
SOURCE = f"sim://sp500?symbols=5&rate=max&frames={FRAMES}&date=2026-03-02"
POINTS = {
    "record.append.before": "record",
    "record.append.after": "record",
    "record.truth.before": "record",
    "record.truth.after": "record",
    "land.genesis.before": "land",
    "land.genesis.after": "land",
    "land.put.before": "land",
    "land.put.after": "land",
    "load.begin.before": "load",
    "load.ledger.after": "load",
    "load.rows.after": "load",
    "load.commit.before": "load",
    "load.commit.after": "load",
    "build.pin.before": "build",
    "build.pin.after": "build",
    "build.model.after": "build",
    "build.finish.before": "build",
    "build.finish.after": "build",
    "publish.file.after": "build",
    "publish.flip.before": "build",
    "publish.flip.after": "build",
}


def strike(data: Path, point: str) -> int:
    """Run the point's verb until it is killed there; its exit code."""
    return subprocess.run(
        [*TICKHOUSE, POINTS[point], "--once"],
        env={**Road(data, SOURCE).environment, "TICKHOUSE_FAILPOINTS": f"{point}=kill:1"},
        capture_output=True,
        check=False,
    ).returncode


def test_every_failpoint_of_the_sources_is_in_the_matrix() -> None:
    found = {
        name
        for file in SOURCES.rglob("*.py")
        for name in re.findall(r'failpoint\("([a-z._]+)"\)', file.read_text())
    }

    assert found == set(POINTS)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data folders that are level up to (not including) each verb, made once."""
    folder = tmp_path_factory.mktemp("levels")
    data = folder / "data"
    stages = Stages(data)
    feed = open_feed(SOURCE, FeedOptions(truth_path=data / "truth.json"))
    steps = {
        "record": lambda: None,
        "land": lambda: stages.only_record(feed),
        "load": stages.lander.drain,
        "build": stages.loader.load_all,
    }
    for verb, step in steps.items():
        step()
        shutil.copytree(data, folder / verb)
    stages.close()
    return {verb: folder / verb for verb in steps}


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_kill_at_a_failpoint_heals(point: str, levels: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(levels[POINTS[point]], data)

    code = strike(data, point)
    stages = Stages(data)
    stages.record(open_feed(SOURCE, FeedOptions(truth_path=data / "truth.json")))
    stages.refine()
    audit = stages.audit(truth=True)
    ((trades, frames),) = stages.warehouse.query(
        "select count(*), count(distinct (session_id, session_seq)) from silver.trades"
    )
    stages.close()

    assert code == -signal.SIGKILL, f"{point} was never reached"
    assert (audit.ok, audit.lost, audit.duplicated) == (True, 0, 0), audit
    assert (frames, trades > frames) == (FRAMES, True)
