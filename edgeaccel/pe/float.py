"""Binary floating point: formats, and the pieces that the float datapaths share.

All float units follow IEEE 754-2019 for binary interchange formats, rounding to nearest, ties to even (section 4.3.1).
Underflow is gradual: subnormals are taken and made (section 7.5). Zeros and infinities are signed, overflow gives an
infinity (section 7.4). There are no flags and no signalling NaNs: every NaN result is the canonical quiet NaN, positive
with nothing but the first bit of the fraction (section 6.2.1), whatever the operands were.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.lib import data
from amaranth.utils import ceil_log2

__all__ = [
    "BF16",
    "EXTRA_BITS",
    "FP16",
    "FP32",
    "FloatFormat",
    "Unpacked",
    "clip_distance",
    "denormalise",
    "leading_zeros",
    "normalise",
    "pack",
    "shift_exponent",
    "shift_right_sticky",
    "underflow",
    "unpack",
]

# Below the last bit of a result: guard, round and sticky bit. Two would do but for results with a leading zero.
EXTRA_BITS = 3


@dataclass(frozen=True)
class FloatFormat:
    """A binary interchange format: sign, biased exponent, fraction (IEEE 754-2019 section 3.4).

    Parameters
    ----------
    exponent_width : int
        At least 2.
    fraction_width : int
        Without the hidden bit; at least 1.

    Raises
    ------
    ValueError
        For a width below its minimum.
    """

    exponent_width: int
    fraction_width: int

    def __post_init__(self):
        for name, minimum in (("exponent_width", 2), ("fraction_width", 1)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} must be at least {minimum}, not {getattr(self, name)!r}")

    @property
    def width(self):
        return 1 + self.exponent_width + self.fraction_width

    @property
    def significand_width(self):
        return 1 + self.fraction_width

    @property
    def bias(self):
        return (1 << self.exponent_width - 1) - 1

    @property
    def special_exponent(self):
        """The exponent field of infinities and NaNs."""
        return (1 << self.exponent_width) - 1

    @property
    def infinity(self):
        """Code of positive infinity."""
        return self.special_exponent << self.fraction_width

    @property
    def nan(self):
        """Code of the canonical NaN."""
        return self.infinity | 1 << self.fraction_width - 1

    @property
    def layout(self):
        return data.StructLayout({"fraction": self.fraction_width, "exponent": self.exponent_width, "sign": 1})


FP32 = FloatFormat(exponent_width=8, fraction_width=23)
FP16 = FloatFormat(exponent_width=5, fraction_width=10)
BF16 = FloatFormat(exponent_width=8, fraction_width=7)


class Unpacked(data.StructLayout):
    """A number inside a datapath: (-1)**sign * significand * 2**(exponent - bias - (significand_width - 1)).

    It is *normalised* if the first bit of the significand is set for all but zero.

    Parameters
    ----------
    exponents : range
        What the exponent may be; a datapath has logic for no more than that.
    significand_width : int
    bias : int
    """

    def __init__(self, exponents, significand_width, *, bias):
        super().__init__({"significand": significand_width, "exponent": exponents, "sign": 1, "is_inf": 1, "is_nan": 1})
        self.exponents = exponents
        self.significand_width = significand_width
        self.bias = bias

    def signal(self, m, x, name, **changes):
        """A number of this layout that is `x` but for the fields given."""
        y = Signal(self, name=name)
        m.d.comb += [y[field].eq(changes.get(field, x[field])) for field in self.members]
        return y


def unpack(m, bits, format, name):
    """The number that a code stands for; subnormals stay as they are, with the smallest exponent."""
    fields = format.layout(bits)
    is_normal = fields.exponent.any()
    is_special = fields.exponent.all()
    layout = Unpacked(range(1, format.special_exponent + 1), format.significand_width, bias=format.bias)
    x = Signal(layout, name=name)
    m.d.comb += [
        x.sign.eq(fields.sign),
        x.exponent.eq(fields.exponent | ~is_normal),
        x.significand.eq(Cat(fields.fraction, is_normal)),
        x.is_inf.eq(is_special & ~fields.fraction.any()),
        x.is_nan.eq(is_special & fields.fraction.any()),
    ]
    return x


def leading_zeros(m, value):
    """Zeros in front of the first one of a value, its width if there is none: a balanced tree."""
    if len(value) == 1:
        return ~value
    # The first half is a power of two wide: its count has the top bit set for "all zero" and then no other.
    half = 1 << ceil_log2(len(value)) - 1
    first, second = leading_zeros(m, value[-half:]), leading_zeros(m, value[:-half])
    count = Signal(range(len(value) + 1), name="leading_zeros")
    top = first[-1]
    if len(value) == 2 * half:
        m.d.comb += count.eq(Cat(Mux(top, second, first)[:-1], top & ~second[-1], top & second[-1]))
    else:
        m.d.comb += count.eq(Mux(top, half | second, first))
    return count


def normalise(m, x, zeros, name):
    """The number with its leading zeros, as counted by `leading_zeros`, shifted out."""
    layout = x.shape()
    exponents = range(layout.exponents.start - layout.significand_width, layout.exponents.stop)
    return Unpacked(exponents, layout.significand_width, bias=layout.bias).signal(
        m, x, name, significand=x.significand << zeros, exponent=x.exponent - zeros
    )


def shift_exponent(m, x, power, powers, name, *, bias=0):
    """The number times 2**(power - bias), `power` being one of `powers` (a range)."""
    layout = x.shape()
    exponents = range(layout.exponents.start + powers.start, layout.exponents.stop + powers.stop - 1)
    return Unpacked(exponents, layout.significand_width, bias=layout.bias + bias).signal(
        m, x, name, exponent=x.exponent + power
    )


def clip_distance(distance, width):
    """A distance for `shift_right_sticky` in the few bits that a value of `width` bits needs.

    From the largest of them on, nothing but the sticky bit is left.
    """
    n = ceil_log2(width)
    return distance[:n] | distance[n:].any().replicate(n)


def shift_right_sticky(value, distance):
    """`value >> distance`, its last bit set if any bit that was shifted out is."""
    lost = value & Cat(distance > place for place in range(len(value)))
    return (value >> distance) | lost.any()


def underflow(m, x, format):
    """How far `denormalise` has to shift a number: by as much as its exponent is below the smallest of `format`."""
    smallest = 1 + x.shape().bias - format.bias
    if x.shape().exponents.start >= smallest:
        return Const(0, 0)
    distance = Signal(range(smallest - x.shape().exponents.start + 1))
    m.d.comb += distance.eq(Mux(x.exponent < smallest, smallest - x.exponent, 0))
    return clip_distance(distance, format.significand_width + EXTRA_BITS)


def denormalise(m, x, distance, format, name):
    """The number with the exponent bias of `format`, shifted right by its `underflow`.

    What does not fit into the significand and its extra bits is kept in the last of these.
    """
    layout = x.shape()
    change = format.bias - layout.bias
    exponents = range(layout.exponents.start + change, layout.exponents.stop + change)
    significand = x.significand
    excess = len(significand) - (format.significand_width + EXTRA_BITS)
    if excess > 0:
        significand = Cat(significand[: excess + 1].any(), significand[excess + 1 :])
    if len(distance):
        significand = shift_right_sticky(Cat(Const(0, max(0, -excess)), significand), distance)
    return Unpacked(exponents, len(significand), bias=format.bias).signal(
        m, x, name, significand=significand, exponent=x.exponent + change
    )


def pack(m, x, format):
    """The code of `format` nearest to a number, ties to even.

    The number has the exponent bias of `format`. It is normalised, or less than the smallest normal number and then
    denormalised: its exponent counts only if the first bit of the significand is set.
    """
    layout = x.shape()
    excess = layout.significand_width - format.significand_width
    if excess > 0:
        kept, guard, sticky = (
            x.significand[excess:],
            x.significand[excess - 1],
            x.significand[: excess - 1].any(),
        )
        round_up = guard & (sticky | kept[0])
    else:
        kept, round_up = Cat(Const(0, -excess), x.significand), 0
    is_normal = kept[-1]
    fraction = kept[: format.fraction_width]
    exponent = x.exponent[: format.exponent_width] & is_normal.replicate(format.exponent_width)

    is_inf = x.is_inf
    if layout.exponents.stop > format.special_exponent:
        is_inf |= is_normal & (x.exponent >= format.special_exponent)
    magnitude = Signal(format.width - 1)
    result = Signal(format.width)
    # A carry out of the fraction moves the exponent on, up to infinity.
    m.d.comb += magnitude.eq(Cat(fraction, exponent) + round_up)
    with m.If(x.is_nan):
        m.d.comb += result.eq(format.nan)
    with m.Else():
        m.d.comb += result.eq(Cat(Mux(is_inf, format.infinity, magnitude), x.sign))
    return result
