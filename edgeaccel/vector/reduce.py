"""Reductions of a vector while it streams by: sums, and the largest element with its place."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Mux, Signal, signed
from amaranth.lib import data
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_max_length, vector_beat

__all__ = ["VectorMaximum", "VectorSum", "add_beats", "add_lanes", "masked", "order_key", "pair_beats", "sum_levels"]


def sum_levels(beats):
    """Levels of `add_beats` for vectors of up to `beats` beats: one at least, so that each sum comes from an adder."""
    return max(1, ceil_log2(beats))


def masked(beat, filler=NEGATIVE_ZERO):
    """Elements of a beat, `filler` in the lanes without one."""
    return [Mux(keep, code, filler) for keep, code in zip(beat.keep, beat.elements, strict=True)]


def add_lanes(pipe, codes, adder):
    """Sum of the codes of a beat: neighbours are added until one is left."""
    level = 0
    while len(codes) > 1:
        sums = []
        for n, (a, b) in enumerate(zip(codes[0::2], codes[1::2], strict=True)):
            node = pipe.branch(f"add{level}_{n}")
            sums.append(adder.inline(node, SimpleNamespace(a=a, b=b)))
        pipe.wait(node.cycles)
        codes = sums
        level += 1
    return codes[0]


def pair_beats(pipe, value, nothing, name):
    """Every two items of a vector as one, a stage later: (the earlier, the later), valid when there are both.

    The pipe carries `last`. A last item that is alone goes with `nothing` as the later.
    """
    m = pipe.m
    alone = Signal(init=1, name=f"{name}_alone")
    waiting = Signal(value.shape(), reset_less=True, name=f"{name}_waiting")
    with m.If(pipe.valid):
        m.d.sync += alone.eq(pipe.last | ~alone)
        with m.If(alone):
            m.d.sync += waiting.eq(value)
    valid = pipe.take("valid")
    pipe.carry(valid=valid & (pipe.last | ~alone))
    return pipe.stage(earlier=Mux(alone, value, waiting), later=Mux(alone, nothing, value))


def add_beats(pipe, code, adder, levels):
    """Sum of the items of a vector, valid with its last: neighbours in time are added, level after level.

    No sum goes back into its adder, so the adder's latency costs no throughput.
    """
    for level in range(levels):
        with pipe.inside(f"add{level}"):
            earlier, later = pair_beats(pipe, code, NEGATIVE_ZERO, f"level{level}")
            code = adder.inline(pipe, SimpleNamespace(a=earlier, b=later))
    return code


class VectorSum(Pipelined):
    """Sum of the elements of a vector, or of their squares, in FP32.

    Neighbouring elements are added, then neighbouring sums, until one is left; where their number is odd the last one
    goes on as it is. Each square and each sum is rounded once. So the order does not depend on `lanes`, and the error
    grows with the logarithm of the length: at most ceil(log2(length)) half units of the last place of the sum of the
    magnitudes (N. J. Higham, "The Accuracy of Floating Point Summation", 1993, section 3).

    A NaN makes the sum NaN, and so do infinities of both signs; a sum over FP32's range is infinite. Equals
    `edgeaccel.golden.vector.total`. One beat a cycle, without bubbles between vectors of any lengths. Costs lanes - 1 +
    log2(max_length / lanes) adders, and a multiplier a lane if `square`.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.
    square : bool
        Whether the elements are squared first.
    depth : int
        Register stages of adders and multipliers, 1 to 5.

    Members
    -------
    i : stream of vector beats
    o : stream of FP32 codes
        One for each vector.
    latency : int
        From a vector's last beat: depth * (square + log2(lanes)) + (depth + 1) * max(1, ceil(log2(max_length / lanes)))
        + 2 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096, square=False, depth=5):
        self._levels = sum_levels(check_max_length(max_length, lanes))
        self._adder = FloatAdder(depth=depth)
        self._multiplier = FloatMultiplier(depth=depth) if square else None
        cycles = 1 + depth * (bool(square) + ceil_log2(lanes)) + (depth + 1) * self._levels
        super().__init__({"i": vector_beat(lanes)}, FP32.width, cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        pipe.carry(last=i.last)
        codes = pipe.stage(element=masked(i))
        if self._multiplier:
            squares = []
            for n, code in enumerate(codes):
                lane = pipe.branch(f"square{n}")
                squares.append(self._multiplier.inline(lane, SimpleNamespace(a=code, b=code)))
            pipe.wait(lane.cycles)
            codes = squares
        with pipe.inside("lanes"):
            code = add_lanes(pipe, codes, self._adder)
        with pipe.inside("beats"):
            code = add_beats(pipe, code, self._adder, self._levels)
        pipe.take("last")
        return code


def order_key(code):
    """An FP32 code as an integer that orders like the number; -0 like +0, every NaN as the canonical one, over all."""
    fields = FP32.layout(code)
    is_nan = fields.exponent.all() & fields.fraction.any()
    is_negative = fields.sign & code[:-1].any()
    ordered = Cat(code[:-1] ^ is_negative.replicate(FP32.width - 1), is_negative)
    return Mux(is_nan, FP32.nan, ordered).as_signed()


def code_of_key(key):
    """The FP32 code of an `order_key`."""
    return Cat(key[:-1] ^ key[-1].replicate(FP32.width - 1), key[-1])


LOWEST_KEY = -(1 << FP32.width - 1)  # of a code that `order_key` makes no key of: -NaN


class VectorMaximum(Pipelined):
    """Largest element of a vector, and its place.

    If several are equal, the first; -0 equals +0, and a zero leaves as +0. A NaN counts as larger than all numbers, so
    the first NaN is the result if there is any, as in `numpy.argmax`. Equals `edgeaccel.golden.vector.maximum`. One
    beat a cycle, without bubbles between vectors of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats
    o : stream of {value: FP32 code, index: place of the element, from 0}
        One for each vector.
    latency : int
        From a vector's last beat: log2(lanes) + 3 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096):
        self._beats = check_max_length(max_length, lanes)
        o = data.StructLayout({"value": FP32.width, "index": ceil_log2(max_length)})
        super().__init__({"i": vector_beat(lanes)}, o, cycles=ceil_log2(lanes) + 2)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        m = pipe.m
        pipe.carry(last=i.last)
        keys = [Mux(keep, order_key(code), LOWEST_KEY) for keep, code in zip(i.keep, i.elements, strict=True)]
        key, lane = largest(pipe, pipe.stage(key=keys))
        beat = Signal(range(self._beats))
        best = Signal(signed(FP32.width), reset_less=True)
        index = Signal(self.o.payload.index.shape(), reset_less=True)
        with m.If(pipe.valid):
            m.d.sync += beat.eq(Mux(pipe.last, 0, beat + 1))
            with m.If((beat == 0) | (key > best)):
                m.d.sync += [best.eq(key), index.eq(Cat(lane, beat))]
        pipe.stage()
        return Cat(code_of_key(best), index)


def largest(pipe, keys):
    """The largest of the keys of a beat and the number of its lane, the first of equals; a stage a level."""
    m = pipe.m
    lanes = [None] * len(keys)
    while len(keys) > 1:
        places = range(0, len(keys), 2)
        later = [Signal(name="later") for _ in places]
        m.d.comb += [flag.eq(keys[n + 1] > keys[n]) for flag, n in zip(later, places, strict=True)]
        lanes = [
            flag if lanes[n] is None else Cat(Mux(flag, lanes[n + 1], lanes[n]), flag)
            for flag, n in zip(later, places, strict=True)
        ]
        keys = [Mux(flag, keys[n + 1], keys[n]) for flag, n in zip(later, places, strict=True)]
        keys, lanes = pipe.stage(key=keys, lane=lanes)
    return keys[0], Cat() if lanes[0] is None else lanes[0]
