"""Sizes and condition codes of prints, at the frequencies of the consolidated tape of 2026."""

from math import exp, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from tickhouse.source.simulator.draws import TABLE, Bits, Ints, field, table

ODD_LOT_ENTRIES: Final = TABLE * 3 // 4
HUNDRED_ENTRIES: Final = TABLE * 15 // 100
BLOCK_TRADE_ENTRIES: Final = 40
BLOCK_TRADE_SIZE: Final = 10_000

CONTINUOUS, OPENING, OFFICIAL_OPEN, CLOSING, OFFICIAL_CLOSE, RE_OPENING = range(6)
"""Kinds of prints: those of continuous trading, and those of auctions."""

_ODD_LOT: Final = (
    (5487, b'["1","12"]', b'["1","24","12"]'),
    (2800, b'["1","8","12"]', b'["1","8","24","12"]'),
    (1350, b'["1","12","41"]', b'["1","24","12","41"]'),
    (300, b'["1","12","32"]', b'["1","24","12","32"]'),
    (60, b'["12","3"]', b'["24","12","3"]'),
    (3, b'["12","21"]', b'["24","12","21"]'),
)
_ROUND_LOT: Final = (
    (4500, b'["1"]', b'["1","24"]'),
    (2800, b'["1","8"]', b'["1","8","24"]'),
    (1400, b"[]", b'["24"]'),
    (937, b'["1","41"]', b'["1","24","41"]'),
    (300, b'["1","32"]', b'["1","24","32"]'),
    (60, b'["3"]', b'["24","3"]'),
    (3, b'["21"]', b'["24","21"]'),
)
"""Weight of 10,000, codes in regular trading, codes outside it (24: Form T)."""
_AUCTIONS: Final = (b'["1","19"]', b'["1","20"]', b'["1","36"]', b'["1","16"]', b'["1","34"]')
"""Codes of the kinds after `CONTINUOUS`."""

CONDITIONS: Final = (
    *(codes for _, codes, _ in _ODD_LOT + _ROUND_LOT),
    *(codes for _, _, codes in _ODD_LOT + _ROUND_LOT),
    *_AUCTIONS,
)
"""Condition codes as they stand in a frame."""
FORM_T: Final = len(_ODD_LOT) + len(_ROUND_LOT)
"""Added to a condition outside regular trading."""
AUCTIONS: Final = 2 * FORM_T
"""The condition of the first kind after `CONTINUOUS`."""


def _size_table() -> Ints:
    """Sizes: three quarters odd lots, 15 % exactly 100, the rest larger, a few blocks."""
    small = [sqrt(size) - sqrt(size - 1) for size in range(1, 100)]
    odd = 1 + table(small, ODD_LOT_ENTRIES)
    count = TABLE - ODD_LOT_ENTRIES - HUNDRED_ENTRIES
    normal = NormalDist(0.9, 0.9)
    larger = [
        100 * max(2, round(exp(normal.inv_cdf((place + 0.5) / count)))) for place in range(count)
    ]
    larger[-BLOCK_TRADE_ENTRIES:] = [
        BLOCK_TRADE_SIZE + 1000 * place for place in range(BLOCK_TRADE_ENTRIES)
    ]
    return np.concatenate([odd, np.full(HUNDRED_ENTRIES, 100), larger]).astype(np.int64)


_SIZES: Final = _size_table()
_CONDITIONS: Final = np.concatenate(
    [
        table([weight for weight, _, _ in _ODD_LOT]),
        len(_ODD_LOT) + table([weight for weight, _, _ in _ROUND_LOT]),
    ]
)
SIZE_MEAN: Final = float(_SIZES.mean())


def sizes_and_conditions(bits: Bits) -> tuple[Ints, Ints]:
    """Shares, and places in `CONDITIONS`, of prints of continuous trading in regular hours.

    Args:
        bits: random, of which the lower 32 are used.
    """
    lot = field(bits, 0)
    is_round = lot >= ODD_LOT_ENTRIES
    return _SIZES[lot], _CONDITIONS[field(bits, 16) + is_round * TABLE]
