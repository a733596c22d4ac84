"""All units of the machine, and the ways between them; what tells them what to do stands outside.

ResultShare -> ResultDeal -> VectorSource -> ResultPath -> ResultSplit -+-> VectorMemory -> operands of ResultPath
  |                                                                     +-> GainLoader -> activation buffer -> array
  |                                                                     +-> CacheDeal -> RowSerialiser -> CacheWriter
  |                                                                     `-> Logits
  `-> Attention -> AttentionOutput -> activation buffer
ParameterReader -> biases and tables of ResultPath, gains of GainLoader, embeddings of VectorMemory
"""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.attention import Attention
from edgeaccel.attention.command import append
from edgeaccel.attention.rows import RowSerialiser
from edgeaccel.attention.table import PageTable
from edgeaccel.attention.writer import CacheWriter
from edgeaccel.cache import MAX_HEAD_DIM
from edgeaccel.fork import Fork
from edgeaccel.memory import axi
from edgeaccel.queue import Queue
from edgeaccel.soc.command import attend_job, fetch_job, multiply_job, read_job, vector_job
from edgeaccel.soc.deal import CacheDeal, ResultDeal
from edgeaccel.soc.loads import GainLoader
from edgeaccel.soc.logits import Logits
from edgeaccel.soc.outputs import AttentionOutput
from edgeaccel.soc.parameters import ParameterReader
from edgeaccel.soc.results import ResultSplit
from edgeaccel.soc.share import OperatorShare, RequestShare, ResultShare
from edgeaccel.soc.steps import StepControl, VectorSource, beats_of, result_path
from edgeaccel.soc.vectors import WRITES_WIDTH, RotaryTable, VectorMemory
from edgeaccel.systolic.commands import CommandChain
from edgeaccel.systolic.engine import MatrixEngine

__all__ = ["Core", "Unit", "UnitError"]

APPENDS = 4  # that wait for their vectors
VECTORS_WIDTH = 8  # of the count of instructions that are not through


class Unit(enum.Enum, shape=4):
    """Who reports an error."""

    NONE = 0
    SEQUENCER = 1
    """`edgeaccel.soc.sequencer.SequencerErrorCode`."""
    PROGRAM = 2
    """Reading the program: `edgeaccel.memory.block.BlockErrorCode`."""
    PORT = 3
    """A port of the array, `code` its `edgeaccel.memory.command.ErrorCode`."""
    FEED = 4
    """The activation feed: `edgeaccel.systolic.operator.FeedErrorCode`."""
    ATTENTION = 5
    """Attention: `edgeaccel.attention.command.AttentionErrorCode`."""
    CACHE = 6
    """The cache writer: the same."""
    PARAMETERS = 7
    """Reading parameters: `BlockErrorCode`."""
    LOGITS = 8
    """Writing logits: the same."""


class UnitError(data.Struct):
    """An error of a unit.

    Members
    -------
    unit : Unit
        `NONE` if there is none.
    code : 4 bits
    port : 8 bits
        Of `Unit.PORT`.
    command : 16 bits
        Number of the unit's command since the start.
    address : 64 bits
        Of a bad response: what the unit says.
    """

    unit: Unit
    code: 4
    port: 8
    command: 16
    address: 64


