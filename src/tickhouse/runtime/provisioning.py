"""The verb `init`: what must be there before the first record, made once."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.model.units import MILLIS_PER_HOUR
from tickhouse.runtime import backends
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.transform.positions import create_tables
from tickhouse.warehouse.snowflake_admin import admin_scripts

if TYPE_CHECKING:
    from tickhouse.warehouse.snowflake import SnowflakeWarehouse

Documents = dict[str, Any]
"""For an owner or administrator to apply: policies by name, scripts (text) by file name."""


class Made(msgspec.Struct, frozen=True):
    """What `init` did for one backend.

    Attributes:
        ok: whether all is there that tickhouse may make.
        lines: what was done, or was there.
        documents: what somebody with more rights has to apply.
    """

    ok: bool
    lines: list[str]
    documents: Documents = msgspec.field(default_factory=dict[str, Any])


def init(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Topics, bucket and tables, nothing twice; says what was done, and what is another's to do."""
    made = {
        "log": _init_log(settings, arguments),
        "lake": _init_lake(settings),
        "warehouse": _init_warehouse(settings),
    }
    ok = all(found.ok for found in made.values())
    documents = {name: text for found in made.values() for name, text in found.documents.items()}
    written = [] if arguments.policies is None else _write(documents, arguments.policies)
    content = {
        "ok": ok,
        **{backend: found.lines for backend, found in made.items()},
        "documents": documents,
        "written": written,
    }
    lines = [f"{backend}: {line}" for backend, found in made.items() for line in found.lines]
    lines += [f"wrote {path}" for path in written] or _printed(documents)
    return VerbResult(EXIT_OK if ok else EXIT_PROBLEM, content, "\n".join(lines))


def _init_log(settings: Settings, arguments: argparse.Namespace) -> Made:
    if not settings.is_log_kafka:
        return _nothing_to_do(settings.log_url)
    done = backends.open_topics(settings).ensure(
        partitions=arguments.partitions,
        replication=arguments.replication,
        retention_ms=round(arguments.retention_hours * MILLIS_PER_HOUR),
    )
    return Made(ok=True, lines=done or [f"{settings.log_url}: the topics are there"])


def _nothing_to_do(url: str) -> Made:
    return Made(ok=True, lines=[f"{url}: nothing to do, it is made when it is first used"])


def _init_lake(settings: Settings) -> Made:
    """The bucket; policies and a lifecycle rule are its owner's to apply."""
    if not settings.lake_url.startswith("s3:"):
        return _nothing_to_do(settings.lake_url)
    bucket = backends.open_bucket(settings)
    if bucket.is_there():
        return Made(True, [f"{settings.lake_url}: the bucket is there"], bucket.documents())
    bucket.create()
    return Made(True, [f"{settings.lake_url}: created the bucket"], bucket.documents())


def _init_warehouse(settings: Settings) -> Made:
    """Schemas, tables and stage; roles, compute and policies are an administrator's."""
    if not settings.is_warehouse_snowflake:
        return _nothing_to_do(settings.warehouse_url)
    options = backends.snowflake_options(settings)
    documents = admin_scripts(
        database=options.database, warehouse=options.warehouse, role=options.role
    )
    try:
        with contextlib.closing(backends.open_snowflake(settings)) as warehouse:
            warehouse.prepare()
            lines = [f"{options.url}: bronze and its stage are there", _init_meta(warehouse)]
    except ConfigError as error:
        return Made(False, [f"not made: {error}"], documents)
    return Made(True, lines, documents)


def _init_meta(warehouse: "SnowflakeWarehouse") -> str:
    """What builds need; a role that only loads leaves it to the one that builds."""
    with contextlib.closing(warehouse.cursor()) as cursor:
        try:
            create_tables(cursor)
        except ConfigError as error:
            return f"{warehouse.options.url}: meta is left to a role that builds: {error}"
    return f"{warehouse.options.url}: meta is there"


def _write(documents: Documents, folder: Path) -> list[str]:
    files = {folder / name: text for name, text in _files(documents).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
    except OSError as error:
        raise ConfigError(f"--policies: {error}") from error
    return [str(path) for path in files]


def _files(documents: Documents) -> dict[str, str]:
    """File names and texts: a policy is JSON."""
    return {
        name if isinstance(document, str) else f"{name}.json": _text(document)
        for name, document in documents.items()
    }


def _text(document: object) -> str:
    if isinstance(document, str):
        return document
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _printed(documents: Documents) -> list[str]:
    parts = [f"\n{name}:\n{text.rstrip()}" for name, text in _files(documents).items()]
    intro = "For an owner or administrator to apply (--policies FOLDER writes them as files):"
    return ["", intro, *parts] if parts else []
