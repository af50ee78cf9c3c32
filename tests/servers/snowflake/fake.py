"""fakesnow's server with what it lacks, so that loads and builds meet what Snowflake would do.

Runs in an environment of its own (`server.py`); private names of fakesnow are replaced, so it is
pinned exactly. Added here:

- COPY: FILES of an internal stage, `$1:…` and METADATA$ in a SELECT, whole or not at all, `s3://`
  stages through s3fs, long lines; REMOVE; ALTER SESSION.
- Transactions: UPDATE, DELETE and MERGE lock their table until the transaction ends and others
  wait (LOCK_TIMEOUT); AUTOCOMMIT; DDL commits what is open; TRANSACTION_ABORT_ON_ERROR; what a
  client that is gone left open is rolled back, and of one that sleeps while others wait for it
  (after `IDLE_S_MAX`, or at once by the fault "asleep").
- SUM of numbers is exact; MD5_NUMBER_LOWER64.
- A request that is sent again (same requestId) is answered again, not run again.
- Faults by order (`/control/faults`), keys of users (`/control/users`).

It differs from Snowflake where DuckDB shows through: a transaction reads as of its first statement
instead of committed rows at each, so the lock has to be taken first.
"""

import asyncio
import contextlib
import contextvars
import gzip
import json
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from string import Template
from typing import Any

import duckdb
import fakesnow.copy_into as copying
import fakesnow.cursor as cursors
import fakesnow.server as base
import jwt
import pyarrow as pa
import pyarrow.compute as pc
import s3fs
import uvicorn
from fakesnow import arrow, macros
from fakesnow.transforms import SUCCESS_NOP, stage
from sqlglot import exp
from sqlglot.dialects import DuckDB
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from snowflake.connector.errors import ProgrammingError

LINE_BYTES_MAX = 128 << 20
LOCK_TIMEOUT_S_MAX = 60.0
REAP_AFTER_S = 1.0
IDLE_S_MAX = 10.0
"""An open transaction is left alone so long while others wait for it; Snowflake says 5 minutes."""
RETRY_WITHIN_S = 20.0
DROP_STAGE = re.compile(r"\s*drop\s+stage\s+(?:if\s+exists\s+)?(\S+?);?\s*", re.IGNORECASE)
ALTER_SESSION = re.compile(r"\s*alter\s+session\s+set\s+(.*?);?\s*", re.IGNORECASE | re.DOTALL)
Answer = Callable[[Request], Awaitable[Response]]


# -- sessions, locks and transactions --------------------------------------------------------


class Locks:
    """Tables that a transaction changes, until it ends."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._owner: dict[tuple[str, str, str], object] = {}
        self._wanted: Counter[tuple[str, str, str]] = Counter()

    def take(self, table: tuple[str, str, str], owner: object, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        with self._free, self._wanting(table):
            while self._owner.get(table, owner) is not owner:
                if not self._free.wait(deadline - time.monotonic()):
                    raise ProgrammingError(
                        msg=f"Statement was aborted: table {'.'.join(table)} is locked by another"
                        " transaction and this lock has not yet been released (LOCK_TIMEOUT)",
                        errno=625,
                        sqlstate="57014",
                    )
            self._owner[table] = owner

    @contextlib.contextmanager
    def _wanting(self, table: tuple[str, str, str]) -> Iterator[None]:
        self._wanted[table] += 1
        try:
            yield
        finally:
            self._wanted[table] -= 1

    def are_wanted(self, owner: object) -> bool:
        """Whether somebody waits for what this one holds."""
        with self._free:
            return any(self._wanted[t] for t, found in self._owner.items() if found is owner)

    def release(self, owner: object) -> None:
        with self._free:
            self._owner = {t: found for t, found in self._owner.items() if found is not owner}
            self._free.notify_all()


@dataclass
class Session:
    """What is known of a session beside fakesnow's connection."""

    parameters: dict[str, Any] = field(default_factory=dict)
    is_open: bool = False
    has_begun: bool = False
    is_aborted: bool = False
    peers: set[tuple[str, int]] = field(default_factory=set)
    busy: int = 0
    seen_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    answers: dict[str, bytes] = field(default_factory=dict)

    def flag(self, name: str, *, default: bool = False) -> bool:
        return str(self.parameters.get(name, default)).lower() == "true"


locks = Locks()
open_peers: dict[tuple[str, int], Any] = {}
counts: Counter[str] = Counter()


