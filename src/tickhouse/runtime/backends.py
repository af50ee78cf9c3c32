"""The one place that knows which backend is used: a URL picks it.

A backend is imported where it is opened, so that a stage starts without what the others need.
"""

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from tickhouse.bronze.chain import ROOT
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.store import Store
from tickhouse.errors import ConfigError, ObjectExistsError, RefusedError, TransientError
from tickhouse.model.positions import Stream
from tickhouse.settings import Settings
from tickhouse.stream.log import LogReader
from tickhouse.stream.sqlite import SqliteLog, SqliteReader

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tickhouse.bronze.s3_bucket import Bucket
    from tickhouse.bronze.s3_options import S3Options
    from tickhouse.source.feed import Feed
    from tickhouse.source.importing.objects import ForeignLake
    from tickhouse.source.options import FinnhubOptions
    from tickhouse.source.replay import Cut, Recorded
    from tickhouse.stream.kafka_options import KafkaOptions
    from tickhouse.stream.topics import Topics
    from tickhouse.transform.builder import Builder
    from tickhouse.warehouse.duckdb import DuckDBWarehouse
    from tickhouse.warehouse.snowflake import SnowflakeWarehouse
    from tickhouse.warehouse.snowflake_options import SnowflakeOptions


def local_path(url: str, *, scheme: str, setting: str) -> Path:
    """The path in `<scheme>:///<path>`; `<scheme>:////abs` is absolute, as SQLAlchemy has it.

    Raises:
        ConfigError: another scheme, or no path.
    """
    prefix = f"{scheme}:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        found = urlsplit(url).scheme or url
        raise ConfigError(
            f"{setting}: {found!r} is not a backend of this version. Known: {prefix}<path>"
        )
    return Path(url.removeprefix(prefix)).expanduser().absolute()


def open_spool(settings: Settings) -> SqliteLog:
    """Where frames become durable, for the one recorder: the embedded log, or Kafka's spool."""
    return SqliteLog(spool_path(settings))


def spool_free_bytes(settings: Settings) -> int:
    """Room left on the spool's disk."""
    return shutil.disk_usage(spool_path(settings).parent).free


def open_spool_reader(settings: Settings) -> LogReader:
    """What is durable on this machine, for a reader."""
    return SqliteReader(spool_path(settings))


def spool_path(settings: Settings) -> Path:
    """The file of the spool."""
    return local_path(settings.spool_url, scheme="sqlite", setting="spool")


def open_log_reader(settings: Settings) -> LogReader:
    """The log for a reader."""
    if not settings.is_log_kafka:
        return SqliteReader(local_path(settings.log_url, scheme="sqlite", setting="log"))
    with needs("kafka"):
        from tickhouse.stream.kafka import KafkaReader
    return KafkaReader(kafka_options(settings))


def kafka_options(settings: Settings) -> "KafkaOptions":
    """The cluster that `log` names.

    Raises:
        ConfigError: the address is wrong, or the password's file cannot be read.
    """
    from tickhouse.stream.kafka_options import KafkaOptions, read_kafka_url

    bootstrap, prefix = read_kafka_url(settings.log)
    password = _secret(
        settings.kafka_sasl_password, settings.kafka_sasl_password_file, "kafka_sasl_password_file"
    )
    return KafkaOptions(
        bootstrap=bootstrap,
        prefix=prefix,
        group=settings.kafka_group,
        group_protocol=settings.kafka_group_protocol,
        compression=settings.kafka_compression,
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=password,
        ssl_ca=str(settings.kafka_ssl_ca or ""),
        ssl_certificate=str(settings.kafka_ssl_certificate or ""),
        ssl_key=str(settings.kafka_ssl_key or ""),
        ssl_key_password=settings.kafka_ssl_key_password.get_secret_value(),
        insecure_skip_tls_verification=settings.kafka_insecure_skip_tls_verification,
    )


def open_store(settings: Settings) -> Store:
    """The lake."""
    return open_store_at(settings.lake_url, settings, setting="lake")


def open_store_at(url: str, settings: Settings, *, setting: str) -> Store:
    """A lake at an address; buckets take their credentials from the settings."""
    if not url.startswith("s3:"):
        return LocalStore(local_path(url, scheme="file", setting=setting))
    with needs("s3"):
        from tickhouse.bronze.s3 import S3Store
    return S3Store(s3_options(url, settings))


