"""The verb `build`: bronze rows that were loaded since become silver and gold.

Every build is pinned to the highest load_id at its start and every model keeps its position in the
warehouse, committed with its rows: a build that is killed, repeated or doubled changes nothing.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tickhouse.errors import BusyError, RefusedError
from tickhouse.telemetry import failpoint, get_logger
from tickhouse.transform.dbt_runner import BuildError, DbtRunner, Node, NodeResult, Secret
from tickhouse.transform.positions import (
    TESTS,
    Connection,
    Position,
    Window,
    arrived_streams,
    bounded_load,
    build_lock,
    create_tables,
    existing_tables,
    finish,
    newest_load,
    pin,
    read_positions,
    record_seeds,
)
from tickhouse.transform.rederiving import Anew, rewind

if TYPE_CHECKING:
    from tickhouse.warehouse.snowflake_options import SnowflakeOptions

__all__ = ["Anew", "BuildError", "BuildResult", "Builder"]

FRAMES_MAX: Final = 300_000
SNOWFLAKE_THREADS: Final = 4
SAMPLE_ROWS: Final = 3
_NEVER_BUILT: Final = Position(0, None, None)
_building = threading.Lock()
"""dbt keeps its state in globals: one build at a time in a process, whatever it builds."""


class BuildResult(msgspec.Struct, frozen=True):
    """What one call of `build` did.

    Attributes:
        changed: whether anything was built.
        build_id: id of the last build, 0 if none ever ran.
        load_id: silver and gold now hold everything up to this load.
        previous_load_id: … and held everything up to this one before.
        builds: number of windows it took.
        models, tests: number run.
        seconds: all of it.
    """

    changed: bool
    build_id: int
    load_id: int
    previous_load_id: int
    builds: int
    models: int
    tests: int
    seconds: float


class Builder:
    """Builds silver and gold.

    Args:
        connect: opens a connection to the warehouse; the builder closes it. For DuckDB the process
            must own the file, and open it without options of its own, as dbt does.
        target: dbt profile target of the same warehouse, e.g. `duckdb_target(path)`.
        work_folder: for dbt's own files; nothing in it needs to be kept.
        frames_max: a build reads about so many frames at most; what is behind takes several.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        target: Mapping[str, object],
        work_folder: Path,
        frames_max: int = FRAMES_MAX,
    ) -> None:
        self._connect = connect
        self._frames_max = frames_max
        self._dbt = DbtRunner(target, work_folder, on_model_finished=_model_finished)
        self._log = get_logger("build")

    def prepare(self) -> None:
        """Create the builder's tables and parse the project, so that the first build is warm."""
        connection = self._connect()
        try:
            create_tables(connection)
        finally:
            connection.close()
        self._dbt.parse()

    def close(self) -> None:
        """Release the warehouse."""
        self._dbt.close()

    def build(self, anew: Anew | None = None) -> BuildResult:
        """Bring silver and gold level with the newest load; next to free where nothing is new.

        Args:
            anew: derive this once more, whatever is there; each table is replaced whole.

        Raises:
            BusyError: another build runs in this process.
            BuildError: a model or data test failed; what was committed is whole, and the next
                build goes on from there.
            RefusedError: disk full.
        """
        if not _building.acquire(blocking=False):
            raise BusyError("a build is running already: wait for it to end")
        try:
            connection = self._connect()
            try:
                return self._build(connection, anew)
            finally:
                connection.close()
        finally:
            _building.release()

    def _build(self, connection: Connection, anew: Anew | None) -> BuildResult:
        started = time.monotonic()
        create_tables(connection)
        self._dbt.parse()
        newest = newest_load(connection)
        previous = self._level(read_positions(connection))
        forced = rewind(connection, self._dbt.nodes, anew) if anew is not None else frozenset[str]()
        positions = read_positions(connection)
        build_id = builds = models = tests = 0
        while (windows := self._windows(connection, positions, newest, forced)) is not None:
            build_id, results = self._run(connection, windows)
            forced = frozenset[str]()
            builds += 1
            models += sum(result.kind == "model" for result in results)
            tests += sum(result.kind == "test" for result in results)
            positions = read_positions(connection)
        return BuildResult(
            changed=builds > 0,
            build_id=build_id,
            load_id=self._level(positions),
            previous_load_id=previous,
            builds=builds,
            models=models,
            tests=tests,
            seconds=round(time.monotonic() - started, 4),
        )

    def _models(self) -> list[str]:
        return [node.name for node in self._dbt.nodes.values() if node.kind == "model"]

    def _level(self, positions: Mapping[str, Position]) -> int:
        names = [*self._models(), TESTS]
        return min(positions.get(name, _NEVER_BUILT).load_id for name in names)

    def _windows(
        self,
        connection: Connection,
        positions: Mapping[str, Position],
        newest: int,
        forced: AbstractSet[str],
    ) -> list[Window] | None:
        """What each model reads next; None where all are level."""
        stale = self._stale(positions, existing_tables(connection), forced)
        stands = {name: positions.get(name, _NEVER_BUILT) for name in [*self._models(), TESTS]}
        lowest = min(0 if name in stale else at.load_id for name, at in stands.items())
        if not stale and lowest >= newest:
            return None
        bounded = bounded_load(connection, lowest, newest, self._frames_max)
        upto = max(bounded, *(at.load_id for at in stands.values()))
        return [
            Window(
                model=name,
                after=0 if name in stale else at.load_id,
                upto=upto,
                is_full=name in stale,
                position=at,
                fingerprint=self._dbt.nodes[name].fingerprint if name != TESTS else None,
            )
            for name, at in stands.items()
        ]

    def _stale(
        self,
        positions: Mapping[str, Position],
        tables: Mapping[str, int | None],
        forced: AbstractSet[str],
    ) -> set[str]:
        """Models without a table or made by other SQL or seeds, and everything downstream."""
        nodes = self._dbt.nodes
        stale = {
            name
            for name, node in nodes.items()
            if name in forced or _is_stale(node, positions.get(name, _NEVER_BUILT), tables)
        }
        while more := {
            name for name, node in nodes.items() if name not in stale and node.upstream & stale
        }:
            stale |= more
        return stale | {TESTS} if stale else stale

    def _run(self, connection: Connection, windows: list[Window]) -> tuple[int, list[NodeResult]]:
        self._seed(connection)
        failpoint("build.pin.before")
        idle = self._idle(connection, windows)
        build_id = pin(connection, windows, started_at=_now(), idle=idle)
        failpoint("build.pin.after")
        try:
            results = self._dbt.run(
                [
                    *("build", "--no-populate-cache"),
                    *("--exclude-resource-type", "seed", "unit_test"),
                    # "empty": their tests run all the same, as they read other models too.
                    *(("--indirect-selection", "empty", "--exclude", *idle) if idle else ()),
                ],
                build_id=build_id,
            )
            self._check(connection, results)
        except Exception as error:
            finish(connection, build_id, windows, finished_at=_now(), failure=str(error))
            raise
        failpoint("build.finish.before")
        finish(connection, build_id, windows, finished_at=_now(), failure=None)
        failpoint("build.finish.after")
        return build_id, results

    def _idle(self, connection: Connection, windows: Sequence[Window]) -> list[str]:
        """Models whose rows stay as they are: of the streams they read nothing arrived."""
        arrived = arrived_streams(connection, min(w.after for w in windows), windows[0].upto)
        nodes = self._dbt.nodes
        return [
            window.model
            for window in windows
            if not window.is_full
            and window.model in nodes
            and nodes[window.model].streams
            and not nodes[window.model].streams & arrived
        ]

    def _seed(self, connection: Connection) -> None:
        """Load seeds whose file changed since; usually none.

        While dbt loads a seed it is empty, and another build would make rows of that. So it is done
        under the lock, by the first of those that found it changed.
        """
        if not self._changed_seeds(connection):
            return
        with build_lock(connection):
            # A seed that is loaded in part must not pass for the one that was there before.
            record_seeds(connection, dict.fromkeys(self._changed_seeds(connection)))
        with build_lock(connection):
            if changed := self._changed_seeds(connection):
                self._check(connection, self._dbt.run(["seed", "--full-refresh"]))
                record_seeds(connection, changed)

    def _changed_seeds(self, connection: Connection) -> dict[str, str]:
        positions, tables = read_positions(connection), existing_tables(connection)
        return {
            name: node.fingerprint
            for name, node in self._dbt.nodes.items()
            if node.kind == "seed" and _is_stale(node, positions.get(name, _NEVER_BUILT), tables)
        }

    def _check(self, connection: Connection, results: list[NodeResult]) -> None:
        for result in results:
            if result.status == "error" and "No space left" in result.message:
                raise RefusedError(f"{result.name}: {result.message}")
            if result.status == "error":
                raise BuildError(f"{result.kind} {result.name} failed: {result.message}")
        for result in results:
            if result.status == "fail":
                sample = self._sample(connection, result)
                raise BuildError(
                    f"data test {result.name} found {result.failures} rows, such as {sample}"
                )

    @staticmethod
    def _sample(connection: Connection, result: NodeResult) -> str:
        connection.execute(f"select * from ({result.sql}) limit {SAMPLE_ROWS}")  # noqa: S608
        names = [column[0] for column in connection.description or ()]
        rows = connection.fetchall()
        return "; ".join(str(dict(zip(names, row, strict=True))) for row in rows)


