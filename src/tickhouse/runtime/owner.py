"""The warehouse file's owner answers: a small local socket of the refine process.

DuckDB lets one process in while a writer is open. While `up` runs, refine owns the file; `audit`,
`status`, a second `load` or `build` ask it here. Requests and answers are JSON over an
authenticated connection on 127.0.0.1; address and key lie in a file only its owner can read.
"""

import contextlib
import os
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import date, datetime
from decimal import Decimal
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from tickhouse.errors import BusyError, ConfigError, TickhouseError, TransientError
from tickhouse.telemetry import get_logger, write_json_atomically
from tickhouse.transform.rederiving import Anew
from tickhouse.warehouse.dialect import Dialect
from tickhouse.warehouse.warehouse import Row, WarehouseReader

HOST: Final = "127.0.0.1"
_log = get_logger("refine")


class Address(msgspec.Struct, frozen=True):
    """Where the owner listens."""

    pid: int
    port: int
    key: str


class Cycle(msgspec.Struct, frozen=True):
    """A load and/or a build that another process asks for; `anew`: what to derive once more."""

    load: bool
    build: bool
    anew: Anew | None = None


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question (`sql`) or a cycle."""

    sql: str | None = None
    parameters: list[Any] = []
    cycle: Cycle | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows, facts of a cycle, or what went wrong."""

    rows: list[list[Any]] | None = None
    facts: dict[str, Any] | None = None
    error: str | None = None
    retry: bool = False


def address_path(run_folder: Path) -> Path:
    """File that holds the owner's address."""
    return run_folder / "refine.address"


_PACK: Final[dict[type, tuple[str, Callable[[Any], object]]]] = {
    Decimal: ("decimal", str),
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    bytes: ("bytes", bytes.hex),
    list: ("list", lambda items: [pack_value(item) for item in items]),
    tuple: ("list", lambda items: [pack_value(item) for item in items]),
    dict: ("dict", lambda cell: [[pack_value(k), pack_value(v)] for k, v in cell.items()]),
}


def pack_value(value: object) -> object:
    """A cell of a row in JSON; decimals, times and bytes keep their type."""
    kind = _PACK.get(type(value))
    return value if kind is None else {kind[0]: kind[1](value)}


_UNPACK: Final[dict[str, Callable[[Any], object]]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "bytes": bytes.fromhex,
    "list": lambda items: [unpack_value(item) for item in items],
    "dict": lambda pairs: {unpack_value(k): unpack_value(v) for k, v in pairs},
}


def unpack_value(value: Any) -> Any:  # noqa: ANN401 - cells are of any type
    """The inverse of `pack_value`."""
    if isinstance(value, dict):
        ((kind, content),) = cast("dict[str, Any]", value).items()
        return _UNPACK[kind](content)
    return value


class OwnerServer:
    """Answers questions in threads; cycles are queued for the loop that owns the warehouse.

    Args:
        run_folder: `<data>/run`.
        reader: answers questions; must be safe to use from several threads.
    """

    def __init__(self, run_folder: Path, reader: WarehouseReader) -> None:
        self._reader = reader
        self._path = address_path(run_folder)
        self.cycles: queue.Queue[tuple[Cycle, Future[dict[str, Any]]]] = queue.Queue()
        key = secrets.token_bytes(32)
        self._listener = Listener((HOST, 0), authkey=key)
        self._closing = threading.Event()
        port = self._listener.address[1]
        write_json_atomically(self._path, Address(os.getpid(), int(port), key.hex()), private=True)
        threading.Thread(target=self._accept, name="owner", daemon=True).start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection = self._listener.accept()
            except (OSError, AuthenticationError, EOFError) as error:
                if not self._closing.is_set():
                    _log.warning("owner_connection_refused", error=str(error))
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: "Connection[bytes, bytes]") -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                request = msgspec.json.decode(connection.recv_bytes(), type=Request)
                connection.send_bytes(msgspec.json.encode(self._answer(request)))

    def _answer(self, request: Request) -> Answer:
        try:
            if request.cycle is not None:
                future: Future[dict[str, Any]] = Future()
                self.cycles.put((request.cycle, future))
                return Answer(facts=future.result())
            parameters = [unpack_value(value) for value in request.parameters]
            rows = self._reader.query(request.sql or "", parameters)
            return Answer(rows=[[pack_value(value) for value in row] for row in rows])
        except TransientError as error:
            return Answer(error=str(error), retry=True)
        except TickhouseError as error:
            return Answer(error=str(error))
        except Exception as error:  # noqa: BLE001 - one question's bug is told, not fatal
            _log.exception("owner_request_failed")
            return Answer(error=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Stop listening and remove the address."""
        self._closing.set()
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            Client(self._listener.address, authkey=b"closing").close()
        self._listener.close()


class OwnerClient:
    """The warehouse as seen from another process than its owner; a `WarehouseReader`."""

    dialect: Dialect = "duckdb"

    def __init__(self, address: Address) -> None:
        self._connection = Client((HOST, address.port), authkey=bytes.fromhex(address.key))
        self._lock = threading.Lock()

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """See `WarehouseReader.query`."""
        packed = [pack_value(value) for value in parameters]
        answer = self._ask(Request(sql=sql, parameters=packed))
        return [tuple(unpack_value(value) for value in row) for row in answer.rows or []]

    def cycle(self, *, load: bool, build: bool, anew: Anew | None = None) -> dict[str, Any]:
        """Have the owner run a cycle now; returns its facts."""
        return self._ask(Request(cycle=Cycle(load, build, anew))).facts or {}

    def _ask(self, request: Request) -> Answer:
        with self._lock:
            try:
                self._connection.send_bytes(msgspec.json.encode(request))
                answer = msgspec.json.decode(self._connection.recv_bytes(), type=Answer)
            except (EOFError, OSError) as error:
                raise BusyError(
                    f"the process that owns the warehouse went away ({error}); try again"
                ) from error
        if answer.error is not None:
            raise TransientError(answer.error) if answer.retry else ConfigError(answer.error)
        return answer

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def connect_owner(run_folder: Path) -> OwnerClient | None:
    """The running owner of the warehouse, or None where nobody listens."""
    try:
        address = msgspec.json.decode(address_path(run_folder).read_bytes(), type=Address)
        return OwnerClient(address)
    except (FileNotFoundError, OSError, EOFError, AuthenticationError, msgspec.DecodeError):
        return None
