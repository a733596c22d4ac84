"""Plans of the KV-cache writer: where the first head's tiles begin, and where in them the positions are."""

from amaranth.hdl import Cat, Const, Mux, Value
from amaranth.lib import data

from edgeaccel.attention.append_command import MOST_HEADS, AppendKind, append_command
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.pipeline import Pipelined

__all__ = ["AppendPlanner", "append_plan"]


def append_plan(sizes):
    """What the walk over a command's heads needs.

    base
        Word of the port where the first head's tile of K, or its first one of V, begins.
    set, local
        Of the first head's unit: its number modulo the sets, and over them.
    group
        Within the set, of K.
    stride
        Words to the next local unit, or share.
    table
        Word of all memory with the first head's V scales of the positions; `table_offset` more for later positions.
    window, half, slots, first_slot, last_slot
        Of the positions: their window within a word; of V, the half of the bytes; which slots of the window they have.
        With two channels to a word, the last two are those of the lower one.
    last_word
        Of K: of a channel's words, through all input tiles.
    whole_offset, last_offset
        Words from a tile to the first codes: in tiles of a whole block and in the last one of K; in all of V.
    last_dim
        Of V: the last one that is walked to.
    opens
        The writes of a tile begin with scales.
    """
    return data.StructLayout(
        {
            "kind": AppendKind,
            "format": FormatCode,
            "heads": range(MOST_HEADS + 1),
            "base": sizes.local_bits,
            "set": sizes.set_bits,
            "local": 16,
            "group": sizes.set_group_bits,
            "stride": 24,
            "v_words": 24,
            "share_bits": 2,
            "table": sizes.address_bits,
            "table_offset": sizes.block_bits - sizes.slot_bits,
            "window": sizes.slot_bits - sizes.row_bits,
            "half": 1,
            "slots": sizes.rows,
            "first_slot": sizes.row_bits,
            "last_slot": sizes.row_bits,
            "last_word": range(sizes.max_words),
            "whole_offset": sizes.offset_width,
            "last_offset": sizes.offset_width,
            "last_dim": range(sizes.max_head_dim),
            "groups": range(sizes.max_head_dim // sizes.config.vector_lanes + 1),
            "opens": 1,
        }
    )


class AppendPlanner(Pipelined):
    """Works out a command's addresses: a product and a few sums.

    K:  base = page + local * k_stride + (tile // groups of a set) * k_words
    V:  base = page + v_region + (local // share) * v_stride

    Parameters
    ----------
    sizes : AppendSizes

    Members
    -------
    i : stream of `append_command`
    o : stream of `append_plan`
        Up to two wait.
    latency : int
        4 cycles.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        super().__init__({"i": append_command(sizes.config)}, append_plan(sizes), cycles=3, credits=2)

    def datapath(self, pipe, i):
        sizes = self.sizes
        is_k = i.kind == AppendKind.K
        local = i.unit >> sizes.set_bits
        tile = i.place >> sizes.slot_bits
        plan = {
            "kind": i.kind,
            "format": i.format,
            "heads": i.heads,
            "set": i.unit[: sizes.set_bits],
            "local": local,
            "group": tile[: sizes.set_group_bits],
            "stride": Mux(is_k, i.k_stride, i.v_stride),
            "v_words": i.v_words,
            "share_bits": i.share_bits,
            "table_offset": tile,
            "window": i.place[sizes.row_bits : sizes.slot_bits],
            "last_dim": Mux(i.format == FormatCode.INT4, i.inputs - 2, i.inputs - 1),
            "groups": (i.inputs + sizes.config.vector_lanes - 1) >> sizes.lane_bits,
            "opens": is_k | (i.place == 0),
        } | self._place(i, is_k)
        pipe.carry(
            factor=Mux(is_k, local, local >> i.share_bits),
            start=(i.page + Mux(is_k, 0, i.v_region))[: sizes.local_bits],
            column=(tile >> sizes.set_group_bits) & is_k.replicate(len(tile)),
            k_words=i.k_words,
            scales=i.scales[sizes.word_bits :],
            # A unit has a scale for each position of a block.
            units=Cat(Const(0, sizes.block_bits - sizes.slot_bits), i.unit),
            **plan,
        )
        pipe.stage()
        pipe.carry(
            product=(pipe.take("factor") * pipe.stride)[: sizes.local_bits],
            moved=(pipe.take("start") + pipe.take("column") * pipe.take("k_words"))[: sizes.local_bits],
            table=pipe.take("scales") + pipe.take("units"),
            last_offset=1 + pipe.take("channel") * pipe.take("last_words"),
        )
        pipe.stage()
        pipe.carry(base=(pipe.take("product") + pipe.take("moved"))[: sizes.local_bits])
        pipe.stage()
        fields = append_plan(sizes)
        return Cat(_sized(pipe.take(name), fields[name].width) for name in fields.members)

    def _place(self, i, is_k):
        """Where within a tile the positions are."""
        sizes = self.sizes
        is_int4, is_int16 = i.format == FormatCode.INT4, i.format == FormatCode.INT16
        first = i.place[: sizes.row_bits]
        last = first + i.rows - 1
        pair = Cat(is_int4, Const(0, sizes.row_bits - 1))
        slots = [(last >= n) & ((first <= n) if n < sizes.rows - 1 else 1) for n in range(sizes.rows)]
        above = Cat(i.place, 0)[sizes.slot_bits :]  # of a position, its place without the slot
        input_word = Mux(is_int16, above, above >> 1)
        # Words of a channel in an input tile, and of the channels before the first, in a whole tile and in the last.
        channel = i.place[: sizes.slot_bits] >> is_int4
        last_word = (i.inputs - 1) >> Mux(is_int16, sizes.slot_bits, sizes.slot_bits + 1)
        bits = sizes.channel_word_bits
        masks = {name: (1 << bits[name]) - 1 for name in bits}
        last_words = (last_word & sizes.by_format(i.format, masks)) + 1
        whole = sizes.by_format(i.format, {name: channel << bits[name] for name in bits})
        return {
            "half": ~is_int16 & above[0],
            "slots": Cat(slots),
            "first_slot": first & ~pair,
            "last_slot": last[: sizes.row_bits] & ~pair,
            "last_word": last_word,
            "whole_offset": 1 + Mux(is_k, whole, input_word),
            "channel": channel,
            "last_words": last_words,
        }


def _sized(value, width):
    """The value in as many bits as its field has."""
    value = Value.cast(value)
    return Cat(value, Const(0, max(0, width - len(value))))[:width]