def _is_stale(node: Node, at: Position, tables: Mapping[str, int | None]) -> bool:
    """Whether a node's table is missing, made by other SQL, or not the one its position means."""
    made_by = tables.get(node.name)
    is_another = made_by is not None and made_by != at.made_by
    return at.fingerprint != node.fingerprint or node.name not in tables or is_another


def duckdb_target(path: Path) -> dict[str, object]:
    """The dbt profile target of an embedded warehouse."""
    return {
        "type": "duckdb",
        "path": str(path),
        "schema": "main",
        "threads": 1,
        "settings": {"TimeZone": "UTC"},
    }


def snowflake_target(options: "SnowflakeOptions") -> dict[str, object]:
    """The dbt profile target of a Snowflake database."""
    target: dict[str, object] = {
        "type": "snowflake",
        "account": options.account,
        "user": options.user,
        "database": options.database,
        "warehouse": options.warehouse,
        "role": options.role,
        "schema": "META",
        "threads": SNOWFLAKE_THREADS,
        # A failed model's transaction ends with its session.
        "reuse_connections": False,
        "connect_retries": 3,
        "query_tag": "tickhouse",
    }
    if options.host:
        target |= {"host": options.host, "port": options.port, "protocol": options.protocol}
    if options.authenticator == "key_pair":
        target["private_key_path"] = str(Path(options.private_key_file).expanduser())
        target["private_key_passphrase"] = Secret(options.private_key_passphrase)
    elif options.authenticator == "password":
        target["password"] = Secret(options.password)
    else:
        target |= {"authenticator": options.authenticator, "token": Secret(options.token)}
    if options.authenticator == "oauth":
        target["authenticator"] = "jwt"  # dbt's name for a token that is sent as it is
    return target


def _model_finished(name: str) -> None:
    failpoint("build.model.after")
    failpoint(f"build.{name}.after")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
