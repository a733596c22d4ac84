"""The AXI side of a writer."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory import axi
from edgeaccel.memory.lanes import lanes_from, lanes_to

__all__ = ["WritePort"]


class WritePort(wiring.Component):
    """AXI4 write master for bursts whose data is there.

    A request is on the AW channel the cycle after it was taken, and its beats may be on the W channel from then on, not
    waiting for the address to be accepted. A response is given the cycle after it came; `bready` is always 1.

    Parameters
    ----------
    widths : BlockWidths
    outstanding : int
        Most bursts whose beats are not all sent.

    Members
    -------
    m_axi : axi.Signature
        Write channels; INCR bursts of full beats with strobes, always with ID 0.
    i : stream of BlockWidths.requests
    i_beats : stream of BlockWidths.write_beats
        Beats of requests not taken yet may be offered.
    o : stream of axi.Response, always ready
    """

    def __init__(self, widths, outstanding):
        self.widths = widths
        self.outstanding = outstanding
        super().__init__(
            {
                "m_axi": Out(axi.Signature(address_width=widths.address, data_width=widths.beat, read=False)),
                "i": In(stream.Signature(widths.requests)),
                "i_beats": In(stream.Signature(widths.write_beats)),
                "o": Out(stream.Signature(axi.Response, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi_port = self.m_axi
        n_lanes = self.widths.beat_bytes
        request = Signal(self.widths.requests, reset_less=True)
        beat = self.i_beats.payload
        to_send = Signal(range(self.outstanding + 1))
        taken = Signal()
        sent = Signal()
        m.d.comb += [
            self.i.ready.eq(~axi_port.awvalid | axi_port.awready),
            taken.eq(self.i.valid & self.i.ready),
            axi_port.awaddr.eq(request.address),
            axi_port.awlen.eq(request.length),
            axi_port.awsize.eq(exact_log2(self.widths.beat_bytes)),
            axi_port.awburst.eq(axi.Burst.INCR),
            axi_port.wvalid.eq(self.i_beats.valid & (to_send != 0)),
            self.i_beats.ready.eq(axi_port.wready & (to_send != 0)),
            axi_port.wdata.eq(beat.data),
            axi_port.wstrb.eq(lanes_from(beat.first_lane, n_lanes) & lanes_to(beat.last_lane, n_lanes)),
            axi_port.wlast.eq(beat.last),
            sent.eq(axi_port.wvalid & axi_port.wready & axi_port.wlast),
            axi_port.bready.eq(1),
        ]
        with m.If(self.i.ready):
            m.d.sync += [axi_port.awvalid.eq(self.i.valid), request.eq(self.i.payload)]
        m.d.sync += [
            to_send.eq(to_send + taken - sent),
            self.o.valid.eq(axi_port.bvalid),
            self.o.payload.eq(axi_port.bresp),
        ]
        return m
