"""The offset chain: where a partition's objects end, found from the lake alone.

Objects form one linked list of disjoint, contiguous ranges however many writers believe they own
the partition, because a key depends only on its start and a start is 0 or a `next` read from the
lake. Whoever finds a key taken reads what is there and goes on behind it.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from tickhouse.bronze.object import HEAD_BYTES, Manifest, read_manifest
from tickhouse.bronze.store import Store
from tickhouse.errors import (
    CorruptObjectError,
    ObjectExistsError,
    ObjectMissingError,
    TransientError,
)
from tickhouse.model.positions import ChainId, Stream
from tickhouse.telemetry import failpoint

GENESIS: Final = b'{"start":0}'
ROOT: Final = "bronze/v1"
_REACH: Final = 10_000
_STREAMS: Final = frozenset(str(stream) for stream in Stream)
_TOPIC_FOLDER: Final = re.compile(r"^(?P<topic>[A-Za-z0-9._-]+)~(?P<topic_id>[A-Za-z0-9_.-]+)$")
_PART_FOLDER: Final = re.compile(r"^p=(?P<part>[0-9]{5,})$")
_OBJECT_KEY: Final = re.compile(r"^[0-9]{20}\.jsonl\.gz$")


class Published(msgspec.Struct, frozen=True):
    """What lies at the start that was asked for; `adopted`: it was there before, by whomever."""

    manifest: Manifest
    adopted: bool

    @property
    def next(self) -> int:
        """Where the chain goes on."""
        return self.manifest.next


class Chain:
    """One chain of a lake.

    Args:
        store: the lake.
        chain_id: which chain.
    """

    def __init__(self, store: Store, chain_id: ChainId) -> None:
        self.id = chain_id
        self._store = store

    def open(self) -> None:
        """Make sure that the chain begins: GENESIS is there, and says 0."""
        key = self.id.genesis_key
        failpoint("land.genesis.before")
        try:
            self._store.put_if_absent(key, GENESIS, {})
        except ObjectExistsError:
            self._store.secure(key)
        failpoint("land.genesis.after")

    def check_genesis(self) -> None:
        """Check what opens the chain.

        Raises:
            CorruptObjectError: missing, or not what opens a chain.
        """
        key = self.id.genesis_key
        try:
            content = self._store.get(key)
        except ObjectMissingError:
            raise CorruptObjectError(key, "missing") from None
        if content != GENESIS:
            raise CorruptObjectError(key, f"holds {content[:40]!r}, not {GENESIS!r}")

    def tail(self) -> int:
        """Offset after the last object; 0 where there is none yet."""
        last = self.last()
        return 0 if last is None else last[1].next

    def last(self) -> tuple[str, Manifest] | None:
        """Key and manifest of the last object, made durable before anything follows from it.

        Raises:
            CorruptObjectError: its manifest cannot be read, so that the tail is unknown.
        """
        key = self.last_key()
        if key is None:
            return None
        self._store.secure(key)
        return key, self._manifest(key)

    def follow(self, manifest: Manifest, *, steps_max: int = 1_000) -> Manifest | None:
        """The last object, reached from another one; None where that takes too many steps."""
        for _ in range(steps_max):
            following = self.head(manifest.next)
            if following is None:
                self._store.secure(self.id.key(manifest.start))
                return manifest
            manifest = following
        return None

    def last_with_records(self, before: int) -> Manifest | None:
        """Manifest of the last object below `before` that holds records.

        Looks back further and further, so that what is listed lies near.
        """
        end, reach = before, _REACH
        while end > 0:
            begin = max(0, end - reach)
            for key in reversed(self._keys_between(begin, end)):
                manifest = self._manifest(key)
                if manifest.n:
                    return manifest
            end, reach = begin, reach * 8
        return None

    def _keys_between(self, begin: int, end: int) -> list[str]:
        """Keys of the objects that start in `begin .. end`."""
        start_after = self.id.key(begin - 1) if begin else ""
        found = self._store.list_objects(self.id.prefix, start_after=start_after)
        keys = itertools.takewhile(lambda key: key < self.id.key(end), (at.key for at in found))
        return [key for key in keys if is_object(key)]

    def last_key(self) -> str | None:
        """Key of the last object."""
        key = self._store.last(self.id.prefix)
        if key is None or is_object(key):
            return key
        keys = [found.key for found in self._store.list_objects(self.id.prefix)]
        return max(filter(is_object, keys), default=None)

    def publish(self, body: bytes, manifest: Manifest) -> Published:
        """Put an object at its start; where the key is taken, adopt the `next` found there.

        Raises:
            TransientError: the outcome is unknown: call again with the same bytes.
            RefusedError: the store refuses.
            CorruptObjectError: the object found there cannot be read.
        """
        key = self.id.key(manifest.start)
        failpoint("land.put.before")
        try:
            self._store.put_if_absent(key, body, {"sha256": manifest.sha256})
        except ObjectExistsError:
            self._store.secure(key)
            found = self.head(manifest.start)
            if found is None:
                raise TransientError(f"{key}: taken, yet not there") from None
            return Published(found, adopted=True)
        failpoint("land.put.after")
        return Published(manifest, adopted=False)

    def head(self, start: int) -> Manifest | None:
        """Manifest of the object that starts exactly at `start`."""
        try:
            return self._manifest(self.id.key(start))
        except ObjectMissingError:
            return None

    def get(self, start: int) -> tuple[str, bytes] | None:
        """Key and bytes of the object that starts exactly at `start`."""
        key = self.id.key(start)
        try:
            body = self._store.get(key)
        except ObjectMissingError:
            return None
        self._store.secure(key)
        return key, body

    def walk(self, start: int = 0) -> Iterator[tuple[str, Manifest]]:
        """Keys and manifests from `start` on, each object beginning where the one before ends."""
        while (manifest := self.head(start)) is not None:
            yield self.id.key(start), manifest
            start = manifest.next

    def _manifest(self, key: str) -> Manifest:
        manifest = read_manifest(self._store.get_head(key, HEAD_BYTES), key)
        if manifest.next <= manifest.start or self.id.key(manifest.start) != key:
            raise CorruptObjectError(key, f"covers {manifest.start}..{manifest.next}")
        return manifest


def is_object(key: str) -> bool:
    """Whether a key of a chain's folder is that of an object (and not GENESIS, or foreign)."""
    return _OBJECT_KEY.fullmatch(key.rpartition("/")[2]) is not None


