"""Rotary position embedding of heads, in both published layouts.

i -> beats ---------------+-> join -> rotator -> o
  -> lower, upper halves -+    |
i_table -----------------------+
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
from edgeaccel.vector.beat import NEGATIVE_ZERO, check_length, check_max_length, fields_of, vector_beat
from edgeaccel.vector.elementwise import Elementwise
from edgeaccel.vector.operand import OperandJoin, with_operands

__all__ = ["PairRotator", "Rotary", "check_positions", "check_rotation"]

SLACK = 4  # places of the queues beside half a vector


def check_rotation(length, rotated, *, half, lanes, max_length, max_rotated=None):
    """What a program may ask of `Rotary`.

    Parameters
    ----------
    length : int
        Dimensions of a head.
    rotated : int
        How many of them are rotated.
    half : bool
        The layout.
    lanes, max_length, max_rotated : int
        Of the build; as many are rotated as there are, if `max_rotated` is None.

    Raises
    ------
    ValueError
        If `length` is not 1 to `max_length`, `rotated` odd or more than `length` or `max_rotated`; or for
        half-split, if it is no multiple of two beats.
    """
    check_length(length, max_length)
    if rotated not in range(0, length + 1, 2):
        raise ValueError(f"rotated must be an even number of the {length} dimensions of a head, not {rotated!r}")
    if max_rotated is not None and rotated > max_rotated:
        raise ValueError(f"rotated must be at most {max_rotated} dimensions, not {rotated!r}")
    if half and rotated % (2 * lanes):
        raise ValueError(
            f"rotated must be a multiple of {2 * lanes} to be split in halves of whole beats of {lanes},"
            f" not {rotated!r}"
        )


def check_positions(positions, table_positions):
    """Positions that a program goes through, from 0 on, and those that its table has.

    Raises
    ------
    ValueError
        If the table ends before.
    """
    if positions > table_positions:
        raise ValueError(f"a program of {positions!r} positions needs a larger table than one of {table_positions!r}")


def _codes(lanes):
    return data.ArrayLayout(FP32.width, lanes)


def _table(lanes):
    return data.StructLayout({"cos": _codes(lanes), "sin": _codes(lanes)})


def _beat(lanes, **fields):
    """A beat that knows how it is rotated; it asks for a beat of the `table` if it is."""
    return vector_beat(lanes, table=lanes, half=1, upper=1, **fields)


class PairRotator(Elementwise):
    """Rotates pairs: o[k] = round(round(x[k] * cos[k]) -+ round(partner[k] * sin[k])).

    The sign is minus for the first of a pair. Elements that are not rotated stay as they are. Equals
    `edgeaccel.golden.rotary.rotate`. One beat a cycle. Two DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two of at least 2.
    fields : dict of str to shape
        More that beats bring along.

    Members
    -------
    i : stream of {beat: vector beat with table: a bit a lane, half, upper: 1, partners: FP32 codes x lanes; table}
        The beat's `table` tells which elements are rotated. If `half` is set, `partners` are what they go with, and
        are the first of their pairs if `upper` is; if not, the neighbour in the beat is the partner. The table is
        {cos, sin: FP32 codes x lanes}.
    o : stream of vector beats
    latency : int
        12 cycles.
    """

    def __init__(self, *, lanes=8, fields=None):
        self._adder = FloatAdder()
        self._multiplier = FloatMultiplier()
        i = with_operands(_beat(lanes, partners=_codes(lanes), **(fields or {})), {"table": _table(lanes)})
        cycles = 1 + self._adder.latency - 1 + self._multiplier.latency - 1
        super().__init__(lanes, {"i": i}, cycles=cycles, fields=fields)

    def datapath(self, pipe, i):
        beat = fields_of(i.beat)
        turns = beat.pop("table")
        return super().datapath(pipe, SimpleNamespace(**beat, turns=turns, cos=i.table.cos, sin=i.table.sin))

    def element(self, pipe, n, i):
        partner = Mux(i.half, i.partners[n], i.elements[n ^ 1])
        is_first = Mux(i.half, ~i.upper, n % 2 == 0)
        pipe.carry(turns=i.turns[n])
        x, partner, cos, sin = pipe.stage(
            x=i.elements[n],
            partner=partner ^ Mux(is_first, NEGATIVE_ZERO, 0),
            cos=i.cos[n],
            sin=i.sin[n],
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
    max_rotated : int
        Most dimensions that are rotated, a multiple of `lanes`; all by default.
    fields : dict of str to shape
        More that beats bring along.

    Members
    -------
    i : stream of vector beats with rotated: dimensions, half: 1
        The two are the same in all beats of a vector.
    i_table : stream of {cos, sin: FP32 codes x lanes}
        A beat with each of `i` of which elements are rotated; others in it do not count.
    o : stream of vector beats

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=256, max_rotated=None, fields=None):
        self.beats = check_max_length(max_length, lanes)
        max_rotated = max_length if max_rotated is None else max_rotated
        if max_rotated not in range(lanes, max_length + 1, lanes):
            raise ValueError(f"max_rotated must be a multiple of {lanes} to {max_length}, not {max_rotated!r}")
        self.depth = -(-max_rotated // (2 * lanes)) + SLACK
        if lanes < 2:
            raise ValueError(f"lanes must be at least 2, the elements of a pair, not {lanes!r}")
        self.lanes = lanes
        self._waiting = data.StructLayout({"beat": _beat(lanes, **(fields or {})), "lower": 1})
        joined = _beat(lanes, partners=_codes(lanes), **(fields or {}))
        self.join = OperandJoin(joined, {"table": _table(lanes)})
        self.rotator = PairRotator(lanes=lanes, fields=fields)
        i = vector_beat(lanes, rotated=range(max_rotated + 1), half=1, **(fields or {}))
        super().__init__(
            {
                "i": In(stream.Signature(i)),
                "i_table": In(stream.Signature(_table(lanes))),
                "o": Out(stream.Signature(self.rotator.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.join = join = self.join
        m.submodules.rotator = rotator = self.rotator
        m.submodules.beats = beats = Queue(self._waiting, self.depth)
        m.submodules.lowers = lowers = Queue(_codes(self.lanes), self.depth)
        m.submodules.uppers = uppers = Queue(_codes(self.lanes), self.depth)
        i, queues = self.i, (beats, lowers, uppers)
        wiring.connect(m, wiring.flipped(self.i_table), join.i_table)
        wiring.connect(m, join.o, rotator.i)
        wiring.connect(m, rotator.o, wiring.flipped(self.o))

        # Where in the head the beat is, and so of which half.
        beat = Signal(range(self.beats))
        first = beat << exact_log2(self.lanes)
        beats_of_half = i.p.rotated[exact_log2(2 * self.lanes) :]
        lower = Signal()
        upper = Signal()
        takes = Signal()
        m.d.comb += [
            lower.eq(i.p.half & (beat < beats_of_half)),
            upper.eq(i.p.half & ~lower & (beat < (beats_of_half << 1))),
            i.ready.eq(Cat(queue.i.ready for queue in queues).all()),
            takes.eq(i.valid & i.ready),
            beats.i.valid.eq(takes),
            lowers.i.valid.eq(takes & lower),
            uppers.i.valid.eq(takes & upper),
            lowers.i.payload.eq(i.p.elements),
            uppers.i.payload.eq(i.p.elements),
            beats.i.p.lower.eq(lower),
            beats.i.p.beat.half.eq(lower | upper),
            beats.i.p.beat.upper.eq(upper),
            beats.i.p.beat.table.eq(Cat(first + n < i.p.rotated for n in range(self.lanes))),
        ]
        m.d.comb += [beats.i.p.beat[name].eq(value) for name, value in fields_of(i.p, "rotated", "half").items()]
        with m.If(takes):
            m.d.sync += beat.eq(Mux(i.p.last, 0, beat + 1))

        # A beat goes on with the first that waits of the other half.
        waiting = beats.o.p
        has_partner = Signal()
        m.d.comb += [
            has_partner.eq(Mux(waiting.lower, uppers.o.valid, Mux(waiting.beat.upper, lowers.o.valid, 1))),
            join.i.valid.eq(beats.o.valid & has_partner),
            beats.o.ready.eq(join.i.ready & has_partner),
            uppers.o.ready.eq(join.i.ready & beats.o.valid & waiting.lower),
            lowers.o.ready.eq(join.i.ready & beats.o.valid & waiting.beat.upper),
            join.i.p.partners.eq(Mux(waiting.lower, uppers.o.p, lowers.o.p)),
        ]
        m.d.comb += [join.i.p[name].eq(value) for name, value in fields_of(waiting.beat).items()]
        return m
