"""Scores of one row to weights, unit by unit.

i -> UnitScaler -> ChunkMaximum, then UnitPowers --+-> UnitWeights -> o
i_scales ------------------------------------------|-------^
                                                   +-> UnitSum -----> o_sums
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP16, FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_max_length, fields_of, vector_beat
from edgeaccel.vector.chunk import SHIFT_WIDTH, ChunkMaximum, chunk_fields, scaled
from edgeaccel.vector.elementwise import Elementwise
from edgeaccel.vector.function import Exponential2
from edgeaccel.vector.reduce import add_beats, add_lanes, sum_levels
from edgeaccel.vector.two_pass import TwoPass, applied

__all__ = ["ScoreRow", "UnitPowers", "UnitScaler", "UnitSum", "UnitWeights"]


def unit_power_beat(lanes):
    """Powers of two relative to 2**maximum, and the shift of the slot's units before this one."""
    return vector_beat(lanes, shift=SHIFT_WIDTH)


class UnitScaler(Elementwise):
    """Scores to base 2, without those that are masked: o[k] = round(i[k] * factor) if keep[k], else -infinity.

    Equals `edgeaccel.golden.float.multiply`. One beat a cycle. One DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    slots : int
        Running maxima.

    Members
    -------
    i : stream of vector beats with what `ChunkMaximum` takes, and factor: FP32 code
    o : stream of vector beats with what `ChunkMaximum` takes
    latency : int
        6 cycles.
    """

    def __init__(self, *, lanes, slots):
        self._multiplier = FloatMultiplier()
        fields = chunk_fields(slots)
        i = vector_beat(lanes, **fields, factor=FP32.width)
        super().__init__(lanes, {"i": i}, cycles=self._multiplier.latency - 1, fields=fields)

    def element(self, pipe, n, i):
        return scaled(pipe, self._multiplier, i.elements[n], i.factor, i.keep[n])


class UnitPowers(Elementwise):
    """Powers of two relative to the slot's maximum: o[k] = exp2(i[k] - maximum) if keep[k], else +0.

    Equals `edgeaccel.golden.softmax.powers`. One beat a cycle. Two DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    slots : int
        Running maxima.

    Members
    -------
    i : stream of {beat: as `ChunkMaximum` takes it, statistic: as it gives it}
    o : stream of vector beats with shift: 8 bits
    latency : int
        That of exp2 + 5 cycles.
    """

    def __init__(self, *, lanes, slots):
        self._adder = FloatAdder()
        self._exp2 = Exponential2()
        statistic = data.StructLayout({"maximum": FP32.width, "shift": SHIFT_WIDTH})
        i = applied(vector_beat(lanes, **chunk_fields(slots)), statistic)
        cycles = self._adder.latency + self._exp2.latency - 2
        super().__init__(lanes, {"i": i}, cycles=cycles, fields={"shift": SHIFT_WIDTH})

    def datapath(self, pipe, i):
        return super().datapath(pipe, SimpleNamespace(**fields_of(i.beat), **fields_of(i.statistic)))

    def element(self, pipe, n, i):
        # A NaN without this bit is an infinity: masked scores, -infinity, less whatever maximum are -infinity.
        quiet = FP32.fraction_width - 1
        maximum = Signal(FP32.width)
        pipe.m.d.comb += maximum.eq(Cat(i.maximum[:quiet], i.maximum[quiet] & i.keep[n], i.maximum[quiet + 1 :]))
        with pipe.inside("difference"):
            x = self._adder.inline(pipe, SimpleNamespace(a=i.elements[n], b=maximum ^ NEGATIVE_ZERO))
        return self._exp2.inline(pipe, x)


class UnitWeights(Elementwise):
    """Powers times the scales of the values at the same positions: o[k] = round(i[k] * i_scales[k]).

    A power that is not kept is +0, and so is its weight, whatever the scale. Equals
    `edgeaccel.golden.float.multiply`. One beat a cycle. One DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of vector beats with shift: 8 bits
    i_scales : stream of FP16 codes x lanes
    o : stream of vector beats
    latency : int
        6 cycles.
    """

    def __init__(self, *, lanes):
        self._multiplier = FloatMultiplier(b_format=FP16)
        inputs = {"i": unit_power_beat(lanes), "i_scales": data.ArrayLayout(FP16.width, lanes)}
        super().__init__(lanes, inputs, cycles=self._multiplier.latency - 1)

    def element(self, pipe, n, i, scales):
        # Without the sign and the first bit of the exponent a scale is a finite number.
        cut = FP16.width - 2
        scale = Cat(scales[n][:cut], scales[n][cut:] & i.keep[n].replicate(2))
        return self._multiplier.inline(pipe, SimpleNamespace(a=i.elements[n], b=scale))


