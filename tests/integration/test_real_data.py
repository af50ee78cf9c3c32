"""Recorded real frames through the whole road: nothing lost, nothing doubled, exact bars."""

import gzip
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from proofs.road import IDS
from proofs.stages import Stages
from tickhouse.source.address import open_feed

DATA = Path(__file__).parents[1] / "data"


def road_of(folder: Path, source: str) -> Stages:
    stages = Stages(folder)
    stages.record(open_feed(source))
    stages.refine()
    return stages


@pytest.fixture(scope="module")
def binance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("binance")
    stages = road_of(folder, f"replay:{DATA}/binance_ws_2024?speed=max")
    yield stages
    stages.close()


@pytest.fixture(scope="module")
def finnhub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("finnhub")
    stages = road_of(folder, f"replay:{DATA}/finnhub?speed=max")
    yield stages
    stages.close()


def captured_trades() -> pd.DataFrame:
    """The capture read without any code of the product."""
    rows = []
    for file in sorted((DATA / "binance_ws_2024").glob("*.gz")):
        with gzip.open(file, "rt") as lines:
            for line in lines:
                trade = json.loads(line.partition(" ")[2])["data"]
                rows.append(
                    {
                        "symbol": f"BINANCE:{trade['s']}",
                        "id": trade["t"],
                        "at": trade["T"],
                        "price": Decimal(trade["p"]),
                        "size": Decimal(trade["q"]),
                    }
                )
    return pd.DataFrame(rows)


def test_every_trade_id_of_the_exchange_is_in_silver_once(binance: Stages) -> None:
    rows = binance.warehouse.query(
        "select symbol, count(*), count(distinct trade_id), min(trade_id::bigint),"
        " max(trade_id::bigint) from silver.trades group by symbol order by symbol"
    )

    assert rows == [
        (symbol, last - first + 1, last - first + 1, first, last)
        for symbol, (first, last) in sorted(IDS.items())
    ]
    assert binance.warehouse.query("select count(*) from silver.rejected_trades") == [(0,)]


def test_prices_sizes_and_times_are_those_of_the_wire(binance: Stages) -> None:
    captured = captured_trades()
    silver = binance.warehouse.query(
        "select symbol, trade_id::bigint, epoch_ms(event_at), price, trade_size"
        " from silver.trades order by 1, 2"
    )

    expected = captured.sort_values(["symbol", "id"]).itertuples(index=False, name=None)
    assert silver == list(expected)


def test_minute_bars_equal_an_independent_pandas_oracle_exactly(binance: Stages) -> None:
    trades = captured_trades().sort_values(["symbol", "at", "id"], kind="stable")
    trades["bar"] = trades["at"] // 60_000 * 60_000
    trades["dollars"] = trades["price"] * trades["size"]
    expected = [
        (
            symbol, bar, part["price"].iloc[0], max(part["price"]), min(part["price"]),
            part["price"].iloc[-1], sum(part["size"]), len(part), sum(part["dollars"]),
        )
        for (symbol, bar), part in trades.groupby(["symbol", "bar"], sort=True)
    ]  # fmt: skip

    bars = binance.warehouse.query(
        "select symbol, epoch_ms(bar_at), open, high, low, close, volume, trade_count,"
        " dollar_volume from gold.bars_1m order by 1, 2"
    )

    assert bars == expected
    assert len(bars) == 24


@pytest.mark.parametrize(("coarse", "fine"), [("1m", "1s"), ("5m", "1m"), ("1h", "5m")])
def test_coarse_bars_roll_up_from_fine_ones_exactly(
    binance: Stages, coarse: str, fine: str
) -> None:
    width = {"1m": "1 minute", "5m": "5 minutes", "1h": "1 hour"}[coarse]
    columns = "symbol, bar_at, open, high, low, close, volume, trade_count, dollar_volume"

    rolled = binance.warehouse.query(
        f"select symbol, time_bucket(interval '{width}', bar_at), arg_min(open, bar_at), max(high),"
        f" min(low), arg_max(close, bar_at), sum(volume), sum(trade_count), sum(dollar_volume)"
        f" from gold.bars_{fine} group by 1, 2 order by 1, 2"
    )

    assert rolled == binance.warehouse.query(
        f"select {columns} from gold.bars_{coarse} order by 1, 2"
    )


