"""dbt in this process: the project is parsed once and its manifest kept (a warm run is cheap).

Nothing is written into the installed package, nothing is printed, nothing is sent anywhere.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from tickhouse.errors import TickhouseError

PROJECT: Final = "tickhouse"
DbtObject: TypeAlias = Any
"""Objects of dbt, which are not typed for use from outside."""


class BuildError(TickhouseError):
    """A model or a data test failed; what it names must be mended before the next build passes."""


class Secret(msgspec.Struct, frozen=True):
    """A value of the profile that dbt gets by environment: it is never written, never shown."""

    value: str

    def __repr__(self) -> str:
        """No value."""
        return "Secret(…)"


class NodeResult(msgspec.Struct, frozen=True):
    """How one model, seed or test ended.

    Attributes:
        name: name of the node.
        kind: "model", "seed" or "test".
        status: "success", "pass", "error", "fail" or "skipped".
        message: dbt's message.
        failures: rows found by a test.
        sql: the SQL that was run, for tests.
        seconds: execution time.
    """

    name: str
    kind: str
    status: str
    message: str
    failures: int
    sql: str
    seconds: float


class Node(msgspec.Struct, frozen=True):
    """A model or seed of the project, with what its rows depend on.

    Attributes:
        name: name of the node.
        kind: "model" or "seed".
        fingerprint: of all that makes its rows but bronze.
        upstream: models and seeds that it reads.
        streams: the only streams whose frames change its rows; empty = all.
        is_appended: its rows are only ever added to, and keep the load that brought them.
    """

    name: str
    kind: str
    fingerprint: str
    upstream: frozenset[str]
    streams: frozenset[str] = frozenset()
    is_appended: bool = False


class DbtRunner:
    """Runs the project in `tickhouse/transform/project` against one target.

    Args:
        target: dbt profile target, e.g. `{"type": "duckdb", "path": …}`.
        work_folder: for the profile and dbt's own files; created if needed.
        on_model_finished: called with a model's name after its transaction ended.
    """

    def __init__(
        self,
        target: Mapping[str, object],
        work_folder: Path,
        *,
        on_model_finished: Callable[[str], None] | None = None,
    ) -> None:
        self._target = dict(target)
        self._secrets: dict[str, str] = {}
        for key, value in target.items():
            if isinstance(value, Secret):
                name = f"DBT_ENV_SECRET_TICKHOUSE_{key.upper()}"
                self._secrets[name] = value.value
                self._target[key] = f"{{{{ env_var('{name}', '') }}}}"
        self._folder = work_folder
        self._on_model_finished = on_model_finished
        self._runner: Any = None
        self.nodes: dict[str, Node] = {}

    def parse(self) -> None:
        """Write the profile, parse the project and keep its manifest; done once.

        Raises:
            BuildError: the project does not parse.
        """
        if self._runner is not None:
            return
        from dbt.cli.main import dbtRunner

        self.write_profile()
        os.environ.update(self._secrets)
        runner: DbtObject = dbtRunner()
        parsed = runner.invoke(["parse", *self._flags()])
        if not parsed.success:
            raise BuildError(f"the dbt project does not parse: {parsed.exception}")
        self.nodes = {node.name: node for node in _nodes(parsed.result)}
        self._runner = dbtRunner(manifest=parsed.result, callbacks=[self._notify])

    def write_profile(self) -> None:
        """Write `profiles.yml` (JSON is YAML) into the work folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        profile = {PROJECT: {"target": "warehouse", "outputs": {"warehouse": self._target}}}
        (self._folder / "profiles.yml").write_text(json.dumps(profile))

    def run(self, arguments: Sequence[str], *, build_id: int | None = None) -> list[NodeResult]:
        """Run a dbt command; a failing node is in the result, it does not raise.

        Args:
            arguments: the command and its options.
            build_id: the pinned build whose windows the models read.

        Raises:
            BuildError: dbt itself failed.
        """
        self.parse()
        os.environ.update(self._secrets)
        pinned = ["--vars", json.dumps({"build_id": build_id})] if build_id is not None else []
        ended: Any = self._runner.invoke([*arguments, *pinned, *self._flags()])
        if ended.exception is not None:
            if not isinstance(ended.exception, Exception):
                raise ended.exception
            raise BuildError(f"dbt stopped: {ended.exception}") from ended.exception
        return [_node_result(result) for result in ended.result.results]

    def close(self) -> None:
        """Release the warehouse, which dbt holds open between runs where it is DuckDB."""
        if self._target["type"] != "duckdb":
            return
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        manager: Any = DuckDBConnectionManager
        environment = manager._ENV  # noqa: SLF001  # dbt-duckdb has no public way
        if environment is not None and environment.creds.path == self._target.get("path"):
            environment.close()
            manager.close_all_connections()

    def _flags(self) -> list[str]:
        with as_file(files("tickhouse.transform") / "project") as project:
            flags = {
                "--project-dir": project,
                "--profiles-dir": self._folder,
                "--target-path": self._folder / "target",
                "--log-path": self._folder / "logs",
                "--log-level": "none",
                "--log-level-file": "none",
            }
        switches = ("write-json", "print", "version-check", "send-anonymous-usage-stats")
        options = [text for flag, value in flags.items() for text in (flag, str(value))]
        return [*(f"--no-{switch}" for switch in switches), *options]

    def _notify(self, event: DbtObject) -> None:
        if event.info.name == "NodeFinished" and self._on_model_finished is not None:
            self._on_model_finished(event.data.node_info.node_name)


