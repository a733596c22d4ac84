"""The whole machine, cycle by cycle."""

from edgeaccel import isa
from edgeaccel.golden.attention_cycles import Attention, CacheWriter, PageTable, scale_streamer
from edgeaccel.golden.cycles.engine import Engine
from edgeaccel.golden.cycles.fetcher import TileStreamer
from edgeaccel.golden.cycles.jobs import Jobs
from edgeaccel.golden.cycles.logits import Logits
from edgeaccel.golden.cycles.operands import OperandReads, Parameters
from edgeaccel.golden.cycles.path import VectorPath
from edgeaccel.golden.cycles.places import GainLoader, ResultSplit
from edgeaccel.golden.cycles.reader import BlockReader
from edgeaccel.golden.cycles.rows import AttentionOutput, CacheRows
from edgeaccel.golden.cycles.sequencer import Sequencer

__all__ = ["CycleMachine"]

START_CYCLES = 17  # from `start` to the sequencer's first step
PROGRAM_BEATS = 64


class CycleMachine:
    """A machine's units, for one run.

    Parameters
    ----------
    machine : Machine
    program : list of (name, when, fields)
    program_command : edgeaccel.golden.blocks.Command
        Where the program lies.
    tokens : sequence of int
        By position, given ones and those that come.
    begin_at : (position, prompt, limit)
    memories : dict of Memory
        By the masters' names.
    start : int
        The cycle in which the run is started.
    """

    def __init__(self, machine, program, program_command, tokens, begin_at, memories, *, start=0):
        config = machine.config
        self.memories, self.start = memories, start
        reader = BlockReader(
            memories["m_axi_program"],
            data_width=config.port_data_width,
            stream_bytes=isa.INSTRUCTION_BYTES,
            buffer_beats=PROGRAM_BEATS,
            queue=1,
        )
        self.pages = PageTable(machine.pages)
        scales = TileStreamer(scale_streamer(config), memories["m_axi_scales"])
        self.attention = Attention(config, table=self.pages, scales=scales)
        self.writer = CacheWriter(
            config,
            port_bytes=machine.port_bytes,
            table=self.pages,
            memory=memories["m_axi_cache"],
            on_appended=self.attention.appended,
        )
        self.parameters = Parameters(machine, memories["m_axi_data"])
        self.operands, self.table = OperandReads(waits=True), OperandReads(waits=False)
        self.path = VectorPath(machine, self.operands, self.table, self.parameters)
        self.split = ResultSplit(self.path, self.operands)
        self.cache_rows = CacheRows(config, self.split.cache, self.writer)
        self.output = AttentionOutput(config, self.attention)
        self.loader = GainLoader(self.split.loads, self.parameters)
        self.logits = Logits(machine, self.split.logits, memories["m_axi_data"])
        ports = [memories[f"m_axi_{n}"] for n in range(config.groups)]
        self.engine = Engine(config, ports, self.attention, self.path)
        self.jobs = Jobs(machine, self)
        self.reader = reader
        self.sequencer = Sequencer(machine, program, program_command, reader, tokens, self.jobs, begin_at)
        self._parts = [
            reader,
            self.parameters,
            self.operands,
            self.table,
            self.path,
            self.split,
            self.loader,
            self.logits,
            self.engine,
            self.attention,
            self.writer,
            self.cache_rows,
            self.output,
            self.jobs,
        ]

    def run(self, max_cycles=10**9):
        """Cycles from the start to the end of the run, as the machine's register counts them."""
        cycle = self.start + START_CYCLES
        end = cycle + max_cycles
        parts, sequencer = self._parts, self.sequencer
        while not sequencer.done:
            for part in parts:
                part.begin(cycle)
            sequencer.step(cycle)
            self.split.step(cycle)
            self.path.step(cycle)
            self._load(cycle)
            self.loader.step(cycle)
            self.output.step(cycle)
            self.engine.step(cycle)
            self.attention.step(cycle)
            self.cache_rows.step(cycle)
            self.writer.step(cycle)
            self.operands.step(cycle)
            self.table.step(cycle)
            if self.parameters.target == "table" or (self.parameters.target == "vector" and not self.split.writes):
                self.parameters.get()
            self.parameters.step(cycle)
            self.logits.step(cycle)
            self.reader.step(cycle)
            cycle += 1
            if cycle == end:
                raise RuntimeError(f"the machine has not ended after {max_cycles} cycles")
        return cycle - self.start

    def _load(self, cycle):
        """A word into the activation buffer: attention's weights first."""
        for source in (self.attention.loads, self.loader, self.output):
            if source.head is not None:
                self.engine.operators.load(cycle, source.get())
                return