def silver_of(stages: Stages, symbol: str, day: str) -> list[tuple]:
    return stages.warehouse.query(
        "select price, trade_size, conditions from silver.trades where symbol = ? and"
        " session_date = ? order by session_seq, trade_index",
        [symbol, day],
    )


def sample(name: str) -> list[dict]:
    lines = (DATA / "finnhub" / name).read_text().splitlines()
    return [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in lines]


def elements(name: str) -> list[dict]:
    return [trade for message in sample(name) for trade in message.get("data", [])]


def test_all_conditions_of_the_regular_session_are_kept(finnhub: Stages) -> None:
    expected = [
        (trade["p"], trade["v"], ",".join(trade["c"]))
        for trade in elements("ws_trade_AAPL_20230331_regular.jsonl")
    ]

    assert silver_of(finnhub, "AAPL", "2023-03-31") == expected
    assert len(expected) == 61


def test_null_conditions_are_a_regular_trade(finnhub: Stages) -> None:
    found = silver_of(finnhub, "BINANCE:BTCUSDT", "2024-07-21")

    assert [row[2] for row in found] == [""] * len(found)
    assert len(found) == len(elements("ws_trade_BTCUSDT_20240721.jsonl"))


def test_absent_conditions_are_a_regular_trade_and_a_feed_that_sends_thrice_stays_as_sent(
    finnhub: Stages,
) -> None:
    found = silver_of(finnhub, "AAPL", "2020-04-14")

    assert len(found) == len(elements("ws_trade_2020_triplicate_no_c.jsonl"))
    assert {row[2] for row in found} == {""}


def test_zero_volume_is_a_reject_with_its_reason_not_a_trade(finnhub: Stages) -> None:
    rejected = finnhub.warehouse.query(
        "select reason, count(*) from silver.rejected_trades"
        " where symbol = 'IC MARKETS:1' group by reason"
    )

    assert rejected == [("zero_size", 2)]
    assert silver_of(finnhub, "IC MARKETS:1", "2024-04-22") == []


def test_newest_first_messages_give_bars_in_order_of_time(finnhub: Stages) -> None:
    trades = elements("ws_trade_XOM_20230210_out_of_order.jsonl")
    eligible = sorted(
        (trade for trade in trades if "12" not in trade["c"]), key=lambda trade: trade["t"]
    )

    ((opened, closed, volume, count),) = finnhub.warehouse.query(
        "select open, close, volume, trade_count from gold.bars_1m where symbol = 'XOM'"
    )

    assert (opened, closed) == (eligible[0]["p"], eligible[-1]["p"])
    assert volume == sum(trade["v"] for trade in trades)
    assert count == len(trades)


def test_double_delivery_inside_a_message_stays_two_prints(finnhub: Stages) -> None:
    assert len(silver_of(finnhub, "TSLA", "2023-04-12")) == len(
        elements("ws_trade_TSLA_20230412_double_delivery.jsonl")
    )


def test_odd_lots_count_in_volume_and_set_no_price(finnhub: Stages) -> None:
    trades = elements("ws_trade_AAPL_20230331_regular.jsonl")
    by_second: dict[int, list[dict]] = {}
    for trade in trades:
        by_second.setdefault(int(trade["t"]) // 1000, []).append(trade)
    expected = {
        second: (
            max((t["p"] for t in part if "12" not in t["c"]), default=None),
            sum(t["v"] for t in part),
        )
        for second, part in by_second.items()
    }

    bars = finnhub.warehouse.query(
        "select epoch(bar_at)::bigint, high, volume from gold.bars_1s"
        " where symbol = 'AAPL' and session_date = '2023-03-31'"
    )

    assert {second: (high, volume) for second, high, volume in bars} == expected
    assert None in {high for _, high, _ in bars}


def test_control_messages_hold_no_trades(finnhub: Stages) -> None:
    rows = finnhub.warehouse.query(
        "select count(*) from silver.rejected_trades where reason = 'unknown_shape'"
    )

    assert rows == [(0,)]
    assert all(re.match(r"^(BINANCE:)?[A-Z]", symbol) for (symbol,) in finnhub.warehouse.query(
        "select distinct symbol from silver.trades"))  # fmt: skip
