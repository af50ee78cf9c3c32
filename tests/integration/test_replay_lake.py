"""Replaying a lake gives what was recorded; ranges and symbols cut it; `show` prints it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proofs.stages import Stages
from tickhouse.cli import build_parser, read_settings, with_replay_range
from tickhouse.errors import ConfigError
from tickhouse.runtime.backends import open_source
from tickhouse.runtime.result import VerbResult
from tickhouse.runtime.show import show
from tickhouse.settings import Settings
from tickhouse.source.address import open_feed
from tickhouse.source.cutting import cut
from tickhouse.source.feed import Feed

if TYPE_CHECKING:
    import argparse

SIMULATOR = "sim://sp500?symbols=4&shards=2&rate=max&seed=5&date=2026-03-02&frames=300"
TRADES = (
    "select symbol, event_at, price, trade_size, conditions, count(*) from silver.trades"
    " group by all order by all"
)
BARS = "select * exclude (revision, load_id) from gold.bars_1m order by symbol, bar_at"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    stages = Stages(tmp_path_factory.mktemp("original") / "data")
    stages.record(open_feed(SIMULATOR))
    stages.refine()
    yield stages
    stages.close()


def source_of(stages: Stages, query: str = "speed=max", *, own: bool = False) -> Feed:
    place = "lake" if own else f"file:///{stages.folder}/lake"
    return open_source(Settings(data=stages.folder, source=f"replay:{place}?{query}"))


def replayed(tmp_path: Path, feed: Feed) -> Stages:
    stages = Stages(tmp_path / "again")
    stages.record(feed)
    stages.refine()
    return stages


def rows(stages: Stages, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in stages.warehouse.query(sql)]


def test_a_replayed_lake_gives_the_same_trades_and_bars(tmp_path: Path, original: Stages) -> None:
    again = replayed(tmp_path, source_of(original))
    found = rows(again, TRADES), rows(again, BARS)
    sources = rows(again, "select distinct source from silver.trades")
    modes = rows(again, "select distinct mode from silver.sessions")
    report = again.audit()
    again.close()

    assert found == (rows(original, TRADES), rows(original, BARS))
    assert sources == [("replay:finnhub.ws",)]
    assert modes == [("replay",)]
    assert report.ok


def test_a_lake_is_replayed_several_times(tmp_path: Path, original: Stages) -> None:
    again = replayed(tmp_path, source_of(original, "speed=max&times=3"))
    counts = rows(again, "select count(*) from silver.trades")
    again.close()

    assert counts == [(3 * rows(original, "select count(*) from silver.trades")[0][0],)]


def test_a_replay_cut_off_in_the_middle_goes_on_at_its_cursor(
    tmp_path: Path, original: Stages
) -> None:
    stages = Stages(tmp_path / "again")
    first = source_of(original)
    whole = first.connect

    async def half(shard: int, cursor: int) -> Any:
        count = 0
        async for item in whole(shard, cursor):
            yield item
            count += 1
            if count == 1:
                return

    first.connect = half  # type: ignore[method-assign]
    stages.record(first)
    stages.record(source_of(original))
    stages.refine()
    found = rows(stages, TRADES)
    stages.close()

    assert found == rows(original, TRADES)


def test_only_the_symbols_asked_for_are_replayed(tmp_path: Path, original: Stages) -> None:
    symbols = [row[0] for row in rows(original, "select distinct symbol from silver.trades")][:2]
    again = replayed(tmp_path, source_of(original, f"speed=max&symbols={','.join(symbols)}"))
    found = rows(again, TRADES)
    again.close()

    assert found == [row for row in rows(original, TRADES) if row[0] in symbols]


def test_only_receipts_of_the_range_are_replayed(tmp_path: Path, original: Stages) -> None:
    moment, count = rows(
        original,
        "select min(received_at), count(*) from silver.trades where received_at ="
        " (select min(received_at) from silver.trades)",
    )[0]
    again = replayed(tmp_path, source_of(original, f"speed=max&to={moment.isoformat()}"))
    found = rows(again, "select count(*) from silver.trades")[0][0]
    again.close()

    assert found == count
    assert found < rows(original, "select count(*) from silver.trades")[0][0]


def test_a_lake_does_not_replay_its_own_replays(original: Stages, tmp_path: Path) -> None:
    stages = Stages(tmp_path / "own")
    stages.record(open_feed(SIMULATOR))
    stages.record(source_of(stages, own=True))
    stages.record(source_of(stages, own=True))
    stages.refine()
    count = rows(stages, "select count(*) from silver.trades")[0][0]
    stages.close()

    assert count == 2 * rows(original, "select count(*) from silver.trades")[0][0]


@pytest.mark.parametrize("query", ["from=yesterday", "from=2026-01-02&to=2026-01-01", "times=0"])
def test_a_range_that_is_none_is_refused(original: Stages, query: str) -> None:
    with pytest.raises(ConfigError, match="replay: "):
        source_of(original, query)


def test_flags_go_into_the_replays_address() -> None:
    parser = build_parser()
    arguments = parser.parse_args(
        ["record", "--source", "replay:lake", "--from", "2026-03-02", "--speed", "max"]
    )

    assert read_settings(arguments).source == "replay:lake?from=2026-03-02&speed=max"
    with pytest.raises(ConfigError, match="--speed is for a replay"):
        with_replay_range(Settings(), parser.parse_args(["up", "--speed", "2"]))


@pytest.mark.parametrize(
    ("payload", "kind", "symbol", "kept"),
    [
        (b'{"data":[{"s":"A","p":1.50},{"s":"B"}],"type":"trade"}', "finnhub.ws", None, True),
        (b'{"type":"ping"}', "finnhub.ws", None, False),
        (b"not json", "finnhub.ws", None, False),
        (b'{"stream":"a@trade","data":{}}', "binance.ws", None, False),
        (b'{"c":1}', "finnhub.quote", "A", True),
        (b"[]", "binance.trades", "A", False),
    ],
)
def test_a_message_is_cut_by_its_kind(
    payload: bytes,
    kind: str,
    symbol: str | None,
    kept: bool,  # noqa: FBT001
) -> None:
    found = cut(payload, kind, {"A"}, symbol=symbol)

    assert (found is not None) == kept
    if kind == "finnhub.ws" and found is not None:
        assert found == b'{"data":[{"s":"A","p":1.50}],"type":"trade"}'


# -- show ------------------------------------------------------------------------------------


def shown(stages: Stages, *arguments: str) -> VerbResult:
    parsed: argparse.Namespace = build_parser().parse_args(["show", *arguments])
    return show(Settings(data=stages.folder), parsed)


@pytest.mark.parametrize("place", ["log", "lake"])
def test_show_prints_a_position(original: Stages, place: str) -> None:
    options = ["--part", "1", "--from-offset", "7", "--to-offset", "9"]
    result = shown(original, place, *options)

    assert [frame["offset"] for frame in result.content["frames"]] == [7, 8, 9]
    assert {frame["part"] for frame in result.content["frames"]} == {1}
    assert result.content["frames"][0]["payload"]
    assert len(result.text.splitlines()) == 3
    assert "sim:finnhub.ws" in result.text


@pytest.mark.parametrize("place", ["log", "lake"])
def test_show_prints_the_newest_without_a_range(original: Stages, place: str) -> None:
    result = shown(original, place, "--part", "0", "--limit", "3")
    there = next(iter(result.content["there"].values()))

    assert [frame["offset"] for frame in result.content["frames"]] == [
        there[1] - 3,
        there[1] - 2,
        there[1] - 1,
    ]


@pytest.mark.parametrize("place", ["log", "lake"])
def test_show_finds_a_session_and_a_number_in_it(original: Stages, place: str) -> None:
    session = rows(original, "select max(session_id) from silver.trades")[0][0]
    result = shown(original, place, "--session", session, "--seq", "42")

    assert [(f["session"], f["seq"]) for f in result.content["frames"]] == [(session, 42)]


@pytest.mark.parametrize("place", ["log", "lake"])
def test_show_prints_session_events_readably(original: Stages, place: str) -> None:
    result = shown(original, place, "--stream", "sessions", "--full")

    assert '"event":"opened"' in result.text
    assert json.loads(bytes(result.content["frames"][0]["payload"]))["event"] == "opened"


@pytest.mark.parametrize("place", ["log", "lake"])
def test_show_says_what_is_there_where_nothing_is_found(original: Stages, place: str) -> None:
    result = shown(original, place, "--from-offset", "100000000")

    assert result.code == 1
    assert "0.." in result.text


def test_show_finds_receipts_between_moments(original: Stages) -> None:
    first, last = rows(original, "select min(received_at), max(received_at) from silver.trades")[0]
    inside = shown(original, "lake", "--from", first.isoformat(), "--limit", "5")
    after = shown(original, "lake", "--from", "2100-01-01")
    before = shown(original, "log", "--to", "2000-01-01")

    assert len(inside.content["frames"]) == 5
    assert (after.code, before.code) == (1, 1)
    assert last >= first


def test_show_refuses_a_moment_that_is_none(original: Stages) -> None:
    with pytest.raises(ConfigError, match="--from 'now'"):
        shown(original, "log", "--from", "now")
