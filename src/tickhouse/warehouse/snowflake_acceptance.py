"""What only a real account can tell: `tickhouse doctor --accept` asks it, fact by fact.

Everything happens in a schema of its own, which goes again. A fact says what tickhouse relies on;
one that does not hold is a reason not to use it on this account, and worth a report to us.
"""

import gzip
import multiprocessing
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec
from snowflake.connector import errors

from tickhouse.bronze.object import pack, verify
from tickhouse.errors import TickhouseError, TransientError
from tickhouse.model.positions import ChainId, Stream
from tickhouse.warehouse.snowflake_copy import (
    Source,
    copy_statements,
    counts_statement,
    found_rows,
    plain_lines,
)
from tickhouse.warehouse.snowflake_ledger import INSERT_LEDGER, schema_statements
from tickhouse.warehouse.snowflake_options import SnowflakeOptions
from tickhouse.warehouse.snowflake_session import FAILURES, Session, Sessions
from tickhouse.warehouse.warehouse import BronzeObject, check_counts, ledger_row

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LOCK_WAIT_S: Final = 30.0
SHORT_WAIT_S: Final = 2.0
FREED_WITHIN_S: Final = 420.0
"""A lock of a client that was killed: Snowflake ends an idle transaction that others wait for."""
_CHAIN: Final = ChainId(Stream.TRADES, "accept.trades.v1", "accept", 0)
_LINES: Final = (
    b'{"t":"accept","p":0,"o":0,"lt":1,"rx":1732300000123456789,"raw":%b}'
    % b'{"p":187.12345678901234567,"v":9007199254740993}',
    '{"t":"accept","p":0,"o":1,"lt":1,"raw":{"s":"\\u0000 é \\ud83d\\ude00"}}'.encode(),
)


class Fact(msgspec.Struct, frozen=True):
    """One fact, and whether it holds here."""

    name: str
    ok: bool
    found: str


class NotSoError(Exception):
    """The account does something else than what tickhouse relies on."""


def accept(options: SnowflakeOptions, *, freed_within_s: float = FREED_WITHIN_S) -> Iterator[Fact]:
    """Ask for each fact in turn; a fact that fails keeps no other from being asked.

    Args:
        options: a database whose role may create a schema, tables and a stage.
        freed_within_s: how long the lock of a killed client may be held.

    Raises:
        ConfigError, TransientError: no session, or no schema, at all.
    """
    account = _Account(options, freed_within_s)
    try:
        account.prepare()
        for name, ask in account.facts().items():
            yield account.asked(name, ask)
    finally:
        account.close()


