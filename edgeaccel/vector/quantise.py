"""Vectors to the formats of the KV cache: integer codes that share a scale."""

from amaranth.hdl import Cat, Const, Mux, Signal, signed
from amaranth.lib import data
from amaranth.utils import ceil_log2

from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.float import (
    FP16,
    FP32,
    Unpacked,
    clip_distance,
    denormalise,
    leading_zeros,
    normalise,
    pack,
    shift_right_sticky,
    underflow,
    unpack,
)
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import check_lanes, check_max_length, vector_beat
from edgeaccel.vector.two_pass import TwoPass, applied

__all__ = ["CODE_WIDTH", "CodeMaker", "KVQuantiser", "ScaleFinder", "quantised_beat"]

CODE_WIDTH = 16
LARGEST_CODE = {FormatCode.INT4: 7, FormatCode.INT8: 127, FormatCode.INT16: 32767}
SMALLEST_SCALE = -24  # 2**-24, the smallest FP16 number
QUOTIENT_WIDTH = FP32.significand_width - 2


def _beat(lanes):
    return vector_beat(lanes, format=FormatCode)


def quantised_beat(lanes):
    """A vector beat of integer codes: element = code * scale."""
    return data.StructLayout(
        {
            "codes": data.ArrayLayout(signed(CODE_WIDTH), lanes),
            "keep": lanes,
            "last": 1,
            "format": FormatCode,
            "scale": FP16.width,
        }
    )


