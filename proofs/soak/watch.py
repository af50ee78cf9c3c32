"""How long it takes until the lake holds what the spool had acknowledged: seen from outside."""

import contextlib
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from proofs.soak.servers import LAKE, Bucket, manifest_of

EVERY_S: Final = 0.2
CHAINS_EVERY_S: Final = 2.0
HEAD_BYTES: Final = 4096

Places = dict[tuple[str, int], int]
"""Spool offset of each stream and partition: below it everything is meant."""


def spool_ends(path: Path) -> Places:
    """What the spool's file has acknowledged by now."""
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            rows = connection.execute("select stream, part, end_offset from ends").fetchall()
        except sqlite3.OperationalError:  # the file is there before its tables
            return {}
    return {(stream, part): end for stream, part, end in rows}


class Landed:
    """How far the lake is, in spool offsets: followed object by object, by their manifests.

    The relay carries a spool on in order and once, so the objects' records add up to the offset.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._last: dict[str, str] = {}
        self._listed_at = 0.0
        self.places: Places = {}
        self.objects = 0
        self.gaps = 0

    def look(self) -> None:
        """Follow what has been landed since."""
        if time.monotonic() - self._listed_at > CHAINS_EVERY_S:
            self._find_chains()
            self._listed_at = time.monotonic()
        for chain, last in self._last.items():
            for key in self._bucket.keys(chain, last):
                if key.endswith(".jsonl.gz"):  # GENESIS would sort behind all of them
                    self._add(chain, key)
                    self._last[chain] = key

    def _find_chains(self) -> None:
        folders = [f"{LAKE}/bronze/v1/"]
        for _ in range(3):
            folders = [below for folder in folders for below in self._bucket.folders(folder)]
        for chain in folders:
            self._last.setdefault(chain, "")

    def _add(self, chain: str, key: str) -> None:
        manifest = manifest_of(self._bucket.get(key, bytes_max=HEAD_BYTES))
        place = (chain.removeprefix(f"{LAKE}/bronze/v1/").split("/")[0], manifest.part)
        end = self.places.get(place, 0) + manifest.n
        if manifest.spool is not None:
            end = max(self.places.get(place, 0), int(manifest.spool["last"]) + 1)
        self.places[place] = end
        self.objects += 1
        self.gaps += manifest.gap

    def holds(self, wanted: Places) -> bool:
        """Whether everything below these offsets is there."""
        return all(self.places.get(place, 0) >= end for place, end in wanted.items())


class Recovery(msgspec.Struct):
    """One strike, and when the lake had everything acknowledged by then.

    Attributes:
        kind: of the strike.
        wanted: what was acknowledged.
        struck_at: monotonic seconds.
        seconds: how long it took, whatever struck meanwhile; None = not seen yet.
    """

    kind: str
    wanted: Places
    struck_at: float
    seconds: float | None = None


class Watch:
    """Follows the lake in a thread of its own.

    Args:
        bucket: read directly, not through the proxy.
        spool: the spool's file.
    """

    def __init__(self, bucket: Bucket, spool: Path) -> None:
        self._landed = Landed(bucket)
        self._spool = spool
        self._stopped = threading.Event()
        self.recoveries: list[Recovery] = []
        self.errors: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    @property
    def objects(self) -> int:
        """Objects seen so far."""
        return self._landed.objects

    @property
    def frames(self) -> int:
        """Frames acknowledged so far, session events included."""
        return sum(spool_ends(self._spool).values())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def expect(self, kind: str) -> Recovery:
        """From now, until all that is acknowledged by now is in the lake."""
        recovery = Recovery(kind, spool_ends(self._spool), time.monotonic())
        self.recoveries.append(recovery)
        return recovery

    def is_level(self) -> bool:
        """Whether the lake has everything acknowledged by now."""
        return self._landed.holds(spool_ends(self._spool))

    def behind(self) -> dict[str, int]:
        """Frames of each partition that the lake has not."""
        ends = spool_ends(self._spool)
        missing = {place: end - self._landed.places.get(place, 0) for place, end in ends.items()}
        return {f"{stream}[{part}]": n for (stream, part), n in missing.items() if n > 0}

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _follow(self) -> None:
        while not self._stopped.wait(EVERY_S):
            try:
                self._landed.look()
            except (ClientError, BotoCoreError, OSError) as error:
                self.errors[type(error).__name__] += 1
                continue
            now = time.monotonic()
            for recovery in self.recoveries:
                if recovery.seconds is None and self._landed.holds(recovery.wanted):
                    recovery.seconds = now - recovery.struck_at


def percentiles(seconds: list[float]) -> dict[str, float | int]:
    """p50, p99 and the largest, with how many there were."""
    ordered = sorted(seconds)
    if not ordered:
        return {"n": 0}
    return {
        "n": len(ordered),
        "p50": round(ordered[(len(ordered) - 1) // 2], 2),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
        "max": round(ordered[-1], 2),
    }
