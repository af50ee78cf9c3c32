"""The verb `load`: walk each chain from where the ledger ends, verify, load, in bounded steps.

No history is listed: an object's key follows from the position alone. A corrupt object stops its
own chain, by name and loudly; so does a hole. Everything before it, and every other chain, loads.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from tickhouse.bronze.ahead import ReadAhead
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.object import verify
from tickhouse.bronze.store import Store
from tickhouse.errors import CorruptObjectError, ObjectMissingError
from tickhouse.model.positions import ChainId
from tickhouse.telemetry import get_logger
from tickhouse.warehouse.warehouse import BronzeObject, LoadResult, Warehouse

RECHECK_S: Final = 10.0
"""A chain that waits at a corrupt or missing object is looked at again this often."""
LOOK_AHEAD_S: Final = 30.0
"""A chain that does not advance is checked for objects beyond its end this often."""
REFRESH_S: Final = 1.0
"""New chains are looked for this often."""

_ELSEWHERE: Final = "loaded up to {end}, but the lake holds nothing: is it the right one?"

_log = get_logger("load")


class Waiting(msgspec.Struct, frozen=True):
    """Why a chain does not go on, and when (monotonic) that was last seen."""

    reason: str
    checked_at_s: float


class Loader:
    """Loads the lake into a warehouse.

    Args:
        store: the lake.
        warehouse: prepared; any backend.
        bytes_max, objects_max: what one transaction loads, by compressed size and by number.
        until: positions not to go beyond; a chain that is not named is not loaded.
        monotonic: clock of the checks that are not made in every step.
    """

    def __init__(
        self,
        store: Store,
        warehouse: Warehouse,
        *,
        bytes_max: int = 64 << 20,
        objects_max: int = 500,
        until: Mapping[ChainId, int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._warehouse = warehouse
        self._bytes_max = bytes_max
        self._objects_max = objects_max
        self._until = until
        self._monotonic = monotonic
        self._chains: list[ChainId] | None = None
        self._refreshed_at_s = float("-inf")
        self._looked_ahead_at_s: dict[ChainId, float] = {}
        self._waiting: dict[ChainId, Waiting] = {}
        self._genesis: dict[ChainId, str] = {}
        self._quarantined: set[str] | None = None
        self._turn = 0
        self._positions: Mapping[ChainId, int] = {}
        self._total = LoadResult(None, 0, 0, 0)
        self.was_full = False
        """Whether the last step ended at its limits, so that more is pending."""

    @property
    def waiting(self) -> dict[ChainId, str]:
        """Chains that do not go on, each with the reason: an alarm."""
        return {chain: waiting.reason for chain, waiting in self._waiting.items()}

    @property
    def alarms(self) -> dict[ChainId, str]:
        """Chains that an operator must look at: `waiting`, and those without a right GENESIS.

        All that are in the ledger, where the lake has none at all: it is another lake.
        """
        is_another = self._chains == []
        elsewhere = dict(self._positions) if is_another else dict[ChainId, int]()
        return {
            **{chain: _ELSEWHERE.format(end=end) for chain, end in elsewhere.items()},
            **{chain: fault for chain, fault in self._genesis.items() if fault},
            **self.waiting,
        }

    def facts(self) -> dict[str, object]:
        """What status shows: totals of this loader, positions, and what does not go on."""
        return {
            "load_id": self._total.load_id,
            "rows_loaded": self._total.rows,
            "objects_loaded": self._total.objects,
            "bytes_loaded": self._total.bytes,
            "positions": {chain.prefix: end for chain, end in sorted(self._positions.items())},
            "alarms": {chain.prefix: reason for chain, reason in sorted(self.alarms.items())},
            "quarantined": sorted(self._quarantined or ()),
        }

    def load_all(self) -> LoadResult:
        """Load until nothing is pending; the sum, with the last load's id."""
        total = LoadResult(None, 0, 0, 0)
        self._refreshed_at_s = float("-inf")
        while (loaded := self.load_once()).load_id is not None:
            total = _added(total, loaded)
        return total

    def load_once(self) -> LoadResult:
        """Load what is pending, up to the limits, in one transaction.

        Raises:
            TransientError, RefusedError: of the store or the warehouse; nothing is lost, and the
                next step starts from what the ledger then says.
        """
        self._read_positions()
        pending = self._pending()
        self._secure(pending)
        loaded = self._load(pending)
        if loaded.load_id is not None:
            self._total = _added(self._total, loaded)
            self._read_positions()
            _log.info("objects_loaded", **msgspec.structs.asdict(loaded))
        return loaded

    def _read_positions(self) -> None:
        self._positions = self._warehouse.positions()
        if self._quarantined is None:
            self._quarantined = {found.key for found in self._warehouse.quarantined()}
        passed = {
            key
            for key in self._quarantined
            for chain, end in self._positions.items()
            if key.startswith(f"{chain.prefix}/") and key < chain.key(end)
        }
        for key in sorted(passed):
            self._warehouse.release(key)
            self._quarantined.discard(key)
            _log.info("object_released", key=key)

    # -- what is pending ---------------------------------------------------------------------

    def _pending(self) -> list[BronzeObject]:
        """Objects that follow the ledger, one of each chain in turn, up to the limits."""
        ends = dict(self._positions)
        chains = deque(self._known_chains())
        chains.rotate(-self._turn)
        self._turn += 1
        pending: list[BronzeObject] = []
        ahead = ReadAhead(self._store)
        size = 0
        while chains and len(pending) < self._objects_max and size < self._bytes_max:
            chain = chains.popleft()
            found = self._next(chain, ends.get(chain, 0), ahead)
            if found is not None:
                pending.append(found)
                size += len(found.body)
                ends[chain] = found.manifest.next
                chains.append(chain)
        self.was_full = bool(chains)
        return pending

    def _known_chains(self) -> list[ChainId]:
        now = self._monotonic()
        if self._chains is None or now - self._refreshed_at_s >= REFRESH_S:
            self._chains, self._refreshed_at_s = find_chains(self._store), now
        return self._chains

    def _next(self, chain: ChainId, start: int, ahead: ReadAhead) -> BronzeObject | None:
        """The chain's object at `start`, if it is there, whole, and within `until`."""
        limit = None if self._until is None else self._until.get(chain, 0)
        if self._rests(chain) or (limit is not None and start >= limit):
            return None
        try:
            found = fetch(ahead, chain, start)
        except CorruptObjectError as error:
            self._set_aside(chain, error)
            return None
        if found is None:
            self._look_ahead(chain, start)
            return None
        self._waiting.pop(chain, None)
        if chain in self._looked_ahead_at_s:
            self._looked_ahead_at_s[chain] = self._monotonic()
        if chain not in self._genesis:
            self._check_genesis(chain)
        return found if limit is None or found.manifest.next <= limit else None

    def _rests(self, chain: ChainId) -> bool:
        waiting = self._waiting.get(chain)
        return waiting is not None and self._monotonic() - waiting.checked_at_s < RECHECK_S

    def _look_ahead(self, chain: ChainId, start: int) -> None:
        """Now and then, make sure that an absent object is the chain's end and not a hole."""
        now = self._monotonic()
        is_due = now - self._looked_ahead_at_s.get(chain, float("-inf")) >= LOOK_AHEAD_S
        if not is_due and chain not in self._waiting:
            return
        self._looked_ahead_at_s[chain] = now
        reason = find_break(self._store, chain, start)
        if reason is None:
            self._waiting.pop(chain, None)
        else:
            self._wait(chain, reason)
        if start:
            self._check_genesis(chain)

    def _check_genesis(self, chain: ChainId) -> None:
        try:
            Chain(self._store, chain).check_genesis()
        except CorruptObjectError as error:
            if self._genesis.get(chain) != str(error):
                _log.error("genesis_wrong", key=error.key, reason=error.reason)
            self._genesis[chain] = str(error)
        else:
            self._genesis[chain] = ""

    def _wait(self, chain: ChainId, reason: str) -> None:
        known = self._waiting.get(chain)
        self._waiting[chain] = Waiting(reason, self._monotonic())
        if known is None or known.reason != reason:
            _log.error("chain_waits", chain=chain.prefix, reason=reason)

    # -- loading -----------------------------------------------------------------------------

    def _secure(self, pending: Sequence[BronzeObject]) -> None:
        """Make sure that what gets loaded is durable in the lake: once a folder."""
        for key in {item.chain: item.key for item in pending}.values():
            self._store.secure(key)

    def _load(self, pending: Sequence[BronzeObject]) -> LoadResult:
        """Load; an object that does not hold what it says stops its chain, the rest loads."""
        while True:
            try:
                return self._warehouse.load(pending)
            except CorruptObjectError as error:
                corrupt = next(item for item in pending if item.key == error.key)
                self._set_aside(corrupt.chain, error)
                pending = [
                    item
                    for item in pending
                    if item.chain != corrupt.chain or item.key < corrupt.key
                ]

    def _set_aside(self, chain: ChainId, error: CorruptObjectError) -> None:
        self._wait(chain, str(error))
        if self._quarantined is not None and error.key not in self._quarantined:
            self._warehouse.quarantine(error.key, error.reason)
            self._quarantined.add(error.key)
            _log.error("object_quarantined", key=error.key, reason=error.reason)


