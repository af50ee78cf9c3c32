"""The interface of a lake that is not ours: objects under keys of any form, only read."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec


class ForeignObject(msgspec.Struct, frozen=True):
    """An object found by listing.

    Attributes:
        key: in its place, whatever part of the place was listed.
        size: bytes.
        modified_ns: when it was written, UNIX nanoseconds UTC.
    """

    key: str
    size: int
    modified_ns: int


class ForeignLake(Protocol):
    """Objects of a bucket or a folder.

    Attributes:
        url: what is listed, without secrets.
        place: what the keys count in: the whole bucket, or the machine's folders. An object has one
            key there, from wherever it is listed.
        prefix: the beginning of every listed key, with its slash; "" = all of the place.
    """

    url: str
    place: str
    prefix: str

    def objects(self) -> Iterator[ForeignObject]:
        """All objects, in order of key; page by page, so that memory is bounded.

        Raises:
            TransientError, RefusedError: of the place.
        """
        ...

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Bodies in the order of the keys, several read at once; None where one is gone.

        Raises:
            TransientError, RefusedError: of the place.
        """
        ...
