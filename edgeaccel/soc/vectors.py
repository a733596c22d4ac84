"""Vectors on the chip: the residual stream and what else waits for an operator; cosines and sines of each row."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.buffer import memory_attributes
from edgeaccel.queue import Queue
from edgeaccel.soc.parameters import codes, table_load, vector_load

__all__ = ["RotaryTable", "VectorMemory", "operand_job", "row_codes", "vector_write"]

JOBS = 4
BEATS = 4  # that wait for who asked for them
WRITES_WIDTH = 8


def row_codes(config):
    """FP32 codes of a beat, of each row."""
    return data.ArrayLayout(codes(config), config.rows)


def vector_write(machine):
    """A word of the vector memory, of all rows; `last` of an instruction's."""
    return data.StructLayout({"address": range(machine.vector_words), "elements": row_codes(machine.config), "last": 1})


def operand_job(machine):
    """Operands of the vectors of an instruction.

    address, stride
        Of the first vector, and from vector to vector, in words.
    vectors, beats
        How many, and of how many beats each.
    factors
        They are factors, not residuals.
    writes
        Instructions that write to the memory and come before, modulo 2**8: theirs are waited for.
    """
    return data.StructLayout(
        {
            "address": range(machine.vector_words),
            "stride": range(machine.vector_words),
            "vectors": 16,
            "beats": 16,
            "factors": 1,
            "writes": WRITES_WIDTH,
        }
    )


