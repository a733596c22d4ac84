"""Group datapath, lane pair and digit decoder against the golden models: results and cycles, under stalls."""

import numpy as np
import pytest

from edgeaccel.formats import FORMATS
from edgeaccel.golden import pe as golden
from edgeaccel.golden.formats import integer_elements
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.pe.digit import DigitDecoder, FormatCode
from edgeaccel.pe.group import GroupDatapath
from edgeaccel.pe.lane import MANTISSA_BITS, LanePair
from edgeaccel.sim.bench import random_stalls, run

ALL = tuple(FORMATS)


def random_blocks(rng, group, n_blocks, *, extreme=False):
    """Blocks in random formats of the build and of random lengths: what goes in, and the sums that must come out."""
    low, high = -(1 << (group.mantissa_bits - 1)), (1 << (group.mantissa_bits - 1)) - 1
    words, mantissas, formats, last, sums = [], [], [], [], []
    for _ in range(n_blocks):
        name = str(rng.choice(group.formats))
        row = FORMATS[name]
        n_words = int(rng.integers(1, row.words_per_block(group.lanes, group.block) + 1))
        shape = (group.rows, n_words, row.inputs_per_word(group.lanes))
        if extreme:
            code = {"int4": 0x88, "int8": 0x80, "int16": 0x00, "mxfp4": rng.choice([0x77, 0xFF])}[name]
            block = np.full((n_words, group.lanes // 2), code, np.uint8)
            if name == "int16":
                block[:, group.lanes // 4 :] = 0x80
            inputs = np.full(shape, rng.choice([low, high]))
        else:
            block = rng.integers(0, 256, (n_words, group.lanes // 2), dtype=np.uint8)
            inputs = rng.integers(low, high + 1, shape)
            inputs[rng.random(shape) < 0.1] = rng.choice([low, high, 0, -1])
        words.append(block)
        mantissas.append(golden.pair_mantissas(inputs, name).transpose(1, 0, 2))
        formats += [row.code] * n_words
        last += [0] * (n_words - 1) + [1]
        block_sums = golden.block_sums(block, inputs, name)
        sums.append(np.pad(block_sums, ((0, 0), (0, group.n_sums - block_sums.shape[1])), constant_values=-1))
    words = np.concatenate(words)
    codes = np.stack([words & 15, words >> 4], axis=-1).reshape(len(words), -1)
    activations = {
        "mantissas": np.concatenate(mantissas),
        "format": np.array(formats),
        "last": np.array(last),
    }
    channels = np.array([row.channels_per_word for row in FORMATS.values()])[np.array(formats)[np.array(last) == 1]]
    return {"i_words": codes, "i_activations": activations}, np.stack(sums), channels


def check(group, engine, seed, *, n_blocks=60, stalled=True, extreme=False):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    inputs, sums, channels = random_blocks(rng, group, n_blocks, extreme=extreme)
    n_words = len(inputs["i_words"])
    stalls = random_stalls(rng, group, 2 * n_words) if stalled else {}
    result = run(group, engine, inputs, n_blocks, stalls=stalls)

    is_channel = np.arange(group.n_sums) < channels[:, None, None]
    np.testing.assert_array_equal(np.where(is_channel, result.results["o"], -1), np.where(is_channel, sums, -1))

    latency = golden.group_latency(
        group.lanes,
        group.formats,
        mantissa_bits=group.mantissa_bits,
        multiplier_stages=group.multiplier_stages,
        tree_stages=group.tree_stages,
    )
    take, taken = pipeline_cycles(
        n_words,
        [Pattern(stalls.get(name, ())) for name in ("i_words", "i_activations")],
        Pattern(stalls.get("o", ())),
        latency=latency,
        credits=latency + 1,
        emits=inputs["i_activations"]["last"],
    )
    np.testing.assert_array_equal(result.cycles["i_words"], take)
    np.testing.assert_array_equal(result.cycles["i_activations"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    return result


@pytest.mark.parametrize(
    "formats", [("int4",), ("int8",), ("int16",), ("mxfp4",), ("int4", "int16"), ALL], ids="+".join
)
def test_formats_amaranth(formats):
    check(GroupDatapath(lanes=32, formats=formats, block=64), "amaranth", seed=1)


@pytest.mark.parametrize("lanes", [16, 64])
@pytest.mark.parametrize("stages", [(1, 0, 16), (2, 0, 14), (1, 2, 18), (2, 1, 17)], ids=str)
def test_sizes_and_depths(lanes, stages):
    multiplier_stages, tree_stages, mantissa_bits = stages
    group = GroupDatapath(
        lanes=lanes,
        mantissa_bits=mantissa_bits,
        formats=ALL,
        rows=2,
        block=64,
        multiplier_stages=multiplier_stages,
        tree_stages=tree_stages,
    )
    assert group.cascade == min(lanes // 4, {14: 16, 16: 4, 17: 2, 18: 1}[mantissa_bits])
    check(group, "amaranth", seed=2, n_blocks=20)


@pytest.mark.parametrize("mantissa_bits", [8, 12, 18])
def test_mantissa_widths(mantissa_bits):
    group = GroupDatapath(lanes=16, mantissa_bits=mantissa_bits, formats=ALL, block=32)
    check(group, "amaranth", seed=3)
    check(group, "amaranth", seed=4, extreme=True)


def test_largest_sums():
    check(GroupDatapath(lanes=32, formats=ALL, block=128), "amaranth", seed=5, extreme=True)


@pytest.mark.parametrize("rows", [1, 2])
def test_full_size_verilog(rows):
    group = GroupDatapath(lanes=128, formats=ALL, rows=rows)
    check(group, "verilated", seed=6, n_blocks=4000)
    check(group, "verilated", seed=7, n_blocks=400, extreme=True)
    result = check(group, "verilated", seed=8, n_blocks=400, stalled=False)
    # One word a cycle, no bubble between blocks or formats.
    np.testing.assert_array_equal(result.cycles["i_words"], np.arange(len(result.cycles["i_words"])))


@pytest.mark.parametrize("formats", [("int4",), ("mxfp4",)], ids="+".join)
def test_credits_run_out(formats):
    """While the sink takes nothing, as many words go in as there are credits, each for a result, and none is lost."""
    words = FORMATS[formats[0]]
    group = GroupDatapath(lanes=32, formats=formats, block=words.inputs_per_word(32))
    inputs, sums, channels = random_blocks(np.random.default_rng(11), group, 100)
    closed = 4 * group.latency
    result = run(group, "amaranth", inputs, 100, stalls={"o": np.zeros(closed, dtype=bool)})
    np.testing.assert_array_equal(result.results["o"], sums)
    assert channels.tolist() == [group.n_sums] * 100
    credits = golden.group_latency(32, formats) + 1
    np.testing.assert_array_equal(result.cycles["i_words"][:credits], np.arange(credits))
    assert result.cycles["i_words"][credits] == closed + 1
    np.testing.assert_array_equal(result.cycles["o"], closed + np.arange(100))


def test_cocotb():
    check(GroupDatapath(lanes=32, formats=ALL, rows=2, block=64), "cocotb", seed=9, n_blocks=200)


def test_digit_decoder():
    rng = np.random.default_rng(10)
    decoder = DigitDecoder(lanes=32, formats=ALL)
    formats = np.repeat([row.code for row in FORMATS.values()], 16)
    words = rng.integers(0, 256, (len(formats), 16), dtype=np.uint8)
    words[:, 0], words[:, 15] = np.tile(range(16), 4) * 17, np.tile(range(16), 4) * 17
    codes = np.stack([words & 15, words >> 4], axis=-1).reshape(len(words), -1)
    stalls = random_stalls(rng, decoder, 100)
    result = run(decoder, "amaranth", {"i": {"codes": codes, "format": formats}}, len(formats), stalls=stalls)
    for word, format, digits in zip(words, formats, result.results["o"], strict=True):
        row = list(FORMATS.values())[format]
        # Put together again with the places that the table states, digits are the golden elements.
        pair = digits.reshape(-1, 2)
        elements = np.zeros((row.channels_per_word, row.inputs_per_word(32)), np.int64)
        for channel in range(row.channels_per_word):
            for digit in range(row.digits):
                place = channel * row.digits + digit
                inputs = slice(place // 2 * elements.shape[1], (place // 2 + 1) * elements.shape[1])
                elements[channel] += pair[inputs, place % 2] << 4 * digit
        np.testing.assert_array_equal(elements, integer_elements(word, row.name))
    take, taken = pipeline_cycles(
        len(formats),
        [Pattern(stalls["i"])],
        Pattern(stalls["o"]),
        latency=golden.LATENCY["DigitDecoder"],
        credits=golden.LATENCY["DigitDecoder"] + 1,
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)


@pytest.mark.parametrize("mantissa_bits", [8, 16, 18])
@pytest.mark.parametrize("engine", ["amaranth", "verilated"])
def test_lane_pair(mantissa_bits, engine):
    rng = np.random.default_rng(mantissa_bits)
    pair = LanePair(mantissa_bits=mantissa_bits)
    low, high = -(1 << (mantissa_bits - 1)), (1 << (mantissa_bits - 1)) - 1
    # Every pair of digits with the mantissas at the edges, and random ones.
    lower, upper, mantissa = (
        axis.ravel() for axis in np.meshgrid(range(-15, 16), range(-15, 16), [low, low + 1, -1, 0, 1, high])
    )
    mantissa = np.where(rng.random(len(mantissa)) < 0.2, rng.integers(low, high + 1, len(mantissa)), mantissa)
    stalls = random_stalls(rng, pair, 2 * len(mantissa))
    inputs = {"i": {"lower": lower, "upper": upper, "mantissa": mantissa}}
    result = run(pair, engine, inputs, len(mantissa), stalls=stalls)
    products = golden.lane_pair(lower, upper, mantissa)
    np.testing.assert_array_equal(result.results["o"]["lower"], products[0])
    np.testing.assert_array_equal(result.results["o"]["upper"], products[1])
    latency = golden.LATENCY["LanePair"]
    take, taken = pipeline_cycles(
        len(mantissa), [Pattern(stalls["i"])], Pattern(stalls["o"]), latency=latency, credits=latency + 1
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)


def test_format_codes_are_the_table():
    assert {code.name.lower(): code.value for code in FormatCode} == {row.name: row.code for row in FORMATS.values()}


def test_one_format_carries_no_logic_of_others():
    from edgeaccel.verilog import emit

    sizes = {name: len(emit(GroupDatapath(lanes=32, formats=(name,), block=64), "dut")) for name in FORMATS}
    together = len(emit(GroupDatapath(lanes=32, formats=ALL, block=64), "dut"))
    assert all(size < together for size in sizes.values())
    single = GroupDatapath(lanes=32, formats=("int8",), block=64)
    assert (single.n_sums, single.sum_width) == (1, 30)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 48}, "lanes must be a power of two of at least 16, not 48"),
        ({"mantissa_bits": 19}, "mantissa_bits must be 8 to 18, .* not 19"),
        ({"formats": ("int3",)}, "format must be one of 'int4', .*not 'int3'"),
        ({"formats": ()}, "formats must be one or more of int4, .* not \\(\\)"),
        ({"formats": ("int4", "int4")}, "each once, not \\('int4', 'int4'\\)"),
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"block": 100}, "block must be a positive multiple of 64, .* not 100"),
        ({"multiplier_stages": 3}, "multiplier_stages must be 1 or 2, not 3"),
        ({"tree_stages": 6}, "tree_stages must be 0 to 3, .* not 6"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        GroupDatapath(**parameters)


def test_bad_lane_pair():
    with pytest.raises(ValueError, match="mantissa_bits must be 8 to 18"):
        LanePair(mantissa_bits=7)


def test_mantissa_range_fits_one_dsp():
    """27 x 18 bits: the packed digits and the widest mantissa."""
    assert MANTISSA_BITS[-1] <= 18
    assert MANTISSA_BITS[-1] + 9 <= 27
