"""What `doctor` asks the log, the spool, the lake and Snowflake."""

import contextlib
import shutil
from typing import TYPE_CHECKING, Final

from tickhouse.errors import ConfigError, RefusedError
from tickhouse.model.positions import Stream
from tickhouse.model.units import MILLIS_PER_HOUR
from tickhouse.runtime import backends
from tickhouse.runtime.feed_checks import Check
from tickhouse.settings import Settings

if TYPE_CHECKING:
    from tickhouse.warehouse.snowflake import SnowflakeWarehouse

SPOOL_BYTES_MIN: Final = 1 << 30
PROBES: Final = {
    "read": ("select count(*) from bronze.load_ledger",),
    "load": (
        "update bronze.load_lock set load_id = load_id where 1 = 0",
        "insert into bronze.load_ledger select * from bronze.load_ledger where 1 = 0",
        "insert into bronze.trades select * from bronze.trades where 1 = 0",
    ),
    "build": (
        "create or replace transient table silver.tickhouse_probe (n integer)",
        "drop table silver.tickhouse_probe",
        "create or replace transient table gold.tickhouse_probe (n integer)",
        "drop table gold.tickhouse_probe",
        "update meta.positions set load_id = load_id where 1 = 0",
    ),
}
"""What a role must be able to do for each purpose; none of it changes a row."""


def probe_log(settings: Settings) -> str:
    """Reachable, and of Kafka that the topics are what they have to be."""
    if settings.is_log_kafka:
        return _probe_topics(settings)
    reader = backends.open_log_reader(settings)
    try:
        count = len(reader.partitions())
    finally:
        reader.close()
    return f"{settings.log_url}: {count} partitions"


def _probe_topics(settings: Settings) -> str:
    found = backends.open_topics(settings).describe()
    if missing := [str(stream) for stream in Stream if stream not in found]:
        raise ConfigError(
            f"{settings.log_url}: no topic for {', '.join(missing)}; make them: tickhouse init"
        )
    faults = [f"{facts.topic}: {fault}" for facts in found.values() for fault in facts.faults()]
    if faults:
        raise ConfigError(f"{settings.log_url}: {'; '.join(faults)}. Set it right: tickhouse init")
    counts = " or ".join(str(n) for n in sorted({facts.partitions for facts in found.values()}))
    kept = [facts.retention_ms for facts in found.values() if facts.retention_ms >= 0]
    hours = f"for {min(kept) / MILLIS_PER_HOUR:g} h" if kept else "for ever"
    return f"{settings.log_url}: {len(found)} topics of {counts} partitions, kept {hours}"


def probe_spool(settings: Settings) -> str:
    """Room for what Kafka has not taken yet."""
    folder = next(path for path in backends.spool_path(settings).parents if path.exists())
    free = shutil.disk_usage(folder).free
    if free < min(SPOOL_BYTES_MIN, settings.spool_bytes):
        raise OSError(f"{settings.spool_url}: only {free >> 20} MiB free under {folder}; make room")
    room = min(free, settings.spool_bytes)
    return f"{settings.spool_url}: may grow to {room >> 20} MiB while Kafka is away"


def probe_lake(settings: Settings) -> str:
    """Write the same key twice: the second write must be refused."""
    verdict = backends.probe_conditional_put(settings)
    return f"{settings.lake_url}: {verdict}"


def probe_snowflake(settings: Settings) -> str:
    """Log in; what this role may do and what it lacks.

    Raises:
        ConfigError: it may not log in, or may not even read.
    """
    with contextlib.closing(backends.open_snowflake(settings)) as warehouse:
        role = warehouse.query("select current_role()")[0][0]
        url = warehouse.options.url
        lacks = {purpose: _lacking(warehouse, PROBES[purpose]) for purpose in PROBES}
    if "read" in (refused := {purpose: why for purpose, why in lacks.items() if why}):
        raise ConfigError(f"role {role}: {refused['read']}")
    may = ", ".join(purpose for purpose in lacks if purpose not in refused)
    found = [f"{url}: role {role} may {may}"]
    found += [f"it may not {purpose}: {why}" for purpose, why in refused.items()]
    return "; ".join(found)


def accept_snowflake(settings: Settings) -> list[Check]:
    """Each fact that tickhouse relies on, as the account at hand answers.

    Raises:
        ConfigError: the warehouse is not Snowflake, or nobody can log in there.
    """
    if not settings.is_warehouse_snowflake:
        raise ConfigError(
            f"--accept asks a Snowflake account; the warehouse is {settings.warehouse_url}. Give"
            " --warehouse snowflake://<account>/<database>?warehouse=…&role=…"
        )
    with backends.needs("snowflake"):
        from tickhouse.warehouse.snowflake_acceptance import accept
    facts = accept(backends.snowflake_options(settings))
    return [Check(fact.name, fact.ok, fact.found) for fact in facts]


def _lacking(warehouse: "SnowflakeWarehouse", statements: tuple[str, ...]) -> str:
    """Why the first of the statements that is refused is; "" if none."""
    from snowflake.connector.errors import Error

    with contextlib.closing(warehouse.cursor()) as cursor:
        for statement in statements:
            try:
                cursor.execute(statement)
            except (ConfigError, RefusedError, Error) as error:
                return f"{statement}: {error}"
    return ""
