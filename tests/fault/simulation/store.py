"""An object store whose answers get lost, come late, or are refused."""

from collections.abc import Callable, Iterator, Mapping

from tests.fault.simulation.chance import Chance, Crash
from tests.support.memory_store import MemoryStore
from tickhouse.bronze.store import ObjectInfo
from tickhouse.errors import ObjectExistsError, RefusedError, TransientError


class SimulatedStore(MemoryStore):
    """Objects in a dict, behind a network that the dice rule.

    Attributes:
        late: requests that time out first and are applied later, unless their key is taken then.
        interrupt: lets others act between a caller's decision and its effect.
        crashing: kind of crash of whoever calls, and whether it may crash at all.
    """

    def __init__(self, chance: Chance) -> None:
        super().__init__()
        self._chance = chance
        self.late: list[tuple[str, bytes]] = []
        self.interrupt: Callable[[], None] = lambda: None
        self.crashing = "kill_lander"
        self.is_forbidden = False

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        self._before(key)
        if self._chance.strikes("s3_applied_late", 0.03):
            self.late.append((key, body))
            raise TransientError("timed out after 4 s", retry_after_s=0.1)
        if self._chance.strikes("s3_403", 0.004):
            self.is_forbidden = True
        if self.is_forbidden:
            raise RefusedError(f"{key}: 403 AccessDenied")
        self.write(key, body)
        if self._chance.strikes("s3_applied_but_error", 0.04):
            raise TransientError("500 after it was applied")
        if self._chance.strikes("s3_reset", 0.03):
            raise TransientError("connection reset")
        if self._chance.strikes(self.crashing, 0.01):
            raise Crash

    def write(self, key: str, body: bytes) -> None:
        """What the store itself does with a put."""
        if key in self.objects:
            raise ObjectExistsError(key)
        self.objects[key] = body

    def _before(self, key: str) -> None:
        self.interrupt()
        if self._chance.strikes(self.crashing, 0.01):
            raise Crash
        if self._chance.strikes("s3_503", 0.03):
            raise TransientError(f"{key}: 503 SlowDown", retry_after_s=0.1)
        if self._chance.strikes("s3_refused", 0.01):
            raise TransientError(f"{key}: connection refused", retry_after_s=0.1)

    def apply_late(self) -> None:
        """One of the requests that timed out arrives after all."""
        if self.late:
            key, body = self.late.pop(0)
            if key not in self.objects:
                self.objects[key] = body

    def get(self, key: str) -> bytes:
        self._before(key)
        return super().get(key)

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        self._before(prefix)
        return super().list_objects(prefix, start_after=start_after)

    def last(self, prefix: str) -> str | None:
        self._before(prefix)
        return super().last(prefix)

    def folders(self, prefix: str) -> list[str]:
        self._before(prefix)
        return super().folders(prefix)
