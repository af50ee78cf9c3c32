"""A block: trades of consecutive frames, as arrays."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tickhouse.source.simulator.draws import Ints, draw, is_below, ranges
from tickhouse.source.simulator.faults import DISCONNECTED, REPEATED, REVERSED, Faults

Flags = NDArray[np.uint8]
_REVERSE, _REPEAT, _DISCONNECT = (1 << 60, 2 << 60, 3 << 60)


class Block(msgspec.Struct, frozen=True):
    """Trades of consecutive frames of a shard.

    Attributes:
        first: number of the first frame.
        bounds: frame n of the block holds trades `bounds[n] .. bounds[n + 1]`.
        symbol: index in the shard's symbols, per trade.
        price: in 1e-4 dollars, per trade; `NO_PRICE` stands for null.
        size: shares, per trade.
        condition: index in `CONDITIONS`, per trade.
        event_ms: time of the trade, per trade, on the market's own scale, milliseconds.
        due_us: delivery, per frame, on the same scale, microseconds.
        frame_faults: `REPEATED`, `REVERSED`, `DISCONNECTED`, per frame.
        pace_us: added to `due_us` gives market time, which leaves out closed hours.
    """

    first: int
    bounds: Ints
    symbol: Ints
    price: Ints
    size: Ints
    condition: Ints
    event_ms: Ints
    due_us: Ints
    frame_faults: Flags
    pace_us: int = 0

    @property
    def end(self) -> int:
        """Number after the last frame."""
        return self.first + len(self.bounds) - 1

    def trades(self, start: int, end: int) -> slice:
        """Where the trades of the frames `start .. end` are."""
        first, last = self.bounds[start - self.first], self.bounds[end - self.first]
        return slice(int(first), int(last))


def frame_flags(faults: Faults, frame_key: int, numbers: Ints) -> Flags:
    """Which faults strike frames of these numbers."""
    flags = np.zeros(len(numbers), dtype=np.uint8)
    for rate, purpose, flag in (
        (faults.out_of_order, _REVERSE, REVERSED),
        (faults.double_delivery, _REPEAT, REPEATED),
        (faults.disconnect, _DISCONNECT, DISCONNECTED),
    ):
        if rate:
            flags[is_below(draw(frame_key ^ purpose, numbers), rate)] |= flag
    return flags


def gather(
    bounds: Ints, frames: Ints, is_reversed: NDArray[np.bool_] | None = None
) -> tuple[Ints, Ints]:
    """Bounds, and the place of each print, where `frames` are delivered.

    Args:
        bounds: of the frames there are.
        frames: which to deliver, in order; any of them more than once.
        is_reversed: per delivered frame, whether its trades come newest first.
    """
    counts = np.diff(bounds)[frames]
    place = ranges(counts)
    if is_reversed is not None:
        last = np.repeat(counts - 1, counts)
        place = np.where(np.repeat(is_reversed, counts), last - place, place)
    order = np.repeat(bounds[:-1][frames], counts) + place
    return np.concatenate([[0], np.cumsum(counts)]), order
