"""Chunks of a row of scores: scaled and masked, their maximum, and powers of two relative to it.

scores -> ScoreScaler -> ChunkMaximum, then ChunkPowers -> powers of two, and the shift of what came before

All is done to base 2. The running maximum is rounded up to a whole number, so what corrects for a larger maximum is an
exact power of two: a shift of exponents.
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_max_length, fields_of, vector_beat
from edgeaccel.vector.elementwise import Elementwise
from edgeaccel.vector.function import Exponential2
from edgeaccel.vector.reduce import code_of_key, largest, order_key
from edgeaccel.vector.two_pass import TwoPass, applied

__all__ = [
    "SHIFT_CYCLES",
    "SHIFT_WIDTH",
    "ChunkMaximum",
    "ChunkPowers",
    "ScoreScaler",
    "chunk_fields",
    "chunk_powers",
    "power_beat",
    "scaled",
    "shift_between",
    "shifted",
]

MINUS_INFINITY = FP32.infinity | NEGATIVE_ZERO
SHIFT_WIDTH = 8  # by 2**255 nothing is left of a sum
SHIFT_CYCLES = 6  # of `shift_between`


def chunk_fields(slots=1):
    """Of a beat of scores: whether it ends a chunk, and which running maximum that is for; `first` begins it anew."""
    return {"ends_chunk": 1, "first": 1, "slot": range(slots)}


def power_beat(lanes):
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
    o : stream of vector beats with ends_chunk: 1, first: 1, slot: 0 bits, as `ChunkMaximum` takes them
        Lanes without an element count as masked. The first chunk of a row is `first`.
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
        super().__init__(lanes, {"i": i}, cycles=self._multiplier.latency - 1, fields=chunk_fields())

    def datapath(self, pipe, i):
        m = pipe.m
        beat = Signal(range(self._beats))
        place = Signal(range(self._chunk_beats))
        ends_chunk = Signal()
        is_first = Signal(init=1)
        m.d.comb += ends_chunk.eq(i.last | (place == self._chunk_beats - 1))
        with m.If(pipe.valid & ends_chunk):
            m.d.sync += is_first.eq(i.last)
        with m.If(pipe.valid):
            m.d.sync += [beat.eq(Mux(i.last, 0, beat + 1)), place.eq(Mux(ends_chunk, 0, place + 1))]
        first = Cat(Const(0, ceil_log2(self.lanes)), beat)
        valid = [keep & (first + n < i.count) for n, keep in enumerate(i.keep)]
        fields = fields_of(i) | {"ends_chunk": ends_chunk, "first": is_first, "slot": Const(0, 0), "valid": valid}
        return super().datapath(pipe, SimpleNamespace(**fields))

    def element(self, pipe, n, i):
        return scaled(pipe, self._multiplier, i.elements[n], i.factor, i.valid[n])


def scaled(pipe, multiplier, score, factor, is_valid):
    """A score times its factor, -infinity if it is masked."""
    pipe.carry(is_valid=is_valid)
    score = multiplier.inline(pipe, SimpleNamespace(a=score, b=factor))
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


def shift_between(pipe, earlier, later, adder):
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


def shifted(code, shift):
    """Code of x * 2**-shift: a zero of its sign if that or x is below 2**-126; infinities and NaNs stay."""
    fields = FP32.layout(code)
    is_special = fields.exponent.all()
    stays = is_special | (fields.exponent > shift)
    exponent = Mux(is_special, fields.exponent, fields.exponent - shift)[: FP32.exponent_width]
    return Cat(Cat(fields.fraction, exponent) & stays.replicate(FP32.width - 1), fields.sign)


class ChunkMaximum(Pipelined):
    """The largest score up to the end of a chunk, rounded up to a whole number, and how far that is a shift.

    maximum = max(ceil(largest score of the chunk), maximum of the chunk before)
    shift   = min(maximum - maximum of the chunk before, 255), 0 if the chunk is `first`

    Each slot has a maximum of its own, so the chunk before is the one before of the same slot. The maximum is a number
    in FP32, at least the smallest finite one. It is infinite if a score is, and NaN from the first NaN on. Equals
    `edgeaccel.golden.softmax.maxima`. One beat a cycle, without bubbles.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    slots : int
        Running maxima, in LUT RAM if there are several.

    Members
    -------
    i : stream of vector beats with ends_chunk: 1, first: 1, slot: range(slots)
        Elements of lanes without one are -infinity, as `ScoreScaler` leaves them.
    o : stream of {maximum: FP32 code, shift: 8 bits}
        One for each chunk.
    latency : int
        From a chunk's last beat: log2(lanes) + 12 cycles.
    """

    def __init__(self, *, lanes=8, slots=1):
        self._slots = slots
        self._adder = FloatAdder()
        o = data.StructLayout({"maximum": FP32.width, "shift": SHIFT_WIDTH})
        super().__init__(
            {"i": vector_beat(lanes, **chunk_fields(slots))}, o, cycles=5 + ceil_log2(lanes) + SHIFT_CYCLES
        )

    def emits(self, i):
        return i.ends_chunk

    def datapath(self, pipe, i):
        m = pipe.m
        pipe.carry(ends_chunk=i.ends_chunk, first=i.first, slot=i.slot)
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
        m.submodules.running = running = Memory(shape=signed(FP32.width), depth=self._slots, init=[])
        read_port, write_port = running.read_port(domain="comb"), running.write_port()
        maximum = Signal(signed(FP32.width))
        # Read and written in one cycle: the next chunk may be of the same slot.
        first, slot = pipe.take("first"), pipe.take("slot")
        m.d.comb += [
            read_port.addr.eq(slot),
            maximum.eq(Mux(first | (key > read_port.data), key, read_port.data)),
            write_port.addr.eq(slot),
            write_port.en.eq(pipe.valid & pipe.take("ends_chunk")),
            write_port.data.eq(maximum),
        ]
        before = Mux(first, maximum, read_port.data)
        maximum, before = pipe.stage(maximum=code_of_key(maximum), before=code_of_key(before))
        pipe.carry(maximum=maximum)
        with pipe.inside("shift"):
            shift = shift_between(pipe, before, maximum, self._adder)
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
        i = applied(
            vector_beat(lanes, **chunk_fields()), data.StructLayout({"maximum": FP32.width, "shift": SHIFT_WIDTH})
        )
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


def chunk_powers(*, lanes, chunk):
    """Powers of chunks of at most `chunk` scores, each after its maximum; stream of what `ScoreScaler` gives."""
    return TwoPass(ChunkMaximum(lanes=lanes), ChunkPowers(lanes=lanes), beats=chunk // lanes, ends="ends_chunk")
