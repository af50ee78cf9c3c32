"""The owner of the warehouse file answers others over a local, authenticated socket."""

import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from multiprocessing import AuthenticationError
from pathlib import Path

import pytest

from tickhouse.errors import ConfigError, TransientError
from tickhouse.runtime.owner import (
    Address,
    OwnerClient,
    OwnerServer,
    address_path,
    connect_owner,
    pack_value,
    unpack_value,
)
from tickhouse.warehouse.dialect import Dialect
from tickhouse.warehouse.warehouse import Row

ROW = (
    1,
    "text",
    None,
    True,
    0.1,
    Decimal("164.06010000"),
    datetime(2026, 3, 2, 14, 30, 0, 123456),  # noqa: DTZ001 - the warehouse keeps naive UTC
    date(2026, 3, 2),
    b"\x00\xff",
    [Decimal("1.5"), None],
    {"key": date(2026, 1, 1)},
)


class Reader:
    """Answers with a fixed row, echoes parameters, or fails."""

    dialect: Dialect = "duckdb"

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        if sql == "busy":
            message = "the lock was not free"
            raise TransientError(message)
        if sql == "wrong":
            message = "no such table: trade"
            raise ConfigError(message)
        if sql == "bug":
            raise ZeroDivisionError
        return [tuple(parameters)] if parameters else [ROW]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnerServer]:
    server = OwnerServer(tmp_path, Reader())
    yield server
    server.close()


@pytest.fixture
def client(server: OwnerServer, tmp_path: Path) -> Iterator[OwnerClient]:
    client = connect_owner(tmp_path)
    assert client is not None
    yield client
    client.close()


@pytest.mark.parametrize("value", ROW)
def test_a_cell_keeps_its_type_on_the_way(value: object) -> None:
    assert unpack_value(pack_value(value)) == value


def test_a_question_is_answered_with_exact_values(client: OwnerClient) -> None:
    assert client.query("select 1") == [ROW]


def test_parameters_arrive_with_their_types(client: OwnerClient) -> None:
    sent = (Decimal("1.10"), date(2026, 3, 2), "x")

    assert client.query("select ?, ?, ?", sent) == [sent]


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("busy", TransientError, "lock was not free"),
        ("wrong", ConfigError, "no such table"),
        ("bug", ConfigError, "ZeroDivisionError"),
    ],
)
def test_what_went_wrong_is_told_and_the_connection_lives_on(
    client: OwnerClient, sql: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        client.query(sql)

    assert client.query("select 1") == [ROW]


def test_a_cycle_is_run_by_the_loop_that_owns_the_warehouse(
    server: OwnerServer, client: OwnerClient
) -> None:
    def loop() -> None:
        cycle, future = server.cycles.get(timeout=5)
        future.set_result({"rows": 7, "load": cycle.load, "build": cycle.build})

    thread = threading.Thread(target=loop)
    thread.start()
    facts = client.cycle(load=True, build=False)
    thread.join()

    assert facts == {"rows": 7, "load": True, "build": False}


def test_the_address_can_be_read_by_its_owner_only(server: OwnerServer, tmp_path: Path) -> None:
    assert address_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_wrong_key_is_refused_and_others_are_still_served(
    server: OwnerServer, client: OwnerClient
) -> None:
    port = server._listener.address[1]

    with pytest.raises(AuthenticationError):
        OwnerClient(Address(1, int(port), b"guess".hex()))

    assert client.query("select 1") == [ROW]


def test_nobody_answers_after_the_owner_has_gone(tmp_path: Path) -> None:
    server = OwnerServer(tmp_path, Reader())
    address = address_path(tmp_path).read_bytes()
    server.close()
    assert connect_owner(tmp_path) is None

    address_path(tmp_path).write_bytes(address)

    assert connect_owner(tmp_path) is None
