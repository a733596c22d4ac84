"""The whole machine cycle by cycle, against the emitted Verilog: every burst, every word, every token."""

import os
from dataclasses import replace

import numpy as np
import pytest
from test_golden_machine import SHAPES
from test_reference import random_checkpoint

from edgeaccel import isa
from edgeaccel.checkpoint import example
from edgeaccel.compiler import compile_model
from edgeaccel.golden.cycles.machine import CycleMachine, masters
from edgeaccel.golden.cycles.memory import Memory
from edgeaccel.machine import machine
from edgeaccel.runtime.device import StopReason
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.rtl import RtlDevice, scaled
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL, Channel

TINY = machine("tiny")
DATA_BYTES = 1 << 24


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def odd(name, rng, **changes):
    return random_checkpoint(replace(SHAPES[name], eos=(), bos=None, **changes), rng)


def altered(image, change):
    """The image with other instructions: `change` gives (name, fields) for each, or None to leave it out."""
    size = isa.INSTRUCTION_BYTES
    old = [isa.decode(image.program[n : n + size]) for n in range(0, len(image.program), size)]
    new = [change(name, {"when": when, **fields}) for name, when, fields in old]
    places = np.cumsum([0] + [each is not None for each in new])
    for name, fields in filter(None, new):
        if name in ("again", "next"):
            fields["target"] = int(places[fields["target"]])
    return replace(image, program=isa.assemble(filter(None, new)))


def without_attention(name, fields):
    if name in ("append", "attend"):
        return None
    return name, fields | ({"to_cache": 0} if name == "vector" else {})


