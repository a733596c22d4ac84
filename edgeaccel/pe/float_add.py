"""Floating-point addition."""

from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.lib import data

from edgeaccel.pe.float import (
    EXTRA_BITS,
    FP32,
    Unpacked,
    clip_distance,
    leading_zeros,
    pack,
    shift_right_sticky,
    unpack,
)
from edgeaccel.pe.pipeline import Pipelined, place_registers

__all__ = ["FloatAdder", "add"]

N_CUTS = 5


class FloatAdder(Pipelined):
    """Sum of two numbers, rounded once: o = round(a + b) (IEEE 754-2019 section 5.4.1, addition).

    The sum of two numbers that cancel is +0 (section 6.3). Equals `edgeaccel.golden.float.add`. One sum a cycle.

    Parameters
    ----------
    format : FloatFormat
        Of operands and sum.
    depth : int
        Register stages, 1 to 5; the default leaves about six levels of logic between two of them.

    Members
    -------
    i : stream of {a, b: codes of the format}
    o : stream of codes of the format
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If `depth` is out of range.
    """

    def __init__(self, format=FP32, *, depth=5):
        self.format = format
        self._registers = place_registers(N_CUTS, depth)
        operands = data.StructLayout({"a": format.width, "b": format.width})
        super().__init__({"i": operands}, format.width, cycles=depth)

    name = "adder"

    @property
    def key(self):
        return self.format, tuple(self._registers)

    def datapath(self, pipe, i):
        return add(pipe, i.a, i.b, self.format, self._registers)


def add(pipe, a, b, format, registers=(False,) * N_CUTS):
    """Code of round(a + b), through the five places for `registers` of a pipe."""
    ordered, aligned, added, normalised, rounded = registers
    m = pipe.m
    a, b = unpack(m, a, format, "a"), unpack(m, b, format, "b")
    layout = a.shape()

    # The larger number stays in place; its sign is that of the sum.
    swap = Signal()
    large = Signal(layout)
    small = Signal(layout)
    subtract = Signal()
    cancel = Signal()
    a_magnitude, b_magnitude = (Cat(x.significand, x.exponent) for x in (a, b))
    m.d.comb += [
        swap.eq(a_magnitude < b_magnitude),
        large.eq(Mux(swap, b, a)),
        small.eq(Mux(swap, a, b)),
        subtract.eq(a.sign ^ b.sign),
        cancel.eq(subtract & (a_magnitude == b_magnitude)),
    ]
    x = layout.signal(m, large, "ordered", sign=large.sign & ~cancel, is_nan=large.is_nan | (large.is_inf & cancel))
    addend_width = format.significand_width + EXTRA_BITS
    distance = clip_distance((large.exponent - small.exponent)[: format.exponent_width], addend_width)
    x, addend, distance, subtract = pipe.cut(
        ordered, x=x, addend=small.significand, distance=distance, subtract=subtract
    )

    # Where more than one bit is lost, the difference has at most one leading zero.
    addend = shift_right_sticky(Cat(Const(0, EXTRA_BITS), addend), distance)
    x, addend, subtract = pipe.cut(aligned, x=x, addend=addend, subtract=subtract)

    # The pair of bits below carries the one of the two's complement in.
    raw = Signal(addend_width + 2)
    total = Signal(addend_width + 1)
    m.d.comb += [
        raw.eq(
            Cat(subtract, Const(0, EXTRA_BITS), x.significand)
            + Cat(subtract, addend ^ subtract.replicate(addend_width))
        ),
        total.eq(Cat(raw[1:-1], raw[-1] & ~subtract)),
    ]
    x, total, zeros = pipe.cut(added, x=x, total=total, zeros=leading_zeros(m, total))

    # The first bit counts twice the larger one's. If there are more leading zeros than the exponent allows, some stay,
    # and the exponent does not count.
    shift = Signal.like(zeros)
    m.d.comb += shift.eq(Mux(zeros < x.exponent, zeros, x.exponent))
    exponents = range(layout.exponents.start, layout.exponents.stop + 1)
    x = Unpacked(exponents, len(total), bias=format.bias).signal(
        m, x, "total", significand=total << shift, exponent=x.exponent + 1 - zeros
    )
    x = pipe.cut(normalised, x=x)
    return pipe.cut(rounded, result=pack(m, x, format))