def fetch(ahead: ReadAhead, chain: ChainId, start: int) -> BronzeObject | None:
    """The object of `chain` at `start`, verified; None where there is none.

    Raises:
        CorruptObjectError: it is not what was written.
    """
    key = chain.key(start)
    try:
        body = ahead.get(chain, key)
    except ObjectMissingError:
        return None
    return BronzeObject(key, chain, verify(body, key, chain), body)


def find_break(store: Store, chain: ChainId, start: int) -> str | None:
    """Why a chain without an object at `start` does not simply end there; None if it does."""
    objects = Chain(store, chain)
    try:
        last, end = objects.last_key(), objects.tail()
        if end == start or objects.head(start) is not None:
            return None
    except CorruptObjectError as error:
        return f"{chain.key(start)} is missing, and {error}"
    if last is None or end < start:
        return f"the lake ends at {end}, but {start} was loaded: is it an older copy?"
    if last < chain.key(start):
        return f"{last} straddles {start}, up to which the ledger has loaded"
    return f"{chain.key(start)} is missing, though the chain goes on to {end}"


def _added(total: LoadResult, loaded: LoadResult) -> LoadResult:
    return LoadResult(
        loaded.load_id if loaded.load_id is not None else total.load_id,
        total.objects + loaded.objects,
        total.rows + loaded.rows,
        total.bytes + loaded.bytes,
    )