class _Account:
    """The schema in which facts are asked for, and two sessions."""

    def __init__(self, options: SnowflakeOptions, freed_within_s: float) -> None:
        self._options = options
        self._freed_within_s = freed_within_s
        self._sessions = Sessions(options, lock_wait_s=LOCK_WAIT_S)
        self._first = self._sessions.take()
        self._schema = f"tickhouse_accept_{secrets.token_hex(6)}"

    def prepare(self) -> None:
        """The schema with what the facts need."""
        schema = self._schema
        for statement in (
            f"create schema {schema}",
            f"create stage {schema}.files",
            f"create table {schema}.lines (file varchar, number_in_file number, line variant)",
            f"create table {schema}.lock_row as select 0 as taken",
            f"create table {schema}.pairs as select 1 as id, 'before' as state",
        ):
            self._first.run(statement)

    def close(self) -> None:
        """Remove the schema, end the sessions."""
        try:
            self._first.run("rollback")
            self._first.run(f"drop schema if exists {self._schema} cascade")
        finally:
            self._first.close()
            self._sessions.close()

    def asked(self, name: str, ask: Callable[[], str]) -> Fact:
        """The answer; after one that fails the next begins in a new session."""
        try:
            return Fact(name, ok=True, found=ask())
        except (NotSoError, TickhouseError, *FAILURES) as error:
            self._renew()
            return Fact(name, ok=False, found=str(error))

    def _renew(self) -> None:
        self._first.close()
        self._first = self._sessions.take()

    def facts(self) -> dict[str, Callable[[], str]]:
        """Each by what it says, in the order in which they are asked."""
        return {
            "who and where we are": self._identity,
            "objects of the lake are read with the manifest in their gzip header": self._header,
            "COPY inside a transaction is undone by ROLLBACK": self._rollback,
            "a line that is not JSON aborts COPY, and nothing stays": self._not_json,
            "COPY with FORCE loads a file again": self._force,
            "tables and statements of a load are taken": self._load,
            "a table that is built afresh tells which build made it": self._fresh,
            "rows are compared by unsigned hashes and whole decimals": self._hashes,
            "numbers keep their digits in a VARIANT": self._digits,
            "text keeps every character in a VARIANT": self._characters,
            "times keep their microseconds": self._times,
            "exchange time knows summer time": self._summer_time,
            "a failed statement aborts its transaction": self._abort,
            "a second loader waits at the lock row, then sees the first one's commit": self._wait,
            "LOCK_TIMEOUT ends the wait": self._lock_timeout,
            "the lock of a killed loader is freed": self._killed,
            "a loader that slept loads nothing beside its transaction": self._slept,
        }

    # -- reading -------------------------------------------------------------------------------

    def _identity(self) -> str:
        (row,) = self._first.run(
            "select current_version(), current_region(), current_role(), current_warehouse()"
        )
        version, region, role, warehouse = row
        if warehouse is None:
            raise NotSoError("no warehouse is in use: name one (?warehouse=…)")
        return f"Snowflake {version}, {region}, role {role}, warehouse {warehouse}"

    def _copy(self, name: str, body: bytes, *, force: bool = True) -> None:
        stage = f"@{self._schema}.files"
        self._first.put(name, body, stage)
        self._first.fetch(
            f"copy into {self._schema}.lines (file, number_in_file, line)"  # noqa: S608 - our names
            f" from (select metadata$filename, metadata$file_row_number, $1 from {stage})"
            f" files = ('{name}') file_format = (type = json compression = gzip)"
            f" on_error = abort_statement force = {str(force).lower()}"
        )

    def _count(self) -> int:
        return int(self._first.run(f"select count(*) from {self._schema}.lines")[0][0])  # noqa: S608

    def _value(self, expression: str, offset: int) -> Any:  # noqa: ANN401 - of whatever type
        sql = f"select {expression} from {self._schema}.lines where line:o::number = {offset}"  # noqa: S608
        return self._first.run(f"{sql} limit 1")[0][0]

    def _header(self) -> str:
        self._copy("header.json.gz", _packed(_LINES))
        rows = self._first.run(
            f"select file, number_in_file, line:o::number from {self._schema}.lines order by 2"  # noqa: S608
        )
        if [row[1:] for row in rows] != [(1, 0), (2, 1)]:
            raise NotSoError(f"two lines came as {rows}")
        return f"2 lines of 2; METADATA$FILENAME is {rows[0][0]!r}"

    def _rollback(self) -> str:
        before = self._count()
        self._first.run("begin")
        self._copy("rolled.json.gz", _packed(_LINES))
        inside = self._count()
        self._first.run("rollback")
        after = self._count()
        if (inside, after) != (before + len(_LINES), before):
            raise NotSoError(f"{before} rows before, {inside} inside, {after} after the ROLLBACK")
        return f"{inside} rows inside, {after} after"

    def _not_json(self) -> str:
        before = self._count()
        try:
            self._copy("broken.json.gz", _packed((*_LINES, b'{"t":"accept","p":0,"o":')))
        except errors.ProgrammingError as error:
            if (after := self._count()) != before:
                raise NotSoError(
                    f"{after - before} rows stayed after error {error.errno}"
                ) from error
            return f"error {error.errno}"
        raise NotSoError("COPY took the line")

    def _force(self) -> str:
        before = self._count()
        self._copy("header.json.gz", _packed(_LINES))
        if (more := self._count() - before) != len(_LINES):
            raise NotSoError(f"{more} rows came of a file that was loaded before")
        return f"{more} rows again"

    def _moved(self, statement: str) -> str:
        return statement.replace("bronze.", f"{self._schema}.")

    def _load(self) -> str:
        """The loader's own statements, moved into this schema."""
        body, key = _packed(_LINES), _CHAIN.key(0)
        item = BronzeObject(key, _CHAIN, verify(body, key, _CHAIN), body)
        for statement in schema_statements()[1:]:
            self._first.run(self._moved(statement))
        stage = f"@{self._schema}.load_stage"
        self._first.put("load.json.gz", gzip.compress(plain_lines(item)), stage)
        rows = msgspec.json.encode([ledger_row(item)]).decode()
        self._first.run(self._moved(INSERT_LEDGER), (1, 0, rows))
        source = Source(f"{stage}/", "$1:f::varchar", {_CHAIN.stream: ["load.json.gz"]})
        for statement in copy_statements(source, 1):
            self._first.fetch(self._moved(statement))
        counts = self._first.run(self._moved(counts_statement(source.files, 1)))
        check_counts([item], found_rows(counts, [item]))
        received = "select to_varchar(max(received_at), 'YYYY-MM-DD HH24:MI:SS.FF6') from bronze."
        found = str(self._first.run(self._moved(f"{received}{_CHAIN.stream}"))[0][0])
        if found != "2024-11-22 18:26:40.123456":
            raise NotSoError(f"a receipt of 1732300000123456789 ns came as {found}")
        return f"{len(_LINES)} rows of {item.manifest.n}, received at {found}"

    def _fresh(self) -> str:
        self._first.run(
            f"create or replace transient table {self._schema}.fresh cluster by (to_date(at))"
            " comment = 'made by build 7' as select to_timestamp_ntz(0, 3) as at"
        )
        found = self._first.run(
            "select comment from information_schema.tables where lower(table_schema) = ?"
            " and lower(table_name) = 'fresh'",
            (self._schema,),
        )
        if found != [("made by build 7",)]:
            raise NotSoError(f"its comment came back as {found}")
        return str(found[0][0])

    def _hashes(self) -> str:
        found = self._first.run(
            "select to_varchar(md5_number_lower64('')), to_varchar(1.5::number(18, 8))"
        )
        if found != [("16825458760271544958", "1.50000000")]:
            raise NotSoError(f"md5('') and 1.5 of eight decimals came back as {found}")
        return " and ".join(found[0])

    def _digits(self) -> str:
        found = [
            str(self._value(f"line:raw:{name}::{kind}", 0))
            for name, kind in (("p", "number(38, 17)"), ("v", "number(38, 0)"))
        ]
        price, size = found
        if size != "9007199254740993" or not price.startswith("187.123456789"):
            raise NotSoError(f"187.12345678901234567 and 9007199254740993 came back as {found}")
        return f"price {price}, size {size}"

    def _characters(self) -> str:
        found = str(self._value("line:raw:s::varchar", 1))
        if found != "\0 é 😀":
            raise NotSoError(f"a NUL, é and an emoji came back as {found!r}")
        return repr(found)

    def _times(self) -> str:
        found = str(
            self._first.run(
                "select to_varchar(to_timestamp_ntz("
                "(1732300000123456789 - 1732300000123456789 % 1000) / 1000, 6),"
                " 'YYYY-MM-DD HH24:MI:SS.FF6')"
            )[0][0]
        )
        if found != "2024-11-22 18:26:40.123456":
            raise NotSoError(f"1732300000123456789 ns came back as {found}")
        return found

    def _summer_time(self) -> str:
        found = [
            str(self._first.run(f"select to_varchar({text}, 'YYYY-MM-DD HH24:MI')")[0][0])
            for text in (
                "convert_timezone('UTC', 'America/New_York', '2026-03-06 14:30'::timestamp_ntz)",
                "convert_timezone('UTC', 'America/New_York', '2026-03-09 13:30'::timestamp_ntz)",
            )
        ]
        if found != ["2026-03-06 09:30", "2026-03-09 09:30"]:
            raise NotSoError(f"two openings of the exchange came back as {found}")
        return "09:30 on either side of the change"

    # -- transactions --------------------------------------------------------------------------

    def _abort(self) -> str:
        pairs = f"{self._schema}.pairs"
        self._first.run("begin")
        self._first.run(f"delete from {pairs}")  # noqa: S608
        try:
            self._first.fetch(f"insert into {pairs} select 'no number'::number, 'after'")
        except FAILURES as error:
            number = getattr(error, "errno", None)
        else:
            self._first.run("rollback")
            raise NotSoError("the statement that must fail did not")
        try:
            self._first.fetch("commit")
        except FAILURES:
            self._first.run("rollback")
        rows = self._first.run(f"select id, state from {pairs}")  # noqa: S608
        if rows != [(1, "before")]:
            raise NotSoError(f"after error {number} and COMMIT the table held {rows}")
        return f"error {number}; COMMIT kept nothing of it"

    def _take(self, session: Session) -> int:
        row = f"{self._schema}.lock_row"
        session.run("begin")
        session.run(f"update {row} set taken = taken + 1")  # noqa: S608
        return int(session.run(f"select taken from {row}")[0][0])  # noqa: S608

    def _wait(self) -> str:
        first = self._take(self._first)
        waited: list[int | Exception] = []

        def second() -> None:
            try:
                with self._sessions.session() as session:
                    waited.append(self._take(session))
                    session.run("commit")
            except Exception as error:  # noqa: BLE001 - told by the asking thread
                waited.append(error)

        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        thread.join(SHORT_WAIT_S)
        is_early = bool(waited)
        self._first.run("commit")
        thread.join(LOCK_WAIT_S)
        if is_early or waited != [first + 1]:
            raise NotSoError(f"the first took {first}; the second got {waited}, early: {is_early}")
        return f"the second got {first + 1} once the first had committed {first}"

    def _lock_timeout(self) -> str:
        impatient = Sessions(self._options, lock_wait_s=SHORT_WAIT_S)
        self._take(self._first)
        started = time.monotonic()
        try:
            with impatient.session() as session:
                self._take(session)
        except TransientError as error:
            return f"after {time.monotonic() - started:.1f} s: {error}"[:200]
        finally:
            self._first.run("rollback")
            impatient.close()
        raise NotSoError("two sessions held the lock row at once")

    def _killed(self) -> str:
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        child = spawn.Process(target=_hold, args=(self._options, self._schema, there), daemon=True)
        child.start()
        try:
            if not here.poll(LOCK_WAIT_S):
                raise NotSoError("a second process took no lock")
        finally:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
            child.join()
        started = time.monotonic()
        while True:
            try:
                self._take(self._first)
            except TransientError as error:
                took = time.monotonic() - started
                self._renew()
                if took > self._freed_within_s:
                    raise NotSoError(f"still held after {took:.0f} s: {error}") from error
            else:
                self._first.run("rollback")
                return f"after {time.monotonic() - started:.0f} s"

    def _slept(self) -> str:
        """Snowflake may end the transaction of a client that sleeps while another one waits."""
        asleep = Session(self._options, lock_wait_s=LOCK_WAIT_S, autocommit=False)
        try:
            ours = self._take(asleep)
            took = self._ended_after()
            try:
                asleep.run(f"insert into {self._schema}.pairs select 2, 'asleep'")
                asleep.run("rollback")
            except (*FAILURES, TickhouseError) as error:
                return f"its lock was free {took}; the next statement is told: {error}"[:200]
        finally:
            asleep.close()
        rows = self._first.run(f"select id from {self._schema}.pairs where id = 2")  # noqa: S608
        if rows:
            raise NotSoError(f"its next statement committed by itself, after lock {ours}")
        return f"its lock was free {took}; what it did next was not committed"

    def _ended_after(self) -> str:
        """When another one gets the lock of a client that sleeps."""
        started = time.monotonic()
        while time.monotonic() - started <= self._freed_within_s:
            try:
                self._take(self._first)
            except TransientError:
                self._renew()
            else:
                self._first.run("commit")
                return f"after {time.monotonic() - started:.0f} s"
        return f"later than {self._freed_within_s:.0f} s"


def _hold(options: SnowflakeOptions, schema: str, tell: "Connection[Any, Any]") -> None:
    """Take the lock row and wait to be killed."""
    session = Session(options, lock_wait_s=LOCK_WAIT_S)
    session.run("begin")
    session.run(f"update {schema}.lock_row set taken = taken + 1")  # noqa: S608
    tell.send("held")
    time.sleep(FREED_WITHIN_S)


def _packed(lines: tuple[bytes, ...]) -> bytes:
    """An object as the lander makes it."""
    end = len(lines)
    return pack(lines, chain=_CHAIN, start=0, next_offset=end, rx_min=None, rx_max=None)
