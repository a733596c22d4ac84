"""Devices and what makes text with them: on the golden machine, against the golden model."""

import os
from dataclasses import replace

import numpy as np
import pytest
from test_golden_machine import ODD, TINY
from test_reference import random_checkpoint

from edgeaccel.compiler import compile_model
from edgeaccel.golden.model import Model
from edgeaccel.golden.reference import greedy
from edgeaccel.perf.token import predict
from edgeaccel.runtime import Device, DeviceError, GoldenDevice, Sampler, StopReason, generate
from edgeaccel.runtime.generate import read_logits

PROMPT = [7, 8, 9]


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def checkpoint():
    return random_checkpoint(replace(ODD, eos=(), max_positions=20, n_layers=1), np.random.default_rng(3))


@pytest.fixture(scope="module")
def image(checkpoint):
    return compile_model(checkpoint, TINY)


@pytest.fixture(scope="module")
def tokens(checkpoint):
    """What the golden model makes of the prompt, as far as it can."""
    model = Model(checkpoint, TINY.config, weights="int8", cache="int16", folded=False)
    made = greedy(NoEnd(model), PROMPT, 18)
    assert len(made) == 18
    return made


class NoEnd:
    """A model of which no token ends a text."""

    def __init__(self, model):
        self.forward, self.shape = model.forward, replace(model.shape, bos=299)


@pytest.fixture
def device(image):
    device = GoldenDevice(TINY)
    device.load(image)
    return device


def test_golden_is_a_device(device):
    assert isinstance(device, Device)


def test_greedy(device, image, tokens):
    came = []
    result = generate(device, image, PROMPT, 6, on_token=came.append)
    assert result.tokens == came == tokens[:6]
    assert (result.stop.reason, result.stop.position, result.is_cut) == (StopReason.LIMIT, 8, False)
    assert device.read_tokens(0, 9) == PROMPT + tokens[:6]
    assert generate(device, image, PROMPT, 1).tokens == tokens[:1]


def test_counters(device, image):
    """The cycle model takes as many beats of tiles as the machine, and more cycles than beats of a port."""
    steps = []
    device.write_tokens(0, PROMPT)

    def on_batch(batch):
        program = device.golden.program
        last = batch.token is not None
        steps.append(predict(TINY, program, device.memory, position=batch.position, rows=batch.rows, last=last))
        assert device.counters()["beats"] == sum(step.beats for step in steps)

    stop = device.run(0, 3, 20, on_batch=on_batch)
    assert len(steps) == 19
    assert stop.cycles == device.counters()["cycles"] == sum(step.cycles for step in steps)
    for step in steps:
        assert 0 < step.beat_share < 1
        assert step.beat_share == pytest.approx(step.beats / step.cycles / TINY.config.groups)
    device.reset()
    assert device.counters() == {"cycles": 0, "beats": 0}


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("n_tokens", [18, 19, 1000])
def test_the_context_ends(sampled, n_tokens, device, image, tokens):
    """The last position is worked on, and gives one more token; nothing is written behind the cache."""
    after = device.golden.memory.read(0, TINY.port_bytes)
    result = generate(device, image, PROMPT, n_tokens, Sampler(temperature=0) if sampled else None)
    assert result.tokens == tokens
    assert (result.stop.reason, result.stop.position) == (StopReason.LIMIT, 20)
    assert result.is_cut == (n_tokens > 18)
    end = max(
        address + size for name, (address, size) in image.manifest["regions"].items() if address < TINY.port_bytes
    )
    np.testing.assert_array_equal(device.read(end, TINY.port_bytes - end), after[end:])


def test_a_prompt_as_long_as_the_context(device, image):
    result = generate(device, image, [5] * 20, 3)
    assert len(result.tokens) == 1
    assert result.is_cut


def test_end_of_text(checkpoint, tokens):
    """Chosen on chip or by the host."""
    image = compile_model(replace(checkpoint, shape=replace(checkpoint.shape, eos=(tokens[4],))), TINY)
    expected = tokens[: tokens.index(tokens[4])]
    for sampler in (None, Sampler(temperature=0)):
        device = GoldenDevice(TINY)
        device.load(image)
        result = generate(device, image, PROMPT, 18, sampler)
        assert result.tokens == expected
        assert (result.stop.reason, result.is_cut) == (StopReason.END_OF_TEXT, False)


def test_stops_between_tokens(device, image, tokens):
    for sampler in (None, Sampler(temperature=0)):
        result = generate(device, image, PROMPT, 6, sampler, on_token=lambda token: token == tokens[2])
        assert result.tokens == tokens[: tokens.index(tokens[2]) + 1]
        assert (result.stop.reason, result.is_cut) == (StopReason.STOPPED, False)
    assert generate(device, image, PROMPT, 6).tokens == tokens[:6]


