"""From an integer block sum to a scaled FP32 number."""

from amaranth.hdl import Mux, Signal, signed
from amaranth.lib import data

from edgeaccel.pe.float import (
    FP16,
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
from edgeaccel.pe.float_convert import N_INT_CUTS, int_to_float
from edgeaccel.pe.float_multiply import N_PRODUCT_CUTS, multiply
from edgeaccel.pe.pipeline import Pipelined, place_registers

__all__ = ["SCALES", "Scaler"]

SCALES = ("fp16", "e8m0")
E8M0_BIAS = 128  # for digits that are twice the value


class Scaler(Pipelined):
    """A block sum times the scale of its weights and the power of two of its activations.

    o = round(round(sum) * scale * 2**exponent), both roundings to FP32: the sum first, then the product, once. NaN if
    `nan` is set, if the scale is NaN, or for zero times an infinite scale.

    A scale is FP16, or its low 8 bits are E8M0 (OCP Microscaling Formats v1.0 section 5.4.1): 2**(code - 127), 255 is
    NaN. E8M0 scales belong to MXFP4, whose digits are twice the elements' values: here such a code counts
    2**(code - 128).

    Equals `edgeaccel.golden.float.scale`. One number a cycle. FP16 scales cost one multiplier of 24 x 11 bits, one
    DSP48E2; E8M0 alone has none.

    Parameters
    ----------
    sum_width : int
        Of the signed block sum, 1 to 64.
    scales : collection of str
        Scale types in the build: 'fp16', 'e8m0' or both.
    exponent_width : int
        Of the signed exponent, at least 1.
    depth : int
        Register stages, 1 to 7; the default leaves about six levels of logic, or the multiplier, between two of them.

    Members
    -------
    i : stream of {sum: signed(sum_width), scale: 16 bits, exponent: signed(exponent_width), nan: 1, e8m0: 1}
        `nan` tells that the activations were not finite, `e8m0` of which type the scale is; it is left out if the
        build has only one.
    o : stream of FP32 codes
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If `scales` is empty or has other types, or a width or `depth` is out of range.
    """

    def __init__(self, sum_width, *, scales=("fp16",), exponent_width=9, depth=6):
        if sum_width not in range(1, 65):
            raise ValueError(f"sum_width must be 1 to 64 bits, not {sum_width!r}")
        if exponent_width < 1:
            raise ValueError(f"exponent_width must be at least 1, not {exponent_width!r}")
        if not scales or isinstance(scales, str) or not set(scales) <= set(SCALES):
            raise ValueError(f"scales must be one or both of {SCALES}, not {scales!r}")
        self.sum_width = sum_width
        self.exponent_width = exponent_width
        self.scales = tuple(scale for scale in SCALES if scale in scales)
        self._registers = place_registers(N_INT_CUTS + N_PRODUCT_CUTS, depth)
        fields = {"sum": signed(sum_width), "scale": 16, "exponent": signed(exponent_width), "nan": 1}
        if len(self.scales) > 1:
            fields["e8m0"] = 1
        super().__init__({"i": data.StructLayout(fields)}, FP32.width, cycles=depth)

    def datapath(self, pipe, i):
        m = pipe.m
        code = i.scale[:8]
        if "fp16" in self.scales:
            pipe.carry(nan=i.nan)
            branch = pipe.branch("scale")
            self._carry_scale(branch, i)
        else:
            pipe.carry(nan=i.nan | code.all(), power=code + i.exponent)

        total = int_to_float(pipe, i.sum, FP32, self._registers[:N_INT_CUTS])
        total = unpack(m, total, FP32, "unpacked")
        # An integer is neither subnormal nor special.
        total = total.shape().signal(m, total, "total", is_inf=0, is_nan=pipe.take("nan"))

        registers = self._registers[N_INT_CUTS:]
        if "fp16" in self.scales:
            branch.wait(pipe.cycles)
            return multiply(pipe, total, branch.scale, FP32, registers)
        multiplied, shifted, rounded = registers
        powers = range(self._powers.start, self._powers.stop + 255)
        x = shift_exponent(m, total, pipe.take("power"), powers, "product", bias=E8M0_BIAS)
        x, distance = pipe.cut(multiplied, x=x, distance=underflow(m, x, FP32))
        x = pipe.cut(shifted, x=denormalise(m, x, distance, FP32, "shifted"))
        return pipe.cut(rounded, result=pack(m, x, FP32))

    @property
    def _powers(self):
        return range(-(1 << self.exponent_width - 1), 1 << self.exponent_width - 1)

    def _carry_scale(self, pipe, i):
        """Let `scale`, the normalised scale times the power of two, travel in a pipe beside that of the sum."""
        m = pipe.m
        _, counted, normalised, _ = self._registers[:N_INT_CUTS]
        pipe.carry(power=i.exponent)
        scale = unpack(m, i.scale, FP16, "half")
        if "e8m0" in self.scales:
            scale = _either(m, scale, i.scale[:8], i.e8m0)
        scale, zeros = pipe.cut(counted, scale=scale, zeros=leading_zeros(m, scale.significand))
        scale = normalise(m, scale, zeros, "normalised")
        scale = shift_exponent(m, scale, pipe.take("power"), self._powers, "factor")
        pipe.carry(scale=pipe.cut(normalised, scale=scale))


def _either(m, half, code, is_e8m0):
    """The scale that is an unpacked FP16 number, or an E8M0 code."""
    layout = half.shape()
    change = E8M0_BIAS - layout.bias
    x = Signal(Unpacked(range(256), layout.significand_width, bias=E8M0_BIAS), name="either")
    one = 1 << layout.significand_width - 1
    m.d.comb += [
        x.significand.eq(Mux(is_e8m0, one, half.significand)),
        x.exponent.eq(Mux(is_e8m0, code, half.exponent + change)),
        x.sign.eq(half.sign & ~is_e8m0),
        x.is_inf.eq(half.is_inf & ~is_e8m0),
        x.is_nan.eq(Mux(is_e8m0, code.all(), half.is_nan)),
    ]
    return x
