"""Floating-point multiplication."""

from amaranth.hdl import Mux, Signal, signed
from amaranth.lib import data

from edgeaccel.pe.float import (
    FP32,
    Unpacked,
    denormalise,
    leading_zeros,
    normalise,
    pack,
    shift_exponent,
    underflow,
    unpack,
)
from edgeaccel.pe.pipeline import Pipelined, place_registers
from edgeaccel.pe.product import product

__all__ = ["FloatMultiplier", "multiply"]

N_PRODUCT_CUTS = 3
N_CUTS = 2 + N_PRODUCT_CUTS


class FloatMultiplier(Pipelined):
    """Product of two numbers and a power of two, rounded once: o = round(a * b * 2**exponent).

    This is multiplication (IEEE 754-2019 section 5.4.1) and scaleB (section 5.3.3) with no rounding between them. Zero
    times infinity is NaN. Equals `edgeaccel.golden.float.multiply`. One product a cycle. It costs one multiplier of the
    significands' widths, one DSP48E2: 24 x 11 bits for FP32 x FP16; for FP32 x FP32 24 x 17, and 24 x 7 in LUTs.

    Parameters
    ----------
    a_format, b_format, o_format : FloatFormat
        Of the operands and of the product.
    exponent_width : int
        Width of the signed exponent; 0 for none, which is 2**0.
    depth : int
        Register stages, 1 to 5; the default leaves about six levels of logic, or the multiplier, between two of them.

    Members
    -------
    i : stream of {a, b: codes of their formats, exponent: signed(exponent_width)}
        No `exponent` if that is 0 bits wide.
    o : stream of codes of o_format
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If `depth` is out of range or `exponent_width` negative.
    """

    def __init__(self, a_format=FP32, b_format=FP32, o_format=FP32, *, exponent_width=0, depth=5):
        if exponent_width < 0:
            raise ValueError(f"exponent_width must be at least 0, not {exponent_width!r}")
        self.a_format, self.b_format, self.o_format = a_format, b_format, o_format
        self.exponent_width = exponent_width
        self._registers = place_registers(N_CUTS, depth)
        operands = {"a": a_format.width, "b": b_format.width}
        if exponent_width:
            operands["exponent"] = signed(exponent_width)
        super().__init__({"i": data.StructLayout(operands)}, o_format.width, cycles=depth)

    name = "multiplier"

    @property
    def key(self):
        return self.a_format, self.b_format, self.o_format, self.exponent_width, tuple(self._registers)

    def datapath(self, pipe, i):
        m = pipe.m
        counted, normalised, *registers = self._registers
        a, b = unpack(m, i.a, self.a_format, "a"), unpack(m, i.b, self.b_format, "b")
        if self.exponent_width:
            reach = 1 << self.exponent_width - 1
            b = shift_exponent(m, b, i.exponent, range(-reach, reach), "b_scaled")
        a, b, a_zeros, b_zeros = pipe.cut(
            counted,
            a=a,
            b=b,
            a_zeros=leading_zeros(m, a.significand),
            b_zeros=leading_zeros(m, b.significand),
        )
        a, b = pipe.cut(
            normalised,
            a=normalise(m, a, a_zeros, "a_normalised"),
            b=normalise(m, b, b_zeros, "b_normalised"),
        )
        return multiply(pipe, a, b, self.o_format, registers)


def multiply(pipe, a, b, format, registers=(False,) * N_PRODUCT_CUTS):
    """Code of round(a * b), the operands normalised `Unpacked` numbers, through the three places for `registers`."""
    multiplied, shifted, rounded = registers
    m = pipe.m
    a_layout, b_layout = a.shape(), b.shape()

    # The first bit of a product counts twice the product of the first bits.
    change = format.bias - (a_layout.bias + b_layout.bias - 1)
    start = a_layout.exponents.start + b_layout.exponents.start + change
    stop = a_layout.exponents.stop + b_layout.exponents.stop - 1 + change
    layout = Unpacked(range(start, stop), a_layout.significand_width + b_layout.significand_width, bias=format.bias)
    x = Signal(layout, name="product")
    m.d.comb += [
        x.significand.eq(product(a.significand, b.significand)),
        x.exponent.eq(a.exponent + b.exponent + change),
        x.sign.eq(a.sign ^ b.sign),
        x.is_inf.eq(a.is_inf | b.is_inf),
        x.is_nan.eq(a.is_nan | b.is_nan | (a.is_inf & ~b.significand[-1]) | (b.is_inf & ~a.significand[-1])),
    ]
    x, distance = pipe.cut(multiplied, x=x, distance=underflow(m, x, format))

    # A leading zero goes if the exponent allows it: then nothing was shifted right.
    x = denormalise(m, x, distance, format, "shifted")
    stays = x.significand[-1] | (x.exponent <= 1)
    x = Unpacked(range(start - 1, stop), len(x.significand), bias=format.bias).signal(
        m,
        x,
        "normalised",
        significand=Mux(stays, x.significand, x.significand << 1),
        exponent=x.exponent - ~stays,
    )
    x = pipe.cut(shifted, x=x)
    return pipe.cut(rounded, result=pack(m, x, format))
