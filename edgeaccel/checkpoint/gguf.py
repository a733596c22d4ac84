"""Checkpoints in GGUF, the format of llama.cpp: Llama and Mistral, Qwen2, ChatGLM2.

What is quantised becomes float32 again. Who writes Llama's files permutes queries and keys so that neighbours are
rotated together; the others lie as Hugging Face has them.
"""

from functools import partial
from pathlib import Path

import numpy as np

from edgeaccel.checkpoint.model import CheckpointError, ModelShape, Rope
from edgeaccel.checkpoint.package import package
from edgeaccel.checkpoint.sources import Source, checkpoint_of
from edgeaccel.golden.rotary import Llama3Scaling

__all__ = ["load", "read"]

NAMES = {
    "attention.norm": "attn_norm.weight",
    **{f"attention.{name}": f"attn_{name}.weight" for name in "qkv"},
    **{f"attention.{name}_bias": f"attn_{name}.bias" for name in "qkv"},
    "attention.o": "attn_output.weight",
    "feed_forward.norm": "ffn_norm.weight",
    **{f"feed_forward.{name}": f"ffn_{name}.weight" for name in ("gate", "up", "down")},
}


def load(path):
    """The checkpoint in a file.

    Raises
    ------
    CheckpointError
        A file that is cut or no GGUF; a model that is not supported, and what in it; sizes that disagree.
    ModuleNotFoundError
        If the package gguf is not installed.
    """
    path = Path(path)
    reader = read(path)
    fields = _Fields(path, reader)
    tensors = {tensor.name: _source(path, tensor) for tensor in reader.tensors}
    try:
        shape = _shape(fields, tensors)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; get the file anew") from None
    return checkpoint_of(shape, tensors, _names(shape, tensors), path)


def read(path):
    """The `gguf.GGUFReader` of a file that is whole.

    Raises
    ------
    CheckpointError
        A file that is cut or no GGUF.
    ModuleNotFoundError
        If the package gguf is not installed.
    """
    gguf = package("gguf")
    array = int(gguf.GGUFValueType.ARRAY)  # looked up once: that is slow

    class Reader(gguf.GGUFReader):
        """Does what the package does, but several times as fast, and what it would read past the end is an error."""

        def _get(self, offset, dtype, count=1, override_order=None):
            # Views of a mapped file cost ten times as much as those of the buffer behind it.
            dtype, offset, count = np.dtype(dtype), int(offset), int(count)
            self._must_have(offset, count * dtype.itemsize)
            order = self.byte_order if override_order is None else override_order
            return np.frombuffer(self.data.data, dtype.newbyteorder(order), count, offset)

        def _get_field_parts(self, orig_offs, raw_type):
            if raw_type == array:
                kind, count = self._get(orig_offs, np.uint32)[0], self._get(orig_offs + 4, np.uint64)[0]
                number = self.gguf_scalar_to_np.get(kind)
                # A string or an array begins with its length; a broken count is not counted through.
                self._must_have(int(orig_offs) + 12, int(count) * (8 if number is None else np.dtype(number).itemsize))
            return super()._get_field_parts(orig_offs, raw_type)

        def _must_have(self, offset, n_bytes):
            if offset + n_bytes > len(self.data):
                raise ValueError(f"it ends before byte {offset + n_bytes}")

    try:
        return Reader(path)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise CheckpointError(f"{path}: is no GGUF file, or not all of it ({error}); get the file anew") from None


class _Fields:
    """The file's fields; those of its architecture without its name."""

    def __init__(self, path, reader):
        self.path, self._reader = path, reader
        self.architecture = self("general.architecture", kind=str, of_architecture=False)
        if self.architecture not in ("llama", "qwen2", "chatglm"):
            raise CheckpointError(
                f"{path}: architecture {self.architecture!r} is not supported, only llama, qwen2 and chatglm"
            )

    def __call__(self, name, *default, kind=int, of_architecture=True):
        name = f"{self.architecture}.{name}" if of_architecture else name
        field = self._reader.get_field(name)
        if field is None:
            if default:
                return default[0]
            raise CheckpointError(f"{self.path}: {name} is missing; get the file anew")
        value = field.contents()
        if type(value) is not kind:
            raise CheckpointError(f"{self.path}: {name} must be of type {kind.__name__}, not {value!r}")
        return value


