"""Answers of /quote to silver and gold: rejects, repeats, staleness, and the figures of the day."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.bronze_rows import T0, BronzeFrame, BronzeWarehouse, finnhub, quote, trade
from support.builds import EXACT_TABLES, builder_of, copied_warehouse, new_warehouse, rows_of
from tickhouse.transform.builder import Builder
from tickhouse.transform.dbt_runner import NodeResult

MONDAY = datetime(2024, 8, 12, tzinfo=UTC)
FRIDAY_CLOSE = datetime(2024, 8, 9, 20, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> BronzeWarehouse:
    """A warehouse in which nothing was loaded, built once."""
    warehouse = new_warehouse(tmp_path_factory.mktemp("template") / "w")
    with builder_of(warehouse) as builder:
        builder.build()
    return warehouse


@pytest.fixture
def bench(template: BronzeWarehouse, tmp_path: Path) -> Iterator[tuple[BronzeWarehouse, Builder]]:
    warehouse = copied_warehouse(template, tmp_path / "w")
    with builder_of(warehouse) as builder:
        yield warehouse, builder


def answer(
    seq: int,
    payload: str | None,
    *,
    symbol: str | None = "AAPL",
    at: datetime = T0,
    kind: str = "finnhub.quote",
    **options: Any,
) -> BronzeFrame:
    return BronzeFrame(
        payload=payload,
        seq=seq,
        source=kind,
        stream="quotes",
        symbol=symbol,
        received_at=at,
        **options,
    )


def polled(seq: int, at: datetime, quoted_at: datetime, price: Any = 100, **options: Any) -> Any:
    fields = options.pop("fields", {})
    return answer(seq, quote(quoted_at, price, **fields), at=at, **options)


ZEROS = '{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'


REJECTS: list[tuple[str, dict[str, Any]]] = [
    ("no_data", {"payload": ZEROS}),
    ("no_data", {"payload": quote(T0, -1)}),
    ("no_data", {"payload": quote(T0, 1e-12)}),
    ("no_data", {"payload": '{"c":100,"t":0}'}),
    ("bad_price", {"payload": quote(T0, 1e308)}),
    ("bad_price", {"payload": quote(T0, None)}),
    ("bad_price", {"payload": quote(T0, "x")}),
    ("bad_time", {"payload": '{"c":100,"h":1}'}),
    ("bad_time", {"payload": quote(T0, 100, t=2**63)}),
    ("bad_time", {"payload": quote(T0, 100, t=1_723_213_800_000)}),
    ("error_answer", {"payload": '{"error":"API limit reached."}'}),
    ("unknown_shape", {"payload": '{"a":1}'}),
    ("unknown_shape", {"payload": "[1]"}),
    ("unknown_shape", {"payload": quote(T0, 100), "kind": "mars.quote"}),
    ("bad_symbol", {"payload": quote(T0, 100), "symbol": None}),
    ("bad_symbol", {"payload": quote(T0, 100), "symbol": "<b>"}),
    ("not_json", {"payload": None, "text": "<html>"}),
    ("http_429", {"payload": None, "text": "slow", "kind": "replay:finnhub.http.429"}),
    ("http_503", {"payload": '{"error":"x"}', "kind": "finnhub.http.503"}),
    ("poison_record", {"payload": None, "poison": "AAEC"}),
]


def test_an_answer_that_is_no_quote_is_rejected_with_its_reason(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    frames = [answer(seq, **options) for seq, (_, options) in enumerate(REJECTS)]
    warehouse.load(frames)
    builder.build()

    rows = warehouse.query("select reason, payload from silver.rejected_quotes order by log_offset")
    assert [
        (reason, frame.payload or frame.text or frame.poison)
        for (reason, _), frame in zip(REJECTS, frames, strict=True)
    ] == rows
    assert [] == warehouse.query("from silver.quotes")
    assert [("AAPL",), (None,)] == warehouse.query(
        "select distinct symbol from silver.rejected_quotes order by symbol"
    )


def test_zeros_for_want_of_a_value_are_null_beside_a_good_price(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    """Of 2020: c good, h = l = o = pc = 0 and no d."""
    warehouse, builder = bench
    warehouse.load([answer(0, '{"c":517.96,"h":0,"l":0,"o":0,"pc":0,"t":1585296137}')])
    builder.build()

    assert [(517.96, None, None, None, None, None, None)] == warehouse.query(
        "select price::double, change, change_percent, day_open, day_high, day_low, previous_close"
        " from silver.quotes"
    )


# -- repeats -----------------------------------------------------------------------------------


def test_a_quote_that_tells_nothing_new_within_a_day_is_a_repeat(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    minute, day = timedelta(minutes=1), timedelta(days=1)
    received = [T0, T0 + minute, T0 + 2 * minute, T0 + 3 * minute, T0 + day + 4 * minute]
    prices = [100, 100, 101, 100, 100]
    warehouse.load(
        [polled(seq, at, T0, prices[seq]) for seq, at in enumerate(received)]
        + [polled(9, T0 + minute, T0, 100, symbol="MSFT")]
    )
    builder.build()

    assert [(0, False), (1, True), (2, False), (3, True), (4, False), (9, False)] == (
        warehouse.query("select session_seq, is_repeat from silver.quotes order by 1")
    )


@pytest.mark.long
def test_quotes_and_figures_do_not_depend_on_the_order_or_size_of_loads(
    template: BronzeWarehouse, tmp_path: Path
) -> None:
    chance = random.Random(7)
    frames: list[BronzeFrame] = []
    for seq in range(120):
        at = T0 + timedelta(minutes=chance.randrange(3 * 24 * 60))
        symbol = chance.choice(["AAPL", "MSFT", "BINANCE:BTCUSDT", "KO"])
        price = chance.choice([100, 100.5, 101])
        if chance.random() < 0.5 and symbol != "KO":
            payload = finnhub(trade(symbol, at, price, 10, chance.choice([["1"], ["12"]])))
            frames.append(BronzeFrame(payload=payload, seq=seq, received_at=at))
            continue
        quoted_at = at.replace(hour=at.hour // 6 * 6, minute=0)
        quoted_at -= timedelta(days=chance.choice([0, 0, 0, 3]))
        frames.append(polled(seq, at, quoted_at, price, symbol=symbol, session=f"p{seq % 3}"))
    once, often = (copied_warehouse(template, tmp_path / name) for name in ("once", "often"))
    shuffled = chance.sample(frames, len(frames))
    with builder_of(once) as builder:
        once.load(frames)
        builder.build()
    with builder_of(often) as builder:
        for start in range(0, len(shuffled), 24):
            often.load(shuffled[start : start + 24])
            builder.build()

    placed = ("load_id", "revision", "log_offset", "last_received_at")
    for table in EXACT_TABLES:
        if table != "silver.repeated_frames":
            there = rows_of(often, table, without=placed)
            assert rows_of(once, table, without=placed) == there, table
    repeats, late = often.query(
        "select count(*) filter (where is_repeat), count(distinct load_id) from silver.quotes"
    )[0]
    assert 5 < repeats < 50
    assert late > 1


def test_models_whose_streams_bring_nothing_are_left_out_and_stand_level(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    ran: list[set[str]] = []
    run = builder._dbt.run

    def watched(arguments: Sequence[str], **options: Any) -> list[NodeResult]:
        results = run(arguments, **options)
        ran.append({result.name for result in results})
        return results

    builder._dbt.run = watched  # type: ignore[method-assign]
    warehouse.load([BronzeFrame(payload=finnhub(trade("AAPL", T0, 100, 10)), seq=0)])
    builder.build()
    warehouse.load([polled(0, T0, T0)])
    builder.build()
    builder._dbt.run = run  # type: ignore[method-assign]

    left_out = {"quotes", "rejected_quotes", "coverage", "sessions", "instruments"}
    assert set() == ran[0] & left_out
    assert {"quotes", "rejected_quotes"} == ran[1] & left_out
    tests = {"gold_agrees", "silver_trades_are_whole", "every_element_is_a_trade_or_a_reject"}
    assert tests <= ran[0] & ran[1]
    assert [(2,)] == warehouse.query(
        "select distinct p.load_id from meta.positions as p join meta.windows as w"
        " on p.model = w.model"
    )
    assert [(1,)] == warehouse.query("select count(*) from silver.quotes")


# -- staleness ---------------------------------------------------------------------------------


def at_new_york(day: datetime, text: str) -> datetime:
    hours, minutes = map(int, text.split(":"))
    return day + timedelta(hours=hours + 4, minutes=minutes)


STALE = [
    (at_new_york(MONDAY, "9:29"), FRIDAY_CLOSE, False),
    (at_new_york(MONDAY, "9:44"), FRIDAY_CLOSE, False),
    (at_new_york(MONDAY, "9:45"), FRIDAY_CLOSE, True),
    (at_new_york(MONDAY, "10:27"), FRIDAY_CLOSE, True),
    (at_new_york(MONDAY, "10:27"), at_new_york(MONDAY, "9:31"), False),
    (at_new_york(MONDAY, "19:59"), FRIDAY_CLOSE, True),
    (at_new_york(MONDAY, "20:00"), FRIDAY_CLOSE, False),
    (MONDAY - timedelta(days=1), FRIDAY_CLOSE, False),
    # the day after Thanksgiving closes at 13:00, extended hours at 17:00
    (datetime(2024, 11, 29, 21, 59, tzinfo=UTC), FRIDAY_CLOSE, True),
    (datetime(2024, 11, 29, 22, 0, tzinfo=UTC), FRIDAY_CLOSE, False),
    (datetime(2024, 11, 28, 16, 0, tzinfo=UTC), FRIDAY_CLOSE, False),
]


def test_a_quote_of_an_earlier_session_is_stale_once_this_one_is_under_way(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([polled(seq, received, at) for seq, (received, at, _) in enumerate(STALE)])
    builder.build()

    found = warehouse.query("select is_stale from silver.quotes order by session_seq")
    assert [(is_stale,) for _, _, is_stale in STALE] == found


def test_no_quote_of_a_replay_is_stale(bench: tuple[BronzeWarehouse, Builder]) -> None:
    warehouse, builder = bench
    monday = at_new_york(MONDAY, "10:27")
    replayed = {"kind": "replay:finnhub.quote"}
    warehouse.load([
        polled(0, monday, FRIDAY_CLOSE, **replayed),
        polled(1, monday, FRIDAY_CLOSE, symbol="BINANCE:BTCUSDT", **replayed),
    ])  # fmt: skip
    builder.build()

    assert [(False,), (False,)] == warehouse.query("select is_stale from silver.quotes")


def test_a_market_that_never_closes_has_stale_quotes_after_15_minutes(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    saturday = datetime(2024, 8, 10, 12, tzinfo=UTC)
    ages = [timedelta(minutes=15), timedelta(minutes=15, seconds=1)]
    warehouse.load(
        [
            polled(seq, saturday, saturday - age, symbol="BINANCE:BTCUSDT")
            for seq, age in enumerate(ages)
        ]
    )
    builder.build()

    assert [(False,), (True,)] == warehouse.query(
        "select is_stale from silver.quotes order by session_seq"
    )


# -- figures of the day ------------------------------------------------------------------------

KPI = (
    "select symbol, price_source, last_price::double, previous_close::double, day_open::double,"
    " volume::double, trade_count, disagreements from gold.kpi order by symbol"
)


def test_a_symbol_that_is_only_polled_has_figures_from_quotes_alone(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([polled(0, T0, T0, 162.65)])
    builder.build()

    assert [("AAPL", "quote", 162.65, 162.36, 162.44, None, 0, "")] == warehouse.query(KPI)
    assert [(0.29, 0.17861542)] == warehouse.query(
        "select change::double, change_percent::double from gold.kpi"
    )
    assert [("Information Technology", None)] == warehouse.query(
        "select sector, dollar_volume from gold.market_map"
    )


def test_the_last_price_is_the_newer_of_trade_and_quote(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    second = timedelta(seconds=1)
    found: list[tuple[Any, ...]] = []
    steps = [
        BronzeFrame(payload=finnhub(trade("AAPL", T0, 100, 10)), seq=0),
        polled(0, T0 + second, T0, 101),
        polled(1, T0 + 5 * second, T0 + 4 * second, 102),
        BronzeFrame(payload=finnhub(trade("AAPL", T0 + 3 * second, 103, 10)), seq=1),
        BronzeFrame(payload=finnhub(trade("AAPL", T0 + 9 * second, 104, 10)), seq=2),
    ]
    for frame in steps:
        warehouse.load([frame])
        builder.build()
        found += warehouse.query("select price_source, last_price::int from gold.kpi")

    assert [("trade", 100), ("trade", 100), ("quote", 102), ("quote", 102), ("trade", 104)] == found


def test_a_stale_quote_is_no_price(bench: tuple[BronzeWarehouse, Builder]) -> None:
    warehouse, builder = bench
    monday = at_new_york(MONDAY, "11:00")
    thursday = FRIDAY_CLOSE - timedelta(days=1)
    warehouse.load(
        [
            BronzeFrame(payload=finnhub(trade("AAPL", thursday, 100, 10)), seq=0),
            polled(0, monday, FRIDAY_CLOSE, 105),
            polled(1, monday, FRIDAY_CLOSE, 105, symbol="KO"),
        ]
    )
    builder.build()

    assert [("AAPL", "trade", 100.0)] == [row[:3] for row in warehouse.query(KPI)]


def test_the_previous_close_is_the_sources_where_its_quote_is_of_the_session(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    monday = at_new_york(MONDAY, "11:00")
    warehouse.load([BronzeFrame(payload=finnhub(trade("AAPL", T0, 90, 10)), seq=0)])
    warehouse.load([BronzeFrame(payload=finnhub(trade("AAPL", monday, 100, 10)), seq=1)])
    builder.build()
    ours = warehouse.query(KPI)[0][3]
    warehouse.load([polled(0, monday, monday, 100, fields={"pc": 95, "d": 5, "dp": 5.2632})])
    builder.build()
    theirs = warehouse.query(KPI)[0][3]
    tuesday = monday + timedelta(days=1)
    warehouse.load([BronzeFrame(payload=finnhub(trade("AAPL", tuesday, 110, 10)), seq=2)])
    builder.build()

    assert (90.0, 95.0, 100.0) == (ours, theirs, warehouse.query(KPI)[0][3])
    assert [(None, None)] == warehouse.query("select source_open, source_change from gold.kpi")


DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"o": 100.1}, ""),
    ({"o": 100.2}, "open"),
    ({"h": 102.2}, "high"),
    ({"h": 101}, "high"),
    ({"l": 98.8}, "low"),
    ({"l": 99.5}, "low"),
    ({"d": 2.02}, "change"),
    ({"dp": 2.03}, "change_percent"),
    ({"pc": 100.2, "d": 1.8, "dp": 1.7964}, "previous_close"),
    ({"o": 101.5, "l": 90, "d": 3}, "open,low,change"),
    ({"o": 0, "h": None, "d": None, "dp": None}, ""),
]


def test_figures_of_the_source_that_differ_from_ours_are_named(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    """Ours: previous close 100; open 100, high 102, low 99, last 102."""
    warehouse, builder = bench
    prices = [(T0 + timedelta(seconds=k), price) for k, price in enumerate([100, 102, 99, 102])]
    at = T0 + timedelta(seconds=5)
    frames: list[BronzeFrame] = []
    for number, (fields, _) in enumerate(DIFFERENCES):
        name = f"S{number:02}"
        trades = [trade(name, when, price, 10)
                  for when, price in [(T0 - timedelta(days=1), 100), *prices]]  # fmt: skip
        body = {"o": 100, "h": 102, "l": 99, "pc": 100, "d": 2, "dp": 2} | fields
        frames.append(BronzeFrame(payload=finnhub(*trades), seq=number))
        frames.append(polled(number, at, at, 102, fields=body, symbol=name))
    warehouse.load(frames)
    builder.build()

    found = warehouse.query("select disagreements from gold.kpi order by symbol")
    assert [(expected,) for _, expected in DIFFERENCES] == found


def test_a_high_that_trades_set_after_the_quote_is_no_disagreement(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    trades = [trade("AAPL", T0 + timedelta(seconds=k), 100 + 3 * k, 10) for k in range(3)]
    fields = {"o": 100, "h": 100, "l": 100, "pc": 100, "d": 0, "dp": 0}
    warehouse.load([BronzeFrame(payload=finnhub(*trades), seq=0), polled(0, T0, T0, fields=fields)])
    builder.build()

    assert [("trade", 106, "")] == warehouse.query(
        "select price_source, last_price::int, disagreements from gold.kpi"
    )


# -- profiles ----------------------------------------------------------------------------------


def profile(seq: int, at: datetime, body: dict[str, Any], symbol: str = "AAPL") -> BronzeFrame:
    return BronzeFrame(
        payload=json.dumps(body),
        seq=seq,
        source="finnhub.profile2",
        stream="reference",
        symbol=symbol,
        received_at=at,
    )


def test_the_newest_profile_is_laid_over_the_list_however_it_is_loaded(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([BronzeFrame(payload=finnhub(trade("AAPL", T0, 100, 10)), seq=0)])
    builder.build()
    listed = warehouse.query("select name, market_cap from gold.market_map m")
    newer = {"name": "Apple Inc", "finnhubIndustry": "Technology", "marketCapitalization": 1415993}
    warehouse.load([profile(1, T0 + timedelta(days=1), newer)])
    builder.build()
    warehouse.load([profile(0, T0, {"name": "Apple Computer", "currency": "USD"})])
    builder.build()
    warehouse.load(
        [
            profile(2, T0 + timedelta(days=2), {}),
            profile(3, T0, {"name": "New", "finnhubIndustry": "Airlines", "currency": "EUR",
                            "marketCapitalization": 5}, "NEWCO"),
        ]
    )  # fmt: skip
    builder.build()

    assert "Apple Inc." == listed[0][0]
    assert [("Apple Inc", "Information Technology", "Technology", 1_415_993_000_000)] == (
        warehouse.query("select name, sector, industry, market_cap::bigint from gold.market_map")
    )
    assert [("New", "Airlines", "Airlines", None)] == warehouse.query(
        "select name, sector, industry, market_cap from silver.instruments where symbol = 'NEWCO'"
    )
    assert [(506 + 1,)] == warehouse.query("select count(*) from silver.instruments")
