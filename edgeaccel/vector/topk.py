"""The k largest elements of a vector while it streams by."""

from amaranth.hdl import Cat, Const, Mux, Signal, signed
from amaranth.lib import data
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import check_max_length, vector_beat
from edgeaccel.vector.reduce import LOWEST_KEY, code_of_key, order_key

__all__ = ["TopK"]


class TopK(Pipelined):
    """The k largest elements of a vector with their places, the largest first.

    Each is what `VectorMaximum` gives of the elements that are left: the first of equals, -0 equals +0 and leaves as
    +0, a NaN is larger than all numbers. Equals `edgeaccel.golden.vector.top_k`. One beat a cycle, without bubbles
    between vectors of any lengths.

    A beat is sorted, then passes `k` cells in a row. A cell keeps the largest it has seen and hands the others on, in
    order; so cell `n` ends with the element of rank `n`. Nothing but one comparison goes round a register.

    Parameters
    ----------
    k : int
        Elements to find, 1 to max_length.
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.

    Members
    -------
    i : stream of vector beats
    o : stream of {values: FP32 codes x k, indices: places x k, count: how many of them there are}
        One for each vector; count is k, or less if the vector is shorter.
    latency : int
        From a vector's last beat: lanes + k + 2 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, k=8, lanes=8, max_length=4096):
        self._beats = check_max_length(max_length, lanes)
        if k not in range(1, max_length + 1):
            raise ValueError(f"k must be 1 to {max_length} elements, not {k!r}")
        self.k = k
        self.lanes = lanes
        # As one number, these order entries: of equal keys the first place comes first.
        order = data.StructLayout({"not_index": ceil_log2(max_length), "key": signed(FP32.width)})
        self._entry = data.StructLayout({"held": 1, "order": order})
        o = data.StructLayout(
            {
                "values": data.ArrayLayout(FP32.width, k),
                "indices": data.ArrayLayout(ceil_log2(max_length), k),
                "count": range(k + 1),
            }
        )
        super().__init__({"i": vector_beat(lanes)}, o, cycles=lanes + k + 1)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        m = pipe.m
        beat = Signal(range(self._beats))
        with m.If(pipe.valid):
            m.d.sync += beat.eq(Mux(i.last, 0, beat + 1))
        pipe.carry(first=beat == 0)
        entries = [Signal(self._entry, name=f"entry{n}") for n in range(self.lanes)]
        for n, entry in enumerate(entries):
            m.d.comb += [
                entry.order.key.eq(Mux(i.keep[n], order_key(i.elements[n]), LOWEST_KEY)),
                entry.order.not_index.eq(~Cat(Const(n, ceil_log2(self.lanes)), beat)),
                entry.held.eq(i.keep[n]),
            ]
        entries = pipe.stage(entry=entries)
        with pipe.inside("sort"):
            entries = self._sorted(pipe, entries)
        for n in range(self.k):
            with pipe.inside(f"cell{n}"):
                kept, entries = self._cell(pipe, entries)
            pipe.carry(**{f"found{n}": kept})
        found = [pipe.take(f"found{n}") for n in range(self.k)]
        pipe.take("first")
        values = [code_of_key(entry.order.key) for entry in found]
        return Cat(values, [~entry.order.not_index for entry in found], sum(entry.held for entry in found))

    def _sorted(self, pipe, entries):
        """Entries in descending order: neighbours change places in `lanes` rounds."""
        for turn in range(self.lanes):
            for n in range(turn % 2, self.lanes - 1, 2):
                first, second = entries[n : n + 2]
                swap = _is_larger(second, first)
                entries[n : n + 2] = self._choose(swap, second, first), self._choose(swap, first, second)
            entries = pipe.stage(entry=entries)
        return entries

    def _cell(self, pipe, entries):
        """What a cell keeps, valid with the vector's last beat, and the others in order, a stage later."""
        m = pipe.m
        best = Signal(self._entry, reset_less=True)
        none = Signal(self._entry)
        m.d.comb += none.order.key.eq(LOWEST_KEY)
        # At a vector's first beat the cell is empty; what stood there is the result of the one before.
        own = Signal(self._entry)
        m.d.comb += own.eq(Mux(pipe.first, none, best))
        larger = [_is_larger(entry, own) for entry in entries]
        with m.If(pipe.valid):
            m.d.sync += best.eq(Mux(larger[0], entries[0], own))
        # In the order of the entries with the cell's own among them, all but the first.
        others = []
        for n, entry in enumerate(entries):
            other = self._choose(larger[n], own, entry)
            if n + 1 < len(entries):
                other = self._choose(larger[n + 1], entries[n + 1], other)
            others.append(other)
        others = pipe.stage(entry=others)
        return best, others

    def _choose(self, flag, a, b):
        return self._entry(Mux(flag, a, b))


def _is_larger(a, b):
    return a.order.as_value().as_signed() > b.order.as_value().as_signed()