def _shape(fields, tensors):
    if "token_embd.weight" not in tensors:
        raise CheckpointError(f"{fields.path}: there is no tensor token_embd.weight; is it the file of a vocabulary?")
    if fields("expert_count", 0):
        raise CheckpointError(f"{fields.path}: mixtures of experts are not supported")
    dim, n_heads = fields("embedding_length"), fields("attention.head_count")
    head_dim = fields("attention.key_length", dim // max(n_heads, 1))
    bos, eos = (fields(f"tokenizer.ggml.{name}_token_id", None, of_architecture=False) for name in ("bos", "eos"))
    return ModelShape(
        dim=dim,
        hidden_dim=fields("feed_forward_length"),
        n_layers=fields("block_count"),
        n_heads=n_heads,
        n_kv_heads=fields("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        vocab_size=tensors["token_embd.weight"].shape[0],
        max_positions=fields("context_length"),
        rope=_rope(fields, tensors, fields("rope.dimension_count", head_dim)),
        norm_epsilon=fields("attention.layer_norm_rms_epsilon", kind=float),
        qkv_bias="blk.0.attn_q.bias" in tensors or "blk.0.attn_qkv.bias" in tensors,
        window=fields("attention.sliding_window", 0) or None,
        tied="output.weight" not in tensors,
        bos=bos,
        eos=() if eos is None else (eos,),
    )


def _rope(fields, tensors, rotated):
    kind = fields("rope.scaling.type", "none", kind=str)
    if kind not in ("none", "linear"):
        raise CheckpointError(f"{fields.path}: rope.scaling.type {kind!r} is not supported, only linear")
    linear = fields("rope.scaling.factor", kind=float) if kind == "linear" else 1.0
    base = fields("rope.freq_base", 10000.0, kind=float)
    llama3 = None
    if "rope_freqs.weight" in tensors:
        llama3 = _llama3(fields.path, tensors["rope_freqs.weight"].read(slice(None)), base, rotated)
    return Rope(rotated=rotated, half=fields.architecture == "qwen2", base=base, linear=linear, llama3=llama3)


def _llama3(path, divisors, base, rotated):
    """The scaling that a file has as a divisor for each frequency: those of Llama 3.1 and 3.2 differ in one number."""
    scaling = Llama3Scaling(factor=float(divisors.max()))
    frequencies = base ** (-np.arange(0, rotated, 2) / rotated)
    if divisors.shape != frequencies.shape or not np.allclose(
        frequencies / scaling.apply(frequencies), divisors, rtol=1e-3
    ):
        raise CheckpointError(f"{path}: rope_freqs.weight is not the scaling of Llama 3.1, which alone is supported")
    return scaling


def _names(shape, tensors):
    names = {"embedding": "token_embd.weight", "norm": "output_norm.weight", "classifier": "output.weight"}
    for n in range(shape.n_layers):
        names |= {f"layers.{n}.{ours}": f"blk.{n}.{theirs}" for ours, theirs in NAMES.items()}
    places = {ours: (theirs, None) for ours, theirs in names.items()}
    firsts = {"q": 0, "k": shape.q_dim, "v": shape.q_dim + shape.kv_dim}
    for n in range(shape.n_layers):
        layer, theirs = f"layers.{n}", f"blk.{n}"
        if f"{theirs}.attn_qkv.weight" in tensors:
            for name, first in firsts.items():
                places[f"{layer}.attention.{name}"] = (f"{theirs}.attn_qkv.weight", first)
                places[f"{layer}.attention.{name}_bias"] = (f"{theirs}.attn_qkv.bias", first)
        if f"{theirs}.ffn_gate.weight" not in tensors:
            places[f"{layer}.feed_forward.gate"] = (f"{theirs}.ffn_up.weight", 0)
            places[f"{layer}.feed_forward.up"] = (f"{theirs}.ffn_up.weight", shape.hidden_dim)
    return places


def _source(path, tensor):
    # Sizes stand with the fastest first.
    return Source(tuple(int(size) for size in reversed(tensor.shape)), partial(_read, path, tensor))


def _read(path, tensor, channels):
    from gguf.quants import dequantize

    try:
        return dequantize(np.ascontiguousarray(tensor.data[channels]), tensor.tensor_type)
    except NotImplementedError:
        raise CheckpointError(
            f"{path}: {tensor.name} is of type {tensor.tensor_type.name}, which is not read; get the model in F16 or"
            " Q8_0"
        ) from None
