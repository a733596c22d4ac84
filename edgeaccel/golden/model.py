"""A whole model in the accelerator's arithmetic: quantised weights and cache, everything else in FP32 codes.

The norms are deferred: products start on the residual stream as it is, and 1/rms multiplies the results.
"""

import numpy as np

from edgeaccel.checkpoint import CheckpointError
from edgeaccel.golden import batch, quantise, rotary, softmax
from edgeaccel.golden.float import add, decode, encode, multiply
from edgeaccel.golden.formats import twice_e2m1
from edgeaccel.golden.reference import Reference, check_tokens
from edgeaccel.quantise import quantise as quantise_weights

__all__ = ["CACHES", "WEIGHTS", "Matrix", "Model", "key_offsets"]

WEIGHTS = ("int16", "int8", "int4", "mxfp4")
CACHES = ("float", "int16", "int8", "int4")


class Matrix:
    """A quantised matrix that multiplies rows as the array does.

    Parameters
    ----------
    config : Config
    weights : float array [channels, inputs]
    format : str
        One of `WEIGHTS`.
    """

    def __init__(self, config, weights, format):
        quantised = quantise_weights(weights, format, block=config.block_of(format))
        self._config, self._is_mxfp4 = config, format == "mxfp4"
        self._codes, self._scales = quantised.codes, quantised.scales.T
        if self._is_mxfp4:
            self._codes = twice_e2m1(self._codes)
        else:
            self._scales = self._scales.view(np.uint16)

    def __call__(self, rows):
        """FP32 codes [rows, channels] of FP32 codes [rows, inputs]."""
        matrix = self._codes.T.astype(np.float64)
        return batch.product(self._config, rows, matrix, self._scales, e8m0=self._is_mxfp4)


class Model:
    """A model with its cache, one sequence.

    Each token is computed alone, as in decoding, whatever else `forward` is given with it.

    Parameters
    ----------
    checkpoint : edgeaccel.checkpoint.Checkpoint
    config : Config
        Its activations are FP32; `block` inputs share a scale, and as many positions are a chunk.
    weights, classifier : str
        Formats of matrices, of `WEIGHTS`, and of the classifier if it has another.
    cache : str
        Format of keys and values, of `CACHES`. "float" has them in FP32 and attention in float64, rounded at its end.
    values : str
        Format of the values, if they have another; not "float", nor beside it.
    folded : bool
        Whether the norms' gains are folded into the weights before these are quantised, or multiply what enters the
        array.
    key_offsets : float array [n_layers, n_kv_heads, head_dim], optional
        Added to keys before they are quantised. It changes no probability, because the same is added to all scores of a
        query, but with minus what keys have in common, `key_offsets`, what is left is smaller and has finer steps.

    Members
    -------
    keys, values : list of (codes [positions, n_kv_heads, head_dim], scales [positions, n_kv_heads])
        The cache of each layer: integers and FP16 codes, or FP32 codes if it is "float".
    queries : list of FP32 codes [tokens, n_kv_heads, query heads of one, head_dim]
        Of each layer, for the tokens that were forwarded last.

    Raises
    ------
    ValueError
        Another format, or activations that are not FP32.
    CheckpointError
        Weights that cannot be quantised.
    """

    def __init__(
        self, checkpoint, config, *, weights, cache, values=None, classifier=None, folded=True, key_offsets=None
    ):
        classifier, values = classifier or weights, values or cache
        for name, format, allowed in (
            ("weights", weights, WEIGHTS),
            ("classifier", classifier, WEIGHTS),
            ("cache", cache, CACHES),
            ("values", values, CACHES),
        ):
            if format not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {format!r}")
        if "float" in (cache, values) and cache != values:
            raise ValueError(f"values must be as the cache if one of them is float, not {values!r} beside {cache!r}")
        if config.activations != "fp32":
            raise ValueError(f"activations of the configuration must be fp32, not {config.activations!r}")
        self.checkpoint, self.config, self._formats = checkpoint, config, (cache, values)
        self.shape = shape = checkpoint.shape
        self._matrices, self._biases, self._gains = {}, {}, {}
        for name, size in shape.tensors().items():
            if name.endswith("norm"):
                self._gains[name] = None if folded else _codes(checkpoint.tensor(name))
            elif name.endswith("_bias"):
                self._biases[name] = _codes(checkpoint.tensor(name))
            elif len(size) == 2 and name != "embedding":
                self._matrices[name] = self._matrix(name, classifier if name == "classifier" else weights)
        size = (shape.n_layers, shape.n_kv_heads, shape.head_dim)
        if key_offsets is not None and np.shape(key_offsets) != size:
            raise ValueError(f"key_offsets must be of shape {size}, not {np.shape(key_offsets)}")
        self._key_offsets = None if key_offsets is None else _codes(key_offsets)
        self._inverse_dim, self._epsilon = _codes([1 / shape.dim, shape.norm_epsilon])
        self._factor = _codes(softmax.LOG2_E / np.sqrt(shape.head_dim))
        type_, scale_type = (np.uint32, np.uint32) if cache == "float" else (np.int32, np.uint16)
        heads = (0, shape.n_kv_heads)
        empty = np.zeros((*heads, shape.head_dim), type_), np.zeros(heads, scale_type)
        self.keys, self.values = [empty] * shape.n_layers, [empty] * shape.n_layers
        self.queries = [None] * shape.n_layers

    @property
    def length(self):
        """Positions in the cache."""
        return len(self.keys[0][0])

    def forward(self, tokens):
        """Logits after each of some more tokens: float32 [tokens, vocab_size]; raises as `Reference.forward` does."""
        tokens = check_tokens(self.shape, self.length, tokens)
        positions = np.arange(self.length, self.length + len(tokens))
        x = _codes(np.concatenate([self.checkpoint.tensor("embedding", slice(n, n + 1)) for n in tokens]))
        for layer in range(self.shape.n_layers):
            x = add(x, self._attention(layer, x, positions))
            x = add(x, self._feed_forward(layer, x))
        return self._project("classifier", *self._norm("norm", x)).view(np.float32)

    def _matrix(self, name, format):
        tensor = self.checkpoint.tensor(name)
        layer, _, last = name.rpartition(".")
        norm = "norm" if name == "classifier" else f"{layer}.norm"
        if last not in ("o", "down") and self._gains[norm] is None:
            tensor = tensor * self.checkpoint.tensor(norm)
        try:
            return Matrix(self.config, tensor, format)
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint.origin}: {name}: {error}") from None

    def _norm(self, name, x):
        """(what enters the array, 1/rms)"""
        gain, scale = self._gains[name], batch.rsqrt_mean_square(x, self._inverse_dim, self._epsilon)
        return x if gain is None else multiply(x, gain).astype(np.uint32), scale[:, None]

    def _project(self, name, x, scale):
        y = multiply(self._matrices[name](x), scale)
        bias = self._biases.get(f"{name}_bias")
        return (y if bias is None else add(y, bias)).astype(np.uint32)

    def _attention(self, layer, x, positions):
        shape, name = self.shape, f"layers.{layer}.attention"
        normed = self._norm(f"{name}.norm", x)
        k, v, q = (self._project(f"{name}.{each}", *normed).reshape(len(x), -1, shape.head_dim) for each in "kvq")
        q, k = (self._rotate(heads, positions) for heads in (q, k))
        if self._key_offsets is not None:
            k = add(k, self._key_offsets[layer])
        self.keys[layer] = _append(self.keys[layer], k, self._formats[0])
        self.values[layer] = _append(self.values[layer], v, self._formats[1])
        q = q.reshape(len(x), shape.n_kv_heads, -1, shape.head_dim)
        self.queries[layer] = q
        attend = _attend if "float" in self._formats else batch.attend
        mixed = attend(
            self.config,
            q,
            self.keys[layer],
            self.values[layer],
            counts=positions + 1,
            window=shape.window or 0,
            factor=self._factor,
        )
        return self._matrices[f"{name}.o"](mixed.reshape(len(x), -1))

    def _rotate(self, heads, positions):
        rope = self.shape.rope
        tables = rotary.table(
            positions, rope.rotated, base=rope.base, linear=rope.linear, llama3=rope.llama3, half=rope.half
        )
        return batch.rotate(heads, *(table[:, None] for table in tables), rope.rotated, half=rope.half)

    def _feed_forward(self, layer, x):
        name = f"layers.{layer}.feed_forward"
        normed = self._norm(f"{name}.norm", x)
        gated = batch.evaluate("silu", self._project(f"{name}.gate", *normed))
        return self._matrices[f"{name}.down"](multiply(self._project(f"{name}.up", *normed), gated))