class Core(wiring.Component):
    """Array, attention, vector unit, and the engines to memory.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_reads, i_fetches, i_multiplies, i_vectors, i_appends, i_attends, i_pages
        Streams of `read_job`, `fetch_job`, `multiply_job`, `vector_job`, `append`, `attend_job`, {index, page, valid}.
    o_token : stream of {token}
    settled : out
        No read for vectors or tables is under way, and no vector.
    idle : out
        Nothing that was begun is under way but reads.
    m_axi : array of axi.Signature, read channels, one for each group
        Tiles. Every port has its own memory, from address 0 on.
    m_axi_scales : axi.Signature, read channels
        Scales of values.
    m_axi_cache : axi.Signature
        Keys and values, as they are written.
    m_axi_data : axi.Signature
        Parameters and logits.
    clear : in
        A pulse ends everything; nothing may be given while `clearing` is high.
    clearing : out
    error : UnitError
        Of the first unit, in their order, that reports one.
    words, starved : out, a bit for each group
        As those of `MatrixEngine`.
    units : out
        A bit for each of attention's weights, vectors, parameters, cache, logits: at work.
    domains : tuple of str
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        self.engine = MatrixEngine(config)
        self.attention = Attention(config, slots=machine.slots, entries=machine.pages)
        self.writer = CacheWriter(config.of_batch, port_bytes=machine.port_bytes, entries=machine.pages)
        self.table = PageTable(entries=machine.pages, readers=2)
        self.parameters = ParameterReader(machine)
        self.logits = Logits(machine)
        self.path = result_path(machine)
        self.domains = self.engine.domains
        super().__init__(
            {
                "i_reads": In(stream.Signature(read_job(machine))),
                "i_fetches": In(stream.Signature(fetch_job(machine))),
                "i_multiplies": In(stream.Signature(multiply_job(machine))),
                "i_vectors": In(stream.Signature(vector_job(machine))),
                "i_appends": In(stream.Signature(append(config.of_batch))),
                "i_attends": In(stream.Signature(attend_job(machine))),
                "i_pages": self.table.signature.members["i"],
                "o_token": self.logits.signature.members["o"],
                "settled": Out(1),
                "idle": Out(1),
                "m_axi": self.engine.signature.members["m_axi"],
                "m_axi_scales": self.attention.signature.members["m_axi"],
                "m_axi_cache": self.writer.signature.members["m_axi"],
                "m_axi_data": Out(axi.Signature(data_width=config.port_data_width)),
                "clear": In(1),
                "clearing": Out(1),
                "error": Out(UnitError),
                "words": Out(config.groups),
                "starved": Out(config.groups),
                "units": Out(5),
            }
        )

    def elaborate(self, platform):
        m = Module()
        inner = Module()
        m.submodules.core = ResetInserter(self.clearing)(inner)
        own_units = {
            "engine": self.engine,
            "attention": self.attention,
            "writer": self.writer,
            "parameters": self.parameters,
            "logits": self.logits,
        }
        for name, unit in own_units.items():
            m.submodules[name] = unit
            m.d.comb += unit.clear.eq(self.clear)
        m.submodules.table = self.table
        wiring.connect(m, wiring.flipped(self.i_pages), self.table.i)
        m.d.comb += self.clearing.eq(self.clear | self.engine.clearing | self.attention.clearing)
        self._ports(m)
        self._errors(m)
        are_done = self._weights(inner)
        self._attention(inner)
        m.d.comb += [
            self.settled.eq(self.parameters.idle & are_done),
            self.idle.eq(self.logits.idle & are_done),
            self.words.eq(self.engine.words),
            self.starved.eq(self.engine.starved),
            self.units.eq(
                Cat(
                    self.attention.o_loads.valid,
                    ~are_done,
                    self.parameters.o_gain.valid | ~self.parameters.idle,
                    self.writer.i_vectors.valid,
                    ~self.logits.idle,
                )
            ),
        ]
        return m

    def _ports(self, m):
        m.submodules.requests = self._chain = chain = CommandChain(
            self.machine.config, self.engine.i_commands[0].p.shape()
        )
        m.d.comb += chain.clear.eq(self.clearing)
        for n, port in enumerate(self.engine.m_axi):
            wiring.connect(m, port, wiring.flipped(self.m_axi[n]))
            wiring.connect(m, chain.o[n], self.engine.i_commands[n])
        wiring.connect(m, self.attention.m_axi, wiring.flipped(self.m_axi_scales))
        wiring.connect(m, self.writer.m_axi, wiring.flipped(self.m_axi_cache))
        wiring.connect(m, self.attention.lookup, self.table.lookups[0])
        wiring.connect(m, self.writer.lookup, self.table.lookups[1])
        for part in (self.parameters, self.logits):
            for name, member in part.m_axi.signature.members.items():
                own, outer = getattr(part.m_axi, name), getattr(self.m_axi_data, name)
                m.d.comb += outer.eq(own) if member.flow is Out else own.eq(outer)

    def _weights(self, m):
        """From jobs and results of the array to the vectors' places; returns whether none is under way."""
        machine, config, path = self.machine, self.machine.config, self.path
        m.submodules.fork = fork = Fork(vector_job(machine), 5)
        m.submodules.source = source = VectorSource(machine)
        m.submodules.control = control = StepControl(machine, path)
        m.submodules.path = path
        m.submodules.split = self._split = split = ResultSplit(machine)
        m.submodules.vectors = vectors = VectorMemory(machine)
        m.submodules.rotary = rotary = RotaryTable(machine)
        m.submodules.loader = self._loader = loader = GainLoader(config)
        m.submodules.results = self._results = results = ResultShare(machine)
        parameters, job = self.parameters, self.i_vectors.p
        m.d.comb += path.clear.eq(self.clearing)
        wiring.connect(m, wiring.flipped(self.i_reads), parameters.i)
        wiring.connect(m, wiring.flipped(self.i_vectors), fork.i)
        wiring.connect(m, self.engine.o, results.i)
        if config.sets == 1:
            wiring.connect(m, results.o_vectors, source.i)
        else:
            m.submodules.deal = deal = ResultDeal(machine)
            wiring.connect(m, results.o_vectors, deal.i)
            wiring.connect(m, deal.o, source.i)
            m.d.comb += [
                deal.i_set.eq(results.set),
                deal.i_dealt.eq(results.dealt),
                deal.o_set.eq(source.set),
                deal.o_dealt.eq(source.dealt),
            ]
        wiring.connect(m, source.o, path.i)
        wiring.connect(m, control.o, path.i_steps)
        wiring.connect(m, path.o_statistics, control.i_statistics)
        wiring.connect(m, parameters.o_bias, path.i_bias)
        wiring.connect(m, parameters.o_gain, loader.i_gain)
        wiring.connect(m, parameters.o_vectors, vectors.i_parameters)
        wiring.connect(m, parameters.o_tables, rotary.i_loads)
        wiring.connect(m, rotary.o, path.i_table)
        wiring.connect(m, vectors.o_factors, path.i_factors)
        wiring.connect(m, vectors.o_residual, path.i_residual)
        wiring.connect(m, path.o, split.i)
        wiring.connect(m, split.o_vectors, vectors.i_results)
        wiring.connect(m, split.o_loads, loader.i)
        wiring.connect(m, split.o_logits, self.logits.i)
        wiring.connect(m, self.logits.o, wiring.flipped(self.o_token))

        to_source, to_control, to_operands, to_table, to_split = fork.o
        m.d.comb += fork.wanted.eq(Cat(1, 1, job.factors | job.residual, job.rotated.any(), 1))
        wiring.connect(m, to_control, control.i)
        wiring.connect(m, to_split, split.i_jobs)
        writes = Signal(WRITES_WIDTH)
        under_way, starts = Signal(VECTORS_WIDTH), Signal()
        m.d.comb += [
            source.i_jobs.valid.eq(to_source.valid),
            to_source.ready.eq(source.i_jobs.ready),
            *(source.i_jobs.p[name].eq(job[name]) for name in ("zeros", "vectors", "channels", "set", "dealt")),
            vectors.i_jobs.valid.eq(to_operands.valid),
            to_operands.ready.eq(vectors.i_jobs.ready),
            vectors.i_jobs.p.address.eq(job.operand),
            vectors.i_jobs.p.beats.eq(beats_of(config, job.channels)),
            vectors.i_jobs.p.writes.eq(writes),
            *(vectors.i_jobs.p[name].eq(job[name]) for name in ("stride", "vectors", "factors")),
            rotary.i_jobs.valid.eq(to_table.valid),
            to_table.ready.eq(rotary.i_jobs.ready),
            rotary.i_jobs.p.vectors.eq(job.vectors),
            rotary.i_jobs.p.set.eq(job.set),
            rotary.i_jobs.p.beats.eq(beats_of(config, job.rotated)),
            starts.eq(self.i_vectors.valid & self.i_vectors.ready),
        ]
        m.d.sync += [writes.eq(writes + (starts & job.to_vector)), under_way.eq(under_way + starts - split.done)]
        return under_way == 0

    def _attention(self, m):
        """What attention shares with the weights, and the way of keys and values into the cache."""
        machine, config = self.machine, self.machine.config
        engine, attention, writer, loader = self.engine, self.attention, self.writer, self._loader
        m.submodules.operator_share = operators = OperatorShare(machine)
        m.submodules.request_share = requests = RequestShare(machine)
        m.submodules.output = output = AttentionOutput(config)
        m.submodules.attends = attends = Fork(attend_job(machine), 4)
        wiring.connect(m, wiring.flipped(self.i_fetches), requests.i_fetches)
        wiring.connect(m, wiring.flipped(self.i_multiplies), operators.i_multiplies)
        wiring.connect(m, wiring.flipped(self.i_attends), attends.i)
        wiring.connect(m, attention.o_operators, operators.i)
        wiring.connect(m, attention.o_requests, requests.i)
        wiring.connect(m, requests.o, self._chain.i)
        wiring.connect(m, operators.o, engine.i_operators)
        wiring.connect(m, operators.o_routes, self._results.i_routes)
        wiring.connect(m, self._results.o_attention, attention.i_results)
        m.d.comb += [
            operators.done.eq(engine.done),
            operators.ends.eq(attention.operators_end),
            requests.ends.eq(attention.requests_end),
            attention.read.eq(operators.read),
            attention.appended.eq(writer.appended),
        ]
        job = self.i_attends.p
        to_attention, to_operators, to_requests, to_output = attends.o
        given = output.i_jobs.p
        m.d.comb += [
            attends.wanted.eq(~0),
            attention.i_attends.valid.eq(to_attention.valid),
            attention.i_attends.p.eq(job.attend),
            to_attention.ready.eq(attention.i_attends.ready),
            operators.i_attends.valid.eq(to_operators.valid),
            operators.i_attends.payload.eq(job.load),
            to_operators.ready.eq(operators.i_attends.ready),
            requests.i_attends.valid.eq(to_requests.valid),
            to_requests.ready.eq(requests.i_attends.ready),
            output.i_jobs.valid.eq(to_output.valid),
            to_output.ready.eq(output.i_jobs.ready),
            given.address.eq(job.out_address),
            given.stride.eq(job.out_stride),
            given.heads.eq(job.attend.n_heads),
            *(given[name].eq(job[name]) for name in ("ratio", "spread", "event")),
            *(output.i.p[name].eq(attention.o.p[name]) for name in ("elements", "keep", "last")),
            output.i.valid.eq(attention.o.valid),
            attention.o.ready.eq(output.i.ready),
        ]
        # The feed takes a load in every cycle; weights of attention go first.
        weights, loads, outputs = attention.o_loads, loader.o, output.o
        m.d.comb += [
            engine.i_loads.valid.eq(weights.valid | loads.valid | outputs.valid),
            engine.i_loads.p.eq(Mux(weights.valid, weights.p, Mux(loads.valid, loads.p, outputs.p))),
            weights.ready.eq(1),
            loads.ready.eq(~weights.valid),
            outputs.ready.eq(~weights.valid & ~loads.valid),
        ]
        self._cache(m)

    def _cache(self, m):
        """Keys and values on their way to the cache writer, head by head, token by token."""
        config, split, writer = self.machine.config, self._split, self.writer
        m.submodules.waiting = waiting = CacheDeal(self.machine)
        m.submodules.rows = rows = RowSerialiser(config, max_length=MAX_HEAD_DIM)
        m.submodules.appends = appends = Fork(append(config.of_batch), 2)
        wiring.connect(m, split.o_cache, waiting.i)
        wiring.connect(m, waiting.o, rows.i)
        wiring.connect(m, wiring.flipped(self.i_appends), appends.i)
        steps = _Heads(config)
        m.submodules.heads = steps
        # The next append is known before the vectors of the one before have come.
        m.submodules.heads_queue = queue = Queue(steps.i.p.shape(), APPENDS)
        wiring.connect(m, queue.o, steps.i)
        to_writer, to_rows = appends.o
        wiring.connect(m, to_writer, writer.i_appends)
        m.d.comb += [
            appends.wanted.eq(~0),
            queue.i.valid.eq(to_rows.valid),
            queue.i.p.rows.eq(to_rows.p.rows),
            queue.i.p.heads.eq(to_rows.p.cache.heads),
            to_rows.ready.eq(queue.i.ready),
            rows.i_steps.valid.eq(steps.o.valid),
            rows.i_steps.p.rows.eq(steps.o.p.rows),
            steps.o.ready.eq(rows.i_steps.ready),
            *(writer.i_vectors.p[name].eq(rows.o.p[name]) for name in ("elements", "keep", "last")),
            writer.i_vectors.valid.eq(rows.o.valid),
            rows.o.ready.eq(writer.i_vectors.ready),
        ]

    def _errors(self, m):
        """The first unit, in the order of the ways of data, that has an error.

        Two cycles later, since each unit works out its own behind some levels of logic, and there are many of them.
        """
        engine = self.engine
        units = [
            *(
                (Unit.PORT, each.valid, each.code, n, each.command, each.address)
                for n, each in enumerate(engine.errors)
            ),
            (Unit.FEED, engine.feed_error.valid, engine.feed_error.code, 0, engine.feed_error.operator, 0),
            (Unit.ATTENTION, self.attention.failed, self.attention.code, 0, self.attention.command, 0),
            (Unit.CACHE, self.writer.failed, self.writer.code, 0, self.writer.command, 0),
        ]
        for unit, part in ((Unit.PARAMETERS, self.parameters.error), (Unit.LOGITS, self.logits.error)):
            units.append((unit, part.valid, part.code, 0, part.command, part.address))
        first = Signal(UnitError)
        m.d.comb += first.unit.eq(Unit.NONE)
        for n, (unit, is_so, code, port, command, address) in reversed(list(enumerate(units))):
            error = Signal(UnitError, name=f"error{n}")
            m.d.sync += [
                error.unit.eq(Mux(is_so, unit, Unit.NONE)),
                error.code.eq(code),
                error.port.eq(port),
                error.command.eq(command),
                error.address.eq(address),
            ]
            with m.If(error.unit != Unit.NONE):
                m.d.comb += first.eq(error)
        m.d.sync += self.error.eq(first)


class _Heads(wiring.Component):
    """An append's rows, for each of its heads those of one set after the other.

    i : stream of {rows, heads}; o : stream of {rows}
    """

    def __init__(self, config):
        self._most, self._sets = config.rows, config.sets
        batch = data.StructLayout({"rows": range(config.batch_rows + 1), "heads": 9})
        super().__init__(
            {
                "i": In(stream.Signature(batch)),
                "o": Out(stream.Signature(data.StructLayout({"rows": range(config.rows + 1)}))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        head, held = Signal(9), Signal.like(self.i.p)
        left = Signal.like(held.rows)  # of this head
        is_held = Signal()
        is_last_set = left <= self._most if self._sets > 1 else Const(1)
        is_last = is_last_set & (head + 1 == held.heads)
        m.d.comb += [
            self.i.ready.eq(~is_held),
            self.o.valid.eq(is_held),
            self.o.p.rows.eq(Mux(is_last_set, left, self._most)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(self.i.p), left.eq(self.i.p.rows), is_held.eq(1), head.eq(0)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [left.eq(left - self._most), is_held.eq(~is_last)]
            with m.If(is_last_set):
                m.d.sync += [left.eq(held.rows), head.eq(head + 1)]
        return m
