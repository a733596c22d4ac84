"""A model of the Llama family in float32: what the accelerator's arithmetic is held against.

Ordinary NumPy, written from the models' publications; nothing here knows codes, blocks or scales.
"""

import math

import numpy as np

__all__ = ["Reference", "agreement", "check_tokens", "greedy", "log_likelihoods", "perplexity", "rotary_angles"]


class Reference:
    """A model with its cache of keys and values.

    Parameters
    ----------
    checkpoint : edgeaccel.checkpoint.Checkpoint
    """

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.shape = checkpoint.shape
        empty = np.zeros((0, self.shape.n_kv_heads, self.shape.head_dim), np.float32)
        self.keys = [empty] * self.shape.n_layers
        self.values = [empty] * self.shape.n_layers

    @property
    def length(self):
        """Positions in the cache."""
        return len(self.keys[0])

    def forward(self, tokens) -> np.ndarray:
        """Logits after each of some more tokens: float32 [tokens, vocab_size].

        Raises
        ------
        ValueError
            If there are none, or more than the model has positions for, or one that it does not know.
        """
        shape = self.shape
        tokens = check_tokens(shape, self.length, tokens)
        positions = np.arange(self.length, self.length + len(tokens))
        x = np.concatenate([self.checkpoint.tensor("embedding", slice(token, token + 1)) for token in tokens])
        for layer in range(shape.n_layers):
            x = x + self._attention(layer, self._norm(f"layers.{layer}.attention.norm", x), positions)
            x = x + self._feed_forward(layer, self._norm(f"layers.{layer}.feed_forward.norm", x))
        return self._norm("norm", x) @ self.checkpoint.tensor("classifier").T

    def _norm(self, name, x):
        mean = np.mean(x * x, axis=1, keepdims=True, dtype=np.float32)
        return x / np.sqrt(mean + np.float32(self.shape.norm_epsilon)) * self.checkpoint.tensor(name)

    def _attention(self, layer, x, positions):
        shape = self.shape
        q, k, v = (self._project(layer, name, x) for name in "qkv")
        q, k = (self._rotate(heads, positions) for heads in (q, k))
        self.keys[layer] = keys = np.concatenate([self.keys[layer], k])
        self.values[layer] = values = np.concatenate([self.values[layer], v])
        q = q.reshape(len(x), shape.n_kv_heads, -1, shape.head_dim)
        scores = np.einsum("tkgd,pkd->kgtp", q, keys, optimize=True) / np.float32(math.sqrt(shape.head_dim))
        distance = positions[:, None] - np.arange(len(keys))
        seen = (distance >= 0) & (distance < (shape.window or len(keys)))
        weights = _softmax(np.where(seen, scores, np.float32(-np.inf)))
        mixed = np.einsum("kgtp,pkd->tkgd", weights, values, optimize=True)
        return mixed.reshape(len(x), -1) @ self.checkpoint.tensor(f"layers.{layer}.attention.o").T

    def _project(self, layer, name, x):
        y = x @ self.checkpoint.tensor(f"layers.{layer}.attention.{name}").T
        if self.shape.qkv_bias:
            y = y + self.checkpoint.tensor(f"layers.{layer}.attention.{name}_bias")
        return y.reshape(len(x), -1, self.shape.head_dim)

    def _rotate(self, heads, positions):
        rope = self.shape.rope
        angles = rotary_angles(rope, positions)[:, None]
        cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        turned = heads.copy()
        half = rope.rotated // 2
        first, second = (
            (slice(0, half), slice(half, rope.rotated))
            if rope.half
            else (slice(0, rope.rotated, 2), slice(1, rope.rotated, 2))
        )
        turned[..., first] = heads[..., first] * cosines - heads[..., second] * sines
        turned[..., second] = heads[..., second] * cosines + heads[..., first] * sines
        return turned

    def _feed_forward(self, layer, x):
        gate, up, down = (
            self.checkpoint.tensor(f"layers.{layer}.feed_forward.{name}") for name in ("gate", "up", "down")
        )
        gated = x @ gate.T
        with np.errstate(over="ignore"):
            gated = gated / (1 + np.exp(-gated))
        return (gated * (x @ up.T)) @ down.T


def check_tokens(shape, length, tokens):
    """Tokens as an array, if a model of this shape can take them after `length` others; else ValueError."""
    tokens = np.asarray(tokens, np.int64)
    if tokens.ndim != 1 or not len(tokens):
        raise ValueError(f"tokens must be one or more, not of shape {tokens.shape}")
    if length + len(tokens) > shape.max_positions:
        raise ValueError(
            f"a context of {length + len(tokens)} is past the model's {shape.max_positions} positions;"
            " ask for fewer tokens"
        )
    for token in tokens:
        if not 0 <= token < shape.vocab_size:
            raise ValueError(f"token must be 0 to {shape.vocab_size - 1}, not {token}")
    return tokens


def rotary_angles(rope, positions):
    """Angles of each pair at each position, float64 [positions, rotated / 2]."""
    frequencies = rope.base ** -(np.arange(0, rope.rotated, 2) / rope.rotated)
    if rope.llama3 is not None:
        frequencies = np.array([_llama3(rope.llama3, frequency) for frequency in frequencies])
    return np.asarray(positions)[:, None] / rope.linear * frequencies


def _llama3(scaling, frequency):
    """As in Meta's `apply_scaling`: by the wavelength."""
    wavelength = 2 * math.pi / frequency
    if wavelength < scaling.original_positions / scaling.high_frequency_factor:
        return frequency
    if wavelength > scaling.original_positions / scaling.low_frequency_factor:
        return frequency / scaling.factor
    smooth = (scaling.original_positions / wavelength - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency


def _softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def greedy(model, tokens, n_tokens):
    """The most likely token, `n_tokens` times, after some others; ends early where the text does.

    `model` is a `Reference`, or another with its `forward` and `shape`. A text ends with a token of `shape.eos`, which
    is not returned, or with `shape.bos`, which begins the next text.
    """
    ends = {*model.shape.eos, model.shape.bos}
    made = []
    logits = model.forward(tokens)[-1]
    while len(made) < n_tokens:
        token = int(np.argmax(logits))
        if token in ends:
            break
        made.append(token)
        if len(made) < n_tokens:
            logits = model.forward([token])[-1]
    return made


def agreement(logits, tokens):
    """How many of the tokens, one after the other, are the most likely by their row of logits, until one is not.

    Of logits after tokens that another model gave, and those tokens: how many this one would give as well.
    """
    others = np.argmax(logits, axis=1) != tokens
    return int(np.argmax(np.append(others, True)))


def log_likelihoods(logits, tokens):
    """Natural logarithm of the probability that each row of logits gives its token, float64."""
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits[np.arange(len(tokens)), tokens] - np.log(np.exp(logits).sum(axis=1))


def perplexity(logits, tokens):
    """Exponential of the mean of -log p(token), each by its row of logits."""
    return float(np.exp(-log_likelihoods(logits, tokens).mean()))
