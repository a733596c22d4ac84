"""Merge: a group's results behind those of the groups before it."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.systolic.beat import result_beat

__all__ = ["Merge"]


class Merge(wiring.Component):
    """Puts the results of a pass in order: those of the groups before, then this group's channels.

    A group that takes no part in the pass hands on what comes. One result beat a cycle.

    Parameters
    ----------
    config : Config

    Members
    -------
    is_first : in
        Whether the group is the first in the chain; nothing comes then from before.
    i_passes : stream of 1 bit
        One for each pass, in order: whether the group takes part.
    i_before : stream of `result_beat`
    i_own : array of streams of FP32 codes x rows, one for each scaler
        Channel `c` of the tile comes from scaler `c mod scalers`.
    o : stream of `result_beat`
    """

    def __init__(self, config):
        self.config = config
        beats = stream.Signature(result_beat(config))
        values = stream.Signature(result_beat(config)["values"].shape)
        super().__init__(
            {
                "is_first": In(1),
                "i_passes": In(stream.Signature(1)),
                "i_before": In(beats),
                "i_own": In(values).array(config.scalers),
                "o": Out(beats),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, before, takes_part = self.o, self.i_before, self.i_passes.p
        channel = Signal(range(self.config.tile_channels))
        is_own = Signal()  # it is this group's turn
        last_own = channel == self.config.tile_channels - 1
        turn = Signal()
        m.d.comb += turn.eq(takes_part & (is_own | self.is_first))

        with m.If(self.i_passes.valid & turn):
            for n, own in enumerate(self.i_own):
                with m.If(channel[: exact_log2(len(self.i_own))] == n):
                    m.d.comb += [o.valid.eq(own.valid), o.p.values.eq(own.p), own.ready.eq(o.ready)]
            m.d.comb += [o.p.last.eq(last_own), self.i_passes.ready.eq(o.valid & o.ready & last_own)]
            with m.If(o.valid & o.ready):
                m.d.sync += channel.eq(channel + 1)
                with m.If(last_own):
                    m.d.sync += is_own.eq(0)
        with m.Elif(self.i_passes.valid):
            m.d.comb += [
                o.valid.eq(before.valid),
                o.p.values.eq(before.p.values),
                o.p.last.eq(before.p.last & ~takes_part),
                before.ready.eq(o.ready),
                self.i_passes.ready.eq(o.valid & o.ready & before.p.last & ~takes_part),
            ]
            with m.If(o.valid & o.ready & before.p.last & takes_part):
                m.d.sync += is_own.eq(1)
        return m
