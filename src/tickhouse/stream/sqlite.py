"""The embedded log: SQLite in WAL mode, one blob row a batch, durable at every commit.

One recorder writes, under a file lock; any number of readers look at snapshots and never block
it. The log's epoch, made with the file, is the topic id. A partition's end is a row of its own,
moved in the batch's transaction, so offsets never restart, whatever retention removes.
"""

import fcntl
import os
import secrets
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tickhouse.errors import BusyError, ConfigError, CorruptLogError, RefusedError, TransientError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.following import Following
from tickhouse.stream.log import (
    Append,
    Bounds,
    LogBatch,
    OnRevoked,
    PositionOf,
    Subscription,
    nothing_revoked,
)
from tickhouse.telemetry import failpoint, sync_folder

SCHEMA: Final = """
create table if not exists log (epoch text not null, format integer not null);
create table if not exists ends (
    stream text not null, part integer not null,
    begin_offset integer not null, end_offset integer not null, bytes integer not null,
    primary key (stream, part)
);
create table if not exists batches (
    id integer primary key,
    stream text not null, part integer not null, base integer not null, n integer not null,
    at_ms integer not null, bytes integer not null, crc integer not null, body blob not null
);
create unique index if not exists batches_position on batches (stream, part, base);
create table if not exists carried (
    stream text not null, part integer not null, is_sure integer not null,
    primary key (stream, part)
);
"""
FORMAT: Final = 1
RESERVE_BYTES: Final = 1 << 20
TRIM_BATCHES_MAX: Final = 256

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class SqliteReader:
    """Reads a log that another process writes; the file may not be there yet.

    Args:
        path: the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = threading.RLock()
        self._epoch = ""

    def topic_id(self, partition: TopicPartition) -> str:  # noqa: ARG002 - one epoch for all
        """The epoch of the file, '' while there is none."""
        with self._lock:
            return self._epoch if self._open() else ""

    def partitions(self) -> list[TopicPartition]:
        """All partitions ever written."""
        rows = self._rows("select stream, part from ends order by stream, part")
        return [TopicPartition(Stream(stream), part) for stream, part in rows]

    def bounds(self, partition: TopicPartition) -> Bounds:
        """First and next offset; 0, 0 before the first record."""
        rows = self._rows(
            "select begin_offset, end_offset from ends where stream = ? and part = ?",
            (str(partition.stream), partition.part),
        )
        return Bounds(*rows[0]) if rows else Bounds(0, 0)

    def size_bytes(self) -> int:
        """Bytes of all batches held."""
        return self._rows("select coalesce(sum(bytes), 0) from ends")[0][0] if self._open() else 0

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        """See `LogReader.read`."""
        with self._lock:
            bounds = self.bounds(partition)
            if start >= bounds.end:
                return None
            batch = (
                self._read_batches(partition, start, bytes_max) if start >= bounds.begin else None
            )
            if batch is not None and batch.next > start:
                return batch
            begin = self.bounds(partition).begin
            if begin <= start:
                raise CorruptLogError(
                    partition.topic, partition.part, start, "the batch is missing"
                )
            return self._batch(partition, start, begin, trimmed=True)

    def _read_batches(self, partition: TopicPartition, start: int, bytes_max: int) -> LogBatch:
        place = (str(partition.stream), partition.part)
        cursor = self._execute(
            "select base, n, at_ms, crc, body from batches where stream = ? and part = ? and"
            " base >= (select max(base) from batches where stream = ? and part = ? and base <= ?)"
            " order by base",
            (*place, *place, start),
        )
        values: list[bytes] = []
        times: list[int] = []
        taken, position = 0, start
        for base, n, at_ms, crc, body in cursor:
            records = self._records(partition, base, n, crc, body)
            skipped = position - base
            if not 0 <= skipped < n:
                reason = f"the next batch begins at {base} and holds {n} records"
                raise CorruptLogError(partition.topic, partition.part, position, reason)
            values.extend(records[skipped:] if skipped else records)
            times.extend([at_ms] * (n - skipped))
            position = base + n
            taken += len(body)
            if taken >= bytes_max:
                break
        cursor.close()
        return self._batch(partition, start, position, values=values, times=times)

    @staticmethod
    def _records(
        partition: TopicPartition, base: int, n: int, crc: int, body: bytes
    ) -> list[bytes]:
        if zlib.crc32(body) != crc:
            raise CorruptLogError(partition.topic, partition.part, base, "checksum differs")
        records = _decode(body)
        if len(records) != n:
            reason = f"{len(records)} records where {n} were written"
            raise CorruptLogError(partition.topic, partition.part, base, reason)
        return records

    def _batch(
        self,
        partition: TopicPartition,
        start: int,
        next_offset: int,
        *,
        values: list[bytes] | None = None,
        times: list[int] | None = None,
        trimmed: bool = False,
    ) -> LogBatch:
        offsets = range(start, start if trimmed else next_offset)
        return LogBatch(
            partition, self._epoch, start, next_offset, offsets, times or [], values or [], trimmed
        )

    def subscribe(
        self,
        position_of: PositionOf,
        on_revoked: OnRevoked = nothing_revoked,  # noqa: ARG002 - nothing is ever revoked
    ) -> Subscription:
        """Follow all partitions."""
        return Following(self, position_of)

    def identity(self) -> tuple[int, int] | None:
        """Device and inode of the file under the path; None while there is none."""
        return _identity_of(self.path)

    def _was_replaced(self) -> bool:
        """Whether another file lies under the path than the one that is open."""
        identity = self.identity()
        return self._identity is not None and identity is not None and identity != self._identity

    def data_version(self) -> int:
        """A number that changes when the writer has committed; -1 while there is no log."""
        rows = self._rows("pragma data_version")
        return rows[0][0] if rows else -1

    def close(self) -> None:
        """Close the file."""
        self._disconnect()

    def _disconnect(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection, self._identity = None, None

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            if not self._open():
                return []
            cursor = self._execute(sql, parameters)
            try:
                return cursor.fetchall()
            except sqlite3.DatabaseError as error:
                raise _translated(error, self.path) from error
            finally:
                cursor.close()

    def _execute(self, sql: str, parameters: Sequence[object]) -> sqlite3.Cursor:
        if self._connection is None:
            raise ConfigError(f"{self.path}: the log is not open")
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.DatabaseError as error:
            raise _translated(error, self.path) from error

    def _open(self) -> bool:
        if self._connection is not None and not self._was_replaced():
            return True
        self._disconnect()
        self._identity = _identity_of(self.path)
        if self._identity is None:
            return False
        try:
            connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=5.0
            )
        except sqlite3.OperationalError as error:
            raise _translated(error, self.path) from error
        self._connection = connection
        self._epoch = self._read_epoch(connection)
        if not self._epoch:
            self._disconnect()
        return bool(self._epoch)

    def _read_epoch(self, connection: sqlite3.Connection) -> str:
        """The epoch, or '' while the recorder is still creating the file."""
        try:
            row = connection.execute("select epoch from log").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return ""
            raise _translated(error, self.path) from error
        except sqlite3.DatabaseError as error:
            self._disconnect()
            raise _translated(error, self.path) from error
        return row[0] if row else ""


class SqliteLog(SqliteReader):
    """The recorder's side of the log.

    Args:
        path: the SQLite file; made with its folder if missing.
        clock_ms: wall clock, UNIX milliseconds; data only.

    Raises:
        BusyError: another recorder holds the log.
        ConfigError: the file is not a log or damaged.
    """

    def __init__(
        self, path: Path, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        super().__init__(path)
        self._clock_ms = clock_ms
        path.parent.mkdir(parents=True, exist_ok=True)
        self._held_lock = _lock_exclusively(path.with_name(path.name + ".lock"))
        try:
            self._writer = self._open_writer()
        except BaseException:
            os.close(self._held_lock)
            raise
        self._reserve = path.with_name(path.name + ".reserve")
        self._keep_reserve()

    def _open_writer(self) -> sqlite3.Connection:
        writer = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=30.0
        )
        try:
            writer.execute("pragma page_size = 16384")
            writer.execute("pragma journal_mode = wal")
            writer.execute("pragma synchronous = full")
            writer.execute("pragma wal_autocheckpoint = 2000")
            writer.execute("pragma journal_size_limit = 67108864")
            writer.execute("begin immediate")
            for statement in filter(str.strip, SCHEMA.split(";")):
                writer.execute(statement)
            if writer.execute("select count(*) from log").fetchone()[0] == 0:
                epoch = secrets.token_hex(11)
                writer.execute("insert into log values (?, ?)", (epoch, FORMAT))
            writer.execute("commit")
            sync_folder(self.path.parent)
        except sqlite3.DatabaseError as error:
            writer.close()
            raise _translated(error, self.path) from error
        except OSError as error:
            writer.close()
            raise TransientError(f"{self.path}: its disk fails: {error}") from error
        return writer

    def append(self, appends: Sequence[Append]) -> list[int]:
        """See `Log.append`: one transaction, flushed to disk before this returns."""
        bodies = [_encode(append.values) for append in appends]
        now_ms = self._clock_ms()
        bases: list[int] = []
        with self._lock:
            failpoint("record.append.before")
            try:
                self._writer.execute("begin immediate")
                bases.extend(
                    self._insert(append, body, now_ms)
                    for append, body in zip(appends, bodies, strict=True)
                )
                self._writer.execute("commit")
            except sqlite3.DatabaseError as error:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                if not self._was_applied(appends, bases):
                    raise _translated(error, self.path) from error
            failpoint("record.append.after")
        return bases

    def _was_applied(self, appends: Sequence[Append], bases: Sequence[int]) -> bool:
        """After a commit that answered with an error: what is there decides."""
        return len(bases) == len(appends) and all(
            self.bounds(append.partition).end == base + len(append.values)
            for append, base in zip(appends, bases, strict=True)
        )

    def _insert(self, append: Append, body: bytes, now_ms: int) -> int:
        place = (str(append.partition.stream), append.partition.part)
        n = len(append.values)
        row = self._writer.execute(
            "insert into ends values (?, ?, 0, ?, ?) on conflict do update set"
            " end_offset = end_offset + excluded.end_offset, bytes = bytes + excluded.bytes"
            " returning end_offset",
            (*place, n, len(body)),
        ).fetchone()
        base = row[0] - n
        if n:
            self._writer.execute(
                "insert into batches (stream, part, base, n, at_ms, bytes, crc, body)"
                " values (?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, base, n, now_ms, len(body), zlib.crc32(body), body),
            )
        return base

    def trim(self, partition: TopicPartition, before: int) -> int:
        """See `Log.trim`; removes a bounded number of batches at a time."""
        place = (str(partition.stream), partition.part)
        with self._lock:
            rows = self._writer.execute(
                "select id, base + n, bytes from batches where stream = ? and part = ?"
                " and base + n <= ? and base < (select max(base) from batches"
                " where stream = ? and part = ?) order by base limit ?",
                (*place, before, *place, TRIM_BATCHES_MAX),
            ).fetchall()
            if rows:
                self._writer.execute("begin immediate")
                self._writer.executemany("delete from batches where id = ?", [r[:1] for r in rows])
                self._writer.execute(
                    "update ends set begin_offset = ?, bytes = bytes - ?"
                    " where stream = ? and part = ?",
                    (rows[-1][1], sum(row[2] for row in rows), *place),
                )
                self._writer.execute("commit")
            return self.bounds(partition).begin

    def retain(
        self,
        *,
        age_s_max: float,
        bytes_max: int,
        grace_s: float,
        held: Callable[[TopicPartition], int],
    ) -> dict[TopicPartition, int]:
        """See `Log.retain`. Session events stay: they are few, and resuming needs them."""
        now_ms = self._clock_ms()
        excess = self.size_bytes() - bytes_max
        trimmed: dict[TopicPartition, int] = {}
        for partition in self.partitions():
            if partition.stream is Stream.SESSIONS:
                continue
            limit_ms = now_ms - int((grace_s if excess > 0 else max(age_s_max, grace_s)) * 1000)
            before = min(held(partition), self._oldest_kept(partition, limit_ms, excess))
            begin = self.bounds(partition).begin
            if before > begin and (moved := self.trim(partition, before)) > begin:
                trimmed[partition] = moved
        return trimmed

    def _oldest_kept(self, partition: TopicPartition, limit_ms: int, excess: int) -> int:
        """End of the last batch older than `limit_ms`, stopping once `excess` is covered."""
        rows = self._rows(
            "select base + n, bytes from batches where stream = ? and part = ? and at_ms < ?"
            " order by base limit ?",
            (str(partition.stream), partition.part, limit_ms, TRIM_BATCHES_MAX),
        )
        before, covered = 0, 0
        for end, size in rows:
            before, covered = end, covered + size
            if 0 < excess <= covered:
                break
        return before

    def has_relayed(self, partition: TopicPartition) -> bool | None:
        """See `Hints.has_relayed`."""
        with self._lock:
            row = self._writer.execute(
                "select is_sure from carried where stream = ? and part = ?",
                (str(partition.stream), partition.part),
            ).fetchone()
        return None if row is None else bool(row[0])

    def note_relayed(self, partition: TopicPartition, *, is_sure: bool) -> None:
        """See `Hints.note_relayed`.

        Raises:
            RefusedError: disk full.
        """
        row = (str(partition.stream), partition.part, is_sure)
        with self._lock:
            try:
                self._writer.execute("insert or replace into carried values (?, ?, ?)", row)
            except sqlite3.DatabaseError as error:
                raise _translated(error, self.path) from error

    def release_reserve(self) -> None:
        """Give the disk back what was kept for the gap event of a full disk."""
        self._reserve.unlink(missing_ok=True)

    def _keep_reserve(self) -> None:
        if self._reserve.exists() and self._reserve.stat().st_size == RESERVE_BYTES:
            return
        try:
            with self._reserve.open("wb") as file:
                file.write(bytes(RESERVE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._reserve.unlink(missing_ok=True)

    def restore_reserve(self) -> None:
        """Take the reserve again once there is room."""
        self._keep_reserve()

    def close(self) -> None:
        """Close the file and give the lock back."""
        super().close()
        writer: sqlite3.Connection | None = getattr(self, "_writer", None)
        if writer is not None and self._held_lock >= 0:
            writer.close()
            os.close(self._held_lock)
            self._held_lock = -1


def _lock_exclusively(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise BusyError(
            f"{path}: another recorder holds this log. Stop it first; the same feed recorded twice"
            " could not be told from real trades."
        ) from error
    return descriptor


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    text = str(error)
    if "full" in text:
        return RefusedError(f"{path}: {text}. Make room; recording goes on by itself.")
    if "not a database" in text or "malformed" in text or "encrypted" in text:
        return ConfigError(
            f"{path}: {text}. The log file is damaged. Everything landed is safe in the lake: move"
            " this file away and start again; a new log begins a new epoch."
        )
    return TransientError(f"{path}: {text}")
