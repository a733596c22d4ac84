"""Commands of the KV-cache writer: what they say, what is refused, and the sizes that they are worked out with."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from edgeaccel.memory import axi
from edgeaccel.pe.digit import FormatCode

__all__ = ["AppendError", "AppendErrorCode", "AppendGate", "AppendKind", "AppendSizes", "append_command"]

MOST_HEADS = MOST_INPUTS = 256
COMMAND_NUMBER_WIDTH = 16


class AppendKind(enum.Enum, shape=1):
    """Which half of the cache a command appends to."""

    K = 0
    V = 1


class AppendErrorCode(enum.Enum, shape=4):
    """Why the writer has stopped."""

    ROWS = 0
    """No positions, or more than `config.rows`."""
    HEADS = 1
    """No heads."""
    INPUTS = 2
    """No elements, an odd number of them, or more than the build's longest head has."""
    FORMAT = 3
    """The format is not in the build, or none of the cache."""
    PLACE = 4
    """The positions go past the end of the chunk."""
    GROUP = 5
    """The positions are not in one aligned group of `config.rows`, rounded up to a power of two."""
    ALIGNMENT = 6
    """The address of the scales is no multiple of a word's bytes."""
    SHARE = 7
    """More V tiles would share a set than it has groups."""
    LENGTH = 8
    """A vector is not as long as its command says."""
    RESPONSE = 9
    """The memory answered with SLVERR or DECERR."""


class AppendError(data.Struct):
    """The first error since reset or `clear`.

    Members
    -------
    valid : 1 bit
        There was one; the rest means nothing before.
    code : AppendErrorCode
    command : 16 bits
        Number of the first command since reset or `clear` that is not done, from 0, modulo 2**16: the refused one, that
        of the vector, or the first one whose writes are not all answered.
    response : axi.Response
        For `RESPONSE`: what the memory answered.
    address : 64 bits
        For `RESPONSE`: of the beat that was answered so.
    """

    valid: 1
    code: AppendErrorCode
    command: COMMAND_NUMBER_WIDTH
    response: axi.Response
    address: 64


def append_command(config):
    """Vectors of one or several positions, for all heads of a layer.

    kind
        `AppendKind`.
    rows, heads, inputs
        Positions, KV heads, and elements of a vector: the head dimension.
    format
        Of the cache.
    unit
        Number within the page of the first head's unit; head h has the number `unit` + h.
    place
        Of the first position within the chunk; the others follow.
    page
        Word of the port's memory where the page begins.
    scales
        Address of the V scales of unit 0 of the page, in bytes, a multiple of a word's.
    k_words, k_stride
        Words of a K tile, and from one local unit to the next.
    v_region, v_words, v_stride
        Words from the page to its V tiles, of a V tile, and from one share of a set to the next.
    share_bits
        Logarithm of the units that share the groups of a set for their V tiles.
    """
    return data.StructLayout(
        {
            "kind": AppendKind,
            "rows": range(config.rows + 1),
            "heads": range(MOST_HEADS + 1),
            "inputs": range(MOST_INPUTS + 1),
            "format": FormatCode,
            "unit": 16,
            "place": range(config.block),
            "page": 40,
            "scales": 64,
            "k_words": 24,
            "k_stride": 24,
            "v_region": 24,
            "v_words": 24,
            "v_stride": 24,
            "share_bits": 2,
        }
    )


