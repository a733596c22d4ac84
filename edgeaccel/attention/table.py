"""Page table: which page of the cache each page of a sequence is."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.attention.command import (
    BYTE_ADDRESS_WIDTH,
    PAGE_WIDTH,
    POSITION_WIDTH,
    WORDS_WIDTH,
    AttentionErrorCode,
    cache_view,
)
from edgeaccel.systolic.commands import WORD_ADDRESS_WIDTH

__all__ = [
    "PRODUCT_CYCLES",
    "UNIT_WIDTH",
    "PageFinder",
    "PageTable",
    "lookup_signature",
    "page_entry",
    "page_place",
    "product",
]

PRODUCT_CYCLES = 3
UNIT_WIDTH = 16


def page_entry():
    """An entry of the table."""
    return data.StructLayout({"page": PAGE_WIDTH, "valid": 1})


def lookup_signature(entries):
    """From one who looks up: the entry is there in the cycle after its index; `first` to `last` are in use."""
    return wiring.Signature(
        {
            "index": Out(range(entries)),
            "entry": In(page_entry()),
            "uses": Out(1),
            "first": Out(PAGE_WIDTH),
            "last": Out(PAGE_WIDTH),
            "freed": In(1),
        }
    )


class PageTable(wiring.Component):
    """Entries for all sequences, written by the host or a program, read by all who read or write the cache.

    Parameters
    ----------
    entries : int
        A power of two.
    readers : int

    Members
    -------
    i : stream of {index, page, valid}
        Always ready. The table is not cleared by reset.
    lookups : array of flipped `lookup_signature`
        `freed` is high in the cycle in which an entry is written that the reader says it uses.
    """

    def __init__(self, *, entries=1024, readers=2):
        if entries not in (1 << n for n in range(1, PAGE_WIDTH + 1)):
            raise ValueError(f"entries must be a power of two of at most {1 << PAGE_WIDTH}, not {entries!r}")
        self.entries = entries
        write = data.StructLayout({"index": range(entries), "page": PAGE_WIDTH, "valid": 1})
        super().__init__({"i": In(stream.Signature(write)), "lookups": In(lookup_signature(entries)).array(readers)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=page_entry(), depth=self.entries, init=[])
        write = memory.write_port()
        m.d.comb += [
            self.i.ready.eq(1),
            write.en.eq(self.i.valid),
            write.addr.eq(self.i.p.index),
            write.data.page.eq(self.i.p.page),
            write.data.valid.eq(self.i.p.valid),
        ]
        for lookup in self.lookups:
            read = memory.read_port()
            index = self.i.p.index
            m.d.comb += [
                read.addr.eq(lookup.index),
                lookup.entry.eq(read.data),
                lookup.freed.eq(self.i.valid & lookup.uses & (index >= lookup.first) & (index <= lookup.last)),
            ]
        return m


def page_place():
    """Where a page is: its first word in each port, its scales' first byte, the number of a chunk's first unit."""
    return data.StructLayout(
        {
            "page": WORD_ADDRESS_WIDTH,
            "scales": BYTE_ADDRESS_WIDTH,
            "unit": UNIT_WIDTH,
            "fault": 1,
            "code": AttentionErrorCode,
        }
    )


def product(m, a, b, name):
    """A * b of two registers, `PRODUCT_CYCLES` later: what a DSP48E2 or a few make of it with all their registers."""
    before = Signal(unsigned(len(a) + len(b)), name=f"{name}_before", reset_less=True)
    result = Signal.like(before, name=name)
    m.d.sync += [before.eq(a * b), result.eq(before)]
    return result


class PageFinder(wiring.Component):
    """Looks up the page of a chunk. One at a time, in 12 cycles.

    Parameters
    ----------
    entries : int
        Of the page table.
    block : int
        Positions of a chunk.

    Members
    -------
    i : stream of {cache: `cache_view`, chunk}
        Taken when the answer is.
    o : stream of `page_place`
        With `fault`, `code` tells why and the rest means nothing.
    index : out
        Of the page table.
    entry : in, `page_entry`
        In the cycle after.
    """

    def __init__(self, *, entries, block):
        self.entries = entries
        self.chunk_width = POSITION_WIDTH - exact_log2(block)
        asked = data.StructLayout({"cache": cache_view(), "chunk": self.chunk_width})
        super().__init__(
            {
                "i": In(stream.Signature(asked)),
                "o": Out(stream.Signature(page_place())),
                "index": Out(range(entries)),
                "entry": In(page_entry()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cache, chunk, o = self.i.p.cache, self.i.p.chunk, self.o.p
        number = Signal(self.chunk_width)  # of the page in its sequence
        index = Signal(PAGE_WIDTH + 1)
        m.d.comb += [number.eq(chunk >> cache.page_bits), index.eq(cache.table + number), self.index.eq(index)]
        a, b = Signal(PAGE_WIDTH, reset_less=True), Signal(WORDS_WIDTH, reset_less=True)
        result = product(m, a, b, "product")
        waited = Signal(range(PRODUCT_CYCLES))
        # The chunk's number within its page: at most 2**8 chunks to a page.
        low = Signal(8)
        m.d.comb += low.eq(chunk & ~(~0 << cache.page_bits))

        def multiply(state, target, value, then, a_next=None, b_next=None):
            with m.State(state):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == PRODUCT_CYCLES - 1):
                    m.d.sync += [waited.eq(0), target.eq(value)]
                    if a_next is not None:
                        m.d.sync += [a.eq(a_next), b.eq(b_next)]
                    m.next = then

        page = Signal(PAGE_WIDTH, reset_less=True)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += waited.eq(0)
                with m.If(self.i.valid):
                    m.next = "LOOK"
            with m.State("LOOK"):
                out_of_table = (number >= cache.pages) | (index >= self.entries)
                no_page = ~self.entry.valid | (self.entry.page >= cache.n_pages)
                m.d.sync += [
                    o.fault.eq(out_of_table | no_page),
                    o.code.eq(Mux(out_of_table, AttentionErrorCode.POSITION, AttentionErrorCode.PAGE)),
                    page.eq(self.entry.page),
                    a.eq(self.entry.page),
                    b.eq(cache.page_words),
                ]
                m.next = "WORDS"
            multiply("WORDS", o.page, cache.base + result, "SCALES", page, cache.page_scale_bytes)
            multiply("SCALES", o.scales, cache.scales + result, "UNIT", low, cache.heads)
            multiply("UNIT", o.unit, result, "DONE")
            with m.State("DONE"):
                m.d.comb += [self.o.valid.eq(1), self.i.ready.eq(self.o.ready)]
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
