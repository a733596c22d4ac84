"""Tiles: quantised matrices as the words that stream from memory into the array."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgeaccel.formats import Format, get_format, tile_channels
from edgeaccel.quantise import Quantised

__all__ = ["TileLayout", "lane_order", "memory_order", "pack", "unpack"]


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """What a tile holds: one word of scales, then the words of `channels` output channels by `inputs` inputs.

    A word is ``lanes`` 4-bit digits, two to a byte; `Format` says which lane holds what. Byte ``2 k + h`` of a word
    of codes in memory is lane pair ``h * lanes / 4 + k``, its even lane in the lower half. So the two bytes of a
    16-bit element, which lie in both halves of the lanes, are neighbours in memory, little-endian, and whatever writes
    elements one by one - the KV cache - writes each to one place. The array undoes it with wires.

    The scale word holds the scales of all channels for the tile's first block, then for its second, each little-endian.
    Then come, for each block, for each group of ``channels_per_word`` channels, the block's words in ascending order
    of input.

    A tile spans as many blocks as its scale word has scales for: one with FP16, two with E8M0. The input tiles of a
    channel tile follow each other. If the matrix has fewer inputs than its input tiles, the last of them ends early:
    with `inputs` inputs in it, a group of channels has ceil(inputs / inputs_per_word) words. A tile of two blocks is
    always whole.

    Parameters
    ----------
    format : str
        A key of `FORMATS`.
    lanes : int
        Digits in a word, see `check_lanes`.
    block : int
        Inputs that share a scale: a multiple of the format's ``inputs_per_word``.

    Raises
    ------
    ValueError
        An unknown format, or lanes or a block that are not legal.
    """

    format: str
    lanes: int
    block: int

    def __post_init__(self):
        self.spec.words_per_block(self.lanes, self.block)

    @cached_property
    def spec(self) -> Format:
        """The format itself."""
        return get_format(self.format)

    @cached_property
    def channels(self) -> int:
        """Output channels of a tile."""
        return tile_channels(self.lanes)

    @cached_property
    def groups(self) -> int:
        """Channel groups of a tile; a word serves one group."""
        return self.channels // self.spec.channels_per_word

    @cached_property
    def blocks(self) -> int:
        """Blocks of inputs of a tile."""
        return 4 * self.lanes // (self.spec.scale_bits * self.channels)

    @cached_property
    def inputs(self) -> int:
        """Inputs of a tile."""
        return self.blocks * self.block

    @cached_property
    def inputs_per_word(self) -> int:
        """Inputs that a word carries, for each channel of its group."""
        return self.spec.inputs_per_word(self.lanes)

    @cached_property
    def words_per_block(self) -> int:
        """Words of one block of one channel group."""
        return self.spec.words_per_block(self.lanes, self.block)

    @cached_property
    def words_per_tile(self) -> int:
        """Words of a whole tile, the scale word among them."""
        return self.tile_words(self.inputs)

    @property
    def bits_per_weight(self) -> float:
        """Memory per weight of a full tile, scales included."""
        return self.words_per_tile * 4 * self.lanes / (self.channels * self.inputs)

    def block_words(self, inputs: int) -> int:
        """Words of a block, for each channel group, in a tile of ``inputs`` inputs; ValueError if it has no room."""
        if not 1 <= inputs <= self.inputs:
            raise ValueError(f"a tile has 1 to {self.inputs} inputs, not {inputs!r}")
        return self.words_per_block if self.blocks > 1 else -(-inputs // self.inputs_per_word)

    def tile_words(self, inputs: int) -> int:
        """Words of an input tile with ``inputs`` inputs, the scale word among them."""
        return 1 + self.blocks * self.groups * self.block_words(inputs)

    def row_words(self, inputs: int) -> int:
        """Words of all input tiles of a channel tile, in a matrix of ``inputs`` inputs."""
        n_whole, rest = divmod(inputs, self.inputs)
        return n_whole * self.words_per_tile + (self.tile_words(rest) if rest else 0)

    def tiles_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Shape of the packed bytes of a matrix of ``shape`` [N output channels, K inputs]."""
        channels, inputs = shape
        return -(-channels // self.channels), self.row_words(inputs), self.lanes // 2


def pack(quantised: Quantised, *, lanes: int) -> np.ndarray:
    """Pack a quantised matrix into tiles: uint8 [channel tiles, row_words, lanes // 2].

    In memory order: channel tiles outermost, then input tiles ascending, then as in `TileLayout`. Where the
    matrix does not fill its words, codes are zero and scales the format's ``zero_scale``.

    Raises ValueError if the lanes are not legal or the matrix's block is no whole number of words.
    """
    layout = TileLayout(format=quantised.format, lanes=lanes, block=quantised.block)
    spec = layout.spec
    packed = np.empty(layout.tiles_shape(quantised.shape), np.uint8)
    for part in _parts(layout, quantised.shape[1]):
        tiles = part.tiles(packed)  # a view
        channel_tiles, input_tiles = tiles.shape[:2]
        scales = np.full(
            (channel_tiles * layout.channels, input_tiles * layout.blocks),
            spec.zero_scale,
            spec.scale_dtype.newbyteorder("<"),
        )
        source = quantised.scales[:, part.blocks]
        scales[: source.shape[0], : source.shape[1]] = source
        scales = scales.reshape(channel_tiles, layout.channels, input_tiles, layout.blocks).transpose(0, 2, 3, 1)
        tiles[:, :, 0] = np.ascontiguousarray(scales).view(np.uint8).reshape(channel_tiles, input_tiles, -1)

        for tile, words in enumerate(tiles[:, :, 1:]):  # by channel tile, which keeps the temporaries small
            n_inputs = input_tiles * layout.blocks * part.block_words * layout.inputs_per_word
            codes = np.zeros((layout.channels, n_inputs), spec.code_dtype)
            source = quantised.codes[tile * layout.channels : (tile + 1) * layout.channels, part.inputs]
            codes[: source.shape[0], : source.shape[1]] = source
            words[:] = memory_order(_words(codes, layout, part.block_words).reshape(words.shape))
    return packed


def unpack(tiles: np.ndarray, *, format: str, shape: tuple[int, int], block: int, lanes: int) -> Quantised:
    """The matrix of ``shape`` [N output channels, K inputs] that `pack` made ``tiles`` of.

    Raises ValueError if the lanes or the block are not legal, or the tiles' shape or dtype does not fit.
    """
    layout = TileLayout(format=format, lanes=lanes, block=block)
    spec = layout.spec
    channels, inputs = shape
    if channels < 1 or inputs < 1:
        raise ValueError(f"shape must be at least one channel by one input, not {shape}")
    if tiles.shape != layout.tiles_shape(shape) or tiles.dtype != np.uint8:
        raise ValueError(
            f"tiles of a {channels} x {inputs} {format} matrix in blocks of {block} at {lanes} lanes must be"
            f" uint8 {layout.tiles_shape(shape)}, not {tiles.dtype} {tiles.shape}"
        )
    codes = np.empty(shape, spec.code_dtype)
    scales = np.empty((channels, -(-inputs // block)), spec.scale_dtype)
    for part in _parts(layout, inputs):
        of_part = part.tiles(tiles)
        channel_tiles, input_tiles = of_part.shape[:2]
        read = np.ascontiguousarray(of_part[:, :, 0]).view(spec.scale_dtype.newbyteorder("<"))
        read = read.reshape(channel_tiles, input_tiles, layout.blocks, layout.channels).transpose(0, 3, 1, 2)
        target = scales[:, part.blocks]
        target[:] = read.reshape(channel_tiles * layout.channels, -1)[:channels, : target.shape[1]]
        for tile, words in enumerate(of_part[:, :, 1:]):
            target = codes[tile * layout.channels : (tile + 1) * layout.channels, part.inputs]
            read = _codes(lane_order(words), layout, part.block_words)
            target[:] = read[: target.shape[0], : target.shape[1]]
    return Quantised(format=format, codes=codes, scales=scales, block=block)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Neighbouring input tiles of as many words: where they are in a matrix and in its packed words."""

    inputs: slice
    blocks: slice
    words: slice
    tile_words: int
    block_words: int

    def tiles(self, packed):
        """[channel tiles, input tiles, words of a tile, bytes], a view of what `pack` gives."""
        of_part = packed[:, self.words]
        return of_part.reshape(len(packed), -1, self.tile_words, packed.shape[-1])


def _parts(layout, inputs):
    """The whole input tiles of a matrix, and the one that is not."""
    n_whole = inputs // layout.inputs
    first, first_word = n_whole * layout.inputs, n_whole * layout.words_per_tile
    for start, end, n_inputs in ((0, first, layout.inputs), (first, inputs, inputs - first)):
        if start < end:
            yield _Part(
                inputs=slice(start, end),
                blocks=slice(start // layout.block, -(-end // layout.block)),
                words=slice(0, first_word) if start < first else slice(first_word, None),
                tile_words=layout.tile_words(n_inputs),
                block_words=layout.block_words(n_inputs),
            )


def memory_order(words: np.ndarray) -> np.ndarray:
    """Words of codes [..., pairs of lanes] as their bytes lie in memory: the first pair of each half, and so on."""
    return words.reshape(*words.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(words.shape)


def lane_order(words: np.ndarray) -> np.ndarray:
    """Words of codes out of memory [..., bytes] as pairs of lanes: the inverse of `memory_order`."""
    return words.reshape(*words.shape[:-1], -1, 2).swapaxes(-1, -2).reshape(words.shape)


def _words(codes: np.ndarray, layout: TileLayout, block_words: int) -> np.ndarray:
    """Words of ``codes`` [channels, inputs]: bytes [blocks, groups, words, pairs per input, inputs per word].

    The last two axes are the bytes of one word, byte ``p`` being lane pair ``p``.
    """
    spec = layout.spec
    shifts = 4 * np.arange(spec.digits, dtype=codes.dtype)
    digits = ((codes[:, np.newaxis] >> shifts[:, np.newaxis]) & 15).astype(np.uint8)
    digits = digits.reshape(layout.groups, spec.pairs_per_input, 2, -1)
    pairs = digits[:, :, 0] | digits[:, :, 1] << 4
    pairs = pairs.reshape(*pairs.shape[:2], -1, block_words, layout.inputs_per_word)
    return pairs.transpose(2, 0, 3, 1, 4)


def _codes(words: np.ndarray, layout: TileLayout, block_words: int) -> np.ndarray:
    """Codes [channels, inputs] of one channel tile's words: the inverse of `_words`."""
    spec = layout.spec
    pairs = words.reshape(-1, layout.groups, block_words, spec.pairs_per_input, layout.inputs_per_word)
    pairs = pairs.transpose(1, 3, 0, 2, 4).reshape(layout.groups, spec.pairs_per_input, 1, -1)
    digits = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(layout.channels, spec.digits, -1)
    # The last digit goes to the type's top bits, so that the shift back extends the sign.
    spare = 8 * spec.code_dtype.itemsize - spec.element_bits
    codes = np.zeros((layout.channels, digits.shape[2]), spec.code_dtype)
    for i in range(spec.digits):
        codes |= digits[:, i].astype(spec.code_dtype) << (4 * i + spare)
    return codes >> spare
