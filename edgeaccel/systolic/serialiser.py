"""Serialiser: the sums of a block, of all channels that share a word, each to its channel's accumulator."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.formats import FORMATS
from edgeaccel.pe.digit import is_format
from edgeaccel.systolic.beat import block_tag, word

__all__ = ["Serialiser", "term"]


def term(config, sum_width):
    """A block sum of each row with its scale, as `edgeaccel.pe.ScaledAccumulator` takes it, or `SetAccumulator`."""
    tag = block_tag(config)
    which = {"set": tag["set"].shape} if config.sets > 1 else {}
    return data.StructLayout(
        which
        | {
            "sums": data.ArrayLayout(signed(sum_width), config.rows),
            "exponents": tag["exponents"].shape,
            "nans": tag["nans"].shape,
            "scale": 16,
            "e8m0": 1,
            "first": 1,
            "last": 1,
        }
    )


class Serialiser(wiring.Component):
    """Hands block sums out, `scalers` channels a cycle, each with its scale.

    Channel `c` of a tile belongs to scaler `c mod scalers`. A step takes as many channels of a block's sums as there
    are scalers, in ascending order; sums and tag are done with after as many steps as that takes, and a word of scales
    after all channels of all blocks that it has scales for.

    Parameters
    ----------
    config : Config
    sum_width : int
        Of a block sum.
    n_sums : int
        Most channels that share a word.

    Members
    -------
    i_sums : stream of signed(sum_width) x n_sums x rows
    i_tags : stream of `block_tag`
        One for each item of `i_sums`.
    i_scales : stream of `word`
    o : array of streams of `term`, one for each scaler
        A step happens when all of them are ready.
    """

    def __init__(self, config, *, sum_width, n_sums):
        self.config = config
        sums = data.ArrayLayout(data.ArrayLayout(signed(sum_width), n_sums), config.rows)
        super().__init__(
            {
                "i_sums": In(stream.Signature(sums)),
                "i_tags": In(stream.Signature(block_tag(config))),
                "i_scales": In(stream.Signature(word(config))),
                "o": Out(stream.Signature(term(config, sum_width))).array(config.scalers),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, tag = self.config, self.i_tags.p
        n_scalers, n_channels = config.scalers, config.tile_channels

        channel = Signal(range(n_channels))  # the first of the step
        second_block = Signal()  # of those that share a word of E8M0 scales
        is_e8m0 = is_format(tag.format, _names(config, scale="e8m0"), config.formats)
        shared = Signal(range(max(FORMATS[name].channels_per_word for name in config.formats) + 1))
        for width in (1, 2, 4):
            with m.If(is_format(tag.format, _names(config, channels_per_word=width), config.formats)):
                m.d.comb += shared.eq(width)
        taken = Signal.like(shared)  # channels of a step
        m.d.comb += taken.eq(Mux(shared > n_scalers, n_scalers, shared))

        step = Signal()
        offered = self.i_sums.valid & self.i_tags.valid & self.i_scales.valid
        m.d.comb += step.eq(offered & Cat(o.ready for o in self.o).all())
        within = channel & (shared - 1)
        end_of_sums = within + taken == shared
        end_of_block = channel + taken == n_channels
        with m.If(step):
            m.d.sync += channel.eq(channel + taken)
            with m.If(end_of_block):
                m.d.sync += second_block.eq(~second_block & is_e8m0)
        m.d.comb += [
            self.i_sums.ready.eq(step & end_of_sums),
            self.i_tags.ready.eq(step & end_of_sums),
            self.i_scales.ready.eq(step & end_of_block & (second_block | ~Cat(is_e8m0).any())),
        ]

        scales = self.i_scales.p.as_value()
        halves = [scales[16 * n : 16 * n + 16] for n in range(n_channels)]
        bytes_ = [scales[8 * n : 8 * n + 8] for n in range(2 * n_channels)]
        for n, o in enumerate(self.o):
            place = Signal(range(n_channels), name=f"place{n}")  # channel that this scaler has in the step
            m.d.comb += [
                place.eq(Cat(Const(n, exact_log2(n_scalers)), channel[exact_log2(n_scalers) :])),
                o.valid.eq(step & (place >= channel) & (place < channel + taken)),
                o.p.scale.eq(select(halves, place)),
                o.p.e8m0.eq(is_e8m0),
                o.p.exponents.eq(tag.exponents),
                o.p.nans.eq(tag.nans),
                o.p.first.eq(tag.first),
                o.p.last.eq(tag.last),
                *([o.p.set.eq(tag.set)] if config.sets > 1 else []),
            ]
            with m.If(is_e8m0):
                m.d.comb += o.p.scale.eq(select(bytes_, Cat(place, second_block)))
            for row, sums in zip(o.p.sums, self.i_sums.p, strict=True):
                m.d.comb += row.eq(select(list(sums), place & (shared - 1)))
        return m


def select(items, index):
    """items[index], the items being as many as a power of two: a tree of multiplexers."""
    for bit in list(index)[: exact_log2(len(items))]:
        items = [Mux(bit, odd, even) for even, odd in zip(items[0::2], items[1::2], strict=True)]
    return items[0]


def _names(config, **fields):
    """Formats of the build whose row in the table has these values."""
    rows = (FORMATS[name] for name in config.formats)
    return tuple(row.name for row in rows if all(getattr(row, key) == value for key, value in fields.items()))