def check(image, tokens, limit, model=IDEAL, built=TINY):
    """Run both: all that moves at the masters, all words of tiles, and the end must come in the same cycles."""
    model = scaled(model, built.config.port_data_width)
    rtl = RtlDevice(built, data_bytes=DATA_BYTES, watch=True, memory=model)
    rtl.load(image)
    rtl.write_tokens(0, tokens)
    stop = rtl.run(0, len(tokens), limit)
    assert stop.reason is StopReason.LIMIT, stop.message
    up = rtl.simulation.intervals()
    # The last bits of `SoC.activity`: running, then for each group whether it takes a word.
    groups = built.config.groups
    running, *words = [up[f"activity.{n}"] for n in range(len(up))][-1 - groups :]
    start = running[0][0] - 1
    memories = {name: Memory(Channel(model), model.outstanding) for name in masters(built)}
    text = rtl.read_tokens(0, limit + 1)
    golden = CycleMachine(built, image, text, 0, len(tokens), limit, memories, start=start)
    ends = []
    while not golden.sequencer.done:
        ends.append(golden.run(to_batch=True))
    bursts = rtl.simulation.bursts(gap=1)  # each one alone
    core, port = built.config.core_mhz, built.config.port_mhz
    for name, memory in memories.items():
        is_port = name[6:].isdigit() or name == "m_axi_scales"
        for side, known in (("reads", memory.reads), ("writes", memory.writes)):
            cycles = [first for first, _ in bursts.get(f"{name} {side}", [])]
            known = [int(cycle * core // port) if is_port else cycle for cycle, _, _ in known]
            assert known == cycles, f"{name} {side}"
    for n, spans in enumerate(words):
        assert golden.words[n] == [cycle for span in spans for cycle in range(*span)], f"words of group {n}"
    assert golden.run() == stop.cycles
    rows = [rows for _, _, rows in golden.batches]
    assert sum(rows) == limit
    assert [cycle + 1 - start for cycle, _, _ in golden.batches] == ends[: len(rows)]
    return golden


@pytest.mark.parametrize(
    ("name", "weights", "cache", "model", "changes"),
    [
        ("llama", "int8", "int16", IDEAL, {"n_layers": 2}),
        ("qwen2", "int4", "int8", IDEAL.with_latency(70), {}),
        ("mistral", "int16", "int4", HBM2, {}),
        ("chatglm2", "int4", "int16", DDR4_2400, {}),
        ("one head", "int8", "int8", IDEAL, {}),
    ],
)
def test_shapes(name, weights, cache, model, changes, rng):
    """Given tokens in batches and alone, then decoding: odd sizes, biases, windows, all formats, several memories."""
    image = compile_model(odd(name, rng, **{"n_layers": 1} | changes), TINY, weights=weights, cache=cache)
    n_given = int(rng.integers(2, 6))
    golden = check(image, rng.integers(0, 300, n_given).tolist(), n_given + 2, model)
    assert [rows for _, _, rows in golden.batches[-2:]] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("model", [IDEAL, IDEAL.with_latency(5), HBM2, DDR4_2400])
def test_more_shapes(name, model, rng):
    """All formats in turn, over the end of a chunk of positions."""
    weights, cache = (str(rng.choice(["int4", "int8", "int16"])) for _ in range(2))
    print(weights, cache)
    image = compile_model(odd(name, rng, n_layers=1), TINY, weights=weights, cache=cache)
    n_given = int(rng.integers(28, 40))
    check(image, rng.integers(0, 300, n_given).tolist(), n_given + 4, model)


@pytest.mark.slow  # two builds
@pytest.mark.parametrize(
    "changes",
    [
        {"lanes": 64, "vector_lanes": 8, "groups": 1, "rows": 1},  # words of two beats, streams of wider ones
        {"lanes": 64, "port_data_width": 256, "rows": 3},  # streams of narrower ones
    ],
)
def test_other_machines(changes, rng):
    """Beats of other widths than those of words and streams, one group, one row, three rows."""
    built = machine("tiny", changes=changes, vector_inputs=1024, max_channels=256, slots=8, pages=16, positions=256)
    image = compile_model(odd("qwen2", rng, n_layers=1), built, weights="int8", cache="int4")
    check(image, rng.integers(0, 300, 7).tolist(), 10, HBM2, built=built)


@pytest.mark.slow  # two builds
@pytest.mark.parametrize("port_mhz", [450.0, 200.0])
def test_two_clocks(port_mhz, rng):
    """Ports that are faster than the core, and slower ones."""
    built = machine("tiny", changes={"port_mhz": port_mhz})
    image = compile_model(odd("llama", rng, n_layers=1), built, weights="int4", cache="int8")
    check(image, rng.integers(0, 300, 9).tolist(), 12, HBM2, built=built)


def test_without_attention(rng):
    """What has neither keys nor values; parameters and logits begin at any multiple of four bytes."""

    def change(name, fields):
        if name == "read":
            fields["address"] += 4 * int(rng.integers(0, 8))
        elif name == "vector" and fields["to_logits"]:
            fields["logits"] += 4 * int(rng.integers(1, 4))
        return without_attention(name, fields)

    image = altered(compile_model(odd("qwen2", rng, n_layers=1), TINY, weights="int4", cache="int8"), change)
    tokens = rng.integers(0, 300, 3).tolist()
    golden = check(image, tokens, 5)
    assert not golden.memories["m_axi_cache"].writes


def test_instructions(rng):
    """What the sequencer does itself: waiting, loops, jumps, the page table; vectors of zeros."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int8", cache="int8")
    base, logits = image.manifest["regions"]["table"][0], image.manifest["logits"]
    zeros = {"zeros": 1, "vectors": 3, "channels": 20, "stride": 5}
    biased = {"zeros": 1, "vectors": 1, "channels": 33, "bias": 1}
    bias = {"address": base, "bytes": 144, "target": "bias"}
    program = [
        ("pages", {"first": 1, "count": 5, "page": 2}),
        ("loop", {"layers": 3}),
        ("read", {"address": base, "stride": 12, "index": "layer", "bytes": 84, "target": "vector"}),
        ("vector", zeros | {"to_vector": 1}),
        ("again", {"target": 2}),
        ("sync", {}),
        ("read", {"address": base, "stride": 64, "index": "position", "bytes": 52, "target": "vector", "vector": 9}),
        ("read", bias | {"stride": 4, "index": "token", "when": "single"}),
        ("read", bias | {"when": "several"}),
        ("sync", {}),
        ("vector", zeros | {"when": "several", "residual": 1, "to_vector": 1, "vector": 15}),
        ("vector", biased | {"when": "last", "to_logits": 1, "logits": logits + 4, "starts": 1, "ends": 1}),
        ("vector", biased | {"when": "unfollowed"}),
        ("next", {"target": 5}),
    ]
    golden = check(replace(image, program=isa.assemble(program)), rng.integers(0, 300, 5).tolist(), 7)
    assert {number for _, number, _ in golden.issues} == set(range(len(program)))


def test_device(rng):
    """The golden device's cycles, where it is asked for exact ones, are those of the Verilog, run after run."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int4", cache="int4")
    model = scaled(IDEAL, TINY.config.port_data_width)
    devices = RtlDevice(TINY, data_bytes=DATA_BYTES), GoldenDevice(TINY, timing=model)
    tokens = rng.integers(0, 300, 3).tolist()
    stops, spent = [], []
    for device in devices:
        device.load(image)
        device.write_tokens(0, tokens)
        stops += [[device.run(0, 3, 4), device.run(4, 5, 6)]]
        spent.append(sum(stop.cycles for stop in stops[-1]))
    assert stops[0] == stops[1]
    assert devices[1].counters()["cycles"] == spent[0]
    assert devices[1].exact.batches[-1][1:] == (5, 1)
    modelled = GoldenDevice(TINY)
    modelled.load(image)
    modelled.write_tokens(0, tokens)
    assert modelled.run(0, 3, 4).cycles != stops[0][0].cycles
    assert modelled.exact is None


def test_device_refuses():
    with pytest.raises(ValueError, match="timing must be of beats of 128 bits, not 256"):
        GoldenDevice(TINY, timing=IDEAL)
    image = compile_model(odd("llama", np.random.default_rng(0), n_layers=1), TINY, weights="int4", cache="int4")
    with pytest.raises(ValueError, match="for another machine"):
        CycleMachine(replace(TINY, slots=16), image, [], 0, 1, 2, {})


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "cache", "model"), [("int8", "int16", IDEAL), ("int4", "int8", HBM2)])
def test_story(weights, cache, model):
    """A real model, over the end of several chunks of positions."""
    try:
        checkpoint, _ = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    check(compile_model(checkpoint, TINY, weights=weights, cache=cache), [1, 403, 407], 70, model)
