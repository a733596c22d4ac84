"""Where vectors go behind the epilogue: vector memory, activation buffer, cache, logits."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.queue import Queue
from edgeaccel.soc.command import vector_job
from edgeaccel.soc.loads import gained_load
from edgeaccel.soc.logits import logits_beat
from edgeaccel.soc.vectors import row_codes, vector_write

__all__ = ["ResultSplit", "cache_beat", "row_beat"]

JOBS = 4
BEATS = 4


def row_beat(config):
    """A beat of vectors of all rows."""
    return data.StructLayout({"elements": row_codes(config), "keep": config.vector_lanes, "last": 1})


def cache_beat(config):
    """A beat of keys or values of all rows; of which set, and whether another one of the batch comes behind that."""
    sets = config.sets
    members = row_beat(config).members
    return data.StructLayout(dict(members) | {"set": range(sets), "more": range(min(2, sets))})


class ResultSplit(wiring.Component):
    """Takes each beat to all the places that its instruction names. Lanes without an element become zeros.

    One beat a cycle.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_jobs : stream of `vector_job`
    i : stream of `row_beat`
    o_vectors : stream of `vector_write`
        To what is always ready.
    o_loads : stream of `gained_load`
    o_cache : stream of `cache_beat`
    o_logits : stream of `logits_beat`
        Of the batch's last row.
    done : out
        High for a cycle when the last beat of an instruction has gone.
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        super().__init__(
            {
                "i_jobs": In(stream.Signature(vector_job(machine))),
                "i": In(stream.Signature(row_beat(config))),
                "o_vectors": Out(stream.Signature(vector_write(machine))),
                "o_loads": Out(stream.Signature(gained_load(config))),
                "o_cache": Out(stream.Signature(cache_beat(config))),
                "o_logits": Out(stream.Signature(logits_beat(machine))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine, config = self.machine, self.machine.config
        m.submodules.jobs = jobs = Queue(vector_job(machine), JOBS)
        wiring.connect(m, wiring.flipped(self.i_jobs), jobs.i)
        queues = {}
        for name in ("loads", "cache", "logits"):
            end = getattr(self, f"o_{name}")
            m.submodules[name] = queues[name] = queue = Queue(end.p.shape(), BEATS)
            wiring.connect(m, queue.o, wiring.flipped(end))
        job, i = jobs.o.p, self.i
        wanted = {"loads": job.to_buffer, "cache": job.to_cache, "logits": job.to_logits}

        vector, beat = Signal(16), Signal(16)
        offset = Signal(range(max(machine.vector_words, config.buffer_words)))  # of the vector
        is_last, goes = Signal(), Signal()
        ready = Cat(~wanted[name] | queue.i.ready for name, queue in queues.items()).all()
        m.d.comb += [
            is_last.eq(i.p.last & (vector + 1 == job.vectors)),
            i.ready.eq(jobs.o.valid & ready),
            goes.eq(i.valid & i.ready),
            jobs.o.ready.eq(goes & is_last),
            self.done.eq(jobs.o.ready),
        ]
        m.d.comb += [queue.i.valid.eq(goes & wanted[name]) for name, queue in queues.items()]
        elements = Signal(row_codes(config))
        for row in range(config.rows):
            for n in range(config.vector_lanes):
                m.d.comb += elements[row][n].eq(Mux(i.p.keep[n], i.p.elements[row][n], 0))

        # Queries of a head side by side in the rows: which place, and which row of it.
        head, row, place = Signal(range(257)), Signal(range(config.rows)), Signal(range(config.buffer_words))
        ends_head = head + 1 == job.ratio
        with m.If(goes):
            m.d.sync += beat.eq(Mux(i.p.last, 0, beat + 1))
            with m.If(i.p.last):
                m.d.sync += [
                    vector.eq(Mux(is_last, 0, vector + 1)),
                    offset.eq(Mux(is_last, 0, offset + job.stride)),
                    head.eq(Mux(ends_head, 0, head + 1)),
                    row.eq(row + 1),
                ]
                with m.If(ends_head | (row == config.rows - 1)):
                    m.d.sync += [row.eq(0), place.eq(place + job.stride)]
                with m.If(is_last):
                    m.d.sync += [head.eq(0), row.eq(0), place.eq(0)]

        write, load = self.o_vectors, queues["loads"].i.p
        own = Signal(config.rows)
        m.d.comb += [
            own.eq(1 << row),
            write.valid.eq(goes & job.to_vector),
            write.p.address.eq(job.vector + offset + beat),
            write.p.elements.eq(elements),
            write.p.last.eq(is_last),
            load.gain.eq(job.gain),
            load.load.address.eq(job.address + Mux(job.spread, place, offset) + beat),
            load.load.rows.eq(Mux(job.spread, own, ~0)),
            load.load.event.eq(job.event & is_last),
            *(load.load.elements[n].eq(Mux(job.spread, elements[0], elements[n])) for n in range(config.rows)),
            *(queues["cache"].i.p[name].eq(i.p[name]) for name in i.p.shape().members),
            *(queues["cache"].i.p[name].eq(job[name]) for name in ("set", "more")),
        ]
        logits = queues["logits"].i.p
        m.d.comb += [
            logits.keep.eq(i.p.keep),
            logits.last.eq(i.p.last),
            logits.address.eq(job.logits),
            logits.channels.eq(job.channels),
            logits.starts.eq(job.starts & (vector == 0)),
            logits.ends.eq(job.ends & (vector + 1 == job.vectors)),
            logits.first.eq(vector == 0),
        ]
        with m.Switch(job.rows):
            for n in range(config.rows):
                with m.Case(n + 1):
                    m.d.comb += logits.elements.eq(elements[n])
        return m