def open_foreign_lake(url: str, settings: Settings) -> "ForeignLake":
    """A lake that is not ours, to read; credentials are those of our own.

    Raises:
        ConfigError: the address is wrong, or nothing is there.
    """
    if not url.startswith("s3:"):
        from tickhouse.bronze.foreign_folder import ForeignFolder

        return ForeignFolder(local_path(url, scheme="file", setting="import"))
    with needs("s3"):
        from tickhouse.bronze.foreign_s3 import ForeignBucket
    return ForeignBucket(s3_options(url, settings))


def s3_options(url: str, settings: Settings) -> "S3Options":
    """The bucket at an address, with the credentials of the settings."""
    from tickhouse.bronze.s3_options import read_s3_url

    return msgspec.structs.replace(
        read_s3_url(url),
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        ca_bundle=str(settings.s3_ca_bundle or ""),
        insecure_skip_tls_verification=settings.s3_insecure_skip_tls_verification,
        is_single_writer=settings.land_single_writer,
    )


@contextlib.contextmanager
def needs(extra: str) -> "Generator[None]":
    """Say which extra is missing where a client library is."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed: pip install 'tickhouse[{extra}]'"
        ) from error


def warehouse_path(settings: Settings) -> Path:
    """The file of the embedded warehouse."""
    return local_path(settings.warehouse_url, scheme="duckdb", setting="warehouse")


def open_warehouse(settings: Settings) -> "DuckDBWarehouse | SnowflakeWarehouse":
    """The warehouse: a file for the one process that owns it, or Snowflake for anybody.

    Raises:
        BusyError: another process has the file.
    """
    if not settings.is_warehouse_snowflake:
        return new_warehouse(warehouse_path(settings))
    return open_snowflake(settings)


def open_snowflake(settings: Settings) -> "SnowflakeWarehouse":
    """The database that `warehouse` names; logs in when it is first asked."""
    with needs("snowflake"):
        from tickhouse.warehouse.snowflake import SnowflakeWarehouse
    return SnowflakeWarehouse(snowflake_options(settings))


def snowflake_options(settings: Settings) -> "SnowflakeOptions":
    """The database that `warehouse` names, and who we are there.

    Raises:
        ConfigError: the address is wrong, or a secret's file cannot be read.
    """
    from tickhouse.warehouse.snowflake_options import read_snowflake_url

    return msgspec.structs.replace(
        read_snowflake_url(settings.warehouse),
        user=settings.snowflake_user,
        authenticator=settings.snowflake_authenticator,
        private_key_file=str(settings.snowflake_private_key_file or ""),
        private_key_passphrase=_secret(
            settings.snowflake_private_key_passphrase,
            settings.snowflake_private_key_passphrase_file,
            "snowflake_private_key_passphrase_file",
        ),
        token=_secret(
            settings.snowflake_token, settings.snowflake_token_file, "snowflake_token_file"
        ),
        password=settings.snowflake_password.get_secret_value(),
        is_password_allowed=settings.snowflake_allow_password,
    )


def new_warehouse(path: Path) -> "DuckDBWarehouse":
    """An embedded warehouse at a path."""
    from tickhouse.warehouse.duckdb import DuckDBWarehouse

    return DuckDBWarehouse(path)


def make_builder(warehouse: "DuckDBWarehouse | SnowflakeWarehouse", work_folder: Path) -> "Builder":
    """The builder over an open warehouse."""
    from tickhouse.transform.builder import Builder, duckdb_target, snowflake_target
    from tickhouse.warehouse.duckdb import DuckDBWarehouse

    if isinstance(warehouse, DuckDBWarehouse):
        target = duckdb_target(warehouse.path)
    else:
        target = snowflake_target(warehouse.options)
    return Builder(connect=warehouse.cursor, target=target, work_folder=work_folder)


def open_source(settings: Settings) -> "Feed":
    """The feed."""
    from tickhouse.source.address import FeedOptions, open_feed
    from tickhouse.source.options import BinanceOptions

    options = FeedOptions(
        truth_path=settings.data / "truth.json",
        finnhub=finnhub_options(settings),
        binance=BinanceOptions(settings.binance_ws_url, settings.binance_rest_url),
        read_lake=lambda lake, wanted: _recorded(settings, lake, wanted),
    )
    return open_feed(settings.source, options)


def _recorded(settings: Settings, lake: str, wanted: "Cut") -> "Iterator[Recorded]":
    """Trades and quotes of a lake by receipt; the configured one's own replays are left out.

    Raises:
        ConfigError: there is no lake.
    """
    url = lake or settings.lake_url
    store = open_lake_there(url, settings, setting="replay")
    return _read_recorded(store, wanted, is_own=place_of(url) == place_of(settings.lake_url))


def open_lake_there(url: str, settings: Settings, *, setting: str) -> Store:
    """A lake to read: one that is not there is not made.

    Raises:
        ConfigError: there is no lake.
    """
    place = place_of(url)
    is_missing = isinstance(place, Path) and not (place / ROOT).is_dir()
    store = None if is_missing else open_store_at(url, settings, setting=setting)
    if store is None or not store.folders(ROOT):
        raise ConfigError(f"{setting}: {url}: no lake there, or an empty one")
    return store


def place_of(url: str) -> "Path | S3Options":
    """A lake's place, however its address is written."""
    if not url.startswith("s3:"):
        return local_path(url, scheme="file", setting="lake")
    from tickhouse.bronze.s3_options import read_s3_url

    return read_s3_url(url)


