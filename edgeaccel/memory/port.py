"""The AXI side of a reader, in its own clock domain if need be."""

from amaranth.hdl import DomainRenamer, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory import axi
from edgeaccel.memory.width import BeatPacker

__all__ = ["ReadPort"]

_REQUESTS_DEPTH = 8
# The way there and back through both synchronisers, at 450 and 250 MHz: about eight entries of a beat each.
_ANSWERS_DEPTH = 16
# Entries that may still come after the level was read: one it does not show yet, one in the packer, one being accepted.
_ON_THE_WAY = 3


class ReadPort(wiring.Component):
    """AXI4 read master for requests that are known to find room: `rready` is always 1, or nearly so.

    With one clock, a request is on the AR channel the cycle after it was taken, until it is accepted, and entries come
    the cycle after their last beat. With two, both go through an `AsyncFIFO`, and `rready` falls only when the core's
    clock cannot keep up with the entries: never, as long as it is faster than the port's times the beats that arrive,
    divided by the beats of an entry.

    Parameters
    ----------
    widths : Widths
    domain : str
        Clock domain of `m_axi`. Both domains must be reset together.

    Members
    -------
    m_axi : axi.Signature
        Read channels; INCR bursts of full beats, always with ID 0.
    i : stream of Widths.requests
    o : stream of Widths.answers, always ready
    """

    def __init__(self, widths, *, domain="sync"):
        self.widths = widths
        self.domain = domain
        super().__init__(
            {
                "m_axi": Out(axi.Signature(address_width=widths.address, data_width=widths.beat, write=False)),
                "i": In(stream.Signature(widths.requests)),
                "o": Out(stream.Signature(widths.answers, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.packer = packer = DomainRenamer(self.domain)(BeatPacker(self.widths))
        m.d.comb += [
            self.m_axi.arsize.eq(exact_log2(self.widths.beat // 8)),
            self.m_axi.arburst.eq(axi.Burst.INCR),
            packer.i.valid.eq(self.m_axi.rvalid & self.m_axi.rready),
            packer.i.payload.data.eq(self.m_axi.rdata),
            packer.i.payload.response.eq(self.m_axi.rresp),
            packer.i.payload.last.eq(self.m_axi.rlast),
        ]
        if self.domain == "sync":
            self._connect(m, packer)
        else:
            self._cross(m, packer)
        return m

    def _connect(self, m, packer):
        request = Signal(self.widths.requests, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(~self.m_axi.arvalid | self.m_axi.arready),
            self.m_axi.araddr.eq(request.address),
            self.m_axi.arlen.eq(request.length),
            self.m_axi.rready.eq(1),
            self.o.valid.eq(packer.o.valid),
            self.o.payload.eq(packer.o.payload),
        ]
        with m.If(self.i.ready):
            m.d.sync += [self.m_axi.arvalid.eq(self.i.valid), request.eq(self.i.payload)]

    def _cross(self, m, packer):
        requests = AsyncFIFO(
            width=self.widths.requests.size, depth=_REQUESTS_DEPTH, w_domain="sync", r_domain=self.domain
        )
        answers = AsyncFIFO(width=self.widths.answers.size, depth=_ANSWERS_DEPTH, w_domain=self.domain, r_domain="sync")
        m.submodules.requests, m.submodules.answers = requests, answers
        request = Signal(self.widths.requests)
        m.d.comb += [
            requests.w_data.eq(self.i.payload),
            requests.w_en.eq(self.i.valid),
            self.i.ready.eq(requests.w_rdy),
            request.eq(requests.r_data),
            self.m_axi.araddr.eq(request.address),
            self.m_axi.arlen.eq(request.length),
            self.m_axi.arvalid.eq(requests.r_rdy),
            requests.r_en.eq(self.m_axi.arready),
            self.m_axi.rready.eq(answers.w_level < _ANSWERS_DEPTH - _ON_THE_WAY),
            answers.w_data.eq(packer.o.payload),
            answers.w_en.eq(packer.o.valid),
            self.o.payload.eq(answers.r_data),
            self.o.valid.eq(answers.r_rdy),
            answers.r_en.eq(1),
        ]