def session_of(conn: Any) -> Session:
    if not hasattr(conn, "shim"):
        conn.shim = Session()
    return conn.shim


def end(conn: Any, statement: str) -> None:
    """COMMIT or ROLLBACK; locks are free afterwards, whatever comes of it."""
    session = session_of(conn)
    try:
        if session.has_begun:
            conn._duck_conn.execute("rollback" if session.is_aborted else statement)
    finally:
        session.is_open = session.has_begun = session.is_aborted = False
        locks.release(conn)


def is_ddl(statement: exp.Expr) -> bool:
    if statement.args.get("create_stage_name"):
        return True
    return isinstance(statement, exp.Create | exp.Drop | exp.Alter | exp.Comment)


CHANGES = exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.Copy


def changed_table(conn: Any, statement: exp.Expr) -> tuple[str, str, str] | None:
    if not isinstance(statement, exp.Update | exp.Delete | exp.Merge):
        return None
    table = statement.this.find(exp.Table)
    names = (table.catalog or conn.database, table.db or conn.schema, table.name)
    return tuple(str(name).upper() for name in names)


plain_execute = cursors.FakeSnowflakeCursor._execute


def execute(self: Any, statement: exp.Expr, params: Any = None) -> None:
    """One statement under Snowflake's rules of transactions."""
    conn, session = self._conn, session_of(self._conn)
    if isinstance(statement, exp.Describe):
        return plain_execute(self, statement, params)
    if isinstance(statement, exp.Transaction):
        session.is_open = True
        return plain_execute(self, SUCCESS_NOP, None)
    if isinstance(statement, exp.Commit | exp.Rollback):
        end(conn, "commit" if isinstance(statement, exp.Commit) else "rollback")
        return plain_execute(self, SUCCESS_NOP, None)
    if session.is_aborted:
        raise ProgrammingError(
            msg="Transaction was aborted by an earlier error; commit or rollback first",
            errno=90232,
            sqlstate="25000",
        )
    if is_ddl(statement) and session.is_open:
        end(conn, "commit")
    return in_transaction(self, statement.transform(as_snowflake), params)


FLATTEN = """
CREATE OR REPLACE MACRO ${catalog}._fs_flatten(input) AS TABLE
    SELECT
        hash(TO_JSON(input))::UBIGINT AS SEQ,
        e.k AS KEY,
        COALESCE(e.k, '[' || (e.n - 1) || ']') AS PATH,
        CASE WHEN e.k IS NULL THEN (e.n - 1)::BIGINT END AS INDEX,
        e.v AS VALUE,
        TO_JSON(input) AS THIS
    FROM (
        SELECT UNNEST(
            CASE WHEN json_type(TO_JSON(input)) = 'OBJECT'
                 THEN list_transform(
                    json_keys(TO_JSON(input)),
                    lambda x, i: struct_pack(k := x, v := CAST(TO_JSON(input) -> x AS JSON), n := i)
                 )
                 ELSE list_transform(
                    CAST(TO_JSON(input) AS JSON[]),
                    lambda x, i: struct_pack(k := NULL::VARCHAR, v := x, n := i)
                 )
            END, recursive := true
        )
    ) AS e(k, v, n)
"""
"""fakesnow numbers the items in no order, so that INDEX may be another item's."""


def as_snowflake(node: exp.Expr) -> exp.Expr:
    """What fakesnow translates otherwise than Snowflake works.

    ARRAY_TO_STRING(ARRAY_COMPACT(variant), …) is taken for a list of DuckDB, GET(…)::VARCHAR
    keeps a text's quotes, and sums go through DOUBLE.
    """
    if isinstance(node, exp.ArrayToString) and isinstance(node.this, exp.ArrayCompact):
        texts = exp.func("from_json", node.this.this, exp.Literal.string('["VARCHAR"]'))
        joined = [texts, exp.Literal.string("string_agg"), node.expression]
        return exp.Anonymous(this="list_aggregate", expressions=joined)
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.GetExtract):
        return exp.JSONExtractScalar(this=node.this.this, expression=node.this.expression)
    is_cast = isinstance(node, exp.Sum) and isinstance(node.this, exp.TryCast)
    if is_cast and node.this.to.is_type(exp.DataType.Type.DOUBLE):
        node.set("this", node.this.this)
    return node