class _Beats(wiring.Component):
    """Addresses of the beats of some vectors, one a cycle.

    i : stream of {address, stride, vectors, beats}; o : stream of addresses, `last` of a job.
    """

    def __init__(self, words):
        self._words = words
        job = {"address": range(words), "stride": range(words), "vectors": 16, "beats": 16}
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(job))),
                "o": Out(stream.Signature(data.StructLayout({"address": range(words), "last": 1}))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        beat, vector = Signal(16), Signal(16)
        begin, offset = Signal(range(self._words)), Signal(range(self._words))
        ends_vector, ends = Signal(), Signal()
        m.d.comb += [
            ends_vector.eq(beat + 1 == i.p.beats),
            ends.eq(ends_vector & (vector + 1 == i.p.vectors)),
            begin.eq(i.p.address + offset),
            o.valid.eq(i.valid),
            o.p.address.eq(begin + beat),
            o.p.last.eq(ends),
            i.ready.eq(o.ready & ends),
        ]
        with m.If(o.valid & o.ready):
            m.d.sync += beat.eq(Mux(ends_vector, 0, beat + 1))
            with m.If(ends_vector):
                m.d.sync += [vector.eq(Mux(ends, 0, vector + 1)), offset.eq(Mux(ends, 0, offset + i.p.stride))]
        return m


class VectorMemory(wiring.Component):
    """Words of `vector_lanes` FP32 elements of each row, written by results and parameters, read as operands.

    A word is written and one is read each cycle. Writes of results go before those of parameters.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_results : stream of `vector_write`
        Always ready.
    i_parameters : stream of `vector_load`
    i_jobs : stream of `operand_job`
    o_factors, o_residual : streams of FP32 codes x lanes x rows
    """

    def __init__(self, machine):
        self.machine = machine
        operands = stream.Signature(row_codes(machine.config))
        super().__init__(
            {
                "i_results": In(stream.Signature(vector_write(machine))),
                "i_parameters": In(stream.Signature(vector_load(machine))),
                "i_jobs": In(stream.Signature(operand_job(machine))),
                "o_factors": Out(operands),
                "o_residual": Out(operands),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine, config = self.machine, self.machine.config
        results, parameters = self.i_results, self.i_parameters
        depth = machine.vector_words
        m.d.comb += [results.ready.eq(1), parameters.ready.eq(~results.valid)]
        read_ports = []
        for row in range(config.rows):
            memory = Memory(shape=codes(config), depth=depth, init=[], attrs=memory_attributes(depth))
            m.submodules[f"row{row}"] = memory
            write_port = memory.write_port()
            m.d.comb += [
                write_port.en.eq(results.valid | (parameters.valid & parameters.p.rows[row])),
                write_port.addr.eq(Mux(results.valid, results.p.address, parameters.p.address)),
                write_port.data.eq(Mux(results.valid, results.p.elements[row], parameters.p.elements)),
            ]
            read_ports.append(memory.read_port())
        written = Signal(WRITES_WIDTH)  # instructions whose last word is
        with m.If(results.valid & results.p.last):
            m.d.sync += written.eq(written + 1)

        m.submodules.jobs = jobs = Queue(operand_job(machine), JOBS)
        m.submodules.walk = walk = _Beats(depth)
        m.submodules.beats = beats = Queue(data.StructLayout({"factors": 1, "elements": row_codes(config)}), BEATS)
        wiring.connect(m, wiring.flipped(self.i_jobs), jobs.i)
        # A beat is asked for if it will find room: those in the queue, one on its way, and this one.
        free, reads, is_read, of_factors = Signal(range(BEATS + 1), init=BEATS), Signal(), Signal(), Signal()
        allowed = Signal()
        m.d.sync += allowed.eq(jobs.o.valid & ~jobs.o.ready & (written == jobs.o.p.writes))
        m.d.comb += [
            *(walk.i.p[name].eq(jobs.o.p[name]) for name in ("address", "stride", "vectors", "beats")),
            walk.i.valid.eq(jobs.o.valid & allowed),
            jobs.o.ready.eq(walk.i.valid & walk.i.ready),
            walk.o.ready.eq(free != 0),
            reads.eq(walk.o.valid & walk.o.ready),
            *(port.addr.eq(walk.o.p.address) for port in read_ports),
            *(port.en.eq(reads) for port in read_ports),
            beats.i.valid.eq(is_read),
            beats.i.p.factors.eq(of_factors),
            *(beats.i.p.elements[row].eq(port.data) for row, port in enumerate(read_ports)),
        ]
        m.d.sync += [
            is_read.eq(reads),
            of_factors.eq(jobs.o.p.factors),
            free.eq(free - reads + (beats.o.valid & beats.o.ready)),
        ]
        out = beats.o
        for end, is_its in ((self.o_factors, out.p.factors), (self.o_residual, ~out.p.factors)):
            m.d.comb += [end.p.eq(out.p.elements), end.valid.eq(out.valid & is_its)]
        m.d.comb += out.ready.eq(Mux(out.p.factors, self.o_factors.ready, self.o_residual.ready))
        return m


class RotaryTable(wiring.Component):
    """Cosines and sines of each row's position in each set, given anew for each vector that is rotated. A beat a cycle.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_loads : stream of `table_load`
        Always ready.
    i_jobs : stream of {vectors, beats, set}
        How many vectors, and of how many beats each has a table; which set's.
    o : stream of {cos, sin: FP32 codes x lanes} x rows
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        beat = data.StructLayout({"cos": codes(config), "sin": codes(config)})
        job = data.StructLayout({"vectors": 16, "beats": 16, "set": range(config.sets)})
        super().__init__(
            {
                "i_loads": In(stream.Signature(table_load(machine))),
                "i_jobs": In(stream.Signature(job)),
                "o": Out(stream.Signature(data.ArrayLayout(beat, config.rows))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine, config = self.machine, self.machine.config
        depth, loads = machine.table_beats, self.i_loads
        m.d.comb += loads.ready.eq(1)

        def place(which, beat):
            return beat + which * depth if config.sets > 1 else beat

        m.submodules.jobs = jobs = Queue(self.i_jobs.p.shape(), JOBS)
        m.submodules.walk = walk = _Beats(depth)
        m.submodules.beats = beats = Queue(self.o.p.shape(), BEATS)
        wiring.connect(m, wiring.flipped(self.i_jobs), jobs.i)
        wiring.connect(m, beats.o, wiring.flipped(self.o))
        free, reads, is_read = Signal(range(BEATS + 1), init=BEATS), Signal(), Signal()
        m.d.comb += [
            walk.i.p.vectors.eq(jobs.o.p.vectors),
            walk.i.p.beats.eq(jobs.o.p.beats),
            walk.i.valid.eq(jobs.o.valid),
            jobs.o.ready.eq(walk.i.ready),
            walk.o.ready.eq(free != 0),
            reads.eq(walk.o.valid & walk.o.ready),
            beats.i.valid.eq(is_read),
        ]
        m.d.sync += [is_read.eq(reads), free.eq(free - reads + (beats.o.valid & beats.o.ready))]
        for row in range(config.rows):
            for name, is_sine in (("cos", 0), ("sin", 1)):
                n_words = config.sets * depth
                memory = Memory(shape=codes(config), depth=n_words, init=[], attrs=memory_attributes(n_words))
                m.submodules[f"{name}{row}"] = memory
                write_port, read_port = memory.write_port(), memory.read_port()
                m.d.comb += [
                    write_port.en.eq(loads.valid & loads.p.rows[row] & (loads.p.is_sine == is_sine)),
                    write_port.addr.eq(place(loads.p.set, loads.p.beat)),
                    write_port.data.eq(loads.p.elements),
                    read_port.en.eq(reads),
                    read_port.addr.eq(place(jobs.o.p.set, walk.o.p.address)),
                    beats.i.p[row][name].eq(read_port.data),
                ]
        return m
