"""KV-cache writer: vectors of keys and values, quantised, into the tiles that the array streams.

i ----------> feed -> KVQuantiser -> CodeBanks -> WriteFormer -> ScatterWriter -> memory
i_commands -> AppendGate -> AppendPlanner -> AppendWalk ---^
"""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.append_codes import CodeBanks, head_count
from edgeaccel.attention.append_command import (
    COMMAND_NUMBER_WIDTH,
    MOST_HEADS,
    AppendError,
    AppendErrorCode,
    AppendGate,
    AppendSizes,
    append_command,
)
from edgeaccel.attention.append_form import WriteFormer
from edgeaccel.attention.append_plan import AppendPlanner
from edgeaccel.attention.append_walk import AppendWalk
from edgeaccel.memory import axi
from edgeaccel.memory.scatter import ScatterWriter
from edgeaccel.pe.digit import FormatCode
from edgeaccel.queue import Queue
from edgeaccel.vector.beat import vector_beat
from edgeaccel.vector.quantise import KVQuantiser

__all__ = ["KVAppend", "VectorFeed"]

COMMANDS = 2  # whose vectors are in the quantiser


class KVAppend(wiring.Component):
    """Appends keys and values to a quantised cache, in place, for all heads of one or several positions.

    A key's codes are words of its channel in a K tile; a value's codes are one input of all channels of the V tiles, so
    the rows of a batch are written together, two bytes each. What is around them in memory is kept. Where two channels
    share bytes (int4), an even position writes the odd one's half bytes as 0, and an odd position without the even one
    before it reads the beats first and keeps that one's. With the first position of a chunk the scales of the V tiles
    become 1. Elements of a K word past the end of the vector are written as 0.

    Equals `edgeaccel.golden.append.append`, in cycles `append_cycles`. All of V: a write a cycle, in int4 for two
    elements; K: `vector_lanes` codes a cycle, of all positions one after the other; one cycle more for the scales of a
    tile. The next head is quantised meanwhile.

    Latency: from the last beat of a head to the address of its first write log2(vector_lanes) + 39 cycles, and as many
    as a vector has beats.

    Parameters
    ----------
    config : Config
        `block` a power of two of at least the channels of a tile, `vector_lanes` at least 2; neither they nor `rows`,
        rounded up to a power of two, more than the 16-bit elements of a word or of a beat.
    port_bytes : int
        From one port's memory to the next in the address: a power of two.
    max_head_dim : int
        Longest vector: a multiple of `vector_lanes`, at most 256.
    outstanding : int
        Most writes on their way, a power of two.

    Members
    -------
    i : stream of vector beats
        Of head 0 all rows, then of head 1, and so on.
    i_commands : stream of `append_command`
    m_axi : axi.Signature
        Of `config.port_data_width` bits; all of memory is seen through it.
    done : 1 bit
        1 for a cycle for each command, in order: all its writes are answered.
    clear : 1 bit
        A pulse ends everything: no more writes; those that have started are awaited; then all is as after reset, the
        error included. Until then `i` and `i_commands` are not ready. What was to come of a command's vectors must not
        come any more.
    error : AppendError
        Holds the first error until `clear` or reset. Commands before a refused one, or one with a vector of a wrong
        length, are done first. No command is begun after an error, and nothing is `done`. After a bad response no write
        starts; heads that were complete before a wrong vector may be written.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the configuration is none that the writer can do.
    """

    def __init__(self, config, *, port_bytes, max_head_dim=256, outstanding=32):
        self.config = config
        self.sizes = AppendSizes(config, port_bytes=port_bytes, max_head_dim=max_head_dim)
        self.writer = ScatterWriter(data_width=config.port_data_width, outstanding=outstanding)
        super().__init__(
            {
                "i": In(stream.Signature(vector_beat(config.vector_lanes))),
                "i_commands": In(stream.Signature(append_command(config))),
                "m_axi": Out(self.writer.m_axi.signature),
                "done": Out(1),
                "clear": In(1),
                "error": Out(AppendError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self.sizes
        m.submodules.writer = writer = self.writer
        wiring.connect(m, wiring.flipped(self.m_axi), writer.m_axi)
        # Only the writer has something to wait for; all else is reset until it is clear.
        core = Module()
        m.submodules.core = ResetInserter(self.clear | writer.is_clearing)(core)
        m.d.comb += writer.clear.eq(self.clear)

        core.submodules.gate = gate = AppendGate(sizes)
        core.submodules.feed = feed = VectorFeed(sizes)
        core.submodules.heads = heads = Queue(head_count(sizes), COMMANDS)
        core.submodules.quantiser = quantiser = KVQuantiser(
            lanes=self.config.vector_lanes, max_length=sizes.max_head_dim
        )
        core.submodules.banks = banks = CodeBanks(sizes)
        core.submodules.planner = planner = AppendPlanner(sizes)
        core.submodules.walk = walk = AppendWalk(sizes)
        core.submodules.former = former = WriteFormer(sizes, banks)
        for end, start in (
            (feed.o, quantiser.i),
            (quantiser.o, banks.i),
            (heads.o, banks.i_heads),
            (planner.o, walk.i),
            (walk.o, former.i),
        ):
            wiring.connect(core, end, start)
        admits = Signal()
        for port, i in ((self.i, feed.i), (self.i_commands, gate.i)):
            core.d.comb += [
                i.p.eq(port.p),
                i.valid.eq(port.valid & ~writer.is_clearing),
                port.ready.eq(i.ready & ~writer.is_clearing),
            ]
        taken_by = (feed.i_commands, heads.i, planner.i)
        core.d.comb += [
            admits.eq(gate.o.valid & Cat(end.ready for end in taken_by).all() & ~self.error.valid),
            gate.o.ready.eq(admits),
            *(end.valid.eq(admits) for end in taken_by),
            feed.i_commands.p.eq(gate.o.p),
            planner.i.p.eq(gate.o.p),
            heads.i.p.heads.eq(gate.o.p.heads),
            heads.i.p.rows.eq(gate.o.p.rows),
            heads.i.p.first_slot.eq(gate.o.p.place[: sizes.row_bits]),
            walk.is_full.eq(banks.is_full),
            banks.free.eq(walk.free),
            writer.i.p.eq(former.o.p),
            writer.i.valid.eq(former.o.valid & ~self.error.valid),
            former.o.ready.eq(writer.i.ready & ~self.error.valid),
            self.done.eq(writer.done & ~self.error.valid),
        ]
        self._watch(core, gate, feed, admits)
        return m

    def _watch(self, m, gate, feed, admits):
        """The error: of what is refused once all before it is done."""
        error, failure = self.error, self.writer.error
        n_admitted, n_done = Signal(COMMAND_NUMBER_WIDTH), Signal(COMMAND_NUMBER_WIDTH)
        is_refused, is_wrong = Signal(), Signal()
        m.d.comb += [
            is_refused.eq(gate.refused & (n_admitted == n_done)),
            is_wrong.eq(feed.is_wrong & (n_admitted == (n_done + 1)[:COMMAND_NUMBER_WIDTH])),
        ]
        m.d.sync += [n_admitted.eq(n_admitted + admits), n_done.eq(n_done + self.done)]
        with m.If(~error.valid):
            m.d.sync += [
                error.valid.eq(failure.valid | is_refused | is_wrong),
                error.code.eq(
                    Mux(
                        failure.valid,
                        AppendErrorCode.RESPONSE,
                        Mux(is_wrong, AppendErrorCode.LENGTH, gate.code),
                    )
                ),
                error.command.eq(n_done),
                error.response.eq(Mux(failure.valid, failure.response, axi.Response.OKAY)),
                error.address.eq(Mux(failure.valid, failure.address, 0)),
            ]


class VectorFeed(wiring.Component):
    """Gives the vectors of a command its format, and holds a beat that is not as the command says.

    Parameters
    ----------
    sizes : AppendSizes

    Members
    -------
    i_commands : stream of `append_command`
        Taken at once where the last beat of the command before it is.
    i : stream of vector beats
    o : stream of vector beats with format: `FormatCode`
    is_wrong : out
        A beat is offered that ends its vector too early or does not end it.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        lanes = sizes.config.vector_lanes
        super().__init__(
            {
                "i_commands": In(stream.Signature(append_command(sizes.config))),
                "i": In(stream.Signature(vector_beat(lanes))),
                "o": Out(stream.Signature(vector_beat(lanes, format=FormatCode))),
                "is_wrong": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, command = self.sizes, self.i_commands.p
        is_running, is_last, ends = Signal(), Signal(), Signal()
        counts = {
            "beat": range(sizes.max_head_dim // sizes.config.vector_lanes),
            "row": range(sizes.config.rows),
            "head": range(MOST_HEADS),
        }
        # Each counts down to 0.
        counts = data.StructLayout(counts)
        whole, left = Signal(counts, reset_less=True), Signal(counts, reset_less=True)
        format = Signal(FormatCode, reset_less=True)
        is_zero = [left[name] == 0 for name in counts.members]
        m.d.comb += [
            is_last.eq(is_zero[0]),
            self.is_wrong.eq(is_running & self.i.valid & (self.i.p.last != is_last)),
            self.o.valid.eq(is_running & self.i.valid & ~self.is_wrong),
            self.i.ready.eq(is_running & self.o.ready & ~self.is_wrong),
            self.o.p.format.eq(format),
            *(self.o.p[name].eq(self.i.p[name]) for name in ("elements", "keep", "last")),
            ends.eq(self.o.valid & self.o.ready & Cat(is_zero).all()),
            self.i_commands.ready.eq(~is_running | ends),
        ]
        with m.If(self.o.valid & self.o.ready):
            moves = 1
            for name, zero in zip(counts.members, is_zero, strict=True):
                m.d.sync += left[name].eq(Mux(moves, Mux(zero, whole[name], left[name] - 1), left[name]))
                moves = moves & zero
        with m.If(ends):
            m.d.sync += is_running.eq(0)
        with m.If(self.i_commands.valid & self.i_commands.ready):
            beats = (command.inputs - 1) >> sizes.lane_bits
            for name, value in (("beat", beats), ("row", command.rows - 1), ("head", command.heads - 1)):
                m.d.sync += [whole[name].eq(value), left[name].eq(value)]
            m.d.sync += [is_running.eq(1), format.eq(command.format)]
        return m
