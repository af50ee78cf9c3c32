"""`make servers`: Kafka, SeaweedFS and, where it can be had, MinIO, until Ctrl-C.

Prints where they are and the settings that point the product at them. Their data go with them,
unless `--data` names a folder to keep.
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.servers.cache import UnavailableError
from tests.servers.kafka import start_kafka
from tests.servers.s3 import S3Server, start_minio, start_seaweedfs

BUCKET = "tickhouse"
STORES: dict[str, Callable[[Path], S3Server]] = {
    "SeaweedFS": start_seaweedfs,
    "MinIO": start_minio,
}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that goes with the servers."""
    with tempfile.TemporaryDirectory(prefix="tickhouse-servers-") as folder:
        yield Path(folder)


def has_bucket(store: S3Server) -> bool:
    """Whether a kept folder brought its bucket along."""
    return BUCKET in [found["Name"] for found in store.client().list_buckets()["Buckets"]]


def start_all(folder: Path, running: contextlib.ExitStack) -> dict[str, str]:
    """Start what this machine can have; where each of them is.

    Raises:
        UnavailableError: there can be no Kafka.
    """
    kafka = start_kafka(folder / "kafka")
    running.callback(kafka.stop)
    found = {"Kafka": f"kafka://{kafka.bootstrap}"}
    credentials: dict[str, str] = {}
    for name, start in STORES.items():
        try:
            store = start(folder / name.lower())
        except UnavailableError as error:
            say(f"# {name}: {error}")
            continue
        running.callback(store.stop)
        if not has_bucket(store):
            store.make_bucket(BUCKET)
        found[name] = store.url(BUCKET)
        credentials = store.credentials
    return found | credentials


def describe(found: dict[str, str]) -> list[str]:
    """Addresses as comments, settings as lines for a shell."""
    stores = {name: found[name] for name in STORES if name in found}
    lines = [f"# {name:<10} {found[name]}" for name in ("Kafka", *stores)]
    lines += [f"export {name}={found[name]}" for name in sorted(found) if name.startswith("AWS_")]
    lines.append(f"export TICKHOUSE_LOG={shlex.quote(found['Kafka'])}")
    for number, (name, url) in enumerate(stores.items()):
        comment = f"# or {name}: " if number else ""
        lines.append(f"{comment}export TICKHOUSE_LAKE={shlex.quote(url)}")
    return [*lines, "# then: tickhouse init && tickhouse up      Ctrl-C here stops the servers"]


def say(line: str) -> None:
    """A line on standard output, at once."""
    print(line, flush=True)  # noqa: T201


def main() -> int:
    """Start them, tell of them, wait, stop them."""
    parser = argparse.ArgumentParser(prog="tests.servers", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder for their data, which stays")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    kept = contextlib.nullcontext(options.data) if options.data else temporary_folder()
    with kept as folder, contextlib.ExitStack() as running:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = start_all(folder.absolute(), running)
        except UnavailableError as error:
            say(f"# Kafka: {error}")
            return 1
        for line in describe(found):
            say(line)
        stop.wait()
        sys.stderr.write(f"stopping{os.linesep}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
