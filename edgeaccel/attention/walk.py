"""Unit walk: the units of an attend in order, and where the keys and values of each lie."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from edgeaccel.attention.command import (
    BYTE_ADDRESS_WIDTH,
    COMMAND_NUMBER_WIDTH,
    HEADS_WIDTH,
    POSITION_WIDTH,
    WORDS_WIDTH,
    AttentionErrorCode,
    attend,
)
from edgeaccel.attention.table import PRODUCT_CYCLES, UNIT_WIDTH, PageFinder, lookup_signature, product
from edgeaccel.cache import CACHE_FORMATS, MAX_HEAD_DIM, group_sets
from edgeaccel.memory.event import EventCounters
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.float import FP32
from edgeaccel.systolic.commands import WORD_ADDRESS_WIDTH

__all__ = ["UnitWalk", "unit"]


def unit(config, slots):
    """A chunk of a head for one batch of queries: all that its passes need to know.

    slot, first, last
        Of the running sums; the unit is the first of its slot, or the last.
    ends
        The unit is the last of its command.
    address
        Of the queries in the buffer.
    group
        The first group of its set.
    turn
        Groups of the set before the first that has values.
    keys, values
        Words of the port's memory where they begin.
    scales
        Byte where the values' scales begin.
    tiles, positions
        Tiles of keys, and positions, that any row sees or has before those that it sees.
    lo, hi
        Positions of the chunk that each row sees.
    """
    rows = data.ArrayLayout(range(config.block + 1), config.rows)
    return data.StructLayout(
        {
            "slot": range(slots),
            "first": 1,
            "last": 1,
            "ends": 1,
            "address": range(config.buffer_words),
            "group": range(config.groups),
            "turn": range(config.groups),
            "keys": WORD_ADDRESS_WIDTH,
            "values": WORD_ADDRESS_WIDTH,
            "scales": BYTE_ADDRESS_WIDTH,
            "tiles": range(config.block // config.tile_channels + 1),
            "positions": range(config.block + 1),
            "lo": rows,
            "hi": rows,
            "inputs": HEADS_WIDTH,
            "format": FormatCode,
            "k_words": WORDS_WIDTH,
            "v_words": WORDS_WIDTH,
            "share_bits": 2,
            "factor": FP32.width,
        }
    )


class UnitWalk(wiring.Component):
    """Goes over the chunks of positions that an attend sees, in each over the heads, in each over the batches.

    Chunks come first so that neighbouring units are of different slots and lie in different sets of groups: their
    passes run at the same time, and no set waits for the sums of its own last unit. Equals
    `edgeaccel.golden.units.units`, in cycles `unit_cycles`: a unit every 8 cycles, the next batch of a
    head in 1, and 12 more from chunk to chunk.

    Parameters
    ----------
    config : Config
    slots : int
        Running sums that the build keeps.
    entries : int
        Of the page table.
    end : int
        Words of the buffer from which on there are no queries.

    Members
    -------
    i : stream of `attend`
    o : stream of `unit`
    lookup : `lookup_signature`
    appended : in
        A cycle high is one event more of appends; up to 255 are counted.
    in_flight : in
        Units that were given are still worked on: their pages are in use. A command of another sequence waits for
        their end.
    more : out
        Units follow soon, without waiting for an event.
    failed : out
        High from the cycle in which something is wrong until reset; nothing is given any more.
    code, command : out
        What is wrong, and the number of the command.
    """

    def __init__(self, config, *, slots, entries, end):
        self.config, self.slots, self.entries, self._end = config, slots, entries, end
        super().__init__(
            {
                "i": In(stream.Signature(attend(config))),
                "o": Out(stream.Signature(unit(config, slots))),
                "lookup": Out(lookup_signature(entries)),
                "appended": In(1),
                "in_flight": In(1),
                "more": Out(1),
                "failed": Out(1),
                "code": Out(AttentionErrorCode),
                "command": Out(COMMAND_NUMBER_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, o = self.config, self.o.p
        of_set, sets = group_sets(config)
        block_bits, set_bits = exact_log2(config.block), exact_log2(sets)
        m.submodules.finder = finder = PageFinder(entries=self.entries, block=config.block)
        m.submodules.events = events = EventCounters(1)
        command = Signal(attend(config), reset_less=True)
        cache = command.cache

        # The positions that are seen, and the chunks that hold them.
        most, start, last_position = (Signal(POSITION_WIDTH + 1) for _ in range(3))
        chunk, first_chunk, last_chunk = (Signal(finder.chunk_width) for _ in range(3))
        m.d.comb += [
            most.eq(command.count + Mux(command.causal, command.rows - 1, 0)),
            start.eq(Mux((command.window != 0) & (command.count > command.window), command.count - command.window, 0)),
            last_position.eq(most - 1),
        ]
        self._bounds(m, command, chunk, most)

        busy, is_last = Signal(), Signal()
        head, batch = Signal(HEADS_WIDTH), Signal(HEADS_WIDTH)
        number = Signal(UNIT_WIDTH)  # of the unit in its page
        place = number[set_bits:]
        page, scales = Signal(WORD_ADDRESS_WIDTH, reset_less=True), Signal(BYTE_ADDRESS_WIDTH, reset_less=True)
        a, b = Signal(UNIT_WIDTH, reset_less=True), Signal(WORDS_WIDTH, reset_less=True)
        result = product(m, a, b, "offset")
        waited = Signal(range(PRODUCT_CYCLES))
        m.d.comb += [
            finder.i.p.cache.eq(cache),
            finder.i.p.chunk.eq(chunk),
            self.lookup.index.eq(finder.index),
            finder.entry.eq(self.lookup.entry),
            self.lookup.uses.eq(busy | self.in_flight),
            events.pulses.eq(self.appended),
            events.index.eq(0),
        ]
        for name in ("inputs", "format", "k_words", "v_words", "share_bits"):
            m.d.comb += o[name].eq(cache[name])
        steps = {
            name: Signal.like(o[name], name=name, reset_less=True) for name in ("slot", "address", "keys", "values")
        }
        slot, address, keys, values = steps.values()
        m.d.comb += [o[name].eq(value) for name, value in steps.items()]
        m.d.comb += [
            o.factor.eq(command.factor),
            o.first.eq(chunk == first_chunk),
            is_last.eq(chunk == last_chunk),
            o.last.eq(is_last),
            o.ends.eq(is_last & (batch + 1 == command.batches) & (head + 1 == command.n_heads)),
            o.group.eq(number[:set_bits] * of_set if sets > 1 else 0),
            o.turn.eq((place & ~(~0 << cache.share_bits)) << (exact_log2(of_set) - cache.share_bits)[:2]),
            o.scales.eq(scales + Cat(Const(0, block_bits + 1), number)),
        ]

        same = Signal()  # sequence as that of the command before
        freed, lost = Signal(), Signal()  # what is wrong at any time
        wrong = Mux(freed, AttentionErrorCode.FREED, AttentionErrorCode.EVENT_OVERFLOW)
        numbers = [each >> block_bits >> cache.page_bits for each in (start, last_position)]
        entries = [cache.table + number for number in numbers]
        past_end = (numbers[1] >= cache.pages) | (entries[1] >= self.entries)
        first, last = self.lookup.first, self.lookup.last
        m.d.sync += [freed.eq(freed | self.lookup.freed), lost.eq(lost | events.overflow)]
        m.d.comb += [busy.eq(1), self.more.eq(1)]
        with m.FSM():
            with m.State("IDLE"):
                is_same = self.i.p.cache.table == cache.table
                m.d.comb += [busy.eq(0), self.more.eq(0), self.i.ready.eq((is_same | ~self.in_flight) & ~freed & ~lost)]
                with m.If(freed | lost):
                    self._fail(m, wrong)
                with m.Elif(self.i.valid & self.i.ready):
                    m.d.sync += [command.eq(self.i.p), same.eq(is_same & self.in_flight)]
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [
                    chunk.eq(start >> block_bits),
                    first_chunk.eq(start >> block_bits),
                    last_chunk.eq(last_position >> block_bits),
                    a.eq(command.n_heads),
                    b.eq(command.batches),
                    waited.eq(0),
                    first.eq(Mux(same & (first < entries[0]), first, entries[0])),
                    last.eq(Mux(same & (last > entries[1]), last, entries[1])),
                ]
                with m.If(self._refused(command, most)):
                    self._fail(m, AttentionErrorCode.SHAPE)
                with m.Elif(past_end):
                    self._fail(m, AttentionErrorCode.POSITION)
                with m.Else():
                    m.next = "SLOTS"
            with m.State("SLOTS"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == PRODUCT_CYCLES - 1):
                    m.d.sync += [waited.eq(0), a.eq(command.stride), b.eq(result - 1)]
                    with m.If(result > self.slots):
                        self._fail(m, AttentionErrorCode.SHAPE)
                    with m.Else():
                        m.next = "QUERIES"
            with m.State("QUERIES"):
                m.d.sync += waited.eq(waited + 1)
                of_query = (cache.inputs + config.vector_lanes - 1) >> exact_log2(config.vector_lanes)
                with m.If(waited == PRODUCT_CYCLES - 1):
                    m.d.sync += waited.eq(0)
                    with m.If(command.address + result + of_query > self._end):
                        self._fail(m, AttentionErrorCode.SHAPE)
                    with m.Else():
                        m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(events.available | ~command.wait):
                    m.d.comb += events.take.eq(command.wait)
                    m.next = "FIND"
                with m.Else():
                    m.d.comb += self.more.eq(0)
            with m.State("FIND"):
                m.d.comb += [finder.i.valid.eq(1), finder.o.ready.eq(1)]
                m.d.sync += [
                    page.eq(finder.o.p.page),
                    scales.eq(finder.o.p.scales),
                    number.eq(finder.o.p.unit + command.first_head),
                    head.eq(0),
                    batch.eq(0),
                    slot.eq(0),
                    address.eq(command.address),
                ]
                with m.If(finder.o.valid):
                    with m.If(finder.o.p.fault):
                        self._fail(m, finder.o.p.code)
                    with m.Else():
                        m.next = "UNIT"
            with m.State("UNIT"):
                m.d.sync += [a.eq(place), b.eq(cache.k_stride)]
                m.next = "KEYS"
            with m.State("KEYS"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == PRODUCT_CYCLES - 1):
                    m.d.sync += [waited.eq(0), keys.eq(page + result)]
                    m.d.sync += [a.eq(place >> cache.share_bits), b.eq(cache.v_stride)]
                    m.next = "VALUES"
            with m.State("VALUES"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == PRODUCT_CYCLES - 1):
                    m.d.sync += [waited.eq(0), values.eq(page + cache.v_region + result)]
                    m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [
                        batch.eq(batch + 1),
                        slot.eq(slot + 1),
                        address.eq(address + command.stride),
                    ]
                    with m.If(batch + 1 == command.batches):
                        m.d.sync += [batch.eq(0), head.eq(head + 1), number.eq(number + 1)]
                        m.next = "UNIT"
                        with m.If(head + 1 == command.n_heads):
                            m.d.sync += chunk.eq(chunk + 1)
                            m.next = "FIND"
                            with m.If(chunk == last_chunk):
                                m.d.sync += self.command.eq(self.command + 1)
                                m.next = "IDLE"
                    with m.If(freed | lost):
                        self._fail(m, wrong)
            with m.State("FAILED"):
                m.d.comb += [busy.eq(0), self.more.eq(0), self.failed.eq(1)]
        return m

    def _fail(self, m, code):
        m.d.sync += self.code.eq(code)
        m.next = "FAILED"

    def _bounds(self, m, command, chunk, most):
        """The positions of the chunk that each row sees, and how many there are at all: registers, a cycle later."""
        config, o = self.config, self.o.p
        begin = Signal(POSITION_WIDTH)
        m.d.comb += begin.eq(Cat(Const(0, exact_log2(config.block)), chunk))

        def within(position):
            distance = position - begin
            clipped = Mux(distance > config.block, config.block, distance)
            return Mux(distance < 0, 0, clipped)[: ceil_log2(config.block) + 1]

        # Registers apart from the payload: a part of it that is made of another looks like a loop to Verilator.
        positions, tiles = Signal.like(o.positions, reset_less=True), Signal.like(o.tiles, reset_less=True)
        m.d.sync += [
            positions.eq(within(most)),
            tiles.eq((positions + config.tile_channels - 1) >> exact_log2(config.tile_channels)),
        ]
        m.d.comb += [o.positions.eq(positions), o.tiles.eq(tiles)]
        for row in range(config.rows):
            count = command.count + Mux(command.causal, row, 0)
            lo, hi = (Signal.like(positions, name=f"{name}{row}") for name in ("lo", "hi"))
            m.d.sync += [hi.eq(within(count)), lo.eq(Mux(command.window == 0, 0, within(count - command.window)))]
            m.d.comb += [o.hi[row].eq(hi), o.lo[row].eq(lo)]

    def _refused(self, command, most):
        """Whether the build cannot do the command, by what needs no product."""
        cache = command.cache
        known = Cat(cache.format == FormatCode[name.upper()] for name in CACHE_FORMATS if name in self.config.formats)
        most_rows = self.config.rows
        return Cat(
            cache.inputs == 0,
            cache.inputs[0],
            cache.inputs > MAX_HEAD_DIM,
            command.n_heads == 0,
            command.batches == 0,
            command.first_head + command.n_heads > cache.heads,
            command.count == 0,
            most[POSITION_WIDTH],
            command.rows == 0,
            *([command.rows > most_rows] if most_rows < (1 << len(command.rows)) - 1 else []),
            ~known.any(),
        ).any()
