"""Cycle models: of the matrix engine against the golden engine, which is exact; of attention against Verilog; of
prompts against the golden machine, cycle by cycle.
"""

import functools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from test_golden_machine import SHAPES
from test_reference import random_checkpoint

from edgeaccel import isa
from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.bench.attention import decoding, random_pages
from edgeaccel.bench.attention import simulate as simulate_attention
from edgeaccel.compiler import compile_model
from edgeaccel.config import preset
from edgeaccel.golden.cycles.machine import CycleMachine, masters
from edgeaccel.golden.cycles.memory import Memory
from edgeaccel.golden.engine import engine_cycles, port_commands, port_words
from edgeaccel.golden.feed import Operator
from edgeaccel.machine import machine
from edgeaccel.perf.attention import predict as predict_attention
from edgeaccel.perf.matrix import PortMemory, predict
from edgeaccel.perf.model import batches
from edgeaccel.perf.token import predict as predict_token
from edgeaccel.sim.memory import HBM2, IDEAL, Channel


def operators_of(config, shapes):
    return [
        Operator(format=format, inputs=inputs, channel_tiles=-(-channels // config.tile_channels))
        for format, channels, inputs in shapes
    ]


def golden(config, operators, model):
    """The engine's timing when everything is asked for in cycle 0."""
    addresses, at = [], 0
    for operator in operators:
        addresses.append(at)
        at += -(-max(port_words(config, operator)) * config.word_bytes // 64) * 64
    ratio = Fraction(config.port_mhz) / Fraction(config.core_mhz)
    return engine_cycles(
        config,
        operators,
        port_commands(config, operators, addresses),
        [Channel(model).serve for _ in range(config.groups)],
        periods=(ratio.numerator, ratio.denominator),
    )


@pytest.mark.parametrize("latency", [1, 20, 200])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny", {}),
        ("tiny", {"groups": 1, "port_data_width": 512}),
        ("tiny", {"groups": 4, "vector_lanes": 8, "lanes": 64}),
        ("vu9p", {"rows": 1}),
        ("vcu128", {"rows": 1, "groups": 8}),
        ("vcu128", {"rows": 1, "groups": 4, "port_mhz": 250, "port_data_width": 512}),
    ],
)
def test_exact_with_ideal_memory(name, changes, latency):
    config = preset(name, **changes)
    model = replace(IDEAL, data_width=config.port_data_width).with_latency(latency)
    width = config.groups * config.tile_channels
    shapes = [
        [("int4", 5 * width, 1000)],
        [("int8", 2 * width, 600), ("int4", 3 * width, 1500), ("int16", width - 1, 700)],
        [("int8", 2 * width - config.tile_channels, 4 * config.block + 1), ("int16", width, 1)],
    ]
    for shape in shapes:
        operators = operators_of(config, shape)
        timing = golden(config, operators, model)
        prediction = predict(config, operators, PortMemory(latency=latency))
        assert prediction.first_word == timing.ports[0].words[0]
        assert prediction.last_word == max(port.words[-1] for port in timing.ports)
        assert prediction.last_result == timing.results[-1]


def test_words_that_the_scalers_wait_for():
    """INT4 words of a last tile that complete two block sums each."""
    config = preset("vu9p", rows=1)
    model = replace(IDEAL, data_width=config.port_data_width)
    for inputs, passes in ((64, 40), (129, 20), (513, 20)):
        operators = operators_of(config, [("int4", passes * config.groups * config.tile_channels, inputs)])
        timing = golden(config, operators, model)
        prediction = predict(config, operators, PortMemory(latency=1))
        assert prediction.last_result == pytest.approx(timing.results[-1], rel=0.02)


def test_within_a_percent_with_hbm():
    config = preset("vcu128", rows=1, groups=2)
    operators = operators_of(config, [("int4", 640, 1024), ("int4", 640, 2048), ("int8", 320, 1024)])
    timing = golden(config, operators, HBM2)
    prediction = predict(config, operators, PortMemory(latency=HBM2.read_closed, share=HBM2.share))
    assert prediction.last_result == pytest.approx(timing.results[-1], rel=0.01)


ATTENTION = [
    # heads, head_dim, format, positions
    (4, 64, "int16", 500),
    (2, 128, "int4", 300),
    (1, 256, "int16", 200),
    (4, 64, "int16", 32),
    (8, 16, "int8", 400),
    (2, 8, "int16", 900),  # the way through the weights is longer than the passes that hide it
]


@pytest.mark.parametrize(("heads", "head_dim", "format", "count"), ATTENTION)
def test_attention(heads, head_dim, format, count):
    """Cycles of a command on the emitted engine with an ideal memory."""
    config = preset("tiny", buffer_inputs=32768)
    engine = attention_engine(config)
    layout, command = decoding(config, heads, 2, head_dim, count, format=format)
    ideal = replace(IDEAL, data_width=config.port_data_width)
    result = simulate_attention(config, engine, ideal, layout, command, random_pages(layout, count))
    cycles = result.cycles["o"][-1] - result.cycles["i_attends"][0]
    predicted = predict_attention(config, layout, command, PortMemory(latency=ideal.read_hit))
    assert predicted.last_result == pytest.approx(cycles, rel=0.002)
    ports = [port for name, port in result.ports.items() if name.split("_")[-1].isdigit()]
    assert predicted.beats == sum(port.reads.beats for port in ports)


@functools.cache
def attention_engine(config):
    return AttentionEngine(config, slots=16, entries=64, port_bytes=1 << 19)  # as in test_attention.py


def test_prompts():
    """Several tokens at a time, each head of keys gone over for two batches of queries, within 1%."""
    built = machine("tiny")
    shape = replace(SHAPES["llama"], n_layers=2, eos=(), bos=None)
    image = compile_model(random_checkpoint(shape, np.random.default_rng(5)), built, weights="int8")
    size = isa.INSTRUCTION_BYTES
    program = [isa.decode(image.program[n : n + size]) for n in range(0, len(image.program), size)]
    model = replace(IDEAL, data_width=built.config.port_data_width)

    def exact(tokens):
        """Cycles of a run."""
        memories = {name: Memory(Channel(model), model.outstanding) for name in masters(built)}
        return CycleMachine(built, image, [1] * (tokens + 2), 0, tokens, tokens, memories).run()

    def predicted(tokens):
        given = batches(built.config.rows, tokens)
        memory = PortMemory(latency=model.read_hit)
        runs = [
            predict_token(built, program, memory, position=at, rows=rows, last=at + rows == tokens)
            for at, rows in given
        ]
        return sum(run.cycles for run in runs)

    # The beginning and the end of a run are the same for both.
    assert predicted(6) - predicted(2) == pytest.approx(exact(6) - exact(2), rel=0.01)
