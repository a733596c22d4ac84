"""Merge: a group's results behind those of the groups before it."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.systolic.beat import pass_turn, result_beat

__all__ = ["Merge"]


class Merge(wiring.Component):
    """Puts the results of a pass in order: those of the groups before, then this group's. One beat a cycle.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_turns : stream of `pass_turn`
        One for each pass with which the group has to do, in order.
    i_before, i_own : streams of `result_beat`
    o : stream of `result_beat`
    """

    def __init__(self, config):
        beats = stream.Signature(result_beat(config))
        super().__init__(
            {
                "i_turns": In(stream.Signature(pass_turn(config))),
                "i_before": In(beats),
                "i_own": In(beats),
                "o": Out(beats),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, before, own, turn = self.o, self.i_before, self.i_own, self.i_turns
        before_done = Signal()  # those before have given all for this pass
        is_own, moves = Signal(), Signal()
        m.d.comb += [
            is_own.eq(before_done | ~turn.p.follows),
            moves.eq(o.valid & o.ready),
        ]
        with m.If(is_own):
            m.d.comb += [
                o.valid.eq(turn.valid & own.valid),
                o.p.eq(own.p),
                own.ready.eq(turn.valid & o.ready),
                turn.ready.eq(moves & own.p.last),
            ]
        with m.Else():
            m.d.comb += [
                o.valid.eq(turn.valid & before.valid),
                o.p.values.eq(before.p.values),
                o.p.last.eq(before.p.last & ~turn.p.own),
                before.ready.eq(turn.valid & o.ready),
                turn.ready.eq(moves & before.p.last & ~turn.p.own),
            ]
        with m.If(moves & (turn.ready | (before.p.last & ~is_own))):
            m.d.sync += before_done.eq(~turn.ready)
        return m
