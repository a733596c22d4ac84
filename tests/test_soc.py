"""The whole machine's emitted Verilog: the same memory, byte for byte, and the same tokens as the golden machine."""

import os
from dataclasses import replace

import numpy as np
import pytest
from test_golden_machine import SHAPES
from test_reference import random_checkpoint

from edgeaccel import isa
from edgeaccel.bench.token import LARGE, port_memory, predicted, random_model, run_tokens, share
from edgeaccel.checkpoint import example
from edgeaccel.compiler import compile_model
from edgeaccel.golden.reference import Reference, greedy
from edgeaccel.machine import machine
from edgeaccel.runtime.check import compare_all
from edgeaccel.runtime.device import StopReason
from edgeaccel.runtime.generate import generate
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.rtl import RtlDevice
from edgeaccel.runtime.sampler import Sampler
from edgeaccel.sim.memory import IDEAL

TINY = machine("tiny")
DATA_BYTES = 1 << 24


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def devices(image, **settings):
    """The Verilog and the golden machine, both with the image."""
    both = RtlDevice(TINY, data_bytes=DATA_BYTES, checks=True, **settings), GoldenDevice(TINY)
    for device in both:
        device.load(image)
    return both


def check(image, tokens, limit, **settings):
    """Run both to the limit: tokens, and all of memory, must be equal after every batch. Gives the device."""
    rtl, golden = devices(image, **settings)
    stops = []
    for device in (rtl, golden):
        device.write_tokens(0, tokens)
        stops.append(device.run(0, len(tokens), limit))
    assert stops[0].reason is stops[1].reason, stops[0].message
    assert stops[0].position == stops[1].position
    count = stops[0].position + 1
    assert rtl.read_tokens(0, count) == golden.read_tokens(0, count)
    assert compare_all(image, rtl, golden) is None
    return rtl, stops


def odd(name, rng, **changes):
    return random_checkpoint(replace(SHAPES[name], eos=(), bos=None, **changes), rng)


@pytest.mark.parametrize(
    ("name", "weights", "cache"),
    [
        ("llama", "int8", "int16"),
        ("llama", "int16", "int4"),
        ("qwen2", "int4", "int8"),
        ("mistral", "int8", "int4"),
        ("chatglm2", "int4", "int16"),
        ("one head", "int8", "int8"),
    ],
)
def test_shapes(name, weights, cache, rng):
    """Given tokens in batches and alone, then decoding: odd sizes, biases, windows, all formats."""
    checkpoint = odd(name, rng)
    image = compile_model(checkpoint, TINY, weights=weights, cache=cache)
    n_given = int(rng.integers(2, 8))
    check(image, rng.integers(0, 300, n_given).tolist(), n_given + 4)


@pytest.mark.parametrize("memory", ["hbm2", "ddr4", "slow", "stalled"])
def test_memories(memory, rng):
    """The same bytes whatever the memories do, over the end of a chunk of positions."""
    image = compile_model(odd("qwen2", rng, n_layers=1), TINY, weights="int4", cache="int4")
    tokens = rng.integers(0, 300, 31).tolist()
    settings = {"memory": memory}
    if memory == "slow":
        settings = {"memory": IDEAL.with_latency(150)}
    elif memory == "stalled":
        masters = [*(f"m_axi_{n}" for n in range(2)), "m_axi_scales", "m_axi_cache", "m_axi_data"]
        channels = [f"{name}_{channel}" for name in masters for channel in ("ar", "r")]
        channels += [f"{name}_{channel}" for name in masters[3:] for channel in ("aw", "w", "b")]
        settings = {"stalls": {name: rng.integers(0, 2, 1 << 20) > 0 for name in channels}}
    check(image, tokens, 34, **settings)


def test_story():
    """A checkpoint that others trained tells the same story as in float32."""
    try:
        checkpoint, _ = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    image = compile_model(checkpoint, TINY, weights="int8", cache="int16")
    rtl, _ = check(image, [1], 20)
    assert rtl.read_tokens(1, 20) == greedy(Reference(checkpoint), [1], 20)[:20]


@pytest.mark.slow  # another build; tests/test_idle.py has it for parts
def test_rest(rng):
    """Modules that rest while nothing changes give the same bytes in the same cycles."""
    image = compile_model(odd("qwen2", rng), TINY, weights="int4", cache="int8")
    tokens = rng.integers(0, 300, 7).tolist()
    stops, texts = [], []
    for checks in (True, False):
        device = RtlDevice(TINY, data_bytes=DATA_BYTES, checks=checks, memory="hbm2")
        device.load(image)
        device.write_tokens(0, tokens)
        stops.append(device.run(0, 7, 14))
        texts.append((device.read_tokens(0, 15), device.traffic()))
    assert stops[0] == stops[1]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_two_clocks(rng):
    """Ports that are faster than the array, as those of HBM2."""
    fast = machine("tiny", changes={"port_mhz": 450.0})
    image = compile_model(odd("qwen2", rng), fast, weights="int4", cache="int8")
    tokens = rng.integers(0, 300, 11).tolist()
    rtl, golden = RtlDevice(fast, data_bytes=DATA_BYTES, checks=True, memory="hbm2"), GoldenDevice(fast)
    for device in (rtl, golden):
        device.load(image)
        device.write_tokens(0, tokens)
        assert device.run(0, 11, 16).reason is StopReason.LIMIT
    assert rtl.read_tokens(0, 17) == golden.read_tokens(0, 17)
    assert compare_all(image, rtl, golden) is None


