"""Bars against a slow oracle of its own, and incremental builds against one full build."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.bronze_rows import BronzeFrame, BronzeWarehouse, finnhub, trade
from support.builds import EXACT_TABLES, builder_of, new_warehouse, rows_of

NEW_YORK = ZoneInfo("America/New_York")
STARTS = [
    datetime(2024, 8, 9, 13, 29, 30, tzinfo=UTC),  # the bell
    datetime(2024, 8, 9, 19, 59, 20, tzinfo=UTC),  # the closing bell
    datetime(2024, 8, 9, 3, 58, 50, tzinfo=UTC),  # midnight in New York
    datetime(2024, 8, 9, 23, 59, 10, tzinfo=UTC),  # midnight UTC
]
SYMBOLS = ["AAPL", "BRK.B", "BINANCE:BTCUSDT"]
NO_BAR_PRICE = {
    "3",
    "5",
    "9",
    "10",
    "11",
    "12",
    "16",
    "17",
    "20",
    "21",
    "22",
    "25",
    "26",
    "30",
    "32",
    "37",
    "39",
}
NO_HIGH_LOW = {"3", "5", "10", "11", "12", "16", "17", "20", "22", "24", "25", "26", "37"}
NO_OPEN_CLOSE = NO_HIGH_LOW | {"9", "21", "30", "32"}
NO_VOLUME = {"16", "20", "39"}
CONDITIONS = [
    None, [], ["1"], ["1", "12"], ["8"], ["1", "24"], ["24", "12"], ["16"], ["20"], ["9"], ["32"],
    ["18"], ["19"], ["35"], ["36"], ["39"], ["38"], ["40", "77"], ["1", "8", "30"],
]  # fmt: skip


class Print(msgspec.Struct, frozen=True):
    """One trade as the strategies make it; times in milliseconds after the start."""

    symbol: str
    at_ms: int
    price: Decimal | None
    size: Decimal
    conditions: list[str] | None


prints = st.builds(
    Print,
    symbol=st.sampled_from(SYMBOLS),
    at_ms=st.integers(0, 130_000) | st.sampled_from([0, 30_000, 40_000, 70_000, 7_000_000]),
    price=st.integers(9_900, 10_100).map(lambda n: Decimal(n).scaleb(-2))
    | st.integers(10**9, 10**9 + 9).map(lambda n: Decimal(n).scaleb(-8))
    | st.none(),
    size=st.integers(0, 300).map(Decimal) | st.integers(1, 99).map(lambda n: Decimal(n).scaleb(-8)),
    conditions=st.sampled_from(CONDITIONS),
)
loads = st.lists(
    st.lists(st.lists(prints, min_size=1, max_size=4), min_size=1, max_size=12),
    min_size=2,
    max_size=4,
)


def bronze_loads(
    start: datetime, messages: Sequence[Sequence[Sequence[Print]]], repeat: int
) -> list[list[BronzeFrame]]:
    """Frames load by load; `repeat` picks a frame that is delivered again with the last load."""
    result: list[list[BronzeFrame]] = []
    seq = 0
    for load in messages:
        result.append([])
        for message in load:
            newest = max(each.at_ms for each in message)
            payload = finnhub(
                *(
                    trade(
                        each.symbol,
                        start + timedelta(milliseconds=each.at_ms),
                        None if each.price is None else float(each.price),
                        float(each.size),
                        each.conditions,
                    )
                    for each in message
                )
            )
            received = start + timedelta(milliseconds=newest % 200_000 + 80)
            result[-1].append(
                BronzeFrame(payload=payload, seq=seq, session=f"s{seq % 2}", received_at=received)
            )
            seq += 1
    everything = [frame for load in result for frame in load]
    result[-1].append(everything[repeat % len(everything)])
    return result


def oracle_trades(start: datetime, messages: Any) -> pd.DataFrame:
    """Trades with their flags, by a plain reading of the rules."""
    rows: list[dict[str, Any]] = []
    seq = 0
    for message in (message for load in messages for message in load):
        newest = max(each.at_ms for each in message)
        for index, each in enumerate(message):
            if each.price is None or each.size == 0:
                continue
            at = start + timedelta(milliseconds=each.at_ms)
            codes = set(each.conditions or [])
            local = at.astimezone(NEW_YORK)
            crypto = ":" in each.symbol
            minutes = local.hour * 60 + local.minute
            is_open = crypto or (local.weekday() < 5 and 570 <= minutes < 960)
            rows.append(
                {
                    "symbol": each.symbol,
                    "at": at,
                    "order": (at, newest % 200_000, f"s{seq % 2}", seq, index),
                    "price": each.price,
                    "size": each.size,
                    "session_date": at.date() if crypto else local.date(),
                    "bar_price": not codes & NO_BAR_PRICE and not ("24" in codes and is_open),
                    "high_low": not codes & NO_HIGH_LOW,
                    "open_close": not codes & NO_OPEN_CLOSE,
                    "counts": not codes & NO_VOLUME,
                    "opening": bool(codes & {"18", "19"}),
                    "closing": bool(codes & {"35", "36"}),
                }
            )
        seq += 1
    return pd.DataFrame(rows)


def eight(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.00000001"), ROUND_HALF_UP)


def oracle_bar(group: pd.DataFrame) -> dict[str, Any]:
    priced = group[group["bar_price"]].sort_values("order")
    counted = group[group["counts"]]
    volume = sum(counted["size"], Decimal(0))
    dollars = sum(
        (p * s for p, s in zip(counted["price"], counted["size"], strict=True)), Decimal(0)
    )
    return {
        "open": priced["price"].iloc[0] if len(priced) else None,
        "high": priced["price"].max() if len(priced) else None,
        "low": priced["price"].min() if len(priced) else None,
        "close": priced["price"].iloc[-1] if len(priced) else None,
        "volume": volume,
        "trade_count": len(counted),
        "dollar_volume": dollars,
        "vwap": eight(dollars / volume) if volume else None,
    }


def oracle_day(group: pd.DataFrame) -> dict[str, Any]:
    ends = group[group["open_close"]].sort_values("order")
    opening, closing = ends[ends["opening"]], ends[ends["closing"]]
    high_low = group[group["high_low"]]["price"]
    counted = group[group["counts"]]
    return {
        "open": (opening if len(opening) else ends)["price"].iloc[0] if len(ends) else None,
        "high": high_low.max() if len(high_low) else None,
        "low": high_low.min() if len(high_low) else None,
        "close": (closing if len(closing) else ends)["price"].iloc[-1] if len(ends) else None,
        "volume": sum(counted["size"], Decimal(0)),
        "trade_count": len(counted),
    }


def oracle_minutes(trades: pd.DataFrame) -> dict[tuple[str, datetime], dict[str, Any]]:
    if trades.empty:
        return {}
    shown = trades[trades["bar_price"] | trades["counts"]]
    keys = [shown["symbol"], shown["at"].map(lambda at: at.replace(second=0, microsecond=0))]
    return {
        (symbol, minute.to_pydatetime().replace(tzinfo=None)): oracle_bar(group)
        for (symbol, minute), group in shown.groupby(keys)
    }


def oracle_days(trades: pd.DataFrame) -> dict[tuple[str, date], dict[str, Any]]:
    if trades.empty:
        return {}
    shown = trades[trades["high_low"] | trades["open_close"] | trades["counts"]]
    return {key: oracle_day(group) for key, group in shown.groupby(["symbol", "session_date"])}


def found_bars(warehouse: BronzeWarehouse, table: str, at: str, columns: list[str]) -> Any:
    rows = warehouse.query(f"select symbol, {at}, {', '.join(columns)} from {table}")
    return {(row[0], row[1]): dict(zip(columns, row[2:], strict=True)) for row in rows}


@given(start=st.sampled_from(STARTS), messages=loads, repeat=st.integers(0, 99))
@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
def test_bars_equal_the_oracle_and_incremental_builds_equal_one_full_build(
    tmp_path_factory: Any, start: datetime, messages: Any, repeat: int
) -> None:
    folder = tmp_path_factory.mktemp("bars")
    step_by_step, at_once = new_warehouse(folder / "steps"), new_warehouse(folder / "once")
    for load in bronze_loads(start, messages, repeat):
        at_once.load(load)
    with builder_of(step_by_step) as builder:
        for load in bronze_loads(start, messages, repeat):
            step_by_step.load(load)
            builder.build()
    with builder_of(at_once) as builder:
        builder.build()

    trades = oracle_trades(start, messages)
    columns = ["open", "high", "low", "close", "volume", "trade_count", "dollar_volume", "vwap"]
    assert oracle_minutes(trades) == found_bars(step_by_step, "gold.bars_1m", "bar_at", columns)
    assert oracle_days(trades) == found_bars(
        step_by_step, "gold.bars_1d", "session_date", columns[:6]
    )
    for table in EXACT_TABLES:
        assert rows_of(at_once, table) == rows_of(step_by_step, table), table
