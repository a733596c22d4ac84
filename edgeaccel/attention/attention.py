"""Attention beside the array: what it is told, and what is done between its passes.

i_attends -> UnitWalk -> PassIssue -> o_operators, o_requests (the array and its ports)
                             |
i_results -> ResultRouter ---+-> ScorePath -> o_loads (weights, into the activation buffer)
                             |      ^ scales of the values, from m_axi
                             `-> ValueAccumulator -> o
"""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.command import COMMAND_NUMBER_WIDTH, AttentionErrorCode, attend
from edgeaccel.attention.passes import PassIssue
from edgeaccel.attention.route import ResultRouter
from edgeaccel.attention.scores import ScorePath
from edgeaccel.attention.table import lookup_signature
from edgeaccel.attention.values import ValueAccumulator
from edgeaccel.attention.walk import UnitWalk
from edgeaccel.cache import CACHE_FORMATS, MAX_HEAD_DIM, group_sets
from edgeaccel.memory.streamer import TileStreamer
from edgeaccel.systolic.beat import result_beat
from edgeaccel.systolic.commands import port_request
from edgeaccel.systolic.feed import activation_load
from edgeaccel.systolic.operator import operator

__all__ = ["Attention", "weight_places"]

SCALE_WORDS = 128  # beats of scales that wait


def weight_places(config, lookahead=None):
    """Blocks of weights that find room at the end of the activation buffer; `lookahead` as for `Attention`.

    Raises
    ------
    ValueError
        If `lookahead` is less than 1.
    """
    _, sets = group_sets(config)
    lookahead = max(6, 3 * sets) if lookahead is None else lookahead
    if lookahead < 1:
        raise ValueError(f"lookahead must be at least 1 unit, not {lookahead!r}")
    return lookahead + PassIssue.SPARE_PLACES


