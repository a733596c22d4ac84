"""Formal harness of the tile streamer: a legal memory around it, everything else free, and what must hold.

The properties, each for as many cycles as the solver unrolls from reset:

`boundary`
    No burst crosses 4 KiB or is longer than allowed.
`outstanding`
    No more bursts than allowed are asked for and not fully answered.
`order`
    The beat of any number leaves as the half of the word it belongs to: none is dropped, doubled, swapped or changed.
`overflow`
    No queue inside is written when it is full, and the memory is never held up.
`stable`
    What is offered on AR and on the words stands unchanged until it is taken.
`stop`
    Nothing is asked for after an error, and the error stays.
"""

from amaranth.asserts import AnyConst
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In

from edgeaccel.memory import TileStreamer, axi

__all__ = ["PROPERTIES", "StreamerProof", "sby_script"]

PROPERTIES = ("boundary", "outstanding", "order", "overflow", "stable", "stop")

PARAMETERS = {
    "data_width": 32,
    "word_width": 64,
    "buffer_words": 3,
    "burst_beats": 4,
    "outstanding": 2,
    "queue": 1,
    "n_events": 1,
    "address_width": 13,
}
_TAG_WIDTH = 5


class StreamerProof(wiring.Component):
    """A small streamer, a memory that answers when it likes, and the properties asked for.

    Parameters
    ----------
    properties : collection of str
        Of `PROPERTIES`.

    Members
    -------
    Free inputs, all.
    """

    def __init__(self, properties=PROPERTIES):
        self.properties = tuple(properties)
        self.streamer = TileStreamer(**PARAMETERS)
        super().__init__(
            {
                "command": In(self.streamer.i_commands.payload.shape()),
                "command_valid": In(1),
                "word_ready": In(1),
                "events": In(1),
                "clear": In(1),
                "arready": In(1),
                "answers": In(1),
                "rdata": In(32),
                "rresp": In(axi.Response),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.streamer = dut = self.streamer
        bus = dut.m_axi
        m.d.comb += [
            Assume(~ResetSignal()),
            dut.i_commands.payload.eq(self.command),
            dut.i_commands.valid.eq(self.command_valid),
            dut.o_words.ready.eq(self.word_ready),
            dut.events.eq(self.events),
            dut.clear.eq(self.clear),
            bus.arready.eq(self.arready),
        ]
        self._answer(m, bus)
        for name in self.properties:
            getattr(self, f"_{name}")(m, dut)
        return m

    def _answer(self, m, bus):
        """A memory that is AXI4: bursts in order, as many beats as asked for, `last` with the last one."""
        m.submodules.asked = asked = SyncFIFO(width=8, depth=PARAMETERS["outstanding"] + 1)
        beat = Signal(8)
        m.d.comb += [
            asked.w_data.eq(bus.arlen),
            asked.w_en.eq(bus.arvalid & bus.arready),
            bus.rvalid.eq(asked.r_rdy & self.answers),
            bus.rdata.eq(self.rdata),
            bus.rresp.eq(self.rresp),
            bus.rlast.eq(beat == asked.r_data),
            asked.r_en.eq(bus.rvalid & bus.rready & bus.rlast),
        ]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += beat.eq(Mux(bus.rlast, 0, beat + 1))

    def _boundary(self, m, dut):
        bus = dut.m_axi
        last_byte = bus.araddr[:12] + (bus.arlen << 2) + 3
        with m.If(bus.arvalid):
            m.d.comb += [
                Assert(last_byte < axi.BOUNDARY_BYTES),
                Assert(bus.arlen < PARAMETERS["burst_beats"]),
                Assert(bus.araddr[:2] == 0),
            ]

    def _outstanding(self, m, dut):
        bus = dut.m_axi
        count = Signal(4)
        m.d.sync += count.eq(count + (bus.arvalid & bus.arready) - (bus.rvalid & bus.rready & bus.rlast))
        m.d.comb += Assert(count + bus.arvalid <= PARAMETERS["outstanding"])

    def _order(self, m, dut):
        bus = dut.m_axi
        tag = AnyConst(_TAG_WIDTH)
        n_beats = Signal(_TAG_WIDTH + 1)
        n_words = Signal(_TAG_WIDTH + 1)
        # The data is never looked at, so one marked beat among equal ones stands for any data (Wolper, POPL 1986).
        m.d.comb += [Assume(~self.clear), Assume(self.rdata == (n_beats == tag))]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += n_beats.eq(n_beats + 1)
        halves = data.View(data.ArrayLayout(32, 2), dut.o_words.payload)
        with m.If(dut.o_words.valid):
            m.d.comb += Assert(n_beats >= (n_words << 1) + 2)
            for n, half in enumerate(halves):
                m.d.comb += Assert(half == ((n_words << 1) + n == tag))
            with m.If(dut.o_words.ready):
                m.d.sync += n_words.eq(n_words + 1)

    def _overflow(self, m, dut):
        with m.If(dut._buffer.i.valid):
            m.d.comb += Assert(dut._buffer.i.ready)
        with m.If(dut._tracker.i_bursts.valid):
            m.d.comb += Assert(dut._tracker.i_bursts.ready)
        with m.If(dut._tracker.i.valid):
            m.d.comb += Assert(~dut._tracker.idle)
        m.d.comb += Assert(dut.m_axi.rready)

    def _stable(self, m, dut):
        bus = dut.m_axi
        held = Signal()
        request = Signal(len(bus.araddr) + len(bus.arlen))
        m.d.sync += [held.eq(bus.arvalid & ~bus.arready), request.eq(bus.araddr << 8 | bus.arlen)]
        with m.If(held):
            m.d.comb += [Assert(bus.arvalid), Assert(bus.araddr << 8 | bus.arlen == request)]
        pending = Signal()
        word = Signal(PARAMETERS["word_width"])
        cleared = Signal()
        m.d.sync += [
            pending.eq(dut.o_words.valid & ~dut.o_words.ready),
            word.eq(dut.o_words.payload),
            cleared.eq(cleared | self.clear),
        ]
        with m.If(pending & ~cleared):
            m.d.comb += [Assert(dut.o_words.valid), Assert(dut.o_words.payload == word)]

    def _stop(self, m, dut):
        bus = dut.m_axi
        failed = Signal()
        error = Signal(len(dut.error.as_value()))
        may_ask = Signal()
        cleared = Signal()
        m.d.sync += [
            failed.eq(dut.error.valid & ~self.clear & ~cleared),
            error.eq(dut.error.as_value()),
            may_ask.eq(bus.arvalid & ~bus.arready),
            cleared.eq(cleared | self.clear),
        ]
        with m.If(failed & ~cleared):
            m.d.comb += [Assert(dut.error.as_value() == error), Assert(~bus.arvalid | may_ask)]


def sby_script(proof, depth, solver="yices"):
    """The RTLIL of a harness, and the input of SymbiYosys."""
    text = rtlil.convert(proof, name="top", emit_src=False)
    script = f"""[options]
mode bmc
depth {depth}
[engines]
smtbmc {solver}
[script]
read_rtlil top.il
prep -top top
memory_map
opt -full
[files]
top.il
"""
    return text, script
