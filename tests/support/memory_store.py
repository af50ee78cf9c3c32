"""A store in memory, and one that fails on demand, as stores and networks do."""

from collections.abc import Callable, Iterator, Mapping

from tickhouse.bronze.store import ObjectInfo
from tickhouse.errors import ObjectExistsError, ObjectMissingError


class MemoryStore:
    """Objects in a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.secured: list[str] = []

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        if key in self.objects:
            raise ObjectExistsError(key)
        self.objects[key] = body

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissingError(key)
        return self.objects[key]

    def get_head(self, key: str, length: int) -> bytes:
        return self.get(key)[:length]

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(f"{prefix}/") and key > start_after:
                yield ObjectInfo(key, len(self.objects[key]))

    def last(self, prefix: str) -> str | None:
        found = [name for name in self._below(prefix) if "/" not in name and name[0].isdigit()]
        return f"{prefix}/{max(found)}" if found else None

    def folders(self, prefix: str) -> list[str]:
        return sorted({name.partition("/")[0] for name in self._below(prefix) if "/" in name})

    def _below(self, prefix: str) -> list[str]:
        start = f"{prefix}/"
        return [key.removeprefix(start) for key in self.objects if key.startswith(start)]

    def secure(self, key: str) -> None:
        self.secured.append(key)


Fault = Callable[[str, str], None]
"""Told the operation ("put.before", "put.after", "get", "list") and its key; may raise."""


class FaultyStore(MemoryStore):
    """A store whose answers get lost: `fault` may raise before or after a put is applied."""

    def __init__(self, fault: Fault = lambda _operation, _key: None) -> None:
        super().__init__()
        self.fault = fault

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        self.fault("put.before", key)
        super().put_if_absent(key, body, metadata)
        self.fault("put.after", key)

    def get(self, key: str) -> bytes:
        self.fault("get", key)
        return super().get(key)

    def last(self, prefix: str) -> str | None:
        self.fault("list", prefix)
        return super().last(prefix)