def in_transaction(self: Any, statement: exp.Expr, params: Any) -> None:
    conn, session = self._conn, session_of(self._conn)
    if not session.flag("AUTOCOMMIT", default=True) and isinstance(statement, CHANGES):
        session.is_open = True
    is_alone = isinstance(statement, exp.Copy) and not session.is_open
    session.is_open = session.is_open or is_alone
    try:
        if table := changed_table(conn, statement):
            wait_s = float(session.parameters.get("LOCK_TIMEOUT", LOCK_TIMEOUT_S_MAX))
            locks.take(table, conn, min(wait_s, LOCK_TIMEOUT_S_MAX))
        if session.is_open and not session.has_begun:
            conn._duck_conn.execute("begin")
            session.has_begun = True
        plain_execute(self, statement, params)
        if is_alone:
            end(conn, "commit")
    except duckdb.TransactionException as error:
        abort(conn)
        raise ProgrammingError(msg=str(error), errno=625, sqlstate="57014") from error
    except duckdb.ConstraintException as error:
        abort(conn)
        raise ProgrammingError(msg=str(error), errno=100072, sqlstate="22000") from error
    except ProgrammingError:
        abort(conn)
        if is_alone:
            end(conn, "rollback")
        raise
    except Exception as error:
        # fakesnow would answer 500, which clients take for an outage and send again without end.
        abort(conn)
        if is_alone:
            end(conn, "rollback")
        raise ProgrammingError(msg=repr(error), errno=370001, sqlstate="XX000") from error
    finally:
        if not session.is_open:
            locks.release(conn)


def abort(conn: Any) -> None:
    session = session_of(conn)
    if session.is_open and session.flag("TRANSACTION_ABORT_ON_ERROR"):
        end(conn, "rollback")
        session.is_open = session.is_aborted = True


def forget(token: str) -> None:
    """End a session; what it left open is rolled back."""
    conn = base.sessions.pop(token, None)
    if conn is not None:
        with contextlib.suppress(duckdb.Error):
            end(conn, "rollback")
        locks.release(conn)
        conn.close()


async def reap() -> None:
    """Roll back what clients left open that are gone, or sleep while others wait for them."""
    while True:
        await asyncio.sleep(REAP_AFTER_S / 4)
        for token, conn in list(base.sessions.items()):
            session = session_of(conn)
            is_idle = not session.busy and time.monotonic() - session.used_at > IDLE_S_MAX
            if is_idle and locks.are_wanted(conn):
                await asyncio.to_thread(end, conn, "rollback")
            if session.busy or session.peers & open_peers.keys():
                session.seen_at = max(session.seen_at, time.monotonic())
            elif session.peers and time.monotonic() - session.seen_at > REAP_AFTER_S:
                forget(token)