class Attention(wiring.Component):
    """Attention of queries over a paged, quantised cache, in one pass, by an array that works for others too.

    Keys times queries are scores, scores become weights at once, weights times values are summed up: nothing goes to
    memory in between. While the weights of a unit (a chunk of positions of a head) are made, the array works on the
    keys of the next `lookahead` units and on the values of those before. Equals `edgeaccel.golden.attention.attend`.

    Parameters
    ----------
    config : Config
        `activations` "fp32", `vector_lanes` of 4 to 64, `block` a power of two.
    slots : int
        Running sums: heads times batches of queries of a command.
    entries : int
        Of the page table.
    lookahead : int
        Units whose keys come before the values of the first of them; by default three for each set of groups, and at
        least 6, as short heads need.

    Members
    -------
    i_attends : stream of `attend`
    i_results : stream of `result_beat`
        Of the passes of `o_operators`, in order.
    o_operators : stream of `operator`
        Those that wait are of values.
    o_requests : stream of `port_request`
    o_loads : stream of `activation_load`
    o : stream of {elements: FP32 codes x lanes x rows, keep: a bit a lane, last: 1, slot}
        A vector for each head and batch, in order of slots.
    m_axi : axi.Signature, read channels
        For the values' scales.
    lookup : `lookup_signature`
        Of the page table.
    operators_end, requests_end : out
        The operator, or the request, that is offered is the last of its attend.
    read : in
        High for a cycle when an operator of values has read its inputs.
    appended : in
        A cycle high is an event more that attends may wait for.
    clear : in
        A pulse ends everything; `clearing` is high until it has.
    done : out
        High for a cycle when the last vector of an attend is taken.
    failed, code, command : out
        Something is wrong, what, and with which attend; nothing new is begun. Of bad scales, and of pages that are
        freed in use, the first attend that is not done.
    ring : int
        Word of the buffer from which on it holds weights.
    domains : tuple of str

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the configuration does not fit.
    """

    def __init__(self, config, *, slots=32, entries=1024, lookahead=None):
        if config.vector_lanes not in (4, 8, 16, 32, 64):
            raise ValueError(f"vector_lanes must be 4 to 64 for attention, not {config.vector_lanes}")
        if not any(name in CACHE_FORMATS for name in config.formats):
            raise ValueError(f"formats must have one of {', '.join(CACHE_FORMATS)}, not just {config.formats}")
        self.config, self.slots = config, slots
        places = weight_places(config, lookahead)
        self.ring = config.buffer_words - places * config.block // config.vector_lanes
        if self.ring <= 0:
            raise ValueError(
                f"buffer_inputs must be more than {places * config.block} for the weights of {places} blocks of"
                f" {config.block}, not {config.buffer_inputs}"
            )
        self.streamer = TileStreamer(
            data_width=config.port_data_width,
            word_width=16 * config.vector_lanes,
            buffer_words=max(SCALE_WORDS, 16 * config.port_data_width // (16 * config.vector_lanes)),
            outstanding=8,
            n_events=1,
            formats=config.formats,
            port_domain="sync" if config.port_mhz == config.core_mhz else "port",
        )
        self.domains = self.streamer.domains
        self.walk = UnitWalk(config, slots=slots, entries=entries, end=self.ring)
        self.passes = PassIssue(
            config,
            slots=slots,
            lookahead=places - PassIssue.SPARE_PLACES,
            ring=self.ring,
            scale_commands=self.streamer.i_commands.p.shape(),
        )
        self.scores = ScorePath(config, slots=slots)
        self.values = ValueAccumulator(config, slots=slots, max_head_dim=MAX_HEAD_DIM, ahead=places, tag_width=1)
        vector = {name: field.shape for name, field in self.values.o.p.shape() if name != "tag"}
        super().__init__(
            {
                "i_attends": In(stream.Signature(attend(config))),
                "i_results": In(stream.Signature(result_beat(config))),
                "o_operators": Out(stream.Signature(operator(config))),
                "o_requests": Out(stream.Signature(port_request(config))),
                "o_loads": Out(stream.Signature(activation_load(config))),
                "o": Out(stream.Signature(data.StructLayout(vector))),
                "m_axi": self.streamer.signature.members["m_axi"],
                "lookup": Out(lookup_signature(entries)),
                "operators_end": Out(1),
                "requests_end": Out(1),
                "read": In(1),
                "appended": In(1),
                "clear": In(1),
                "clearing": Out(1),
                "done": Out(1),
                "failed": Out(1),
                "code": Out(AttentionErrorCode),
                "command": Out(COMMAND_NUMBER_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        streamer, walk, passes = self.streamer, self.walk, self.passes
        scores, values, router = self.scores, self.values, ResultRouter(self.config)
        clear = Signal()
        m.submodules.streamer = streamer
        parts = {"walk": walk, "passes": passes, "router": router, "scores": scores, "values": values}
        for name, part in parts.items():
            m.submodules[name] = ResetInserter(clear)(part)
        m.d.comb += [
            clear.eq(self.clear | streamer.clearing),
            streamer.clear.eq(self.clear),
            self.clearing.eq(streamer.clearing),
            scores.clear.eq(clear),
            values.clear.eq(clear),
            passes.more.eq(walk.more),
            passes.read.eq(self.read),
            self.operators_end.eq(passes.operators_end),
            self.requests_end.eq(passes.requests_end),
            walk.in_flight.eq(passes.in_flight),
            walk.appended.eq(self.appended),
            *(self.o.p[name].eq(values.o.p[name]) for name in self.o.p.shape().members),
            self.o.valid.eq(values.o.valid),
            values.o.ready.eq(self.o.ready),
            self.done.eq(self.o.valid & self.o.ready & values.o.p.last & values.o.p.tag),
            self.failed.eq(walk.failed | streamer.error.valid),
            self.code.eq(Mux(streamer.error.valid, AttentionErrorCode.SCALES, walk.code)),
            self.command.eq(walk.command),
        ]
        n_done = Signal(COMMAND_NUMBER_WIDTH)
        with m.If(clear):
            m.d.sync += n_done.eq(0)
        with m.Elif(~self.failed):
            m.d.sync += n_done.eq(n_done + self.done)
        with m.If(streamer.error.valid | (walk.code == AttentionErrorCode.FREED)):
            m.d.comb += self.command.eq(n_done)
        wiring.connect(m, wiring.flipped(self.i_attends), walk.i)
        wiring.connect(m, walk.lookup, wiring.flipped(self.lookup))
        wiring.connect(m, walk.o, passes.i)
        wiring.connect(m, passes.o_operators, wiring.flipped(self.o_operators))
        wiring.connect(m, passes.o_requests, wiring.flipped(self.o_requests))
        wiring.connect(m, passes.o_scales, streamer.i_commands)
        wiring.connect(m, passes.o_routes, router.i_routes)
        wiring.connect(m, passes.o_scores, scores.i_steps)
        wiring.connect(m, passes.o_values, values.i_steps)
        wiring.connect(m, wiring.flipped(self.i_results), router.i)
        wiring.connect(m, router.o_scores, scores.i)
        wiring.connect(m, router.o_values, values.i)
        wiring.connect(m, scores.o, wiring.flipped(self.o_loads))
        wiring.connect(m, scores.o_chunks, values.i_chunks)
        wiring.connect(m, streamer.m_axi, wiring.flipped(self.m_axi))
        m.d.comb += [
            scores.i_scales.p.eq(streamer.o_words.p),
            scores.i_scales.valid.eq(streamer.o_words.valid),
            streamer.o_words.ready.eq(scores.i_scales.ready),
        ]
        return m
