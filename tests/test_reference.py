"""The float reference: against loops over positions and heads in float64, and against what is known of a real model."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest

from edgeaccel.checkpoint import Checkpoint, ModelShape, Rope, example
from edgeaccel.golden import rotary
from edgeaccel.golden.reference import Reference, agreement, greedy, log_likelihoods, perplexity, rotary_angles

LLAMA = ModelShape(
    dim=12,
    hidden_dim=20,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=6,
    vocab_size=17,
    max_positions=16,
    rope=Rope(rotated=6),
    bos=1,
    eos=(2,),
)
SHAPES = {
    "llama": LLAMA,
    "llama3": replace(
        LLAMA,
        n_kv_heads=1,
        tied=True,
        rope=Rope(rotated=6, half=True, base=500.0, llama3=rotary.Llama3Scaling(original_positions=64)),
    ),
    "qwen2": replace(LLAMA, qkv_bias=True, norm_epsilon=1e-6, rope=Rope(rotated=6, half=True, base=1e6)),
    "mistral": replace(LLAMA, window=3, rope=Rope(rotated=6, half=True, linear=4.0)),
    "chatglm2": replace(LLAMA, qkv_bias=True, rope=Rope(rotated=2)),
}


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def random_checkpoint(shape, rng):
    tensors = {name: rng.standard_normal(size) * 0.5 for name, size in shape.tensors().items()}
    sources = {name: tensor.astype(np.float32).__getitem__ for name, tensor in tensors.items()}
    return Checkpoint(shape=shape, sources=sources, origin="random")


def loops(checkpoint, tokens):
    """Logits after the last token, by loops, in float64."""
    shape = checkpoint.shape

    def tensor(name):
        return checkpoint.tensor(name).astype(np.float64)

    def norm(x, gain):
        return x / math.sqrt(sum(x * x) / len(x) + shape.norm_epsilon) * tensor(gain)

    def turn(head, position):
        head, rope = list(head), shape.rope
        for i in range(rope.rotated // 2):
            a, b = (i, i + rope.rotated // 2) if rope.half else (2 * i, 2 * i + 1)
            angle = rotary_angles(rope, [position])[0, i]
            head[a], head[b] = (
                head[a] * math.cos(angle) - head[b] * math.sin(angle),
                head[a] * math.sin(angle) + head[b] * math.cos(angle),
            )
        return np.array(head)

    def project(layer, name, x):
        y = tensor(f"layers.{layer}.attention.{name}") @ x
        return y + tensor(f"layers.{layer}.attention.{name}_bias") if shape.qkv_bias else y

    def heads(vector):
        return vector.reshape(-1, shape.head_dim)

    xs = [tensor("embedding")[token] for token in tokens]
    for layer in range(shape.n_layers):
        normed = [norm(x, f"layers.{layer}.attention.norm") for x in xs]
        ks = [[turn(k, n) for k in heads(project(layer, "k", x))] for n, x in enumerate(normed)]
        vs = [heads(project(layer, "v", x)) for x in normed]
        for n, x in enumerate(normed):
            outputs = []
            for h, q in enumerate(heads(project(layer, "q", x))):
                kv = h * shape.n_kv_heads // shape.n_heads
                first = 0 if shape.window is None else max(0, n + 1 - shape.window)
                powers = [math.exp(turn(q, n) @ ks[m][kv] / math.sqrt(shape.head_dim)) for m in range(first, n + 1)]
                outputs.append(
                    sum(p * vs[m][kv] for p, m in zip(powers, range(first, n + 1), strict=True)) / sum(powers)
                )
            xs[n] = xs[n] + tensor(f"layers.{layer}.attention.o") @ np.concatenate(outputs)
        for n, x in enumerate(xs):
            x = norm(x, f"layers.{layer}.feed_forward.norm")
            gate, up, down = (tensor(f"layers.{layer}.feed_forward.{name}") for name in ("gate", "up", "down"))
            xs[n] = xs[n] + down @ (gate @ x / (1 + np.exp(-(gate @ x))) * (up @ x))
    return tensor("classifier") @ norm(xs[-1], "norm")


@pytest.mark.parametrize("name", SHAPES)
def test_equals_loops(name, rng):
    checkpoint = random_checkpoint(SHAPES[name], rng)
    tokens = rng.integers(3, 17, 9)
    expected = loops(checkpoint, tokens)
    at_once = Reference(checkpoint).forward(tokens)
    assert at_once.dtype == np.float32
    np.testing.assert_allclose(at_once[-1], expected, rtol=1e-3, atol=1e-3)
    # Token by token, and in parts, through the cache.
    model = Reference(checkpoint)
    parts = [model.forward(tokens[:4]), *(model.forward([token]) for token in tokens[4:])]
    assert model.length == 9
    np.testing.assert_allclose(np.concatenate(parts), at_once, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_angles_are_those_of_the_golden_table(half):
    rope = Rope(rotated=64, half=half, base=500000.0, llama3=rotary.Llama3Scaling())
    positions = [0, 1, 77, 8191, 100_000]
    cosines, _ = rotary.table(positions, 64, base=rope.base, llama3=rope.llama3, half=half)
    angles = rotary_angles(rope, positions)
    angles = np.concatenate([angles, angles], axis=1) if half else np.repeat(angles, 2, axis=1)
    np.testing.assert_allclose(cosines.view(np.float32), np.cos(angles), atol=1e-6)


def test_refuses(rng):
    model = Reference(random_checkpoint(LLAMA, rng))
    for tokens, message in (
        ([], r"tokens must be one or more, not of shape \(0,\)"),
        ([17], "token must be 0 to 16, not 17"),
        ([-1], "token must be 0 to 16, not -1"),
        ([3] * 17, "a context of 17 is past the model's 16 positions; ask for fewer tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            model.forward(tokens)
    assert model.length == 0


class Scripted:
    """A model that says what comes next."""

    def __init__(self, script):
        self.shape, self.script, self.asked = LLAMA, list(script), []

    def forward(self, tokens):
        self.asked.append(list(tokens))
        logits = np.zeros((len(tokens), 17), np.float32)
        logits[-1, self.script.pop(0)] = 1
        return logits


@pytest.mark.parametrize("end", [1, 2])
def test_greedy_ends_with_the_text(end):
    model = Scripted([5, 6, end])
    assert greedy(model, [1, 4], 9) == [5, 6]
    assert model.asked == [[1, 4], [5], [6]]
    model = Scripted([5, 6, 7])
    assert greedy(model, [1], 2) == [5, 6]
    assert model.asked == [[1], [5]]


def test_log_likelihoods():
    logits = np.array([[0, 0, 0, 0], [1000, 1000, -1000, -1000]], np.float32)
    np.testing.assert_allclose(log_likelihoods(logits, [2, 1]), [-math.log(4), -math.log(2)])
    assert perplexity(logits, [2, 1]) == pytest.approx(math.sqrt(8))


def test_agreement():
    logits = np.eye(4, dtype=np.float32)
    for tokens, count in (([0, 1, 2, 3], 4), ([0, 1, 3, 3], 2), ([1, 1, 2, 3], 0)):
        assert agreement(logits, tokens) == count


def test_real_model():
    """Text and perplexity as an independent implementation has them."""
    try:
        checkpoint, tokenizer = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    tokens = greedy(Reference(checkpoint), [1], 150)
    text = tokenizer.decode([1, *tokens])
    assert text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw"
        " a big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, "
    )
    logits = Reference(checkpoint).forward([1, *tokens[:-1]])
    assert agreement(logits, tokens) == 150
    assert perplexity(logits, tokens) == pytest.approx(1.600, abs=5e-4)
