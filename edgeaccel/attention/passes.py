"""Passes: what the array, its ports and the units behind it are told for the keys and for the values of each unit.

units -> passes of keys ----------------------------+-> Fork -> operators, requests, routes, scores, scales, values
     `-> queue of `lookahead` -> passes of values --+
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.attention.command import BYTE_ADDRESS_WIDTH, WORDS_WIDTH
from edgeaccel.attention.scores import score_step
from edgeaccel.attention.walk import unit
from edgeaccel.cache import MAX_HEAD_DIM, group_sets
from edgeaccel.fork import Fork
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.systolic.commands import WORD_ADDRESS_WIDTH, port_request
from edgeaccel.systolic.operator import operator

__all__ = ["PassIssue", "RequestWalk", "result_route", "unit_pass", "value_step"]


def _channel_tiles(config):
    """Most tiles of output channels of a pass."""
    return max(config.block, MAX_HEAD_DIM) // config.tile_channels


def unit_pass(config, slots):
    """A pass over the tiles of keys or of values of a unit.

    address, inputs
        Of the inputs in the buffer.
    group, n_groups, tiles
        The groups that the tiles of channels go round.
    words, tile_words
        Of the port's memory, where the tiles begin, and how many a tile has.
    """
    return data.StructLayout(
        {
            "slot": range(slots),
            "first": 1,
            "last": 1,
            "ends": 1,
            "address": range(config.buffer_words),
            "inputs": range(max(MAX_HEAD_DIM, config.block) + 1),
            "channels": range(max(MAX_HEAD_DIM, config.block) + 1),
            "tiles": range(_channel_tiles(config) + 1),
            "group": range(config.groups),
            "n_groups": range(config.groups + 1),
            "words": WORD_ADDRESS_WIDTH,
            "tile_words": WORDS_WIDTH,
            "format": FormatCode,
        }
    )


def result_route(config):
    """Whose the next results of the array are, and how many tiles of channels."""
    return data.StructLayout({"is_values": 1, "tiles": range(_channel_tiles(config) + 1)})


def value_step(config, slots):
    """What `edgeaccel.attention.values.ValueAccumulator` needs to know of a unit; the tag ends a command."""
    return data.StructLayout(
        {"slot": range(slots), "first": 1, "last": 1, "channels": range(MAX_HEAD_DIM + 1), "tag": 1}
    )


class PassIssue(wiring.Component):
    """Turns units into passes: keys first, and the values `lookahead` units later, when their weights are there.

    The weights of a unit's values have a place in the buffer from the pass of its keys until that of its values has
    read them. Equals `edgeaccel.golden.units.passes`.

    Parameters
    ----------
    config : Config
    slots : int
    lookahead : int
        Units whose keys come before the values of the first of them.
    ring : int
        Word of the buffer from which on the weights have their places.
    scale_commands : layout
        Of the streamer of the values' scales.

    Members
    -------
    i : stream of `unit`
    more : in
        Units follow soon: values can wait until there are `lookahead` of them.
    read : in
        High for a cycle when a pass of values has read its inputs.
    in_flight : out
        Units whose values are not read yet.
    operators_end, requests_end : out
        The operator, or the request, that is offered is the last of its command.
    o_operators : stream of `operator`
    o_requests : stream of `port_request`
    o_routes : stream of `result_route`
    o_scores : stream of `score_step`
    o_scales : stream of commands for the scales' streamer
    o_values : stream of `value_step`
    places : int
        For weights in the buffer, of a block each: `lookahead + SPARE_PLACES`.
    """

    SPARE_PLACES = 4  # for values that are not read yet

    def __init__(self, config, *, slots, lookahead, ring, scale_commands):
        self.config, self.slots, self.lookahead, self._ring = config, slots, lookahead, ring
        self.places = lookahead + self.SPARE_PLACES
        self._scale_commands = scale_commands
        super().__init__(
            {
                "i": In(stream.Signature(unit(config, slots))),
                "more": In(1),
                "read": In(1),
                "in_flight": Out(1),
                "operators_end": Out(1),
                "requests_end": Out(1),
                "o_operators": Out(stream.Signature(operator(config))),
                "o_requests": Out(stream.Signature(port_request(config))),
                "o_routes": Out(stream.Signature(result_route(config))),
                "o_scores": Out(stream.Signature(score_step(config, slots))),
                "o_scales": Out(stream.Signature(scale_commands)),
                "o_values": Out(stream.Signature(value_step(config, slots))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, i = self.config, self.i
        a_pass = unit_pass(config, self.slots)
        m.submodules.kept = kept = Queue(a_pass, self.lookahead)
        keys_only = {"scales": BYTE_ADDRESS_WIDTH, "weights": range(config.buffer_words), "factor": FP32.width}
        keys_only |= {name: unit(config, self.slots)[name].shape for name in ("lo", "hi")}
        m.submodules.fork = fork = Fork(
            data.StructLayout({"is_values": 1, "of": a_pass, "of_keys": data.StructLayout(keys_only)}), 6
        )

        # Which pass comes next.
        n_kept, n_places = Signal(range(self.lookahead + 1)), Signal(range(self.places + 1))
        is_full = Signal()
        is_values, decided, holds = Signal(), Signal(), Signal()
        offers_keys = i.valid & ~is_full & (n_places != self.places)
        offers_values = kept.o.valid & (is_full | ~(self.more | i.valid))
        m.d.comb += [
            is_full.eq(n_kept == self.lookahead),
            is_values.eq(Mux(holds, decided, offers_values)),
            fork.i.valid.eq(holds | offers_values | offers_keys),
            fork.i.p.is_values.eq(is_values),
        ]
        # A pass that is offered stays, whatever comes meanwhile.
        m.d.sync += [holds.eq(fork.i.valid & ~fork.i.ready), decided.eq(is_values)]
        takes_keys, takes_values = Signal(), Signal()
        m.d.comb += [
            takes_keys.eq(fork.i.valid & fork.i.ready & ~is_values),
            takes_values.eq(fork.i.valid & fork.i.ready & is_values),
            i.ready.eq(takes_keys),
            kept.i.valid.eq(takes_keys),
            kept.o.ready.eq(takes_values),
            self.in_flight.eq(n_places != 0),
        ]
        m.d.sync += [n_kept.eq(n_kept + takes_keys - takes_values), n_places.eq(n_places + takes_keys - self.read)]

        block_words = config.block // config.vector_lanes
        place = Signal(range(self.places))
        weights = Signal(range(config.buffer_words), init=self._ring)
        with m.If(takes_keys):
            ends = place == self.places - 1
            m.d.sync += [place.eq(Mux(ends, 0, place + 1)), weights.eq(Mux(ends, self._ring, weights + block_words))]

        self._describe(m, weights, kept.i.p, fork.i.p.of, kept.o.p, is_values)
        for name in ("scales", "factor", "lo", "hi"):
            m.d.comb += fork.i.p.of_keys[name].eq(i.p[name])
        m.d.comb += fork.i.p.of_keys.weights.eq(weights)
        values_only, keys_alone = is_values, ~is_values
        m.d.comb += fork.wanted.eq(Cat(1, 1, 1, keys_alone, keys_alone, values_only))
        self._give(m, fork.o)
        return m

    def _describe(self, m, weights, values, chosen, kept, is_values):
        """The passes of the offered unit: that of its keys, and that of its values, which waits in the queue."""
        config, i = self.config, self.i.p
        of_set, _ = group_sets(config)
        spread = of_set >> i.share_bits
        keys = Signal(unit_pass(config, self.slots))
        for each in (keys, values):
            m.d.comb += [each[name].eq(i[name]) for name in ("slot", "first", "last", "ends", "format")]
        m.d.comb += [
            keys.address.eq(i.address),
            keys.inputs.eq(i.inputs),
            keys.channels.eq(i.positions),
            keys.tiles.eq(i.tiles),
            keys.group.eq(i.group),
            keys.n_groups.eq(of_set),
            keys.words.eq(i["keys"]),
            keys.tile_words.eq(i.k_words),
            values.address.eq(weights),
            values.inputs.eq(i.positions),
            values.channels.eq(i.inputs),
            values.tiles.eq((i.inputs + config.tile_channels - 1) >> exact_log2(config.tile_channels)),
            values.group.eq(i.group + i.turn),
            values.n_groups.eq(spread),
            values.words.eq(i["values"]),
            values.tile_words.eq(i.v_words),
            chosen.eq(Mux(is_values, kept, keys)),
        ]

    def _give(self, m, forks):
        """From the fork to the streams, each through a queue that holds what is under way."""
        config = self.config
        depth = 2 * (self.lookahead + 4)
        to_operators, to_requests, to_routes, to_scores, to_scales, to_values = forks
        m.submodules.requests = requests = RequestWalk(config, self.slots)
        m.d.comb += [
            requests.i.valid.eq(to_requests.valid),
            requests.i.p.eq(to_requests.p.of),
            requests.ends.eq(to_requests.p.is_values & to_requests.p.of.ends),
            to_requests.ready.eq(requests.i.ready),
            self.requests_end.eq(requests.last),
        ]
        wiring.connect(m, requests.o, wiring.flipped(self.o_requests))

        def give(name, fork, values):
            stream_out = getattr(self, f"o_{name}")
            m.submodules[name] = queue = Queue(stream_out.p.shape(), depth)
            m.d.comb += [queue.i.valid.eq(fork.valid), fork.ready.eq(queue.i.ready)]
            m.d.comb += [queue.i.p[field].eq(value) for field, value in values.items()]
            wiring.connect(m, queue.o, wiring.flipped(stream_out))

        of = to_operators.p.of
        give(
            "operators",
            to_operators,
            {name: of[name] for name in ("address", "inputs", "n_groups", "format")}
            | {
                "channel_tiles": of.tiles,
                "first_group": of.group,
                "wait": to_operators.p.is_values,
                "whole": to_operators.p.is_values,
            },
        )
        # Beside the queue of operators, and always as full.
        m.submodules.operator_ends = ends = Queue(1, depth)
        m.d.comb += [
            ends.i.p.eq(to_operators.p.is_values & of.ends),
            ends.i.valid.eq(to_operators.valid),
            ends.o.ready.eq(self.o_operators.ready),
            self.operators_end.eq(ends.o.p),
        ]
        give("routes", to_routes, {"is_values": to_routes.p.is_values, "tiles": to_routes.p.of.tiles})
        of, of_keys = to_scores.p.of, to_scores.p.of_keys
        beats = of.tiles << exact_log2(config.tile_channels // config.vector_lanes)
        give(
            "scores",
            to_scores,
            {name: of[name] for name in ("slot", "first", "last")}
            | {name: of_keys[name] for name in ("factor", "lo", "hi")}
            | {"beats": beats, "address": of_keys.weights},
        )
        give("scales", to_scales, {"address": of_keys.scales, "words": beats, "format": of.format})
        of = to_values.p.of
        give("values", to_values, {name: of[name] for name in ("slot", "first", "last", "channels")} | {"tag": of.ends})


class RequestWalk(wiring.Component):
    """A pass to requests: one for each row of tiles, of which each group has one at most.

    Parameters
    ----------
    config : Config
    slots : int

    Members
    -------
    i : stream of `unit_pass`
    ends : in
        The pass is the last of its command.
    o : stream of `port_request`
    last : out
        The request is the last of such a pass.
    """

    def __init__(self, config, slots):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(unit_pass(config, slots))),
                "ends": In(1),
                "o": Out(stream.Signature(port_request(config))),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, o = self.i.p, self.o.p
        done = Signal.like(i.tiles)
        offset = Signal(WORDS_WIDTH)
        left, is_last = Signal.like(i.tiles), Signal()
        m.d.comb += [
            left.eq(i.tiles - done),
            is_last.eq(left <= i.n_groups),
            o.address.eq(i.words + offset),
            o.words.eq(i.tile_words),
            o.format.eq(i.format),
            o.skip.eq(i.group),
            o.take.eq(Mux(is_last, left, i.n_groups)),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & is_last),
            self.last.eq(self.ends & is_last),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                done.eq(Mux(is_last, 0, done + i.n_groups)),
                offset.eq(Mux(is_last, 0, offset + i.tile_words)),
            ]
        return m
