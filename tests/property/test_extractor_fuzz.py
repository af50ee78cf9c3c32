"""Whatever a feed sends: silver holds each element as a trade or a reject, as the audit reads it.

Payloads go through the real envelope, object, loader and the compiled SQL of silver. The audit's
reading (`read_elements`) shares nothing with that SQL.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.lake_builder import chain_id, make_object
from support.odd_json import SEEDS, payloads_of
from tickhouse.audit.elements import read_elements
from tickhouse.audit.quotes import WEIGHTS, read_quote
from tickhouse.audit.recount import frame_of
from tickhouse.model.frame import decode_envelope, encode_frames
from tickhouse.model.positions import Stream
from tickhouse.transform.builder import Builder, duckdb_target
from tickhouse.warehouse.duckdb import DuckDBWarehouse

RECEIVED_NS = 1_723_213_800_500_000_000
TRADE_KINDS = ("finnhub.ws", "finnhub.tick", "binance.ws", "binance.trades")
SYMBOLS = {"binance.trades": "BTCUSDT", "finnhub.tick": "AAPL"}
"""The symbol of frames whose payload names none."""
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
"""A longer hunt: FUZZ_EXAMPLES=5000."""
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Bench:
    """A warehouse that loads frames and asks silver's own SQL about them, without dbt.

    Args:
        folder: for the warehouse.
    """

    def __init__(self, folder: Path) -> None:
        self._warehouse = DuckDBWarehouse(folder / "warehouse.duckdb")
        self._warehouse.prepare()
        self._offsets = Counter[Stream]()
        self._load_id = 0
        self.load([b'{"type":"ping"}'], "finnhub.ws")
        builder = Builder(
            connect=self._warehouse.cursor,
            target=duckdb_target(self._warehouse.path),
            work_folder=folder / "dbt",
        )
        builder.prepare()
        builder.build()
        builder.close()
        compiled = folder / "dbt" / "target" / "compiled" / "tickhouse" / "models" / "silver"
        self._sql = {file.stem: file.read_text() for file in compiled.glob("*.sql")}

    def load(
        self,
        payloads: Sequence[bytes],
        kind: str,
        symbol: str | None = None,
        stream: Stream = Stream.TRADES,
    ) -> list[bytes]:
        """Land and load payloads as one session; its frames."""
        start = self._offsets[stream]
        frames = encode_frames(
            payloads,
            source=kind,
            session=f"{stream}-{start}",
            first_seq=0,
            received_at_ns=RECEIVED_NS,
            symbol=symbol,
        )
        result = self._warehouse.load([make_object(chain_id(stream=stream), start, frames)])
        assert result.rows == len(frames)
        self._offsets[stream] += len(frames)
        self._load_id = result.load_id or 0
        return frames

    def ask(self, model: str, columns: str) -> list[tuple[Any, ...]]:
        """Rows that a silver model makes of the last load."""
        sql = re.sub(r"load_id > \d+", f"load_id > {self._load_id - 1}", self._sql[model])
        sql = re.sub(r"load_id <= \d+", f"load_id <= {self._load_id}", sql)
        return self._warehouse.cursor().execute(f"select {columns} from ({sql})").fetchall()

    def close(self) -> None:
        self._warehouse.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("fuzz"))
    yield bench
    bench.close()


Outcome = Counter[tuple[Any, ...]]
"""What came of each element or frame: message number and figures, or message number and reason."""


def outcome_of_silver(bench: Bench) -> Outcome:
    trades = bench.ask("trades", "session_seq, symbol, price, trade_size")
    return Counter([*trades, *bench.ask("rejected_trades", "session_seq, reason")])


def outcome_of_audit(frames: Sequence[bytes], kind: str) -> Outcome:
    found: Outcome = Counter()
    for seq, frame in enumerate(frames):
        read = frame_of(decode_envelope(frame))
        assert read is not None
        if read.payload is None:
            found[seq, "not_json"] += 1
            continue
        elements = read_elements(kind, read.payload, read.symbol)
        found.update((seq, *trade) for trade in elements.trades)
        found.update((seq, reason) for reason in elements.reasons)
    return found


def check(bench: Bench, payloads: Sequence[bytes], kind: str) -> Outcome:
    frames = bench.load(payloads, kind, SYMBOLS.get(kind))
    in_silver, expected = outcome_of_silver(bench), outcome_of_audit(frames, kind)

    assert in_silver == expected
    return in_silver


@pytest.mark.parametrize("kind", TRADE_KINDS)
def test_real_messages_are_trades(kind: str, bench: Bench) -> None:
    found = check(bench, SEEDS[kind], kind)

    assert any(len(key) == 4 for key in found)


@FUZZ
@given(payloads=st.lists(payloads_of("finnhub.ws"), min_size=1, max_size=12))
@example(payloads=[b'{"type":[]}', b"null", b'{"type":"trade","data":[{"s":"A","s":"B"}]}'])
@example(payloads=[b'{"type":"trade","data":[{"s":"A","p":1,"v":9e-124,"t":1723213800000}]}'])
@example(payloads=[b'{"type":"trade","data":[{"s":"A","p":%s,"v":1,"t":1}]}' % (b"1" * 5000)])
def test_no_element_of_a_finnhub_message_disappears(payloads: list[bytes], bench: Bench) -> None:
    check(bench, payloads, "finnhub.ws")


@FUZZ
@given(payloads=st.lists(payloads_of("binance.ws"), min_size=1, max_size=12))
def test_no_trade_of_a_binance_message_disappears(payloads: list[bytes], bench: Bench) -> None:
    check(bench, payloads, "binance.ws")


FIGURES = {
    "price": "c", "change": "d", "change_percent": "dp", "day_open": "o", "day_high": "h",
    "day_low": "l", "previous_close": "pc",
}  # fmt: skip
"""Columns of silver's quotes and Finnhub's names for them."""


def quotes_of_silver(bench: Bench) -> Outcome:
    columns = "session_seq, symbol, cast(epoch(quoted_at) as bigint)"
    rows = bench.ask("quotes", f"{columns}, {', '.join(FIGURES)}")
    quotes = [
        (
            seq, symbol, seconds,
            sum((figure * WEIGHTS[name] for figure, name in zip(figures, FIGURES.values(),
                strict=True) if figure is not None), Decimal(0)),
        )
        for seq, symbol, seconds, *figures in rows
    ]  # fmt: skip
    return Counter([*quotes, *bench.ask("rejected_quotes", "session_seq, reason")])


def quotes_of_audit(frames: Sequence[bytes], kind: str) -> Outcome:
    found: Outcome = Counter()
    for seq, frame in enumerate(frames):
        read = frame_of(decode_envelope(frame))
        assert read is not None
        quote = read_quote(kind, read.symbol, read.payload)
        if isinstance(quote, str):
            found[seq, quote] += 1
        else:
            found[seq, quote.symbol, quote.quoted_s, quote.total] += 1
    return found


@FUZZ
@given(
    payloads=st.lists(payloads_of("finnhub.quote"), min_size=1, max_size=12),
    symbol=st.sampled_from(["AAPL", "AAPL", "BINANCE:BTCUSDT", "x; drop", "", None]),
    kind=st.sampled_from(["finnhub.quote", "finnhub.quote", "finnhub.http.500", "odd"]),
)
@example(payloads=SEEDS["finnhub.quote"], symbol="AAPL", kind="finnhub.quote")
@example(payloads=[b'{"c":9e-124,"t":1723233600}'], symbol="AAPL", kind="finnhub.quote")
def test_every_answer_to_a_quote_is_a_quote_or_a_reject(
    payloads: list[bytes], symbol: str | None, kind: str, bench: Bench
) -> None:
    frames = bench.load(payloads, kind, symbol, Stream.QUOTES)
    in_silver = quotes_of_silver(bench)

    assert in_silver == quotes_of_audit(frames, kind)
    assert sorted(key[0] for key in in_silver.elements()) == list(range(len(payloads)))


@FUZZ
@given(payloads=st.lists(payloads_of("binance.trades"), min_size=1, max_size=12))
def test_no_trade_of_a_page_of_old_trades_disappears(payloads: list[bytes], bench: Bench) -> None:
    check(bench, payloads, "binance.trades")


@FUZZ
@given(payloads=st.lists(payloads_of("finnhub.tick"), min_size=1, max_size=12))
def test_no_tick_of_a_page_disappears(payloads: list[bytes], bench: Bench) -> None:
    check(bench, payloads, "finnhub.tick")


@FUZZ
@given(
    payloads=st.lists(payloads_of("finnhub.profile2"), min_size=1, max_size=6),
    symbol=st.sampled_from(["AAPL", "ZZZZ", "x; drop", "", None]),
)
@example(payloads=SEEDS["finnhub.profile2"], symbol="AAPL")
@example(payloads=[b'{"name":"X","marketCapitalization":9999999999.99}'], symbol="ZZZZ")
@example(payloads=[b'{"name":"X","marketCapitalization":1e308}'], symbol="ZZZZ")
def test_no_profile_stops_the_instruments(
    payloads: list[bytes], symbol: str | None, bench: Bench
) -> None:
    bench.load(payloads, "finnhub.profile2", symbol, Stream.REFERENCE)
    found = bench.ask("instruments", "symbol, name, market_cap, profile_at")
    renewed = [row for row in found if row[3] is not None]

    assert len({row[0] for row in found}) == len(found) > 500
    assert len(renewed) <= 1
    assert all(name == symbol and cap != 0 for name, _, cap, _ in renewed)
    if payloads == SEEDS["finnhub.profile2"] and symbol == "AAPL":
        assert [row[1:3] for row in renewed] == [("Apple Inc", Decimal(1_415_993_250_000))]
