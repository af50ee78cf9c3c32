"""The command line as a user meets it: results on standard output, one clear line on failure."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proofs.kills import Road

SOURCE = "sim://sp500?symbols=5&rate=max&frames=300"


def run(data: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "TICKHOUSE" not in name}
    environment |= {"TICKHOUSE_DATA": str(data), "TICKHOUSE_SOURCE": SOURCE, **settings}
    return subprocess.run(
        [sys.executable, "-m", "tickhouse", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=data.parent,
    )


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with everything level."""
    data = tmp_path_factory.mktemp("level") / "data"
    for verb in ("record", "land", "load", "build"):
        assert run(data, verb, "--once").returncode == 0
    return data


def test_stages_once_are_level_and_say_so(level: Path) -> None:
    again = [run(level, verb, "--once", "--json") for verb in ("record", "land", "load", "build")]

    assert [done.returncode for done in again] == [0, 0, 0, 0]
    assert all(json.loads(done.stdout)["ok"] for done in again)


def test_query_prints_a_table_or_json(level: Path) -> None:
    text = run(level, "query", "select count(*) as symbols from gold.kpi")
    document = run(level, "query", "select count(*) as symbols from kpi", "--json")

    assert text.stdout.split() == ["symbols", "-------", "5"]
    assert json.loads(document.stdout) == {"ok": True, "columns": ["symbols"], "rows": [[5]]}


@pytest.mark.parametrize(
    "sql",
    [
        "drop table gold.kpi",
        "select * from read_csv('/etc/passwd')",
        "copy (select 1) to 'x.csv'",
        "select 1; select 2",
        "attach 'x.db'",
        "select * from nowhere",
    ],
)
def test_query_refuses_what_is_not_a_question_to_published_gold(level: Path, sql: str) -> None:
    done = run(level, "query", sql)

    assert done.returncode == 2
    assert done.stderr.startswith("tickhouse query: ")
    assert "Traceback" not in done.stderr


def test_query_before_the_first_build_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path / "data", "query", "select 1", "--json")

    assert done.returncode == 2
    assert "nothing published yet" in json.loads(done.stdout)["error"]


def test_status_shows_each_stage_and_partition(level: Path) -> None:
    done = run(level, "status", "--json")
    document = json.loads(done.stdout)

    assert done.returncode == 0
    assert {stage["stage"] for stage in document["stages"]} >= {"record", "land", "load", "build"}
    assert {level["published"] == level["log_end"] for level in document["partitions"]} == {True}


def test_status_names_a_stage_whose_process_is_gone(level: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "run").mkdir(parents=True)
    ghost = {"stage": "land", "pid": 2**22 - 1, "state": "running", "at_ms": 0, "facts": {}}
    (data / "run" / "land.json").write_text(json.dumps(ghost))

    done = run(data, "status", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["stages"][0]["state"] == "gone"


def test_doctor_is_content_with_a_sound_folder(level: Path) -> None:
    done = run(level, "doctor", "--json")

    assert done.returncode == 0, done.stdout
    assert all(check["ok"] for check in json.loads(done.stdout)["checks"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TICKHOUSE_SOURCE": "ftp://x"}, "not a feed"),
        ({"TICKHOUSE_SOURCE": "replay:/no/such/file"}, "no recording there"),
        ({"TICKHOUSE_SOURCE": "sim://sp500?rate=fast"}, "rate"),
        ({"TICKHOUSE_LAKE": "gs://bucket"}, "not a backend of this version"),
        ({"TICKHOUSE_LAKE": "s3://bucket?regoin=eu"}, "unknown parameter"),
        ({"TICKHOUSE_WAREHOUSE": "duckdb:///" + os.devnull + "/x"}, "null"),
    ],
)
def test_doctor_says_what_to_fix(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    done = run(tmp_path / "data", "doctor", "--json", **settings)

    assert done.returncode == 1, done.stdout + done.stderr
    found = [check["found"] for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    assert any(words in text for text in found), found


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("land", "--once", "--land-bytes", "0"), {}, "land_bytes"),
        (("land", "--once"), {"TICKHOUSE_PORT": "http"}, "port"),
        (("record", "--once"), {"TICKHOUSE_SOURCE": "sim://sp500"}, "never ends"),
        (("record", "--once"), {"TICKHOUSE_LOG": "kafka://x"}, "'x' is no host:port"),
        (("record", "--once"), {"TICKHOUSE_LOG": "nats://x"}, "not a backend"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_and_code_2(
    tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str], words: str
) -> None:
    done = run(tmp_path / "data", *arguments, **settings)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_come_from_flags_then_environment_then_file(tmp_path: Path) -> None:
    (tmp_path / "tickhouse.toml").write_text('source = "ftp://file"\nport = 1\n')

    from_file = subprocess.run(
        [sys.executable, "-m", "tickhouse", "doctor", "--data", "d"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    from_environment = run(tmp_path / "d", "doctor", TICKHOUSE_SOURCE="ftp://environment")
    from_flag = run(
        tmp_path / "d", "doctor", "--source", "ftp://flag", TICKHOUSE_SOURCE="ftp://environment"
    )

    assert "ftp://file" in from_file.stdout
    assert "ftp://environment" in from_environment.stdout
    assert "ftp://flag" in from_flag.stdout


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tickhouse.toml").write_text("lake_bites = 5\n")

    done = run(tmp_path / "data", "status")

    assert done.returncode == 2
    assert "lake_bites" in done.stderr


@pytest.mark.parametrize("verb", ["load", "refine"])
def test_a_chain_that_does_not_go_on_is_a_problem_and_the_others_load(
    tmp_path: Path, verb: str
) -> None:
    data = tmp_path / "data"
    source = {"TICKHOUSE_SOURCE": "sim://sp500?symbols=5&shards=2&rate=max&frames=20"}
    for stage in ("record", "land"):
        assert run(data, stage, "--once", **source).returncode == 0
    damaged = min((data / "lake").glob("bronze/v1/trades/*/p=00000/*.gz"))
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-9])

    done = run(data, verb, "--once", "--json", **source)
    document = json.loads(done.stdout)

    assert done.returncode == 1
    assert not document["ok"]
    assert document["rows"] > 0
    assert [damaged.name in problem for problem in document["problems"]] == [True]


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    road = Road(tmp_path / "data", "sim://sp500?symbols=5&rate=200")
    road.start()
    yield road
    road.stop()


def test_a_second_load_and_status_go_through_the_running_owner(road: Road) -> None:
    deadline = time.monotonic() + 60
    while not (road.data / "run" / "refine.address").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)

    loaded = road.ask("load", "--once")
    built = road.ask("build", "--once")
    second = road.ask("refine")
    state = road.ask("status")

    assert (loaded["ok"], loaded["owner"], built["ok"]) == (True, True, True)
    assert second["code"] == 2
    assert "owns the warehouse" in second["error"]
    assert state["code"] == 0


def test_a_second_recorder_refuses(road: Road) -> None:
    deadline = time.monotonic() + 60
    while not (road.data / "run" / "record.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)

    second = road.ask("record", "--for", "1s")

    assert second["code"] == 2
    assert "another recorder" in second["error"]