def find_chains(store: Store) -> list[ChainId]:
    """All chains of a lake, in order; folders that are not chains are left out."""
    return [chain for chain in _folders(store) if isinstance(chain, ChainId)]


def find_foreign_folders(store: Store) -> list[str]:
    """Folders under bronze that are not chains: nobody of ours made them."""
    return [folder for folder in _folders(store) if isinstance(folder, str)]


def _folders(store: Store) -> Iterator[ChainId | str]:
    for stream in store.folders(ROOT):
        if stream not in _STREAMS:
            yield f"{ROOT}/{stream}"
            continue
        for folder in store.folders(f"{ROOT}/{stream}"):
            prefix = f"{ROOT}/{stream}/{folder}"
            topic = _TOPIC_FOLDER.fullmatch(folder)
            if topic is None:
                yield prefix
                continue
            for name in store.folders(prefix):
                yield _chain_of(Stream(stream), topic, name) or f"{prefix}/{name}"


def _chain_of(stream: Stream, topic: re.Match[str], name: str) -> ChainId | None:
    """The chain in a partition's folder; None where the chain would lie in another folder."""
    part = _PART_FOLDER.fullmatch(name)
    if part is None:
        return None
    chain = ChainId(stream, topic["topic"], topic["topic_id"], int(part["part"]))
    return chain if chain.prefix.endswith(f"/{name}") else None
