"""Softmax in one pass over the scores of a row, with a running maximum and sum (online softmax).

scores -> scaled, masked -> chunk: maximum, then powers of two -> (probabilities yet to be scaled)
                                                               -> sum -> 1/sum
All is done to base 2. The running maximum is rounded up to a whole number, so what corrects for a larger maximum is an
exact power of two: a shift of exponents.

(M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018, arXiv 1805.02867.)
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_max_length, fields_of, vector_beat
from edgeaccel.vector.elementwise import Elementwise
from edgeaccel.vector.function import Exponential2, Reciprocal
from edgeaccel.vector.reduce import add_lanes, code_of_key, largest, order_key, pair_beats, sum_levels
from edgeaccel.vector.two_pass import TwoPass, applied

__all__ = [
    "SHIFT_WIDTH",
    "ChunkMaximum",
    "ChunkPowers",
    "OnlineSoftmax",
    "ScoreScaler",
    "Softmax",
    "SoftmaxApplier",
    "SoftmaxSum",
]

MINUS_INFINITY = FP32.infinity | NEGATIVE_ZERO
SHIFT_WIDTH = 8  # by 2**255 nothing is left of a sum
SHIFT_CYCLES = 6  # of `carry_shift`


def _score_beat(lanes):
    """Scores to base 2, and where a chunk ends."""
    return vector_beat(lanes, ends_chunk=1)


def _power_beat(lanes):
    """Powers of two relative to 2**maximum, and the shift of all that came before this beat."""
    return vector_beat(lanes, shift=SHIFT_WIDTH, maximum=FP32.width)


class ScoreScaler(Elementwise):
    """Scores to base 2, without those that are masked: o[k] = round(i[k] * factor) if k < count, else -infinity.

    The factor is log2(e), times what the scores are to be multiplied by. A chunk ends with the row, or with the beat
    that completes `chunk` positions. Equals `edgeaccel.golden.softmax.scale`. One beat a cycle.

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
    i : stream of vector beats with factor: FP32 code, count: positions that are valid
    o : stream of vector beats with ends_chunk: 1
        Lanes without an element count as masked.
    latency : int
        6 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096, chunk=128):
        self._beats = check_max_length(max_length, lanes)
        if chunk < lanes or chunk % lanes:
            raise ValueError(f"chunk must be a positive multiple of the {lanes} elements of a beat, not {chunk!r}")
        self._chunk_beats = chunk // lanes
        self._multiplier = FloatMultiplier()
        i = vector_beat(lanes, factor=FP32.width, count=range(max_length + 1))
        super().__init__(lanes, {"i": i}, cycles=self._multiplier.latency - 1, fields={"ends_chunk": 1})

    def datapath(self, pipe, i):
        m = pipe.m
        beat = Signal(range(self._beats))
        place = Signal(range(self._chunk_beats))
        ends_chunk = Signal()
        m.d.comb += ends_chunk.eq(i.last | (place == self._chunk_beats - 1))
        with m.If(pipe.valid):
            m.d.sync += [beat.eq(Mux(i.last, 0, beat + 1)), place.eq(Mux(ends_chunk, 0, place + 1))]
        first = Cat(Const(0, ceil_log2(self.lanes)), beat)
        valid = [keep & (first + n < i.count) for n, keep in enumerate(i.keep)]
        fields = fields_of(i) | {"ends_chunk": ends_chunk, "valid": valid}
        return super().datapath(pipe, SimpleNamespace(**fields))

    def element(self, pipe, n, i):
        pipe.carry(is_valid=i.valid[n])
        score = self._multiplier.inline(pipe, SimpleNamespace(a=i.elements[n], b=i.factor))
        return Mux(pipe.take("is_valid"), score, MINUS_INFINITY)


def _ceiling(pipe, code):
    """The code rounded up to a whole number, two stages later; -infinity to the lowest finite number, which is one."""
    width = FP32.fraction_width
    exponent = FP32.layout(code).exponent
    # The fraction bits that count less than one.
    below = ((1 << width) - 1) >> (exponent - FP32.bias)[: ceil_log2(width)]
    code, below, is_small, is_whole = pipe.stage(
        code=code, below=below, is_small=exponent < FP32.bias, is_whole=exponent >= FP32.bias + width
    )
    # A carry out of the fraction goes on into the exponent.
    rises = ~code[-1] & (code & below).any()
    rounded = Mux(rises, (code | below) + 1, Cat(code[:width] & ~below, code[width:]))
    small = Mux(~code[-1] & code[:-1].any(), FP32.bias << width, 0)
    whole = Mux(code == MINUS_INFINITY, MINUS_INFINITY - 1, code)
    return pipe.stage(ceiling=Mux(is_small, small, Mux(is_whole, whole, rounded))[: FP32.width])


def _shift_between(pipe, earlier, later, adder):
    """Later - earlier of two whole numbers, not below 0, as a shift: up to 255, and 0 if it is NaN."""
    difference = adder.inline(pipe, SimpleNamespace(a=later, b=earlier ^ NEGATIVE_ZERO))
    fields = FP32.layout(difference)
    exponent = fields.exponent - FP32.bias
    is_nan = fields.exponent.all() & fields.fraction.any()
    top = Cat(fields.fraction[-(SHIFT_WIDTH - 1) :], 1)
    shift = Mux(
        exponent < 0,
        0,
        Mux(exponent >= SHIFT_WIDTH, (1 << SHIFT_WIDTH) - 1, top >> (SHIFT_WIDTH - 1 - exponent)[:3]),
    )
    return pipe.stage(shift=Mux(is_nan, 0, shift)[:SHIFT_WIDTH])


