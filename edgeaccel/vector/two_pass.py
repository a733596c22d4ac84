"""A vector twice: for a statistic while it streams by, then again, together with that statistic.

i -> queue ----------+-> apply -> o
  -> statistic ------+
"""

from amaranth.hdl import Module, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In

__all__ = ["TwoPass", "applied"]


def applied(beat, statistic):
    """What the second pass takes: a beat and the statistic of the vector that it is of."""
    return data.StructLayout({"beat": beat, "statistic": statistic})


class TwoPass(wiring.Component):
    """Waits with a vector until a statistic of it is known, then hands both on, beat by beat.

    `statistic` sees each beat as it comes and gives one item at the end of a vector; `apply` takes the beats again,
    each with the item of its vector. So the latency is that of a vector and both units. There is no bubble between
    vectors of any lengths: the queue, in block memory, holds a vector and what comes while its statistic is on its
    way. A vector longer than that would never end; `edgeaccel.vector.beat.check_length` is for programs. Equals, in
    cycles, `edgeaccel.golden.two_pass.two_pass`.

    Parameters
    ----------
    statistic : Pipelined
        From beats `i` to `o`; emits where a beat ends a vector. It gets as many credits as the queue has places.
    apply : Pipelined
        Its input `i` is `applied` of the beat and the statistic; further inputs become inputs here.
    beats : int
        Beats of the longest vector.
    ends : str
        The field of a beat that ends a vector.

    Members
    -------
    i : stream of beats, as `statistic` takes them
    o : stream, as `apply` gives them
    waiting : int
        Places of the queue: beats + statistic.latency + 2.
    """

    def __init__(self, statistic, apply, *, beats, ends="last"):
        self.statistic, self.apply = statistic, apply
        self.waiting = beats + statistic.latency + 2
        self.statistic.credits = self.waiting
        self._ends = ends
        self._others = [name for name in apply.signature.members if name not in ("i", "o")]
        members = {name: apply.signature.members[name] for name in (*self._others, "o")}
        super().__init__({"i": In(stream.Signature(statistic.i.payload.shape()))} | members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.statistic = statistic = self.statistic
        m.submodules.apply = apply = self.apply
        beat = self.i.payload.shape()
        m.submodules.waiting = waiting = fifo.SyncFIFOBuffered(width=beat.size, depth=self.waiting)
        i, taken = self.i, beat(waiting.r_data)
        m.d.comb += [
            i.ready.eq(waiting.w_rdy & statistic.i.ready),
            waiting.w_en.eq(i.valid & statistic.i.ready),
            waiting.w_data.eq(i.payload),
            statistic.i.valid.eq(i.valid & waiting.w_rdy),
            statistic.i.payload.eq(i.payload),
            apply.i.valid.eq(waiting.r_rdy & statistic.o.valid),
            apply.i.payload.beat.eq(taken),
            Value.cast(apply.i.payload.statistic).eq(statistic.o.payload),
            waiting.r_en.eq(apply.i.ready & statistic.o.valid),
            statistic.o.ready.eq(apply.i.ready & waiting.r_rdy & taken[self._ends]),
        ]
        for name in self._others:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(apply, name))
        wiring.connect(m, apply.o, wiring.flipped(self.o))
        return m
