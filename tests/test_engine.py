"""Matrix engine: matrices in memories times a buffer of activations, against the golden engine."""

import functools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from test_feed import loads_of, operators_of, random_buffer

from edgeaccel.config import preset
from edgeaccel.formats import FORMATS
from edgeaccel.golden import engine as golden
from edgeaccel.golden.array import group_words
from edgeaccel.golden.feed import Operator
from edgeaccel.memory.axi import Response
from edgeaccel.memory.command import ErrorCode
from edgeaccel.quantise import quantise
from edgeaccel.sim.bench import StreamError, random_stalls
from edgeaccel.sim.memory import HBM2, IDEAL, Channel
from edgeaccel.sim.system import Memory, run
from edgeaccel.systolic import MatrixEngine
from edgeaccel.tiles import pack

ALL = tuple(FORMATS)
BASE = 1 << 32

engine_of = functools.cache(MatrixEngine)  # whose Verilog is emitted once


def packed(rng, config, format, n_channels, n_inputs):
    weights = rng.standard_normal((n_channels, n_inputs)).astype(np.float32)
    return pack(quantise(weights, format, block=config.block_of(format)), lanes=config.lanes)


def commands_of(config, commands):
    columns = {name: [getattr(command, name) for command in commands] for name in vars(commands[0])}
    columns["format"] = [ALL.index(name) for name in columns["format"]]
    return {name: np.array(values, np.uint64) for name, values in columns.items()}


