"""The envelope: payloads untouched, every record one line, nothing refused."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickhouse.model.frame import (
    decode_envelope,
    encode_frames,
    is_strict_json_line,
    splice_positions,
)


def frames_of(*payloads: bytes) -> list[bytes]:
    return encode_frames(
        payloads, source="finnhub.ws", session="s-1", first_seq=5, received_at_ns=17
    )


def test_a_json_payload_is_kept_byte_for_byte() -> None:
    payload = b'{"data":[{"p":164.0601,  "s":"AAPL"}],"type":"trade"}'

    (frame,) = frames_of(payload)

    assert frame == (
        b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":5,"rx":17,"sym":null,"raw":' + payload + b"}"
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"API limit reached",
        b'{"p":NaN}',
        b'{"half":',
        b'{"two":1}\n{"lines":2}',
        b"",
        b"[" * 80 + b"]" * 80,
        '{"é'.encode(),
    ],
)
def test_other_text_is_kept_as_a_json_string(payload: bytes) -> None:
    (frame,) = frames_of(payload)

    assert json.loads(frame)["text"].encode() == payload


def test_bytes_that_are_not_utf8_are_kept_in_base64() -> None:
    payload = b'{"a":"\xff"}'

    (frame,) = frames_of(payload)

    assert base64.b64decode(json.loads(frame)["b64"]) == payload


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_payload_comes_back_from_its_envelope(payloads: list[bytes]) -> None:
    frames = frames_of(*payloads)

    for seq, (payload, frame) in enumerate(zip(payloads, frames, strict=True), 5):
        envelope = decode_envelope(frame)
        assert envelope is not None
        assert envelope.seq == seq
        text = b"" if envelope.text is None else envelope.text.encode()
        kept = bytes(envelope.raw) or text or base64.b64decode(envelope.b64 or "")
        assert kept == payload


PAYLOADS = [
    b"1",
    b'{"s":"A"}',
    b"",
    b"not json",
    b'{"a":"\xff"}',
    b"[1,\n2]",
    b"[1]\r",
    '"é"'.encode(),
]


@given(st.lists(st.sampled_from(PAYLOADS), max_size=5))
def test_a_payload_is_wrapped_the_same_whatever_came_with_it(payloads: list[bytes]) -> None:
    alone = [
        encode_frames([payload], source="s", session="x", first_seq=seq, received_at_ns=17)[0]
        for seq, payload in enumerate(payloads)
    ]

    assert encode_frames(payloads, source="s", session="x", first_seq=0, received_at_ns=17) == alone
    for payload, frame in zip(payloads, alone, strict=True):
        assert (b'"raw":' in frame) == is_strict_json_line(payload)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=9))
def test_strict_json_agrees_with_the_standard_library(value: object) -> None:
    text = json.dumps(value)
    payload = text.encode()

    is_strict = "NaN" not in text and "Infinity" not in text and "\\ud" not in text.lower()

    if is_strict or '"' not in text:
        assert is_strict_json_line(payload) is is_strict


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"junk",
        b"{}",
        b"null",
        b'{"v":2,"src":"x","ses":"s","seq":1,"rx":1,"raw":1}',
        b'{"v":1,"src":"x","ses":"s","seq":"1","rx":1,"raw":1}',
        b'{"v":1,"src":"x","ses":"s","seq":1,"rx":1}',
        b'{"v":1,"src":"x","ses":"s","seq":1,"rx":1,"raw":1,"text":"both"}',
        b'{"v":1,"src":"x","ses":"s","seq":1,"rx":1,"raw":{"a":\n1}}',
        b'{"v":1,"src":"x","ses":"s","seq":1,"rx":1,"raw":"\xff"}',
        b'{"v":1,"src":"x","ses":"s","seq":1,"rx":1,"raw":1}trailing',
    ],
)
def test_a_record_that_is_not_an_envelope_is_landed_as_poison(record: bytes) -> None:
    spliced = splice_positions([record], topic_id="epoch", part=3, offsets=[90], log_times_ms=[7])

    line = json.loads(spliced.lines[0])
    assert line == {
        "t": "epoch", "p": 3, "o": 90, "lt": 7, "poison_b64": base64.b64encode(record).decode()
    }  # fmt: skip
    assert spliced.rx_min is None


def test_a_position_is_spliced_in_front_without_touching_the_payload() -> None:
    frames = frames_of(b'{"p":1.50}', b'{"p":2}')

    spliced = splice_positions(
        frames, topic_id="epoch", part=3, offsets=[90, 92], log_times_ms=[7, 8]
    )

    assert spliced.lines[1] == b'{"t":"epoch","p":3,"o":92,"lt":8,' + frames[1][1:]
    assert (spliced.rx_min, spliced.rx_max) == (17, 17)


def one_by_one(values: list[bytes], offsets: list[int]) -> list[bytes]:
    """Lines as a reader of a single record would make them."""
    return [
        splice_positions(
            [value], topic_id="epoch", part=3, offsets=[at], log_times_ms=[at // 7]
        ).lines[0]
        for value, at in zip(values, offsets, strict=True)
    ]


def session_of(count: int, *, first: int = 0, session: str = "s-1") -> list[bytes]:
    return [
        frame
        for seq in range(first, first + count)
        for frame in encode_frames(
            [b'{"n":%d}' % seq],
            source="finnhub.ws",
            session=session,
            first_seq=seq,
            received_at_ns=1_732_300_000_000_000_000 + (seq * 7919) % 1_000,
        )
    ]


ODD_RECORDS = [
    b"",
    b"\n",
    b"{}",
    b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":10,"rx":5,"sym":null,"raw":1}',
    b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":1x,"rx":1732300000000000000,"sym":null,"raw":1}\n',
    b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":12,"rx":1732300000000000000,"raw":"\xff"}',
    b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":12,"rx":1732300000000000000,"raw":1}trailing',
    b'{"v":1,"src":"other","ses":"s-2","seq":10,"rx":1732300000000000001,"sym":"A","raw":1}',
    b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":12,"rx":173230000000000000,"sym":null,"raw":1}',
    b'{"v":1,"src":"finnhub.ws","ses":"s-1","seq":12,"rx":17323000000000000000,"sym":null,"raw":1}',
]


@given(
    st.integers(min_value=0, max_value=12_000),
    st.integers(min_value=1, max_value=40),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(ODD_RECORDS)), max_size=3),
)
def test_records_checked_together_give_the_lines_and_times_that_each_gives_alone(
    first: int, count: int, odd: list[tuple[int, bytes]]
) -> None:
    values = session_of(count, first=first)
    for place, record in odd:
        values.insert(place, record)
    offsets = [first + 3 * place for place in range(len(values))]

    spliced = splice_positions(
        values, topic_id="epoch", part=3, offsets=offsets, log_times_ms=[at // 7 for at in offsets]
    )

    received = [envelope.rx for value in values if (envelope := decode_envelope(value))]
    assert spliced.lines == one_by_one(values, offsets)
    assert spliced.text == b"".join(line + b"\n" for line in spliced.lines)
    assert (spliced.n, spliced.rx_min, spliced.rx_max) == (
        len(values), min(received), max(received)
    )  # fmt: skip


def test_thousands_of_records_are_one_text_in_order() -> None:
    values = session_of(4_321, first=9_000)

    spliced = splice_positions(
        values, topic_id="e", part=0, offsets=range(4_321), log_times_ms=[1] * 4_321
    )

    assert spliced.n == len(spliced.lines) == 4_321
    assert [json.loads(line)["o"] for line in spliced.lines] == list(range(4_321))
    assert all(line.endswith(value[1:]) for line, value in zip(spliced.lines, values, strict=True))


def test_a_payload_that_is_no_json_inside_a_right_head_makes_one_line_that_does_not_parse() -> None:
    """The whole is checked by its heads; the loader makes a poison row of such a line."""
    values = session_of(3, first=10)
    values[1] = values[1].replace(b'"raw":{"n":11}', b'"raw":{"n":,,}')

    spliced = splice_positions(
        values, topic_id="e", part=0, offsets=[0, 1, 2], log_times_ms=[1, 1, 1]
    )

    assert spliced.lines[1] == b'{"t":"e","p":0,"o":1,"lt":1,' + values[1][1:]
    with pytest.raises(json.JSONDecodeError):
        json.loads(spliced.lines[1])