def key_offsets(checkpoint, tokens):
    """Offsets that centre the keys of a text, as `Model` takes them: minus the middle of each dimension's range."""
    reference = Reference(checkpoint)
    reference.forward(tokens)
    return np.stack([-(keys.max(axis=0) + keys.min(axis=0)) / 2 for keys in reference.keys])


def _codes(numbers):
    return encode(np.asarray(numbers, np.float64)).astype(np.uint32)


def _append(cached, heads, format):
    """A cache with more positions: FP32 codes, or codes with a scale for each position and head."""
    if format == "float":
        codes, scales = heads, np.zeros(heads.shape[:2], np.uint32)
    else:
        quantised = [quantise.quantise(head, format) for head in heads.reshape(-1, heads.shape[-1])]
        codes = np.array([codes for codes, _ in quantised]).reshape(heads.shape)
        scales = np.array([scale for _, scale in quantised]).reshape(heads.shape[:2])
    return tuple(np.concatenate([old, new.astype(old.dtype)]) for old, new in zip(cached, (codes, scales), strict=True))


def _attend(config, queries, keys, cached, *, counts, window, factor):
    """Attention over a cache of FP32 codes in float64; arguments as of `batch.attend`."""
    positions = np.arange(len(keys[0]))
    seen = positions < counts[:, None]
    if window:
        seen &= positions >= counts[:, None] - window
    scores = np.einsum("tkgd,pkd->tkgp", decode(queries), decode(keys[0]), optimize=True) * decode(factor)
    scores = np.where(seen[:, None, None], scores, -np.inf)
    powers = np.exp2(scores - scores.max(axis=-1, keepdims=True))
    mixed = np.einsum("tkgp,pkd->tkgd", powers, decode(cached[0]), optimize=True)
    return _codes(mixed / powers.sum(axis=-1, keepdims=True))
