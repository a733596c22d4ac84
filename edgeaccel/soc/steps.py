"""What the way from the array to the epilogue is told of each vector, and where its beats come from."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.soc.command import vector_job
from edgeaccel.systolic.beat import result_beat
from edgeaccel.vector.path import ResultPath

__all__ = ["StepControl", "VectorSource", "beats_of", "result_path", "tiles_of"]

JOBS = 4
STATISTICS = 2


def result_path(machine):
    """The `ResultPath` of a machine."""
    config = machine.config
    return ResultPath(
        config,
        functions=machine.functions,
        max_length=machine.max_channels,
        max_rotated=machine.max_rotated,
    )


def beats_of(config, channels):
    """Beats of a vector."""
    return (channels + config.vector_lanes - 1) >> exact_log2(config.vector_lanes)


def tiles_of(config, channels):
    """Tiles that a vector's channels are in."""
    return (channels + config.tile_channels - 1) >> exact_log2(config.tile_channels)


class VectorSource(wiring.Component):
    """Results of the array or zeros, as each instruction wants them.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_jobs : stream of {zeros, vectors, channels, set, dealt}
    i, o : streams of `result_beat`
    set, dealt : out
        Of what the array gives, which results are wanted on `i`: those of a set, as `ResultDeal` has them.
    """

    def __init__(self, machine):
        self.machine = machine
        sets = machine.config.sets
        which = {"set": range(sets), "dealt": range(min(2, sets))}
        job = data.StructLayout({"zeros": 1, "vectors": 16, "channels": 16} | which)
        beats = stream.Signature(result_beat(machine.config))
        selects = {name: Out(shape) for name, shape in which.items()} if sets > 1 else {}
        super().__init__({"i_jobs": In(stream.Signature(job)), "i": In(beats), "o": Out(beats)} | selects)

    def elaborate(self, platform):
        m = Module()
        config = self.machine.config
        tile_bits = exact_log2(config.tile_channels // config.vector_lanes)
        m.submodules.jobs = jobs = Queue(self.i_jobs.p.shape(), JOBS)
        wiring.connect(m, wiring.flipped(self.i_jobs), jobs.i)
        job = jobs.o
        if config.sets > 1:
            m.d.comb += [self.set.eq(job.p.set), self.dealt.eq(job.p.dealt)]
        beat, vector = Signal(16), Signal(16)
        last_beat = Signal(16)
        ends_vector, ends, goes = Signal(), Signal(), Signal()
        m.d.comb += [
            last_beat.eq((tiles_of(config, job.p.channels) << tile_bits) - 1),
            ends_vector.eq(beat == last_beat),
            ends.eq(ends_vector & (vector + 1 == job.p.vectors)),
            self.o.valid.eq(job.valid & (self.i.valid | job.p.zeros)),
            self.i.ready.eq(job.valid & ~job.p.zeros & self.o.ready),
            goes.eq(self.o.valid & self.o.ready),
            job.ready.eq(goes & ends),
        ]
        with m.If(~job.p.zeros):
            m.d.comb += self.o.p.eq(self.i.p)
        with m.If(goes):
            m.d.sync += beat.eq(Mux(ends_vector, 0, beat + 1))
            with m.If(ends_vector):
                m.d.sync += vector.eq(Mux(ends, 0, vector + 1))
        return m


class StepControl(wiring.Component):
    """Gives each vector its steps, with the 1/rms that its set's rows are multiplied by.

    Parameters
    ----------
    machine : Machine
    path : ResultPath

    Members
    -------
    i : stream of `vector_job`
    i_statistics : stream, as `path` gives them
        As many as instructions with `take` want.
    o : stream of steps, as `path` takes them
        One for each vector.
    """

    def __init__(self, machine, path):
        self.machine, config = machine, machine.config
        self._statistics, self._steps = path.o_statistics.p.shape(), path.i_steps.p.shape()
        self._factors = data.ArrayLayout(FP32.width, config.rows)
        super().__init__(
            {
                "i": In(stream.Signature(vector_job(machine))),
                "i_statistics": In(stream.Signature(self._statistics)),
                "o": Out(stream.Signature(self._steps)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sets = self.machine.config.sets
        m.submodules.jobs = jobs = Queue(vector_job(self.machine), JOBS)
        m.submodules.statistics = statistics = Queue(self._statistics, max(STATISTICS, sets))
        wiring.connect(m, wiring.flipped(self.i), jobs.i)
        wiring.connect(m, wiring.flipped(self.i_statistics), statistics.i)
        job, steps = jobs.o.p, self.o.p
        factors = Signal(data.ArrayLayout(self._factors, sets), reset_less=True)
        skipped = Signal(range(sets))
        vector, has_taken, goes = Signal(16), Signal(), Signal()
        is_there = ~job.take | has_taken
        m.d.comb += [
            statistics.o.ready.eq(jobs.o.valid & job.take & ~has_taken),
            self.o.valid.eq(jobs.o.valid & is_there),
            goes.eq(self.o.valid & self.o.ready),
            jobs.o.ready.eq(goes & (vector + 1 == job.vectors)),
        ]
        for which in range(sets):
            with m.If(job.set == which):
                m.d.comb += steps.factor.eq(factors[which])
        asked = [name for name in self._steps.members if name != "factor"]
        m.d.comb += [steps[name].eq(job[name]) for name in asked]
        with m.If(statistics.o.valid & statistics.o.ready):
            with m.If(skipped == job.skip):
                m.d.sync += [has_taken.eq(1), skipped.eq(0)]
                for which in range(sets):
                    with m.If(job.set == which):
                        m.d.sync += factors[which].eq(Cat(each.scale for each in statistics.o.p))
            with m.Else():
                m.d.sync += skipped.eq(skipped + 1)
        with m.If(goes):
            m.d.sync += vector.eq(Mux(jobs.o.ready, 0, vector + 1))
            with m.If(jobs.o.ready):
                m.d.sync += has_taken.eq(0)
        return m
