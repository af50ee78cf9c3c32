"""Every failpoint, beside every durable step, struck with kill -9: the road heals by itself.

A stage is run with `--once`, killed at its n-th passing of the point, and run again. Afterwards all
that the feed gave is in silver exactly once. A point that is never reached fails the test.
"""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from proofs.kills import TICKHOUSE, Road

SOURCES = Path(__file__).parents[2] / "src" / "tickhouse"
FRAMES = 400
SOURCE = f"sim://sp500?symbols=5&rate=max&frames={FRAMES}&date=2026-03-02"
VERBS = ("record", "land", "load", "build")
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


def run(road: Road, verb: str, failpoints: str = "") -> int:
    environment = {**road.environment, "TICKHOUSE_FAILPOINTS": failpoints}
    completed = subprocess.run(
        [*TICKHOUSE, verb, "--once"], env=environment, capture_output=True, check=False
    )
    if not failpoints:
        assert completed.returncode == 0, completed.stderr.decode()
    return completed.returncode


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
    found: dict[str, Path] = {}
    data = folder / "data"
    data.mkdir()
    for verb in VERBS:
        found[verb] = folder / verb
        subprocess.run(["cp", "-r", str(data), str(found[verb])], check=True)
        run(Road(data, SOURCE), verb)
    return found


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_kill_at_a_failpoint_heals(point: str, levels: dict[str, Path], tmp_path: Path) -> None:
    verb = POINTS[point]
    data = tmp_path / "data"
    subprocess.run(["cp", "-r", str(levels[verb]), str(data)], check=True)
    road = Road(data, SOURCE)

    code = run(road, verb, f"{point}=kill:1")
    for following in VERBS[VERBS.index(verb) :]:
        run(road, following)
    audit = road.ask("audit", "--deep", "--truth", str(data / "truth.json"))
    (trades,) = road.ask(
        "query", "select count(*), count(distinct (session_id, session_seq)) from silver.trades"
    )["rows"]

    assert code == -signal.SIGKILL, f"{point} was never reached"
    assert (audit["ok"], audit["lost"], audit["duplicated"]) == (True, 0, 0), audit
    assert trades[1] == FRAMES
