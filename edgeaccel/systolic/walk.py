"""Tile walk: which activations each word of a tile meets, and where a block ends."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.pe.digit import FormatCode, choose, is_format
from edgeaccel.systolic.beat import block_tag, tile_lines, tile_tag, word

__all__ = ["TileWalk"]


class TileWalk(wiring.Component):
    """Goes through the words of a tile: one of scales, then, for each block, for each group of channels that share a
    word, the words of the block: as many as there are lines of activations, or half as many if the tile has two blocks.

    Takes one word a cycle, with no gap between tiles.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_tags : stream of `tile_tag`
        Taken with the tile's last word.
    i_words : stream of `word`
        As they lie in memory, see `edgeaccel.tiles.TileLayout`.
    keep, rewind : out
        The offered word is of a tile that comes again for the next set; it is the last one of that.
    line : out
        Of the activation store: what the word meets.
    o_codes : stream of {word, format, last}
        For the datapath, pairs of lanes in its order; `last` with the last word of a block.
    o_blocks : stream of `block_tag`
        One for each block of `o_codes`, with its last word.
    o_scales : stream of `word`
    """

    def __init__(self, config):
        self.config = config
        codes = data.StructLayout({"word": word(config), "format": FormatCode, "last": 1})
        super().__init__(
            {
                "i_tags": In(stream.Signature(tile_tag(config))),
                "i_words": In(stream.Signature(word(config))),
                "keep": Out(1),
                "rewind": Out(1),
                "line": Out(range(tile_lines(config))),
                "o_codes": Out(stream.Signature(codes)),
                "o_blocks": Out(stream.Signature(block_tag(config))),
                "o_scales": Out(stream.Signature(word(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tag, words, codes, blocks, scales = self.i_tags, self.i_words, self.o_codes, self.o_blocks, self.o_scales
        layouts = {name: self.config.layout(name) for name in self.config.formats}

        def of_format(name, values):
            """The running format's value of those by name."""
            chosen = Signal(range(max(values.values()) + 1), name=name)
            for number in dict.fromkeys(values.values()):
                names = [format for format, value in values.items() if value == number]
                with m.If(is_format(tag.p.format, names, self.config.formats)):
                    m.d.comb += chosen.eq(number)
            return chosen

        two_blocks = tuple(name for name, layout in layouts.items() if layout.blocks > 1)
        has_two = is_format(tag.p.format, two_blocks, self.config.formats)
        last_word = Signal(range(max(layout.words_per_block for layout in layouts.values())))  # of a block
        m.d.comb += last_word.eq(choose(has_two, tag.p.last_line >> 1, tag.p.last_line))
        last_group = of_format("last_group", {name: layout.groups - 1 for name, layout in layouts.items()})
        last_block = of_format("last_block", {name: layout.blocks - 1 for name, layout in layouts.items()})

        bits = words.p.as_value()
        pairs = [bits[8 * n : 8 * n + 8] for n in range(self.config.word_bytes)]

        is_codes = Signal()  # the scales are through
        word_number, group, block = Signal.like(last_word), Signal.like(last_group), Signal.like(last_block)
        first_line = Signal.like(self.line)  # of the block
        ends_block, ends_blocks, ends_tile = Signal(), Signal(), Signal()
        offered, take_codes, take_scales = Signal(), Signal(), Signal()
        m.d.comb += [
            self.line.eq(first_line + word_number),
            ends_block.eq(word_number == last_word),
            ends_blocks.eq(ends_block & (group == last_group)),
            ends_tile.eq(ends_blocks & (block == last_block)),
            offered.eq(tag.valid & words.valid),
            codes.valid.eq(offered & is_codes & (blocks.ready | ~ends_block)),
            codes.p.word.eq(Cat(pairs[0::2], pairs[1::2])),
            codes.p.format.eq(tag.p.format),
            codes.p.last.eq(ends_block),
            scales.valid.eq(offered & ~is_codes),
            scales.p.eq(words.p),
            take_codes.eq(codes.valid & codes.ready),
            take_scales.eq(scales.valid & scales.ready),
            words.ready.eq(take_codes | take_scales),
            tag.ready.eq(take_codes & ends_tile),
            blocks.valid.eq(take_codes & ends_block),
            blocks.p.exponents.eq(tag.p.exponents),
            blocks.p.nans.eq(tag.p.nans),
            blocks.p.format.eq(tag.p.format),
            blocks.p.set.eq(tag.p.set),
            self.keep.eq(tag.p.again),
            self.rewind.eq(tag.p.again & is_codes & ends_tile),
            blocks.p.first.eq(tag.p.first_tile & (block == 0)),
            blocks.p.last.eq(tag.p.last_tile & (block == last_block)),
        ]
        with m.If(take_scales):
            m.d.sync += is_codes.eq(1)
        with m.If(take_codes):
            m.d.sync += word_number.eq(Mux(ends_block, 0, word_number + 1))
            with m.If(ends_block):
                m.d.sync += group.eq(Mux(ends_blocks, 0, group + 1))
            with m.If(ends_blocks):
                m.d.sync += [
                    block.eq(Mux(ends_tile, 0, block + 1)),
                    first_line.eq(Mux(ends_tile, 0, first_line + last_word + 1)),
                ]
            with m.If(ends_tile):
                m.d.sync += is_codes.eq(0)
        return m
