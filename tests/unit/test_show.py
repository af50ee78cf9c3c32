"""`show`: any record of log or lake, found without reading the rest, harmless on a terminal."""

import json
from pathlib import Path

import msgspec
import pytest

from support.lake_builder import Lake, chain_id
from support.recorded_lake import (
    RECEIVED_NS,
    SECOND_NS,
    count_inflated,
    frames_at,
    message,
    put,
)
from tickhouse.cli import build_parser, with_replay_range
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, Opened, SessionEvent
from tickhouse.runtime.result import VerbResult
from tickhouse.runtime.show import show
from tickhouse.settings import Settings
from tickhouse.stream.log import Append
from tickhouse.stream.sqlite import SqliteLog

RECORDS = 100
HOSTILE = [b"two\nlines\r\x1b[31mred", "\u202e \u2028 \x9b2J".encode(), b"\xff\xfe", b"{}"]


def session_id(number: int) -> str:
    """As a session gets it that begins a second after the one before."""
    millis = (RECEIVED_NS + number * SECOND_NS) // 1_000_000
    digits = f"{millis:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-{number:012d}"


def shown(folder: Path, *arguments: str) -> VerbResult:
    parsed = build_parser().parse_args(["show", *arguments])
    return show(Settings(data=folder), parsed)


def offsets(result: VerbResult) -> list[int]:
    return [frame["offset"] for frame in result.content["frames"]]


def write_log(folder: Path, values: list[bytes]) -> None:
    log = SqliteLog(folder / "log" / "log.db")
    log.append([Append(TopicPartition(Stream.TRADES, 0), values)])
    log.close()


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The same records in log and lake: a hundred, ten an object, one a millisecond."""
    values = frames_at([message(n) for n in range(RECORDS)], every_ns=1_000_000)
    write_log(tmp_path, values)
    for start in range(0, RECORDS, 10):
        put(tmp_path / "lake", values[start : start + 10], start=start)
    return tmp_path


@pytest.fixture
def inflated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return count_inflated(monkeypatch)


@pytest.mark.parametrize("place", ["log", "lake"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--at", "42"], [42]),
        (["--from-offset", "98"], [98, 99]),
        (["--from-offset", "3", "--limit", "2"], [3, 4]),
        (["--to-offset", "1"], [0, 1]),
        (["--limit", "2"], [98, 99]),
        (["--seq", "7"], [7]),
        (["--from", "2026-03-02T14:30:00.097Z"], [97, 98, 99]),
        (["--to", "2026-03-02T14:30:00.001Z"], [0, 1]),
        (["--session", "s1", "--seq", "50"], [50]),
        (["--session", "other"], []),
        (["--at", "100"], []),
        (["--part", "1"], []),
    ],
)
def test_records_are_found_by_position_number_and_time(
    recorded: Path, place: str, arguments: list[str], expected: list[int]
) -> None:
    result = shown(recorded, place, *arguments)

    assert offsets(result) == expected
    assert result.code == (0 if expected else 1)


@pytest.mark.parametrize("place", ["log", "lake"])
def test_where_nothing_is_found_it_says_what_is_there(recorded: Path, place: str) -> None:
    assert "0..99" in shown(recorded, place, "--at", "4711").text


def test_an_empty_place_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()

    assert "there: nothing" in shown(tmp_path, "log").text
    assert "there: nothing" in shown(tmp_path, "lake").text


@pytest.mark.parametrize("place", ["log", "lake"])
def test_what_a_feed_sent_leaves_the_terminal_alone(tmp_path: Path, place: str) -> None:
    values = [*frames_at(HOSTILE, symbol="A\x1b[2J"), b"poison\x1b[2J\n"]
    write_log(tmp_path, values)
    put(tmp_path / "lake", values)
    result = shown(tmp_path, place, "--full")
    lines = result.text.split("\n")

    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert "POISON" in lines[-1]
    assert r"two\nlines\r\x1b[31mred" in lines[0]


@pytest.mark.parametrize("place", ["log", "lake"])
def test_as_json_every_payload_is_exact(tmp_path: Path, place: str) -> None:
    values = [*frames_at(HOSTILE), b"poison"]
    write_log(tmp_path, values)
    put(tmp_path / "lake", values)
    frames = json.loads(msgspec.json.encode(shown(tmp_path, place).content))["frames"]

    assert [frame.get("payload") for frame in frames[:2]] == [p.decode() for p in HOSTILE[:2]]
    assert frames[2]["payload_b64"] == "//4="
    assert frames[3]["payload"] == {}
    assert frames[4]["poison"] == "cG9pc29u"


@pytest.mark.parametrize("received_at_ns", [-1, 10**28, 2**63])
def test_a_receipt_beyond_any_calendar_is_shown_as_it_is(
    tmp_path: Path, received_at_ns: int
) -> None:
    write_log(tmp_path, frames_at([b"{}"], received_at_ns=received_at_ns))
    result = shown(tmp_path, "log")

    assert len(result.text.splitlines()) == 1
    assert result.content["frames"][0]["received_at_ns"] == received_at_ns


def put_event(lake: Path, event: SessionEvent, session: str, offset: int) -> None:
    chain = chain_id(stream=Stream.SESSIONS)
    payload = msgspec.json.encode(event)
    values = frames_at([payload], session=session, received_at_ns=event.at, source="tickhouse")
    put(lake, values, chain=chain, start=offset)


def test_a_session_is_found_by_its_events_without_reading_the_lake(
    tmp_path: Path, inflated: list[str]
) -> None:
    lake = tmp_path / "lake"
    for n in range(20):
        at, name = RECEIVED_NS + n * 10 * SECOND_NS, session_id(n * 10)
        opened = Opened(at, 0, "list:", "live", None, None)
        put_event(lake, opened, name, 2 * n)
        put(lake, frames_at([message(n)] * 5, session=name, received_at_ns=at + 1), start=5 * n)
        put_event(lake, Closed(at + 9 * SECOND_NS, "stopped", {"trades": 5}), name, 2 * n + 1)
    result = shown(tmp_path, "lake", "--session", session_id(70))

    assert offsets(result) == [*range(35, 40)]
    assert [key for key in inflated if "/trades/" in key] == [chain_id().key(35)]


def test_a_session_without_events_is_found_from_its_time_on(
    tmp_path: Path, inflated: list[str]
) -> None:
    keys: list[str] = []
    for n in range(20):
        at = RECEIVED_NS + n * 10 * SECOND_NS
        values = frames_at([message(n)], session=session_id(n * 10), received_at_ns=at)
        keys.append(put(tmp_path / "lake", values, start=n))
    result = shown(tmp_path, "lake", "--session", session_id(70), "--seq", "0")

    assert offsets(result) == [7]
    assert inflated == [keys[7]]


def test_a_damaged_object_elsewhere_is_not_in_the_way(recorded: Path) -> None:
    lake = Lake(recorded / "lake")
    lake.overwrite(chain_id().key(20), b"damaged")

    assert offsets(shown(recorded, "lake", "--at", "42")) == [42]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("replay:day?.jsonl", "replay:day?.jsonl?speed=2"),
        ("replay:a.jsonl?from=2026-03-02", "replay:a.jsonl?from=2026-03-02&speed=2"),
        ("replay:lake", "replay:lake?speed=2"),
    ],
)
def test_flags_join_an_address_with_or_without_parameters(source: str, expected: str) -> None:
    arguments = build_parser().parse_args(["record", "--speed", "2"])

    assert with_replay_range(Settings(source=source), arguments).source == expected
