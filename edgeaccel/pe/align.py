"""Block aligner: floating-point activations to integer mantissas with one exponent for a block.

beats -> queue ----------------------> shift and round -> mantissas
      -> largest exponent of a block ->

Here an activation is rounded, once, for all groups; behind it the array is exact.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP16, clip_distance, shift_right_sticky
from edgeaccel.pe.lane import check_mantissa_bits
from edgeaccel.pe.pipeline import Pipelined, place_registers

__all__ = ["EXPONENT_WIDTH", "BlockAligner", "LargestExponent", "MantissaShifter", "aligned_layout"]

EXPONENT_WIDTH = 9  # holds the exponent of the last bit of FP32, FP16 and BF16 mantissas


def aligned_layout(width, mantissa_bits):
    """A beat of aligned activations: value = mantissa * 2**exponent, or NaN for the whole block."""
    return data.StructLayout(
        {
            "mantissas": data.ArrayLayout(signed(mantissa_bits), width),
            "exponent": signed(EXPONENT_WIDTH),
            "nan": 1,
            "last": 1,
        }
    )


class LargestExponent(Pipelined):
    """Largest of the exponents in a block, `width` of them a cycle.

    Parameters
    ----------
    width : int
        Exponents in a beat.
    exponent_width : int
    credits : int
        Results that may be on their way or waiting; as many as full throughput needs by default.

    Members
    -------
    i : stream of {exponents: exponent_width bits x width, last: 1}
    o : stream of exponent_width bits
        One for each beat with `last`.
    latency : int
        ceil(log2(width)) + 2 cycles.
    """

    def __init__(self, *, width, exponent_width, credits=None):
        self.exponent_width = exponent_width
        i = data.StructLayout({"exponents": data.ArrayLayout(exponent_width, width), "last": 1})
        super().__init__({"i": i}, exponent_width, cycles=ceil_log2(width) + 1, credits=credits)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        pipe.carry(last=i.last)
        exponents = list(i.exponents)
        while len(exponents) > 1:
            pairs = zip(exponents[0::2], exponents[1::2], strict=False)
            odd = exponents[-1:] if len(exponents) % 2 else []
            exponents = pipe.stage(exponent=[Mux(a > b, a, b) for a, b in pairs] + odd)
        is_first = Signal(init=1)
        largest = Signal(self.exponent_width, reset_less=True)
        with pipe.m.If(pipe.valid):
            pipe.m.d.sync += is_first.eq(pipe.last)
            with pipe.m.If(is_first | (exponents[0] > largest)):
                pipe.m.d.sync += largest.eq(exponents[0])
        pipe.stage()
        return largest


class MantissaShifter(Pipelined):
    """Mantissas of a beat, given the largest exponent of its block.

    mantissa = round(x / 2**exponent),  exponent = max(block_exponent, 1) - bias - (mantissa_bits - 2)

    to the nearest, ties to even, and no larger in magnitude than 2**(mantissa_bits - 1) - 1. The largest of a block so
    uses all bits but the sign; what has the significand of the format or less is exact.

    Members
    -------
    i : stream of {elements: codes of the format x width, block_exponent, last: 1}
    o : stream of `aligned_layout`
    latency : int
        depth + 1 cycles.
    """

    def __init__(self, *, format, mantissa_bits, width, depth=3):
        self.format = format
        self.mantissa_bits = mantissa_bits
        self._registers = place_registers(3, depth)
        i = data.StructLayout(
            {
                "elements": data.ArrayLayout(format.width, width),
                "block_exponent": format.exponent_width,
                "last": 1,
            }
        )
        super().__init__({"i": i}, aligned_layout(width, mantissa_bits), cycles=depth)

    def datapath(self, pipe, i):
        measured, shifted, rounded = self._registers
        block_exponent = Signal(self.format.exponent_width)
        exponent = Signal(signed(EXPONENT_WIDTH))
        pipe.m.d.comb += [
            block_exponent.eq(_effective(i.block_exponent)),
            exponent.eq(block_exponent - (self.format.bias + self.mantissa_bits - 2)),
        ]
        pipe.carry(exponent=exponent, nan=i.block_exponent.all(), last=i.last)
        # The significand stands at the top, above a guard and a sticky bit.
        magnitude_bits = self.mantissa_bits - 1
        below = max(0, magnitude_bits - self.format.significand_width) + 2
        elements = [self.format.layout(code) for code in i.elements]
        distances = [block_exponent - _effective(x.exponent) for x in elements]
        width = self.format.significand_width + below
        signs, significands, distances = pipe.cut(
            measured,
            sign=[x.sign for x in elements],
            significand=[Cat(x.fraction, x.exponent.any()) for x in elements],
            distance=[clip_distance(distance[: self.format.exponent_width], width) for distance in distances],
        )
        values = [
            shift_right_sticky(Cat(Const(0, below), significand), distance)
            for significand, distance in zip(significands, distances, strict=True)
        ]
        signs, values = pipe.cut(shifted, sign=signs, value=values)

        mantissas = []
        for sign, value in zip(signs, values, strict=True):
            excess = len(value) - magnitude_bits
            kept, guard, sticky = value[excess:], value[excess - 1], value[: excess - 1].any()
            magnitude = kept + (guard & (sticky | kept[0]))
            # Only what has more significant bits than a mantissa can be rounded past the largest.
            if self.format.significand_width > magnitude_bits:
                magnitude = Mux(magnitude[-1], (1 << magnitude_bits) - 1, magnitude)
            magnitude = magnitude[:magnitude_bits]
            mantissas.append(Mux(sign, -magnitude, magnitude)[: self.mantissa_bits])
        mantissas = pipe.cut(rounded, mantissa=mantissas)
        return Cat(mantissas, pipe.exponent, pipe.nan, pipe.last)


def _effective(exponent):
    """Zero and subnormals have the exponent of the smallest normal number."""
    return exponent | ~exponent.any()


class BlockAligner(wiring.Component):
    """Turns blocks of activations into integers that share an exponent, one beat a cycle.

    x[k] ~ mantissa[k] * 2**exponent, with the largest exponent of the block; see `MantissaShifter`. A block with an
    infinity or a NaN has `nan` set, its mantissas then mean nothing: every result that it enters becomes NaN.

    A block ends with a beat that has `last`, or with the beat that completes `block` elements. There is no bubble
    between blocks of any lengths. Equals `edgeaccel.golden.pe.align` and, in cycles, `aligner_cycles`.

    Parameters
    ----------
    format : FloatFormat
        Of the activations: FP16, BF16 or FP32.
    mantissa_bits : int
        8 to 18.
    width : int
        Elements in a beat.
    block : int
        Most elements in a block, a multiple of `width`.
    depth : int
        Register stages of the shifter, 1 to 3.

    Members
    -------
    i : stream of {elements: codes of the format x width, last: 1}
    o : stream of {mantissas: signed(mantissa_bits) x width, exponent: signed(9), nan: 1, last: 1}
    latency : int
        From a block's last beat to its first result: ceil(log2(width)) + depth + 3 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, format=FP16, mantissa_bits=16, width=32, block=128, depth=3):
        check_mantissa_bits(mantissa_bits)
        if width < 1:
            raise ValueError(f"width must be at least 1 element, not {width!r}")
        if block < width or block % width:
            raise ValueError(f"block must be a positive multiple of the {width} elements of a beat, not {block!r}")
        self.format = format
        self.beats = block // width
        finder_latency = ceil_log2(width) + 2
        # A beat waits until its block is complete and its largest exponent known.
        self.waiting_beats = self.beats + finder_latency
        self.finder = LargestExponent(width=width, exponent_width=format.exponent_width, credits=self.waiting_beats)
        self.shifter = MantissaShifter(format=format, mantissa_bits=mantissa_bits, width=width, depth=depth)
        self.latency = self.finder.latency + self.shifter.latency
        self.beat = data.StructLayout({"elements": data.ArrayLayout(format.width, width), "last": 1})
        super().__init__(
            {
                "i": In(stream.Signature(self.beat)),
                "o": Out(stream.Signature(aligned_layout(width, mantissa_bits))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.finder = finder = self.finder
        m.submodules.shifter = shifter = self.shifter
        m.submodules.beats = beats = fifo.SyncFIFO(width=self.beat.size, depth=self.waiting_beats)
        i = self.i

        place = Signal(range(self.beats))
        last = Signal()
        m.d.comb += last.eq(i.p.last | (place == self.beats - 1))
        with m.If(i.valid & i.ready):
            m.d.sync += place.eq(Mux(last, 0, place + 1))

        waiting = self.beat(beats.r_data)
        m.d.comb += [
            i.ready.eq(beats.w_rdy & finder.i.ready),
            beats.w_en.eq(i.valid & finder.i.ready),
            beats.w_data.eq(Cat(i.p.elements, last)),
            finder.i.valid.eq(i.valid & beats.w_rdy),
            finder.i.p.last.eq(last),
            shifter.i.valid.eq(beats.r_rdy & finder.o.valid),
            shifter.i.p.elements.eq(waiting.elements),
            shifter.i.p.block_exponent.eq(finder.o.p),
            shifter.i.p.last.eq(waiting.last),
            beats.r_en.eq(shifter.i.ready & finder.o.valid),
            finder.o.ready.eq(shifter.i.ready & beats.r_rdy & waiting.last),
        ]
        for exponent, code in zip(finder.i.p.exponents, i.p.elements, strict=True):
            m.d.comb += exponent.eq(self.format.layout(code).exponent)
        wiring.connect(m, shifter.o, wiring.flipped(self.o))
        return m
