"""Lane pair: two digits times one activation mantissa, in one multiplier.

Two products that share a factor fit one wide multiplication:

    (upper * 2**s + lower) * mantissa  =  upper * mantissa * 2**s  +  lower * mantissa

A digit is at most 15 in magnitude, so a product with a `b`-bit mantissa takes `s = b + 4` signed bits. The lower `s`
bits of the wide product are then the lower product, and the bits above are the upper product, less one if the lower is
negative. For 16-bit mantissas the packed factor has 25 bits: one DSP48E2, which multiplies 27 x 18 (AMD UG579). It
holds mantissas of up to 18 bits.
"""

from amaranth.hdl import Cat, signed
from amaranth.lib import data

from edgeaccel.pe.pipeline import Pipelined

__all__ = ["MANTISSA_BITS", "LanePair", "check_mantissa_bits", "pack", "split"]

MANTISSA_BITS = range(8, 19)


def check_mantissa_bits(mantissa_bits):
    if mantissa_bits not in MANTISSA_BITS:
        raise ValueError(
            f"mantissa_bits must be {MANTISSA_BITS[0]} to {MANTISSA_BITS[-1]}, what one DSP48E2 multiplies by two"
            f" digits, not {mantissa_bits!r}"
        )


def pack(lower, upper, mantissa_bits):
    """The factor that holds both digits: upper * 2**(mantissa_bits + 4) + lower, of mantissa_bits + 9 bits."""
    shift = mantissa_bits + 4
    borrow = lower[-1]
    # In logic, because arithmetic would become a carry chain in every pair.
    upper_field = Cat(bit ^ (borrow & ~upper[:place].any()) for place, bit in enumerate(upper))
    return Cat(lower, borrow.replicate(shift - len(lower)), upper_field).as_signed()


def split(product, mantissa_bits):
    """The two products in the wide one: (lower, upper, borrow), where upper + borrow is the upper product."""
    shift = mantissa_bits + 4
    return product[:shift].as_signed(), product[shift : 2 * shift].as_signed(), product[shift - 1]


class LanePair(Pipelined):
    """Two products of one mantissa, one pair a cycle, in one DSP48E2.

    lower = lower_digit * mantissa,  upper = upper_digit * mantissa

    Equals `edgeaccel.golden.pe.lane_pair`. In the group datapath the borrow is not corrected in each pair as here, but
    goes into the carry inputs of the adder tree, for nothing.

    Parameters
    ----------
    mantissa_bits : int
        8 to 18.

    Members
    -------
    i : stream of {lower, upper: signed(5), -15 to 15; mantissa: signed(mantissa_bits)}
    o : stream of {lower, upper: signed(mantissa_bits + 4)}
    latency : int
        4 cycles.
    """

    def __init__(self, *, mantissa_bits=16):
        check_mantissa_bits(mantissa_bits)
        self.mantissa_bits = mantissa_bits
        product = signed(mantissa_bits + 4)
        i = data.StructLayout({"lower": signed(5), "upper": signed(5), "mantissa": signed(mantissa_bits)})
        super().__init__({"i": i}, data.StructLayout({"lower": product, "upper": product}), cycles=3)

    def datapath(self, pipe, i):
        packed, mantissa = pipe.stage(packed=pack(i.lower, i.upper, self.mantissa_bits), mantissa=i.mantissa)
        product = pipe.stage(product=packed * mantissa)
        lower, upper, borrow = split(product, self.mantissa_bits)
        lower, upper = pipe.stage(lower=lower, upper=(upper + borrow)[: len(upper)])
        return Cat(lower, upper)
