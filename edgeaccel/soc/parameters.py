"""Parameters from memory: biases, gains, embeddings and tables, on their way to who needs them."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel import isa
from edgeaccel.memory.block import BlockError
from edgeaccel.memory.reader import BlockReader
from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.soc.command import read_job

__all__ = ["ParameterReader", "Target", "table_load", "vector_load"]

JOBS = 16
BUFFER_BEATS = 512


class Target(enum.Enum, shape=2):
    """What becomes of what is read: `edgeaccel.isa.TARGETS`."""

    BIAS = isa.TARGETS.index("bias")
    GAIN = isa.TARGETS.index("gain")
    VECTOR = isa.TARGETS.index("vector")
    TABLE = isa.TARGETS.index("table")


def codes(config):
    """FP32 codes of a beat."""
    return data.ArrayLayout(FP32.width, config.vector_lanes)


def vector_load(machine):
    """A word of the vector memory, of the rows that are marked."""
    return data.StructLayout(
        {
            "address": range(machine.vector_words),
            "elements": codes(machine.config),
            "rows": machine.config.rows,
        }
    )


def table_load(machine):
    """Cosines or sines of a beat, of the rows of a set that are marked."""
    return data.StructLayout(
        {
            "beat": range(machine.table_beats),
            "is_sine": 1,
            "elements": codes(machine.config),
            "rows": machine.config.rows,
            "set": range(machine.config.sets),
        }
    )


class ParameterReader(wiring.Component):
    """Reads blocks of FP32 numbers, and hands each beat to what it is for, in the order of the reads.

    A beat a cycle, as long as it is taken. What is at the head of the line holds up all that is behind it.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    m_axi : axi.Signature, read channels
    i : stream of `read_job`
    o_bias, o_gain : streams of FP32 codes x lanes
    o_vectors : stream of `vector_load`
    o_tables : stream of `table_load`
        Always taken.
    idle : out
        No read for vectors or tables is under way.
    clear : in
        As that of `BlockReader`.
    error : BlockError
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        self.reader = BlockReader(
            data_width=config.port_data_width,
            stream_bytes=4 * config.vector_lanes,
            buffer_beats=BUFFER_BEATS,
            queue=JOBS,
        )
        elements = stream.Signature(codes(config))
        super().__init__(
            {
                "m_axi": self.reader.signature.members["m_axi"],
                "i": In(stream.Signature(read_job(machine))),
                "o_bias": Out(elements),
                "o_gain": Out(elements),
                "o_vectors": Out(stream.Signature(vector_load(machine))),
                "o_tables": Out(stream.Signature(table_load(machine))),
                "idle": Out(1),
                "clear": In(1),
                "error": Out(BlockError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = self.reader
        wiring.connect(m, reader.m_axi, wiring.flipped(self.m_axi))
        config = self.machine.config
        own = {"target": Target, "vector": 20, "rows": config.rows, "set": range(config.sets)}
        target = data.StructLayout(own)
        # As many as the reader may have taken on.
        targets = Queue(target, 2 * JOBS)
        m.submodules.targets = ResetInserter(self.clear)(targets)
        i, o, head = self.i, reader.o, targets.o.p
        m.d.comb += [
            reader.i_commands.p.address.eq(i.p.address),
            reader.i_commands.p.bytes.eq(i.p.bytes),
            reader.i_commands.valid.eq(i.valid & targets.i.ready),
            i.ready.eq(reader.i_commands.ready & targets.i.ready),
            targets.i.valid.eq(i.valid & reader.i_commands.ready),
            targets.i.p.target.eq(i.p.target),
            targets.i.p.vector.eq(i.p.vector),
            targets.i.p.rows.eq(i.p.rows),
            targets.i.p.set.eq(i.p.set),
            reader.clear.eq(self.clear),
            self.error.eq(reader.error),
        ]
        beat = Signal(range(max(self.machine.vector_words, 2 * self.machine.table_beats)))
        takes, valid = Signal(), Signal()
        m.d.comb += [
            valid.eq(o.valid & targets.o.valid),
            takes.eq(o.valid & o.ready),
            targets.o.ready.eq(takes & o.p.last),
            self.o_vectors.p.address.eq(head.vector + beat),
            self.o_vectors.p.rows.eq(head.rows),
            self.o_tables.p.beat.eq(beat >> 1),
            self.o_tables.p.is_sine.eq(beat[0]),
            self.o_tables.p.rows.eq(head.rows),
            self.o_tables.p.set.eq(head.set),
        ]
        with m.If(takes):
            m.d.sync += beat.eq(Mux(o.p.last, 0, beat + 1))
        with m.Switch(head.target):
            for kind, end, elements in (
                (Target.BIAS, self.o_bias, self.o_bias.p),
                (Target.GAIN, self.o_gain, self.o_gain.p),
                (Target.VECTOR, self.o_vectors, self.o_vectors.p.elements),
                (Target.TABLE, self.o_tables, self.o_tables.p.elements),
            ):
                m.d.comb += elements.eq(o.p.data)
                with m.Case(kind):
                    m.d.comb += [end.valid.eq(valid), o.ready.eq(end.ready & targets.o.valid)]

        def is_kept(target):
            return (target == Target.VECTOR) | (target == Target.TABLE)

        n_kept, starts, ends = Signal(range(2 * JOBS + 1)), Signal(), Signal()
        m.d.comb += [
            starts.eq(i.valid & i.ready & is_kept(i.p.target)),
            ends.eq(takes & o.p.last & is_kept(head.target)),
            self.idle.eq(n_kept == 0),
        ]
        with m.If(self.clear):
            m.d.sync += [n_kept.eq(0), beat.eq(0)]
        with m.Else():
            m.d.sync += n_kept.eq(n_kept + starts - ends)
        return m
