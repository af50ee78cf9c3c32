"""Replay: recorded messages in their order and at their pace, untouched, none dropped."""

import asyncio
import gzip
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fake_time import FakeTime
from tickhouse.errors import ConfigError
from tickhouse.source.address import open_feed
from tickhouse.source.feed import Arrivals
from tickhouse.source.replay import BLOCK_MESSAGES, Replay, recording_of_files

DATA = Path(__file__).parents[1] / "data"
BINANCE = DATA / "binance_ws_2024"
START_NS = 1_700_000_000_000_000_000


async def drain(feed: Replay, cursor: int = 0) -> list[Arrivals]:
    return [item async for item in feed.connect(0, cursor)]


def payloads_of(feed: Replay, cursor: int = 0) -> list[bytes]:
    return [p for item in asyncio.run(drain(feed, cursor)) for p in item.payloads]


def replay(url: str) -> Replay:
    feed = open_feed(url)
    assert isinstance(feed, Replay)
    return feed


def timed_line(offset_ms: int, text: str = "") -> bytes:
    return b'%d {"stream":"%d%b"}' % (
        START_NS + offset_ms * 1_000_000,
        offset_ms,
        text.encode(),
    )


def write_timed(path: Path, offsets_ms: Sequence[int], text: str = "") -> Path:
    path.write_bytes(b"".join(timed_line(offset, text) + b"\n" for offset in offsets_ms))
    return path


def fake_replay(
    path: Path, time: FakeTime, *, speed: float | None = None, rate: int | None = None
) -> Replay:
    return Replay(
        recording_of_files(str(path)),
        speed=speed,
        rate=rate,
        clock=time.monotonic,
        clock_ns=time.ns,
        sleep=time.sleep,
    )


# -- the recorded excerpts --------------------------------------------------------------------


def test_the_binance_capture_is_whole_and_its_ids_are_gapless() -> None:
    feed = replay(f"replay:{BINANCE}?speed=max")
    ids: dict[str, list[int]] = {}
    for payload in payloads_of(feed):
        message = json.loads(payload)
        ids.setdefault(message["stream"], []).append(message["data"]["t"])

    assert feed.source == "replay:binance.ws"
    assert ids["btcusdt@trade"] == list(range(3735683259, 3735703162 + 1))
    assert ids["ethusdt@trade"] == list(range(1520538925, 1520553439 + 1))
    assert sum(map(len, ids.values())) == 34_419


def test_payloads_are_the_recorded_bytes_in_the_order_of_receipt() -> None:
    recorded: list[tuple[int, bytes]] = []
    for file in sorted(BINANCE.glob("*.gz")):
        for line in gzip.decompress(file.read_bytes()).splitlines():
            at, _, payload = line.partition(b" ")
            recorded.append((int(at), payload))
    recorded.sort(key=lambda message: message[0])

    assert payloads_of(replay(f"replay:{BINANCE}?speed=max")) == [p for _, p in recorded]


def test_messages_that_hold_no_trade_pass_through() -> None:
    file = next((DATA / "binance_ws_head").glob("*.gz"))
    lines = gzip.decompress(file.read_bytes()).splitlines()
    payloads = payloads_of(replay(f"replay:{file}?speed=max"))

    assert payloads == [line.partition(b" ")[2] for line in lines]
    assert [number for number, p in enumerate(payloads) if b'"lastUpdateId"' in p] == [7]
    assert sum(b"@depth@" in p[:60] for p in payloads) == 10
    assert sum(b"@bookTicker" in p for p in payloads) == 233


def test_the_finnhub_samples_are_delivered_line_by_line_at_once() -> None:
    feed = replay(f"replay:{DATA / 'finnhub'}")
    lines = [
        line
        for file in sorted((DATA / "finnhub").glob("*.jsonl"))
        for line in file.read_bytes().splitlines()
    ]

    assert feed.source == "replay:finnhub.ws"
    assert payloads_of(feed) == lines


# -- order and merging ------------------------------------------------------------------------


def test_files_are_merged_by_recorded_time_and_ties_keep_the_order_of_files(tmp_path: Path) -> None:
    write_timed(tmp_path / "b.txt", [1, 3, 3, 9], "b")
    write_timed(tmp_path / "a.txt", [2, 3, 8], "a")
    feed = replay(f"replay:{tmp_path}?speed=max")

    names = [json.loads(payload)["stream"] for payload in payloads_of(feed)]
    assert names == ["1b", "2a", "3a", "3b", "3b", "8a", "9b"]


