"""Blocks between the byte lanes of the memory and those of the stream.

Both ways each beat is first rotated by the offset of its block; then a beat is made of two neighbours, lane by lane. So
there is one rotator of a beat's width, not a shifter of two.
"""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.block import BYTES_WIDTH, BlockErrorCode, block_beats
from edgeaccel.memory.lanes import choose, lanes_from, lanes_to, rotate

__all__ = ["BlockPacker", "BlockPlacer"]


class BlockPacker(wiring.Component):
    """Beats as they were read to beats that begin with the first byte of the block; bytes past its end are 0.

    A beat is taken each cycle, and gives one, but for the first or last of a block that lies in one beat more than it
    fills. A packed beat is offered two cycles after the beat that completes it was taken, or one if another one, which
    only completes it, was taken a cycle before.

    Parameters
    ----------
    widths : BlockWidths

    Members
    -------
    i : stream of BlockWidths.read_beats
    o : stream of block_beats(widths.beat_bytes)
    """

    def __init__(self, widths):
        self.widths = widths
        super().__init__(
            {
                "i": In(stream.Signature(widths.read_beats)),
                "o": Out(stream.Signature(block_beats(widths.beat_bytes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        n_lanes = self.widths.beat_bytes
        layout = data.StructLayout(
            {
                "data": self.widths.beat,  # rotated: the block's first byte in lane 0 of its first beat
                "rest": range(n_lanes),
                "last": 1,
                "spill": 1,  # nothing but the end of what the beat before has begun
                "own": n_lanes,  # lanes that do not need the next beat
            }
        )
        ahead, ahead_valid = Signal(layout, reset_less=True), Signal()
        held, held_valid = Signal(layout, reset_less=True), Signal()
        merged, used = Signal(self.widths.beat), Signal(n_lanes)
        is_full = Signal()
        move = Signal()
        i, o = self.i.payload, self.o.payload

        m.d.comb += [
            is_full.eq(held.own.all()),
            self.o.valid.eq(held_valid & (held.last | is_full | ahead_valid)),
            o.last.eq(held.last | (ahead.spill & ~is_full)),
            o.last_byte.eq(Mux(o.last, held.rest, n_lanes - 1)),
            merged.eq(choose(held.own, held.data, ahead.data)),
            used.eq(Mux(o.last, lanes_to(held.rest, n_lanes), Const((1 << n_lanes) - 1, n_lanes))),
            o.data.eq(choose(used, merged, Const(0, self.widths.beat))),
            move.eq(ahead_valid & (~held_valid | (self.o.valid & self.o.ready))),
            self.i.ready.eq(~ahead_valid | move),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += held_valid.eq(0)
        with m.If(move):
            m.d.sync += [held.eq(ahead), held_valid.eq(~ahead.spill)]
        with m.If(self.i.ready):
            m.d.sync += [
                ahead_valid.eq(self.i.valid),
                ahead.data.eq(rotate(m, i.data, i.offset)),
                ahead.rest.eq(i.rest),
                ahead.last.eq(i.last),
                ahead.spill.eq(i.last & (i.offset + i.rest >= n_lanes)),
                ahead.own.eq(lanes_to((~i.offset)[: len(i.offset)], n_lanes)),
            ]
        return m


class BlockPlacer(wiring.Component):
    """Packed beats to beats as they are written, each from its address on.

    A beat is taken each cycle and offered in the next, but for the last of a block that lies in one beat more than it
    fills: that takes two. A beat that is the last of its block where it should not be, or not where it should, is taken
    and becomes a refusal, as a refused command does; nothing follows a refusal until reset.

    Parameters
    ----------
    widths : BlockWidths

    Members
    -------
    i_spans : stream of BlockWidths.spans
    i : stream of block_beats(widths.beat_bytes)
    o : stream of BlockWidths.placed_beats
    """

    def __init__(self, widths):
        self.widths = widths
        super().__init__(
            {
                "i_spans": In(stream.Signature(widths.spans)),
                "i": In(stream.Signature(block_beats(widths.beat_bytes))),
                "o": Out(stream.Signature(widths.placed_beats)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        n_lanes, lane_width = self.widths.beat_bytes, self.widths.lane_width
        layout = data.StructLayout(
            {
                "data": self.widths.beat,  # rotated: lane 0 has the block's first byte where the block has its offset
                "offset": lane_width,
                "last_lane": lane_width,  # of the block
                "first": 1,
                "last": 1,
                "spill": 1,  # the block ends in a beat more
                "refused": 1,
            }
        )
        block = Signal(self.widths.spans, reset_less=True)
        active, is_first, stopped = Signal(), Signal(reset_less=True), Signal()
        bytes_left = Signal(BYTES_WIDTH, reset_less=True)  # less one
        ahead, ahead_valid = Signal(layout, reset_less=True), Signal()
        origin = Signal(self.widths.spans, reset_less=True)
        before = Signal(self.widths.beat, reset_less=True)
        spilled, end_lane = Signal(), Signal(lane_width, reset_less=True)
        own = Signal(n_lanes)
        offset = block.address[:lane_width]
        is_last, take, refuse, move, room = Signal(), Signal(), Signal(), Signal(), Signal()
        last_lane = Signal(lane_width + 1)
        i, o = self.i.payload, self.o.payload

        m.d.comb += [
            room.eq(~ahead_valid | (move & ~spilled)),
            is_last.eq(bytes_left[lane_width:] == 0),
            refuse.eq(block.refused | (i.last != is_last) | (is_last & (i.last_byte != bytes_left[:lane_width]))),
            take.eq(active & room & (self.i.valid | block.refused)),
            self.i.ready.eq(active & room & ~block.refused),
            self.i_spans.ready.eq(~stopped & (~active | (take & is_last))),
            last_lane.eq(offset + bytes_left[:lane_width]),
        ]
        with m.If(take):
            m.d.sync += [bytes_left.eq(bytes_left - n_lanes), is_first.eq(0)]
        with m.If(self.i_spans.ready):
            m.d.sync += [
                active.eq(self.i_spans.valid),
                block.eq(self.i_spans.payload),
                bytes_left.eq(self.i_spans.payload.bytes - 1),
                is_first.eq(1),
            ]
        with m.If(take & refuse):
            m.d.sync += [active.eq(0), stopped.eq(1)]

        with m.If(room):
            m.d.sync += [
                ahead_valid.eq(take),
                ahead.data.eq(rotate(m, i.data.as_value(), (-offset)[:lane_width])),
                ahead.offset.eq(offset),
                ahead.last_lane.eq(last_lane),
                ahead.first.eq(is_first),
                ahead.last.eq(is_last),
                ahead.spill.eq(is_last & last_lane[-1] & ~refuse),
                ahead.refused.eq(refuse),
                origin.address.eq(block.address),
                origin.command.eq(block.command),
                origin.code.eq(Mux(block.refused, block.code, BlockErrorCode.LENGTH)),
            ]

        m.d.comb += [
            move.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(spilled | ahead_valid),
            own.eq(lanes_from(ahead.offset, n_lanes) & ~spilled.replicate(n_lanes)),
            o.beat.data.eq(choose(own, ahead.data, before)),
            o.beat.first_lane.eq(Mux(o.first, ahead.offset, 0)),
            o.beat.last_lane.eq(Mux(o.beat.last, Mux(spilled, end_lane, ahead.last_lane), n_lanes - 1)),
            o.beat.last.eq(spilled | (ahead.last & ~ahead.spill)),
            o.first.eq(ahead.first & ~spilled),
            o.refused.eq(ahead.refused & ~spilled),
            o.address.eq(origin.address),
            o.command.eq(origin.command),
            o.code.eq(origin.code),
        ]
        with m.If(move):
            m.d.sync += spilled.eq(ahead.spill & ~spilled)
            with m.If(~spilled):
                m.d.sync += [before.eq(ahead.data), end_lane.eq(ahead.last_lane)]
        return m
