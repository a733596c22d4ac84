"""Configuration: presets, derived figures, and what is refused."""

from dataclasses import FrozenInstanceError

import pytest

from edgeaccel.config import ADDER_TURN, PRESETS, Config, preset
from edgeaccel.pe import Accumulator, GroupDatapath


def test_full_size_figures():
    vcu128 = preset("vcu128")
    assert (vcu128.word_bits, vcu128.word_bytes, vcu128.tile_channels) == (512, 64, 32)
    assert vcu128.multipliers == 32 * 64 * 4
    assert [vcu128.macs_per_cycle(name) for name in ("int4", "int8", "int16")] == [16384, 8192, 4096]
    assert vcu128.port_bytes_per_s == 460.8e9  # 32 pseudo-channels: what AMD states for the part
    assert preset("vu9p").port_bytes_per_s == 4 * 19.2e9  # four channels of DDR4-2400


@pytest.mark.parametrize("name", PRESETS)
def test_array_is_at_least_as_fast_as_the_memory(name):
    assert PRESETS[name].array_bytes_per_s >= PRESETS[name].port_bytes_per_s


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_built(name):
    config = PRESETS[name]
    group = GroupDatapath(
        lanes=config.lanes,
        mantissa_bits=config.mantissa_bits,
        formats=config.formats,
        rows=config.rows,
        block=config.block,
    )
    assert group.n_sums <= config.tile_channels
    Accumulator(channels=config.tile_channels // config.scalers)


def test_scalers():
    assert preset("vcu128").scalers == 1
    assert preset("vcu128", formats=("int4", "mxfp4")).scalers == 4
    assert preset("vcu128", block=64).scalers == 2
    assert preset("tiny", formats=("int4", "mxfp4")).scalers == 1


def test_adder_turn_is_the_accumulators():
    Accumulator(channels=ADDER_TURN)
    with pytest.raises(ValueError, match="channels"):
        Accumulator(channels=ADDER_TURN - 1)


def test_frozen_and_keyword_only():
    with pytest.raises(FrozenInstanceError):
        preset("tiny").rows = 3
    with pytest.raises(TypeError):
        Config(2, 32, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 0}, "groups must be a positive whole number, not 0"),
        ({"groups": 3}, "groups must be a power of two, not 3"),
        ({"rows": 1.5}, "rows must be a positive whole number, not 1.5"),
        ({"rows": True}, "rows must be a positive whole number, not True"),
        ({"lanes": 100}, "lanes must be a power of two of at least 16, not 100"),
        ({"mantissa_bits": 24}, "mantissa_bits must be 8 to 18, not 24"),
        ({"formats": ()}, "formats must be a tuple of one or more of int4, int8, int16, mxfp4, each once, not ()"),
        ({"formats": "int4"}, "formats must be a tuple"),
        ({"formats": ("fp8",)}, "format must be one of 'int4', .*, not 'fp8'"),
        ({"activations": "fp64"}, "activations must be one of 'fp16', 'bf16', 'fp32', not 'fp64'"),
        ({"vector_lanes": 3}, "vector_lanes must be a power of two of at most 8, a quarter of the lanes, not 3"),
        ({"vector_lanes": 16}, "vector_lanes must be a power of two of at most 8, a quarter of the lanes, not 16"),
        ({"buffer_inputs": 100}, "buffer_inputs must be a positive multiple of the 32 inputs of a block, not 100"),
        ({"block": 24}, "block must be a positive multiple of 16"),
        ({"port_data_width": 64}, "port_data_width must be one of 128, 256, 512, not 64"),
        ({"core_mhz": 0}, "core_mhz must be more than 0, not 0"),
        ({"lanes": 16, "block": 16}, "lanes must be more than 16 .* the 4 channels of a tile would share 1 accum"),
        ({"lane": 16}, "a configuration has no lane; it has groups, lanes, rows"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message.replace("()", "\\(\\)")):
        preset("tiny", **changes)


def test_unknown_preset():
    with pytest.raises(ValueError, match="preset must be one of tiny, vcu128, vu9p, not 'u280'"):
        preset("u280")
