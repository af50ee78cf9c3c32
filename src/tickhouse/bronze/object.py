"""A bronze object: gzip of JSON lines, its manifest in the gzip header's FEXTRA field (RFC 1952).

Every gzip reader skips the field. Nothing in it is of a time or place: modification time 0, igzip
level 1, manifest keys in a fixed order.
"""

# pyright: reportUnknownMemberType=false, reportGeneralTypeIssues=false, reportUnknownVariableType=false
# (isal's stubs name types that they do not import)

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import msgspec
from isal import isal_zlib

from tickhouse import __version__
from tickhouse.errors import CorruptObjectError
from tickhouse.model.positions import ChainId
from tickhouse.stream.log import SpoolRange

VERSION: Final = 1
HEAD_BYTES: Final = 4096
"""Enough of an object to read its manifest."""
INFLATED_BYTES_MAX: Final = 1 << 30
"""A trailer that names more than this is taken for damage."""
LINES_BYTES_MAX: Final = 256 << 20
"""No object is planned to be larger than this, before compression."""
_MAGIC: Final = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"
_SUBFIELD: Final = b"TH"
_HEADER_FIXED: Final = len(_MAGIC) + 2 + 4
_TRAILER: Final = struct.Struct("<II")


class Manifest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What an object holds; `next` is the start of the object that follows it.

    Attributes:
        ver: version of the format, 1.
        topic, topic_id, part: the chain; must agree with the object's key.
        start, next: offsets covered, half-open.
        n: number of records (lines); may be less than `next - start` where offsets hold none.
        gap: retention removed these offsets before they were landed; `n` is 0.
        rx_min, rx_max: receipt times spanned, UNIX nanoseconds UTC; None without envelopes.
        writer: name and version of the software.
        sha256: hex digest over the other fields and the compressed body.
        spool: where a relay took the records from; left out where that is not known of all of them.
        leader_epoch: of the last record, where the log counts its leaders; else left out.
    """

    ver: int
    topic: str
    topic_id: str
    part: int
    start: int
    next: int
    n: int
    gap: bool
    rx_min: int | None
    rx_max: int | None
    writer: str
    sha256: str
    spool: SpoolRange | None = None
    leader_epoch: int | None = None


_decode_manifest = msgspec.json.Decoder(Manifest).decode


def pack(
    lines: Sequence[bytes],
    *,
    chain: ChainId,
    start: int,
    next_offset: int,
    rx_min: int | None,
    rx_max: int | None,
    gap: bool = False,
) -> bytes:
    """An object that holds `lines` (without newlines), covering offsets `start .. next_offset`.

    Raises:
        ValueError: larger than what `unpack` inflates: a mistake of ours.
    """
    manifest = Manifest(
        ver=VERSION,
        topic=chain.topic,
        topic_id=chain.topic_id,
        part=chain.part,
        start=start,
        next=next_offset,
        n=len(lines),
        gap=gap,
        rx_min=rx_min,
        rx_max=rx_max,
        writer="",
        sha256="",
    )
    return pack_text(b"\n".join([*lines, b""]), manifest)[0]


def pack_text(text: bytes, manifest: Manifest) -> tuple[bytes, Manifest]:
    """An object that holds `text`, lines each ended by a newline, and its manifest.

    The same text mostly gives the same bytes; the compressor does not promise it, and nothing
    relies on it.

    Args:
        text: the lines.
        manifest: what the object is to say of them; writer and digest are filled in.

    Raises:
        ValueError: larger than what `unpack` inflates: a mistake of ours.
    """
    if len(text) > INFLATED_BYTES_MAX:
        place = f"{manifest.topic}[{manifest.part}]@{manifest.start}"
        raise ValueError(f"{place}: {len(text)} bytes are too many for one object")
    compressor = isal_zlib.compressobj(level=1, wbits=-15)
    body = compressor.compress(text) + compressor.flush()
    trailer = _TRAILER.pack(isal_zlib.crc32(text), len(text) & 0xFFFFFFFF)
    written = msgspec.structs.replace(manifest, writer=f"tickhouse/{__version__}")
    signed = msgspec.structs.replace(written, sha256=_digest(written, body, trailer))
    encoded = msgspec.json.encode(signed)
    field = _SUBFIELD + struct.pack("<H", len(encoded)) + encoded
    return b"".join([_MAGIC, struct.pack("<H", len(field)), field, body, trailer]), signed


def _digest(manifest: Manifest, *compressed: bytes) -> str:
    unsigned = msgspec.json.encode(msgspec.structs.replace(manifest, sha256=""))
    digest = hashlib.sha256(unsigned)
    for piece in compressed:
        digest.update(piece)
    return digest.hexdigest()


def read_manifest(head: bytes, key: str) -> Manifest:
    """The manifest in an object's first `HEAD_BYTES` bytes.

    Raises:
        CorruptObjectError: not an object of ours, or cut off.
    """
    return _split(head, key)[0]


def _split(data: bytes, key: str) -> tuple[Manifest, int]:
    """The manifest, and where the compressed body begins."""
    if not data.startswith(_MAGIC):
        raise CorruptObjectError(key, "not a bronze object: the gzip header is another one")
    if len(data) < _HEADER_FIXED or data[12:14] != _SUBFIELD:
        raise CorruptObjectError(key, "cut off in its header, or without a manifest")
    field, length = struct.unpack_from("<H", data, 10)[0], struct.unpack_from("<H", data, 14)[0]
    end = _HEADER_FIXED + length
    if field != length + 4 or len(data) < end:
        raise CorruptObjectError(key, "cut off in its manifest")
    try:
        return _decode_manifest(data[_HEADER_FIXED:end]), end
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptObjectError(key, f"its manifest cannot be read: {error}") from error


def verify(body: bytes, key: str, chain: ChainId) -> Manifest:
    """Check that the bytes are what was written for this key; inflates nothing.

    Raises:
        CorruptObjectError: what differs.
    """
    manifest, end = _split(body, key)
    if len(body) < end + _TRAILER.size:
        raise CorruptObjectError(key, f"cut off after {len(body)} bytes")
    if _digest(manifest, body[end:]) != manifest.sha256:
        raise CorruptObjectError(key, "its sha256 differs from its manifest's")
    place = (manifest.topic, manifest.topic_id, manifest.part)
    if place != (chain.topic, chain.topic_id, chain.part) or chain.key(manifest.start) != key:
        raise CorruptObjectError(key, f"its manifest is that of {place} at {manifest.start}")
    if manifest.ver != VERSION:
        raise CorruptObjectError(key, f"format {manifest.ver}; this version reads {VERSION}")
    span = manifest.next - manifest.start
    if not (0 <= manifest.n <= span and span > 0 and manifest.start >= 0):
        raise CorruptObjectError(
            key, f"its manifest says {manifest.n} records in {manifest.start}..{manifest.next}"
        )
    return manifest


def unpack(body: bytes, key: str) -> bytes:
    """The lines of an object, each ended by a newline.

    Raises:
        CorruptObjectError: it does not inflate to what its trailer and manifest say.
    """
    manifest, end = _split(body, key)
    if len(body) < end + _TRAILER.size:
        raise CorruptObjectError(key, f"cut off after {len(body)} bytes")
    crc, size = _TRAILER.unpack(body[-_TRAILER.size :])
    if size > INFLATED_BYTES_MAX:
        raise CorruptObjectError(key, f"would inflate to {size} bytes")
    inflater = isal_zlib.decompressobj(wbits=-15)
    try:
        text = inflater.decompress(body[end : -_TRAILER.size], size + 1)
    except isal_zlib.error as error:
        raise CorruptObjectError(key, f"does not inflate: {error}") from error
    if not inflater.eof or inflater.unused_data or len(text) != size:
        raise CorruptObjectError(key, f"does not inflate to the {size} bytes written")
    if isal_zlib.crc32(text) != crc:
        raise CorruptObjectError(key, "its crc32 differs from its trailer's")
    lines = text.count(b"\n")
    if lines != manifest.n or not (text.endswith(b"\n") or not text):
        raise CorruptObjectError(key, f"holds {lines} lines; its manifest says {manifest.n}")
    return text
