"""Lines of bronze objects into Snowflake: staged files, one COPY a stream, counts.

Small objects are put together into few files, since a PUT costs the same for any size: a line gets
its object's key in front (`"f":…`), as the lander gave it its position. Over an external stage
nothing is staged: COPY reads the objects themselves.
"""

# pyright: reportUnknownMemberType=false
# (isal's stubs name types that they do not import)

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from isal import isal_zlib

from tickhouse.bronze.object import unpack
from tickhouse.model.frame import is_strict_json_line
from tickhouse.model.positions import Stream
from tickhouse.warehouse.snowflake_session import Session
from tickhouse.warehouse.staging import QuotedLine, quoted_lines
from tickhouse.warehouse.warehouse import BronzeObject, Row

INTERNAL_STAGE: Final = "@bronze.load_stage"
FILE_BYTES: Final = 16 << 20
"""A staged file takes objects up to this size together, compressed."""
PUTS_AT_ONCE: Final = 4
FILES_MAX: Final = 1000
"""COPY takes no more names."""

_COLUMNS: Final = (
    "topic_id, part, log_offset, log_at, received_at, source, session_id, session_seq, symbol,"
    " payload, payload_text, payload_b64, poison, file, load_id"
)

# A JSON null is no SQL null until it is cast; `%` instead of a division keeps microseconds exact.
_COPY: Final = """
copy into bronze.{table} ({columns})
from (
    select
        $1:t::varchar, $1:p::number(9, 0), $1:o::number(18, 0),
        to_timestamp_ntz($1:lt::number(15, 0), 3),
        case when $1:rx::varchar is null then null else to_timestamp_ntz(
            ($1:rx::number(19, 0) - $1:rx::number(19, 0) % 1000) / 1000, 6) end,
        $1:src::varchar, $1:ses::varchar, $1:seq::number(19, 0), $1:sym::varchar,
        case when $1:raw::varchar is null then null else $1:raw end,
        $1:text::varchar, $1:b64::varchar, $1:poison_b64::varchar, {file}, {load_id}
    from {source}
)
files = ({files})
file_format = (type = json compression = gzip allow_duplicate = true)
on_error = abort_statement force = true
"""

_COUNTS: Final = """
select file, topic_id, part, count(*), count(distinct log_offset), min(log_offset), max(log_offset)
from bronze.{table} where load_id = {load_id} group by file, topic_id, part
"""

LinesOf = Callable[[BronzeObject], bytes]


class Source(msgspec.Struct, frozen=True):
    """Where a COPY reads.

    Attributes:
        stage: stage and folder.
        file: SQL for the key of the object that a row came from.
        files: of each stream, names below the folder.
    """

    stage: str
    file: str
    files: Mapping[Stream, Sequence[str]]


def copy_statements(source: Source, load_id: int) -> Iterator[str]:
    """COPY of each stream, at most `FILES_MAX` files at a time."""
    for stream, files in source.files.items():
        for first in range(0, len(files), FILES_MAX):
            yield _COPY.format(
                table=stream.value,
                columns=_COLUMNS,
                file=source.file,
                load_id=load_id,
                source=source.stage,
                files=", ".join(f"'{name}'" for name in files[first : first + FILES_MAX]),
            )


def counts_statement(streams: Iterable[Stream], load_id: int) -> str:
    """What each object gave in a load, for `found_rows`."""
    return " union all ".join(
        _COUNTS.format(table=stream.value, load_id=load_id) for stream in streams
    )


def found_rows(rows: Iterable[Row], objects: Sequence[BronzeObject]) -> dict[str, tuple[int, int]]:
    """Rows and offsets by object, of those that lie in the object's own range of its chain."""
    by_key = {item.key: item for item in objects}
    found: dict[str, tuple[int, int]] = {}
    for file, topic_id, part, count, offsets, first, last in rows:
        item = by_key.get(file)
        if item is None:
            continue
        is_own = (topic_id, part) == (item.chain.topic_id, item.chain.part)
        if is_own and item.manifest.start <= first and last < item.manifest.next:
            found[file] = (count, offsets)
    return found