def test_cycles():
    """The cycle model is within 1% of decoding; a large layer takes 90% of the beats that the memory can deliver."""
    built = RtlDevice(TINY, memory="hbm2", checks=True)
    width = TINY.config.port_data_width
    shape = replace(LARGE, n_layers=1)
    image = compile_model(random_model(shape), TINY, weights="int4", cache="int16")
    stop, _, marks = run_tokens(built, image, [1], 3)
    assert abs(predicted(TINY, image, port_memory("hbm2", width), 3) / stop.cycles - 1) <= 0.01
    assert share(built, marks) >= 0.9


def test_sampling(rng):
    """The host chooses tokens: every run goes on where the one before ended."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int8", cache="int8")
    texts = []
    for device in devices(image):
        texts.append(generate(device, image, [5, 6, 7], 4, sampler=Sampler(temperature=1.0, top_k=20, seed=3)).tokens)
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4


def region(image, name, first, count):
    """Bytes `first` to `first + count - 1` of a tensor in the data region."""
    begin, _ = image.manifest["regions"][name]
    return begin + first, begin + first + count


@pytest.mark.parametrize("response", ["SLVERR", "DECERR"])
@pytest.mark.parametrize("master", ["m_axi_data", "m_axi_1", "m_axi_cache", "m_axi_scales", "m_axi_program"])
def test_bad_responses(master, response, rng):
    """An error in the midst of a token stops the machine, says who and where, and does not keep it from another run."""
    image = compile_model(odd("llama", rng, n_layers=2), TINY, weights="int8", cache="int16")
    regions = image.manifest["regions"]
    if master == "m_axi_data":  # the table of position 6
        size = regions["table"][1] // image.manifest["positions"]
        errors, unit = [(*region(image, "table", 6 * size, size), response)], "parameters"
    elif master == "m_axi_program":
        errors, unit = [(image.program_address, image.program_address + 16, response)], "program"
    elif master == "m_axi_scales":
        errors, unit = (
            [(*region(image, "layers.0.cache.scales", 0, regions["layers.0.cache.scales"][1]), response)],
            None,
        )
    else:  # the last layer's cache
        begin, size = regions["layers.1.cache"]
        port = TINY.port_bytes if master == "m_axi_cache" else 0
        errors, unit = [(begin + port, begin + port + size, response)], "cache" if master == "m_axi_cache" else "port"
    rtl, golden = devices(image, errors={master: errors})
    tokens = rng.integers(0, 300, 9).tolist()
    rtl.write_tokens(0, tokens)
    for _ in range(2):  # and it can be started again
        stop = rtl.run(0, 9, 9)
        assert stop.reason is StopReason.ERROR
        assert stop.code.startswith(unit or "attention"), stop.message
    if master == "m_axi_data":
        golden.write_tokens(0, tokens)
        for device in (rtl, golden):
            assert device.run(0, 5, 5).reason is StopReason.LIMIT
        assert rtl.read_tokens(5, 1) == golden.read_tokens(5, 1)


def test_stop(rng):
    """A stop in the midst of a text; then the text anew."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int8", cache="int16")
    rtl, golden = devices(image)
    for device in (rtl, golden):
        device.write_tokens(0, [1, 2, 3])

    stop = rtl.run(0, 3, 30, on_batch=lambda batch: rtl.stop() if batch.position >= 6 else None)
    assert stop.reason is StopReason.STOPPED
    assert 6 <= stop.position < 30
    for device in (rtl, golden):
        assert device.run(0, 3, 8).reason is StopReason.LIMIT
    assert rtl.read_tokens(0, 9) == golden.read_tokens(0, 9)


def test_end_of_context(rng):
    """The last position of the cache, and not one more."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int8", cache="int16", positions=16)
    rtl, _ = check(image, [1, 2, 3], 16)
    after = generate(rtl, image, [1, 2, 3], 50)
    assert after.is_cut
    assert len(after.tokens) == 14
    with pytest.raises(ValueError, match="context has 16"):
        generate(rtl, image, [1] * 17, 1)


def test_bad_program(rng):
    """No such instruction; a matrix that is larger than the buffer."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int8", cache="int16")
    good = image.program
    for line, code in (
        (bytes([31]) + bytes(63), "sequencer.opcode"),
        (isa.encode("multiply", address=1000, inputs=4000, channel_tiles=1, format="int8"), "feed.range"),
    ):
        rtl, _ = devices(image)
        rtl.write(image.program_address, np.frombuffer(line, np.uint8))
        rtl.write_tokens(0, [1])
        stop = rtl.run(0, 1, 1)
        assert (stop.reason, stop.code) == (StopReason.ERROR, code), stop.message
        rtl.write(image.program_address, np.frombuffer(good[:64], np.uint8))
        assert rtl.run(0, 1, 1).reason is StopReason.LIMIT
