"""The lake in a bucket: conditional single PUTs, listings by `start-after`, nothing ever deleted.

Puts are not repeated inside: the lander puts the same bytes again, and reads what it finds where
the key is taken. Reads are repeated a few times.
"""

# pyright: reportUnknownMemberType=false
# (obstore's stubs name types of an Arrow library that is not needed)

import contextlib
import re
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError

from tickhouse.bronze.s3_client import make_client
from tickhouse.bronze.s3_errors import REFUSED_RANGE, translated
from tickhouse.bronze.s3_options import S3Options
from tickhouse.bronze.store import KEY_PATTERN, ObjectInfo
from tickhouse.errors import ConfigError, ObjectExistsError, ObjectMissingError, RefusedError

if TYPE_CHECKING:
    from obstore import GetOptions

READ_RETRIES: Final = 3
READS_AT_ONCE: Final = 8
READS_AHEAD: Final = 6
"""Objects that one `get_many` fetches or holds ahead of what was taken: a bound of its memory."""

PROBE: Final = "doctor/v1/probe"
"""Put twice to see whether the service refuses the second."""

_NO_OBJECT: Final = "doctor/v1/none"
_PAGE: Final = 1000
_DIGITS: Final = 20
_AFTER_DIGITS: Final = ":"
_LEADING_DIGITS: Final = re.compile(r"[0-9]{1,20}")