def _nodes(manifest: DbtObject) -> Iterable[Node]:
    own: dict[str, Node] = {}
    for node in manifest.nodes.values():
        kind = str(node.resource_type)
        if kind in {"model", "seed"}:
            keys: list[str] = node.depends_on.nodes if kind == "model" else []
            upstream = frozenset(str(manifest.nodes[k].name) for k in keys if k in manifest.nodes)
            fingerprint = _fingerprint(node, kind, manifest)
            streams = frozenset(map(str, node.config.meta.get("streams", ())))
            is_appended = kind == "model" and not node.config.unique_key
            own[str(node.name)] = Node(
                str(node.name), kind, fingerprint, upstream, streams, is_appended
            )
    for node in own.values():
        yield msgspec.structs.replace(node, fingerprint=_with_upstream(node, own))


def _with_upstream(node: Node, own: Mapping[str, Node]) -> str:
    """A model's rows are also made by what is upstream of it.

    A build that is killed between a changed model and one downstream leaves the latter stale.
    """
    names = sorted(upstream_of(node, own))
    texts = [node.fingerprint, *(own[name].fingerprint for name in names)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest() if names else node.fingerprint


def upstream_of(node: Node, own: Mapping[str, Node]) -> set[str]:
    """Names of all models and seeds whose rows flow into the node's."""
    found: set[str] = set()
    waiting = list(node.upstream)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += own[name].upstream
    return found


def _fingerprint(node: DbtObject, kind: str, manifest: DbtObject) -> str:
    """Hash of the SQL and of the project's macros it uses; of a seed, its file."""
    if kind == "seed":
        parts = [node.checksum.checksum, json.dumps(node.config.column_types, sort_keys=True)]
    else:
        parts = [node.raw_code, json.dumps([node.config.unique_key])]
        parts += [manifest.macros[key].macro_sql for key in _macros(node, manifest)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _macros(node: DbtObject, manifest: DbtObject) -> list[str]:
    found: set[str] = set()
    waiting = list(node.depends_on.macros)
    while waiting:
        key = waiting.pop()
        macro = manifest.macros.get(key)
        if macro is not None and macro.package_name == PROJECT and key not in found:
            found.add(key)
            waiting.extend(macro.depends_on.macros)
    return sorted(found)


def _node_result(result: DbtObject) -> NodeResult:
    node = result.node
    return NodeResult(
        name=node.name,
        kind=str(node.resource_type),
        status=str(result.status),
        message=str(result.message or ""),
        failures=int(result.failures or 0),
        sql=str(getattr(node, "compiled_code", "") or ""),
        seconds=float(result.execution_time),
    )
