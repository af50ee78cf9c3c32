"""What the connection reads of a message; whatever comes, nothing breaks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tiny_socket import OPEN, PING, TOO_MANY, FakeClock, trade
from tickhouse.model.calendar import new_york
from tickhouse.source.finnhub.messages import TRADE_END, ask, read_message
from tickhouse.source.finnhub.rounds import Rounds

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "type", "s"]), inner),
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_payload_raises(payload: bytes) -> None:
    message = read_message(payload)

    assert message is None or all(isinstance(symbol, str) for symbol in message.symbols)


@pytest.mark.parametrize(
    "payload",
    [b"[" * 100_000, b'{"data":' * 50_000, b'{"data":[{"s":1}]}', b'{"type":7}', b"\xff\xfe", b""],
)
def test_what_is_no_message_is_none(payload: bytes) -> None:
    assert read_message(payload) is None


def test_messages_are_told_apart() -> None:
    traded, ping, refused = (read_message(m.encode()) for m in (trade("A", "B"), PING, TOO_MANY))

    assert traded is not None
    assert ping is not None
    assert refused is not None
    assert traded.symbols == {"A", "B"}
    assert traded.data
    assert not ping.data
    assert [message.is_too_many for message in (traded, ping, refused)] == [False, False, True]
    assert trade("A").encode().endswith(TRADE_END)


def test_one_symbol_is_asked_for_a_message() -> None:
    assert ask("unsubscribe", "BINANCE:BTCUSDT") == (
        '{"type":"unsubscribe","symbol":"BINANCE:BTCUSDT"}'
    )


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 400))
def test_no_polled_symbol_is_asked_for_twice_before_each_was_asked_for_once(
    polled: int, beside: int, turns: int
) -> None:
    clock = FakeClock(OPEN)
    rounds = Rounds(clock=clock, calendar=new_york())
    counts = dict.fromkeys((f"P{n}" for n in range(polled)), 0)
    others = dict.fromkeys((f"B{n}" for n in range(beside)), 0)
    for _ in range(turns):
        symbol = rounds.next(list(counts), list(others))
        assert symbol is not None
        mine = counts if symbol in counts else others
        mine[symbol] += 1
        clock.elapsed_s += 1.0
        assert max(counts.values()) - min(counts.values()) <= 1

    assert sum(counts.values()) >= turns * 3 // 4
    assert all(count <= clock.elapsed_s // 300 + 1 for count in others.values())
