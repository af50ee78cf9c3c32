"""The spool against the lake's objects, in plain Python: nothing of the product reads them here.

Every frame the spool acknowledged must lie in the lake once, byte for byte and in order. A topic
that was made anew is sent again what the spool still holds: such repeats, of one life of the topic
in the next, are counted by themselves.
"""

import base64
import contextlib
import gzip
import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

import msgspec

from proofs.soak.servers import LAKE, Bucket, ObjectManifest, manifest_of

LINE: Final = re.compile(
    rb'^\{"t":"(?P<t>[^"]+)","p":(?P<p>\d+),"o":(?P<o>\d+),"lt":-?\d+,(?P<rest>.*)\}$', re.DOTALL
)
POISON: Final = re.compile(rb'^"poison_b64":"(?P<b64>[^"]*)"$')
KEY: Final = re.compile(
    rf"^{LAKE}/bronze/v1/(?P<stream>[a-z]+)/(?P<topic>[^~/]+)~(?P<id>[^/]+)/p=(?P<part>\d+)/"
    r"(?P<start>\d{20})\.jsonl\.gz$"
)
PROBLEMS_MAX: Final = 20

Place = tuple[str, int]


class Verdict(msgspec.Struct):
    """What was found.

    Attributes:
        frames: acknowledged in the spool.
        lines, objects, chains: in the lake.
        lost: frames of the spool that no line holds.
        duplicated: lines beyond the first of the same frame in one life of a topic.
        repeated: frames that more than one life of a topic holds, once for each further one.
        corrupt: lines that hold what no frame of the spool is, and lines or objects not readable.
        reordered: frames that lie before one that the spool has before them.
        breaks: places where a chain does not go on where the object before ended, or where an
            object does not hold what its manifest says.
        problems: the first ones, in words.
    """

    frames: int = 0
    lines: int = 0
    objects: int = 0
    chains: int = 0
    lost: int = 0
    duplicated: int = 0
    repeated: int = 0
    corrupt: int = 0
    reordered: int = 0
    breaks: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not (self.lost or self.duplicated or self.corrupt or self.reordered or self.breaks)

    def find(self, problem: str) -> None:
        """Keep a problem, if there is room."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


def compare(spool: Path, bucket: Bucket) -> Verdict:
    """Everything the spool's file holds against every object of the lake."""
    verdict = Verdict()
    acknowledged = {place: _digests(frames) for place, frames in _spool_frames(spool)}
    landed = _landed(bucket, verdict)
    for place in sorted({*acknowledged, *landed}):
        _compare_place(place, acknowledged.get(place, []), landed.get(place, []), verdict)
    return verdict


def _digests(values: Sequence[bytes]) -> list[bytes]:
    return [hashlib.blake2b(value, digest_size=16).digest() for value in values]


def _spool_frames(path: Path) -> Iterator[tuple[Place, list[bytes]]]:
    """Frames of each partition as the file holds them, in order."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "select stream, part, base, n, body from batches order by stream, part, base"
        )
        for place, batches in groupby(rows, key=lambda row: (row[0], row[1])):
            frames: list[bytes] = []
            for _, _, base, n, body in batches:
                values = msgspec.msgpack.decode(body, type=list[bytes])
                if base != len(frames) or n != len(values):
                    raise ValueError(f"spool {place}: batch {base} follows {len(frames)} frames")
                frames += values
            yield place, frames


def _landed(bucket: Bucket, verdict: Verdict) -> dict[Place, list[list[bytes]]]:
    """Digests of what each partition's lines hold, one list for each life of its topic."""
    chains: dict[tuple[str, str, int], list[str]] = {}
    for key in bucket.keys(f"{LAKE}/bronze/v1/"):
        found = KEY.match(key)
        if found is not None:
            chain = (found["stream"], found["id"], int(found["part"]))
            chains.setdefault(chain, []).append(key)
        elif not key.endswith("/GENESIS"):
            verdict.corrupt += 1
            verdict.find(f"{key}: nobody knows what this is")
    lives: dict[Place, list[list[bytes]]] = {}
    for (stream, topic_id, part), keys in chains.items():
        digests = _read_chain(topic_id, keys, bucket, verdict)
        lives.setdefault((stream, part), []).append(digests)
    verdict.chains = len(chains)
    return lives


