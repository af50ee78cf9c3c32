"""Trades as the bytes of Finnhub frames, formatted a block at a time."""

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Final

from tickhouse.source.simulator.block import Block
from tickhouse.source.simulator.draws import Ints
from tickhouse.source.simulator.faults import NO_PRICE
from tickhouse.source.simulator.marks import CONDITIONS
from tickhouse.source.simulator.prices import PRICE_UNITS

PRICES_MAX: Final = 1 << 20
"""Prices whose text is remembered."""
_TRADE: Final = b'{"c":%b,"p":%b,"s":"%b","t":%d,"v":%d}'


class FrameWriter:
    """Writes the frames of one shard.

    Args:
        symbols: those that `Block.symbol` counts.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = [symbol.encode() for symbol in symbols]
        self._prices = _PriceTexts()
        self._templates = _Templates()

    def write(self, block: Block, start: int, end: int, times_ms: Ints) -> list[bytes]:
        """Frames `start .. end` of a block.

        Args:
            block: the block that holds them.
            start: number of the first frame.
            end: number after the last frame.
            times_ms: event time of each of their trades, UNIX milliseconds UTC.
        """
        bounds = block.bounds[start - block.first : end - block.first + 1].tolist()
        counts = [after - before for before, after in pairwise(bounds)]
        trades = block.trades(start, end)
        if len(self._prices) > PRICES_MAX:
            self._prices.clear()
        fields = zip(
            map(CONDITIONS.__getitem__, block.condition[trades].tolist()),
            map(self._prices.__getitem__, block.price[trades].tolist()),
            map(self._symbols.__getitem__, block.symbol[trades].tolist()),
            times_ms.tolist(),
            block.size[trades].tolist(),
            strict=True,
        )
        template = b"".join(map(self._templates.__getitem__, counts))
        return (template % tuple(chain.from_iterable(fields))).split(b"\n")[:-1]


class _PriceTexts(dict[int, bytes]):
    """Text of a price in 1e-4 dollars, as Finnhub writes it: no zeros at the end."""

    def __missing__(self, units: int) -> bytes:
        if units == NO_PRICE:
            text = b"null"
        else:
            text = (b"%d.%04d" % divmod(units, PRICE_UNITS)).rstrip(b"0").rstrip(b".")
        self[units] = text
        return text


class _Templates(dict[int, bytes]):
    """Format of a frame of so many trades, with a newline after it."""

    def __missing__(self, count: int) -> bytes:
        text = b'{"data":[' + b",".join([_TRADE] * count) + b'],"type":"trade"}\n'
        self[count] = text
        return text
