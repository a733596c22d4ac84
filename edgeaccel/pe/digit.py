"""Digit decoder: what each 4-bit code of a word stands for."""

from amaranth.hdl import Cat, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum

from edgeaccel.formats import FORMATS, check_lanes, get_format
from edgeaccel.pe.pipeline import Pipelined

__all__ = ["DigitDecoder", "FormatCode", "check_formats", "choose", "decode", "is_format"]


class FormatCode(enum.Enum, shape=unsigned(2)):
    """A format's number on the wire."""

    INT4 = FORMATS["int4"].code
    INT8 = FORMATS["int8"].code
    INT16 = FORMATS["int16"].code
    MXFP4 = FORMATS["mxfp4"].code


def check_formats(formats):
    """The formats of a build as a tuple in the table's order; ValueError for none, unknown or repeated ones."""
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    for name in formats:
        get_format(name)
    if not formats or len(set(formats)) != len(formats):
        raise ValueError(f"formats must be one or more of {', '.join(FORMATS)}, each once, not {formats!r}")
    return tuple(name for name in FORMATS if name in formats)


def is_format(format, names, formats):
    """Whether the running format is one of `names`, in a build of `formats`: a bool if the build alone tells."""
    present = [name for name in formats if name in names]
    if len(present) in (0, len(formats)):
        return bool(present)
    return Cat(format == FormatCode[name.upper()] for name in present).any()


def choose(condition, then, otherwise):
    """A multiplexer, or just the chosen input if the build alone tells which."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    return Mux(condition, then, otherwise)


def decode(m, code, format, formats, *, lane, lanes):
    """The digit of a code, a signed(5) signal.

    digit(c) = c                        low digits of INT8 and 16-bit elements
             = c - 16 * (c >= 8)        INT4, and the highest digit of an element
             = 2 * E2M1(c)              MXFP4: 0, 1, 2, 3, 4, 6, 8, 12 with a sign

    Which digit of its element a lane holds follows from its place alone: odd lanes hold the higher digit of INT8
    elements, odd lanes of the upper half the highest of 16-bit elements.
    """
    signed_formats = {"int4"}
    if lane % 2:
        signed_formats |= {"int8", "int16"} if lane >= lanes // 2 else {"int8"}
    integer = Cat(code, code[3] & is_format(format, signed_formats, formats)).as_signed()
    digit = Signal(signed(5), name=f"digit{lane}")
    m.d.comb += digit.eq(choose(is_format(format, ("mxfp4",), formats), _twice_e2m1(code), integer))
    return digit


def _twice_e2m1(code):
    """Sign, two exponent bits of bias 1, one fraction bit (OCP Microscaling v1.0, section 5.3.3), times two.

    In logic, bit by bit, because arithmetic would become a carry chain in every lane.
    """
    fraction, low, high, sign = code
    magnitude = [
        fraction & ~high,  # 1, 3
        (low & ~high) | (high & ~low & fraction),  # 2, 3, 6
        high & (~low | fraction),  # 4, 6, 12
        high & low,  # 8, 12
    ]
    negated = [bit ^ (sign & Cat(magnitude[:place]).any()) for place, bit in enumerate(magnitude)]
    return Cat(negated, sign & Cat(magnitude).any()).as_signed()


class DigitDecoder(Pipelined):
    """Decodes a word of 4-bit codes into signed digits, one word a cycle.

    Equals `edgeaccel.formats.Format.digit_table` at every lane's digit position. The group datapath has the same logic
    in front of its multipliers.

    Parameters
    ----------
    lanes : int
        Codes in a word, a power of two of at least 16.
    formats : tuple of str
        What the build can decode; the running format comes with each word.

    Members
    -------
    i : stream of {codes: 4 bits x lanes, format: FormatCode}
    o : stream of signed(5) x lanes
    latency : int
        2 cycles.
    """

    def __init__(self, *, lanes=128, formats=tuple(FORMATS)):
        check_lanes(lanes)
        self.lanes = lanes
        self.formats = check_formats(formats)
        i = data.StructLayout({"codes": data.ArrayLayout(4, lanes), "format": FormatCode})
        super().__init__({"i": i}, data.ArrayLayout(signed(5), lanes), cycles=1)

    def datapath(self, pipe, i):
        digits = [
            decode(pipe.m, code, i.format, self.formats, lane=lane, lanes=self.lanes)
            for lane, code in enumerate(i.codes)
        ]
        return Cat(pipe.stage(digit=digits))
