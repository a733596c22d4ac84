"""Vectors of all rows side by side, made into vectors of one row after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.memory.buffer import memory_attributes
from edgeaccel.systolic.beat import result_beat
from edgeaccel.vector.beat import check_max_length, fields_of, vector_beat

__all__ = ["RowSerialiser"]


class RowSerialiser(wiring.Component):
    """Gives row 0 of a vector of all rows, then row 1, and so on.

    One of two halves of a memory takes a vector while the other is read, so one beat a cycle comes out as long as
    vectors come fast enough, and one a cycle is taken as long as the halves are read as fast as that. Equals
    `edgeaccel.golden.rows.serialise`, and in cycles `row_cycles`.

    Parameters
    ----------
    config : Config
    max_length : int
        Elements of a row of the longest vector, a multiple of `vector_lanes`.
    fields : dict of str to shape
        More that each vector's item of `i_steps` has, which goes with its beats.

    Members
    -------
    i : stream of {elements: FP32 codes x lanes x rows, keep: a bit a lane, last: 1}
    i_steps : stream of {rows: range(rows + 1), and `fields`}
        One for each vector: how many rows of it are given, from row 0 on; none if that is 0. It is taken as the last
        of their beats is read.
    o : stream of vector beats with row: range(rows), and `fields`
    latency : int
        From the last beat of a vector to the first of its row 0: 2 cycles.

    Raises
    ------
    ValueError
        If `max_length` is out of range or `fields` has a name that a beat has already.
    """

    latency = 2

    def __init__(self, config, *, max_length=256, fields=None):
        lanes, rows = config.vector_lanes, config.rows
        self._beats = check_max_length(max_length, lanes)
        fields = dict(fields or {})
        row_beat = vector_beat(lanes, row=range(rows))
        if taken := sorted(fields.keys() & {*row_beat.members, "rows"}):
            raise ValueError(f"fields must have other names than those of a beat, not {', '.join(taken)}")
        self._elements = result_beat(config)["values"].shape
        self._fields = tuple(fields)
        i = data.StructLayout({"elements": self._elements, "keep": lanes, "last": 1})
        super().__init__(
            {
                "i": In(stream.Signature(i)),
                "i_steps": In(stream.Signature(data.StructLayout({"rows": range(rows + 1)} | fields))),
                "o": Out(stream.Signature(vector_beat(lanes, row=range(rows), **fields))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = (1 << ceil_log2(self._beats)) + self._beats
        m.submodules.storage = storage = Memory(
            shape=self._elements, depth=depth, init=[], attrs=memory_attributes(depth)
        )
        # Of each half: whether it holds a vector, its last beat and what of that is kept.
        is_full = Signal(2)
        ends = data.StructLayout({"beat": range(self._beats), "keep": self.i.p.keep.shape()})
        halves = Signal(data.ArrayLayout(ends, 2), reset_less=True)
        filled = self._fill(m, storage.write_port(), is_full, halves)
        emptied = self._empty(m, storage.read_port(), is_full, halves)
        m.d.sync += is_full.eq((is_full | filled) & ~emptied)
        return m

    def _fill(self, m, port, is_full, halves):
        """Take beats into a half; a bit for the one that becomes full."""
        i = self.i
        half, beat = Signal(), Signal(range(self._beats))
        ends = Signal()
        m.d.comb += [
            i.ready.eq(~Mux(half, is_full[1], is_full[0])),
            port.en.eq(i.valid & i.ready),
            port.addr.eq(Cat(beat, half)),
            port.data.eq(i.p.elements),
            ends.eq(port.en & i.p.last),
        ]
        with m.If(port.en):
            m.d.sync += [
                beat.eq(Mux(i.p.last, 0, beat + 1)),
                half.eq(half ^ i.p.last),
                halves[half].eq(Cat(beat, i.p.keep)),
            ]
        return ends << half

    def _empty(self, m, port, is_full, halves):
        """Give the beats of a half, row by row; a bit for the one that becomes empty."""
        steps, o = self.i_steps, self.o
        half, beat, row = Signal(), Signal(range(self._beats)), Signal.like(self.o.p.row)
        reads, ends_row, ends, gives = Signal(), Signal(), Signal(), Signal()
        end = Signal(halves[0].shape())
        m.d.comb += [
            end.eq(Mux(half, halves[1].as_value(), halves[0].as_value())),
            # What is read stays in the memory's register until it is taken.
            reads.eq(Mux(half, is_full[1], is_full[0]) & steps.valid & (~o.valid | o.ready)),
            gives.eq(steps.p.rows != 0),
            ends_row.eq(beat == end.beat),
            ends.eq((ends_row & (row + 1 == steps.p.rows)) | ~gives),
            port.en.eq(reads),
            port.addr.eq(Cat(beat, half)),
            steps.ready.eq(reads & ends),
        ]
        with m.If(reads & gives):
            m.d.sync += beat.eq(Mux(ends_row, 0, beat + 1))
            m.d.sync += [o.p[name].eq(value) for name, value in fields_of(steps.p, "rows").items()]
            m.d.sync += [
                o.p.row.eq(row),
                o.p.last.eq(ends_row),
                o.p.keep.eq(end.keep | ~ends_row.replicate(len(end.keep))),
            ]
            with m.If(ends_row):
                m.d.sync += row.eq(Mux(ends, 0, row + 1))
        with m.If(~o.valid | o.ready):
            m.d.sync += o.valid.eq(reads & gives)
        m.d.sync += half.eq(half ^ (reads & ends))
        with m.Switch(o.p.row):
            for n, elements in enumerate(port.data):
                with m.Case(n):
                    m.d.comb += o.p.elements.eq(elements)
        return (reads & ends) << half
