"""Lane pair: two digits times one activation mantissa, in one multiplier.

Two products that share a factor fit one wide multiplication:

    (upper * 2**s + lower) * mantissa  =  upper * mantissa * 2**s  +  lower * mantissa

A digit is at most 15 in magnitude, so a product with a `b`-bit mantissa takes `b + 4` signed bits, and the sum of `n`
of them `b + 4 + log2(n)`. With fields of `s` as many bits, the lower `s` bits of such a wide product, or of a sum of
`n`, are the lower sum, and the bits above are the upper one, less one if the lower is negative.

So products can be added before they are split, in the adders behind the multipliers of a chain of DSP48E2 (AMD UG579,
"Cascade Paths"), for no LUT. The packed factor has `s + 5` bits and a DSP48E2 multiplies 27 x 18: with 16-bit mantissas
four products can be added so, with 18-bit ones none.
"""

from amaranth.hdl import Cat, signed
from amaranth.lib import data
from amaranth.utils import exact_log2

from edgeaccel.pe.pipeline import Pipelined

__all__ = ["MANTISSA_BITS", "LanePair", "cascade_length", "check_mantissa_bits", "field_bits", "pack", "split"]

_FACTOR_BITS = 27
_DIGIT_BITS = 5
MANTISSA_BITS = range(8, 19)


def check_mantissa_bits(mantissa_bits):
    if mantissa_bits not in MANTISSA_BITS:
        raise ValueError(
            f"mantissa_bits must be {MANTISSA_BITS[0]} to {MANTISSA_BITS[-1]}, what one DSP48E2 multiplies by two"
            f" digits, not {mantissa_bits!r}"
        )


def field_bits(mantissa_bits, n=1):
    """Bits of the sum of `n` products, a power of two, of a digit and a mantissa."""
    return mantissa_bits + 4 + exact_log2(n)


def cascade_length(mantissa_bits, pairs):
    """How many of `pairs` packed products, a power of two, can be added before they are split."""
    return min(pairs, 1 << (_FACTOR_BITS - _DIGIT_BITS - field_bits(mantissa_bits)))


def pack(lower, upper, field):
    """The factor that holds both digits: upper * 2**field + lower, of field + 5 bits."""
    borrow = lower[-1]
    # In logic, because arithmetic would become a carry chain in every pair.
    upper_field = Cat(bit ^ (borrow & ~upper[:place].any()) for place, bit in enumerate(upper))
    return Cat(lower, borrow.replicate(field - len(lower)), upper_field).as_signed()


def split(total, field):
    """The two sums in a wide one: (lower, upper, borrow), where upper + borrow is the upper sum."""
    return total[:field].as_signed(), total[field : 2 * field].as_signed(), total[field - 1]


class LanePair(Pipelined):
    """Two products of one mantissa, one pair a cycle, in one DSP48E2.

    lower = lower_digit * mantissa,  upper = upper_digit * mantissa

    Equals `edgeaccel.golden.pe.lane_pair`. In the group datapath the borrow is not corrected in each pair as here:
    there is one for each chain of them, and it goes into the carry inputs of the adder tree, for nothing.

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
        self._field = field_bits(mantissa_bits)
        product = signed(self._field)
        i = data.StructLayout({"lower": signed(5), "upper": signed(5), "mantissa": signed(mantissa_bits)})
        super().__init__({"i": i}, data.StructLayout({"lower": product, "upper": product}), cycles=3)

    def datapath(self, pipe, i):
        packed, mantissa = pipe.stage(packed=pack(i.lower, i.upper, self._field), mantissa=i.mantissa)
        product = pipe.stage(product=packed * mantissa)
        lower, upper, borrow = split(product, self._field)
        lower, upper = pipe.stage(lower=lower, upper=(upper + borrow)[: len(upper)])
        return Cat(lower, upper)
