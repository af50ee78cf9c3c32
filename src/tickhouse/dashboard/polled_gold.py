"""Gold of a warehouse over a network: looked at by one thread, answers kept for all viewers."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from tickhouse.dashboard.queries import Manifest
from tickhouse.errors import TickhouseError
from tickhouse.telemetry import get_logger

POLL_S: Final = 2.0
INTEREST_S: Final = 10.0
ANSWERS_MAX: Final = 256

_log = get_logger("serve")


class RemoteGold(Protocol):
    """What is needed of the warehouse's gold (see `WarehouseGold`)."""

    is_level: bool

    def manifest(self) -> Manifest | None:
        """Look where gold stands; may take seconds."""
        ...

    def is_current(self, version: int) -> bool:
        """Look whether all of gold is of this version."""
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only query; may take seconds."""
        ...


class PolledGold:
    """Gold for the page, from several threads; `manifest` never waits.

    One thread looks for a new version, as long as somebody asks for it: with no viewer the
    warehouse may suspend. Answers are kept until the version changes, so that what a hundred
    viewers ask is asked once.

    Args:
        gold: of the warehouse.
        poll_s: pause between two looks.
        monotonic: seconds.
    """

    is_remote = True

    def __init__(
        self,
        gold: RemoteGold,
        *,
        poll_s: float = POLL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gold = gold
        self._poll_s = poll_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._wanted_at = monotonic()
        self._seen: Manifest | None = None
        self._fault: TickhouseError | None = None
        self._moving_at: float | None = None
        self._answers: OrderedDict[tuple[Any, ...], list[tuple[Any, ...]]] = OrderedDict()
        self._thread = threading.Thread(target=self._poll, name="gold-poll", daemon=True)
        self._thread.start()

    def manifest(self) -> Manifest | None:
        """The version seen last; None before the first.

        Raises:
            TickhouseError: the last look failed.
        """
        self._wanted_at = self._monotonic()
        self._wanted.set()
        if self._fault is not None:
            raise self._fault
        return self._seen

    def is_current(self, version: int) -> bool:
        """Look whether all of gold is of this version; within a build not at each call."""
        moving_at = self._moving_at
        if moving_at is not None and self._monotonic() - moving_at < self._poll_s:
            return False
        is_current = self._gold.is_current(version)
        self._moving_at = None if is_current else self._monotonic()
        return is_current

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only query, kept while gold does not move."""
        version = 0 if self._seen is None else self._seen.version
        key = (version, sql, *parameters)
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        rows = self._gold.query(sql, parameters)
        if self._gold.is_level:
            with self._lock:
                self._answers[key] = rows
                while len(self._answers) > ANSWERS_MAX:
                    self._answers.popitem(last=False)
        return rows

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._wanted.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._closing.is_set():
            if self._monotonic() - self._wanted_at > INTEREST_S:
                self._wanted.clear()
                self._wanted.wait(INTEREST_S)
                continue
            self._look()
            self._closing.wait(self._poll_s)

    def _look(self) -> None:
        try:
            seen = self._gold.manifest()
        except TickhouseError as error:
            _log.warning("gold_unreachable", error=str(error))
            self._fault = error
            return
        self._fault = None
        if seen is not None and (self._seen is None or self._seen.version != seen.version):
            with self._lock:
                self._answers.clear()
        self._seen = seen