class Tracked(H11Protocol):
    """Knows which clients are connected."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer = tuple(transport.get_extra_info("peername")[:2])
        open_peers[self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        open_peers.pop(self._peer, None)
        super().connection_lost(exc)


# -- statements that fakesnow does not know ---------------------------------------------------

plain_command = cursors.FakeSnowflakeCursor.execute


def command(self: Any, text: str, *args: Any, **kwargs: Any) -> Any:
    if found := re.fullmatch(r"\s*(?:remove|rm)\s+@(\S+?);?\s*", text, re.IGNORECASE):
        text = remove(self._conn, found[1])
    elif found := DROP_STAGE.fullmatch(text):
        text = drop_stage(self._conn, found[1])
    elif found := ALTER_SESSION.fullmatch(text):
        for name, value in re.findall(r"(\w+)\s*=\s*('[^']*'|\w+)", found[1]):
            session_of(self._conn).parameters[name.upper()] = value.strip("'")
        text = "select 'Statement executed successfully.' as \"status\""
    return plain_command(self, text, *args, **kwargs)


def drop_stage(conn: Any, name: str) -> str:
    """Forget a stage and its files."""
    parts = stage.parts_from_var(name, conn.database, conn.schema)
    remove(conn, f"{name}/")
    with conn._duck_conn.cursor() as metadata:
        metadata.execute(
            "delete from _fs_global._fs_information_schema._fs_stages"
            " where database_name = ? and schema_name = ? and name = ?",
            parts,
        )
    return f"select '{parts[2]} successfully dropped.' as \"status\""


def remove(conn: Any, name: str) -> str:
    """Delete the files of a stage that a path begins; a SELECT of what was deleted."""
    var, _, path = name.partition("/")
    fqname = ".".join(stage.parts_from_var(var, conn.database, conn.schema))
    root = stage.internal_dir(fqname)
    removed = []
    for folder, _, files in os.walk(root):
        for each in files:
            file = f"{folder.rstrip('/')}/{each}"
            if file.startswith(root + path):
                Path(file).unlink(missing_ok=True)
                removed.append(stage.internal_file_name(file))
    if not removed:
        return "select '' as \"name\", '' as \"result\" where false"
    return " union all ".join(f"select '{n}' as \"name\", 'removed' as \"result\"" for n in removed)


# -- COPY --------------------------------------------------------------------------------------

_pattern = contextvars.ContextVar[re.Pattern[str] | None]("pattern")
plain_copy, plain_glob = copying.copy_into, copying._source_glob
plain_inserts, plain_urls = copying._inserts, copying._source_urls
stores: list[s3fs.S3FileSystem] = []


def copy_into(con: Any, db: Any, schema: Any, expr: exp.Copy, *rest: Any) -> str:
    """COPY whole or not at all, with PATTERN; a line that is not JSON is error 100069."""
    patterns = [p for p in expr.args.get("params") or [] if p.this.name.upper() == "PATTERN"]
    kept = [p for p in expr.args.get("params") or [] if p not in patterns]
    expr.set("params", kept)
    token = _pattern.set(re.compile(patterns[0].expression.name) if patterns else None)
    try:
        return plain_copy(con, db, schema, expr, *rest)
    except duckdb.BinderException:
        raise
    except duckdb.Error as error:
        raise ProgrammingError(
            msg=f"Error parsing JSON: {error}", errno=100069, sqlstate="22P02"
        ) from None
    finally:
        _pattern.reset(token)


def source_glob(source: str, con: Any) -> list[str]:
    if stage.is_internal(source):
        urls = plain_glob(source, con)
    else:
        urls = ["s3://" + url.removeprefix("s3://") for url in stores[0].find(source)]
    wanted = _pattern.get(None)
    return [url for url in urls if wanted is None or wanted.search(url)]


def source_urls(source: str, files: list[str]) -> list[str]:
    urls = [f"{source.rstrip('/')}/{file}" for file in files]
    if stage.is_internal(source):
        missing = [url for url in urls if not Path(url).exists()]
    else:
        missing = [url for url in urls if not stores[0].exists(url)]
    if missing:
        raise ProgrammingError(
            msg=f"Remote file '{missing[0]}' was not found. If you are running a copy command,"
            " please make sure files are not deleted when they are being loaded",
            errno=91016,
            sqlstate="22000",
        )
    return urls


def in_stage(url: str) -> str:
    """METADATA$FILENAME: the path inside the stage or, of an external one, the bucket."""
    if stage.is_internal(url):
        return "/".join(PurePath(url).relative_to(stage.LOCAL_BUCKET_PATH).parts[3:])
    return url.removeprefix("s3://").partition("/")[2]


def inserts(expr: exp.Copy, params: Any, urls: list[str], parquet: Any = None) -> list[exp.Expr]:
    source = expr.args["files"][0]
    if not (isinstance(source, exp.Subquery) and isinstance(params.file_format, copying.ReadJSON)):
        return plain_inserts(expr, params, urls, parquet)

    def replaced(node: exp.Expr, url: str) -> exp.Expr:
        if isinstance(node, exp.Parameter) and node.name == "1":
            return exp.column("json")
        if isinstance(node, exp.Column) and node.name.upper() == "METADATA$FILENAME":
            return exp.Literal.string(in_stage(url))
        if isinstance(node, exp.Column) and node.name.upper() == "METADATA$FILE_ROW_NUMBER":
            return exp.Window(this=exp.RowNumber())
        return node

    return [
        exp.Insert(
            this=expr.this,
            expression=exp.Select(
                expressions=[e.copy().transform(replaced, url) for e in source.this.expressions]
            ).from_(exp.Table(this=params.file_format.read_expression(url))),
        )
        for url in urls
    ]


def read_expression(_self: Any, url: str) -> exp.Expr:
    size = exp.EQ(this=exp.to_identifier("maximum_object_size"), expression=str(LINE_BYTES_MAX))
    size.set("expression", exp.Literal.number(LINE_BYTES_MAX))
    kind = exp.EQ(
        this=exp.to_identifier("format"), expression=exp.Literal.string("newline_delimited")
    )
    return exp.func("read_json_objects", exp.Literal.string(url), size, kind)


# -- results -----------------------------------------------------------------------------------

plain_struct = arrow.timestamp_to_sf_struct


def timestamp_struct(times: Any) -> Any:
    """A null timestamp stays null: fakesnow sends the epoch."""
    times = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    sent = plain_struct(times)
    return pa.StructArray.from_arrays(
        [pc.fill_null(child, 0) for child in sent.flatten()],
        fields=list(sent.type),
        mask=pc.is_null(times),
    )


# -- requests ---------------------------------------------------------------------------------


@dataclass
class Fault:
    """What is to fail.

    Attributes:
        match: pattern that a statement must contain, or `login`, or `upload`.
        act: "503", "reset" (the connection), "broken" (the answer breaks off), "hang" (no answer),
            "error", "logout" (the session is gone) or "asleep" (no answer, and the open transaction
            is rolled back, as of a client that slept while others waited).
        when: "before" the statement is run, or "after" it.
        times: for so many requests.
        skip: after so many that match.
        code, message: of "error".
    """

    match: str
    act: str
    when: str = "before"
    times: int = 1
    skip: int = 0
    code: str = "000603"
    message: str = "injected"

    def strikes(self, what: str, when: str) -> bool:
        if (
            self.when != when
            or self.times <= 0
            or not re.search(self.match, what, re.IGNORECASE | re.DOTALL)
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


faults: list[Fault] = []
users: dict[str, str] = {}
freed = asyncio.Event()


class Reset(Response):
    """The connection ends without an answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (transport := open_peers.get(tuple(scope["client"]))) is not None:
            transport.abort()


