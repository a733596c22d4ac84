"""One array for weights and attention: requests, operators and results of both, in the order of the program."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.queue import Queue
from edgeaccel.soc.command import fetch_job, multiply_job
from edgeaccel.systolic.beat import result_beat
from edgeaccel.systolic.commands import port_request
from edgeaccel.systolic.operator import CHANNEL_TILES_WIDTH, operator

__all__ = ["OperatorShare", "RequestShare", "ResultShare", "WeightRequests"]

JOBS = 8  # that wait for their turn
OPERATORS = 64  # whose results are not through: those of attention's sets of groups, of a pass and a half


class WeightRequests(wiring.Component):
    """A matrix's tiles to requests: one for the ports that have a tile more, one for the others.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i : stream of `fetch_job`
    o : stream of `port_request`
    """

    def __init__(self, machine):
        self.config = machine.config
        super().__init__(
            {
                "i": In(stream.Signature(fetch_job(machine))),
                "o": Out(stream.Signature(port_request(machine.config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, groups = self.i.p, self.config.groups
        is_second = Signal()
        has_long, has_short, shorts = Signal(), Signal(), Signal()
        m.d.comb += [
            has_long.eq((i.long != 0) & ~is_second),
            has_short.eq((i.words != 0) & (i.long != groups)),
            shorts.eq(has_short & ~has_long),
            self.o.valid.eq(self.i.valid & (has_long | has_short)),
            self.o.p.address.eq(i.address),
            self.o.p.format.eq(i.format),
            self.o.p.words.eq(Mux(shorts, i.words, i.long_words)),
            self.o.p.skip.eq(Mux(shorts, i.long, 0)),
            self.o.p.take.eq(Mux(shorts, groups - i.long, i.long)),
            # The last of them, or there is none.
            self.i.ready.eq((self.o.ready | ~self.o.valid) & ~(has_long & has_short)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += is_second.eq(has_long & has_short)
        return m


class RequestShare(wiring.Component):
    """What the ports are asked for.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_fetches : stream of `fetch_job`
    i_attends : stream of 1 bit
        The next requests are those of an attend. Not offered together with a fetch.
    i : stream of `port_request`
        Of attention.
    ends : in
        The one that is offered is the last of its attend.
    o : stream of `port_request`
    """

    def __init__(self, machine):
        self.machine = machine
        requests = stream.Signature(port_request(machine.config))
        super().__init__(
            {
                "i_fetches": In(stream.Signature(fetch_job(machine))),
                "i_attends": In(stream.Signature(1)),
                "i": In(requests),
                "ends": In(1),
                "o": Out(requests),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.turns = turns = Queue(data.StructLayout({"attend": 1, "fetch": fetch_job(self.machine)}), JOBS)
        m.submodules.weights = weights = WeightRequests(self.machine)
        turn = turns.o.p
        own = turns.o.valid & ~turn.attend
        others = turns.o.valid & turn.attend
        m.d.comb += [
            turns.i.valid.eq(self.i_fetches.valid | self.i_attends.valid),
            turns.i.p.attend.eq(self.i_attends.valid),
            turns.i.p.fetch.eq(self.i_fetches.p),
            self.i_fetches.ready.eq(turns.i.ready),
            self.i_attends.ready.eq(turns.i.ready),
            weights.i.valid.eq(own),
            weights.i.p.eq(turn.fetch),
            weights.o.ready.eq(self.o.ready),
            self.i.ready.eq(others & self.o.ready),
            self.o.valid.eq(Mux(turn.attend, others & self.i.valid, weights.o.valid)),
            self.o.p.eq(Mux(turn.attend, self.i.p, weights.o.p)),
            turns.o.ready.eq(Mux(turn.attend, self.i.valid & self.i.ready & self.ends, weights.i.ready)),
        ]
        return m


def _turn(machine):
    return data.StructLayout({"attend": 1, "load": 1, "multiply": multiply_job(machine)})


def array_route(config):
    """Whose the results of an operator are, how many tiles of channels, and for how many sets beside one."""
    return data.StructLayout({"attend": 1, "tiles": CHANNEL_TILES_WIDTH, "more_sets": range(config.sets)})


class OperatorShare(wiring.Component):
    """What the array does.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i_multiplies : stream of `multiply_job`
    i_attends : stream of 1 bit
        The next operators are those of an attend; if 1, the first waits for an event of loads. Not offered together
        with a multiply.
    i : stream of `operator`
        Of attention. Those that wait are of values.
    ends : in
        The one that is offered is the last of its attend.
    o : stream of `operator`
    o_routes : stream of `array_route`
        One for each operator.
    done : in
        High for a cycle when an operator has read its inputs.
    read : out
        High for a cycle when one of values has.
    """

    def __init__(self, machine):
        self.machine = machine
        operators = stream.Signature(operator(machine.config))
        super().__init__(
            {
                "i_multiplies": In(stream.Signature(multiply_job(machine))),
                "i_attends": In(stream.Signature(1)),
                "i": In(operators),
                "ends": In(1),
                "o": Out(operators),
                "o_routes": Out(stream.Signature(array_route(machine.config))),
                "done": In(1),
                "read": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.machine.config
        m.submodules.turns = turns = Queue(_turn(self.machine), JOBS)
        m.submodules.routes = routes = Queue(array_route(config), OPERATORS)
        m.submodules.tags = tags = Queue(1, OPERATORS)
        wiring.connect(m, routes.o, wiring.flipped(self.o_routes))
        turn, job = turns.o.p, turns.o.p.multiply
        own = Signal(operator(config))
        m.d.comb += [
            own.address.eq(job.address),
            own.inputs.eq(job.inputs),
            own.channel_tiles.eq(job.channel_tiles),
            own.n_groups.eq(config.groups),
            own.format.eq(job.format),
            own.wait.eq(job.wait),
            own.more_sets.eq(job.more_sets),
        ]
        others = Signal(operator(config))
        is_first = Signal(init=1)  # of its attend
        m.d.comb += [others.eq(self.i.p), others.wait.eq(self.i.p.wait | (is_first & turn.load))]
        there, has_room, goes = Signal(), Signal(), Signal()
        m.d.comb += [
            turns.i.valid.eq(self.i_multiplies.valid | self.i_attends.valid),
            turns.i.p.attend.eq(self.i_attends.valid),
            turns.i.p.load.eq(self.i_attends.payload),
            turns.i.p.multiply.eq(self.i_multiplies.p),
            self.i_multiplies.ready.eq(turns.i.ready),
            self.i_attends.ready.eq(turns.i.ready),
            there.eq(turns.o.valid & (self.i.valid | ~turn.attend)),
            has_room.eq(routes.i.ready & tags.i.ready),
            self.o.p.eq(Mux(turn.attend, others, own)),
            self.o.valid.eq(there & has_room),
            goes.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(turns.o.valid & turn.attend & has_room & self.o.ready),
            turns.o.ready.eq(goes & (self.ends | ~turn.attend)),
            routes.i.valid.eq(goes),
            routes.i.p.attend.eq(turn.attend),
            routes.i.p.tiles.eq(Mux(turn.attend, self.i.p.channel_tiles, job.channel_tiles)),
            routes.i.p.more_sets.eq(Mux(turn.attend, 0, job.more_sets)),
            tags.i.valid.eq(goes),
            tags.i.p.eq(turn.attend & self.i.p.wait),
            tags.o.ready.eq(self.done),
            self.read.eq(self.done & tags.o.p),
        ]
        with m.If(goes & turn.attend):
            m.d.sync += is_first.eq(self.ends)
        return m


class ResultShare(wiring.Component):
    """Results of the array to whom they belong. No register: a beat goes through in the cycle in which it is offered.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    i : stream of `result_beat`
    i_routes : stream of `array_route`
        Taken with the operator's last beat.
    o_vectors, o_attention : streams of `result_beat`
    set, dealt : out
        In a build of several sets: which one's is the beat that is offered to `o_vectors`, and whether its operator is
        for several.
    """

    def __init__(self, machine):
        self.config = machine.config
        beats = stream.Signature(result_beat(machine.config))
        super().__init__(
            {
                "i": In(beats),
                "i_routes": In(stream.Signature(array_route(machine.config))),
                "o_vectors": Out(beats),
                "o_attention": Out(beats),
                **self._set_members(machine.config.sets),
            }
        )

    @staticmethod
    def _set_members(sets):
        return {"set": Out(range(sets)), "dealt": Out(1)} if sets > 1 else {}

    def elaborate(self, platform):
        m = Module()
        i, route = self.i, self.i_routes
        tile_bits = exact_log2(self.config.tile_channels // self.config.vector_lanes)
        is_last = self._count(m, tile_bits)
        m.d.comb += [
            self.o_vectors.p.eq(i.p),
            self.o_attention.p.eq(i.p),
            self.o_vectors.valid.eq(i.valid & route.valid & ~route.p.attend),
            self.o_attention.valid.eq(i.valid & route.valid & route.p.attend),
            i.ready.eq(route.valid & Mux(route.p.attend, self.o_attention.ready, self.o_vectors.ready)),
            route.ready.eq(i.valid & i.ready & is_last),
        ]
        return m

    def _count(self, m, tile_bits):
        """Whether the beat at hand is its operator's last."""
        i, route, groups = self.i, self.i_routes, self.config.groups
        beat, is_last = Signal(CHANNEL_TILES_WIDTH + tile_bits), Signal()
        if self.config.sets == 1:
            m.d.comb += is_last.eq(beat + 1 == route.p.tiles << tile_bits)
            with m.If(i.valid & i.ready):
                m.d.sync += beat.eq(Mux(is_last, 0, beat + 1))
            return is_last
        # A pass of all groups gives its results for a set, then for the next.
        before, left = Signal(CHANNEL_TILES_WIDTH), Signal(CHANNEL_TILES_WIDTH)  # tiles of earlier passes; the others
        which, ends_set, ends_pass, ends = Signal.like(self.set), Signal(), Signal(), Signal()
        m.d.comb += [
            left.eq(route.p.tiles - before),
            ends.eq(left <= groups),
            ends_set.eq(beat + 1 == Mux(ends, left, groups) << tile_bits),
            ends_pass.eq(ends_set & (which == route.p.more_sets)),
            is_last.eq(ends_pass & ends),
            self.set.eq(which),
            self.dealt.eq(route.p.more_sets != 0),
        ]
        with m.If(i.valid & i.ready):
            m.d.sync += beat.eq(Mux(ends_set, 0, beat + 1))
            with m.If(ends_set):
                m.d.sync += which.eq(Mux(ends_pass, 0, which + 1))
            with m.If(ends_pass):
                m.d.sync += before.eq(Mux(is_last, 0, before + groups))
        return is_last
