"""Quotes are read out of log records by the rules by which silver takes them."""

from typing import Any

import pytest

from support.dashboard import quote_frame
from tickhouse.dashboard.quotes import Quote, read_quote
from tickhouse.model.frame import encode_frames

AT = 1_723_471_200_000


def frame(**changes: Any) -> bytes:
    return quote_frame("AAPL", 162.65, AT - 61_000, at_ms=AT, **changes)


def raw(payload: bytes, *, symbol: str | None = "AAPL") -> bytes:
    return encode_frames(
        [payload], source="finnhub.quote", session="q", first_seq=0, received_at_ns=AT * 1_000_000,
        symbol=symbol,
    )[0]  # fmt: skip


def test_an_answer_is_a_price_with_its_time_and_receipt() -> None:
    assert read_quote(frame()) == Quote("AAPL", 162.65, AT - 61_000, AT, "finnhub.quote")
    replayed = read_quote(frame(source="replay:finnhub.quote"))
    assert replayed is not None


def test_numbers_may_be_text_and_fields_may_come_and_go() -> None:
    assert read_quote(raw(b'{"c":"162.65","t":"1723471139","new":[1]}')) == Quote(
        "AAPL", 162.65, AT - 61_000, AT, "finnhub.quote"
    )


@pytest.mark.parametrize(
    "value",
    [
        frame(source="finnhub.http.429"),
        frame(error="API limit reached."),
        frame(c=0),
        frame(c=-1),
        frame(c=None),
        frame(c=1e308),
        frame(t=0),
        frame(t=2**63),
        frame(t=AT),
        raw(b'{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'),
        raw(b"[]"),
        raw(b'{"c":1}'),
        raw(b"Too many requests"),
        raw(b"\xff\xfe"),
        raw(b'{"c":162.65,"t":1723471139}', symbol=None),
        b"poison",
        b"",
    ],
)
def test_what_is_no_quote_is_none(value: bytes) -> None:
    assert read_quote(value) is None
