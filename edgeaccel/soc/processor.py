"""The machine without its registers: units, sequencer, program and token memory."""

from contextlib import contextmanager

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgeaccel import isa
from edgeaccel.memory.reader import BlockReader
from edgeaccel.soc.core import Core, Unit, UnitError
from edgeaccel.soc.sequencer import Sequencer, State
from edgeaccel.soc.tokens import TokenMemory

__all__ = ["CLEAR_CYCLES", "Processor"]

CLEAR_CYCLES = 16  # at least, so that both sides of the queues between two clocks see it
_HOST = ("start", "stop", "program_address", "program_bytes", "position", "prompt", "limit")
_KNOWN = ("busy", "state", "at_position", "rows", "layer", "pc")
_JOBS = ("reads", "fetches", "multiplies", "vectors", "appends", "attends", "pages")


class Processor(wiring.Component):
    """Runs programs.

    A start first clears all units, whatever happened before; so does the end of a run that failed or was stopped. What
    keeps its content: the token memory, the page table, the vector memory, and all that is behind the masters.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    m_axi, m_axi_scales, m_axi_cache, m_axi_data
        As those of `Core`.
    m_axi_program : axi.Signature, read channels
    start, stop, program_address, program_bytes, position, prompt, limit : in
    clear : in
        A pulse ends everything, and is no end of a run.
    state, at_position, rows, layer, pc : out
        As those of `Sequencer`.
    busy : out
        From the cycle after `start` until the run has ended.
    done : out
        High for a cycle when a run has ended, and all is quiet.
    error : UnitError
        Of the last run.
    tokens : flipped `token_port`
        The host's.
    words, starved : out, a bit for each group
        High for a cycle when the group takes a word of tiles, or has none although it could.
    units : out
        As that of `Core`.
    domains : tuple of str
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        self.core = Core(machine)
        self.sequencer = Sequencer(machine)
        self.tokens_memory = TokenMemory(machine)
        self.reader = BlockReader(
            data_width=config.port_data_width, stream_bytes=isa.INSTRUCTION_BYTES, buffer_beats=64, queue=1
        )
        self.domains = self.core.domains
        core, sequencer = self.core.signature.members, self.sequencer.signature.members
        masters = ("m_axi", "m_axi_scales", "m_axi_cache", "m_axi_data")
        super().__init__(
            {
                **{name: core[name] for name in masters},
                "m_axi_program": self.reader.signature.members["m_axi"],
                **{name: sequencer[name] for name in (*_HOST, *_KNOWN)},
                "clear": In(1),
                "done": Out(1),
                "error": Out(UnitError),
                "tokens": self.tokens_memory.signature.members["host"],
                "words": Out(config.groups),
                "starved": Out(config.groups),
                "units": Out(5),
            }
        )

    def elaborate(self, platform):
        m = Module()
        core, sequencer, reader, tokens = self.core, self.sequencer, self.reader, self.tokens_memory
        m.submodules.core = core
        m.submodules.sequencer = sequencer
        m.submodules.program = reader
        m.submodules.tokens = tokens
        for n, port in enumerate(core.m_axi):
            wiring.connect(m, port, wiring.flipped(self.m_axi[n]))
        for name in ("m_axi_scales", "m_axi_cache", "m_axi_data"):
            wiring.connect(m, getattr(core, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, reader.m_axi, wiring.flipped(self.m_axi_program))
        wiring.connect(m, wiring.flipped(self.tokens), tokens.host)
        wiring.connect(m, sequencer.tokens, tokens.sequencer)
        wiring.connect(m, sequencer.o_program, reader.i_commands)
        wiring.connect(m, reader.o, sequencer.i_program)
        for name in _JOBS:
            wiring.connect(m, getattr(sequencer, f"o_{name}"), getattr(core, f"i_{name}"))
        wiring.connect(m, core.o_token, sequencer.i_token)
        given = [name for name in _HOST if name not in ("start", "stop")]
        m.d.comb += [getattr(sequencer, name).eq(getattr(self, name)) for name in given]
        m.d.comb += [getattr(self, name).eq(getattr(sequencer, name)) for name in _KNOWN if name != "busy"]
        m.d.comb += [
            sequencer.parameters_idle.eq(core.settled),
            sequencer.idle.eq(core.idle & core.settled),
            sequencer.failed.eq((core.error.unit != Unit.NONE) | reader.error.valid),
            self.words.eq(core.words),
            self.starved.eq(core.starved),
            self.units.eq(core.units),
        ]
        self._phases(m)
        return m

    def _phases(self, m):
        """Clear, run, and clear again if something is left."""
        core, sequencer, reader, error = self.core, self.sequencer, self.reader, self.error
        waited, is_quiet = Signal(range(CLEAR_CYCLES)), Signal()
        clear, starts, stops = Signal(), Signal(), Signal()
        m.d.comb += [
            core.clear.eq(clear),
            reader.clear.eq(clear),
            is_quiet.eq((waited == CLEAR_CYCLES - 1) & ~core.clearing),
            self.busy.eq(1),
        ]
        m.d.sync += waited.eq(waited + (waited != CLEAR_CYCLES - 1))
        with m.If(self.start & ~self.busy):
            m.d.sync += [starts.eq(1), stops.eq(0)]
        with m.If(self.stop & self.busy):
            m.d.sync += stops.eq(1)  # the sequencer may have to be started first
        m.d.comb += sequencer.stop.eq(stops)

        @contextmanager
        def state(name):
            with m.State(name):
                with m.If(self.clear):
                    m.d.comb += [clear.eq(1), sequencer.clear.eq(1)]
                    m.d.sync += [waited.eq(0), starts.eq(0), error.unit.eq(Unit.NONE)]
                    m.next = "ABORT"
                with m.Else():
                    yield

        with m.FSM():
            with state("IDLE"):
                m.d.comb += self.busy.eq(0)
                with m.If(self.start | starts):
                    m.d.comb += [clear.eq(1), sequencer.clear.eq(1)]
                    m.d.sync += [waited.eq(0), starts.eq(0), error.unit.eq(Unit.NONE)]
                    m.next = "CLEAR"
            with state("CLEAR"), m.If(is_quiet):
                m.d.comb += sequencer.start.eq(1)
                m.next = "RUN"
            with state("RUN"), m.If(sequencer.done):
                with m.If((sequencer.state == State.ERROR) | (sequencer.state == State.STOPPED)):
                    self._keep(m)
                    m.d.comb += clear.eq(1)
                    m.d.sync += waited.eq(0)
                    m.next = "QUIET"
                with m.Else():
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with state("QUIET"), m.If(is_quiet):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
            with state("ABORT"):
                m.d.comb += self.busy.eq(0)
                with m.If(is_quiet):
                    m.next = "IDLE"

    def _keep(self, m):
        """The error that ended the run: the sequencer's own, else that of reading the program, else a unit's."""
        own, program, error = self.sequencer.error, self.reader.error, self.error
        m.d.sync += error.eq(self.core.error)
        with m.If(program.valid):
            m.d.sync += [
                error.unit.eq(Unit.PROGRAM),
                error.code.eq(program.code),
                error.command.eq(program.command),
                error.address.eq(program.address),
            ]
        with m.If(own.valid):
            m.d.sync += [error.unit.eq(Unit.SEQUENCER), error.code.eq(own.code), error.address.eq(0)]
