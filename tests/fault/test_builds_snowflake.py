"""Builds in the fake Snowflake: killed, doubled, pinned, made anew; rows equal one quiet build's.

The quiet one is DuckDB's, of the same loads: `test_warehouse_parity.py` holds the two equal.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.bronze_rows import T0, BronzeFrame, finnhub, trade
from support.builds import (
    EXACT_TABLES,
    builder_of,
    dbt_by_hand,
    new_warehouse,
    spied_statements,
)
from support.comparable_rows import assert_same, comparable_rows
from support.processes import SCRIPT, run_with_failpoints
from support.snowflake_bronze import SnowflakeBronze, snowflake_builder
from tests.servers.snowflake import SnowflakeServer
from tests.support.snowflake import snowflake_options
from tickhouse.runtime.refining import RETRY_S, RETRY_S_MAX
from tickhouse.transform.builder import Builder, BuildError, snowflake_target
from tickhouse.transform.dbt_runner import upstream_of
from tickhouse.transform.rederiving import Anew, rewind
from tickhouse.warehouse.snowflake_session import Cursor, Session

pytestmark = [pytest.mark.warehouse, pytest.mark.timeout(900)]

DATABASE = "BUILDS"
FRAMES = 4
WAIT_S = 240.0


class Bench:
    """A database that all tests of this module load and build further, and what it was given."""

    def __init__(self, server: SnowflakeServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.warehouse = SnowflakeBronze(server, DATABASE)
        self.loads: list[list[BronzeFrame]] = []

    def load(self, *late: BronzeFrame) -> int:
        """The next load: new frames with trades and rejects, and an older frame again."""
        first = FRAMES * len(self.loads)
        frames = [_frame(seq) for seq in range(first, first + FRAMES)]
        self.loads.append([*frames, *late, *([_frame(first - 2)] if first else [])])
        return self.warehouse.load(self.loads[-1])

    def trades(self, *, upto: int) -> int:
        """How many trades the first loads hold, each frame counted once."""
        frames = {(f.session, f.seq): f for load in self.loads[:upto] for f in load}
        prints = [p for f in frames.values() for p in json.loads(f.payload or "")["data"]]
        return sum(each["p"] is not None for each in prints)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.warehouse.query(sql)

    def positions(self) -> list[tuple[int, ...]]:
        """Where models and tests stand; each has one row."""
        rows = self.query("select count(*), count(distinct model) from meta.positions")
        assert rows[0][0] == rows[0][1]
        return self.query(
            "select distinct load_id from meta.positions where model not in"
            " ('instrument_list', 'trade_conditions', 'calendar', 'rederived')"
        )

    def assert_undisturbed(self, tmp_path: Path) -> None:
        """Every row is that of one build that nothing disturbed."""
        quiet = new_warehouse(tmp_path / "quiet")
        for load in self.loads:
            quiet.load(load)
        with builder_of(quiet) as builder:
            builder.build()
        for table in EXACT_TABLES:
            rows = (comparable_rows(each, table) for each in (quiet, self.warehouse))
            assert_same(*rows, table)
        assert self.positions() == [(len(self.loads),)]


def _frame(seq: int) -> BronzeFrame:
    at = T0 + timedelta(seconds=17 * seq)
    return BronzeFrame(
        payload=finnhub(
            trade("AAPL", at, 100 + seq % 7, 10), trade("MSFT", at, None if seq % 4 else 50, 1)
        ),
        seq=seq,
        received_at=at + timedelta(seconds=1),
    )


@pytest.fixture(scope="module")
def bench(
    snowflake: SnowflakeServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    made = Bench(snowflake, tmp_path_factory.mktemp("builds"))
    made.load()
    yield made
    made.warehouse.session.close()


@pytest.fixture(scope="module")
def builder(bench: Bench) -> Iterator[Builder]:
    with snowflake_builder(bench.warehouse, bench.folder) as made:
        made.build()
        yield made


@pytest.fixture
def level(bench: Bench, builder: Builder) -> Builder:
    """The builder, with nothing to build."""
    builder.build()
    assert bench.positions() == [(len(bench.loads),)]
    return builder


def builder_in_process(folder: str, port: str) -> Builder:
    server = SnowflakeServer([], port=int(port), log=Path(os.devnull))
    options = snowflake_options(server, DATABASE)

    def connect() -> Cursor:
        session = Session(options, lock_wait_s=30)
        return Cursor(session, session.close)

    return Builder(
        connect=connect, target=snowflake_target(options), work_folder=Path(folder) / "dbt"
    )


def build_in_process(folder: str, port: str) -> None:
    """Run in a process of its own, which a failpoint kills."""
    builder_in_process(folder, port).build()


@pytest.mark.parametrize("failpoint", ["build.trades.after", "build.bars_1m.after"])
def test_a_killed_build_changes_nothing_that_the_next_does_not_mend(
    bench: Bench, level: Builder, failpoint: str, tmp_path: Path
) -> None:
    before = len(bench.loads)
    bench.load()
    code = run_with_failpoints(
        build_in_process,
        str(bench.folder),
        str(bench.server.port),
        failpoints=f"{failpoint}=kill",
        timeout_s=WAIT_S,
    )
    stood = {row[0] for row in bench.positions()}
    bench.load()
    level.build()

    assert code == -signal.SIGKILL
    assert stood == {before, before + 1}
    bench.assert_undisturbed(tmp_path)


def test_a_build_is_pinned_to_the_highest_load_id_at_its_start_and_temp_names_carry_its_id(
    bench: Bench, level: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = bench.load()
    statements = spied_statements(level, monkeypatch)
    run = level._dbt.run

    def load_meanwhile(arguments: list[str], **options: int) -> object:
        if bench.warehouse.load_id == pinned:
            bench.load()
        return run(arguments, **options)

    monkeypatch.setattr(level._dbt, "run", load_meanwhile)
    result = level.build()
    ((newest, rows),) = bench.query("select max(load_id), count(*) from silver.trades")

    assert (pinned, pinned + 1) == (result.load_id, bench.warehouse.load_id)
    assert bench.positions() == [(pinned,)]
    assert newest == pinned
    assert rows == bench.trades(upto=pinned)
    temporary = [text for text in statements if "temporary table" in text]
    assert len(temporary) > 5
    assert [] == [text for text in temporary if f"__build_{result.build_id} as" not in text]


@pytest.mark.parametrize(
    ("changed", "damage"),
    [
        ("bars_1m", ["update gold.bars_5m set close = 1"]),
        ("trade_conditions", ["delete from silver.trade_conditions", "delete from gold.bars_1s"]),
    ],
)
def test_a_model_with_another_fingerprint_is_built_afresh_with_all_downstream(
    bench: Bench, level: Builder, tmp_path: Path, changed: str, damage: list[str]
) -> None:
    for statement in damage:
        bench.query(statement)
    bench.query(f"update meta.positions set fingerprint = 'other' where model = '{changed}'")
    level.build()

    nodes = level._dbt.nodes
    models = {name for name, node in nodes.items() if node.kind == "model"}
    expected = {n for n in models if changed == n or changed in upstream_of(nodes[n], nodes)}
    full = {row[0] for row in bench.query("select model from meta.windows where is_full")}
    assert full == expected | {"tests"}
    assert len(expected) < len(models)
    bench.assert_undisturbed(tmp_path)


def test_a_late_trade_raises_the_revision_of_a_final_bar_only(bench: Bench, level: Builder) -> None:
    revisions = "select bar_at, revision from gold.bars_1s where symbol = 'AAPL' order by 1"
    before = bench.query(revisions)
    number = len(bench.loads)
    payload = finnhub(trade("AAPL", T0, 900, 1))
    bench.load(BronzeFrame(payload=payload, seq=0, session=f"late{number}", received_at=T0))
    level.build()
    after = bench.query(revisions)

    ((first_at, revision), *others) = before
    assert after[: len(before)] == [(first_at, revision + 1), *others]
    assert {0} == {row[1] for row in after[len(before) :]}


def test_a_seed_that_another_build_loaded_meanwhile_is_not_emptied_under_its_models(
    bench: Bench, level: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While dbt loads a seed it is empty: only who holds the lock may, and only if it must."""
    seed = "trade_conditions"
    ran: list[str] = []
    has_looked = threading.Event()
    look = level._changed_seeds

    def looked(connection: Any) -> dict[str, str]:
        changed = look(connection)
        has_looked.set()
        return changed

    monkeypatch.setattr(level, "_changed_seeds", looked)
    monkeypatch.setattr(level._dbt, "run", lambda arguments: ran.append(arguments[0]) or [])
    where = f"where model = '{seed}'"
    bench.query(f"update meta.positions set fingerprint = 'older' {where}")
    with (
        closing(bench.warehouse.new_session()) as other,
        closing(bench.warehouse.connect()) as ours,
    ):
        other.run("begin")
        other.run("update meta.build_lock set build_id = build_id")
        thread = threading.Thread(target=level._seed, args=[ours])
        thread.start()
        assert has_looked.wait(WAIT_S)
        time.sleep(0.5)
        waits = thread.is_alive()
        fingerprint = level._dbt.nodes[seed].fingerprint
        other.run(f"update meta.positions set fingerprint = '{fingerprint}' {where}")
        other.run("commit")
        thread.join()
        left = look(ours)

    assert waits
    assert (ran, left) == ([], {})


