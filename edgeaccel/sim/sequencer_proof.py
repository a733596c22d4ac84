"""Formal harness of the sequencer: any program, units that answer when they like, and what must hold.

The properties, each for as many cycles as the solver unrolls from reset:

`stable`
    What is offered stands unchanged until it is taken, but for a `clear`, or a unit that fails, or a start behind such
    a failure, which is refused.
`one`
    Nothing is offered but while the program runs, and never two things at once.
`order`
    What is offered is what the instruction at `pc` says; that is one of the program, and the target behind a jump. None
    is executed behind an `end` until the next start.
`ranges`
    Rows, layers, entries of the page table and positions are within what the machine and the program say: no count
    goes over.
`progress`
    If all units answer at once, something is seen to happen within `MOST_QUIET` cycles, as long as it is busy.
"""

from contextlib import contextmanager

from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from edgeaccel import isa
from edgeaccel.attention.table import PRODUCT_CYCLES
from edgeaccel.machine import machine as named_machine
from edgeaccel.soc import sequencer
from edgeaccel.soc.sequencer import Sequencer, State, Step, most_positions

__all__ = ["MOST_QUIET", "PROPERTIES", "SequencerProof", "any_products"]

PROPERTIES = ("stable", "one", "order", "ranges", "progress")
STREAMS = {
    "reads": "read",
    "fetches": "fetch",
    "multiplies": "multiply",
    "vectors": "vector",
    "pages": "pages",
    "appends": "append",
    "attends": "attend",
}
"""Streams by the instructions that give them."""

MACHINE = named_machine("tiny", positions=4, instructions=2, pages=2)
MOST_QUIET = 9
"""Cycles without anything to be seen, at most: from a batch's beginning to what a read of its first row gives."""


@contextmanager
def any_products():
    """While designs are converted: addresses are sums with any numbers in the place of products.

    What holds with any numbers holds with the right ones, and no solver has to multiply.
    """
    real = sequencer.product
    sequencer.product = lambda m, a, b, name: AnySeq(len(a) + len(b))
    try:
        yield
    finally:
        sequencer.product = real


class _Sequencer(Sequencer):
    """A sequencer that shows its registers, as `inner`."""

    def __init__(self, machine):
        super().__init__(machine)
        self.inner = super()._registers()

    def _registers(self):
        return self.inner


