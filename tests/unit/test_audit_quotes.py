"""The recount of quotes: one answer a frame, its reasons, its figures, and their sums."""

import json
from decimal import Decimal

import pytest

from tickhouse.audit.quotes import QuoteTally, read_quote
from tickhouse.audit.recount import Recount, read_line
from tickhouse.model.frame import encode_frames, splice_positions
from tickhouse.model.positions import Stream

AT = 1_723_213_800
KIND = "finnhub.quote"


def body(**fields: object) -> bytes:
    figures = {"c": 100, "d": -1, "dp": 2, "o": 3, "h": 4, "l": 5, "pc": 6, "t": AT} | fields
    return json.dumps(figures).encode()


@pytest.mark.parametrize(
    ("kind", "symbol", "payload", "reason"),
    [
        ("finnhub.http.429", "A", None, "http_429"),
        ("finnhub.http.4290", "A", body(), "unknown_shape"),
        (KIND, "A", None, "not_json"),
        ("odd", "A", body(), "unknown_shape"),
        (KIND, "A", b"[1]", "unknown_shape"),
        (KIND, "A", b"{}", "unknown_shape"),
        (KIND, "A", body(error="x", c=0), "error_answer"),
        (KIND, None, body(), "bad_symbol"),
        (KIND, "<b>", body(), "bad_symbol"),
        (KIND, "A", body(c=0), "no_data"),
        (KIND, "A", body(t=0, c=None), "no_data"),
        (KIND, "A", body(c=None), "bad_price"),
        (KIND, "A", body(c=1e308), "bad_price"),
        (KIND, "A", body(t=None), "bad_time"),
        (KIND, "A", body(t=AT * 1000), "bad_time"),
    ],
)
def test_an_answer_that_is_no_quote_has_its_first_reason(
    kind: str, symbol: str | None, payload: bytes | None, reason: str
) -> None:
    assert reason == read_quote(kind, symbol, payload)


def test_every_figure_has_a_weight_of_its_own_in_the_sum() -> None:
    quote, swapped = read_quote(KIND, "A", body()), read_quote(KIND, "A", body(o=4, h=3))

    assert not isinstance(quote, str)
    assert not isinstance(swapped, str)
    assert Decimal(100 - 2 + 3 * 2 + 5 * 3 + 7 * 4 + 11 * 5 + 13 * 6) == quote.total
    assert quote.total != swapped.total


def test_figures_that_are_zero_for_want_of_a_value_do_not_count() -> None:
    tally = QuoteTally()
    tally.add(KIND, "A", body(d=None, dp="x", o=0, h=-3, l=None, pc=0))
    tally.add(KIND, "A", body(d=0, dp=0, o=0, h=0, l=0, pc=0))

    assert (2, 2 * AT, Decimal(200)) == (
        tally.symbols["A"].count,
        tally.symbols["A"].seconds,
        tally.symbols["A"].total,
    )


def test_message_numbers_are_kept_apart_by_stream() -> None:
    values = encode_frames(
        [body(), body()], source=KIND, session="s", first_seq=0, received_at_ns=1, symbol="A"
    )
    lines = splice_positions(
        [*values, values[0], b"garbage"],
        topic_id="e1", part=0, offsets=range(4), log_times_ms=[1] * 4,
    ).lines  # fmt: skip
    recount = Recount()
    recount.add_lines(Stream.QUOTES, lines, is_built=True)
    recount.add(Stream.REFERENCE, read_line(lines[1]), is_built=False)
    recount.finish()
    track = recount.sessions["s"]

    assert [(0, 2)] == list(track.of(Stream.QUOTES).seen)
    assert [(1, 2)] == list(track.of(Stream.REFERENCE).seen)
    assert [] == list(track.seen)
    assert 1 == recount.repeated[Stream.QUOTES]
    assert {"poison_record": 1} == dict(recount.quotes.rejects)
    assert 2 == recount.quotes.symbols["A"].count
