"""What `doctor` asks the log, the spool and the lake."""

import shutil
from typing import Final

from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream
from tickhouse.model.units import MILLIS_PER_HOUR
from tickhouse.runtime import backends
from tickhouse.settings import Settings

SPOOL_BYTES_MIN: Final = 1 << 30


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
