"""The simulator: exact Finnhub frames, each a function of seed, shard and number."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fake_time import FakeTime
from tickhouse.errors import ConfigError
from tickhouse.model.frame import is_strict_json_line
from tickhouse.model.symbols import is_symbol
from tickhouse.source.address import open_feed
from tickhouse.source.feed import Arrivals
from tickhouse.source.simulator import Delivery, Scenario, Simulator
from tickhouse.source.simulator.block import Block
from tickhouse.source.simulator.market import OpenMarket
from tickhouse.source.simulator.marks import CONDITIONS
from tickhouse.source.simulator.prices import PRICE_UNITS, Axis

SAMPLES = Path(__file__).parents[1] / "data" / "finnhub"
DATED = "date=2026-03-02"


def simulator(url: str) -> Simulator:
    feed = open_feed(url)
    assert isinstance(feed, Simulator)
    return feed


def trades_of(frames: Sequence[bytes]) -> list[dict[str, Any]]:
    return [trade for frame in frames for trade in json.loads(frame)["data"]]


async def take(feed: Simulator, count: int, *, shard: int = 0, cursor: int = 0) -> list[Arrivals]:
    """Arrivals until `count` messages came, or the feed is drained."""
    taken: list[Arrivals] = []
    async with aclosing(feed.connect(shard, cursor)) as arrivals:
        async for item in arrivals:
            taken.append(item)
            count -= len(item.payloads)
            if count <= 0:
                break
    return taken


def payloads_of(taken: Sequence[Arrivals]) -> list[bytes]:
    return [payload for item in taken for payload in item.payloads]


def shape(value: object) -> object:
    """Keys in order and types, values left out; numbers are one type."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_a_frame_has_the_very_shape_of_a_recorded_one() -> None:
    recorded = (SAMPLES / "ws_trade_AAPL_20230331_regular.jsonl").read_bytes().splitlines()
    shapes = {str(shape(json.loads(line)["data"][:1])) for line in recorded}
    frames = simulator("sim://sp500").frames(0, 0, 500)

    coded = {str(shape([trade])) for trade in trades_of(frames) if trade["c"]}
    assert coded == shapes
    assert all(list(json.loads(frame)) == list(json.loads(recorded[0])) for frame in frames)
    assert all(is_strict_json_line(frame) for frame in frames)


def test_a_frame_is_written_as_finnhub_writes_it() -> None:
    recorded = (SAMPLES / "ws_trade_AAPL_20230331_regular.jsonl").read_bytes().splitlines()
    compact = [json.dumps(json.loads(line), separators=(",", ":")).encode() for line in recorded]
    assert compact == recorded

    frames = simulator("sim://sp500").frames(0, 0, 500)

    for frame in frames:
        message = json.loads(frame)
        for trade in message["data"]:
            if trade["p"] == int(trade["p"]):
                trade["p"] = int(trade["p"])
        assert json.dumps(message, separators=(",", ":")).encode() == frame


def test_trades_are_sane() -> None:
    trades = trades_of(simulator("sim://sp500?symbols=503").frames(0, 0, 3000))

    assert all(trade["p"] > 0 and type(trade["v"]) is int and trade["v"] > 0 for trade in trades)
    assert all(is_symbol(trade["s"]) for trade in trades)
    assert all(isinstance(code, str) for trade in trades for code in trade["c"])
    assert any(trade["c"] == [] for trade in trades)
    assert all(("12" in trade["c"]) == (trade["v"] < 100) for trade in trades)
    assert {len(json.loads(f)["data"]) for f in simulator("sim://").frames(0, 0, 3000)} == set(
        range(1, 11)
    )


def test_frames_are_the_same_bytes_on_every_machine_and_in_every_version() -> None:
    """Fails where the random stream or the arithmetic differ: raise `GENERATOR` if on purpose."""
    digest = hashlib.sha256()
    for frame in simulator(f"sim://sp500?{DATED}").frames(0, 0, 2000):
        digest.update(frame + b"\n")
    other = simulator(f"sim://sp500?{DATED}&shards=3&symbols=500&batch=7&seed=11&rate=5")
    for frame in other.frames(2, 100_000, 100_300):
        digest.update(frame + b"\n")

    expected = "c9996881a1b609a8030933ac22506d77339f8f2c13c2b032b9687efc41d42788"
    assert digest.hexdigest() == expected


def test_another_seed_gives_other_frames() -> None:
    one = simulator(f"sim://sp500?{DATED}&seed=1").frames(0, 0, 50)
    two = simulator(f"sim://sp500?{DATED}&seed=2").frames(0, 0, 50)

    assert not set(one) & set(two)


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, 3000),
    count=st.integers(0, 1500),
    shards=st.integers(1, 3),
    batch=st.sampled_from([0, 1, 10, 900]),
)
def test_any_frame_can_be_made_without_those_before_it(
    start: int, count: int, shards: int, batch: int
) -> None:
    count = count % 40 if batch > 10 else count
    start = start % 60 if batch > 10 else start
    url = f"sim://sp500?{DATED}&shards={shards}&batch={batch}"
    shard = shards - 1
    from_the_start = simulator(url).frames(shard, 0, start + count)

    assert simulator(url).frames(shard, start, start + count) == from_the_start[start:]


