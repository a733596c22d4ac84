"""The whole machine, cycle by cycle."""

from fractions import Fraction

from edgeaccel import isa
from edgeaccel.golden.attention_cycles import Attention, CacheWriter, PageTable, scale_streamer
from edgeaccel.golden.blocks import Command
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

__all__ = ["CycleMachine", "masters"]

START_CYCLES = 17  # from `start` to the sequencer's first step
PROGRAM_BEATS = 64


def masters(machine):
    """Names of the machine's masters: those of the array's ports, then the others."""
    others = ("m_axi_scales", "m_axi_cache", "m_axi_data", "m_axi_program")
    return (*(f"m_axi_{n}" for n in range(machine.config.groups)), *others)


class CycleMachine:
    """A machine's units, for one run of a program that runs without errors: cycle for cycle as the emitted Verilog.

    Parameters
    ----------
    machine : Machine
    image : Image
        For that machine.
    tokens : sequence of int
        By position: those that are given, and, in time for the batch behind them, those that the logits give.
    position, prompt, limit : int
        As of `edgeaccel.runtime.device.Device.run`.
    memories : dict of Memory
        By the names that `masters` gives. Cycles of the array's and of the scales' are those of the ports' clock.
    start : int
        The cycle of the core in which the run is started, for memories to whom it matters, and for two clocks: both
        have an edge at the end of their cycles 0.
    pages : PageTable, optional
        With what earlier runs have written.

    Members
    -------
    batches : list of (cycle, position, rows)
        When another batch took the place of each, or the last one was done: the cycle before `at_position` shows it.
    issues : list of (cycle, number of the instruction, layer)
        When the units had taken what instructions give them, or the sequencer had done it itself.
    words : list of lists of int
        Of each group the cycles in which it took a word.
    memories : dict of Memory
        With the cycles of all bursts.

    Raises
    ------
    ValueError
        If the image is for another machine.
    """

    def __init__(self, machine, image, tokens, position, prompt, limit, memories, *, start=0, pages=None):
        config = machine.config
        if image.machine != machine:
            raise ValueError("the image is for another machine; compile the model for this one")
        periods = (Fraction(config.port_mhz) / Fraction(config.core_mhz)).as_integer_ratio()
        size = isa.INSTRUCTION_BYTES
        program = [isa.decode(image.program[n : n + size]) for n in range(0, len(image.program), size)]
        command = Command(address=image.program_address, bytes=len(image.program))
        self.memories, self.start = memories, start
        self._cycle = start + START_CYCLES
        reader = BlockReader(
            memories["m_axi_program"],
            data_width=config.port_data_width,
            stream_bytes=isa.INSTRUCTION_BYTES,
            buffer_beats=PROGRAM_BEATS,
            queue=1,
        )
        self.pages = PageTable(machine.pages) if pages is None else pages
        scales = TileStreamer(scale_streamer(config), memories["m_axi_scales"], periods)
        self.attention = Attention(config, table=self.pages, scales=scales)
        self.writer = CacheWriter(
            config.of_batch,
            port_bytes=machine.port_bytes,
            table=self.pages,
            memory=memories["m_axi_cache"],
            on_appended=self.attention.appended,
        )
        self.parameters = Parameters(machine, memories["m_axi_data"])
        self.operands, self.table = OperandReads(waits=True), OperandReads(waits=False)
        self.path = VectorPath(machine, self.operands, self.table, self.parameters)
        self.split = ResultSplit(self.path, self.operands)
        self.cache_rows = CacheRows(machine, self.split.cache, self.writer)
        self.output = AttentionOutput(config, self.attention)
        self.loader = GainLoader(self.split.loads, self.parameters)
        self.logits = Logits(machine, self.split.logits, memories["m_axi_data"])
        ports = [memories[f"m_axi_{n}"] for n in range(config.groups)]
        self.engine = Engine(machine, ports, periods, self.attention, self.path)
        self.jobs = Jobs(machine, self)
        self.reader = reader
        self.sequencer = Sequencer(machine, program, command, reader, tokens, self.jobs, (position, prompt, limit))
        self.batches, self.issues, self.words = self.sequencer.batches, self.sequencer.issues, self.engine.words
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

    def run(self, *, to_batch=False, max_cycles=10**8):
        """Let cycles pass.

        Parameters
        ----------
        to_batch : bool
            Stop in the cycle in which another batch of tokens takes the place of the one at hand, or the last one is
            done; else go on to the end of the run.
        max_cycles : int
            After which it is given up.

        Returns
        -------
        int
            Cycles from the start: those of the whole run are what the machine's register counts.

        Raises
        ------
        RuntimeError
            If it takes more than `max_cycles`.
        """
        batches = self.batches
        n_batches, end = len(batches), self._cycle + max_cycles
        while not self.sequencer.done:
            self._step(self._cycle)
            self._cycle += 1
            if to_batch and len(batches) > n_batches:
                break
            if self._cycle == end:
                raise RuntimeError(f"the machine has not ended after {max_cycles} cycles, at {self.sequencer.where()}")
        return self._cycle - self.start

    def _step(self, cycle):
        for part in self._parts:
            part.begin(cycle)
        self.sequencer.step(cycle)
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

    def _load(self, cycle):
        """A word into the activation buffer: attention's weights first."""
        for source in (self.attention.loads, self.loader, self.output):
            if source.head is not None:
                self.engine.operators.load(cycle, source.get())
                return