class ChunkMaximum(Pipelined):
    """The largest score of a row up to the end of a chunk, rounded up to a whole number, and how far that is a shift.

    maximum = max(ceil(largest score of the chunk), maximum of the chunk before)
    shift   = min(maximum - maximum of the chunk before, 255), 0 for the first of a row

    The maximum is a number in FP32, at least the smallest finite one. It is infinite if a score is, and NaN from the
    first NaN of the row on. Equals `edgeaccel.golden.softmax.maxima`. One beat a cycle, without bubbles.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of vector beats with ends_chunk: 1
        Elements of lanes without one are -infinity, as `ScoreScaler` leaves them.
    o : stream of {maximum: FP32 code, shift: 8 bits}
        One for each chunk.
    latency : int
        From a chunk's last beat: log2(lanes) + 12 cycles.
    """

    def __init__(self, *, lanes=8):
        self._adder = FloatAdder()
        o = data.StructLayout({"maximum": FP32.width, "shift": SHIFT_WIDTH})
        super().__init__({"i": _score_beat(lanes)}, o, cycles=5 + ceil_log2(lanes) + SHIFT_CYCLES)

    def emits(self, i):
        return i.ends_chunk

    def datapath(self, pipe, i):
        m = pipe.m
        pipe.carry(ends_chunk=i.ends_chunk, last=i.last)
        key, _ = largest(pipe, pipe.stage(key=[order_key(code) for code in i.elements]))
        begins_chunk = Signal(init=1)
        best = Signal(signed(FP32.width), reset_less=True)
        with m.If(pipe.valid):
            m.d.sync += begins_chunk.eq(pipe.ends_chunk)
            with m.If(begins_chunk | (key > best)):
                m.d.sync += best.eq(key)
        pipe.stage()
        with pipe.inside("ceiling"):
            key = order_key(_ceiling(pipe, code_of_key(best)))
        begins_row = Signal(init=1)
        running = Signal(signed(FP32.width), reset_less=True)
        maximum = Signal(signed(FP32.width))
        m.d.comb += maximum.eq(Mux(begins_row | (key > running), key, running))
        with m.If(pipe.valid & pipe.ends_chunk):
            m.d.sync += [begins_row.eq(pipe.last), running.eq(maximum)]
        before = Mux(begins_row, maximum, running)
        maximum, before = pipe.stage(maximum=code_of_key(maximum), before=code_of_key(before))
        pipe.take("last")
        pipe.take("ends_chunk")
        pipe.carry(maximum=maximum)
        with pipe.inside("shift"):
            shift = _shift_between(pipe, before, maximum, self._adder)
        return Cat(pipe.take("maximum"), shift)


class ChunkPowers(Elementwise):
    """Powers of two relative to the maximum: o[k] = exp2(i[k] - maximum), at most 1.

    Equals `edgeaccel.golden.softmax.powers`. One beat a cycle.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of {beat: as `ChunkMaximum` takes it, statistic: as it gives it}
    o : stream of vector beats with shift: 8 bits, maximum: FP32 code
        The shift stands at the first beat of a chunk; others have 0.
    latency : int
        That of exp2 + 5 cycles.
    """

    def __init__(self, *, lanes=8):
        self._adder = FloatAdder()
        self._exp2 = Exponential2()
        i = applied(_score_beat(lanes), data.StructLayout({"maximum": FP32.width, "shift": SHIFT_WIDTH}))
        cycles = self._adder.latency + self._exp2.latency - 2
        super().__init__(lanes, {"i": i}, cycles=cycles, fields={"shift": SHIFT_WIDTH, "maximum": FP32.width})

    def datapath(self, pipe, i):
        m = pipe.m
        begins_chunk = Signal(init=1)
        with m.If(pipe.valid):
            m.d.sync += begins_chunk.eq(i.beat.ends_chunk)
        shift = i.statistic.shift & begins_chunk.replicate(SHIFT_WIDTH)
        beat = SimpleNamespace(**fields_of(i.beat), maximum=i.statistic.maximum, shift=shift)
        return super().datapath(pipe, beat)

    def element(self, pipe, n, i):
        with pipe.inside("difference"):
            x = self._adder.inline(pipe, SimpleNamespace(a=i.elements[n], b=i.maximum ^ NEGATIVE_ZERO))
        return self._exp2.inline(pipe, x)


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
        super().__init__({"i": _power_beat(lanes)}, o, cycles=cycles)

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
        fields = FP32.layout(earlier.sum)
        is_special = fields.exponent.all()
        stays = is_special | (fields.exponent > later.shift)
        exponent = Mux(is_special, fields.exponent, fields.exponent - later.shift)[: FP32.exponent_width]
        shifted = Cat(fields.fraction, exponent) & stays.replicate(FP32.width - 1)
        a, b = pipe.stage(a=Cat(shifted, fields.sign), b=later.sum)
        return self._adder.inline(pipe, SimpleNamespace(a=a, b=b)), pipe.take("shift")


class SoftmaxApplier(Elementwise):
    """Probabilities: o[k] = round(power[k] * inverse * 2**(maximum of its chunk - maximum of the row)).

    Equals `edgeaccel.golden.softmax.apply`. One beat a cycle. Two DSP48E2 a lane.

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
        super().__init__(lanes, {"i": applied(_power_beat(lanes), row)}, cycles=cycles)

    def datapath(self, pipe, i):
        distance = pipe.branch("shift")
        shift = _shift_between(distance, i.beat.maximum, i.statistic.maximum, self._adder)
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
        self.powers = TwoPass(
            ChunkMaximum(lanes=lanes), ChunkPowers(lanes=lanes), beats=chunk // lanes, ends="ends_chunk"
        )
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
        self.powers = TwoPass(
            ChunkMaximum(lanes=lanes), ChunkPowers(lanes=lanes), beats=chunk // lanes, ends="ends_chunk"
        )
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
