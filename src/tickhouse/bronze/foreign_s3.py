"""A foreign lake in a bucket: listed page by page, read many at once, never written to."""

# pyright: reportUnknownMemberType=false
# (obstore's stubs name types of an Arrow library that is not needed)

import contextlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
import obstore
from obstore.exceptions import BaseError

from tickhouse.bronze.s3_client import make_client
from tickhouse.bronze.s3_errors import translated
from tickhouse.bronze.s3_options import S3Options
from tickhouse.errors import ObjectMissingError, TransientError
from tickhouse.model.units import NANOS_PER_MICRO
from tickhouse.source.importing.objects import ForeignObject
from tickhouse.telemetry import get_logger

if TYPE_CHECKING:
    from obstore import ObjectMeta

RETRIES: Final = 3
LISTS_MAX: Final = 5
"""A listing that breaks off so often without getting on is given up."""
READS_AT_ONCE: Final = 16
READS_AHEAD: Final = 32
_PAGE: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_log = get_logger("import")


class ForeignBucket:
    """Objects of a bucket, below a folder of it or all.

    Args:
        options: the bucket, and who we are there; only reading is needed.

    Raises:
        ConfigError: the options cannot be used.
    """

    def __init__(self, options: S3Options) -> None:
        self.url = options.url
        self.place = msgspec.structs.replace(options, prefix="").url
        self.prefix = f"{options.prefix}/" if options.prefix else ""
        self._client = make_client(options, retries=RETRIES)
        self._pool = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="import")

    def objects(self) -> Iterator[ForeignObject]:
        """See `ForeignLake.objects`; a listing that breaks off goes on after its last key."""
        last: ForeignObject | None = None
        failures = 0
        while True:
            try:
                for found in self._list(after=last.key if last is not None else ""):
                    failures = 0
                    if last is not None and not _is_folder(last, found):
                        yield last
                    last = found
            except TransientError as error:
                failures += 1
                if failures == LISTS_MAX:
                    raise
                _log.warning("listing_again", error=str(error))
                continue
            break
        if last is not None:
            yield last

    def _list(self, *, after: str) -> Iterator[ForeignObject]:
        pages = obstore.list(
            self._client, self.prefix.rstrip("/") or None, offset=after or None, chunk_size=_PAGE
        )
        while True:
            with self._errors("listing"):
                page = next(pages, ())
            if not page:
                return
            yield from map(_found, page)

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """See `ForeignLake.get_many`."""
        left = iter(keys)
        ahead = deque(self._pool.submit(self._get, key) for key in islice(left, READS_AHEAD))
        try:
            while ahead:
                body = ahead.popleft().result()
                ahead.extend(self._pool.submit(self._get, key) for key in islice(left, 1))
                yield body
        finally:
            for future in ahead:
                future.cancel()

    def _get(self, key: str) -> bytes | None:
        try:
            with self._errors(key):
                return obstore.get(self._client, key).bytes().to_bytes()
        except ObjectMissingError:
            return None

    @contextlib.contextmanager
    def _errors(self, key: str) -> Generator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as error:
            raise translated(error, where=self.url, key=key) from None


def _found(meta: "ObjectMeta") -> ForeignObject:
    age = meta["last_modified"] - _EPOCH
    micros = (age.days * 86_400 + age.seconds) * 1_000_000 + age.microseconds
    return ForeignObject(meta["path"], meta["size"], micros * NANOS_PER_MICRO)


def _is_folder(found: ForeignObject, after: ForeignObject) -> bool:
    """Whether it is the mark of a folder, as consoles make them: the client cuts off its slash."""
    return not found.size and after.key.startswith(f"{found.key}/")