class AppendSizes:
    """What a build's addresses and buffers are made of, most of it as logarithms.

    A *slot* is two bytes of a word: a scale; an element of 16 bits; or bytes of elements, in int4 pairs of them, that
    are half a word apart. A *window* is as many slots as positions may come at once. A *span* is what is written at
    once of a word: all of it, or a beat.

    Raises
    ------
    ValueError
        If the configuration is none that the writer can do.
    """

    def __init__(self, config, *, port_bytes, max_head_dim):
        self.config = config
        slots = config.tile_channels
        if not isinstance(port_bytes, int) or port_bytes & (port_bytes - 1) or port_bytes < 2 * config.word_bytes:
            raise ValueError(f"port_bytes must be a power of two of at least two words, not {port_bytes!r}")
        if max_head_dim not in range(config.vector_lanes, MOST_INPUTS + 1, config.vector_lanes):
            raise ValueError(
                f"max_head_dim must be a multiple of the {config.vector_lanes} elements of a beat,"
                f" at most {MOST_INPUTS}, not {max_head_dim!r}"
            )
        if config.block & (config.block - 1) or config.block < slots:
            raise ValueError(
                f"block must be a power of two of at least {slots}, the channels of a tile, not {config.block}"
            )
        if config.vector_lanes < 2:
            raise ValueError(f"vector_lanes must be at least 2, not {config.vector_lanes}")
        self.max_head_dim = max_head_dim
        self.formats = [name for name in ("int4", "int8", "int16") if name in config.formats]
        self.beat_bytes = config.port_data_width // 8
        self.span_bytes = min(config.word_bytes, self.beat_bytes)
        self.rows = max(2, 1 << ceil_log2(config.rows))  # of a window
        span_slots = self.span_bytes // 2
        for name, number in (("rows", self.rows), ("vector_lanes", config.vector_lanes)):
            if number > span_slots:
                raise ValueError(f"{name} must be at most {span_slots}, the 16-bit elements of a write, not {number}")
        self.row_bits = exact_log2(self.rows)
        self.slot_bits = exact_log2(slots)  # of a word; and a tile has as many channels
        self.span_bits = exact_log2(config.word_bytes // self.span_bytes)  # spans of a word
        self.column_bits = exact_log2(span_slots // config.vector_lanes)  # groups of lanes in a span
        self.lane_bits = exact_log2(config.vector_lanes)
        self.block_bits = exact_log2(config.block)
        self.word_bits = exact_log2(config.word_bytes)
        self.local_bits = exact_log2(port_bytes) - self.word_bits  # words of a port
        set_groups = min(config.block // slots, config.groups)
        self.set_group_bits = exact_log2(set_groups)
        self.set_bits = exact_log2(config.groups // set_groups)
        self.address_bits = 64 - self.word_bits  # words of all memory
        # Logarithm of the words of a channel, and words, in a tile of a whole block.
        self.channel_word_bits = {name: exact_log2(config.layout(name).words_per_block) for name in self.formats}
        self.tile_words = {name: config.layout(name).words_per_tile for name in self.formats}
        self.offset_width = max(self.tile_words.values()).bit_length()
        self.max_words = max(1, -(-max_head_dim // slots))  # of a channel, at most

    def by_format(self, format, values):
        """What a dict by format has for the running one."""
        (_, chosen), *others = values.items()
        for name, value in others:
            chosen = value if value is chosen else Mux(format == FormatCode[name.upper()], value, chosen)
        return chosen


class AppendGate(wiring.Component):
    """Lets commands through that the build can do.

    A command is offered from the cycle after it was taken on; the next one is taken after it has gone.

    Parameters
    ----------
    sizes : AppendSizes

    Members
    -------
    i, o : streams of `append_command`
    refused : out
        The command that is held cannot be done; it is not offered.
    code : AppendErrorCode
        Why.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        commands = stream.Signature(append_command(sizes.config))
        super().__init__({"i": In(commands), "o": Out(commands), "refused": Out(1), "code": Out(AppendErrorCode)})

    def elaborate(self, platform):
        m = Module()
        sizes, config = self.sizes, self.sizes.config
        held = Signal(append_command(config), reset_less=True)
        is_held = Signal()
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(self.i.p), is_held.eq(1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += is_held.eq(0)
        formats = [FormatCode[name.upper()] for name in sizes.formats]
        more_rows = config.rows < (1 << len(held.rows)) - 1  # can be told
        refusals = {
            AppendErrorCode.ROWS: (held.rows == 0) | (held.rows > config.rows if more_rows else 0),
            AppendErrorCode.HEADS: held.heads == 0,
            AppendErrorCode.INPUTS: (held.inputs == 0) | (held.inputs > sizes.max_head_dim) | held.inputs[0],
            AppendErrorCode.FORMAT: ~Cat(held.format == code for code in formats).any(),
            AppendErrorCode.PLACE: held.place + held.rows > config.block,
            AppendErrorCode.GROUP: held.place[: sizes.row_bits] + held.rows > sizes.rows,
            AppendErrorCode.ALIGNMENT: held.scales[: sizes.word_bits].any(),
            AppendErrorCode.SHARE: held.share_bits > sizes.set_group_bits,
        }
        is_refused = Signal()
        m.d.comb += [
            is_refused.eq(Cat(refusals.values()).any()),
            self.refused.eq(is_held & is_refused),
            self.i.ready.eq(~is_held),
            self.o.p.eq(held),
            self.o.valid.eq(is_held & ~is_refused),
        ]
        for code, is_so in reversed(refusals.items()):
            with m.If(is_so):
                m.d.comb += self.code.eq(code)
        return m
