"""What goes wrong, and how: faults of the socket, of single frames, of REST answers."""

import json
import random
from collections import Counter, deque
from typing import Final

CONNECTION: Final = ("drop_close", "drop_reset", "second_connection", "silence", "delay")
FRAME: Final = (
    "triplicate",
    "newest_first",
    "null_price",
    "added_field",
    "removed_field",
    "renamed_field",
    "half_json",
    "garbage",
    "binary",
    "oversize",
)
REST: Final = (
    "rest_429_json",
    "rest_429_text",
    "rest_429_empty",
    "rest_200_error",
    "rest_5xx",
    "rest_hang",
    "rest_garbage",
    "rest_half_json",
    "rest_zero_quote",
)
KINDS: Final = (*CONNECTION, *FRAME, *REST)
OVERSIZE_BYTES: Final = (1 << 20) + 1000
DELAY_S: Final = 2.0

LIMIT_REACHED: Final = b'{"error":"API limit reached. Please try again later. Remaining Limit: 0"}'
LIMIT_REACHED_2020: Final = b"API limit reached. Please try again later."


class Faults:
    """Faults that wait to strike.

    Attributes:
        frames: what happens to the next frames, one each.
        rest: what happens to the next answers to `/quote`, one each.
        is_silent: the connection stays open, and nothing is sent on it any more.
        lag_s: frames come so much later.
        struck: how often each fault has struck.
    """

    def __init__(self) -> None:
        self.frames: deque[str] = deque()
        self.rest: deque[str] = deque()
        self.is_silent = False
        self.lag_s = 0.0
        self.struck: Counter[str] = Counter()

    def next_frame(self) -> str | None:
        """The fault of the frame that is about to be sent."""
        if not self.frames:
            return None
        kind = self.frames.popleft()
        self.struck[kind] += 1
        return kind

    def next_answer(self) -> str | None:
        """The fault of the answer that is about to be given."""
        if not self.rest:
            return None
        kind = self.rest.popleft()
        self.struck[kind] += 1
        return kind


def spoil(payload: bytes, kind: str | None, chance: random.Random) -> list[bytes | str]:
    """What is sent instead of a trade frame; bytes go as a binary message, text as text."""
    text = payload.decode()
    if kind is None:
        return [text]
    if kind == "triplicate":
        return [text] * 3
    if kind == "half_json":
        return [text[: chance.randrange(1, len(text) - 1)]]
    if kind == "garbage":
        return ["<html><body>502 Bad Gateway</body></html>"]
    if kind == "binary":
        return [b"\xff\xfe\x00" + payload]
    return [json.dumps(_changed(json.loads(text), kind, chance), separators=(",", ":"))]


def _changed(message: dict, kind: str, chance: random.Random) -> dict:
    trades = message["data"]
    one = chance.choice(trades)
    if kind == "newest_first":
        trades.sort(key=lambda trade: -trade["t"])
    elif kind == "null_price":
        one["p"] = None
    elif kind == "added_field":
        one["x"] = {"venue": 5}
        message["seq"] = 1
    elif kind == "removed_field":
        del one[chance.choice(["p", "v", "t", "s"])]
    elif kind == "renamed_field":
        one["price"] = one.pop("p")
    elif kind == "oversize":
        message["pad"] = "x" * OVERSIZE_BYTES
    else:
        raise ValueError(kind)
    return message