class S3Store:
    """Objects of one bucket, below a prefix.

    Args:
        options: the bucket, and who we are there.

    Raises:
        ConfigError: the options cannot be used.
    """

    def __init__(self, options: S3Options) -> None:
        self.url = options.url
        self._root = f"{options.prefix}/" if options.prefix else ""
        self._puts = make_client(options, retries=0)
        self._reads = make_client(options, retries=READ_RETRIES)
        self._is_single_writer = options.is_single_writer
        self._is_conditional: bool | None = None
        self._last: dict[str, str] = {}
        self._pool: ThreadPoolExecutor | None = None

    def put_if_absent(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """See `Store.put_if_absent`: one PUT with `If-None-Match: *`, never a multipart upload.

        Raises:
            RefusedError: also where the service ignores the condition: two landers would overwrite
                each other. With `is_single_writer` the key is looked at first instead.
        """
        if self._is_conditional is None:
            self.is_conditional()
        if not self._is_conditional:
            self._look_first(key)
        self._put(key, body, metadata)

    def is_conditional(self) -> bool:
        """Whether a second put of a key is refused; asked once, with an object for the purpose.

        Raises:
            RefusedError, TransientError: of the first put.
        """
        try:
            self._put(PROBE, b"probe", {})
            self._put(PROBE, b"probe", {})
        except ObjectExistsError:
            self._is_conditional = True
        else:
            self._is_conditional = False
        return self._is_conditional

    def _look_first(self, key: str) -> None:
        if not self._is_single_writer:
            raise RefusedError(
                f"{self.url}: the service ignores If-None-Match, so that two landers would"
                " overwrite each other. Use one that knows it (docs/s3.md); or, if only one lander"
                " will ever run, set land_single_writer"
            )
        with contextlib.suppress(ObjectMissingError):
            self.get_head(key, 1)
            raise ObjectExistsError(key)

    def _put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        with self._errors(key):
            answer = obstore.put(
                self._puts,
                self._path(key),
                body,
                mode="create",
                use_multipart=False,
                attributes=dict(metadata),
            )
        if not answer["e_tag"]:
            raise self._not_s3(key)

    def get(self, key: str) -> bytes:
        """See `Store.get`."""
        return self._get(key, {})

    def get_head(self, key: str, length: int) -> bytes:
        """See `Store.get_head`: a range request."""
        try:
            return self._get(key, {"range": (0, length)})
        except RefusedError as error:
            if REFUSED_RANGE in str(error):  # of an empty object no range can be had
                return self.get(key)[:length]
            raise

    def _get(self, key: str, options: "GetOptions") -> bytes:
        with self._errors(key):
            answer = obstore.get(self._reads, self._path(key), options=options)
            if not answer.meta["e_tag"]:
                raise self._not_s3(key)
            return answer.bytes().to_bytes()

    def _not_s3(self, key: str) -> RefusedError:
        return RefusedError(f"{self.url}: {key}: the answer is not S3's. Check the endpoint")

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """See `BulkStore.get_many`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="s3")
        return self._read_ahead(self._pool, iter(keys))

    def _read_ahead(self, pool: ThreadPoolExecutor, keys: Iterator[str]) -> Iterator[bytes]:
        ahead = deque(pool.submit(self.get, key) for key in islice(keys, READS_AHEAD))
        try:
            while ahead:
                body = ahead.popleft().result()
                ahead.extend(pool.submit(self.get, key) for key in islice(keys, 1))
                yield body
        finally:
            for future in ahead:
                future.cancel()

    def list_objects(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list_objects`: a page of 1,000 a request, asked for when it is needed.

        Raises:
            RefusedError: the service lists out of order (S3 Express does).
        """
        before = ""
        for page, _ in self._pages(prefix, start_after):
            for found in page:
                if found.key < before and _folder(found.key) == _folder(before):
                    raise RefusedError(
                        f"{self.url}: {found.key} is listed after {before}: the service does not"
                        " list in order of key, as a lake needs (a directory bucket does not)"
                    )
                before = found.key
                yield found

    def last(self, prefix: str) -> str | None:
        """See `Store.last`: a search over the offsets in the names, a few requests a chain.

        What was found before is where the next search starts.
        """
        known = self._last.get(prefix)
        found = None if known is None else self._last_from(prefix, known[:-1])
        found = found or self._last_from(prefix, f"{prefix}/")
        if found is not None:
            self._last[prefix] = found
        return found

    def folders(self, prefix: str) -> list[str]:
        """See `Store.folders`."""
        with self._errors(prefix):
            answer = obstore.list_with_delimiter(self._reads, self._path(prefix))
        if not answer["common_prefixes"] and not answer["objects"]:
            self._check_service()
        return sorted(name.rpartition("/")[2] for name in answer["common_prefixes"])

    def secure(self, key: str) -> None:
        """Nothing: the service answers only for what is durable."""

    def _path(self, key: str) -> str:
        """Path in the bucket.

        Raises:
            ConfigError: not a key.
        """
        if KEY_PATTERN.fullmatch(key) is None:
            raise ConfigError(f"{key!r} is not a key of the lake")
        return self._root + key

    @contextlib.contextmanager
    def _errors(self, key: str) -> Generator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as error:
            raise translated(error, where=self.url, key=key) from None

    # -- listing -----------------------------------------------------------------------------

    def _pages(self, prefix: str, start_after: str) -> Iterator[tuple[list[ObjectInfo], bool]]:
        """Objects below a folder after a key, and whether the page is the last."""
        start, cut = f"{self._path(prefix)}/", len(self._root)
        offset = max(self._root + start_after, start)
        pages = obstore.list(self._reads, start[:-1], offset=offset, chunk_size=_PAGE)
        is_last = False
        while not is_last:
            with self._errors(prefix):
                page = next(pages, ())
            if not page:
                self._check_service()
            is_last = len(page) < _PAGE
            found = [ObjectInfo(each["path"][cut:], each["size"]) for each in page]
            yield [at for at in found if at.key > start_after and at.key > f"{prefix}/"], is_last

    def _last_from(self, prefix: str, start_after: str) -> str | None:
        """The greatest key of the folder that begins with a digit and lies after a key.

        Steps that grow leave the known objects behind, then what is left is halved, until a page
        reaches the end: about a request and a half for each doubling of the chain.
        """
        first, last, is_end = self._look(prefix, start_after)
        low, high = _offset_of(prefix, last), 10**_DIGITS
        step = low - _offset_of(prefix, first) + 1
        while not is_end and high - low > 1:
            middle = low + step if low + step < high else (low + high) // 2
            _, found, is_end = self._look(prefix, f"{prefix}/{middle:0{_DIGITS}}")
            if found:
                last, low, step = found, max(_offset_of(prefix, found), middle), step * 4
            else:
                high, step, is_end = middle, high, False
        if not is_end and last:
            last = max([last, *self._numbered(prefix, last)])
        return last or None

    def _look(self, prefix: str, start_after: str) -> tuple[str, str, bool]:
        """First and last numbered key of the page after a key, and whether none lies beyond."""
        page, is_end = next(self._pages(prefix, start_after))
        names = [found.key.removeprefix(f"{prefix}/") for found in page]
        numbered = [f"{prefix}/{name}" for name in names if name[0].isdigit() and "/" not in name]
        is_end = is_end or (bool(names) and names[-1] > _AFTER_DIGITS)
        return min(numbered, default=""), max(numbered, default=""), is_end

    def _numbered(self, prefix: str, start_after: str) -> Iterator[str]:
        for found in self.list_objects(prefix, start_after=start_after):
            name = found.key.removeprefix(f"{prefix}/")
            if name[0].isdigit() and "/" not in name:
                yield found.key

    def _check_service(self) -> None:
        """Make sure that nothing listed means nothing there: a web page reads as an empty list.

        Raises:
            RefusedError: no S3 service answers.
        """
        with contextlib.suppress(ObjectMissingError):
            self.get_head(_NO_OBJECT, 1)


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _offset_of(prefix: str, key: str) -> int:
    """Where a key lies among the zero-padded offsets, whatever its name."""
    digits = _LEADING_DIGITS.match(key.removeprefix(f"{prefix}/"))
    return int(digits[0].ljust(_DIGITS, "0")) if digits else 0
