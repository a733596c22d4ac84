"""The format table, held against the golden reading of a word and against ml_dtypes."""

import ast
import inspect

import ml_dtypes
import numpy as np
import pytest

import edgeaccel.golden.formats
from edgeaccel.formats import FORMATS, check_lanes, get_format, tile_channels
from edgeaccel.golden.formats import integer_elements, scale_values

CODES = {
    "int4": np.arange(-8, 8, dtype=np.int8),
    "int8": np.arange(-128, 128, dtype=np.int16).astype(np.int8),
    "int16": np.arange(-32768, 32768).astype(np.int16),
    "mxfp4": np.arange(16, dtype=np.uint8),
}


def test_table():
    # code, element_bits, digits, channels_per_word, block, scale, scale_bits, lsb_exponent, max_abs
    assert {
        spec.name: (
            *(spec.code, spec.element_bits, spec.digits, spec.channels_per_word, spec.block),
            *(spec.scale, spec.scale_bits, spec.lsb_exponent, spec.max_abs),
        )
        for spec in FORMATS.values()
    } == {
        "int4": (0, 4, 1, 2, 128, "fp16", 16, 0, 8),
        "int8": (1, 8, 2, 1, 128, "fp16", 16, 0, 128),
        "int16": (2, 16, 4, 1, 128, "fp16", 16, 0, 32768),
        "mxfp4": (3, 4, 1, 4, 32, "e8m0", 8, -1, 12),
    }
    assert list(FORMATS) == ["int4", "int8", "int16", "mxfp4"]


def test_digits_fit_the_multiplier():
    for spec in FORMATS.values():
        assert all(len(table) == 16 and min(table) >= -16 and max(table) <= 15 for table in spec.digit_table)
        assert hash(spec)  # formats key caches and configurations


@pytest.mark.parametrize("name", FORMATS)
def test_elements_of_every_code(name):
    spec, codes = get_format(name), CODES[name]
    elements = spec.elements(codes)
    assert elements.dtype == np.int32
    if name == "mxfp4":
        values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float64)
        np.testing.assert_array_equal(elements * 2.0**spec.lsb_exponent, values)
    else:
        np.testing.assert_array_equal(elements, codes)
    assert np.abs(elements).max() == spec.max_abs


def test_int4_digits_are_ml_dtypes_int4():
    nibbles = np.arange(16, dtype=np.uint8)
    np.testing.assert_array_equal(FORMATS["int4"].digit_table[0], nibbles.view(ml_dtypes.int4).astype(int))


def test_golden_elements_of_every_code():
    """Words of 16 lanes, 8 bytes, that between them hold every code in every place of the byte."""
    every_byte = np.arange(256, dtype=np.uint8).reshape(32, 8)
    lower, upper = every_byte & 15, every_byte >> 4

    int4 = integer_elements(every_byte, "int4")
    np.testing.assert_array_equal(int4, np.stack([lower.view(ml_dtypes.int4), upper.view(ml_dtypes.int4)], 1))

    int8 = integer_elements(every_byte, "int8")
    np.testing.assert_array_equal(int8, every_byte.view(np.int8)[:, np.newaxis])

    int16 = CODES["int16"].reshape(-1, 1, 4)
    words = np.concatenate([int16[:, 0] & 255, (int16[:, 0] >> 8) & 255], axis=1).astype(np.uint8)
    np.testing.assert_array_equal(integer_elements(words, "int16"), int16)

    mxfp4 = integer_elements(every_byte, "mxfp4")
    halves = [lower[:, :4], upper[:, :4], lower[:, 4:], upper[:, 4:]]
    expected = [half.copy().view(ml_dtypes.float4_e2m1fn).astype(np.float64) * 2 for half in halves]
    np.testing.assert_array_equal(mxfp4, np.stack(expected, 1))

    for name, elements in (("int4", int4), ("int8", int8), ("mxfp4", mxfp4)):
        assert elements.dtype == np.int64
        spec = get_format(name)
        assert elements.shape[1:] == (spec.channels_per_word, spec.inputs_per_word(16))


def test_golden_scales_of_every_code():
    halves = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(
        scale_values(halves.astype("<u2").view(np.uint8).reshape(-1, 8), "int4"),
        halves.view(np.float16).astype(np.float64).reshape(-1, 1, 4),
    )
    codes = np.arange(256, dtype=np.uint8)
    scales = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    np.testing.assert_array_equal(scale_values(codes.reshape(-1, 8), "mxfp4"), scales.reshape(-1, 2, 4), strict=True)


def test_golden_is_independent():
    tree = ast.parse(inspect.getsource(edgeaccel.golden.formats))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import numpy as np"]


def test_word_geometry():
    assert [spec.inputs_per_word(128) for spec in FORMATS.values()] == [64, 64, 32, 32]
    assert [spec.pairs_per_input for spec in FORMATS.values()] == [1, 1, 2, 2]
    assert [spec.words_per_block(128, spec.block) for spec in FORMATS.values()] == [2, 2, 4, 1]
    assert [tile_channels(lanes) for lanes in (16, 32, 64, 128, 256)] == [4, 8, 16, 32, 64]
    for spec in FORMATS.values():
        assert tile_channels(16) % spec.channels_per_word == 0


@pytest.mark.parametrize("lanes", [8, 0, -16, 24, 100, 128.0, "128", None])
def test_bad_lanes(lanes):
    message = f"^lanes must be a power of two of at least 16, not {lanes!r}$"
    for call in (check_lanes, tile_channels, FORMATS["int8"].inputs_per_word):
        with pytest.raises(ValueError, match=message):
            call(lanes)


@pytest.mark.parametrize("block", [0, -64, 32, 100])
def test_bad_block(block):
    message = rf"^block must be a positive multiple of 64, the inputs of one int4 word at 128 lanes, not {block}$"
    with pytest.raises(ValueError, match=message):
        FORMATS["int4"].words_per_block(128, block)


def test_unknown_format():
    with pytest.raises(ValueError, match=r"^format must be one of 'int4', 'int8', 'int16', 'mxfp4', not 'int5'$"):
        get_format("int5")
    for golden in (integer_elements, scale_values):
        with pytest.raises(ValueError, match=r"^format must be int4, int8, int16 or mxfp4, not 'int5'$"):
            golden(np.zeros(8, np.uint8), "int5")
