"""Cache writer: appends to the pages of a sequence.

i_appends -> PageFinder -> KVAppend -> m_axi
i_vectors -----------------^
"""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.attention.append import KVAppend
from edgeaccel.attention.append_command import AppendErrorCode, AppendKind
from edgeaccel.attention.command import COMMAND_NUMBER_WIDTH, AttentionErrorCode, append
from edgeaccel.attention.table import PageFinder, lookup_signature
from edgeaccel.cache import MAX_HEAD_DIM
from edgeaccel.queue import Queue

__all__ = ["OUTSTANDING", "CacheWriter"]

IN_FLIGHT = 4  # appends
OUTSTANDING = 64  # writes: as many as cover the latency of HBM2


class CacheWriter(wiring.Component):
    """Finds the page of each append and has it written; tells when it is.

    Equals `edgeaccel.golden.append.append` at the addresses that `edgeaccel.cache.CacheLayout` gives.

    Parameters
    ----------
    config : Config
    port_bytes : int
        From one port's memory to the next in the addresses of `m_axi`: a power of two.
    entries : int
        Of the page table.

    Members
    -------
    i_appends : stream of `append`
    i_vectors : stream of vector beats
        Of head 0 all rows, then of head 1, and so on, for each append.
    m_axi : axi.Signature
        All ports' memories are seen through it, and that of the values' scales.
    lookup : `lookup_signature`
    appended : out
        High for a cycle when an append with `event` has been answered by the memory in full.
    clear : in
        As that of `KVAppend`.
    failed, code, command : out
        Something is wrong, what, and with which append; no append is begun any more. Of pages that are freed in use,
        the first append that is not done.
    """

    def __init__(self, config, *, port_bytes, entries):
        self.config, self.entries = config, entries
        self.append = KVAppend(config, port_bytes=port_bytes, max_head_dim=MAX_HEAD_DIM, outstanding=OUTSTANDING)
        members = self.append.signature.members
        super().__init__(
            {
                "i_appends": In(stream.Signature(append(config))),
                "i_vectors": members["i"],
                "m_axi": members["m_axi"],
                "lookup": Out(lookup_signature(entries)),
                "appended": Out(1),
                "clear": In(1),
                "failed": Out(1),
                "code": Out(AttentionErrorCode),
                "command": Out(COMMAND_NUMBER_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.append = inner = self.append
        core = Module()
        m.submodules.core = ResetInserter(self.clear)(core)
        m.d.comb += inner.clear.eq(self.clear)
        wiring.connect(m, inner.m_axi, wiring.flipped(self.m_axi))
        wiring.connect(m, wiring.flipped(self.i_vectors), inner.i)
        self._find(core, inner)
        return m

    def _find(self, m, inner):
        """Appends to places, one after the other; those of another sequence once all before are done."""
        block_bits = exact_log2(self.config.block)
        m.submodules.finder = finder = PageFinder(entries=self.entries, block=self.config.block)
        m.submodules.events = events = Queue(1, IN_FLIGHT)
        command = Signal(append(self.config), reset_less=True)
        cache, given = command.cache, inner.i_commands.p
        n_in_flight = Signal(range(IN_FLIGHT + 1))
        is_busy, freed, gives = Signal(), Signal(), Signal()
        chunk = command.position >> block_bits
        entry = cache.table + (chunk >> cache.page_bits)
        first, last = self.lookup.first, self.lookup.last
        m.d.comb += [
            finder.i.p.cache.eq(cache),
            finder.i.p.chunk.eq(chunk),
            self.lookup.index.eq(finder.index),
            finder.entry.eq(self.lookup.entry),
            self.lookup.uses.eq(is_busy | (n_in_flight != 0)),
            given.kind.eq(Mux(command["values"], AppendKind.V, AppendKind.K)),
            given.rows.eq(command.rows),
            given.place.eq(command.position[:block_bits]),
            given.page.eq(finder.o.p.page),
            given.scales.eq(finder.o.p.scales),
            given.unit.eq(finder.o.p.unit),
            *(
                given[name].eq(cache[name])
                for name in ("heads", "inputs", "format", "k_words", "k_stride", "v_region", "v_words", "v_stride")
            ),
            given.share_bits.eq(cache.share_bits),
            events.i.p.eq(command.event),
            events.o.ready.eq(inner.done),
            self.appended.eq(inner.done & events.o.p),
        ]
        m.d.sync += [n_in_flight.eq(n_in_flight + gives - inner.done), freed.eq(freed | self.lookup.freed)]

        own_code, own_failed = Signal(AttentionErrorCode), Signal()
        number, failed_number = Signal(COMMAND_NUMBER_WIDTH), Signal(COMMAND_NUMBER_WIDTH)

        def fail(code):
            m.d.sync += [own_code.eq(code), failed_number.eq(number)]
            if code is AttentionErrorCode.FREED:
                m.d.sync += failed_number.eq(number - n_in_flight)
            m.next = "FAILED"

        same = Signal()
        with m.FSM():
            with m.State("IDLE"):
                is_same = self.i_appends.p.cache.table == cache.table
                m.d.comb += self.i_appends.ready.eq((is_same | (n_in_flight == 0)) & ~freed)
                with m.If(freed):
                    fail(AttentionErrorCode.FREED)
                with m.Elif(self.i_appends.valid & self.i_appends.ready):
                    m.d.sync += [command.eq(self.i_appends.p), same.eq(is_same & (n_in_flight != 0))]
                    m.next = "CLAIM"
            with m.State("CLAIM"):
                m.d.comb += is_busy.eq(1)
                m.d.sync += [
                    first.eq(Mux(same & (first < entry), first, entry)),
                    last.eq(Mux(same & (last > entry), last, entry)),
                ]
                m.next = "FIND"
            with m.State("FIND"):
                m.d.comb += [is_busy.eq(1), finder.i.valid.eq(1)]
                with m.If(freed):
                    m.d.comb += finder.o.ready.eq(1)
                    with m.If(finder.o.valid):
                        fail(AttentionErrorCode.FREED)
                with m.Elif(finder.o.valid & finder.o.p.fault):
                    m.d.comb += finder.o.ready.eq(1)
                    fail(finder.o.p.code)
                with m.Elif(finder.o.valid & (n_in_flight != IN_FLIGHT)):
                    # The place goes straight from the finder.
                    m.d.comb += [
                        inner.i_commands.valid.eq(1),
                        gives.eq(inner.i_commands.ready),
                        events.i.valid.eq(gives),
                        finder.o.ready.eq(gives),
                    ]
                    with m.If(gives):
                        m.d.sync += number.eq(number + 1)
                        m.next = "IDLE"
            with m.State("FAILED"):
                m.d.comb += own_failed.eq(1)

        error = inner.error
        is_response = error.code == AppendErrorCode.RESPONSE
        inner_code = Mux(is_response, AttentionErrorCode.WRITE, AttentionErrorCode.SHAPE)
        m.d.comb += [
            self.failed.eq(own_failed | error.valid),
            self.code.eq(Mux(error.valid, inner_code, own_code)),
            self.command.eq(Mux(error.valid, error.command, failed_number)),
        ]
