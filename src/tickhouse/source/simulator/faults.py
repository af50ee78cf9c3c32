"""Faults that can be switched on: what goes wrong, how often, and what must become of it."""

from typing import Final

import msgspec

from tickhouse.source.parameters import Parameters

ALL: Final = "all"
REPEATED: Final = 1
"""Bits of `Block.frame_faults`: the frame is delivered for the second time,"""
REVERSED: Final = 2
"""its trades come newest first,"""
DISCONNECTED: Final = 4
"""the connection ends before it."""
NO_PRICE: Final = -1
"""Price of a print that is written with `"p":null`."""
LATE_US_MIN: Final = 2_000_000
LATE_US_MAX: Final = 30_000_000


class Faults(msgspec.Struct, frozen=True):
    """How often each fault happens; 0 = never.

    Attributes:
        late: share of prints delivered 2 to 30 s after their time; still trades.
        out_of_order: share of frames whose trades come newest first; still trades.
        double_delivery: share of frames delivered twice in a row; counts twice, because nothing
            tells a repeat from two equal prints.
        null_price: share of prints with `"p":null`; reject `missing_price`.
        zero_price: share of prints with `"p":0`; reject `bad_price`.
        zero_size: share of prints with `"v":0`; reject `zero_size`.
        zero_quote: share of minutes in which a symbol's `/quote` answers zeros (a double's matter:
            the simulator itself delivers no quotes).
        halt: share of symbols and days with a halt of five minutes and a re-opening print.
        disconnect: share of frames before which the connection ends.
    """

    late: float = 0.0
    out_of_order: float = 0.0
    double_delivery: float = 0.0
    null_price: float = 0.0
    zero_price: float = 0.0
    zero_size: float = 0.0
    zero_quote: float = 0.0
    halt: float = 0.0
    disconnect: float = 0.0

    @property
    def text(self) -> str:
        """As an address gives it; empty where nothing is switched on."""
        usual = msgspec.structs.asdict(ALL_FAULTS)
        rates = {name: rate for name, rate in msgspec.structs.asdict(self).items() if rate}
        has_all = len(rates) == len(usual)
        unusual = [f"{name}:{rate!r}" for name, rate in rates.items() if rate != usual[name]]
        named = [name for name, rate in rates.items() if rate == usual[name]]
        return ",".join([*([ALL] if has_all else named), *unusual])


ALL_FAULTS: Final = Faults(
    late=0.005,
    out_of_order=0.005,
    double_delivery=0.001,
    null_price=0.0001,
    zero_price=0.0001,
    zero_size=0.0001,
    zero_quote=0.01,
    halt=0.02,
    disconnect=0.00001,
)
"""Every fault as often as `faults=all` has it."""
NAMES: Final = Faults.__struct_fields__


def read_faults(parameters: Parameters) -> Faults:
    """The parameter `faults`: a list of names, each with its own rate if it likes.

    `all` stands for every name; those named beside it go by their own rate.

    Raises:
        ConfigError: an unknown name, a name given twice, or a rate that is not one.
    """
    text = parameters.text("faults")
    if text is None:
        return Faults()
    parts = [part.partition(":") for part in text.split(",")]
    names = [name for name, _, _ in parts]
    if len(set(names)) < len(names) or not set(names) <= {ALL, *NAMES}:
        raise parameters.bad("faults", f"all, or some of {', '.join(NAMES)}; each once")
    rates: dict[str, float] = {}
    for name, colon, rate in sorted(parts, key=lambda part: part[0] != ALL):
        for each in NAMES if name == ALL else (name,):
            rates[each] = _rate(parameters, rate) if colon else getattr(ALL_FAULTS, each)
    return Faults(**rates)


def _rate(parameters: Parameters, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if 0.0 <= rate <= 1.0:
        return rate
    raise parameters.bad("faults", "rates from 0 to 1, such as late:0.005")