def _reciprocal(divisor):
    """(m, k) with significand // divisor == significand * m >> k for all FP32 significands.

    m = ceil(2**k / divisor) is too large by less than 1, so the product by less than 2**24; k makes 2**k / divisor, by
    which the next multiple is away, more than that. Bits 24 to k of a product are so zero for multiples alone.
    """
    k = FP32.significand_width + ceil_log2(divisor)
    return -(-(1 << k) // divisor), k


class ScaleFinder(Pipelined):
    """The scale of a vector, from its largest magnitude, as `edgeaccel.quantise.quantise` has it.

    int4, int8   scale = round(largest / q) to FP16, q = 7 or 127, but at least 2**-24
    int16        scale = 2**max(floor(log2(largest)) - 14, -24)

    A vector of zeros has the scale 0. If the vector holds a NaN or an infinity, or the scale is over FP16's range, it
    is NaN. Equals `edgeaccel.golden.quantise.scale`. One beat a cycle, without bubbles between vectors of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of vector beats with format: `FormatCode`, taken with the last beat
    o : stream of FP16 codes
        One for each vector.
    latency : int
        From a vector's last beat: log2(lanes) + 9 cycles.

    Raises
    ------
    ValueError
        If `lanes` is no power of two.
    """

    def __init__(self, *, lanes=8):
        check_lanes(lanes)
        super().__init__({"i": _beat(lanes)}, FP16.width, cycles=ceil_log2(lanes) + 8)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        m = pipe.m
        pipe.carry(last=i.last, format=i.format)
        magnitudes = pipe.stage(
            magnitude=[Mux(keep, code[:-1], 0) for keep, code in zip(i.keep, i.elements, strict=True)]
        )
        while len(magnitudes) > 1:
            pairs = zip(magnitudes[0::2], magnitudes[1::2], strict=True)
            magnitudes = pipe.stage(magnitude=[Mux(a > b, a, b) for a, b in pairs])
        begins = Signal(init=1)
        largest = Signal(FP32.width - 1, reset_less=True)
        with m.If(pipe.valid):
            m.d.sync += begins.eq(pipe.last)
            with m.If(begins | (magnitudes[0] > largest)):
                m.d.sync += largest.eq(magnitudes[0])
        pipe.stage()
        pipe.take("last")
        pipe.carry(power=self._power_of_two(m, largest), is_nan=largest >= FP32.infinity)
        scale = self._quotient(pipe, largest)
        scale = Mux(pipe.take("format") == FormatCode.INT16, pipe.take("power"), scale)
        is_nan = pipe.take("is_nan") | (scale >= FP16.infinity)
        return pipe.stage(scale=Mux(is_nan, FP16.nan, scale))

    def _power_of_two(self, m, largest):
        """Magnitude of the scale that is a power of two; infinity where FP16 has none."""
        power = Signal(signed(FP32.exponent_width + 1))  # over that of the smallest scale
        exponent = FP32.layout(Cat(largest, 0)).exponent
        m.d.comb += power.eq(exponent - (FP32.bias + CODE_WIDTH - 2) - SMALLEST_SCALE)
        biased = power + SMALLEST_SCALE + FP16.bias
        normal = Cat(Const(0, FP16.fraction_width), biased[: FP16.exponent_width])
        code = Mux(biased >= FP16.special_exponent, FP16.infinity, normal)
        code = Mux(biased < 1, (1 << power[:4])[: FP16.fraction_width], code)
        return Mux(largest.any(), Mux(power < 0, 1, code), 0)[: FP16.width - 1]

    def _quotient(self, pipe, largest):
        """Magnitude of round(largest / q), five stages later."""
        m = pipe.m
        x = unpack(m, Cat(largest, 0), FP32, "largest")
        is_int8 = pipe.format == FormatCode.INT8
        (m4, k4), (m8, k8) = (_reciprocal(LARGEST_CODE[code]) for code in (FormatCode.INT4, FormatCode.INT8))
        x, factor, is_int8 = pipe.stage(x=x, factor=Mux(is_int8, m8, m4), is_int8=is_int8)
        pipe.carry(exponent=x.exponent, is_int8=is_int8)
        product = pipe.stage(product=x.significand * factor)
        quotient, rest = (
            Mux(pipe.is_int8, *pair)
            for pair in (
                (product[k8:], product[k4:]),
                (product[FP32.significand_width : k8].any(), product[FP32.significand_width : k4].any()),
            )
        )
        quotient = Cat(rest, quotient[:QUOTIENT_WIDTH])
        # The last bit counts half a unit of the significand, whose first bit counts 2**(exponent - bias).
        change = len(quotient) - 1 - FP32.significand_width
        layout = Unpacked(range(1 + change, FP32.special_exponent + 1 + change), len(quotient), bias=FP32.bias)
        q = Signal(layout, name="quotient")
        m.d.comb += [q.significand.eq(quotient), q.exponent.eq(pipe.exponent + change)]
        q, zeros, nonzero = pipe.stage(q=q, zeros=leading_zeros(m, q.significand), nonzero=q.significand.any())
        pipe.take("exponent")
        pipe.take("is_int8")
        pipe.carry(nonzero=nonzero)
        q = pipe.stage(q=normalise(m, q, zeros, "normalised"))
        q = pipe.stage(q=denormalise(m, q, underflow(m, q, FP16), FP16, "shifted"))
        magnitude = pack(m, q, FP16)[: FP16.width - 1]
        return Mux(magnitude.any(), magnitude, pipe.take("nonzero"))


class CodeMaker(Pipelined):
    """Codes of a vector, given its scale: code = round(x / scale) to the nearest integer, ties to even.

    The quotient is exact, by long division of the significands, a bit a stage. Codes are at most 7, 127 or 32767 in
    magnitude; where the scale is 0 or NaN they are 0. Equals `edgeaccel.golden.quantise.codes`. One beat a cycle.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of {beat: vector beat with format, statistic: scale, an FP16 code}
    o : stream of {codes: signed(16) x lanes, keep, last, format, scale}
    latency : int
        23 cycles.

    Raises
    ------
    ValueError
        If `lanes` is no power of two.
    """

    def __init__(self, *, lanes=8):
        check_lanes(lanes)
        super().__init__({"i": applied(_beat(lanes), FP16.width)}, quantised_beat(lanes), cycles=CODE_WIDTH + 6)

    def datapath(self, pipe, i):
        m = pipe.m
        beat = i.beat
        pipe.carry(keep=beat.keep, last=beat.last, format=beat.format, scale=i.statistic)
        scale = unpack(m, i.statistic, FP16, "scale")
        x = [unpack(m, code, FP32, f"x{n}") for n, code in enumerate(beat.elements)]
        scale, zeros, x = pipe.stage(scale=scale, zeros=leading_zeros(m, scale.significand), x=x)
        scale, x = pipe.stage(scale=normalise(m, scale, zeros, "normalised"), x=x)

        # A dividend is below divisor * 2**CODE_WIDTH. It has a bit below its units, for halves, and a sticky one.
        width = FP16.significand_width + CODE_WIDTH + 2
        pipe.carry(divisor=scale.significand, is_zero=~scale.significand.any() | scale.is_nan)
        distances = [
            (scale.exponent + FP32.bias - FP16.bias + CODE_WIDTH - each.exponent)[: FP32.exponent_width] for each in x
        ]
        significands, distances, signs = pipe.stage(
            significand=[each.significand for each in x],
            distance=[clip_distance(distance, width) for distance in distances],
            sign=[each.sign for each in x],
        )
        dividends, signs = pipe.stage(
            dividend=[
                shift_right_sticky(Cat(Const(0, width - len(significand)), significand), distance)[:width]
                for significand, distance in zip(significands, distances, strict=True)
            ],
            sign=signs,
        )
        remainders = [dividend[-FP16.significand_width :] for dividend in dividends]
        rests = [dividend[: -FP16.significand_width] for dividend in dividends]
        for _ in range(CODE_WIDTH + 1):
            remainders, rests, signs = self._divide(pipe, remainders, rests, signs)
        largest = Signal(range(LARGEST_CODE[FormatCode.INT16] + 1))
        int4, int8, int16 = LARGEST_CODE.values()
        others = Mux(pipe.format == FormatCode.INT8, int8, int4)
        m.d.comb += largest.eq(Mux(pipe.format == FormatCode.INT16, int16, others))
        is_zero = pipe.take("is_zero")
        pipe.take("divisor")
        codes = []
        for remainder, rest, sign in zip(remainders, rests, signs, strict=True):
            sticky, half, quotient = rest[0], rest[1], rest[2:]
            magnitude = quotient + (half & (sticky | remainder.any() | quotient[0]))
            magnitude = Mux(is_zero, 0, Mux(magnitude > largest, largest, magnitude))[: CODE_WIDTH - 1]
            codes.append(Mux(sign, -magnitude, magnitude)[:CODE_WIDTH])
        codes = pipe.stage(code=codes)
        return Cat(codes, [pipe.take(name) for name in ("keep", "last", "format", "scale")])

    def _divide(self, pipe, remainders, rests, signs):
        """The next bit of each quotient: a rest loses its first bit to the remainder and gets the quotient's behind.

        Last in a rest is the sticky bit, which stays.
        """
        next_remainders, next_rests = [], []
        for remainder, rest in zip(remainders, rests, strict=True):
            dividend = Cat(rest[-1], remainder)
            difference = dividend - pipe.divisor
            fits = ~difference[-1]
            next_remainders.append(Mux(fits, difference, dividend)[: FP16.significand_width])
            next_rests.append(Cat(rest[0], fits, rest[1:-1]))
        return pipe.stage(remainder=next_remainders, rest=next_rests, sign=signs)


class KVQuantiser(TwoPass):
    """Vectors in a format of the KV cache: `ScaleFinder`, then `CodeMaker` of the same vector.

    Codes and scale are those of `edgeaccel.quantise.quantise` for a block of the vector's length: INT4, INT8 and
    aligned 16-bit mantissas. A vector that cannot be held has the scale NaN, which makes all results NaN that it
    enters. Equals `edgeaccel.golden.quantise.quantise`, and in cycles `edgeaccel.golden.two_pass.two_pass`. One beat a
    cycle, without bubbles between vectors of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats with format: `FormatCode`, the same in all beats of a vector
    o : stream of {codes: signed(16) x lanes, keep, last, format, scale: FP16 code}

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=256):
        beats = check_max_length(max_length, lanes)
        super().__init__(ScaleFinder(lanes=lanes), CodeMaker(lanes=lanes), beats=beats)
