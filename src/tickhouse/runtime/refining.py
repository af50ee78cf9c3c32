"""The refine loop: load, build, publish, over and over, in the one process that owns the file."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future  # noqa: TC003 - in a protocol's annotations
from typing import Any, Final, Protocol

import msgspec

from tickhouse.errors import RefusedError, TransientError
from tickhouse.runtime.owner import Cycle
from tickhouse.telemetry import StageStatus, get_logger
from tickhouse.transform.builder import Anew, Builder, BuildError, BuildResult
from tickhouse.transform.publisher import Publisher
from tickhouse.warehouse.loader import Loader
from tickhouse.warehouse.warehouse import LoadResult

RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 30.0

_log = get_logger("refine")


class CycleFacts(msgspec.Struct, frozen=True):
    """What one cycle did.

    Attributes:
        rows, objects, bytes: loaded; the bytes as they are in the lake.
        load_id: of the last load, None where nothing was pending.
        built: whether silver and gold changed.
        gold_load_id: gold holds everything up to this load; None where nothing was to be built.
        is_behind: more is pending.
        problems: chains that do not go on until an operator looks at them, with the reason.
        load_seconds, build_seconds, publish_seconds: of each step.
    """

    rows: int
    objects: int
    bytes: int
    load_id: int | None
    built: bool
    gold_load_id: int | None
    is_behind: bool
    problems: list[str]
    load_seconds: float
    build_seconds: float
    publish_seconds: float


class CycleQueue(Protocol):
    """Where other processes' requests for a cycle arrive."""

    def get(self, *, timeout: float) -> tuple[Cycle, "Future[dict[str, Any]]"]:
        """The next request; raises `queue.Empty` after the time-out."""
        ...


class Refinery:
    """Load, build and publish over one warehouse.

    Args:
        loader: stage 3.
        builder: stage 4; None where only loading is asked for.
        publisher: writes published gold after each whole build.
        load_status, build_status: where the two stages report.
    """

    def __init__(
        self,
        loader: Loader,
        builder: Builder | None,
        publisher: Publisher | None,
        load_status: StageStatus,
        build_status: StageStatus,
    ) -> None:
        self._loader = loader
        self._builder = builder
        self._publisher = publisher
        self._load_status = load_status
        self._build_status = build_status
        self.totals = {"rows": 0, "objects": 0, "builds": 0}

    def cycle(
        self,
        *,
        load: bool = True,
        build: bool = True,
        to_the_end: bool = True,
        anew: Anew | None = None,
    ) -> CycleFacts:
        """Load what is pending (one transaction, or to the end), build, publish.

        A cycle to the end says what each step did; `anew`: what the build derives once more.
        """
        tell = _log.info if to_the_end else _log.debug
        started = time.monotonic()
        loaded = self._load(to_the_end=to_the_end) if load else LoadResult(None, 0, 0, 0)
        after_load = time.monotonic()
        if load:
            tell("load_done", **msgspec.structs.asdict(loaded), seconds=_since(started))
        built = self._build(anew) if build else None
        after_build = time.monotonic()
        if built is not None:
            tell("build_done", **msgspec.structs.asdict(built))
            self._publish(built, tell)
        published = time.monotonic()
        facts = CycleFacts(
            rows=loaded.rows,
            objects=loaded.objects,
            bytes=loaded.bytes,
            load_id=loaded.load_id,
            built=built is not None and built.changed,
            gold_load_id=None if built is None else built.load_id,
            is_behind=load and not to_the_end and self._loader.was_full,
            problems=self._problems() if load else [],
            load_seconds=round(after_load - started, 4),
            build_seconds=round(after_build - after_load, 4),
            publish_seconds=round(published - after_build, 4),
        )
        if loaded.rows or facts.built:
            _log.info("cycle_done", **msgspec.structs.asdict(facts))
        self._report(facts)
        return facts

    def _problems(self) -> list[str]:
        alarms = self._loader.alarms
        return [f"{chain.prefix}: {alarms[chain]}" for chain in sorted(alarms)]

    def _load(self, *, to_the_end: bool) -> LoadResult:
        result = self._loader.load_all() if to_the_end else self._loader.load_once()
        self.totals["rows"] += result.rows
        self.totals["objects"] += result.objects
        return result

    def _build(self, anew: Anew | None) -> BuildResult | None:
        if self._builder is None:
            return None
        result = self._builder.build(anew)
        self.totals["builds"] += int(result.changed)
        return result

    def _publish(self, built: BuildResult, tell: Callable[..., object]) -> None:
        if self._publisher is not None:
            result = self._publisher.publish(built.load_id)
            tell("publish_done", load_id=built.load_id, **msgspec.structs.asdict(result))

    def _report(self, facts: CycleFacts) -> None:
        details = {**msgspec.structs.asdict(facts), **self.totals}
        self._load_status.report("running", {**details, **self._loader.facts()})
        self._build_status.report("running", details)

    def run(
        self,
        stop: threading.Event,
        *,
        interval_s: float,
        requests: CycleQueue,
        load: bool = True,
        build: bool = True,
    ) -> None:
        """Cycle until told to stop, then once more, so that nothing landed is left behind."""
        retry_s = RETRY_S
        while not stop.is_set():
            wait_s = interval_s
            try:
                facts = self.cycle(load=load, build=build, to_the_end=False)
                wait_s = 0.0 if facts.is_behind else interval_s
                retry_s = RETRY_S
            except (TransientError, RefusedError, BuildError) as error:
                self._failed(error)
                stop.wait(retry_s)
                retry_s = min(retry_s * 2, RETRY_S_MAX)
            self._serve_requests(requests, wait_s, stop)
        self.cycle(load=load, build=build)

    def close(self) -> None:
        """Say that both stages have stopped, and release what dbt holds."""
        self._load_status.report("stopped", {**self.totals, **self._loader.facts()})
        self._build_status.report("stopped", self.totals)
        if self._builder is not None:
            self._builder.close()

    def _failed(self, error: Exception) -> None:
        _log.error("cycle_failed", error=str(error), kind=type(error).__name__)
        status = self._build_status if isinstance(error, BuildError) else self._load_status
        status.report("failed", {"error": str(error)})

    def _serve_requests(self, requests: CycleQueue, wait_s: float, stop: threading.Event) -> None:
        deadline = time.monotonic() + wait_s
        while not stop.is_set():
            remaining = max(deadline - time.monotonic(), 0.001)
            try:
                cycle, future = requests.get(timeout=min(remaining, 0.1))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    return
                continue
            _fulfil(
                future,
                lambda wanted=cycle: self.cycle(
                    load=wanted.load, build=wanted.build, anew=wanted.anew
                ),
            )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)


def _fulfil(future: "Future[dict[str, Any]]", work: Callable[[], CycleFacts]) -> None:
    try:
        future.set_result(msgspec.structs.asdict(work()))
    except (TransientError, RefusedError, BuildError) as error:
        future.set_exception(error)
    except BaseException as error:
        future.set_exception(error)
        raise
