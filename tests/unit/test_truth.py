"""The truth ledger: a witness of what was acknowledged, and sums that anyone can compute anew."""

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tickhouse.errors import ConfigError
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.source.simulator import Simulator
from tickhouse.source.truth import (
    STEP_BLOCKS_MAX,
    SymbolTruth,
    Truth,
    TruthKeeper,
    read_truth,
    recompute,
)

URL = "sim://sp500?symbols=20&shards=2&seed=3"


def simulator(url: str, truth_path: Path | None = None) -> Simulator:
    feed = open_feed(url, FeedOptions(truth_path=truth_path))
    assert isinstance(feed, Simulator)
    return feed


def count_by_hand(url: str, ranges: dict[int, range]) -> dict[str, SymbolTruth]:
    """Sums over the very bytes of the frames."""
    feed = simulator(url)
    rows: dict[str, list[tuple[int, int, Decimal]]] = defaultdict(list)
    for shard, numbers in ranges.items():
        for number, frame in zip(
            numbers, feed.frames(shard, numbers.start, numbers.stop), strict=True
        ):
            for trade in json.loads(frame, parse_float=Decimal)["data"]:
                if not trade["p"] or not trade["v"]:
                    continue
                rows[trade["s"]].append((number, trade["v"], trade["v"] * Decimal(trade["p"])))
    return {
        symbol: SymbolTruth(
            len(found),
            sum(size for _, size, _ in found),
            sum((dollars for _, _, dollars in found), Decimal(0)),
            found[0][0],
            found[-1][0],
        )
        for symbol, found in rows.items()
    }


def test_truth_equals_a_count_over_the_frames_bytes() -> None:
    expected = count_by_hand(URL, {0: range(1300), 1: range(601)})

    assert recompute(URL, {0: 1300, 1: 601}).symbols == expected
    assert sum(truth.trades for truth in expected.values()) > 4000


def test_truth_of_exchange_days_equals_a_count_over_their_frames_faults_included() -> None:
    url = (
        "sim://sp500?market=exchange&symbols=20&shards=2&rate=20"
        "&faults=double_delivery:0.05,late:0.05,null_price:0.05,zero_size:0.05"
    )
    expected = count_by_hand(url, {0: range(9000), 1: range(100, 601)})
    truth = recompute(url, {0: 9000, 1: 601}, since={1: 100})

    assert truth.symbols == expected
    assert sum(found.trades for found in expected.values()) > 4000
    assert sorted(truth.rejects) == ["missing_price", "zero_size"]