@pytest.mark.parametrize("others", [0, 1])
def test_a_build_whose_transaction_was_ended_while_it_slept_doubles_nothing(
    bench: Bench, level: Builder, tmp_path: Path, others: int
) -> None:
    failures: list[str] = []
    bench.load()
    bench.server.counts()
    bench.server.fault(match="^insert into .*silver.trades", act="asleep")

    def sleep() -> None:
        try:
            level.build()
        except BuildError as error:
            failures.append(str(error))

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_for(lambda: bool(bench.server.counts().get("asleep")))
    if others:
        (tmp_path / "other").mkdir()
        arguments = [str(tmp_path / "other"), str(bench.server.port)]
        run_with_failpoints(build_in_process, *arguments, failpoints="", timeout_s=WAIT_S)
    bench.server.clear_faults()
    thread.join()
    level.build()

    assert [True] * others == ["another build" in failure for failure in failures]
    bench.assert_undisturbed(tmp_path)


def test_what_is_derived_again_is_the_same_and_a_build_that_runs_stops(
    bench: Bench, level: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    after = bench.load() - 1
    run = level._dbt.run

    def rewind_meanwhile(arguments: list[str], **options: int) -> object:
        monkeypatch.setattr(level._dbt, "run", run)
        with closing(bench.warehouse.connect()) as other:
            rewind(other, level._dbt.nodes, Anew(after))
        return run(arguments, **options)

    monkeypatch.setattr(level._dbt, "run", rewind_meanwhile)
    with pytest.raises(BuildError, match="another build was pinned since"):
        level.build()
    level.build(Anew(after))
    bench.assert_undisturbed(tmp_path / "a part")
    level.build(Anew())

    bench.assert_undisturbed(tmp_path / "everything")


def test_plain_dbt_goes_on_where_the_builder_ended_and_the_builder_after_it(
    bench: Bench, level: Builder, tmp_path: Path
) -> None:
    bench.load()
    target = snowflake_target(bench.warehouse.options)
    done = dbt_by_hand(target, tmp_path / "dbt", "build", "--exclude-resource-type", "unit_test")
    stood = bench.query("select min(load_id) from meta.positions where model like 'bars%'")
    level.build()

    assert done.returncode == 0, done.stdout
    assert stood == [(len(bench.loads),)]
    assert bench.query("select model from meta.windows where is_full and model <> 'tests'") == []
    bench.assert_undisturbed(tmp_path)


def build_until(folder: str, port: str, load_id: str, name: str) -> None:
    """Run in a process of its own: build, and where overtaken build again, as `refine` does."""
    told: list[str] = []
    wait_s = RETRY_S
    builder = builder_in_process(folder, port)
    builder.prepare()
    Path(folder, f"{name}.ready").touch()
    wait_for(Path(folder, "go").exists)
    level = 0
    while level < int(load_id):
        try:
            level = builder.build().load_id
        except BuildError as error:
            told.append(str(error))
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)
    Path(folder, f"{name}.json").write_text(json.dumps(told))


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_builders_at_once_while_loads_come_in_double_nothing_and_lose_nothing(
    bench: Bench,
    level: Builder,
    tmp_path: Path,
) -> None:
    """Each pins its own build, so that the other is overtaken: it says so and builds again."""
    assert level is not None
    names, upto = ("one", "two"), len(bench.loads) + 3
    folders = {name: tmp_path / name for name in names}
    processes = []
    bench.load()
    try:
        for name in names:
            folders[name].mkdir()
            arguments = [str(folders[name]), str(bench.server.port), str(upto), name]
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", SCRIPT, __file__, "build_until", *arguments],
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                )
            )
        wait_for(lambda: all(Path(folders[name], f"{name}.ready").exists() for name in names))
        for name in names:
            Path(folders[name], "go").touch()
        for _ in range(2):
            ((before,),) = bench.query("select max(build_id) from meta.builds")
            wait_for(lambda: newest_build(bench) > before + 1)  # noqa: B023 - called at once
            bench.load()
        codes = [process.wait(WAIT_S) for process in processes]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
    told = [
        message
        for name in names
        for message in json.loads(Path(folders[name], f"{name}.json").read_text())
    ]

    assert codes == [0, 0]
    assert any("another build" in message for message in told), told
    bench.assert_undisturbed(tmp_path)


def newest_build(bench: Bench) -> int:
    return bench.query("select max(build_id) from meta.builds")[0][0]
