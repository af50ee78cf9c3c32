"""Fixtures: real servers for a test session, each started once and ended by its id.

Where this machine cannot have one, the test skips with the reason; under `CI=true` that fails.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import pytest

from tests.servers.cache import UnavailableError
from tests.servers.kafka import KafkaServer, start_kafka
from tests.servers.process import ServerProcess
from tests.servers.s3 import S3Server, start_minio, start_moto, start_seaweedfs
from tests.servers.snowflake import SnowflakeServer, start_snowflake

Server = TypeVar("Server", bound=ServerProcess)


def unavailable(error: UnavailableError) -> NoReturn:
    """Skip with the reason; under CI its absence is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every server: {error}")
    pytest.skip(str(error))


def _running(start: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = start()
    except UnavailableError as error:
        unavailable(error)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker shared by the session: use topics of your own (`topics`)."""
    yield from _running(lambda: start_kafka(tmp_path_factory.mktemp("kafka")))


@pytest.fixture
def topics() -> str:
    """A prefix for topics that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, shared by the session: use a bucket of your own."""
    yield from _running(lambda: start_seaweedfs(tmp_path_factory.mktemp("seaweedfs")))


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """MinIO, shared by the session: use a bucket of your own."""
    yield from _running(lambda: start_minio(tmp_path_factory.mktemp("minio")))


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto, shared by the session: use a bucket of your own."""
    yield from _running(lambda: start_moto(tmp_path_factory.mktemp("moto")))


@pytest.fixture
def bucket_name() -> str:
    """A name for a bucket that no other test has."""
    return f"b{uuid.uuid4().hex[:16]}"


@pytest.fixture(scope="session")
def snowflake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnowflakeServer]:
    """The fake Snowflake, shared by the session: use a database of your own."""
    yield from _running(lambda: start_snowflake(tmp_path_factory.mktemp("snowflake")))


@pytest.fixture
def snowflake_database() -> str:
    """A name for a database that no other test has."""
    return f"D{uuid.uuid4().hex[:16].upper()}"