def test_paths_may_be_lists_patterns_and_hold_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    one = write_timed(folder / "1.txt", [1])
    write_timed(folder / "2 x.txt", [2])
    write_timed(folder / "3 x.txt", [3])

    listed = replay(f"replay:{one}, {folder}/? x.txt?speed=max")
    assert [json.loads(payload)["stream"] for payload in payloads_of(listed)] == ["1", "2", "3"]
    assert len(payloads_of(replay(f"replay://{folder}?speed=max"))) == 3


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    files=st.lists(st.lists(st.integers(0, 50), max_size=30), min_size=1, max_size=4),
    cursor=st.integers(0, 130),
)
def test_a_restart_at_any_cursor_goes_on_exactly_there(
    tmp_path: Path, files: list[list[int]], cursor: int
) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    for number, offsets in enumerate(files):
        write_timed(tmp_path / f"{number}.txt", offsets, f" {number}")
    feed = replay(f"replay:{tmp_path}?kind=binance.ws")
    whole = payloads_of(feed)

    assert len(whole) == sum(map(len, files))
    assert payloads_of(feed, cursor) == whole[cursor:]


def test_a_restart_in_the_binance_capture_goes_on_exactly_there() -> None:
    feed = replay(f"replay:{BINANCE}?speed=max")
    whole = payloads_of(feed)
    chance = random.Random(4)
    for cursor in (0, 1, 999, 1000, 34_418, 34_419, 40_000, chance.randrange(34_000)):
        assert payloads_of(feed, cursor) == whole[cursor:]


def test_other_files_under_the_same_path_are_another_feed(tmp_path: Path) -> None:
    """A cursor into other files than it was taken from would skip messages or repeat them."""
    file = write_timed(tmp_path / "b.txt", [1])
    address = replay(f"replay:{tmp_path}").url
    again = replay(f"replay:{tmp_path}?speed=max").url
    write_timed(tmp_path / "a.txt", [0])
    more = replay(f"replay:{tmp_path}").url
    (tmp_path / "a.txt").unlink()
    write_timed(file, [1, 2])
    longer = replay(f"replay:{tmp_path}").url

    assert address == again
    assert len({address, more, longer}) == 3
    assert address.startswith(f"replay:{tmp_path}#")


# -- pace -------------------------------------------------------------------------------------


