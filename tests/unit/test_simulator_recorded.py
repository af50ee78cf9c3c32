"""Feeds that resume, through the recorder and its kills: each message once, the truth agrees."""

import asyncio
from pathlib import Path

import pytest

from support.processes import run_killed
from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.source.simulator import Simulator
from tickhouse.source.truth import read_truth, recompute
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.session import find_resume_point
from tickhouse.stream.sqlite import SqliteLog

FRAMES = 12_000
SIMULATED = f"sim://sp500?symbols=20&shards=2&rate=max&frames={FRAMES}&date=2026-03-02"
REPLAYED = f"replay:{Path(__file__).parents[1] / 'data' / 'binance_ws_2024'}?speed=max"


def record(url: str, folder: str) -> None:
    """Record a feed until it is drained; a small buffer makes it wait for many commits."""
    data = Path(folder)
    log = SqliteLog(data / "log.db")
    feed = open_feed(url, FeedOptions(truth_path=data / "truth.json"))
    try:
        recorder = Recorder(feed, log, commit_bytes=100_000, buffer_bytes=100_000)
        asyncio.run(recorder.run(asyncio.Event()))
    finally:
        log.close()


def recorded(data: Path, shard: int) -> list[Envelope]:
    log = SqliteLog(data / "log.db")
    found: list[Envelope] = []
    position = 0
    while (batch := log.read(TopicPartition(Stream.TRADES, shard), position)) is not None:
        found += [envelope for value in batch.values if (envelope := decode_envelope(value))]
        position = batch.next
    log.close()
    return found


def durable_cursor(data: Path, shard: int, url: str) -> int:
    log = SqliteLog(data / "log.db")
    cursor = find_resume_point(log, shard, open_feed(url).url).cursor
    log.close()
    return cursor


@pytest.mark.parametrize("point", ["record.append.before", "record.append.after"])
def test_a_killed_simulation_resumes_at_the_last_durable_frame_and_its_truth_agrees(
    tmp_path: Path, point: str
) -> None:
    for strike in (2, 3):
        run_killed(record, SIMULATED, str(tmp_path), failpoints=f"{point}=kill:{strike}")
    url = open_feed(SIMULATED).url
    cursors = {shard: durable_cursor(tmp_path, shard, SIMULATED) for shard in (0, 1)}
    witness = read_truth(tmp_path / "truth.json").feeds[url]

    assert 0 < sum(cursors.values()) < 2 * FRAMES
    assert all(witness.acknowledged[shard] <= cursors[shard] for shard in (0, 1))
    assert witness == recompute(url, witness.acknowledged)

    record(SIMULATED, str(tmp_path))

    feed = open_feed(SIMULATED)
    assert isinstance(feed, Simulator)
    for shard in (0, 1):
        envelopes = recorded(tmp_path, shard)
        assert [bytes(each.raw) for each in envelopes] == feed.frames(shard, 0, FRAMES)
        assert len({each.ses for each in envelopes}) == 3
        assert {each.src for each in envelopes} == {"sim:finnhub.ws"}
    assert read_truth(tmp_path / "truth.json").feeds[url] == recompute(url, {0: FRAMES, 1: FRAMES})


@pytest.mark.parametrize("point", ["record.truth.before", "record.truth.after"])
def test_a_kill_beside_the_ledgers_write_leaves_a_whole_ledger(tmp_path: Path, point: str) -> None:
    url = open_feed(SIMULATED).url
    run_killed(record, SIMULATED, str(tmp_path), failpoints=f"{point}=kill:1")
    assert (tmp_path / "truth.json").exists() == point.endswith("after")

    record(SIMULATED, str(tmp_path))

    assert read_truth(tmp_path / "truth.json").feeds[url] == recompute(url, {0: FRAMES, 1: FRAMES})


def test_a_killed_replay_resumes_after_the_last_durable_message(tmp_path: Path) -> None:
    for strike in (3, 8):
        run_killed(record, REPLAYED, str(tmp_path), failpoints=f"record.append.after=kill:{strike}")
    assert 0 < durable_cursor(tmp_path, 0, REPLAYED) < 34_419
    record(REPLAYED, str(tmp_path))

    async def whole() -> list[bytes]:
        return [p async for item in open_feed(REPLAYED).connect(0, 0) for p in item.payloads]

    envelopes = recorded(tmp_path, 0)
    assert [bytes(each.raw) for each in envelopes] == asyncio.run(whole())
    assert len({each.ses for each in envelopes}) == 3
