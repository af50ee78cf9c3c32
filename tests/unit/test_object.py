"""Bronze objects: the bytes, the manifest, and every way in which they can be damaged."""

import base64
import gzip
import io
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tickhouse.bronze import object as bronze_object
from tickhouse.bronze.object import (
    HEAD_BYTES,
    Manifest,
    pack,
    pack_text,
    read_manifest,
    unpack,
    verify,
)
from tickhouse.errors import CorruptObjectError
from tickhouse.model.positions import ChainId, Stream
from tickhouse.stream.log import SpoolRange

CHAIN = ChainId(Stream.TRADES, "tickhouse.trades.v1", "a1b2", 3)
LINES = [b'{"t":"a1b2","p":3,"o":%d,"lt":1,"raw":{"n":%d}}' % (n, n * n) for n in range(100, 140)]
KEY = CHAIN.key(100)


def packed(lines: list[bytes] = LINES, *, start: int = 100, next_offset: int = 140) -> bytes:
    return pack(lines, chain=CHAIN, start=start, next_offset=next_offset, rx_min=5, rx_max=9)


BODY = packed()


def outcome(body: bytes) -> str:
    """What reading an object gives: its lines, or that it is corrupt; nothing else."""
    try:
        verify(body, KEY, CHAIN)
        return unpack(body, KEY).decode()
    except CorruptObjectError as error:
        return "corrupt" if error.key == KEY else f"corrupt elsewhere: {error.key}"


def test_an_object_gives_back_its_manifest_and_its_lines() -> None:
    manifest = verify(BODY, KEY, CHAIN)

    assert unpack(BODY, KEY) == b"".join(line + b"\n" for line in LINES)
    assert read_manifest(BODY[:HEAD_BYTES], KEY) == manifest
    assert (manifest.start, manifest.next, manifest.n) == (100, 140, 40)
    assert (manifest.rx_min, manifest.rx_max, manifest.gap) == (5, 9, False)
    assert manifest.writer.startswith("tickhouse/")


def test_an_object_holds_no_time_and_no_place_of_its_writing() -> None:
    first, again = (read_manifest(body, KEY) for body in (BODY, packed(list(LINES))))

    assert msgspec.structs.replace(first, sha256="") == msgspec.structs.replace(again, sha256="")
    assert BODY[4:8] == bytes(4), "the gzip header holds a time"


def test_every_gzip_reader_opens_an_object(tmp_path: Path) -> None:
    path = tmp_path / "object.jsonl.gz"
    path.write_bytes(BODY)
    text = b"".join(line + b"\n" for line in LINES)
    zcat = shutil.which("zcat")

    assert gzip.decompress(BODY) == text
    assert gzip.GzipFile(fileobj=io.BytesIO(BODY)).read() == text
    assert zlib.decompress(BODY, wbits=31) == text
    if zcat is not None:
        assert subprocess.run([zcat, path], capture_output=True, check=True).stdout == text
    assert duckdb.sql(f"select count(*), sum(o) from read_json('{path}')").fetchall() == [
        (40, sum(range(100, 140)))
    ]


def test_the_manifest_fits_into_the_head_whatever_the_names() -> None:
    longest = ChainId(Stream.SESSIONS, "t" * 200, "i" * 64, 99_999)
    body = pack(
        [],
        chain=longest,
        start=10**19,
        next_offset=10**20 - 1,
        rx_min=2**63,
        rx_max=2**63,
        gap=True,
    )

    assert read_manifest(body[:HEAD_BYTES], longest.key(10**19)).gap


def test_an_object_may_hold_fewer_records_than_offsets_but_not_more() -> None:
    empty, too_many = packed([], next_offset=105), packed(LINES, next_offset=139)

    assert verify(empty, KEY, CHAIN).n == 0
    assert unpack(empty, KEY) == b""
    with pytest.raises(CorruptObjectError, match=r"40 records in 100\.\.139"):
        verify(too_many, KEY, CHAIN)


def test_an_object_under_another_key_or_in_another_chain_is_refused() -> None:
    other = msgspec.structs.replace(CHAIN, topic_id="zz")

    with pytest.raises(CorruptObjectError, match="its manifest is that of"):
        verify(BODY, CHAIN.key(101), CHAIN)
    with pytest.raises(CorruptObjectError, match="its manifest is that of"):
        verify(BODY, other.key(100), other)


def test_the_sha256_covers_the_other_fields_of_the_manifest() -> None:
    manifest = read_manifest(BODY, KEY)
    forged = _with_manifest(msgspec.structs.replace(manifest, n=39))

    with pytest.raises(CorruptObjectError, match="sha256"):
        verify(forged, KEY, CHAIN)
    with pytest.raises(CorruptObjectError, match="holds 40 lines; its manifest says 39"):
        unpack(forged, KEY)


def _with_manifest(manifest: Manifest) -> bytes:
    old = msgspec.json.encode(read_manifest(BODY, KEY))
    new = msgspec.json.encode(manifest)
    field = b"TH" + struct.pack("<H", len(new)) + new
    return BODY[:10] + struct.pack("<H", len(field)) + field + BODY[16 + len(old) :]


