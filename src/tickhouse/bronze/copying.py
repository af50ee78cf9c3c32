"""A lake into another lake: each chain in order, each object verified before it is put.

What is there already is skipped, so that a copy goes on where it stopped. Nothing is overwritten
and nothing removed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from tickhouse.bronze.chain import GENESIS, find_chains, find_foreign_folders, is_object
from tickhouse.bronze.object import HEAD_BYTES, Manifest, read_manifest, verify
from tickhouse.bronze.store import ObjectInfo, Store, get_many
from tickhouse.errors import (
    CorruptObjectError,
    ObjectExistsError,
    ObjectMissingError,
    TransientError,
)
from tickhouse.model.positions import ChainId

BATCH: Final = 64
TRIES: Final = 5
FOREIGN_MAX: Final = 100
"""More foreign objects are counted, not named."""
_DIFFERS: Final = "the target holds something else under this key"


class CopyReport(msgspec.Struct):
    """What a copy did.

    Attributes:
        chains: how many were walked.
        objects, bytes: put at the target.
        skipped: there already, the same.
        problems: what is wrong at the source or differs at the target; each stops its chain.
        foreign: what is no object of ours, and was left alone.
        foreign_count: how many of those.
    """

    chains: int = 0
    objects: int = 0
    bytes: int = 0
    skipped: int = 0
    problems: list[str] = msgspec.field(default_factory=list[str])
    foreign: list[str] = msgspec.field(default_factory=list[str])
    foreign_count: int = 0


class Copier:
    """Copies one lake into another.

    Args:
        source: where from; only read.
        target: where to; only what is missing is put.
        tell: told after each batch.
        wait: pauses before a put is tried again, given the number of the try.
    """

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        tell: Callable[[CopyReport], None] = lambda _report: None,
        wait: Callable[[int], None] = lambda _tries: None,
    ) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._wait = wait
        self._report = CopyReport()

    def run(self) -> CopyReport:
        """Copy every chain; one with a problem is left where that is, the others go on.

        Raises:
            TransientError, RefusedError: of a store; run it again, it goes on.
        """
        for folder in find_foreign_folders(self._source):
            self._note_foreign(f"{folder}/")
        for chain in find_chains(self._source):
            self._report.chains += 1
            try:
                self._copy_chain(chain)
            except CorruptObjectError as error:
                self._report.problems.append(str(error))
            self._tell(self._report)
        return self._report

    def _copy_chain(self, chain: ChainId) -> None:
        self._copy_genesis(chain)
        end = 0
        for batch in _batches(self._objects(chain)):
            end = self._copy_batch(chain, batch, end)
            self._tell(self._report)

    def _copy_genesis(self, chain: ChainId) -> None:
        key = chain.genesis_key
        try:
            body = self._source.get(key)
        except ObjectMissingError:
            raise CorruptObjectError(key, "missing") from None
        if body != GENESIS:
            raise CorruptObjectError(key, f"holds {body[:40]!r}, not {GENESIS!r}")
        self._put(key, body, {})

    def _objects(self, chain: ChainId) -> Iterator[ObjectInfo]:
        """The chain's objects in order; what else lies there is noted."""
        for found in self._source.list_objects(chain.prefix):
            name = found.key.removeprefix(f"{chain.prefix}/")
            if is_object(name) and "/" not in name:
                yield found
            elif found.key != chain.genesis_key:
                self._note_foreign(found.key)

    def _copy_batch(self, chain: ChainId, batch: Sequence[ObjectInfo], end: int) -> int:
        """Copy what is missing of some neighbours; where the last one ends.

        Raises:
            CorruptObjectError: one is damaged, does not follow, or is another one at the target.
        """
        there = self._there(chain, batch)
        bodies = get_many(self._source, [found.key for found in batch if found.key not in there])
        for found in batch:
            if found.key in there:
                manifest = self._compare(found, there[found.key])
                _check_joint(chain, found.key, manifest, end)
                self._report.skipped += 1
            else:
                body = next(bodies)
                manifest = verify(body, found.key, chain)
                _check_joint(chain, found.key, manifest, end)
                self._put(found.key, body, {"sha256": manifest.sha256})
            end = manifest.next
        return end

    def _there(self, chain: ChainId, batch: Sequence[ObjectInfo]) -> dict[str, int]:
        """Sizes of those that the target holds, by one listing."""
        found: dict[str, int] = {}
        for info in self._target.list_objects(chain.prefix, start_after=batch[0].key[:-1]):
            if info.key > batch[-1].key:
                break
            found[info.key] = info.size
        return found

    def _compare(self, found: ObjectInfo, size: int) -> Manifest:
        """Its manifest, after size and head, with the hash in it, were found the same."""
        head = self._source.get_head(found.key, HEAD_BYTES)
        if size != found.size or self._target.get_head(found.key, HEAD_BYTES) != head:
            raise CorruptObjectError(found.key, _DIFFERS)
        self._target.secure(found.key)
        return read_manifest(head, found.key)

    def _put(self, key: str, body: bytes, metadata: dict[str, str]) -> None:
        """Put an object, or find it there with the same bytes: perhaps our own lost answer."""
        for tries in range(1, TRIES + 1):
            try:
                self._target.put_if_absent(key, body, metadata)
            except ObjectExistsError:
                if self._target.get(key) != body:
                    raise CorruptObjectError(key, _DIFFERS) from None
                self._target.secure(key)
                self._report.skipped += 1
                return
            except TransientError:
                if tries == TRIES:
                    raise
                self._wait(tries)
            else:
                self._report.objects += 1
                self._report.bytes += len(body)
                return

    def _note_foreign(self, key: str) -> None:
        self._report.foreign_count += 1
        if len(self._report.foreign) < FOREIGN_MAX:
            self._report.foreign.append(key)


def _check_joint(chain: ChainId, key: str, manifest: Manifest, end: int) -> None:
    if manifest.start > end:
        raise CorruptObjectError(chain.key(end), f"missing, though the chain goes on at {key}")
    if manifest.start < end:
        raise CorruptObjectError(key, f"overlaps the object before it, which ends at {end}")


def _batches(objects: Iterator[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    batch: list[ObjectInfo] = []
    for found in objects:
        batch.append(found)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