class Broken(Response):
    """An answer that breaks off."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"1000"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


async def struck(what: str, when: str, token: str = "") -> Response | None:
    found = next((fault for fault in faults if fault.strikes(what, when)), None)
    if found is None:
        return None
    if (conn := base.sessions.get(token)) is not None:
        session_of(conn).seen_at = time.monotonic() + RETRY_WITHIN_S
    if found.act == "logout":
        forget(token)
        return None
    counts[found.act] += 1
    if found.act == "asleep":
        await asyncio.to_thread(end, conn, "rollback")
    if found.act in {"hang", "asleep"}:
        await freed.wait()
        return Reset()
    if found.act == "503":
        return Response(status_code=503)
    if found.act in {"reset", "broken"}:
        return Reset() if found.act == "reset" else Broken()
    data = {"errorCode": found.code, "sqlState": "XX000"}
    body = {"data": data, "code": found.code, "message": found.message, "success": False}
    return JSONResponse(body)


async def body_of(request: Request) -> Any:
    body = await request.body()
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return json.loads(body)


async def query(request: Request) -> Response:
    """A statement: once a requestId, one at a time a session, with the faults that are ordered."""
    token = (request.headers.get("authorization") or "")[17:-1]
    conn = base.sessions.get(token)
    if conn is None:
        return await base.query_request(request)
    session = session_of(conn)
    session.peers.add((request.client.host, request.client.port))
    session.busy += 1
    try:
        async with session.turn:
            return await answer(request, token, session)
    finally:
        session.busy -= 1
        session.used_at = time.monotonic()
        session.seen_at = max(session.seen_at, time.monotonic())


async def answer(request: Request, token: str, session: Session) -> Response:
    text = str((await body_of(request)).get("sqlText", ""))
    request_id = request.query_params.get("requestId", "")
    if (bad := await struck(text, "before", token)) is not None:
        return bad
    if request_id not in session.answers:
        counts[(text.split() or [""])[0].lower()] += 1
        response = await base.query_request(request)
        if response.status_code != 200:
            return response
        session.answers[request_id] = bytes(response.body)
        while len(session.answers) > 20:
            session.answers.pop(next(iter(session.answers)))
    if (bad := await struck(text, "after", token)) is not None:
        return bad
    return Response(session.answers.get(request_id, b""), media_type="application/json")


async def login(request: Request) -> Response:
    data = (await body_of(request))["data"]
    if (bad := await struck("login", "before")) is not None:
        return bad
    if (key := users.get(str(data.get("LOGIN_NAME", "")).upper())) is not None:
        try:
            jwt.decode(data.get("TOKEN", ""), key, algorithms=["RS256"], leeway=60)
        except jwt.InvalidTokenError as error:
            message = f"JWT token is invalid. [{error}]"
            body = {"data": {}, "code": "390144", "message": message, "success": False}
            return JSONResponse(body)
    response = await base.login_request(request)
    answered = json.loads(response.body)
    token = answered["data"]["token"]
    answered["data"]["masterToken"] = f"master-{token}"  # without one, a client ends no session
    base.sessions[token]._autocommit = True  # it is seen to here
    session = session_of(base.sessions[token])
    session.parameters = {k.upper(): v for k, v in data.get("SESSION_PARAMETERS", {}).items()}
    session.peers.add((request.client.host, request.client.port))
    return JSONResponse(answered)


async def session_request(request: Request) -> Response:
    token = (request.headers.get("authorization") or "")[17:-1]
    if bool(request.query_params.get("delete")) and token in base.sessions:
        await asyncio.to_thread(forget, token)
        return JSONResponse({"data": None, "code": None, "message": None, "success": True})
    return await base.session(request)


async def upload(request: Request) -> Response:
    counts["upload"] += 1
    if (bad := await struck("upload", "before")) is not None:
        return bad
    return await base.bucket_upload(request)


async def order_fault(request: Request) -> Response:
    order = await request.json()
    if order is None:
        faults.clear()
        freed.set()
        freed.clear()
    else:
        faults.append(Fault(**order))
    return JSONResponse({})


async def know_user(request: Request) -> Response:
    order = await request.json()
    users[order["user"].upper()] = order["key"]
    return JSONResponse({})


async def use_store(request: Request) -> Response:
    order = await request.json()
    store = s3fs.S3FileSystem(
        endpoint_url=order["endpoint"],
        key=order["key"],
        secret=order["secret"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    if stores:
        base.shared_fs.duck_conn.unregister_filesystem("s3")
    base.shared_fs.duck_conn.register_filesystem(store)
    stores[:] = [store]
    return JSONResponse({})


async def tell_counts(_request: Request) -> Response:
    told = dict(counts)
    counts.clear()
    return JSONResponse(told)


@contextlib.asynccontextmanager
async def reaping(_app: Starlette) -> Any:
    task = asyncio.create_task(reap())
    yield
    task.cancel()


def routes() -> Iterator[Route]:
    yield Route("/session/v1/login-request", login, methods=["POST"])
    yield Route("/session", session_request, methods=["POST"])
    yield Route("/queries/v1/query-request", query, methods=["POST"])
    yield Route("/fs_bucket/{path:path}", upload, methods=["PUT"])
    yield Route("/control/faults", order_fault, methods=["POST"])
    yield Route("/control/users", know_user, methods=["POST"])
    yield Route("/control/store", use_store, methods=["POST"])
    yield Route("/control/counts", tell_counts, methods=["POST"])
    taken = {"/session/v1/login-request", "/session", "/queries/v1/query-request"}
    taken.add("/fs_bucket/{path:path}")
    yield from (route for route in base.routes if route.path not in taken)


def md5_number_lower64(generator: DuckDB.Generator, expression: exp.Expr) -> str:
    """The lower half of a text's MD5 as a number; fakesnow names a function that is not there."""
    text = generator.sql(expression, "this")
    return f"CAST('0x' || SUBSTR(MD5({text}), 17) AS UBIGINT)"


def main() -> None:
    """Serve on the port of 127.0.0.1 that the command line names."""
    macros.FS_FLATTEN = Template(FLATTEN)
    copying._inserts, copying._source_glob, copying._source_urls = inserts, source_glob, source_urls
    copying.copy_into = cursors.copy_into = copy_into
    copying.ReadJSON.read_expression = read_expression
    DuckDB.Generator.TRANSFORMS[exp.MD5NumberLower64] = md5_number_lower64
    # fakesnow adds up doubles, Snowflake exact numbers.
    cursors.transforms.numeric_agg_implicit_cast = lambda expression: expression
    arrow.timestamp_to_sf_struct = timestamp_struct
    cursors.FakeSnowflakeCursor._execute = execute
    cursors.FakeSnowflakeCursor.execute = command
    app = Starlette(routes=list(routes()), lifespan=reaping)
    try:
        uvicorn.run(
            app,
            host="127.0.0.1",
            port=int(sys.argv[1]),
            http=Tracked,
            timeout_keep_alive=3600,
            access_log=False,
        )
    finally:
        shutil.rmtree(stage.LOCAL_BUCKET_PATH, ignore_errors=True)


if __name__ == "__main__":
    main()
