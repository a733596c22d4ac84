"""Packer: results of channels one by one to beats of several."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.systolic.beat import result_beat

__all__ = ["Packer"]


class Packer(wiring.Component):
    """Puts the results of `vector_lanes` channels into a beat; takes one channel a cycle.

    The last channel of a beat goes through in the cycle in which it is offered; the others wait for it here.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : array of streams of FP32 codes x rows, one for each scaler
        Channel `c` of the tile comes from scaler `c mod scalers`.
    o : stream of `result_beat`
        `last` with the tile's last channels.
    """

    def __init__(self, config):
        self.config = config
        values = result_beat(config)["values"].shape
        channel = stream.Signature(type(values)(values.elem_shape.elem_shape, config.rows))
        super().__init__({"i": In(channel).array(config.scalers), "o": Out(stream.Signature(result_beat(config)))})

    def elaborate(self, platform):
        m = Module()
        lanes, o = self.config.vector_lanes, self.o
        channel = Signal(range(self.config.tile_channels))
        offered, codes, taken = Signal(), Signal.like(self.i[0].p), Signal()
        completes = Signal()
        for n, i in enumerate(self.i):
            is_turn = channel[: exact_log2(len(self.i))] == n
            m.d.comb += i.ready.eq(is_turn & (o.ready | ~completes))
            with m.If(is_turn):
                m.d.comb += [offered.eq(i.valid), codes.eq(i.p)]
        m.d.comb += [
            completes.eq(channel[: exact_log2(lanes)].all()),
            taken.eq(offered & (o.ready | ~completes)),
            o.valid.eq(offered & completes),
            o.p.last.eq(channel.all()),
        ]
        with m.If(taken):
            m.d.sync += channel.eq(channel + 1)

        before = []
        for n in range(lanes - 1):
            kept = Signal.like(codes, name=f"channel{n}", reset_less=True)
            with m.If(channel[: exact_log2(lanes)] == n):
                m.d.sync += kept.eq(codes)
            before.append(kept)
        for row, values in enumerate(o.p.values):
            m.d.comb += values.eq(Cat(codes[row] for codes in (*before, codes)))
        return m