def test_a_connection_at_a_cursor_goes_on_with_the_frames_of_a_run_from_zero() -> None:
    url = f"sim://sp500?{DATED}&rate=max&frames=1500"
    whole = payloads_of(asyncio.run(take(simulator(url), 9999)))
    rest = payloads_of(asyncio.run(take(simulator(url), 9999, cursor=700)))

    assert len(whole) == 1500
    assert rest == whole[700:]


def test_pregenerated_frames_are_those_that_would_have_been_made() -> None:
    url = f"sim://sp500?{DATED}&rate=max&frames=900&batch=10"
    plain = payloads_of(asyncio.run(take(simulator(url), 9999, cursor=100)))
    stocked = payloads_of(asyncio.run(take(simulator(f"{url}&pregenerate=500"), 9999, cursor=100)))

    assert stocked == plain
    assert len(plain) == 800


def test_a_feed_with_so_many_frames_is_drained_after_them_and_stays_so() -> None:
    feed = simulator("sim://sp500?frames=3&rate=max&shards=2")

    assert not feed.endless
    assert len(payloads_of(asyncio.run(take(feed, 9, shard=1)))) == 3
    assert asyncio.run(take(feed, 9, cursor=3)) == []
    assert asyncio.run(take(feed, 9, cursor=4)) == []


def test_a_symbol_is_on_one_shard_only() -> None:
    feed = simulator("sim://sp500?symbols=30&shards=4")
    symbols = [{t["s"] for t in trades_of(feed.frames(n, 0, 2000))} for n in range(4)]

    assert sum(len(found) for found in symbols) == len(set().union(*symbols)) == 30