class SequencerProof(wiring.Component):
    """A small sequencer, a reader that gives it any program, and the properties asked for.

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
        self.dut = dut = _Sequencer(MACHINE)
        self._free = ("start", "stop", "program_address", "program_bytes", "position", "prompt", "limit")
        self._free += ("parameters_idle", "idle", "failed", "clear")
        free = {name: In(getattr(dut, name).shape()) for name in self._free}
        super().__init__(
            free
            | {
                "ready": In(len(STREAMS) + 1),
                "answers": In(1),
                "line": In(dut.i_program.p.data.as_value().shape()),
                "token": In(isa.TOKEN_WIDTH),
                "token_valid": In(1),
                "read": In(isa.TOKEN_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        self._offers = [getattr(dut, f"o_{name}") for name in STREAMS]
        m.d.comb += [
            Assume(~ResetSignal()),
            *(getattr(dut, name).eq(getattr(self, name)) for name in self._free),
            *(o.ready.eq(ready) for o, ready in zip([*self._offers, dut.o_program], self.ready, strict=True)),
            dut.i_token.p.token.eq(self.token),
            dut.i_token.valid.eq(self.token_valid),
            dut.tokens.read.eq(self.read),
        ]
        self._reader(m, dut)
        for name in self.properties:
            getattr(self, f"_{name}")(m, dut)
        return m

    def _reader(self, m, dut):
        """Lines of any content, as many as were asked for, the last of them marked."""
        left = Signal.like(dut.o_program.p.bytes)
        line = dut.i_program
        goes = Signal()
        m.d.comb += [
            line.valid.eq((left != 0) & self.answers),
            line.p.data.as_value().eq(self.line),
            line.p.last_byte.eq(isa.INSTRUCTION_BYTES - 1),
            line.p.last.eq(left <= isa.INSTRUCTION_BYTES),
            goes.eq(line.valid & line.ready),
        ]
        with m.If(goes):
            m.d.sync += left.eq(Mux(line.p.last, 0, left - isa.INSTRUCTION_BYTES))
        with m.If(dut.o_program.valid & dut.o_program.ready):
            m.d.sync += left.eq(dut.o_program.p.bytes)
        with m.If(self.clear):
            m.d.sync += left.eq(0)
        # What was given: of each line its header, and how many there are.
        self._headers = [Signal(8, name=f"header{n}") for n in range(MACHINE.instructions)]
        self._n_lines = Signal(range(MACHINE.instructions + 1))
        with m.If(goes):
            m.d.sync += self._n_lines.eq(self._n_lines + 1)
            for n, header in enumerate(self._headers):
                with m.If(self._n_lines == n):
                    m.d.sync += header.eq(self.line[:8])
        with m.If(dut.o_program.valid & dut.o_program.ready):
            m.d.sync += self._n_lines.eq(0)

    def _stable(self, m, dut):
        for o in (*self._offers, dut.o_program):
            payload = o.p.as_value()
            held, before = Signal(), Signal.like(payload)
            ended = self.clear | (dut.busy & self.failed) | (self.start & ~dut.busy)
            m.d.sync += [held.eq(o.valid & ~o.ready & ~ended), before.eq(payload)]
            with m.If(held):
                m.d.comb += [Assert(o.valid), Assert(payload == before)]

    def _one(self, m, dut):
        valid = Cat(o.valid for o in self._offers)
        m.d.comb += Assert((valid & (valid - 1)) == 0)
        with m.If(valid.any()):
            m.d.comb += [Assert(dut.state == State.RUNNING), Assert(~dut.o_program.valid)]

    def _order(self, m, dut):
        at = dut.inner.step
        header = Signal(8)
        with m.Switch(dut.pc):
            for n, given in enumerate(self._headers):
                with m.Case(n):
                    m.d.comb += header.eq(given)
        opcode = header[: isa.HEADER["opcode"]]
        with m.If(at == Step.DECODE):
            m.d.comb += [Assert(dut.pc < self._n_lines), Assert(dut.inner.line[:8] == header)]
        for o, name in zip(self._offers, STREAMS.values(), strict=True):
            with m.If(o.valid):
                m.d.comb += Assert(opcode == isa.INSTRUCTIONS[name].opcode)
        r = dut.inner
        jumped, target = Signal(), Signal.like(r.fields["next"].target)
        with m.If(at == Step.DECODE):
            m.d.comb += Assert(~jumped | (dut.pc == target))
            m.d.sync += jumped.eq(r.wanted & r.more & (opcode == isa.INSTRUCTIONS["again"].opcode))
            m.d.sync += target.eq(r.fields["again"].target)
        with m.If((at == Step.TOKEN) & (r.after < r.prompt) | (at == Step.JUDGE)):
            m.d.sync += [jumped.eq(1), target.eq(r.fields["next"].target)]
        with m.If(self.clear | (at == Step.CHECK)):
            m.d.sync += jumped.eq(0)
        # An `end` that is executed whatever the batch: nothing comes behind it.
        ended = Signal()
        with m.If((at == Step.DECODE) & (header == isa.INSTRUCTIONS["end"].opcode)):
            m.d.sync += ended.eq(1)
        with m.If(at == Step.CHECK):
            m.d.sync += ended.eq(0)
        with m.If(self.clear):
            m.d.sync += ended.eq(0)
        with m.If(ended):
            m.d.comb += [Assert(~o.valid) for o in self._offers]
            m.d.comb += Assert((at == Step.DRAIN) | (at == Step.REST) | (at == Step.CHECK))

    def _ranges(self, m, dut):
        r, rows, most = dut.inner, MACHINE.config.rows, MACHINE.config.batch_rows
        m.d.comb += [
            Assert(Mux(r.layers == 0, dut.layer == 0, dut.layer < r.layers)),
            Assert(r.waited <= PRODUCT_CYCLES),
        ]
        with m.If(Cat(o.valid for o in self._offers).any()):
            m.d.comb += [
                Assert(dut.rows != 0),
                Assert(dut.rows <= most),
                Assert(dut.at_position < most_positions(MACHINE)),
                # Of the tokens that were given only these are worked on, else one.
                Assert(Mux(dut.at_position < r.prompt, dut.at_position + dut.rows <= r.prompt, dut.rows == 1)),
            ]
        with m.If(dut.o_reads.valid):
            marked = dut.o_reads.p.rows
            of_rows = (1 << Mux(dut.rows > rows, rows, dut.rows)) - 1
            m.d.comb += [
                Assert(marked != 0),
                Assert((marked == (1 << rows) - 1) | (((marked & (marked - 1)) == 0) & ((marked & ~of_rows) == 0))),
            ]
        pages, entry = r.fields["pages"], dut.o_pages.p
        with m.If(dut.o_pages.valid):
            first, end = pages.first, pages.first + pages.count
            m.d.comb += [Assert(end <= MACHINE.pages), Assert((first <= entry.index) & (entry.index < end))]
            m.d.comb += Assert(entry.page == (pages.page + (entry.index - first))[:16])
        with m.If(dut.tokens.write):
            m.d.comb += [Assert(r.after < MACHINE.positions), Assert(dut.tokens.position == r.after)]

    def _progress(self, m, dut):
        """Everybody is ready and idle, lines and tokens come at once."""
        m.d.comb += [
            Assume(self.ready.all()),
            *(Assume(getattr(self, name)) for name in ("parameters_idle", "idle", "answers", "token_valid")),
        ]
        seen = Cat(dut.pc, dut.layer, dut.at_position, dut.state)
        before, quiet = Signal.like(seen), Signal(range(MOST_QUIET + 2))
        moved = Cat(o.valid for o in (*self._offers, dut.o_program)).any() | (seen != before) | dut.i_program.valid
        m.d.sync += [before.eq(seen), quiet.eq(Mux(moved | ~dut.busy, 0, quiet + 1))]
        m.d.comb += Assert(quiet <= MOST_QUIET)