def test_messages_come_at_the_recorded_pace_times_the_speed(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.txt", [0, 100, 5000, 5001, 20_000])
    for speed in (1.0, 10.0):
        time = FakeTime()
        taken = asyncio.run(drain(fake_replay(path, time, speed=speed)))
        late = [
            (item.received_at_ns - START_NS) / 1e6 - int(json.loads(p)["stream"]) / speed
            for item in taken
            for p in item.payloads
        ]

        assert all(-0.001 <= each <= 20.1 for each in late)
        assert len(late) == 5
        assert time.elapsed_s == pytest.approx(20 / speed, abs=0.03)


def test_a_restart_does_not_wait_for_what_is_behind_it(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.txt", [0, 3_600_000, 3_600_500])
    time = FakeTime()
    asyncio.run(drain(fake_replay(path, time, speed=1.0), 1))

    assert time.elapsed_s == pytest.approx(0.5, abs=0.03)


def test_at_the_highest_speed_nothing_waits_and_blocks_are_bounded(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.txt", [n * 1000 for n in range(2 * BLOCK_MESSAGES + 5)])
    time = FakeTime()
    taken = asyncio.run(drain(fake_replay(path, time)))

    assert [len(item.payloads) for item in taken] == [BLOCK_MESSAGES, BLOCK_MESSAGES, 5]
    assert time.elapsed_s == 0
    assert 0 in time.sleeps


def test_a_rate_replaces_the_recorded_pace(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"type":"ping"}\n' * 501)
    time = FakeTime()
    taken = asyncio.run(drain(fake_replay(path, time, rate=100)))

    assert sum(len(item.payloads) for item in taken) == 501
    assert time.elapsed_s == pytest.approx(5.0, abs=0.05)


def test_the_receipt_is_that_of_the_replay(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.txt", [0])
    time = FakeTime(start_s=1_900_000_000)
    [item] = asyncio.run(drain(fake_replay(path, time)))

    assert item.received_at_ns == 1_900_000_000_000_000_000
    assert str(START_NS).encode() not in item.payloads[0]


# -- bad input --------------------------------------------------------------------------------


def test_a_broken_line_is_delivered_as_it_is(tmp_path: Path) -> None:
    lines = [
        timed_line(1),
        b"",
        b"no time",
        b"\xff\xfe not text",
        b'{"torn":',
        b"12 {}",
        timed_line(2) + b"\r",
        b"  spaces  ",
        b"last line without an end",
    ]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    payloads = payloads_of(replay(f"replay:{tmp_path}/a.txt?speed=max"))

    assert payloads == [b'{"stream":"1"}', *lines[1:6], b'{"stream":"2"}', *lines[7:]]


def test_only_the_end_of_the_line_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"type":"ping"} \r\r\n\t{"type":"ping"}\t\n')

    assert payloads_of(replay(f"replay:{tmp_path}")) == [
        b'{"type":"ping"} \r',
        b'\t{"type":"ping"}\t',
    ]


def compressed(count: int) -> tuple[list[bytes], bytes]:
    chance = random.Random(1)
    lines = [timed_line(n, f" {chance.random()}") for n in range(count)]
    return lines, gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0)


async def drain_until_broken(feed: Replay) -> tuple[list[bytes], str]:
    payloads: list[bytes] = []
    try:
        async for item in feed.connect(0, 0):
            payloads += item.payloads
    except ConfigError as error:
        return payloads, str(error)
    pytest.fail("the broken file was taken for a whole one")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_of_a_truncated_file_what_can_be_read_is_delivered_then_file_and_place_are_named(
    tmp_path: Path, share: float
) -> None:
    lines, body = compressed(5000)
    file = tmp_path / "cut.gz"
    file.write_bytes(body[: int(len(body) * share)])
    payloads, message = asyncio.run(drain_until_broken(replay(f"replay:{file}?speed=max")))

    assert payloads == [line.partition(b" ")[2] for line in lines[: len(payloads)]]
    assert len(payloads) > 5000 * share - 1500
    place = re.search(r"cut\.gz is broken after line (\d+) \(byte (\d+)", message)
    assert place is not None
    assert int(place[1]) == len(payloads)
    assert int(place[2]) == sum(len(line) + 1 for line in lines[: len(payloads)])


def test_a_corrupt_file_among_others_is_named_after_what_came_before(tmp_path: Path) -> None:
    lines, body = compressed(5000)
    (tmp_path / "bad.gz").write_bytes(body[: len(body) // 2] + b"\xff" * 200)
    write_timed(tmp_path / "good.txt", [0, 1, 4999])
    payloads, message = asyncio.run(drain_until_broken(replay(f"replay:{tmp_path}?speed=max")))

    good = [b'{"stream":"0"}', b'{"stream":"1"}']
    bad = [p for p in payloads if p not in good]
    assert [p for p in payloads if p in good] == good
    assert bad == [line.partition(b" ")[2] for line in lines[: len(bad)]]
    assert "bad.gz is broken after line" in message
    assert "good.txt" not in message


def test_a_file_that_is_no_gzip_is_named_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "x.gz"
    file.write_bytes(b"plain text")

    with pytest.raises(ConfigError, match=r"x\.gz cannot be read"):
        replay(f"replay:{file}")


@pytest.mark.parametrize("path", ["", "nothing.gz", "no*thing", "empty", "a.txt,nothing.gz"])
def test_a_missing_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_timed(tmp_path / "a.txt", [1])
    missing = path.rsplit(",", maxsplit=1)[-1] or "no path"

    with pytest.raises(ConfigError) as error:
        replay(f"replay:{path}")

    assert f"replay: {missing}" in str(error.value)


def test_the_kind_is_told_by_the_first_lines_that_say_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b'\xff\n{"lastUpdateId":5}\n[]\n' + timed_line(1) + b"\n")
    assert replay(f"replay:{file}").source == "replay:binance.ws"

    file.write_bytes(b'nothing\n"known"\n')
    with pytest.raises(ConfigError, match=r"a\.txt.*kind=binance\.ws or kind=finnhub\.ws"):
        replay(f"replay:{file}")
    assert replay(f"replay:{file}?kind=finnhub.ws").source == "replay:finnhub.ws"


def test_messages_of_different_kinds_are_not_replayed_as_one_feed(tmp_path: Path) -> None:
    write_timed(tmp_path / "a.txt", [1])
    (tmp_path / "b.jsonl").write_bytes(b'{"type":"ping"}\n')

    with pytest.raises(ConfigError, match=r"a\.txt \(binance\.ws\).*b\.jsonl \(finnhub\.ws\)"):
        replay(f"replay:{tmp_path}")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("speed=fast", ["speed", "'fast'", "a number above 0, or max"]),
        ("speed=0", ["speed", "'0'"]),
        ("speed=-1", ["speed", "'-1'"]),
        ("speed=inf", ["speed", "'inf'"]),
        ("speed=nan", ["speed", "'nan'"]),
        ("rate=0", ["rate", "'0'", "1 to 10000000"]),
        ("rate=5&speed=2", ["rate", "speed", "one of them"]),
        ("kind=iex", ["kind", "'iex'", "binance.ws or finnhub.ws"]),
        ("sped=2", ["sped", "speed, rate, kind"]),
    ],
)
def test_a_bad_replay_parameter_is_named_with_what_is_valid(
    tmp_path: Path, query: str, words: list[str]
) -> None:
    file = write_timed(tmp_path / "a.txt", [1])
    with pytest.raises(ConfigError) as error:
        open_feed(f"replay:{file}?{query}")

    assert [word for word in words if word not in str(error.value)] == []