class UnitSum(Pipelined):
    """Sum of a unit's powers, with its shift. Equals `edgeaccel.golden.vector.total`.

    One beat a cycle, without bubbles between units of any number of beats.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    block : int
        Positions of the longest unit, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats with shift: 8 bits
        Elements of lanes without one are +0.
    o : stream of {shift: 8 bits, sum: FP32 code}
        One for each unit.
    latency : int
        From a unit's last beat: 2 + 5 * log2(lanes) + 6 * max(1, ceil(log2(block / lanes))) cycles.
    """

    def __init__(self, *, lanes, block):
        self._levels = sum_levels(block // lanes)
        self._adder = FloatAdder()
        add = self._adder.latency - 1
        cycles = 1 + add * ceil_log2(lanes) + (add + 1) * self._levels
        o = data.StructLayout({"shift": SHIFT_WIDTH, "sum": FP32.width})
        super().__init__({"i": unit_power_beat(lanes)}, o, cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        pipe.carry(last=i.last, shift=i.shift)
        with pipe.inside("lanes"):
            code = add_lanes(pipe, pipe.stage(element=list(i.elements)), self._adder)
        with pipe.inside("beats"):
            code = add_beats(pipe, code, self._adder, self._levels)
        pipe.take("last")
        return Cat(pipe.take("shift"), code)


class ScoreRow(wiring.Component):
    """Scores of a row to weights of its values, and of each unit the sum of the powers that are in them.

    Equals `edgeaccel.golden.scores.weights`. One beat a cycle, without bubbles between units of any number of beats
    and of any slots.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    block : int
        Positions of the longest unit, a multiple of `lanes`.
    slots : int
        Running maxima.

    Members
    -------
    i : stream of vector beats with ends_chunk: 1, first: 1, slot: range(slots), factor: FP32 code
        Of the positions that are kept; others are masked. A unit is a vector and a chunk.
    i_scales : stream of FP16 codes x lanes
        Of the values at the positions of a beat, with which they meet where its powers are known.
    o : stream of vector beats
    o_sums : stream of {shift: 8 bits, sum: FP32 code}
        One for each unit.
    latency, sum_latency : int
        From a unit's last beat to its first weights, and to its sum if it has one beat.
    places, sum_places : int
        Most beats between `i` and `o`, and between `i` and `o_sums`.

    Raises
    ------
    ValueError
        If `lanes` is no power of two or `block` no positive multiple of it.
    """

    def __init__(self, *, lanes, block, slots):
        beats = check_max_length(block, lanes)
        sizes = {"lanes": lanes, "slots": slots}
        self.scaler = UnitScaler(**sizes)
        self.powers = TwoPass(ChunkMaximum(**sizes), UnitPowers(**sizes), beats=beats)
        self.weights = UnitWeights(lanes=lanes)
        self.sums = UnitSum(lanes=lanes, block=block)
        latency = self.scaler.latency + self.powers.statistic.latency + self.powers.apply.latency
        self.latency, self.sum_latency = latency + self.weights.latency, latency + self.sums.latency
        places = self.scaler.credits + self.powers.waiting + self.powers.apply.credits
        self.places, self.sum_places = places + self.weights.credits, places + self.sums.credits
        super().__init__(
            {
                "i": In(stream.Signature(self.scaler.i.p.shape())),
                "i_scales": In(stream.Signature(self.weights.i_scales.p.shape())),
                "o": Out(stream.Signature(self.weights.o.p.shape())),
                "o_sums": Out(stream.Signature(self.sums.o.p.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaler = scaler = self.scaler
        m.submodules.powers = powers = self.powers
        m.submodules.weights = weights = self.weights
        m.submodules.sums = sums = self.sums
        wiring.connect(m, wiring.flipped(self.i), scaler.i)
        wiring.connect(m, scaler.o, powers.i)
        wiring.connect(m, wiring.flipped(self.i_scales), weights.i_scales)
        wiring.connect(m, weights.o, wiring.flipped(self.o))
        wiring.connect(m, sums.o, wiring.flipped(self.o_sums))
        m.d.comb += [
            weights.i.valid.eq(powers.o.valid & sums.i.ready),
            weights.i.p.eq(powers.o.p),
            sums.i.valid.eq(powers.o.valid & weights.i.ready),
            sums.i.p.eq(powers.o.p),
            powers.o.ready.eq(weights.i.ready & sums.i.ready),
        ]
        return m
