"""Checkpoints of llama2.c, version 0: seven little-endian int32, then float32 tensors.

The header holds dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size and seq_len; vocab_size is negative if the
classifier is a tensor of its own. Each kind of tensor follows for all layers at once. Two tables of cosines and sines
that nobody reads any more stand before the classifier. (llama2.c, `export.py`: `legacy_export`.)
"""

import math
from functools import partial
from pathlib import Path

import numpy as np

from edgeaccel.checkpoint.model import Checkpoint, CheckpointError, ModelShape, Rope

__all__ = ["load"]

HEADER = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
HEADER_BYTES = 4 * len(HEADER)
MAGIC = 0x616B3432  # "ak42", with which versions 1 and 2 begin
# In the order of the file.
LAYER_TENSORS = (
    "attention.norm",
    "attention.q",
    "attention.k",
    "attention.v",
    "attention.o",
    "feed_forward.norm",
    "feed_forward.gate",
    "feed_forward.down",
    "feed_forward.up",
)


def load(path) -> Checkpoint:
    """The checkpoint in a file, mapped into memory.

    Raises
    ------
    CheckpointError
        A header whose numbers are no model, or a file that is longer or shorter than its header says.
    """
    path = Path(path)
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise CheckpointError(f"{path}: {size} bytes, but the header alone is {HEADER_BYTES}; get the file anew")
    shape = _shape(path)
    names, floats = _places(shape)
    expected = HEADER_BYTES + 4 * floats
    if size != expected:
        what = f"truncated by {expected - size}" if size < expected else f"followed by {size - expected} more"
        raise CheckpointError(
            f"{path}: {size} bytes, but the header's sizes need {expected}: {what}; get the file anew, or"
            " convert it with llama2.c's export.py --version 0"
        )
    data = np.memmap(path, "<f4", "r", offset=HEADER_BYTES)
    shapes = shape.tensors()
    sources = {name: partial(_slice, data, place, shapes[name]) for name, place in names.items()}
    return Checkpoint(shape=shape, sources=sources, origin=str(path))


def _shape(path):
    with path.open("rb") as file:
        header = dict(zip(HEADER, np.fromfile(file, "<i4", len(HEADER)).tolist(), strict=True))
    if header["dim"] == MAGIC:
        raise CheckpointError(
            f"{path}: version {header['hidden_dim']} of llama2.c's format, which has a magic number; only version 0 is"
            " read: convert it with llama2.c's export.py --version 0"
        )
    vocab_size, n_heads = header.pop("vocab_size"), header["n_heads"]
    try:
        if n_heads < 1 or header["dim"] < 1 or header["dim"] % n_heads:
            raise ValueError(f"dim must be a positive multiple of the {n_heads} heads, not {header['dim']}")
        head_dim = header["dim"] // n_heads
        return ModelShape(
            max_positions=header.pop("seq_len"),
            vocab_size=abs(vocab_size),
            head_dim=head_dim,
            tied=vocab_size > 0,
            rope=Rope(rotated=head_dim),
            norm_epsilon=1e-5,
            bos=1,
            eos=(2,),
            **header,
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: header: {error}; is it a version-0 checkpoint of llama2.c?") from None


def _places(shape):
    """Where each tensor begins, in floats after the header, and the floats of the whole file."""
    shapes = shape.tensors()
    names = ["embedding"]
    names += [f"layers.{n}.{name}" for name in LAYER_TENSORS for n in range(shape.n_layers)]
    names += ["norm"]
    places, place = {}, 0
    for name in names:
        places[name] = place
        place += math.prod(shapes[name])
    place += shape.max_positions * (shape.head_dim // 2) * 2
    if not shape.tied:
        places["classifier"] = place
        place += math.prod(shapes["classifier"])
    return places, place


def _slice(data, place, shape, channels):
    size = math.prod(shape)
    return data[place : place + size].reshape(shape)[channels]
