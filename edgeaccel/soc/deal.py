"""Results of several sets of rows, put in the order of the vectors."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.buffer import StreamBuffer
from edgeaccel.soc.results import cache_beat, row_beat
from edgeaccel.systolic.beat import result_beat

__all__ = ["CacheDeal", "ResultDeal"]


class ResultDeal(wiring.Component):
    """Results of operators for several sets wait here, set by set; those of operators for one go straight through.

    The array gives a pass's results for all sets before those of the next pass; a vector is of one set, and may be of
    many passes. Who takes the vectors of an instruction takes those of the first set, then of the next. So while it
    takes the first set's, no more of another's come than an instruction has, `max_channels` channels; and while it
    takes another's, no more of an earlier one's than a pass has. That is what finds room, and why the array can always
    go on to what is wanted.

    A beat that waits is offered two cycles after it came.

    Parameters
    ----------
    machine : Machine
        With several sets.

    Members
    -------
    i : stream of `result_beat`
    i_set, i_dealt : in
        Which set's is the beat that is offered, and whether its operator is for several.
    o : stream of `result_beat`
    o_set, o_dealt : in
        Whose are wanted. May change while nothing is taken.
    """

    def __init__(self, machine):
        self.machine = machine
        sets = range(machine.config.sets)
        beats = stream.Signature(result_beat(machine.config))
        super().__init__(
            {
                "i": In(beats),
                "i_set": In(sets),
                "i_dealt": In(1),
                "o": Out(beats),
                "o_set": In(sets),
                "o_dealt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, i, o = self.machine.config, self.i, self.o
        has_room = Signal()
        m.d.comb += [
            i.ready.eq(Mux(self.i_dealt, has_room, o.ready & ~self.o_dealt)),
            o.p.eq(i.p),
            o.valid.eq(i.valid & ~self.i_dealt & ~self.o_dealt),
        ]
        for which in range(config.sets):
            queue = StreamBuffer(result_beat(config), room(self.machine, which))
            m.submodules[f"set{which}"] = queue
            m.d.comb += [
                queue.i.p.eq(i.p),
                queue.i.valid.eq(i.valid & self.i_dealt & (self.i_set == which)),
                queue.o.ready.eq(o.ready & self.o_dealt & (self.o_set == which)),
            ]
            with m.If(self.i_set == which):
                m.d.comb += has_room.eq(queue.i.ready)
            with m.If(self.o_dealt & (self.o_set == which)):
                m.d.comb += [o.p.eq(queue.o.p), o.valid.eq(queue.o.valid)]
        return m


def room(machine, which):
    """Beats of a set that may have to wait for those of another one."""
    config = machine.config
    of_pass = config.groups * config.tile_channels // config.vector_lanes
    of_instruction = machine.max_channels // config.vector_lanes
    if which == 0:
        return of_pass
    return of_instruction if which == config.sets - 1 else max(of_pass, of_instruction)


class CacheDeal(wiring.Component):
    """Keys and values wait here for the cache writer, so that the array does not: as many as a pass gives.

    They come set by set, and leave head by head: of each its vector of the first set, of the next, and so on. Those
    of all sets but the batch's last wait in queues of their own, with room for an instruction's.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i : stream of `cache_beat`
    o : stream of `row_beat`
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        super().__init__({"i": In(stream.Signature(cache_beat(config))), "o": Out(stream.Signature(row_beat(config)))})

    def elaborate(self, platform):
        m = Module()
        config, i, o = self.machine.config, self.i, self.o
        of_pass = config.groups * config.tile_channels // config.vector_lanes
        of_instruction = self.machine.max_channels // config.vector_lanes
        m.submodules.waiting = waiting = StreamBuffer(cache_beat(config), of_pass)
        turn = Signal(range(config.sets))  # the set whose vector goes
        is_last = turn == waiting.o.p.set
        m.d.comb += [
            waiting.i.p.eq(i.p),
            waiting.i.valid.eq(i.valid & (i.p.more == 0)),
            waiting.o.ready.eq(o.ready & is_last),
            i.ready.eq(waiting.i.ready),
            o.valid.eq(waiting.o.valid),
            *(o.p[name].eq(waiting.o.p[name]) for name in o.p.shape().members),
        ]
        for which in range(config.sets - 1):
            m.submodules[f"set{which}"] = held = StreamBuffer(row_beat(config), of_instruction)
            # The last set's vector tells that there are earlier ones, and stays until they have gone.
            is_turn = waiting.o.valid & ~is_last & (turn == which)
            m.d.comb += [
                *(held.i.p[name].eq(i.p[name]) for name in o.p.shape().members),
                held.i.valid.eq(i.valid & i.p.more & (i.p.set == which)),
                held.o.ready.eq(o.ready & is_turn),
            ]
            with m.If(i.p.more & (i.p.set == which)):
                m.d.comb += i.ready.eq(held.i.ready)
            with m.If(is_turn):
                m.d.comb += [o.valid.eq(held.o.valid), o.p.eq(held.o.p)]
        with m.If(o.valid & o.ready & o.p.last):
            m.d.sync += turn.eq(Mux(is_last, 0, turn + 1))
        return m
