"""The interface of the object store that holds the lake."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

KEY_PATTERN: Final = re.compile(
    r"^[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*(/[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*)*$"
)


class ObjectInfo(msgspec.Struct, frozen=True):
    """An object found by listing: its key and its size in bytes."""

    key: str
    size: int


class Store(Protocol):
    """Write-once objects under keys with `/`; any S3 API, or a local folder.

    Keys are relative, of characters `[A-Za-z0-9._~=/-]`, and sort as bytes.
    """

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Create an object, whole and durable when this returns.

        Raises:
            ObjectExistsError: the key is taken. It may be our own earlier attempt whose answer was
                lost: read it, then decide.
            TransientError: the outcome is unknown or the store busy: the same bytes again.
            RefusedError: permission denied, disk or bucket full: stop, keep the position.
        """
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            ObjectMissingError: there is none.
            TransientError: try again.
        """
        ...

    def get_head(self, key: str, length: int) -> bytes:
        """The object's first `length` bytes, or fewer if it is shorter.

        Raises:
            ObjectMissingError: there is none.
        """
        ...

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects under the folder `prefix`; from after `start_after`, a key directly in it.

        In order of key within each folder; whether `a/b.c` comes before `a/b/c` is the store's.
        Paginated inside; only finished objects are shown.
        """
        ...

    def last(self, prefix: str) -> str | None:
        """The greatest key directly under the folder `prefix` whose name begins with a digit.

        Without listing all where the store can.
        """
        ...

    def folders(self, prefix: str) -> list[str]:
        """Names directly under the folder `prefix` that hold objects below them, sorted."""
        ...

    def secure(self, key: str) -> None:
        """Make durable that the object exists, before a position is derived from it.

        A local folder is flushed to disk; a store that answers only for durable objects does
        nothing.
        """
        ...


@runtime_checkable
class BulkStore(Store, Protocol):
    """A store that answers several reads at once faster than one after the other."""

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """The objects' bytes, in the order of the keys; a few are read ahead.

        Raises:
            ObjectMissingError: there is none, when its turn comes.
            TransientError: try again.
        """
        ...


def get_many(store: Store, keys: Sequence[str]) -> Iterator[bytes]:
    """The objects' bytes, in the order of the keys: several at once where the store can.

    Raises:
        ObjectMissingError: there is none, when its turn comes.
    """
    return store.get_many(keys) if isinstance(store, BulkStore) else map(store.get, keys)