def contents(config, operators, matrices, *, beat_bytes):
    """Bytes of each port's memory, and where the words of each operator begin: at whole beats, the same in all."""
    entry = max(beat_bytes, config.word_bytes)
    addresses, ports = [], [[] for _ in range(config.groups)]
    at = BASE
    for operator, tiles in zip(operators, matrices, strict=True):
        words = group_words(config, tiles, first_group=operator.first_group, n_groups=operator.groups(config))
        size = -(-max(map(len, words)) * config.word_bytes // entry) * entry
        for port, of_group in zip(ports, words, strict=True):
            padded = np.zeros(size, np.uint8)
            padded[: of_group.size] = of_group.ravel()
            port.append(padded)
        addresses.append(at)
        at += size
    return [np.concatenate(port) for port in ports], addresses


def check(config, seed, shapes, model, *, stalled=True):
    """Run operators (format, channels, inputs, fields) in a row; results and the cycles of all that moves."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    engine = engine_of(config)
    buffer = random_buffer(rng, config)
    matrices = [packed(rng, config, *shape[:3]) for shape in shapes]
    operators = [
        Operator(format=shape[0], inputs=shape[2], channel_tiles=len(tiles), wait=n == 0, **(shape[3:] or ({},))[0])
        for n, (shape, tiles) in enumerate(zip(shapes, matrices, strict=True))
    ]
    data, addresses = contents(config, operators, matrices, beat_bytes=model.beat_bytes)
    commands = golden.port_commands(config, operators, addresses)
    expected = golden.engine_results(config, operators, matrices, buffer)
    stalls = random_stalls(rng, engine, 4 * len(expected) + config.buffer_words) if stalled else {}
    stalls.pop("i_loads", None)
    last = config.buffer_words - 1
    streams = {"i_loads": loads_of(config, buffer, event=last), "i_operators": operators_of(config, operators)}
    streams |= {f"i_commands__{n}": commands_of(config, port) for n, port in enumerate(commands) if port}
    clocks = dict(zip(engine.domains, (config.core_mhz, config.port_mhz), strict=False))
    result = run(
        engine,
        streams=streams,
        n_results=len(expected),
        memories={f"m_axi_{n}": Memory(model=model, content=port, base=BASE) for n, port in enumerate(data)},
        clocks=clocks,
        stalls=stalls,
    )
    np.testing.assert_array_equal(result.results["o"]["values"], expected)
    assert not result.outputs["feed_error"]["valid"]
    assert not any(result.outputs[f"errors__{n}"]["valid"] for n in range(config.groups))
    ratio = Fraction(config.port_mhz) / Fraction(config.core_mhz)
    timing = golden.engine_cycles(
        config,
        operators,
        commands,
        [Channel(model).serve for _ in commands],
        stalls=stalls,
        events=[last],
        periods=(ratio.numerator, ratio.denominator),
    )
    np.testing.assert_array_equal(result.cycles["i_operators"], timing.operators)
    np.testing.assert_array_equal(result.cycles["o"], timing.results)
    for n, port in enumerate(timing.ports):
        reads = result.ports[f"m_axi_{n}"].reads
        assert (reads.beats, reads.first, reads.last) == (len(port.beats), port.beats[0], port.beats[-1])
        np.testing.assert_array_equal(result.cycles[f"i_commands__{n}"], port.commands)
    return result, timing


SHAPES = [("int4", 40, 172), ("int8", 9, 33), ("int16", 25, 64), ("int4", 1, 1), ("int8", 70, 100)]


@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_one_clock(groups, stalled):
    config = preset("tiny", groups=groups, buffer_inputs=512)
    shapes = [shape for shape in SHAPES if groups == 1 or shape[1] > 8 * 3]
    check(config, 70, shapes, replace(IDEAL, data_width=128), stalled=stalled)


@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("width", [128, 256])
def test_sets(width, stalled):
    """Words that come again for a second set, also where a tile begins in the middle of what the memory gives."""
    config = preset("tiny", sets=2, buffer_inputs=1024, port_data_width=width)
    both = {"more_sets": 1}
    shapes = [
        ("int4", 40, 172, both),
        ("int8", 20, 33),
        ("int16", 25, 64, both),
        ("int4", 9, 1, both),
        ("int4", 30, 172, {"address": 130}),
        ("int8", 70, 100, both),
    ]
    check(config, 74, shapes, replace(IDEAL, data_width=width), stalled=stalled)


def test_sets_with_two_clocks():
    """A slow memory's words are used twice."""
    sizes = {"lanes": 128, "block": 128, "port_data_width": 256, "port_mhz": 450, "buffer_inputs": 1024}
    config = preset("tiny", groups=2, sets=2, **sizes)
    shapes = [("int4", 200, 500, {"more_sets": 1}), ("int8", 70, 300), ("int16", 64, 128, {"more_sets": 1})]
    check(config, 75, shapes, HBM2)


def test_a_buffer_that_is_too_small_to_keep_a_tile():
    with pytest.raises(
        ValueError, match="buffer_words must be at least 82 to keep 65 words beside an entry and a burst"
    ):
        MatrixEngine(preset("tiny", sets=2, block=64, buffer_inputs=1024), buffer_words=64)


@pytest.mark.parametrize("model", [IDEAL, HBM2])
def test_two_clocks(model):
    config = preset("tiny", groups=2, lanes=128, block=128, port_data_width=256, port_mhz=450, buffer_inputs=512)
    check(config, 71, [("int4", 200, 500), ("int8", 70, 300), ("int16", 64, 128)], model)


def test_a_memory_error_and_a_new_start():
    """A port's first answer is an error: it is named, nothing comes out, and after `clear` the next operator does."""
    config = preset("tiny", buffer_inputs=512)
    rng = np.random.default_rng(72)
    model = replace(IDEAL, data_width=128)
    buffer = random_buffer(rng, config)
    matrices = [packed(rng, config, "int8", 32, 200) for _ in range(2)]
    operators = [Operator(format="int8", inputs=200, channel_tiles=len(tiles)) for tiles in matrices]
    data, addresses = contents(config, operators, matrices, beat_bytes=model.beat_bytes)
    commands = golden.port_commands(config, operators, addresses)
    expected = golden.engine_results(config, operators[1:], matrices[1:], buffer)
    # The second operator and its commands come after the engine was cleared, in cycle 2000.
    second = np.zeros(2501, bool)
    second[[500, 2500]] = True
    names = ("i_operators", *(f"i_commands__{n}" for n in range(config.groups)))
    memories = {f"m_axi_{n}": Memory(model=model, content=port, base=BASE) for n, port in enumerate(data)}
    memories["m_axi_0"].errors.append((addresses[0], addresses[0] + 16, "SLVERR"))
    streams = {"i_loads": loads_of(config, buffer, event=-1), "i_operators": operators_of(config, operators)}
    streams |= {f"i_commands__{n}": commands_of(config, port) for n, port in enumerate(commands)}
    settings = {"streams": streams, "memories": memories, "stalls": dict.fromkeys(names, second)}
    with pytest.raises(StreamError, match=r"nothing moves any more .* o 0 of"):
        run(engine_of(config), n_results=len(expected), hang_cycles=1500, **settings)
    result = run(engine_of(config), n_results=len(expected), inputs={"clear": {0: 0, 2000: 1, 2001: 0}}, **settings)
    np.testing.assert_array_equal(result.results["o"]["values"], expected)
    assert not result.outputs["errors__0"]["valid"]


def test_the_error_is_named():
    config = preset("tiny", buffer_inputs=512)
    model = replace(IDEAL, data_width=128)
    rng = np.random.default_rng(73)
    tiles = packed(rng, config, "int8", 32, 200)
    operator = Operator(format="int8", inputs=200, channel_tiles=len(tiles))
    data, addresses = contents(config, [operator], [tiles], beat_bytes=model.beat_bytes)
    memories = {f"m_axi_{n}": Memory(model=model, content=port, base=BASE) for n, port in enumerate(data)}
    memories["m_axi_1"].errors.append((BASE + 64, BASE + 80, "DECERR"))
    buffer = random_buffer(rng, config)
    streams = {"i_loads": loads_of(config, buffer, event=-1), "i_operators": operators_of(config, [operator])}
    for n, port in enumerate(golden.port_commands(config, [operator], addresses)):
        streams[f"i_commands__{n}"] = commands_of(config, port)
    error = {
        "valid": 1,
        "code": ErrorCode.RESPONSE.value,
        "response": Response.DECERR.value,
        "address": BASE + 64,
        "command": 0,
    }
    # The first group's results of the first pass leave, and wait for no one.
    n_results = config.tile_channels // config.vector_lanes
    result = run(engine_of(config), streams=streams, memories=memories, n_results=n_results, until=("errors__1", error))
    assert result.outputs["errors__1"] == error
    assert not result.outputs["errors__0"]["valid"]
