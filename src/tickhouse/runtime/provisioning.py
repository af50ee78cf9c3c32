"""The verb `init`: what must be there before the first record, made once."""

import argparse
from pathlib import Path
from typing import Any

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.model.units import MILLIS_PER_HOUR
from tickhouse.runtime import backends
from tickhouse.runtime.result import EXIT_OK, VerbResult
from tickhouse.settings import Settings

Documents = dict[str, dict[str, Any]]


def init(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Topics and bucket, nothing twice; says what was done."""
    log = _init_log(settings, arguments)
    lake, documents = _init_lake(settings)
    written = [] if arguments.policies is None else _write(documents, arguments.policies)
    content = {"ok": True, "log": log, "lake": lake, "documents": documents, "written": written}
    lines = [*(f"log: {line}" for line in log), *(f"lake: {line}" for line in lake)]
    lines += [f"wrote {path}" for path in written] or _printed(documents)
    return VerbResult(EXIT_OK, content, "\n".join(lines))


def _init_log(settings: Settings, arguments: argparse.Namespace) -> list[str]:
    if not settings.is_log_kafka:
        return [f"{settings.log_url}: nothing to do, it is made when it is first used"]
    done = backends.open_topics(settings).ensure(
        partitions=arguments.partitions,
        replication=arguments.replication,
        retention_ms=round(arguments.retention_hours * MILLIS_PER_HOUR),
    )
    return done or [f"{settings.log_url}: the topics are there"]


def _init_lake(settings: Settings) -> tuple[list[str], Documents]:
    """What was done, and policies and a lifecycle rule for the owner of a bucket."""
    if not settings.lake_url.startswith("s3:"):
        return [f"{settings.lake_url}: nothing to do, it is made when it is first used"], {}
    bucket = backends.open_bucket(settings)
    if bucket.is_there():
        return [f"{settings.lake_url}: the bucket is there"], bucket.documents()
    bucket.create()
    return [f"{settings.lake_url}: created the bucket"], bucket.documents()


def _write(documents: Documents, folder: Path) -> list[str]:
    paths = [folder / f"{name}.json" for name in documents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, document in zip(paths, documents.values(), strict=True):
            path.write_bytes(_pretty(document) + b"\n")
    except OSError as error:
        raise ConfigError(f"--policies: {error}") from error
    return [str(path) for path in paths]


def _pretty(document: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _printed(documents: Documents) -> list[str]:
    parts = [f"\n{name}:\n{_pretty(document).decode()}" for name, document in documents.items()]
    intro = "For the owner of the bucket to apply (--policies FOLDER writes them as files):"
    return ["", intro, *parts] if parts else []