def test_shards_see_one_market() -> None:
    """The market factor is shared: what moves the first shard's prices moves the second's."""
    whole = OpenMarket(Scenario(symbols=4, rate=100), 0)
    halves = [OpenMarket(Scenario(symbols=4, rate=100, shards=2), shard) for shard in range(2)]
    axis, at_us = Axis(0, 1, 1 << 16), np.array([5, 10**9, 6 * 10**10])

    for rank in range(4):
        alone = halves[rank % 2].prices.middle(axis, at_us, np.full(3, rank // 2))
        assert alone.tolist() == whole.prices.middle(axis, at_us, np.full(3, rank)).tolist()


def test_trades_of_a_dated_run_carry_exchange_time() -> None:
    trades = trades_of(simulator("sim://sp500?date=2026-03-09&rate=100").frames(0, 0, 4000))
    times = [trade["t"] for trade in trades]

    half_past_nine_new_york_summer_time = 1_773_063_000_000
    assert times[0] == half_past_nine_new_york_summer_time
    assert times == sorted(times)
    assert len(trades) / ((times[-1] - times[0]) / 1000) == pytest.approx(100, rel=0.05)


def test_trades_without_a_date_are_stamped_with_the_time_of_delivery() -> None:
    time = FakeTime()
    feed = Simulator(Scenario(), clock=time)
    for item in asyncio.run(take(feed, 50)):
        times = {trade["t"] for trade in trades_of(item.payloads)}

        assert times == {item.received_at_ns // 1_000_000}


def test_the_pace_is_kept_in_small_steps() -> None:
    time = FakeTime()
    feed = Simulator(Scenario(rate=2000), clock=time)
    taken = asyncio.run(take(feed, 3000))

    delivered = len(trades_of(payloads_of(taken)))
    assert delivered / time.elapsed_s == pytest.approx(2000, rel=0.1)
    assert max(len(item.payloads) for item in taken) < 30
    assert {seconds for seconds in time.sleeps if seconds} == {0.02}
    assert time.sleeps.count(0) < 10


def test_a_slow_consumer_catches_up_in_bounded_steps() -> None:
    time = FakeTime()
    feed = Simulator(Scenario(rate=1_000_000, batch=10), clock=time)

    async def slowly() -> list[int]:
        steps: list[int] = []
        async with aclosing(feed.connect(0, 0)) as arrivals:
            async for item in arrivals:
                steps.append(len(item.payloads))
                if len(steps) == 1:
                    time.elapsed_s += 0.1
                if len(steps) == 40:
                    break
        return steps

    steps = asyncio.run(slowly())

    assert max(steps) * 10 <= 4096
    assert sum(steps) >= 10_000
    assert 0 in time.sleeps


def test_a_run_at_the_highest_speed_lets_others_work_between_steps() -> None:
    time = FakeTime()
    feed = Simulator(Scenario(), Delivery(is_paced=False), clock=time)
    taken = asyncio.run(take(feed, 5000))

    assert len(time.sleeps) == len(taken) - 1
    assert set(time.sleeps) == {0}
    assert max(len(trades_of(item.payloads)) for item in taken) < 6000


def test_blocks_stay_small_whatever_is_asked_for() -> None:
    for scenario in (
        Scenario(batch=1000),
        Scenario(rate=1),
        Scenario(rate=1, symbols=100, shards=100),
        Scenario(rate=10_000_000),
    ):
        block = OpenMarket(scenario, 0).block(5)

        assert len(block.symbol) <= 8192 + 1000
        assert scenario.block_frames == 1 or scenario.block_frames * scenario.frame_time <= 256


# -- statistics -------------------------------------------------------------------------------


def blocks(scenario: Scenario, count: int) -> list[Block]:
    market = OpenMarket(scenario, 0)
    return [market.block(number) for number in range(count)]


def test_three_quarters_of_the_trades_are_odd_lots_and_two_fifths_sub_penny() -> None:
    drawn = blocks(Scenario(), 60)
    condition = np.concatenate([block.condition for block in drawn])
    price = np.concatenate([block.price for block in drawn])
    size = np.concatenate([block.size for block in drawn])

    is_odd_lot = np.array([b'"12"' in codes for codes in CONDITIONS])
    assert (is_odd_lot[condition] == (size < 100)).all()
    assert np.mean(size < 100) == pytest.approx(0.75, abs=0.01)
    assert np.mean(size == 100) == pytest.approx(0.15, abs=0.01)
    assert 0.1 < size[size < 100].sum() / size.sum() < 0.35
    assert np.mean(price % 100 != 0) == pytest.approx(0.4, abs=0.02)
    assert price.min() > 0


def test_prices_bounce_between_bid_and_ask_and_wander() -> None:
    drawn = blocks(Scenario(symbols=1, rate=100), 700)
    price = np.concatenate([block.price for block in drawn]) / PRICE_UNITS
    steps = np.diff(price)
    per_second = 100
    moves = np.diff(np.log(price[:: 60 * per_second]))

    assert -0.5 < np.corrcoef(steps[:-1], steps[1:])[0, 1] < -0.3
    assert 2e-4 < moves.std() < 20e-4
    assert abs(np.log(price / price[0])).max() < 0.1


def test_large_names_trade_most() -> None:
    drawn = blocks(Scenario(symbols=503), 60)
    counts = np.bincount(np.concatenate([block.symbol for block in drawn]))

    assert counts[:10].sum() / counts.sum() == pytest.approx(0.25, abs=0.1)
    assert counts[0] > 3 * counts[50] > 3 * counts[400]


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sybols=5", ["sybols", "'5'", "symbols"]),
        ("symbols=0", ["symbols", "'0'", "1 to 503"]),
        ("symbols=504", ["symbols", "'504'", "1 to 503"]),
        ("rate=fast", ["rate", "'fast'", "or max"]),
        ("rate=0", ["rate", "'0'"]),
        ("rate=1.5", ["rate", "'1.5'", "whole number"]),
        ("seed=-1", ["seed", "'-1'"]),
        ("seed=\u0663", ["seed", "whole number"]),
        ("seed=" + "9" * 40, ["seed", "whole number"]),
        ("seed=max", ["seed", "'max'"]),
        ("shards=9&symbols=4", ["shards", "'9'", "1 to 4"]),
        ("batch=1001", ["batch", "'1001'", "0 to 1000"]),
        ("frames=x", ["frames", "'x'"]),
        ("date=2026-13-01", ["date", "'2026-13-01'", "2026-03-02"]),
        ("pregenerate=5", ["pregenerate", "date"]),
        ("seed=1&seed=2", ["seed", "twice"]),
        ("seed", ["seed", "name=value"]),
    ],
)
def test_a_bad_parameter_is_named_with_what_was_found_and_what_is_valid(
    query: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        open_feed(f"sim://sp500?{query}")

    assert [word for word in words if word not in str(error.value)] == []


def test_an_unknown_universe_or_scheme_is_refused_with_those_known() -> None:
    with pytest.raises(ConfigError, match=r"nasdaq.*known: sp500"):
        open_feed("sim://nasdaq")
    with pytest.raises(ConfigError, match=r"ftp://x.*sim://.*replay:"):
        open_feed("ftp://x")
    with pytest.raises(ConfigError, match="not a feed"):
        open_feed("sim")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("sim://sp500", "sim://sp500"),
        ("sim:", "sim://sp500"),
        ("sim://sp500?seed=7&rate=max&frames=5", "sim://sp500"),
        ("sim://sp500?rate=20&symbols=5", "sim://sp500?symbols=5&rate=20"),
        ("sim://sp500?date=2026-03-02&batch=10", "sim://sp500?batch=10&date=2026-03-02"),
    ],
)
def test_equal_frames_have_equal_addresses_so_that_a_cursor_counts(
    given: str, address: str
) -> None:
    assert open_feed(given).url == address
    assert open_feed(address).url == address
