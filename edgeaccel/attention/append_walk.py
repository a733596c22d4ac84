"""Walk over the heads of a command: what is written, beat by beat."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.append_command import MOST_HEADS, AppendKind
from edgeaccel.attention.append_form import StepKind, append_step
from edgeaccel.attention.append_plan import append_plan
from edgeaccel.pe.digit import FormatCode

__all__ = ["AppendWalk"]


class _Phase(enum.Enum, shape=2):
    """Where in a head the walk is."""

    SCALES = 0  # of a tile
    CODES = 1
    TABLE = 2  # of V: the scales, after the last tile


class AppendWalk(wiring.Component):
    """One step a cycle, without gaps between tiles and heads. Equals `edgeaccel.golden.append.head_steps`.

    K, for each input tile: the scales of the positions, then all codes in the order of memory. They follow each other
    without gaps: the words of a channel, then of the next one.

    V, for each tile: scales of 1, with the first positions of a chunk; then of each dimension (int4: of two) the codes
    of all positions. At last the positions' scales, into their table.

    Parameters
    ----------
    sizes : AppendSizes

    Members
    -------
    i : stream of `append_plan`
    o : stream of `append_step`
    is_full : in
        The head's codes are there.
    free : out
        They are read for the last time.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        super().__init__(
            {
                "i": In(stream.Signature(append_plan(sizes))),
                "o": Out(stream.Signature(append_step(sizes))),
                "is_full": In(1),
                "free": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, step = self.sizes, self.o.p
        plan = Signal(append_plan(sizes), reset_less=True)
        is_running, goes = Signal(), Signal()
        phase = Signal(_Phase)
        heads_left = Signal(range(MOST_HEADS))
        offset = Signal(sizes.offset_width, reset_less=True)
        is_k = plan.kind == AppendKind.K
        opening, coding, in_table = (phase == each for each in _Phase)
        k, v = self._k(m, plan, goes & is_k & coding), self._v(m, plan, goes & ~is_k, opening, coding)
        ends_tile, ends_codes, ends_head = Signal(), Signal(), Signal()
        m.d.comb += [
            self.o.valid.eq(is_running & self.is_full),
            goes.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(~is_running),
            self.free.eq(goes & ends_head),
            ends_tile.eq(coding & Mux(is_k, k.ends_tile, v.ends_tile)),
            ends_codes.eq(ends_tile & Mux(is_k, k.is_last_tile, v.is_last)),
            ends_head.eq(in_table | (ends_codes & is_k)),
        ]
        m.d.comb += self._step(plan, phase, k, v)
        m.d.comb += [
            step.word.eq(self._word(m, plan, goes & ends_tile, goes & ends_head, in_table)),
            step.offset.eq(offset),
            step.last.eq(ends_head & (heads_left == 0)),
        ]

        with m.If(goes):
            with m.If(opening & (is_k | v.ends_ones)):
                m.d.sync += phase.eq(_Phase.CODES)
                m.d.sync += offset.eq(Mux(is_k & k.is_last_tile, plan.last_offset, plan.whole_offset))
            with m.Elif(ends_codes & ~is_k):
                m.d.sync += [phase.eq(_Phase.TABLE), offset.eq(plan.table_offset)]
            with m.Elif(ends_tile | in_table):
                m.d.sync += _begin(plan, phase, offset)
            with m.Elif(coding):
                m.d.sync += offset.eq(offset + Mux(is_k, k.ends_word, v.words))
            m.d.sync += heads_left.eq(heads_left - ends_head)
            m.d.sync += is_running.eq(~step.last)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [plan.eq(self.i.p), is_running.eq(1), heads_left.eq(self.i.p.heads - 1)]
            m.d.sync += _begin(self.i.p, phase, offset)
        return m

    def _step(self, plan, phase, k, v):
        """The step, but for its address."""
        sizes, step = self.sizes, self.o.p
        is_k, opening, coding = plan.kind == AppendKind.K, phase == _Phase.SCALES, phase == _Phase.CODES
        split = sizes.slot_bits - sizes.row_bits - sizes.span_bits
        kind = Mux(
            coding,
            Mux(is_k, StepKind.K_CODES, StepKind.V_CODES),
            Mux(opening & ~is_k, StepKind.ONES, StepKind.SCALES),
        )
        return [
            step.kind.eq(kind),
            step.format.eq(plan.format),
            step.span.eq(Mux(coding & is_k, k.span, Mux(opening & ~is_k, v.span, plan.window[split:]))),
            step.window.eq(plan.window[:split]),
            step.half.eq(Mux(is_k, k.half, plan.half)),
            step.slots.eq(plan.slots),
            step.slot.eq(k.slot),
            step.column.eq(k.column),
            step.address.eq(Mux(is_k, k.address, v.address)),
            step.lane.eq(v.lane),
            step.is_padding.eq(k.address >= plan.groups),
            step.emits.eq(~(coding & is_k) | k.ends_span),
        ]

    def _k(self, m, plan, goes):
        """Places of K: for each channel its words, of each word its spans, columns, and halves if they differ."""
        sizes = self.sizes
        is_int4, is_int16 = plan.format == FormatCode.INT4, plan.format == FormatCode.INT16
        place = data.StructLayout({"half": 1, "column": sizes.column_bits, "span": sizes.span_bits})
        place, word = Signal(place, reset_less=True), Signal(range(sizes.max_words), reset_less=True)
        slot = Signal(sizes.row_bits, reset_less=True)
        bits = sizes.channel_word_bits
        of_tile = Signal.like(word)  # which bits of a word's number count within a tile
        ends_half, ends_word, ends_channel, ends_tile, is_last_tile = (Signal() for _ in range(5))
        m.d.comb += [
            of_tile.eq(sizes.by_format(plan.format, {name: (1 << each) - 1 for name, each in bits.items()})),
            ends_half.eq(place.half | is_int16),
            ends_word.eq(ends_half & place.column.all() & place.span.all()),
            ends_channel.eq(ends_word & ((word == plan.last_word) | ((word & of_tile) == of_tile))),
            ends_tile.eq(ends_channel & (slot == plan.last_slot)),
            is_last_tile.eq(((word ^ plan.last_word) & ~of_tile) == 0),
        ]
        # Whole bits of the address: elements of a word, in int8 and int4 first those of its low bytes.
        within = Cat(place.column, place.span)
        with m.If(goes):
            m.d.sync += place.eq(Cat(place) + Mux(is_int16, 2, 1))
            with m.If(ends_tile):
                m.d.sync += [word.eq(Mux(is_last_tile, 0, word + 1)), slot.eq(plan.first_slot)]
            with m.Elif(ends_channel):
                m.d.sync += [word.eq(word & ~of_tile), slot.eq(slot + Mux(is_int4, 2, 1))]
            with m.Else():
                m.d.sync += word.eq(word + ends_word)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [place.eq(0), word.eq(0), slot.eq(self.i.p.first_slot)]
        return SimpleNamespace(
            span=place.span,
            column=place.column,
            half=place.half,
            slot=slot,
            address=Cat(within, Mux(is_int16, word, Cat(place.half, word))),
            ends_span=ends_half & place.column.all(),
            ends_word=ends_word,
            ends_tile=ends_tile,
            is_last_tile=is_last_tile,
        )

    def _v(self, m, plan, goes, opening, coding):
        """Places of V: spans of scales, then dimensions."""
        sizes = self.sizes
        is_int4 = plan.format == FormatCode.INT4
        dim = Signal(range(sizes.max_head_dim), reset_less=True)
        span = Signal(sizes.span_bits, reset_less=True)
        last = (dim | is_int4)[: sizes.slot_bits].all()
        is_last = Signal()
        m.d.comb += is_last.eq(dim == plan.last_dim)
        with m.If(goes & opening):
            m.d.sync += span.eq(span + 1)
        with m.If(goes & coding):
            m.d.sync += dim.eq(Mux(is_last, 0, dim + Mux(is_int4, 2, 1)))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [span.eq(0), dim.eq(0)]
        words = {name: 1 << bits for name, bits in sizes.channel_word_bits.items()}
        return SimpleNamespace(
            span=span,
            address=dim[sizes.lane_bits :],
            lane=dim[: sizes.lane_bits],
            words=sizes.by_format(plan.format, words),
            ends_ones=span.all(),
            ends_tile=last | is_last,
            is_last=is_last,
        )

    def _word(self, m, plan, ends_tile, ends_head, in_table):
        """Of a tile's first word, or of the table, the number among the words of all memory."""
        sizes = self.sizes
        is_k = plan.kind == AppendKind.K
        base, head_base = Signal(sizes.local_bits, reset_less=True), Signal(sizes.local_bits, reset_less=True)
        unit = Signal(sizes.set_bits + 16, reset_less=True)  # number of the set, then within the set
        turn = Signal(sizes.set_group_bits, reset_less=True)  # of V tiles, through the groups that they go round
        table = Signal(sizes.address_bits, reset_less=True)
        next_unit, next_base = Signal.like(unit), Signal.like(base)
        share = (1 << plan.share_bits) - 1
        spread_bits = Signal(range(sizes.set_group_bits + 1))
        spread = Signal(sizes.set_group_bits)  # ones below the groups that they go round
        moves_on, wraps = Signal(), Signal()
        local = unit[sizes.set_bits :]
        next_local = next_unit[sizes.set_bits :]
        moved = Mux(is_k, sizes.by_format(plan.format, sizes.tile_words), Mux(wraps, plan.v_words, 0))
        m.d.comb += [
            next_unit.eq(unit + 1),
            spread_bits.eq(sizes.set_group_bits - plan.share_bits),
            spread.eq(((1 << sizes.set_group_bits) - 1) >> plan.share_bits),
            wraps.eq(turn == spread),
            # Local units share their base with the next one if they only go to other groups of the set.
            moves_on.eq((next_local != local) & (is_k | ((next_local & share) == 0))),
            # Both sums at once, as it is known late which is wanted.
            next_base.eq(Mux(ends_head, head_base + Mux(moves_on, plan.stride, 0), base + moved)),
        ]
        with m.If(ends_tile | ends_head):
            m.d.sync += [base.eq(next_base), turn.eq(Mux(wraps | ends_head, 0, turn + 1))]
        with m.If(ends_head):
            m.d.sync += [head_base.eq(next_base), unit.eq(next_unit)]
            m.d.sync += table.eq(table + (1 << sizes.block_bits - sizes.slot_bits))
        with m.If(self.i.valid & self.i.ready):
            i = self.i.p
            m.d.sync += [base.eq(i.base), head_base.eq(i.base), unit.eq(Cat(i.set, i.local))]
            m.d.sync += [turn.eq(0), table.eq(i.table)]
        group = Mux(is_k, plan.group, ((local & share) << spread_bits)[: sizes.set_group_bits] | turn)
        return Mux(in_table, table, Cat(base, group, unit[: sizes.set_bits]))


def _begin(plan, phase, offset):
    """To the first step of a tile."""
    return [
        phase.eq(Mux(plan.opens, _Phase.SCALES, _Phase.CODES)),
        offset.eq(Mux(plan.opens, 0, plan.whole_offset)),
    ]
