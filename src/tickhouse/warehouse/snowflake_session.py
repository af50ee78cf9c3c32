"""Sessions at Snowflake: connect, `?` binds, time-outs, and errors classed by what to do.

The connector itself sends a request again after 429, 5xx and lost connections, under the same
request id, for `NETWORK_TIMEOUT_S`; what is left after that arrives here.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (the connector's cursors are typed in part)

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final, Self, TypeVar

import snowflake.connector
from snowflake.connector import errors

from tickhouse.errors import ConfigError, RefusedError, TransientError
from tickhouse.warehouse.snowflake_options import SnowflakeOptions, credentials
from tickhouse.warehouse.warehouse import Row

LOGIN_TIMEOUT_S: Final = 30
NETWORK_TIMEOUT_S: Final = 120
SOCKET_TIMEOUT_S: Final = 60
"""Snowflake answers within 45 s that a statement still runs."""
STATEMENT_TIMEOUT_S: Final = 1800
IDLE_MAX: Final = 4
QUERY_TAG: Final = "tickhouse"
FAILURES: Final = (errors.Error, OSError)
"""What the connector raises: its own, and of its HTTP client where an answer breaks off."""

_SESSION_GONE: Final = frozenset({390104, 390110, 390111, 390112, 390114, 390115, 290401})
_PASSING: Final = frozenset({603, 604, 615, 625, 630, 90232, 91016})
_JWT_REFUSED: Final = 390144
_ROLE_REFUSED: Final = 390189
_QUOTA: Final = 90073
_NO_PRIVILEGE: Final = 3001
_NO_WAREHOUSE: Final = frozenset({606, 607, 608})
_CONNECTORS: Final = range(250_000, 300_000)
_NOT_THERE: Final = frozenset({2003, 2043, 90105, 90106})
_ALTERED: Final = frozenset({904, 1757, 2020, 2023, 100038, 100069, 100072, 100078, 100080, 100144})
_LOGIN: Final = range(390_000, 391_000)
_Found = TypeVar("_Found")


class Cursor:
    """Statements of one session, `?` bound; the caller closes it."""

    def __init__(self, session: "Session", close: Callable[[], None]) -> None:
        self._session = session
        self._close = close
        self._cursor: Any = session.connection.cursor()

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Self:
        """Run one statement.

        Raises:
            ConfigError, RefusedError, TransientError: see `translated`.
            snowflake.connector.errors.ProgrammingError: any other, most likely our mistake.
        """
        with self._session.translating():
            self._cursor.execute(sql, tuple(parameters))
        return self

    def fetchall(self) -> list[Row]:
        """All rows of the last statement."""
        with self._session.translating():
            return self._cursor.fetchall()

    def fetchone(self) -> Row | None:
        """The next row of the last statement."""
        with self._session.translating():
            return self._cursor.fetchone()

    @property
    def description(self) -> Any:  # noqa: ANN401 - DB-API: rows of seven fields
        """Name and type of each column of the last statement."""
        return self._cursor.description

    def close(self) -> None:
        """Give the session back."""
        self._close()


class Session:
    """One session; a transaction belongs to it.

    Attributes:
        connection: the connector's.
    """

    def __init__(
        self, options: SnowflakeOptions, *, lock_wait_s: float, autocommit: bool = True
    ) -> None:
        self._options = options
        with self.translating():
            self.connection = snowflake.connector.connect(
                **_arguments(options, lock_wait_s, autocommit=autocommit), **credentials(options)
            )

    def run(
        self, sql: str, parameters: Sequence[object] = (), *, timeout_s: float | None = None
    ) -> list[Row]:
        """Run one statement; its rows. A statement that takes longer than `timeout_s` is stopped.

        Raises:
            see `Cursor.execute`.
        """
        with self.translating():
            return self.fetch(sql, parameters, timeout_s=timeout_s)

    def fetch(
        self,
        sql: str,
        parameters: Sequence[object] = (),
        *,
        timeout_s: float | None = None,
        rows_max: int | None = None,
    ) -> list[Row]:
        """As `run`, with the connector's own errors, and at most `rows_max` rows."""
        return self.table(sql, parameters, timeout_s=timeout_s, rows_max=rows_max)[1]

    def table(
        self,
        sql: str,
        parameters: Sequence[object] = (),
        *,
        timeout_s: float | None = None,
        rows_max: int | None = None,
    ) -> tuple[list[str], list[Row]]:
        """As `fetch`, with the names of the columns; lower case where nobody quoted them."""
        with self.connection.cursor() as cursor:
            seconds = None if timeout_s is None else max(int(timeout_s), 1)
            cursor.execute(sql, tuple(parameters), timeout=seconds)
            rows: Any = cursor.fetchall() if rows_max is None else cursor.fetchmany(rows_max)
            names = [str(column[0]) for column in cursor.description or ()]
        return [name.lower() if name.isupper() else name for name in names], rows

    def put(self, name: str, body: bytes, stage: str) -> None:
        """Upload a file into a stage's folder; safe in several threads at once.

        Raises:
            see `Cursor.execute`.
        """
        sql = f"put 'file://{name}' {stage} auto_compress = false overwrite = true"
        with self.translating(), self.connection.cursor() as cursor:
            cursor.execute(sql, file_stream=BytesIO(body))
            rows: Any = cursor.fetchall()
        if not rows or rows[0][6] != "UPLOADED":
            raise TransientError(f"{self._options.url}: {name} was not uploaded: {rows}")

    @contextlib.contextmanager
    def translating(self) -> Generator[None]:
        """Errors as ours, where an operator or time can help."""
        try:
            yield
        except FAILURES as error:
            if (ours := translated(error, self._options)) is not None:
                raise ours from error
            raise

    def close(self) -> None:
        """End it; what its transaction did is rolled back. It may be gone already."""
        with contextlib.suppress(*FAILURES):
            self.connection.close(retry=False)


