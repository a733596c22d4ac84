"""Results of the array to whom they belong."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.attention.passes import result_route
from edgeaccel.systolic.beat import result_beat

__all__ = ["ResultRouter"]


class ResultRouter(wiring.Component):
    """Products of keys to the scores, products of values to the sums.

    No register: a beat goes through in the cycle in which it is offered.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : stream of `result_beat`
    i_routes : stream of `result_route`
        One for each pass, taken with its last beat.
    o_scores, o_values : streams of `result_beat`
    """

    def __init__(self, config):
        self.config = config
        beats = stream.Signature(result_beat(config))
        super().__init__(
            {
                "i": In(beats),
                "i_routes": In(stream.Signature(result_route(config))),
                "o_scores": Out(beats),
                "o_values": Out(beats),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, route = self.i, self.i_routes
        tile_bits = exact_log2(self.config.tile_channels // self.config.vector_lanes)
        beat = Signal(len(route.p.tiles) + tile_bits)
        is_last = Signal()
        offered = i.valid & route.valid
        m.d.comb += [
            is_last.eq(beat + 1 == route.p.tiles << tile_bits),
            self.o_scores.p.eq(i.p),
            self.o_values.p.eq(i.p),
            self.o_scores.valid.eq(offered & ~route.p.is_values),
            self.o_values.valid.eq(offered & route.p.is_values),
            i.ready.eq(route.valid & Mux(route.p.is_values, self.o_values.ready, self.o_scores.ready)),
            route.ready.eq(i.valid & i.ready & is_last),
        ]
        with m.If(i.valid & i.ready):
            m.d.sync += beat.eq(Mux(is_last, 0, beat + 1))
        return m