def _read_chain(
    topic_id: str, keys: Sequence[str], bucket: Bucket, verdict: Verdict
) -> list[bytes]:
    """Digests of the frames that a chain's lines hold."""
    position, digests = 0, list[bytes]()
    for key in sorted(keys):
        body = bucket.get(key)
        verdict.objects += 1
        try:
            manifest = manifest_of(body)
            lines = gzip.decompress(body).splitlines(keepends=True)
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as error:
            verdict.corrupt += 1
            verdict.find(f"{key}: {error}")
            continue
        _check_object(key, manifest, position, len(lines), verdict)
        position = manifest.next
        digests += _digests([_frame(key, topic_id, manifest, line, verdict) for line in lines])
    return digests


def _check_object(
    key: str, manifest: ObjectManifest, position: int, lines: int, verdict: Verdict
) -> None:
    wrong = ""
    if manifest.start != position or not key.endswith(f"{manifest.start:020d}.jsonl.gz"):
        wrong = f"starts at {manifest.start}, where the chain is at {position}"
    elif manifest.n != lines or manifest.next <= manifest.start:
        wrong = f"says {manifest.n} records up to {manifest.next} and holds {lines}"
    elif manifest.gap:
        wrong = f"is a gap up to {manifest.next}"
    if wrong:
        verdict.breaks += 1
        verdict.find(f"{key} {wrong}")


def _frame(
    key: str, topic_id: str, manifest: ObjectManifest, line: bytes, verdict: Verdict
) -> bytes:
    """The frame in a line: what is left without the position."""
    verdict.lines += 1
    found = LINE.match(line.removesuffix(b"\n"))
    is_placed = found is not None and (
        topic_id.startswith(found["t"].decode())
        and int(found["p"]) == manifest.part
        and manifest.start <= int(found["o"]) < manifest.next
    )
    if found is None or not is_placed:
        verdict.breaks += 1
        verdict.find(f"{key}: {line[:120]!r} has no place there")
        return line
    poison = POISON.match(found["rest"])
    return base64.b64decode(poison["b64"]) if poison else b"{%b}" % found["rest"]


def _compare_place(
    place: Place, expected: Sequence[bytes], lives: Sequence[Sequence[bytes]], verdict: Verdict
) -> None:
    order = {digest: number for number, digest in enumerate(expected)}
    held = Counter(digest for life in lives for digest in set(life) if digest in order)
    lost = sorted(number for digest, number in order.items() if digest not in held)
    foreign = sum(digest not in order for life in lives for digest in life)
    doubled = sum(len(life) - len(set(life)) for life in lives)
    reordered = sum(_steps_back(life, order) for life in lives)
    verdict.frames += len(expected)
    verdict.lost += len(lost)
    verdict.duplicated += doubled
    verdict.repeated += held.total() - len(held)
    verdict.corrupt += foreign
    verdict.reordered += reordered
    if lost or doubled or foreign or reordered:
        span = f" (of spool offsets {lost[0]} to {lost[-1]})" if lost else ""
        verdict.find(
            f"{place}: {len(lost)} lost{span}, {doubled} doubled, {foreign} foreign,"
            f" {reordered} out of order"
        )


def _steps_back(life: Sequence[bytes], order: Mapping[bytes, int]) -> int:
    """How often a frame follows one that the spool has behind it."""
    numbers = [order[digest] for digest in dict.fromkeys(life) if digest in order]
    return sum(after < before for before, after in pairwise(numbers))
