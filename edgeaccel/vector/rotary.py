"""Rotary position embedding of heads, in both published layouts.

i -> beats ---------------+-> rotator -> o
  -> lower, upper halves -+
i_table ------------------+
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.queue import Queue
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_max_length, fields_of, vector_beat
from edgeaccel.vector.elementwise import Elementwise

__all__ = ["PairRotator", "Rotary", "check_rotation"]

SLACK = 4  # places of the queues beside half a vector


def check_rotation(length, rotated, *, half, lanes, max_length):
    """What a program may ask of `Rotary`.

    Parameters
    ----------
    length : int
        Dimensions of a head.
    rotated : int
        How many of them are rotated.
    half : bool
        The layout.
    lanes, max_length : int
        Of the build.

    Raises
    ------
    ValueError
        If `length` is not 1 to `max_length`, or `rotated` odd or more than `length`; or for half-split, if it is no
        multiple of two beats.
    """
    if length not in range(1, max_length + 1):
        raise ValueError(f"a head must have 1 to {max_length} dimensions, not {length!r}")
    if rotated not in range(0, length + 1, 2):
        raise ValueError(f"rotated must be an even number of the {length} dimensions of a head, not {rotated!r}")
    if half and rotated % (2 * lanes):
        raise ValueError(
            f"rotated must be a multiple of {2 * lanes} to be split in halves of whole beats of {lanes},"
            f" not {rotated!r}"
        )


def _beat(lanes):
    """A beat with the flags that say how it is rotated."""
    return vector_beat(lanes, turns=lanes, half=1, upper=1)


class PairRotator(Elementwise):
    """Rotates pairs: o[k] = round(round(x[k] * cos[k]) -+ round(partner[k] * sin[k])).

    The sign is minus for the first of a pair. Elements that are not rotated stay as they are. Equals
    `edgeaccel.golden.rotary.rotate`. One beat a cycle. Four DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two of at least 2.

    Members
    -------
    i : stream of {beat: vector beat with turns: a bit a lane, half: 1, upper: 1; partners: FP32 codes x lanes}
        `turns` tells which elements are rotated. If `half` is set, `partners` are what they go with, and are the first
        of their pairs if `upper` is; if not, the neighbour in the beat is the partner.
    i_table : stream of {cos, sin: FP32 codes x lanes}
    o : stream of vector beats
    latency : int
        12 cycles.
    """

    def __init__(self, *, lanes=8):
        self._adder = FloatAdder()
        self._multiplier = FloatMultiplier()
        codes = data.ArrayLayout(FP32.width, lanes)
        i = data.StructLayout({"beat": _beat(lanes), "partners": codes})
        table = data.StructLayout({"cos": codes, "sin": codes})
        cycles = 1 + self._adder.latency - 1 + self._multiplier.latency - 1
        super().__init__(lanes, {"i": i, "i_table": table}, cycles=cycles)

    def datapath(self, pipe, i, table):
        return super().datapath(pipe, SimpleNamespace(**fields_of(i.beat), partners=i.partners), table)

    def element(self, pipe, n, i, table):
        partner = Mux(i.half, i.partners[n], i.elements[n ^ 1])
        is_first = Mux(i.half, ~i.upper, n % 2 == 0)
        pipe.carry(turns=i.turns[n])
        x, partner, cos, sin = pipe.stage(
            x=i.elements[n],
            partner=partner ^ Mux(is_first, NEGATIVE_ZERO, 0),
            cos=table.cos[n],
            sin=table.sin[n],
        )
        pipe.carry(x=x)
        branch = pipe.branch("second")
        second = self._multiplier.inline(branch, SimpleNamespace(a=partner, b=sin))
        with pipe.inside("first"):
            first = self._multiplier.inline(pipe, SimpleNamespace(a=x, b=cos))
        with pipe.inside("sum"):
            turned = self._adder.inline(pipe, SimpleNamespace(a=first, b=second))
        return Mux(pipe.take("turns"), turned, pipe.take("x"))


class Rotary(wiring.Component):
    """Rotary position embedding: pairs of a head's first dimensions, rotated by angles from a table.

    o[a] = round(round(x[a] * cos[a]) - round(x[b] * sin[a]))
    o[b] = round(round(x[b] * cos[b]) + round(x[a] * sin[b]))

    with pairs (a, b) = (2 j, 2 j + 1), or half-split (j, j + rotated / 2), j < rotated / 2. Dimensions from `rotated`
    on stay as they are. (J. Su et al., "RoFormer", 2021, arXiv 2104.09864; half-split as in GPT-NeoX.) Base and scaling
    are the table's: `edgeaccel.golden.rotary.table` makes some. `check_rotation` tells what may be asked for.

    Equals `edgeaccel.golden.rotary.rotate`, and in cycles `rotary_cycles`. One beat a cycle, without bubbles.
    Half-split, the first result waits for the beat that is half of `rotated` further.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two of at least 2.
    max_length : int
        Dimensions of the largest head, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats with rotated: dimensions, half: 1
        The two are the same in all beats of a vector.
    i_table : stream of {cos, sin: FP32 codes x lanes}
        A beat with each of `i`, of the same elements; those that are not rotated do not count.
    o : stream of vector beats

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=256):
        self.beats = check_max_length(max_length, lanes)
        if lanes < 2:
            raise ValueError(f"lanes must be at least 2, the elements of a pair, not {lanes!r}")
        self.lanes = lanes
        self.rotator = PairRotator(lanes=lanes)
        super().__init__(
            {
                "i": In(stream.Signature(vector_beat(lanes, rotated=range(max_length + 1), half=1))),
                "i_table": In(stream.Signature(self.rotator.i_table.payload.shape())),
                "o": Out(stream.Signature(vector_beat(lanes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.rotator = rotator = self.rotator
        depth = -(-self.beats // 2) + SLACK
        halves = data.ArrayLayout(FP32.width, self.lanes)
        m.submodules.beats = beats = Queue(data.StructLayout({"beat": _beat(self.lanes), "lower": 1}), depth)
        m.submodules.lowers = lowers = Queue(halves, depth)
        m.submodules.uppers = uppers = Queue(halves, depth)
        i, queues = self.i, (beats, lowers, uppers)
        wiring.connect(m, wiring.flipped(self.i_table), rotator.i_table)
        wiring.connect(m, rotator.o, wiring.flipped(self.o))

        # Where in the head the beat is, and so of which half.
        beat = Signal(range(self.beats))
        beats_of_half = i.p.rotated[exact_log2(2 * self.lanes) :]
        lower = Signal()
        upper = Signal()
        takes = Signal()
        m.d.comb += [
            lower.eq(i.p.half & (beat < beats_of_half)),
            upper.eq(i.p.half & ~lower & (beat < (beats_of_half << 1))),
            takes.eq(i.valid & Cat(queue.i.ready for queue in queues).all()),
            i.ready.eq(Cat(queue.i.ready for queue in queues).all()),
            beats.i.valid.eq(takes),
            lowers.i.valid.eq(takes & lower),
            uppers.i.valid.eq(takes & upper),
            lowers.i.payload.eq(i.p.elements),
            uppers.i.payload.eq(i.p.elements),
            beats.i.p.lower.eq(lower),
        ]
        fields = fields_of(i.p, "rotated", "half")
        m.d.comb += [beats.i.p.beat[name].eq(value) for name, value in fields.items()]
        first = beat << exact_log2(self.lanes)
        m.d.comb += [
            beats.i.p.beat.half.eq(lower | upper),
            beats.i.p.beat.upper.eq(upper),
            beats.i.p.beat.turns.eq(Cat(first + n < i.p.rotated for n in range(self.lanes))),
        ]
        with m.If(takes):
            m.d.sync += beat.eq(Mux(i.p.last, 0, beat + 1))

        # A beat goes on with the first that waits of the other half.
        waiting = beats.o.p
        has_partner = Signal()
        m.d.comb += [
            has_partner.eq(Mux(waiting.lower, uppers.o.valid, Mux(waiting.beat.upper, lowers.o.valid, 1))),
            rotator.i.valid.eq(beats.o.valid & has_partner),
            rotator.i.p.beat.eq(waiting.beat),
            rotator.i.p.partners.eq(Mux(waiting.lower, uppers.o.p, lowers.o.p)),
            beats.o.ready.eq(rotator.i.ready & has_partner),
            uppers.o.ready.eq(rotator.i.ready & beats.o.valid & waiting.lower),
            lowers.o.ready.eq(rotator.i.ready & beats.o.valid & waiting.beat.upper),
        ]
        return m
