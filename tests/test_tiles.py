"""The tile packer, against bytes written out by hand, a lane-by-lane reference, and the golden reading."""

import os

import numpy as np
import pytest

from edgeaccel.formats import FORMATS, tile_channels
from edgeaccel.golden.formats import datapath_words, integer_elements, scale_values
from edgeaccel.quantise import Quantised, quantise
from edgeaccel.tiles import TileLayout, pack, unpack

LANES = [16, 32, 64, 128, 256]


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def random_quantised(rng, name, shape, block):
    """Any legal codes, those that `quantise` does not make among them, and finite scales."""
    spec = FORMATS[name]
    low = 0 if name == "mxfp4" else -(1 << spec.element_bits - 1)
    scales_shape = (shape[0], -(-shape[1] // block))
    if name == "mxfp4":
        scales = rng.integers(0, 255, scales_shape).astype(np.uint8)
    else:
        scales = rng.integers(0, 0x7C00, scales_shape).astype(np.uint16).view(np.float16)
    codes = rng.integers(low, low + (1 << spec.element_bits), shape).astype(spec.code_dtype)
    return Quantised(format=name, codes=codes, scales=scales, block=block)


def random_case(rng, name, lanes):
    block = FORMATS[name].inputs_per_word(lanes) * int(rng.integers(1, 4))
    shape = (int(rng.integers(1, 3 * tile_channels(lanes))), int(rng.integers(1, 5 * block)))
    return random_quantised(rng, name, shape, block)


def tile_bytes(text):
    return np.array([list(bytes.fromhex(line)) for line in text.split("\n") if line.strip()], np.uint8)


@pytest.mark.parametrize(
    ("name", "codes", "scales", "expected"),
    [
        (
            "int4",
            [range(8), range(-8, 0), [1] * 8],
            [[1.0], [2.0], [-0.5]],
            """
            00 3c  00 40  00 b8  00 00
            80 c4 91 d5 a2 e6 b3 f7
            01 01 01 01 01 01 01 01
            """,
        ),
        (
            "int8",
            [range(8), [-128, -1, 127, 16, -16, 15], [0x21, 0x43]],
            [[1.0], [2.0], [2.0**-24]],
            """
            00 3c  00 40  01 00  00 00
            00 04 01 05 02 06 03 07
            80 f0 ff 0f 7f 00 10 00
            21 00 43 00 00 00 00 00
            00 00 00 00 00 00 00 00
            """,
        ),
        (
            "int16",
            [[0x0123, 0x4567, -0x8000, -1, 0x1A, 0x2B00], [256]],
            [[1.0], [0.5]],
            """
            00 3c  00 38  00 00  00 00
            23 01 67 45 00 80 ff ff
            1a 00 00 2b 00 00 00 00
            00 01 00 00 00 00 00 00
            00 00 00 00  00 00 00 00
            00 00 00 00  00 00 00 00
            00 00 00 00  00 00 00 00
            00 00 00 00  00 00 00 00
            00 00 00 00  00 00 00 00
            """,
        ),
        (
            "mxfp4",
            [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15], [0xA, 0xB, 0xC, 0xD, 1, 1, 1, 1]],
            [[1, 2], [3, 4], [5, 254]],
            """
            01 03 05 7f  02 04 fe 7f
            40 0a 51 0b 62 0c 73 0d
            c8 01 d9 01 ea 01 fb 01
            """,
        ),
    ],
)
def test_bytes(name, codes, scales, expected):
    """One tile at 16 lanes: words of 8 bytes, four channels, the last of them padding."""
    spec = FORMATS[name]
    inputs = max(len(channel) for channel in codes)
    codes = [[*channel] + [0] * (inputs - len(channel)) for channel in codes]
    quantised = Quantised(
        format=name,
        codes=np.array(codes).astype(spec.code_dtype),
        scales=np.array(scales).astype(spec.scale_dtype),
        block=4 if name == "mxfp4" else 8,
    )
    np.testing.assert_array_equal(pack(quantised, lanes=16)[0], tile_bytes(expected))


def reference_pack(quantised, lanes):
    """Lane by lane, from the layout as it is written down: no shared code with `pack`."""
    name, block, (channels, inputs) = quantised.format, quantised.block, quantised.shape
    per_word = {"int4": lanes // 2, "int8": lanes // 2, "int16": lanes // 4, "mxfp4": lanes // 4}[name]
    per_group = {"int4": 2, "int8": 1, "int16": 1, "mxfp4": 4}[name]
    per_tile, blocks = lanes // 4, 2 if name == "mxfp4" else 1
    n_groups, width = per_tile // per_group, block * blocks

    def group_words(tile):
        """Words of a block in an input tile; only what is not MXFP4 may end early."""
        n_inputs = width if name == "mxfp4" else min(width, inputs - tile * width)
        return -(-n_inputs // blocks // per_word)

    def tile_start(tile):
        return sum(1 + blocks * n_groups * group_words(before) for before in range(tile))

    n_words = tile_start(-(-inputs // width))
    tiles = [[[0] * lanes for _ in range(n_words)] for _ in range(-(-channels // per_tile))]
    if name == "mxfp4":
        for channel_tile in tiles:
            for tile in range(-(-inputs // width)):
                channel_tile[tile_start(tile)] = [0xF, 0x7] * (lanes // 2)

    for (n, b), scale in np.ndenumerate(quantised.scales):
        digits = 2 if name == "mxfp4" else 4
        bits = int(scale) if name == "mxfp4" else int(scale.view(np.uint16))
        first = ((b % blocks) * per_tile + n % per_tile) * digits
        for d in range(digits):
            tiles[n // per_tile][tile_start(b // blocks)][first + d] = (bits >> 4 * d) & 15

    places_of_inputs = []
    for k in range(inputs):
        tile, b = k // width, k // block % blocks
        word, i = divmod(k % block, per_word)
        places_of_inputs.append((tile_start(tile) + 1, b, group_words(tile), word, i))
    for (n, k), code in np.ndenumerate(quantised.codes):
        group, c = divmod(n % per_tile, per_group)
        first, b, of_group, word, i = places_of_inputs[k]
        word += first + (b * n_groups + group) * of_group
        match name:
            case "int4":
                places = [2 * i + c]
            case "int8":
                places = [2 * i, 2 * i + 1]
            case "int16":
                pair, upper_pair = i, i + lanes // 4
                places = [2 * pair, 2 * pair + 1, 2 * upper_pair, 2 * upper_pair + 1]
            case "mxfp4":
                places = [2 * (c // 2 * lanes // 4 + i) + c % 2]
        for d, lane in enumerate(places):
            half, pair = divmod(lane // 2, lanes // 4)
            tiles[n // per_tile][word][2 * (2 * pair + half) + lane % 2] = (int(code) >> 4 * d) & 15

    nibbles = np.array(tiles, np.uint8)
    return nibbles[..., ::2] + 16 * nibbles[..., 1::2]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", FORMATS)
def test_pack_equals_the_lane_by_lane_reference(name, lanes, rng):
    for _ in range(3):
        quantised = random_case(rng, name, lanes)
        np.testing.assert_array_equal(pack(quantised, lanes=lanes), reference_pack(quantised, lanes), strict=True)


@pytest.mark.parametrize("lanes", LANES)
def test_elements_in_memory(lanes):
    """As a writer of elements one by one sees them: int16 ascending, int8 from both halves of a word in turn."""
    n_inputs, block = lanes, 2 * lanes
    codes = np.arange(n_inputs)[np.newaxis] - n_inputs // 2
    for name, dtype, order in (
        ("int16", "<i2", np.arange(n_inputs)),
        ("int8", "i1", np.arange(n_inputs).reshape(2, 2, -1).swapaxes(1, 2).ravel()),
    ):
        quantised = Quantised(
            format=name, codes=codes.astype(FORMATS[name].code_dtype), scales=np.ones((1, 1), np.float16), block=block
        )
        words = pack(quantised, lanes=lanes)[0, 1:].reshape(-1).view(dtype)
        np.testing.assert_array_equal(words[:n_inputs], codes[0, order])


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(name, lanes, rng):
    for _ in range(5):
        quantised = random_case(rng, name, lanes)
        tiles = pack(quantised, lanes=lanes)
        back = unpack(tiles, format=name, shape=quantised.shape, block=quantised.block, lanes=lanes)
        assert (back.format, back.block) == (name, quantised.block)
        np.testing.assert_array_equal(back.codes, quantised.codes, strict=True)
        np.testing.assert_array_equal(back.scales, quantised.scales, strict=True)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", FORMATS)
def test_golden_reads_the_weights(name, lanes, rng):
    """Whole tiles, read word by word by the golden model, give the weights that were packed."""
    spec = FORMATS[name]
    block = 2 * spec.inputs_per_word(lanes)
    layout = TileLayout(format=name, lanes=lanes, block=block)
    weights = rng.standard_normal((2 * layout.channels, 3 * layout.inputs)).astype(np.float32)
    quantised = quantise(weights, name, block=block)
    read = np.empty(weights.shape)
    tiles = pack(quantised, lanes=lanes).reshape(2, 3, layout.words_per_tile, -1)
    for (ct, it), _ in np.ndenumerate(np.empty((2, 3))):
        words = iter(tiles[ct, it])
        scales = scale_values(next(words), name)
        assert scales.shape == (layout.blocks, layout.channels)
        for b in range(layout.blocks):
            for g in range(layout.groups):
                channels = slice(g * spec.channels_per_word, (g + 1) * spec.channels_per_word)
                elements = np.hstack([integer_elements(datapath_words(next(words)), name) for _ in range(2)])
                rows = slice(ct * layout.channels + channels.start, ct * layout.channels + channels.stop)
                inputs = slice(it * layout.inputs + b * block, it * layout.inputs + (b + 1) * block)
                read[rows, inputs] = elements * 2.0**spec.lsb_exponent * scales[b, channels, np.newaxis]
        assert next(words, None) is None
    np.testing.assert_array_equal(read, quantised.dequantise())


def test_layout_figures():
    layouts = [TileLayout(format=spec.name, lanes=128, block=spec.block) for spec in FORMATS.values()]
    assert [layout.words_per_tile for layout in layouts] == [33, 65, 129, 17]
    assert [layout.bits_per_weight for layout in layouts] == [4.125, 8.125, 16.125, 4.25]
    assert [layout.inputs for layout in layouts] == [128, 128, 128, 64]
    assert [layout.groups for layout in layouts] == [16, 32, 32, 8]
    assert layouts[0].tiles_shape((4096, 11008)) == (128, 86 * 33, 64)
    assert layouts[0].tiles_shape((33, 129)) == (2, 33 + 17, 64)
    # A key of 64 dimensions: what there would be for 128 is not stored, except in pairs of blocks.
    assert [layout.row_words(64) for layout in layouts] == [17, 33, 65, 17]
    assert [layout.row_words(1) for layout in layouts] == [17, 33, 33, 17]
    assert [layout.row_words(129) for layout in layouts] == [33 + 17, 65 + 33, 129 + 33, 3 * 17]
    for layout in layouts:
        for inputs in range(1, layout.inputs + 1):
            assert layout.tile_words(inputs) == layout.row_words(inputs)
            assert layout.row_words(3 * layout.inputs + inputs) == 3 * layout.words_per_tile + layout.tile_words(inputs)


def test_layout_errors():
    with pytest.raises(ValueError, match=r"^format must be one of 'int4', 'int8', 'int16', 'mxfp4', not 'q4_0'$"):
        TileLayout(format="q4_0", lanes=128, block=128)
    with pytest.raises(ValueError, match=r"^lanes must be a power of two of at least 16, not 48$"):
        TileLayout(format="int4", lanes=48, block=48)
    with pytest.raises(
        ValueError, match=r"^block must be a positive multiple of 64, .* mxfp4 word at 256 lanes, not 32$"
    ):
        TileLayout(format="mxfp4", lanes=256, block=32)


def test_tile_errors():
    layout = TileLayout(format="mxfp4", lanes=128, block=32)
    for inputs in (0, 65):
        with pytest.raises(ValueError, match=f"^a tile has 1 to 64 inputs, not {inputs}$"):
            layout.tile_words(inputs)


def test_pack_errors(rng):
    quantised = random_quantised(rng, "int8", (4, 100), 96)
    with pytest.raises(ValueError, match=r"^block must be a positive multiple of 64, .* at 128 lanes, not 96$"):
        pack(quantised, lanes=128)
    with pytest.raises(ValueError, match=r"^lanes must be a power of two of at least 16, not 8$"):
        pack(quantised, lanes=8)


def test_unpack_errors(rng):
    tiles = pack(random_quantised(rng, "int8", (5, 20), 16), lanes=16)
    good = {"format": "int8", "shape": (5, 20), "block": 16, "lanes": 16}
    unpack(tiles, **good)
    wanted = r"^tiles of a 5 x 20 int8 matrix in blocks of 16 at 16 lanes must be uint8 \(2, 14, 8\), not "
    with pytest.raises(ValueError, match=wanted + r"uint8 \(2, 9, 8\)$"):
        unpack(tiles[:, :9], **good)
    with pytest.raises(ValueError, match=wanted + r"int8 \(2, 14, 8\)$"):
        unpack(tiles.view(np.int8), **good)
    with pytest.raises(ValueError, match=r"^tiles of a 5 x 33 int8 matrix .* \(2, 23, 8\), not "):
        unpack(tiles, **{**good, "shape": (5, 33)})
    with pytest.raises(ValueError, match=r"^shape must be at least one channel by one input, not \(0, 20\)$"):
        unpack(tiles, **{**good, "shape": (0, 20)})
