"""Softmax in one pass over the scores of a row, with a running maximum and sum (online softmax).

scores -> powers of two by chunks (chunk.py) -> (probabilities yet to be scaled)
                                             -> sum -> 1/sum

(M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018, arXiv 1805.02867.)
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_max_length
from edgeaccel.vector.chunk import (
    SHIFT_CYCLES,
    SHIFT_WIDTH,
    ScoreScaler,
    chunk_powers,
    power_beat,
    shift_between,
    shifted,
)
from edgeaccel.vector.elementwise import Elementwise
from edgeaccel.vector.function import Reciprocal
from edgeaccel.vector.reduce import add_lanes, pair_beats, sum_levels
from edgeaccel.vector.two_pass import TwoPass, applied

__all__ = ["OnlineSoftmax", "Softmax", "SoftmaxApplier", "SoftmaxSum"]


class SoftmaxSum(Pipelined):
    """One over the sum of a row's powers of two.

    inverse = reciprocal(sum over the row of power[k] * 2**(maximum of its chunk - maximum of the row))

    Sums are made as in `VectorSum`; where a later sum goes to an earlier one, that is multiplied by two to minus the
    later one's shifts first, and is 0 if that is below 2**-126. A row without any power, of sum 0, has the inverse 0.
    Equals `edgeaccel.golden.softmax.inverse`. One beat a cycle, without bubbles between rows of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Positions of the longest row, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats with shift: 8 bits, maximum: FP32 code
    o : stream of {inverse, maximum: FP32 codes}
        One for each row; the maximum is that of its last chunk.
    latency : int
        From a row's last beat: 5 * log2(lanes) + 7 * max(1, ceil(log2(max_length / lanes))), and that of reciprocal.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096):
        self._levels = sum_levels(check_max_length(max_length, lanes))
        self._adder = FloatAdder()
        self._reciprocal = Reciprocal()
        self._item = data.StructLayout({"sum": FP32.width, "shift": SHIFT_WIDTH})
        add = self._adder.latency - 1
        cycles = add * ceil_log2(lanes) + (add + 2) * self._levels + self._reciprocal.latency - 1
        o = data.StructLayout({"inverse": FP32.width, "maximum": FP32.width})
        super().__init__({"i": power_beat(lanes)}, o, cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        pipe.carry(last=i.last, maximum=i.maximum, shift=i.shift)
        with pipe.inside("lanes"):
            code = add_lanes(pipe, list(i.elements), self._adder)
        shift = pipe.take("shift")
        for level in range(self._levels):
            with pipe.inside(f"add{level}"):
                code, shift = self._add_pair(pipe, code, shift, level)
        pipe.take("last")
        with pipe.inside("reciprocal"):
            inverse = FP32.layout(self._reciprocal.inline(pipe, code))
        is_infinite = inverse.exponent.all() & ~inverse.fraction.any()
        return Cat(Mux(is_infinite, 0, inverse.as_value()), pipe.take("maximum"))

    def _add_pair(self, pipe, code, shift, level):
        """Neighbouring sums as one: (sum, shift)."""
        nothing = Const(NEGATIVE_ZERO, self._item.size)
        earlier, later = pair_beats(pipe, Cat(code, shift), nothing, f"level{level}")
        earlier, later = self._item(earlier), self._item(later)
        shift = earlier.shift + later.shift
        pipe.carry(shift=Mux(shift[-1], (1 << SHIFT_WIDTH) - 1, shift)[:SHIFT_WIDTH])
        a, b = pipe.stage(a=shifted(earlier.sum, later.shift), b=later.sum)
        return self._adder.inline(pipe, SimpleNamespace(a=a, b=b)), pipe.take("shift")


class SoftmaxApplier(Elementwise):
    """Probabilities: o[k] = round(power[k] * inverse * 2**(maximum of its chunk - maximum of the row)).

    Equals `edgeaccel.golden.softmax.apply`. One beat a cycle. One DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of {beat: as `SoftmaxSum` takes it, statistic: as it gives it}
    o : stream of vector beats
    latency : int
        12 cycles.
    """

    def __init__(self, *, lanes=8):
        self._adder = FloatAdder()
        self._multiplier = FloatMultiplier(exponent_width=SHIFT_WIDTH + 1)
        row = data.StructLayout({"inverse": FP32.width, "maximum": FP32.width})
        cycles = SHIFT_CYCLES + self._multiplier.latency - 1
        super().__init__(lanes, {"i": applied(power_beat(lanes), row)}, cycles=cycles)

    def datapath(self, pipe, i):
        distance = pipe.branch("shift")
        shift = shift_between(distance, i.beat.maximum, i.statistic.maximum, self._adder)
        pipe.carry(elements=i.beat.elements, beat_keep=i.beat.keep, beat_last=i.beat.last, inverse=i.statistic.inverse)
        pipe.wait(distance.cycles)
        taken = {name: pipe.take(f"beat_{name}") for name in ("keep", "last")}
        beat = SimpleNamespace(elements=pipe.take("elements"), inverse=pipe.take("inverse"), shift=shift, **taken)
        return super().datapath(pipe, beat)

    def element(self, pipe, n, i):
        factors = SimpleNamespace(a=i.elements[n], b=i.inverse, exponent=-i.shift)
        return self._multiplier.inline(pipe, factors)


class OnlineSoftmax(wiring.Component):
    """Softmax of rows as they come: powers of two as soon as their chunk is complete, and 1/sum at the end of the row.

    probability[k] = o[k] * 2**-(the shifts of all later chunks of the row) * o_rows.inverse

    So what is summed up with the powers of a chunk as weights is right for the row once it is multiplied by two to
    minus the shift of each chunk that follows, before that is added, and by the inverse at the end.

    A row whose scores are all -infinity or masked has powers and an inverse of 0. A NaN or +infinity, which a score
    times the factor may be, makes the inverse NaN if it is not masked. Equals `edgeaccel.golden.softmax.online`, and
    in cycles `online_cycles`. One beat a cycle, without bubbles between rows of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Positions of the longest row, a multiple of `lanes`.
    chunk : int
        Positions of a chunk, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats with factor: FP32 code, count: positions that are valid, as `ScoreScaler` takes them
    o : stream of vector beats with shift: 8 bits, maximum: FP32 code, as `ChunkPowers` gives them
    o_rows : stream of {inverse, maximum: FP32 codes}, as `SoftmaxSum` gives them

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096, chunk=128):
        self.scaler = ScoreScaler(lanes=lanes, max_length=max_length, chunk=chunk)
        self.powers = chunk_powers(lanes=lanes, chunk=chunk)
        self.sum = SoftmaxSum(lanes=lanes, max_length=max_length)
        super().__init__(
            {
                "i": In(stream.Signature(self.scaler.i.payload.shape())),
                "o": Out(stream.Signature(self.powers.o.payload.shape())),
                "o_rows": Out(stream.Signature(self.sum.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaler = scaler = self.scaler
        m.submodules.powers = powers = self.powers
        m.submodules.sum = total = self.sum
        wiring.connect(m, wiring.flipped(self.i), scaler.i)
        wiring.connect(m, scaler.o, powers.i)
        wiring.connect(m, total.o, wiring.flipped(self.o_rows))
        m.d.comb += [
            self.o.valid.eq(powers.o.valid & total.i.ready),
            self.o.payload.eq(powers.o.payload),
            total.i.valid.eq(powers.o.valid & self.o.ready),
            total.i.payload.eq(powers.o.payload),
            powers.o.ready.eq(self.o.ready & total.i.ready),
        ]
        return m


class Softmax(wiring.Component):
    """Softmax of whole rows: o[k] = exp(s[k]) / sum(exp(s)), s = the scores times factor / log2(e), where k < count.

    A row of scores that are all -infinity or masked gives zeros, as masked positions do. A NaN or +infinity, which a
    score times the factor may be, makes the whole row NaN if it is not masked. Equals
    `edgeaccel.golden.softmax.softmax`, and in cycles `softmax_cycles`. One beat a cycle, without bubbles between rows
    of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Positions of the longest row, a multiple of `lanes`.
    chunk : int
        Positions of a chunk, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats with factor: FP32 code, count: positions that are valid, as `ScoreScaler` takes them
    o : stream of vector beats

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096, chunk=128):
        self.scaler = ScoreScaler(lanes=lanes, max_length=max_length, chunk=chunk)
        self.powers = chunk_powers(lanes=lanes, chunk=chunk)
        self.rows = TwoPass(
            SoftmaxSum(lanes=lanes, max_length=max_length), SoftmaxApplier(lanes=lanes), beats=max_length // lanes
        )
        super().__init__(
            {
                "i": In(stream.Signature(self.scaler.i.payload.shape())),
                "o": Out(stream.Signature(self.rows.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaler = scaler = self.scaler
        m.submodules.powers = powers = self.powers
        m.submodules.rows = rows = self.rows
        wiring.connect(m, wiring.flipped(self.i), scaler.i)
        wiring.connect(m, scaler.o, powers.i)
        wiring.connect(m, powers.o, rows.i)
        wiring.connect(m, rows.o, wiring.flipped(self.o))
        return m
