"""What memory holds: the places of all tensors, and what is written to them before the first run."""

from functools import partial

import numpy as np

from edgeaccel.checkpoint import CheckpointError
from edgeaccel.compiler.plan import LAYER_KINDS
from edgeaccel.compiler.weights import fp32, head_places
from edgeaccel.golden import rotary
from edgeaccel.image import Lazy

__all__ = ["memory"]

TABLE_POSITIONS = 4096  # of the rotary table that are worked on at a time


def memory(plan, packer, code):
    """({name: [address, bytes]} of all regions, segments of those that hold something from the start).

    Parameters
    ----------
    plan : edgeaccel.compiler.plan.Plan
    packer : edgeaccel.compiler.weights.Packer
    code : bytes
        The program.
    """
    regions, segments = {}, []
    for fill in (_tiles, _program, _parameters, _table):
        fill(plan, packer, code, regions, segments)
    return regions, segments


def _tiles(plan, packer, code, regions, segments):
    """Matrices in the order of their use, then the cache."""
    word_bytes, layers = plan.machine.config.word_bytes, range(plan.shape.n_layers)
    names = {
        f"layers.{layer}.{name}": (kind, plan.first_words[kind] + layer * plan.layer_stride)
        for layer in layers
        for kind, name in LAYER_KINDS.items()
    }
    for name, (kind, word) in (names | {"classifier": ("classifier", plan.first_words["classifier"])}).items():
        regions[name] = [word * word_bytes, plan.matrices[kind].port_words * word_bytes]
        segments += packer.matrix(name, plan.matrices[kind], word)
    of_layer = plan.pages * plan.layout.page_words * word_bytes
    for layer in layers:
        regions[f"layers.{layer}.cache"] = [plan.cache_word * word_bytes + layer * of_layer, of_layer]


def _program(plan, packer, code, regions, segments):
    where = plan.data["program"].address
    regions["program"] = [where, len(code)]
    segments.append((where, np.frombuffer(code, np.uint8)))
    regions["logits"] = [plan.data["logits"].address, plan.data["logits"].bytes]


def _parameters(plan, packer, code, regions, segments):
    """Gains, biases and the embedding."""
    for name, make, size, stride, count in _vectors(plan, packer):
        for layer in range(count):
            tensor = f"layers.{layer}.{name}" if layer < plan.shape.n_layers else "norm"
            address = plan.data[name].address + layer * stride
            regions[tensor] = [address, size]
            segments.append((address, Lazy(size, partial(make, tensor, size))))
    where = plan.data["embedding"]
    regions["embedding"] = [where.address, where.bytes]
    segments += packer.vectors("embedding", where.address, plan.gain_bytes)


def _vectors(plan, packer):
    """(name, how a layer's is made, its bytes, bytes from layer to layer, how many) of gains and biases."""
    shape = plan.shape

    def gain(name, size):
        return _padded(packer.vector(name), size)

    yield "attention.norm", gain, plan.gain_bytes, plan.gain_stride, shape.n_layers + 1
    yield "feed_forward.norm", gain, plan.gain_bytes, plan.gain_stride, shape.n_layers
    if shape.qkv_bias:
        for kind in "kvq":
            heads = shape.n_heads if kind == "q" else shape.n_kv_heads
            # In the order of the matrix's rows, but with heads padded to words, not to tiles.
            halves = shape.rope.rotated if kind != "v" and shape.rope.half and not plan.half else 0
            places = head_places(heads, shape.head_dim, plan.lanes, halves=halves)
            size = plan.bias_bytes(kind)
            yield f"attention.{kind}_bias", partial(_bias, packer, places), size, size, shape.n_layers


def _bias(packer, places, name, size):
    codes = packer.vector(name)
    return _padded(np.where(places < 0, 0, codes[np.maximum(places, 0)]).astype("<u4"), size)


def _padded(codes, size):
    padded = np.zeros(size // 4, "<u4")
    padded[: len(codes)] = codes
    return padded.view(np.uint8)


def _table(plan, packer, code, regions, segments):
    """The rotary table, and the place of the values' scales."""
    where = plan.data["table"]
    regions["table"] = [where.address, where.bytes]
    for first in range(0, plan.positions, TABLE_POSITIONS):
        last = min(first + TABLE_POSITIONS, plan.positions)
        make = partial(_turns, plan, first, last)
        segments.append((where.address + first * plan.table_bytes, Lazy((last - first) * plan.table_bytes, make)))
    of_layer = plan.pages * plan.layout.page_scale_bytes
    for layer in range(plan.shape.n_layers):
        regions[f"layers.{layer}.cache.scales"] = [plan.data["cache.scales"].address + layer * of_layer, of_layer]


def _turns(plan, first, last):
    """Of each position, for each beat its cosines, then its sines; what fills up the last beat turns by nothing."""
    rope, lanes = plan.shape.rope, plan.lanes
    with np.errstate(all="ignore"):
        tables = rotary.table(
            np.arange(first, last), rope.rotated, base=rope.base, linear=rope.linear, llama3=rope.llama3, half=plan.half
        )
    if not all(np.isfinite(codes.view(np.float32)).all() for codes in tables):
        raise CheckpointError(f"{plan.origin}: no angles of positions come of {rope}; get its configuration anew")
    width = plan.words(rope.rotated) * lanes
    both = np.empty((last - first, width // lanes, 2, lanes), "<u4")
    for n, (codes, filler) in enumerate(zip(tables, (1.0, 0.0), strict=True)):
        padded = np.full((last - first, width), fp32(filler))
        padded[:, : rope.rotated] = codes
        both[:, :, n] = padded.reshape(last - first, -1, lanes)
    return both.reshape(-1).view(np.uint8)