def test_a_restart_goes_on_with_rejects_and_faults_counted_before(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    url = "sim://sp500?symbols=5&faults=null_price:0.1,double_delivery:0.1"
    for cursor in (700, 2000):
        feed = simulator(url, path)
        feed.acknowledge(0, cursor)
        feed.close()

    truth = read_truth(path).feeds[feed.url]
    assert truth == recompute(feed.url, {0: 2000})
    assert truth.rejects["missing_price"] > 100
    assert truth.faults["double_delivery"] > 100


def test_truth_of_a_range_starts_where_it_is_told() -> None:
    expected = count_by_hand(URL, {0: range(700, 1300), 1: range(5, 10)})

    assert recompute(URL, {0: 1300, 1: 10}, since={0: 700, 1: 5}).symbols == expected


def test_dollar_sums_are_exact_beyond_64_bits(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    feed = simulator(URL, path)
    feed.acknowledge(0, 10)
    feed.close()
    known = read_truth(path).feeds[feed.url]
    symbol, sums = next(iter(known.symbols.items()))
    huge = Decimal(2**80).scaleb(-4)
    swollen = msgspec.structs.replace(sums, dollars=sums.dollars + huge)
    ledger = json.loads(path.read_bytes())
    ledger["feeds"][feed.url]["symbols"][symbol] = msgspec.to_builtins(swollen)
    path.write_text(json.dumps(ledger))
    again = simulator(URL, path)
    again.acknowledge(0, 500)
    again.close()

    expected = count_by_hand(URL, {0: range(500)})[symbol].dollars + huge
    assert read_truth(path).feeds[feed.url].symbols[symbol].dollars == expected


def test_the_ledger_holds_what_was_acknowledged_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    feed = simulator(URL, path)
    feed.frames(0, 0, 900)
    feed.acknowledge(0, 300)
    feed.acknowledge(1, 40)
    feed.frames(0, 900, 2000)
    feed.close()

    truth = read_truth(path).feeds[URL]
    assert truth == recompute(URL, {0: 300, 1: 40})
    assert truth.acknowledged == {0: 300, 1: 40}


def test_no_ledger_is_written_where_none_is_asked_for(tmp_path: Path) -> None:
    feed = simulator(URL)
    feed.acknowledge(0, 10)
    feed.close()

    assert list(tmp_path.iterdir()) == []


def test_a_restart_goes_on_from_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    for cursors in ((100, 0), (777, 5), (900, 1600)):
        feed = simulator(URL, path)
        for shard, cursor in enumerate(cursors):
            feed.acknowledge(shard, cursor)
        feed.close()

    assert read_truth(path).feeds[URL] == recompute(URL, {0: 900, 1: 1600})


def test_after_a_kill_the_ledger_is_behind_the_log_and_catches_up(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    killed = simulator(URL, path)
    killed.acknowledge(0, 100)
    killed.acknowledge(0, 200)
    behind = read_truth(path).feeds[URL]
    again = simulator(URL, path)
    again.acknowledge(0, 250)
    again.close()

    assert behind == recompute(URL, {0: 100, 1: 0})
    assert read_truth(path).feeds[URL] == recompute(URL, {0: 250, 1: 0})


def test_a_witness_never_takes_back_what_it_saw(tmp_path: Path) -> None:
    """An older log restored: the ledger still says what was acknowledged once."""
    path = tmp_path / "truth.json"
    simulator_before = simulator(URL, path)
    simulator_before.acknowledge(0, 500)
    simulator_before.close()
    after = simulator(URL, path)
    after.acknowledge(0, 20)
    after.close()

    assert read_truth(path).feeds[URL].acknowledged == {0: 500, 1: 0}


def test_the_ledger_keeps_the_truth_of_every_feed(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    for url, cursor in (("sim://sp500", 50), ("sim://sp500?seed=8", 60), ("sim://sp500", 70)):
        feed = simulator(url, path)
        feed.acknowledge(0, cursor)
        feed.close()

    feeds = read_truth(path).feeds
    assert {url: truth.acknowledged for url, truth in feeds.items()} == {
        "sim://sp500": {0: 70},
        "sim://sp500?seed=8": {0: 60},
    }
    assert [recompute(url, truth.acknowledged) for url, truth in feeds.items()] == list(
        feeds.values()
    )


def test_a_ledger_of_another_generator_is_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    feed = simulator(URL, path)
    feed.acknowledge(0, 50)
    feed.close()
    ledger = json.loads(path.read_bytes())
    ledger["feeds"][URL]["generator"] = 0
    ledger["feeds"][URL]["symbols"] = {}
    path.write_text(json.dumps(ledger))
    again = simulator(URL, path)
    again.acknowledge(0, 60)
    again.close()

    assert read_truth(path).feeds[URL] == recompute(URL, {0: 60, 1: 0})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_ledger_is_written_about_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    clock = Clock()
    feed = simulator("sim://sp500")
    keeper = TruthKeeper(path, feed.markets, feed=feed.url, clock=clock)
    seen: list[Any] = []
    for step in range(1, 31):
        clock.now = step * 0.1
        keeper.acknowledge(0, step)
        seen.append(read_truth(path).feeds[feed.url].acknowledged[0])

    assert sorted(set(seen)) == [1, 11, 21]


def test_a_long_way_to_catch_up_does_not_hold_up_the_recorder(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    feed = simulator("sim://sp500?symbols=2&batch=1", path)
    block = feed.scenario.block_frames
    feed.acknowledge(0, 200 * block)
    behind = read_truth(path).feeds[feed.url]
    feed.close()

    assert behind.acknowledged == {0: STEP_BLOCKS_MAX * block}
    assert behind == recompute(feed.url, behind.acknowledged)
    assert read_truth(path).feeds[feed.url] == recompute(feed.url, {0: 200 * block})


def test_a_broken_ledger_is_set_aside_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_bytes(b'{"v":1,"feeds":{"sim')
    feed = simulator(URL, path)
    feed.acknowledge(0, 30)
    feed.close()

    aside = [file for file in tmp_path.iterdir() if file != path]
    assert [file.read_bytes() for file in aside] == [b'{"v":1,"feeds":{"sim']
    assert read_truth(path).feeds[URL] == recompute(URL, {0: 30, 1: 0})


def test_what_is_not_a_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.json"):
        read_truth(tmp_path / "nothing.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"v":1}')
    with pytest.raises(ConfigError, match=r"broken\.json.*feeds"):
        read_truth(broken)
    broken.write_text('{"v":9,"feeds":{}}')
    with pytest.raises(ConfigError, match="version 9"):
        read_truth(broken)


def test_only_a_simulator_has_a_truth() -> None:
    with pytest.raises(ConfigError, match="replay:x"):
        recompute("replay:x", {})
    with pytest.raises(ConfigError, match="2 shards"):
        recompute(URL, {2: 5})


def test_a_truth_survives_its_json() -> None:
    truth = recompute(URL, {0: 30})

    assert msgspec.json.decode(msgspec.json.encode(truth), type=Truth) == truth
