"""Conversion to floating point, from another format and from integers."""

from amaranth.hdl import Signal, signed

from edgeaccel.pe.float import (
    FP32,
    Unpacked,
    denormalise,
    leading_zeros,
    normalise,
    pack,
    underflow,
    unpack,
)
from edgeaccel.pe.pipeline import Pipelined, place_registers

__all__ = ["FloatConverter", "IntToFloat", "convert", "int_to_float"]

N_INT_CUTS = 4


class FloatConverter(Pipelined):
    """A number in another format: o = round(i) (IEEE 754-2019 section 5.4.2, convertFormat).

    Equals `edgeaccel.golden.float.convert`. One number a cycle. There is logic only for what the two formats ask for:
    subnormals are normalised if `o_format` reaches further down than `i_format`, small numbers denormalised if it does
    not reach as far, fractions rounded if its own are shorter.

    Parameters
    ----------
    i_format, o_format : FloatFormat
    depth : int
        Register stages, 1 to the number of steps: 2 between FP32 and FP16 either way, 1 between FP32 and BF16. All of
        them by default.

    Members
    -------
    i : stream of codes of i_format
    o : stream of codes of o_format
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If `depth` is out of range.
    """

    def __init__(self, i_format, o_format, *, depth=None):
        self.i_format, self.o_format = i_format, o_format
        n_cuts = 1 + sum(_steps(i_format, o_format))
        depth = n_cuts if depth is None else depth
        self._registers = place_registers(n_cuts, depth)
        super().__init__({"i": i_format.width}, o_format.width, cycles=depth)

    name = "converter"

    @property
    def key(self):
        return self.i_format, self.o_format, tuple(self._registers)

    def datapath(self, pipe, i):
        return convert(pipe, i, self.i_format, self.o_format, self._registers)


def _steps(i_format, o_format):
    """Whether a conversion normalises, and whether it denormalises."""
    normalises = o_format.bias > i_format.bias
    smallest = 1 - i_format.significand_width if normalises else 1
    return normalises, smallest + o_format.bias - i_format.bias < 1


def convert(pipe, bits, i_format, o_format, registers=None):
    """Code of round(bits) in `o_format`, with a place for one of `registers` of the pipe after each step."""
    m = pipe.m
    normalises, denormalises = _steps(i_format, o_format)
    registers = iter(registers or (False, False, False))
    x = unpack(m, bits, i_format, "unpacked")
    if normalises:
        x = pipe.cut(next(registers), x=normalise(m, x, leading_zeros(m, x.significand), "normalised"))
    x = denormalise(m, x, underflow(m, x, o_format), o_format, "shifted")
    if denormalises:
        x = pipe.cut(next(registers), x=x)
    return pipe.cut(next(registers), result=pack(m, x, o_format))


class IntToFloat(Pipelined):
    """A signed integer as a floating-point number: o = round(i) (IEEE 754-2019 section 5.4.1, convertFromInt).

    Zero is +0. Equals `edgeaccel.golden.float.int_to_float`. One number a cycle.

    Parameters
    ----------
    width : int
        Of the two's complement integer, 1 to 64.
    o_format : FloatFormat
    depth : int
        Register stages, 1 to 4; the default leaves about six levels of logic between two of them.

    Members
    -------
    i : stream of signed(width)
    o : stream of codes of o_format
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If `width` or `depth` is out of range.
    """

    def __init__(self, width, o_format=FP32, *, depth=3):
        if width not in range(1, 65):
            raise ValueError(f"width must be 1 to 64 bits, not {width!r}")
        self.width = width
        self.o_format = o_format
        self._registers = place_registers(N_INT_CUTS, depth)
        super().__init__({"i": signed(width)}, o_format.width, cycles=depth)

    def datapath(self, pipe, i):
        return int_to_float(pipe, i, self.o_format, self._registers)


def int_to_float(pipe, integer, format, registers=(False,) * N_INT_CUTS):
    """Code of round(integer) in `format`, through the four places for `registers` of a pipe."""
    negated, counted, normalised, rounded = registers
    m = pipe.m
    width = len(integer)
    sign = integer[-1]
    magnitude = Signal(width)
    # One carry chain, which abs() is not.
    m.d.comb += magnitude.eq((integer ^ sign.replicate(width)) + sign)
    sign, magnitude = pipe.cut(negated, sign=sign, magnitude=magnitude)
    sign, magnitude, zeros = pipe.cut(counted, sign=sign, magnitude=magnitude, zeros=leading_zeros(m, magnitude))
    largest = format.bias + width - 1
    x = Signal(Unpacked(range(largest - width, largest + 1), width, bias=format.bias), name="normalised")
    m.d.comb += [
        x.significand.eq(magnitude << zeros),
        x.exponent.eq(largest - zeros),
        x.sign.eq(sign),
    ]
    x = pipe.cut(normalised, x=x)
    return pipe.cut(rounded, result=pack(m, x, format))