def test_stops_in_a_token(device, image, tokens):
    """At any instruction; and goes on as if nothing had been."""
    device.write_tokens(0, PROMPT)
    for number in (4, 11, 20):
        stop = device.run(0, 3, 5, on_instruction=lambda n, number=number: n == number and device.stop())
        assert (stop.reason, stop.position) == (StopReason.STOPPED, 0)
    assert device.run(0, 3, 5).reason is StopReason.LIMIT
    assert device.read_tokens(3, 3) == tokens[:3]


def test_logits(device, image, checkpoint):
    model = Model(checkpoint, TINY.config, weights="int8", cache="int16", folded=False)
    generate(device, image, PROMPT, 1)
    np.testing.assert_array_equal(read_logits(device, image), model.forward(PROMPT)[-1])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "the prompt is empty; give it a token"),
        ([1] * 21, "has 21 tokens, but the image's context has 20; shorten it"),
        ([1, 300], "token 1 of the prompt must be 0 to 299, not 300; use the model's own tokenizer"),
        ([-1], "token 0 of the prompt must be 0 to 299, not -1"),
    ],
)
def test_bad_prompts(tokens, message, device, image):
    with pytest.raises(ValueError, match=message):
        generate(device, image, tokens, 3)
    with pytest.raises(ValueError, match="n_tokens must be at least 1, not 0"):
        generate(device, image, PROMPT, 0)
    assert len(generate(device, image, PROMPT, 2).tokens) == 2


def test_bad_runs(device):
    for position, prompt, limit in ((3, 3, 3), (-1, 3, 3)):
        with pytest.raises(ValueError, match="position must be below"):
            device.run(position, prompt, limit)
    for limit in (2, 4096):
        with pytest.raises(ValueError, match="limit must be 3, the tokens given, to 2048"):
            device.run(0, 3, limit)
    with pytest.raises(ValueError, match="outside of the 2048"):
        device.write_tokens(2047, [1, 2])
    with pytest.raises(ValueError, match="outside of the 2048"):
        device.read_tokens(-1, 2)
    with pytest.raises(ValueError, match="a token must be 0 to"):
        device.write_tokens(0, [1 << 20])
    with pytest.raises(ValueError, match="there is no memory"):
        device.read(1 << 62, 4)


def test_errors(device, image, tokens):
    """Are told, with where they were; and after a reset all is well."""
    device.write_tokens(0, [1] * 40)
    stop = device.run(0, 40, 40)  # past the cache's only page
    assert (stop.reason, stop.position, stop.code) == (StopReason.ERROR, 32, "position")
    assert "append" in stop.message
    assert "position 32 is past the 1 pages" in stop.message
    with pytest.raises(DeviceError, match="position 32 is past the 1 pages") as raised:
        generate(device, replace(image, manifest=image.manifest | {"positions": 40}), [1] * 40, 3)
    assert raised.value.stop.command == stop.command
    device.reset()
    assert generate(device, image, PROMPT, 6).tokens == tokens[:6]


# Choosing by logits.


def test_sampling_on_a_device(device, image, tokens):
    draws = [generate(device, image, PROMPT, 8, Sampler(temperature=3.0, seed=seed)).tokens for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    for sampler in (Sampler(top_k=1), Sampler(top_p=1e-6), Sampler(temperature=1e-3)):
        assert generate(device, image, PROMPT, 6, sampler).tokens == tokens[:6]


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, 6), ({"top_k": 3}, 3), ({"top_p": 0.8}, 3), ({"top_k": 2, "top_p": 0.9}, 2), ({"top_p": 0.3}, 1)],
)
def test_distribution(options, kept):
    """Of probabilities 0.4, 0.3, 0.15, 0.1, 0.04, 0.01 in some order, those that are kept are drawn as often."""
    probabilities = np.array([0.1, 0.4, 0.01, 0.3, 0.15, 0.04])
    sampler = Sampler(temperature=0.5, seed=1, **options)
    logits = 0.5 * np.log(probabilities) + 3
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=6) / 4000
    expected = np.where(probabilities >= np.sort(probabilities)[-kept], probabilities, 0)
    np.testing.assert_allclose(counts, expected / expected.sum(), atol=0.03)
    assert not counts[expected == 0].any()


def test_bad_sampling():
    for options in ({"temperature": -1.0}, {"temperature": np.nan}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            Sampler(**options)
    with pytest.raises(ValueError, match="the logit of token 2 is nan"):
        Sampler()([0, 1, np.nan])
    assert Sampler(temperature=0)([0, 2, 2]) == 1
    assert Sampler(temperature=1e-300)([0, 2, 1]) == 1
