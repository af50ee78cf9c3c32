"""Randomness by counter: bits are a hash of a key and a number, so any of them is had at once.

Only integer arithmetic, tables of integers and the four basic operations on floating-point numbers
(and square roots) are used: their results are the same on every machine and in every version of
numpy, which those of random distributions, `exp` or `pow` are not.
"""

from collections.abc import Sequence
from math import acos, cos, fsum, log, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bits = NDArray[np.uint64]

WORD: Final = 1 << 64
GOLDEN: Final = 0x9E3779B97F4A7C15
TABLE: Final = 1 << 16
UNIT: Final = 1 << 16
"""`EXPONENTIAL` has this mean."""
_FINE: Final = 1 << 20
_EXP_TERMS: Final = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)
_EXP_HALVINGS: Final = 3


def key(*parts: int) -> int:
    """A word that stands for these numbers."""
    word = 0
    for part in parts:
        word = _mix_word(word ^ _mix_word((part + GOLDEN) % WORD))
    return word


def keys(parts: Sequence[int], *prefix: int) -> Bits:
    """The keys of `(*prefix, part)` for each part."""
    return np.array([key(*prefix, part) for part in parts], dtype=np.uint64)


def _mix_word(word: int) -> int:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB % WORD
    return word ^ word >> 31


def draw(key_words: Bits | int, numbers: Ints) -> Bits:
    """64 random bits for each number under its key (SplitMix64; Steele, Lea, Flood 2014).

    Args:
        key_words: one key, or one a number.
        numbers: any whole numbers, below 0 too.
    """
    words = np.uint64(key_words) if isinstance(key_words, int) else key_words
    return scramble(numbers.astype(np.uint64) * np.uint64(GOLDEN) + words)


def scramble(word: Bits) -> Bits:
    """The finishing step of `draw`; changes its argument."""
    word ^= word >> np.uint64(30)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> np.uint64(27)
    word *= np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return word


def field(bits: Bits, shift: int, width: int = 16) -> Ints:
    """`width` of the bits as whole numbers."""
    return ((bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int64)


def is_below(bits: Bits, rate: float) -> NDArray[np.bool_]:
    """True for a share `rate` of random bits."""
    return bits < np.uint64(min(int(rate * WORD), WORD - 1))


def table(weights: Sequence[float], entries: int = TABLE) -> Ints:
    """The numbers 0 .. n - 1, each as often as its weight, over `entries` places."""
    total, reached, edges = fsum(weights), 0.0, [0]
    for weight in weights:
        reached += weight
        edges.append(round(reached / total * entries))
    return np.repeat(np.arange(len(weights)), np.diff(edges)).astype(np.int64)


def _quantiles() -> list[float]:
    return [(place + 0.5) / TABLE for place in range(TABLE)]


def _student(probability: float) -> float:
    """Quantile of Student's t with 4 degrees of freedom, scaled to variance 1."""
    alpha = 4 * probability * (1 - probability)
    size = 2 * sqrt(max(0.0, cos(acos(sqrt(alpha)) / 3) / sqrt(alpha) - 1))
    return (size if probability > 0.5 else -size) / sqrt(2)  # noqa: PLR2004 - the median


def _fine(values: Sequence[float]) -> Floats:
    """Rounded to whole steps, so that the last digit of a mathematical library has no say."""
    return np.array([round(value * _FINE) for value in values], dtype=np.float64) / _FINE


EXPONENTIAL: Final[Ints] = np.array([round(-UNIT * log(1 - q)) for q in _quantiles()])
STUDENT: Final[Floats] = _fine([_student(q) for q in _quantiles()])
NORMAL: Final[Floats] = _fine([NormalDist().inv_cdf(q) for q in _quantiles()])


def exp(exponent: Floats) -> Floats:
    """The exponential of numbers below 5 either way, to 1 in 10,000 or better."""
    small = exponent / (1 << _EXP_HALVINGS)
    result = np.zeros_like(small)
    for term in _EXP_TERMS:
        result = result * small + term
    for _ in range(_EXP_HALVINGS):
        result *= result
    return result


def ranges(counts: Ints) -> Ints:
    """The numbers 0 .. n - 1 for each count n, one after the other.

    >>> ranges(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)


def smoothed(noise: Floats, keep: float, history: int) -> Floats:
    """An Ornstein-Uhlenbeck process of variance 1 on a grid, from its noise of `history` steps.

    Args:
        noise: independent, variance 1; time is the first axis, `history` steps too early.
        keep: what is left of a value after one step.
        history: a power of two; what is older is forgotten.
    """
    total, reach, factor = noise * sqrt(1 - keep * keep), 1, keep
    while reach < history:
        total[reach:] += factor * total[:-reach].copy()
        reach, factor = 2 * reach, factor * factor
    return total[history:]
