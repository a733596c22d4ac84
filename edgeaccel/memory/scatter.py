"""Scatter writer: single beats to anywhere, down to half bytes."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory import axi
from edgeaccel.queue import Queue

__all__ = ["InFlight", "ScatterError", "ScatterWriter", "scatter_item"]

# A memory may take data a cycle after its address, so two writes wait for that while the next one starts.
DATA_BEATS = 4
# Low bits of a beat's number that tell whether it is in flight; beats with the same ones wait for each other.
TAG_WIDTH = 12


def scatter_item(data_width):
    """A beat to write.

    address
        In bytes, a multiple of a beat's.
    data
        The beat.
    nibbles
        Which half bytes are written, the low one of each byte first.
    last
        A pulse of `done` is wanted when all up to this item is written.
    """
    return data.StructLayout({"address": 64, "data": data_width, "nibbles": data_width // 4, "last": 1})


class ScatterError(data.Struct):
    """The first error since reset or `clear`.

    Members
    -------
    valid : 1 bit
        There was one; the rest means nothing before.
    response : axi.Response
        What the memory answered, to a write or to the read before it.
    address : 64 bits
        Of the beat that was answered so.
    """

    valid: 1
    response: axi.Response
    address: 64


class ScatterWriter(wiring.Component):
    """Writes single beats to any address over AXI4, and of each beat only the half bytes that are asked for.

    A byte of which both halves are written needs only its strobe. For a byte of which one half is written the beat is
    read first, over the same interface, and the other half written back as it was. Such a read waits while a write to
    the same beat is on its way: to a beat of the same number modulo 2**12, which is what is compared. All writes are
    started in the order of the items, so items behind a read wait for it; reads are ahead of them.

    An item without any half byte makes a write without strobes. Equals, in cycles, `edgeaccel.golden.scatter`.

    Throughput: an item a cycle if none needs a read and `outstanding` covers the memory's latency, from data to answer,
    and 4 cycles more.

    Latency: 3 cycles from an item to its address, or to that of the read; 2 from a read's data to the write's address.
    `done` is in the cycle of the response.

    Parameters
    ----------
    data_width : int
        Bits of a beat, as `axi.Signature` takes them.
    outstanding : int
        Most items on their way, from when they leave the input's queue of two until they are answered: a power of two.
    reads : int
        Of these, most items that wait for a read, theirs or one before.
    address_width : int
        12 to 64 bits.

    Members
    -------
    m_axi : axi.Signature
        Bursts of a beat, always with ID 0; `bready` and `rready` are always 1.
    i : stream of `scatter_item`
    done : 1 bit
        1 for a cycle for each item with `last`, in order: it and all items before it are written.
    idle : 1 bit
        All items taken are written, and nothing is to be cleared.
    clear : 1 bit
        A pulse ends everything: no more reads and writes; those that have started end and are awaited, but not `done`;
        then all is as after reset, the error included. Until then `i` is not ready.
    is_clearing : 1 bit
        From the cycle after a pulse of `clear` until all is as after reset.
    error : ScatterError
        Holds the first bad response until `clear` or reset. No write starts after it, and nothing is `done`.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, data_width=256, outstanding=32, reads=8, address_width=64):
        if not isinstance(outstanding, int) or outstanding < 2 or outstanding & (outstanding - 1):
            raise ValueError(f"outstanding must be a power of two of at least 2 items, not {outstanding!r}")
        if not isinstance(reads, int) or reads < 2:
            raise ValueError(f"reads must be at least 2 items, not {reads!r}")
        self.outstanding = outstanding
        self.reads = reads
        signature = axi.Signature(address_width=address_width, data_width=data_width)
        self.data_width = data_width
        super().__init__(
            {
                "m_axi": Out(signature),
                "i": In(stream.Signature(scatter_item(data_width))),
                "done": Out(1),
                "idle": Out(1),
                "clear": In(1),
                "is_clearing": Out(1),
                "error": Out(ScatterError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus, size = self.m_axi, exact_log2(self.data_width // 8)
        unread = Signal(range(self.reads + 1))
        unanswered = Signal(range(self.outstanding + 1))
        clearing = self.is_clearing
        flush, halt = Signal(), Signal()
        m.d.comb += [
            flush.eq(clearing & ~bus.arvalid & (unread == 0) & (unanswered == 0)),
            halt.eq(clearing | self.error.valid),
            bus.arsize.eq(size),
            bus.awsize.eq(size),
            bus.arburst.eq(axi.Burst.INCR),
            bus.awburst.eq(axi.Burst.INCR),
            bus.rready.eq(1),
            bus.wlast.eq(1),
            bus.bready.eq(1),
        ]
        m.d.sync += clearing.eq((clearing | self.clear) & ~flush)

        # Nothing is outstanding when the core is flushed, so no offer on the bus is withdrawn.
        core = Module()
        m.submodules.core = ResetInserter(flush)(core)
        core.submodules.arrivals = arrivals = _Registers(_arrival(self.data_width))
        core.submodules.in_flight = in_flight = InFlight(self.outstanding)
        core.submodules.waiting = waiting = Queue(_arrival(self.data_width), self.reads)
        low, high = self.i.p.nibbles[0::2], self.i.p.nibbles[1::2]
        core.d.comb += [
            arrivals.i.p.item.eq(self.i.p),
            arrivals.i.p.is_partial.eq((low ^ high).any()),
            arrivals.i.valid.eq(self.i.valid & ~clearing),
            self.i.ready.eq(arrivals.i.ready & ~clearing),
            self.idle.eq(in_flight.is_empty & ~arrivals.o.valid & ~clearing),
        ]
        self._enter(core, arrivals.o, in_flight, waiting.i, halt)
        starts = self._start(core, waiting.o, in_flight, halt)
        core.d.sync += [
            unread.eq(unread + (bus.arvalid & bus.arready) - bus.rvalid),
            unanswered.eq(unanswered + starts - bus.bvalid),
        ]
        return m

    def _enter(self, m, arrival, in_flight, waiting, halt):
        """Items to those that wait, and their reads to the bus."""
        bus, item = self.m_axi, arrival.p.item
        may_ask, enters, asks = Signal(), Signal(), Signal()
        m.d.comb += [
            in_flight.address.eq(item.address[exact_log2(self.data_width // 8) :]),
            in_flight.put.eq(enters),
            may_ask.eq(~in_flight.is_hit & (~bus.arvalid | bus.arready)),
            enters.eq(arrival.valid & ~in_flight.is_full & waiting.ready & (may_ask | ~arrival.p.is_partial) & ~halt),
            asks.eq(enters & arrival.p.is_partial),
            arrival.ready.eq(enters),
            waiting.valid.eq(enters),
            waiting.p.eq(arrival.p),
        ]
        with m.If(~bus.arvalid | bus.arready):
            m.d.sync += [bus.arvalid.eq(asks), bus.araddr.eq(item.address)]

    def _start(self, m, waiting, in_flight, halt):
        """Items to the bus, each after its read, and their answers; returns whether one starts."""
        bus, item = self.m_axi, waiting.p.item
        n_bytes = self.data_width // 8
        read = data.StructLayout({"data": self.data_width, "response": axi.Response})
        beat = data.StructLayout({"data": self.data_width, "strobes": n_bytes})
        started = data.StructLayout({"address": 64, "last": 1})
        # A read's item waits, so there is a place for its data.
        m.submodules.reads = reads = Queue(read, self.reads)
        m.submodules.beats = beats = Queue(beat, DATA_BEATS)
        m.submodules.started = started = Queue(started, self.outstanding)
        is_bad_read, is_bad_write, goes, starts = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            reads.i.p.data.eq(bus.rdata),
            reads.i.p.response.eq(bus.rresp),
            reads.i.valid.eq(bus.rvalid),
            is_bad_read.eq(goes & waiting.p.is_partial & reads.o.p.response.as_value()[1]),
            goes.eq(waiting.valid & (reads.o.valid | ~waiting.p.is_partial) & ~halt),
            starts.eq(goes & ~is_bad_read & beats.i.ready & (~bus.awvalid | bus.awready)),
            waiting.ready.eq(starts),
            reads.o.ready.eq(starts & waiting.p.is_partial),
            beats.i.valid.eq(starts),
            bus.wvalid.eq(beats.o.valid),
            beats.o.ready.eq(bus.wready),
            bus.wdata.eq(beats.o.p.data),
            bus.wstrb.eq(beats.o.p.strobes),
            started.i.valid.eq(starts),
            started.i.p.address.eq(item.address),
            started.i.p.last.eq(item.last),
            started.o.ready.eq(bus.bvalid),
            in_flight.take.eq(bus.bvalid),
            is_bad_write.eq(bus.bvalid & bus.bresp.as_value()[1]),
            self.done.eq(bus.bvalid & started.o.p.last & ~is_bad_write & ~halt),
        ]
        for n, nibble in enumerate(item.nibbles):
            part = slice(4 * n, 4 * n + 4)
            m.d.comb += beats.i.p.data[part].eq(Mux(nibble, item.data[part], reads.o.p.data[part]))
        m.d.comb += beats.i.p.strobes.eq(item.nibbles[0::2] | item.nibbles[1::2])
        with m.If(~bus.awvalid | bus.awready):
            m.d.sync += [bus.awvalid.eq(starts), bus.awaddr.eq(item.address)]
        with m.If(~self.error.valid & (is_bad_read | is_bad_write)):
            m.d.sync += [
                self.error.valid.eq(1),
                self.error.response.eq(Mux(is_bad_write, bus.bresp, reads.o.p.response)),
                self.error.address.eq(Mux(is_bad_write, started.o.p.address, item.address)),
            ]
        return starts


def _arrival(data_width):
    """An item, and whether it has a byte of which only one half is written."""
    return data.StructLayout({"item": scatter_item(data_width), "is_partial": 1})


class _Registers(wiring.Component):
    """A `Queue` of two whose output is a register: what is in flight is compared with it in the same cycle."""

    def __init__(self, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        spare, has_spare = Signal.like(i.p, reset_less=True), Signal()
        m.d.comb += i.ready.eq(~has_spare)
        with m.If(~has_spare):
            m.d.sync += spare.eq(i.p)
        with m.If(~o.valid | o.ready):
            m.d.sync += [o.valid.eq(i.valid | has_spare), has_spare.eq(0)]
            m.d.sync += o.p.eq(Mux(has_spare, spare, i.p))
        with m.Elif(i.valid):
            m.d.sync += has_spare.eq(1)
        return m


class InFlight(wiring.Component):
    """Addresses of items that are on their way, first in, first out; tells whether one may be among them.

    Parameters
    ----------
    places : int
        A power of two.

    Members
    -------
    address : TAG_WIDTH bits
        Of the item that is asked for, or put.
    is_hit : out
        An item of the same address is there.
    put, take : in
        An item comes, from the next cycle on; the oldest one goes.
    is_full, is_empty : out
    """

    def __init__(self, places):
        self.places = places
        super().__init__(
            {
                "address": In(TAG_WIDTH),
                "is_hit": Out(1),
                "put": In(1),
                "take": In(1),
                "is_full": Out(1),
                "is_empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        newest, oldest = Signal(range(self.places)), Signal(range(self.places))
        is_there = Signal(self.places)
        hits = Signal(self.places)
        for n in range(self.places):
            tag = Signal(TAG_WIDTH, name=f"tag{n}", reset_less=True)
            with m.If(self.take & (oldest == n)):
                m.d.sync += is_there[n].eq(0)
            with m.If(self.put & (newest == n)):
                m.d.sync += [is_there[n].eq(1), tag.eq(self.address)]
            m.d.comb += hits[n].eq(is_there[n] & (tag == self.address))
        m.d.comb += [self.is_hit.eq(hits.any()), self.is_full.eq(is_there.all()), self.is_empty.eq(~is_there.any())]
        m.d.sync += [newest.eq(newest + self.put), oldest.eq(oldest + self.take)]
        return m
