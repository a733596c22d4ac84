"""What attention gives, back into the activation buffer."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.rows import RowSerialiser
from edgeaccel.cache import MAX_HEAD_DIM
from edgeaccel.queue import Queue
from edgeaccel.soc.results import row_beat
from edgeaccel.systolic.feed import activation_load

__all__ = ["AttentionOutput", "output_job"]

JOBS = 4


def output_job(config):
    """Results of an attend.

    address, stride
        Of the first query head's in the buffer, and from head to head, in words.
    heads, ratio
        Heads of keys and values, and the query heads that share one.
    spread
        The rows are query heads of one token, and become row 0 of their places; else they are tokens.
    event
        The last load is an event.
    """
    return data.StructLayout(
        {
            "address": range(config.buffer_words),
            "stride": range(config.buffer_words),
            "heads": 9,
            "ratio": 9,
            "spread": 1,
            "event": 1,
        }
    )


class AttentionOutput(wiring.Component):
    """Loads the results of attends.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_jobs : stream of `output_job`
        One for each attend.
    i : stream of `row_beat`
        A vector for each head and batch of queries, in order.
    o : stream of `activation_load`
        Elements of rows that are not marked mean nothing, and may change while a load is offered.
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "i_jobs": In(stream.Signature(output_job(config))),
                "i": In(stream.Signature(row_beat(config))),
                "o": Out(stream.Signature(activation_load(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, i, o = self.config, self.i, self.o
        m.submodules.jobs = jobs = Queue(output_job(config), JOBS)
        m.submodules.serialiser = serialiser = RowSerialiser(config, max_length=MAX_HEAD_DIM)
        wiring.connect(m, wiring.flipped(self.i_jobs), jobs.i)
        job = jobs.o.p

        # Of the vectors that come: how many rows each has, if these are heads.
        head_in, first_in = Signal(9), Signal(9)
        left, here = Signal(9), Signal(range(config.rows + 1))
        m.d.comb += [
            left.eq(job.ratio - first_in),
            here.eq(Mux(left > config.rows, config.rows, left)),
        ]
        # All vectors of the job are in the serialiser; it may still give them.
        has_all, takes = Signal(), Signal()
        steps = Queue(serialiser.i_steps.p.shape(), 4)
        m.submodules.steps = steps
        wiring.connect(m, steps.o, serialiser.i_steps)
        to_rows = jobs.o.valid & job.spread & ~has_all
        is_first = Signal(init=1)  # beat of a vector
        has_room = steps.i.ready | ~is_first
        m.d.comb += [
            serialiser.i.p.eq(i.p),
            serialiser.i.valid.eq(i.valid & to_rows & has_room),
            steps.i.valid.eq(i.valid & to_rows & is_first & serialiser.i.ready),
            steps.i.p.rows.eq(here),
            takes.eq(serialiser.i.valid & serialiser.i.ready),
        ]
        with m.If(takes):
            m.d.sync += is_first.eq(i.p.last)
            with m.If(i.p.last):
                m.d.sync += first_in.eq(first_in + config.rows)
                with m.If(left <= config.rows):
                    m.d.sync += [first_in.eq(0), head_in.eq(head_in + 1)]
                    with m.If(head_in + 1 == job.heads):
                        m.d.sync += [head_in.eq(0), has_all.eq(1)]

        # Of the vectors that go: one for each query head.
        beat, query, head = Signal(range(MAX_HEAD_DIM)), Signal(9), Signal(9)
        place = Signal(range(config.buffer_words))
        valid, last, ends_head, ends, goes = (Signal() for _ in range(5))
        rows = serialiser.o
        direct = jobs.o.valid & ~job.spread
        m.d.comb += [
            valid.eq(Mux(job.spread, rows.valid, i.valid)),
            last.eq(Mux(job.spread, rows.p.last, i.p.last)),
            ends_head.eq(query + 1 == job.ratio),
            ends.eq(last & ends_head & (head + 1 == job.heads)),
            o.valid.eq(jobs.o.valid & valid),
            goes.eq(o.valid & o.ready),
            rows.ready.eq(jobs.o.valid & job.spread & o.ready),
            i.ready.eq(Mux(direct, o.ready, to_rows & has_room & serialiser.i.ready)),
            jobs.o.ready.eq(goes & ends),
            o.p.address.eq(job.address + place + beat),
            o.p.event.eq(job.event & ends),
            o.p.rows.eq(Mux(job.spread, 1, ~0)),
            o.p.elements.eq(i.p.elements),
        ]
        with m.If(job.spread):
            m.d.comb += o.p.elements[0].eq(rows.p.elements)
        with m.If(goes):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
            with m.If(last):
                m.d.sync += [query.eq(Mux(ends_head, 0, query + 1)), place.eq(place + job.stride)]
                with m.If(ends_head):
                    m.d.sync += head.eq(head + 1)
                with m.If(ends):
                    m.d.sync += [head.eq(0), place.eq(0), has_all.eq(0)]
        return m