@given(st.integers(min_value=0, max_value=len(BODY) * 8 - 1))
@settings(max_examples=400, deadline=None)
def test_a_flipped_bit_anywhere_is_found(bit: int) -> None:
    damaged = bytearray(BODY)
    damaged[bit // 8] ^= 1 << bit % 8

    assert outcome(bytes(damaged)) == "corrupt"


@pytest.mark.parametrize("length", [*range(0, 500, 7), -1, -8])
def test_a_cut_off_object_is_found(length: int) -> None:
    assert outcome(BODY[:length]) == "corrupt"
    with pytest.raises(CorruptObjectError):
        unpack(BODY[:length], KEY)


@given(st.binary(max_size=40), st.integers(min_value=0, max_value=len(BODY)))
@example(b"", len(BODY))
@example(BODY, len(BODY))
@settings(max_examples=200, deadline=None)
def test_bytes_put_in_anywhere_are_found(extra: bytes, at: int) -> None:
    assert (outcome(BODY[:at] + extra + BODY[at:]) == "corrupt") == bool(extra)


@given(st.binary(max_size=200))
@example(b"")
@example(gzip.compress(b'{"o":100}\n'))
@example(BODY[:10])
@example(BODY[:16])
@example(BODY[:10] + b"\x04\x00TH\x00\x00")
@example(BODY[:10] + struct.pack("<H", 9) + b"TH" + struct.pack("<H", 5) + b"[[[[[" + bytes(8))
def test_whatever_else_is_no_object_and_raises_nothing_else(content: bytes) -> None:
    assert outcome(content) == "corrupt"
    assert outcome(BODY[:10] + content) == "corrupt"
    with pytest.raises(CorruptObjectError):
        unpack(content, KEY)
    with pytest.raises(CorruptObjectError):
        read_manifest(content, KEY)


def test_a_bomb_is_refused_before_it_inflates(monkeypatch: pytest.MonkeyPatch) -> None:
    body = packed([b"0" * 100_000])
    monkeypatch.setattr(bronze_object, "INFLATED_BYTES_MAX", 99_999)

    with pytest.raises(CorruptObjectError, match="would inflate to 100001 bytes"):
        unpack(body, KEY)
    with pytest.raises(ValueError, match="too many for one object"):
        packed([b"0" * 100_000])


def test_a_trailer_that_promises_less_than_a_bomb_holds_stops_it() -> None:
    body = packed([b"0" * 10_000_000])

    with pytest.raises(CorruptObjectError, match="does not inflate to the 5 bytes written"):
        unpack(body[:-4] + struct.pack("<I", 5), KEY)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BODY[:-8] + b"junk" + BODY[-8:], "does not inflate to"),
        (BODY[:-8] + bytes(4) + BODY[-4:], "crc32 differs"),
        (BODY[:-12] + BODY[-8:], "does not inflate to"),
    ],
    ids=["bytes after the end", "another crc", "no end"],
)
def test_an_object_that_was_not_verified_is_still_not_unpacked_wrong(
    body: bytes, reason: str
) -> None:
    with pytest.raises(CorruptObjectError, match=reason):
        unpack(body, KEY)


def test_an_object_of_a_later_format_is_named() -> None:
    later = msgspec.structs.replace(read_manifest(BODY, KEY), ver=2, sha256="")
    end = 16 + len(msgspec.json.encode(read_manifest(BODY, KEY)))
    signed = msgspec.structs.replace(later, sha256=bronze_object._digest(later, BODY[end:]))

    with pytest.raises(CorruptObjectError, match="format 2; this version reads 1"):
        verify(_with_manifest(signed), KEY, CHAIN)


WRITTEN_BEFORE = base64.b64decode(
    "H4sIBAAAAAAA/+8AVEjrAHsidmVyIjoxLCJ0b3BpYyI6InRpY2tob3VzZS50cmFkZXMudjEiLCJ0b3BpY19pZCI6ImEx"
    "YjIiLCJwYXJ0IjozLCJzdGFydCI6MTAwLCJuZXh0IjoxMDMsIm4iOjIsImdhcCI6ZmFsc2UsInJ4X21pbiI6NSwicnhf"
    "bWF4IjpudWxsLCJ3cml0ZXIiOiJ0aWNraG91c2UvMC4xLjAiLCJzaGEyNTYiOiIzMDczZGYxN2FlNjhmM2ZiYTM1YzQ1"
    "NmNmMmU2NWVhNDhiMjQ0NDVjY2I4NDA4NDQ0MGEzODI3ZDUzNjExOGQ4In0FwaENACEQRUF/ZTy9ggX3uwFNgBASBNne"
    "b+ZxENVbxlioGBN5SkY/yI1dL3oM5BHf4yCqt4yxUDEm8pSNfpAbu170GChHfD+Q1zfJYAAAAA=="
)
"""An object of a version that knew no spools and leader epochs."""


def test_an_object_written_before_spools_were_known_still_verifies_and_is_written_the_same() -> (
    None
):
    manifest = verify(WRITTEN_BEFORE, KEY, CHAIN)

    assert (manifest.n, manifest.next, manifest.spool, manifest.leader_epoch) == (
        2,
        103,
        None,
        None,
    )
    lines = unpack(WRITTEN_BEFORE, KEY).splitlines()
    again = pack(lines, chain=CHAIN, start=100, next_offset=103, rx_min=5, rx_max=None)
    without = {"writer": "", "sha256": ""}
    assert msgspec.structs.replace(manifest, **without) == msgspec.structs.replace(
        verify(again, KEY, CHAIN), **without
    )
    assert unpack(again, KEY).splitlines() == lines


def test_spool_and_leader_epoch_are_kept_where_they_are_known() -> None:
    unsigned = msgspec.structs.replace(
        read_manifest(BODY, KEY), spool=SpoolRange("s1", 4, 43), leader_epoch=7
    )
    body, manifest = pack_text(unpack(BODY, KEY), unsigned)

    assert verify(body, KEY, CHAIN) == manifest
    assert (manifest.spool, manifest.leader_epoch) == (SpoolRange("s1", 4, 43), 7)
    assert b'"spool":{"epoch":"s1","first":4,"last":43},"leader_epoch":7' in body
