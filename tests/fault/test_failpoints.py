"""Every failpoint, beside every durable step, x {kill -9, exception, delay}: the road heals.

A verb is run with `--once` and struck where it passes the point: all points of it one after the
other on one data folder, in the order in which it passes them, so that each strike meets what the
one before has left. Then everything is run again, and all that the feed gave is in silver exactly
once. A point that is never reached fails. `slow` heals after each single point and action.
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
    "record": [
        "record.append.before",
        "record.append.after",
        "record.truth.before",
        "record.truth.after",
    ],
    "land": ["land.genesis.before", "land.genesis.after", "land.put.before", "land.put.after"],
    "load": [
        "load.begin.before",
        "load.ledger.after",
        "load.rows.after",
        "load.commit.before",
        "load.commit.after",
    ],
    "build": [
        "build.pin.before",
        "build.pin.after",
        "build.model.after",
        "build.finish.before",
        "build.finish.after",
        "publish.file.after",
        "publish.flip.before",
        "publish.flip.after",
    ],
}
ELSEWHERE = dict.fromkeys(
    [
        "relay.tail.before",
        "relay.begin.after",
        "relay.produce.after",
        "relay.commit.before",
        "relay.commit.after",
    ],
    "test_relay_failpoints.py",
) | {
    "load.staged.after": "test_load_crashes_snowflake.py",
    "rederive.rewind.before": "../integration/test_rederive.py",
    "rederive.rewind.after": "../integration/test_rederive.py",
}
"""Points of other verbs and backends, each with the test file that strikes them."""
EACH = [(verb, point) for verb, points in POINTS.items() for point in points]


def command(data: Path, verb: str, failpoints: str) -> tuple[list[str], dict[str, str]]:
    environment = {**Road(data, SOURCE).environment, "TICKHOUSE_FAILPOINTS": failpoints}
    return [*TICKHOUSE, verb, "--once"], environment


def strike(data: Path, verb: str, failpoints: str) -> subprocess.CompletedProcess[bytes]:
    """Run the verb with failpoints set, to its end."""
    arguments, environment = command(data, verb, failpoints)
    return subprocess.run(arguments, env=environment, capture_output=True, check=False)


def check_struck(done: subprocess.CompletedProcess[bytes], point: str, action: str) -> None:
    """The point was reached, and did to the process what it was set to."""
    if action == "kill":
        assert done.returncode == -signal.SIGKILL, f"{point} was never reached"
    else:
        assert done.returncode != 0, f"{point} was never reached"
        assert b"FailpointError" in done.stderr or point.encode() in done.stderr, done.stderr


def check_healed(data: Path) -> None:
    """Run everything once more; then nothing is lost, doubled or missing in silver."""
    stages = Stages(data)
    stages.record(open_feed(SOURCE, FeedOptions(truth_path=data / "truth.json")))
    stages.refine()
    audit = stages.audit(truth=True)
    ((trades, frames),) = stages.warehouse.query(
        "select count(*), count(distinct (session_id, session_seq)) from silver.trades"
    )
    stages.close()

    assert (audit.ok, audit.lost, audit.duplicated) == (True, 0, 0), audit
    assert (frames, trades > frames) == (FRAMES, True)


def test_every_failpoint_of_the_sources_is_in_the_matrix() -> None:
    found = {
        name
        for file in SOURCES.rglob("*.py")
        for name in re.findall(r'failpoint\("([a-z0-9._]+)"\)', file.read_text())
    }

    assert found == {point for _, point in EACH} | set(ELSEWHERE)
    for point, file in ELSEWHERE.items():
        assert point in (Path(__file__).parent / file).read_text(), f"{point}: not in {file}"


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


@pytest.fixture
def data(levels: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(levels[request.getfixturevalue("verb")], folder)
    return folder


@pytest.mark.parametrize(
    "verb", [*list(POINTS)[:-1], pytest.param("build", marks=pytest.mark.long)]
)
def test_kills_at_every_failpoint_of_a_verb_heal(verb: str, data: Path) -> None:
    for point in POINTS[verb]:
        check_struck(strike(data, verb, f"{point}=kill:1"), point, "kill")

    check_healed(data)


@pytest.mark.long
@pytest.mark.parametrize("verb", POINTS)
def test_exceptions_at_every_failpoint_of_a_verb_heal(verb: str, data: Path) -> None:
    for point in POINTS[verb]:
        check_struck(strike(data, verb, f"{point}=error:1"), point, "error")

    check_healed(data)


@pytest.mark.long
@pytest.mark.parametrize("verb", POINTS)
def test_a_verb_delayed_at_every_failpoint_is_overtaken_without_harm(verb: str, data: Path) -> None:
    """A second process of the same verb runs while the first one sleeps; either may be refused."""
    delays = ";".join(f"{point}=sleep:0.3" for point in POINTS[verb])
    arguments, environment = command(data, verb, delays)
    sleeper = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    second = strike(data, verb, "")
    _, errors = sleeper.communicate(timeout=120)

    assert 0 in (sleeper.returncode, second.returncode), (errors, second.stderr)
    check_healed(data)


@pytest.mark.long
@pytest.mark.parametrize("action", ["kill", "error"])
@pytest.mark.parametrize(("verb", "point"), EACH)
def test_a_strike_at_a_failpoint_heals(verb: str, point: str, action: str, data: Path) -> None:
    check_struck(strike(data, verb, f"{point}={action}:1"), point, action)

    check_healed(data)