def stage_files(
    session: Session, folder: str, objects: Sequence[BronzeObject], lines_of: LinesOf
) -> Source:
    """Put the objects' lines into a folder of the internal stage.

    Raises:
        CorruptObjectError: an object cannot be unpacked, or `lines_of` finds it corrupt.
        ConfigError, RefusedError, TransientError: see `Session.put`.
    """
    stage = f"{INTERNAL_STAGE}/{folder}/"
    files: dict[Stream, list[str]] = {}
    work: list[tuple[str, list[BronzeObject]]] = []
    for item in batched(objects):
        stream = item[0].chain.stream
        name = f"{stream.value}-{len(work):05}.json.gz"
        files.setdefault(stream, []).append(name)
        work.append((name, item))

    def put(named: tuple[str, list[BronzeObject]]) -> None:
        name, items = named
        session.put(name, _compressed(map(lines_of, items)), stage)

    with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
        for _ in pool.map(put, work):
            pass
    return Source(stage, "$1:f::varchar", files)


def batched(objects: Sequence[BronzeObject]) -> list[list[BronzeObject]]:
    """Objects that share a file, stream by stream; those without a record in none."""
    batches: list[list[BronzeObject]] = []
    for stream in Stream:
        size = FILE_BYTES
        for item in objects:
            if item.chain.stream is not stream or not item.manifest.n:
                continue
            if size >= FILE_BYTES:
                batches.append([])
                size = 0
            batches[-1].append(item)
            size += len(item.body)
    return batches


def _compressed(texts: Iterable[bytes]) -> bytes:
    """One gzip member."""
    compressor: Any = isal_zlib.compressobj(level=1, wbits=31)
    return b"".join([*(compressor.compress(text) for text in texts), compressor.flush()])


def external_files(stage: str, prefix: str, objects: Sequence[BronzeObject]) -> Source:
    """The objects where they are, in an external stage over the lake.

    Args:
        stage: its name.
        prefix: the folder of its URL in the bucket, which METADATA$FILENAME begins with.
        objects: what is loaded.
    """
    files: dict[Stream, list[str]] = {}
    for item in objects:
        if item.manifest.n:
            files.setdefault(item.chain.stream, []).append(item.key)
    key = f"substr(metadata$filename, {len(prefix) + 1})" if prefix else "metadata$filename"
    return Source(f"@{stage}/", key, files)


def plain_lines(item: BronzeObject) -> bytes:
    """The lines as they are, each with its object's key in front.

    Raises:
        CorruptObjectError: it cannot be unpacked.
    """
    with_key = b'\n{"f":%b,' % msgspec.json.encode(item.key)
    text = unpack(item.body, item.key)
    return (b"\n" + text[:-1]).replace(b"\n{", with_key)[1:] + b"\n"


def careful_lines(item: BronzeObject) -> bytes:
    """Lines that any reader of JSON takes: one that is no frame becomes poison.

    Raises:
        CorruptObjectError: a line carries no position, or one that is not its object's.
    """
    encode = msgspec.json.Encoder().encode
    return b"".join(encode(_judged(item.key, line)) + b"\n" for line in quoted_lines(item))


class _Fields(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a line says; a foreign producer may say more."""

    src: str | None = None
    ses: str | None = None
    seq: int | None = None
    rx: int | None = None
    sym: str | None = None
    raw: msgspec.Raw = msgspec.Raw()
    text: str | None = None
    b64: str | None = None
    poison_b64: str | None = None


class _Line(_Fields, kw_only=True, omit_defaults=True):
    """A line as COPY reads it: with the key of its object, and its position."""

    f: str
    t: str
    p: int
    o: int
    lt: int


_BIGINT_MAX: Final = (1 << 63) - 1
_fields = msgspec.json.Decoder(_Fields)


def _judged(key: str, line: QuotedLine) -> _Line:
    """The frame in a line; the line itself as poison where it is none (as `CAREFUL` of DuckDB)."""
    fields = _frame(line.line)
    if fields is None:
        whole = line.b64 or base64.b64encode((line.line or "").encode()).decode()
        fields = _Fields(poison_b64=whole)
    elif bytes(fields.raw) == b"null":
        fields.raw = msgspec.Raw()
    said: dict[str, Any] = msgspec.structs.asdict(fields)
    return _Line(f=key, t=line.t, p=line.p, o=line.o, lt=line.lt, **said)


def _frame(line: str | None) -> _Fields | None:
    if line is None or not is_strict_json_line(line.encode()):
        return None
    try:
        fields = _fields.decode(line)
    except msgspec.DecodeError:
        return None
    is_envelope = None not in (fields.src, fields.ses, fields.seq, fields.rx)
    in_range = all(-_BIGINT_MAX <= (n or 0) <= _BIGINT_MAX for n in (fields.seq, fields.rx))
    return fields if in_range and (is_envelope or fields.poison_b64 is not None) else None