class Sessions:
    """Sessions at hand, each used by one thread at a time.

    Args:
        options: where, and who.
        lock_wait_s: how long a statement waits for a lock.
        autocommit: whether a statement outside a transaction is one by itself.
    """

    def __init__(
        self, options: SnowflakeOptions, *, lock_wait_s: float, autocommit: bool = True
    ) -> None:
        self._options = options
        self._lock_wait_s = lock_wait_s
        self._autocommit = autocommit
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def take(self) -> Session:
        """A session without an open transaction."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Session(self._options, lock_wait_s=self._lock_wait_s, autocommit=self._autocommit)

    def give_back(self, session: Session) -> None:
        """Keep it for the next, or end it."""
        with self._lock:
            if len(self._idle) < IDLE_MAX and not self._is_closed:
                self._idle.append(session)
                return
        session.close()

    @contextlib.contextmanager
    def session(self) -> Generator[Session]:
        """A session; after any error it is ended, and with it whatever it left open."""
        session = self.take()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        self.give_back(session)

    def retried(self, work: Callable[[Session], _Found]) -> _Found:
        """Do what may be done twice; once more in a new session where the first was gone."""
        try:
            with self.session() as session:
                return work(session)
        except TransientError:
            self.end_idle()
            with self.session() as session:
                return work(session)

    def end_idle(self) -> None:
        """End what is at hand: it may be as stale as the one that failed."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def close(self) -> None:
        """End all that are not in use; those in use end when they are given back."""
        self._is_closed = True
        self.end_idle()


def _arguments(
    options: SnowflakeOptions, lock_wait_s: float, *, autocommit: bool
) -> dict[str, Any]:
    proxy: Mapping[str, object] = {
        "host": options.host,
        "port": options.port,
        "protocol": options.protocol if options.host else "",
        "warehouse": options.warehouse,
        "role": options.role,
    }
    return {
        **{name: value for name, value in proxy.items() if value},
        "account": options.account,
        "database": options.database,
        "schema": "BRONZE",
        "user": options.user,
        "application": "tickhouse",
        "paramstyle": "qmark",
        "autocommit": autocommit,
        "login_timeout": LOGIN_TIMEOUT_S,
        "network_timeout": NETWORK_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "session_parameters": {
            "QUERY_TAG": QUERY_TAG,
            "TIMEZONE": "UTC",
            "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
            "JSON_INDENT": 0,
            "MULTI_STATEMENT_COUNT": 1,
            "LOCK_TIMEOUT": max(int(lock_wait_s), 1),
            "STATEMENT_TIMEOUT_IN_SECONDS": STATEMENT_TIMEOUT_S,
            "TRANSACTION_ABORT_ON_ERROR": True,
            "ABORT_DETACHED_QUERY": True,
            "CLIENT_TELEMETRY_ENABLED": False,
        },
    }


def translated(error: Exception, options: SnowflakeOptions) -> Exception | None:
    """Our class of error; None where it is neither the operator's, nor passes by itself."""
    if not isinstance(error, errors.Error):
        return TransientError(f"{options.url}: {error}")
    number = error.errno or 0
    where = f"{options.url}: {error.msg or error}"
    if number in _LOGIN and number not in _SESSION_GONE:
        return ConfigError(f"{where}. {_login_hint(number, options)}")
    if (ours := _operators(number, where, options)) is not None:
        return ours
    is_transport = isinstance(error, errors.OperationalError | errors.InterfaceError)
    if is_transport or number in _CONNECTORS or number in _SESSION_GONE | _PASSING:
        return TransientError(where)
    return None


def _operators(number: int, where: str, options: SnowflakeOptions) -> Exception | None:
    """What an operator, or the next month, puts right."""
    text = where.lower()
    if number == _QUOTA or "exceeded its quota" in text:
        return RefusedError(
            f"{where}. The resource monitor's quota is reached: raise it, or wait for its next"
            " period; loading goes on by itself."
        )
    if number in _NO_WAREHOUSE or ("warehouse" in text and "suspend" in text):
        return ConfigError(
            f"{where}. No running warehouse: name one (?warehouse=…) that this role may use, and"
            " resume it (ALTER WAREHOUSE … RESUME) or let it AUTO_RESUME."
        )
    if number == _NO_PRIVILEGE or "insufficient privileges" in text:
        return ConfigError(
            f"{where}. The role {options.role or '(default)'} lacks a privilege: the statements in"
            " deploy/snowflake grant what each role needs."
        )
    if number in _NOT_THERE:
        return ConfigError(
            f"{where}. It is missing, or not this role's to see: `tickhouse init` makes what is"
            " missing; the database itself and grants are in deploy/snowflake."
        )
    if number in _ALTERED:
        return ConfigError(
            f"{where}. A table is not as tickhouse made it (a column added, dropped or"
            " changed by hand?): compare it with snowflake.sql. Nothing was loaded."
        )
    return None


def _login_hint(number: int, options: SnowflakeOptions) -> str:
    if number == _JWT_REFUSED:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return (
            f"Snowflake knows another public key for {options.user} (ALTER USER … SET"
            f" RSA_PUBLIC_KEY), or this machine's clock, now {now}, is off: a token is good for a"
            " minute."
        )
    if number == _ROLE_REFUSED:
        return f"Grant the role to {options.user}, or name another (?role=…)."
    if number in {390303, 390318}:
        return "Get a new token into snowflake_token_file."
    return "Check account, snowflake_user and its secret (docs/snowflake.md)."
