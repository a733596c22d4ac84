"""What attention gives: results of V passes summed over the chunks of slots, with the corrections of softmax.

i -------> cutter -> queues -> gate -+-> row of sums, for each row, all in step -> o
i_steps -----^                       |      ^
i_chunks ----------> queue of shifts +      | one over the sum of weights
    +--------------> sums of weights -------+
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.values_sums import SUM_TURN, TurnGate, ValueSum, WeightSum
from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.repeated import repeated
from edgeaccel.systolic.beat import result_beat
from edgeaccel.vector.chunk import SHIFT_WIDTH
from edgeaccel.vector.path import ResultCutter

__all__ = ["ValueAccumulator", "ValueRow"]

BEATS = 2  # as many as one beat a cycle needs


class ValueRow(wiring.Component):
    """A row of a `ValueAccumulator`: its sums of weights and of values.

    The beats of a last chunk wait for one over the sum of weights, which goes with the last of them.

    Parameters
    ----------
    lanes, slots, beats : int
        As in `ValueSum`.
    ahead : int
        Chunks whose weights may come before their values.

    Members
    -------
    i_chunks : stream of what `WeightSum` takes
    i : stream of what `ValueSum` takes without the inverse, but with ends: 1
        `ends` marks the last beat of a vector.
    o : stream of FP32 codes x lanes
    """

    def __init__(self, *, lanes=8, slots=32, beats=32, ahead=32):
        self.weights = WeightSum(slots=slots, credits=ahead)
        self.values = ValueSum(lanes=lanes, slots=slots, beats=beats)
        beat = {name: field.shape for name, field in self.values.i.p.shape() if name != "inverse"} | {"ends": 1}
        super().__init__(
            {
                "i_chunks": In(stream.Signature(self.weights.i.p.shape())),
                "i": In(stream.Signature(data.StructLayout(beat))),
                "o": Out(stream.Signature(self.values.o.p.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.weights = weights = self.weights
        m.submodules.values = values = self.values
        wiring.connect(m, wiring.flipped(self.i_chunks), weights.i)
        wiring.connect(m, values.o, wiring.flipped(self.o))
        i, inverse = self.i, weights.o
        has_inverse = inverse.valid | ~i.p.last
        m.d.comb += [values.i.p[name].eq(i.p[name]) for name in i.p.shape().members if name != "ends"]
        m.d.comb += [
            values.i.p.inverse.eq(inverse.p),
            values.i.valid.eq(i.valid & has_inverse),
            i.ready.eq(values.i.ready & has_inverse),
            inverse.ready.eq(i.valid & values.i.ready & i.p.last & i.p.ends),
        ]
        return m


class ValueAccumulator(wiring.Component):
    """Sums the results of V passes over the chunks of each slot, and divides by the sum of weights at the end.

    of each unit (a chunk of a slot), for each row:
    l[slot]    = sum if first, else round(l[slot] * 2**-shift + sum)
    o[slot][i] = result[i] if first, else round(o[slot][i] * 2**-shift + result[i])
    after the last: o = round(o[slot][i] * reciprocal(l[slot])), where an infinite reciprocal counts as 0

    What is multiplied by 2**-shift becomes a zero of its sign where it is, before or after, below 2**-126. Units of
    different slots come in any order; those of a slot from one with `first` to one with `last`. Equals
    `edgeaccel.golden.values.accumulate`, `accumulate_sum` and `finish`, and in cycles `value_cycles`.

    One beat of results a cycle, but one that adds to what another made waits until 8 cycles after that one. One chunk
    in 8 cycles. Beats of a unit wait for its chunk, and those of a last unit until the sum of weights is inverted.

    Parameters
    ----------
    config : Config
    slots : int
        Vectors that are summed at the same time.
    max_head_dim : int
        Channels of the longest vector, a multiple of `vector_lanes`.
    ahead : int
        Chunks that are taken before their results come.
    tag_width : int
        Bits that go with each unit from `i_steps` to `o`.

    Members
    -------
    i : stream of `result_beat`
        Whole tiles for each unit, of which the channels past `channels` are dropped. `last` does not count.
    i_steps : stream of {slot, first: 1, last: 1, channels: 1 to max_head_dim, tag: tag_width bits}
        One for each unit, taken with its last beat; no tag if that is 0 bits wide.
    i_chunks : stream of {slot, first: 1, last: 1, shift: 8 bits x rows, sum: FP32 codes x rows}
        One for each unit, in the same order; the shift is that of the unit's maximum over those before.
    o : stream of {elements: FP32 codes x lanes x rows, keep: a bit a lane, last: 1, slot, tag}
        Vectors after their last units; lanes that are not kept hold 0.
    clear : 1 bit
        Resets the rows, which `ResetInserter` does not reach where they are instances.
    latency : int
        From a beat of `i` to one of `o`, if nothing stalls: 16 cycles. From a chunk to its inverse, for which the beats
        of a last unit wait: 17 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, config, *, slots=32, max_head_dim=256, ahead=32, tag_width=0):
        for name, value, least in (("slots", slots, 1), ("ahead", ahead, 1), ("tag_width", tag_width, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")
        self.config = config
        lanes = config.vector_lanes
        beats = max_head_dim // lanes
        if beats < 1 or max_head_dim % lanes:
            raise ValueError(
                f"max_head_dim must be a positive multiple of the {lanes} elements of a beat, not {max_head_dim!r}"
            )
        self._slots, self._beats, self._ahead = slots, beats, ahead
        self._settings = {"lanes": lanes, "slots": slots, "beats": beats, "ahead": ahead}
        self.rows = [ValueRow(**self._settings) for _ in range(config.rows)]
        values = self.rows[0].values
        self.latency = 2 + values.latency
        tag = {"tag": tag_width} if tag_width else {}
        self._side = data.StructLayout({"keep": lanes, "last": 1, "slot": range(slots)} | tag)
        # The cutter has a `last` of its own: of beats.
        unit = {"slot": range(slots), "first": 1, "last_chunk": 1} | tag
        self.cutter = ResultCutter(config, unit, max_length=max_head_dim)
        steps = {"slot": range(slots), "first": 1, "last": 1, "channels": range(max_head_dim + 1)} | tag
        by_row = {"shift": data.ArrayLayout(SHIFT_WIDTH, config.rows), "sum": data.ArrayLayout(FP32.width, config.rows)}
        o = {"elements": result_beat(config)["values"].shape} | {name: field.shape for name, field in self._side}
        super().__init__(
            {
                "i": In(stream.Signature(result_beat(config))),
                "i_steps": In(stream.Signature(data.StructLayout(steps))),
                "i_chunks": In(
                    stream.Signature(data.StructLayout({"slot": range(slots), "first": 1, "last": 1} | by_row))
                ),
                "o": Out(stream.Signature(data.StructLayout(o))),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for n, row in enumerate(self.rows):
            m.submodules[f"row{n}"] = repeated(platform, row, key=tuple(self._settings.items()), clear=self.clear)
        shifts = self._take_chunks(m)
        beats, elements = self._cut(m)
        self._enter(m, beats, elements, shifts)
        return m

    def _take_chunks(self, m):
        """Sums of weights to the rows; gives the queue of shifts."""
        i, rows = self.i_chunks, self.rows
        m.submodules.shifts = shifts = Queue(i.p.shift.shape(), self._ahead)
        # Far enough apart for any slot's sum to be read again. An inverse has a place in its row as long as a shift has
        # one, since they leave together.
        since = Signal(SUM_TURN - 1)
        takes = Signal()
        m.d.comb += [
            i.ready.eq(shifts.i.ready & ~since.any()),
            takes.eq(i.valid & i.ready),
            shifts.i.valid.eq(takes),
            shifts.i.p.eq(i.p.shift),
        ]
        m.d.sync += since.eq(Cat(takes, since))
        for n, row in enumerate(rows):
            m.d.comb += [row.i_chunks.p[name].eq(i.p[name]) for name in ("slot", "first", "last")]
            m.d.comb += [row.i_chunks.p[name].eq(i.p[name][n]) for name in ("shift", "sum")]
            m.d.comb += row.i_chunks.valid.eq(takes)
        return shifts.o

    def _cut(self, m):
        """Beats of units without the padding: through the gate what is asked of them, and beside it their elements."""
        m.submodules.cutter = cutter = self.cutter
        asked = data.StructLayout({name: field.shape for name, field in cutter.o.p.shape() if name != "elements"})
        m.submodules.beats = beats = Queue(asked, BEATS)
        m.submodules.gate = gate = TurnGate(self.rows[0].values.i.p.address.shape(), asked)
        # There is room for what waits in the queue and in the gate.
        m.submodules.elements = elements = Queue(cutter.o.p.elements.shape(), BEATS + 1)
        wiring.connect(m, wiring.flipped(self.i), cutter.i)
        steps, beat = self.i_steps, beats.o.p
        m.d.comb += [cutter.i_steps.p[name].eq(steps.p[name]) for name in steps.p.shape().members if name != "last"]
        m.d.comb += [beats.i.p[name].eq(cutter.o.p[name]) for name in asked.members]
        place = Signal(range(self._beats))
        m.d.comb += [
            cutter.i_steps.valid.eq(steps.valid),
            steps.ready.eq(cutter.i_steps.ready),
            cutter.i_steps.p.last_chunk.eq(steps.p.last),
            beats.i.valid.eq(cutter.o.valid),
            elements.i.valid.eq(cutter.o.valid & beats.i.ready),
            elements.i.p.eq(cutter.o.p.elements),
            cutter.o.ready.eq(beats.i.ready),
            gate.i.valid.eq(beats.o.valid),
            gate.i.p.address.eq(Cat(place, beat.slot)),
            gate.i.p.reads.eq(~beat.first),
            gate.i.p.fields.eq(beat),
            beats.o.ready.eq(gate.i.ready),
        ]
        with m.If(beats.o.valid & beats.o.ready):
            m.d.sync += place.eq(Mux(beat.last, 0, place + 1))
        return gate.o, elements.o

    def _enter(self, m, beats, elements, shifts):
        """Beats with their unit's shift into the rows, and what is the same in all rows past them."""
        rows, o = self.rows, self.o
        m.submodules.side = side = Queue(self._side, rows[0].values.credits)
        beat = beats.p.fields
        enters = Signal()
        m.d.comb += [
            enters.eq(beats.valid & beats.ready),
            beats.ready.eq(shifts.valid & rows[0].i.ready),
            elements.ready.eq(enters),
            shifts.ready.eq(enters & beat.last),
            side.i.valid.eq(enters & beat.last_chunk),
            side.o.ready.eq(o.valid & o.ready),
            o.valid.eq(rows[0].o.valid),
        ]
        m.d.comb += [side.i.p[name].eq(beat[name]) for name in self._side.members]
        m.d.comb += [o.p[name].eq(side.o.p[name]) for name in self._side.members]
        for n, row in enumerate(rows):
            m.d.comb += [
                row.i.valid.eq(beats.valid & shifts.valid),
                row.i.p.elements.eq(elements.p[n]),
                row.i.p.keep.eq(beat.keep),
                row.i.p.address.eq(beats.p.address),
                row.i.p.first.eq(beat.first),
                row.i.p.last.eq(beat.last_chunk),
                row.i.p.ends.eq(beat.last),
                row.i.p.shift.eq(shifts.p[n]),
                o.p.elements[n].eq(row.o.p),
                row.o.ready.eq(o.ready),
            ]