def _read_recorded(store: Store, wanted: "Cut", *, is_own: bool) -> "Iterator[Recorded]":
    from tickhouse.bronze.reading import Span, frames_by_receipt, payload_of
    from tickhouse.source.replay import Recorded

    span = Span(received_from=wanted.received_from, received_to=wanted.received_to)
    for stream, line in frames_by_receipt(store, [Stream.TRADES, Stream.QUOTES], span):
        mode, _, kind = line.src.rpartition(":")
        if not (is_own and mode == "replay"):
            yield Recorded(line.rx, payload_of(line), kind, line.sym, stream)


def finnhub_options(settings: Settings) -> "FinnhubOptions":
    """Finnhub's key, plan and addresses.

    Raises:
        ConfigError: the key's file cannot be read.
    """
    from tickhouse.source.options import FinnhubOptions
    from tickhouse.source.secret import Secret

    token = _secret(settings.finnhub_token, settings.finnhub_token_file, "finnhub_token_file")
    return FinnhubOptions(
        token=Secret(token.strip()),
        ws_url=settings.finnhub_ws_url,
        rest_url=settings.finnhub_rest_url,
        can_fetch_ticks=settings.finnhub_plan == "premium",
        symbols_max=settings.finnhub_symbols_max,
        calls_per_minute=settings.finnhub_calls_per_minute,
        silence_s=settings.finnhub_silence_s,
    )


def _secret(value: SecretStr, path: Path | None, setting: str) -> str:
    """A secret of the environment, or else of a file."""
    if value.get_secret_value() or path is None:
        return value.get_secret_value()
    return _read_secret(path, setting)


def _read_secret(path: Path, setting: str) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {error}") from error


def probe_conditional_put(settings: Settings) -> str:
    """Put one key twice: a lake whose second put succeeds would lose data to a zombie.

    Raises:
        ConfigError: the store does not refuse the second put.
        RefusedError: it refuses the first one.
    """
    if settings.lake_url.startswith("s3:"):
        return _probe_bucket(settings)
    store = open_store(settings)
    key = "doctor/v1/probe"
    with contextlib.suppress(ObjectExistsError):
        store.put_if_absent(key, b"probe", {})
    try:
        store.put_if_absent(key, b"probe", {})
    except ObjectExistsError:
        return "writable, refuses to overwrite"
    raise ConfigError(f"{settings.lake_url}: overwrote an existing object; do not land here")


def _probe_bucket(settings: Settings) -> str:
    with needs("s3"):
        from tickhouse.bronze.s3 import S3Store
    store = S3Store(s3_options(settings.lake_url, settings))
    store.folders(ROOT)
    if store.is_conditional():
        return "readable, writable, refuses to overwrite"
    if settings.land_single_writer:
        return "readable, writable; ignores If-None-Match, and so takes one lander only"
    raise ConfigError(
        f"{settings.lake_url}: the service ignores If-None-Match: two landers would overwrite each"
        " other. Use one that knows it, or set land_single_writer and run one lander only"
    )


def check_lake(settings: Settings) -> None:
    """Refuse, before anything is landed, a bucket that two landers would overwrite.

    A service that is away tells nothing yet: the store asks again before its first put.

    Raises:
        ConfigError: conditional writes are needed and not there.
    """
    if settings.lake_url.startswith("s3:"):
        with contextlib.suppress(TransientError, RefusedError):
            _probe_bucket(settings)


def open_topics(settings: Settings) -> "Topics":
    """The topics of the cluster that `log` names."""
    with needs("kafka"):
        from tickhouse.stream.topics import Topics
    return Topics(kafka_options(settings))


def open_bucket(settings: Settings) -> "Bucket":
    """The bucket that `lake` names."""
    with needs("s3"):
        from tickhouse.bronze.s3_bucket import Bucket
    return Bucket(s3_options(settings.lake_url, settings))
