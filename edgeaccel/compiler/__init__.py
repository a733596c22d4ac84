"""The compiler: a checkpoint becomes an image, with a program that runs it on a machine."""

import dataclasses
from functools import partial

import numpy as np

from edgeaccel.compiler.plan import KINDS, LAYER_KINDS, CompileError, Plan
from edgeaccel.compiler.program import program
from edgeaccel.compiler.weights import Packer, fp32, head_places
from edgeaccel.golden import rotary
from edgeaccel.image import Image, Lazy
from edgeaccel.vector.beat import check_length
from edgeaccel.vector.rotary import check_positions, check_rotation

__all__ = ["KINDS", "CompileError", "compile_model"]

TABLE_POSITIONS = 4096  # of the rotary table that are worked on at a time


def compile_model(
    checkpoint,
    machine,
    *,
    weights="int8",
    classifier=None,
    cache="int16",
    positions=None,
    tokenizer=None,
    formats=None,
):
    """The image of a checkpoint for a machine.

    Weights are read, quantised and packed when the image's segments are asked for, a few MB at a time.

    Parameters
    ----------
    checkpoint : edgeaccel.checkpoint.Checkpoint
    machine : edgeaccel.machine.Machine
    weights, classifier : str
        Formats of matrices, of the build's, and of the classifier if it has another.
    cache : str
        Format of keys and values: "int16", "int8" or "int4".
    positions : int, optional
        Tokens that a sequence can have; by default as many as the model was made for, or as fit the machine.
    tokenizer : edgeaccel.checkpoint.tokenizer.Tokenizer, optional
        Goes with the image.
    formats : dict of str to str, optional
        Formats of single kinds of matrices, of `KINDS`.

    Returns
    -------
    Image
        In its manifest:

        model, origin, formats, cache_format, positions, vocab_size, bos, eos
            What was compiled.
        logits
            Address of the last token's logits, FP32.
        regions
            {name: [address, bytes]} of everything in memory. A region of tiles is in every port, from ``address + n *
            port_bytes`` on; `bytes` are those of the port that has the most.
        matrices
            {kind: what it looks like in memory}: format, inputs, tiles, and the tensor's row of each channel and column
            of each input in `rows` and `columns`, -1 for zeros, or null if they are in order.
        names
            What each instruction is for.
        cache, buffer, vector
            Fields of the `cache` instruction; words of the activation buffer, and of the vector memory.
        tokenizer
            What `edgeaccel.checkpoint.tokenizer.restore` takes, or null.

    Raises
    ------
    CompileError
        If the machine cannot run the model, or there is no such kind or format.
    CheckpointError
        If the file does not hold what it promised, or holds what is no number; also when segments are asked for.
    """
    shape = checkpoint.shape
    plan = _plan(checkpoint, machine, _formats(weights, classifier, formats or {}), cache, positions)
    if tokenizer is not None and len(tokenizer) != shape.vocab_size:
        raise CompileError(
            f"{checkpoint.origin}: the tokenizer has {len(tokenizer)} tokens, but the model {shape.vocab_size}; take"
            " the one that it was trained with"
        )
    _check_units(plan)
    code, names = program(plan)
    regions, segments = _memory(plan, Packer(checkpoint, machine), code)
    address = plan.data["program"].address
    manifest = {
        "model": dataclasses.asdict(shape),
        "origin": str(checkpoint.origin),
        "formats": plan.formats,
        "cache_format": cache,
        "positions": plan.positions,
        "vocab_size": shape.vocab_size,
        "bos": shape.bos,
        "eos": list(shape.eos),
        "logits": plan.data["logits"].address,
        "regions": regions,
        "matrices": {kind: _described(matrix) for kind, matrix in plan.matrices.items()},
        "names": names,
        "cache": plan.layout.view(
            pages=plan.pages, n_pages=plan.pages, base=plan.cache_word, scales=plan.data["cache.scales"].address
        ),
        "buffer": plan.buffer,
        "vector": {"x": plan.x, "up": plan.up},
        "tokenizer": None if tokenizer is None else tokenizer.describe(),
    }
    return Image(machine=machine, program=code, program_address=address, segments=segments, manifest=manifest)


def _plan(checkpoint, machine, formats, cache, positions):
    shape = checkpoint.shape
    of_model = {"shape": shape, "machine": machine, "formats": formats, "cache": cache, "origin": checkpoint.origin}
    if positions is not None:
        return Plan(positions=positions, **of_model)
    try:
        return Plan(positions=min(shape.max_positions, machine.positions), **of_model)
    except CompileError as error:
        if not error.positions:
            raise
        return Plan(positions=error.positions, **of_model)


def _formats(weights, classifier, formats):
    if unknown := formats.keys() - set(KINDS):
        raise CompileError(f"kinds of matrices are {', '.join(KINDS)}, not {', '.join(sorted(unknown))}")
    return dict.fromkeys(KINDS, weights) | ({} if classifier is None else {"classifier": classifier}) | dict(formats)


def _check_units(plan):
    """What the units themselves say of what they will be asked."""
    shape, machine, layout = plan.shape, plan.machine, plan.layout
    sizes = {"lanes": plan.lanes, "max_length": machine.max_channels, "max_rotated": machine.max_rotated}
    try:
        check_length(shape.dim, machine.max_channels)
        check_rotation(shape.head_dim, shape.rope.rotated, half=plan.half, **sizes)
        check_positions(plan.positions, plan.data["table"].bytes // plan.table_bytes)
        layout.check_append(position=plan.positions - 1, rows=1, pages=plan.pages)
        for spread in (True, False):
            batches = plan.batches(spread=spread)
            for first, heads in plan.attends(spread=spread):
                layout.check_attend(
                    first_head=first,
                    n_heads=heads,
                    batches=batches,
                    last_position=plan.positions - 1,
                    pages=plan.pages,
                    slots=machine.slots,
                )
    except ValueError as error:
        raise CompileError(f"{plan.origin}: {error}") from None


def _memory(plan, packer, code):
    """({name: [address, bytes]} of all regions, segments of those that hold something from the start)."""
    shape, word_bytes = plan.shape, plan.machine.config.word_bytes
    regions, segments = {}, []

    def matrix(name, kind, word):
        regions[name] = [word * word_bytes, plan.matrices[kind].port_words * word_bytes]
        segments.extend(packer.matrix(name, plan.matrices[kind], word))

    for layer in range(shape.n_layers):
        for kind, name in LAYER_KINDS.items():
            matrix(f"layers.{layer}.{name}", kind, plan.first_words[kind] + layer * plan.layer_stride)
    matrix("classifier", "classifier", plan.first_words["classifier"])
    of_layer = plan.pages * plan.layout.page_words * word_bytes
    for layer in range(shape.n_layers):
        regions[f"layers.{layer}.cache"] = [plan.cache_word * word_bytes + layer * of_layer, of_layer]

    program_ = np.frombuffer(code, np.uint8)
    regions["program"] = [plan.data["program"].address, len(program_)]
    segments.append((plan.data["program"].address, program_))
    regions["logits"] = _region(plan.data["logits"])
    for name, make, stride, count in _parameters(plan, packer):
        where = plan.data[name]
        for layer in range(count):
            tensor = f"layers.{layer}.{name}" if layer < shape.n_layers else "norm"
            size = plan.gain_bytes if name.endswith("norm") else stride
            regions[tensor] = [where.address + layer * stride, size]
            segments.append((where.address + layer * stride, Lazy(size, partial(make, tensor, size))))
    regions["table"] = _region(plan.data["table"])
    for first in range(0, plan.positions, TABLE_POSITIONS):
        last = min(first + TABLE_POSITIONS, plan.positions)
        make = partial(_table, plan, first, last)
        address = plan.data["table"].address + first * plan.table_bytes
        segments.append((address, Lazy((last - first) * plan.table_bytes, make)))
    of_layer = plan.pages * plan.layout.page_scale_bytes
    for layer in range(shape.n_layers):
        regions[f"layers.{layer}.cache.scales"] = [plan.data["cache.scales"].address + layer * of_layer, of_layer]
    where = plan.data["embedding"]
    regions["embedding"] = _region(where)
    segments += packer.vectors("embedding", where.address, plan.gain_bytes)
    return regions, segments


def _parameters(plan, packer):
    """(name, how a layer's are made, bytes from layer to layer, how many) of gains and biases."""
    shape = plan.shape

    def gains(name, size):
        return _padded(packer.vector(name), size)

    yield "attention.norm", gains, plan.gain_stride, shape.n_layers + 1
    yield "feed_forward.norm", gains, plan.gain_stride, shape.n_layers
    if shape.qkv_bias:
        for kind in "kvq":
            heads = shape.n_heads if kind == "q" else shape.n_kv_heads
            # In the order of the matrix's rows, but with heads padded to words, not to tiles.
            halves = shape.rope.rotated if kind != "v" and shape.rope.half and not plan.half else 0
            places = head_places(heads, shape.head_dim, plan.lanes, halves=halves)
            yield f"attention.{kind}_bias", partial(_bias, packer, places), plan.bias_bytes(kind), shape.n_layers


def _bias(packer, places, name, size):
    codes = packer.vector(name)
    return _padded(np.where(places < 0, 0, codes[np.maximum(places, 0)]).astype("<u4"), size)


def _padded(codes, size):
    padded = np.zeros(size // 4, "<u4")
    padded[: len(codes)] = codes
    return padded.view(np.uint8)


def _table(plan, first, last):
    """Of each position, for each beat its cosines, then its sines; what fills up the last beat turns by nothing."""
    rope = plan.shape.rope
    tables = rotary.table(
        np.arange(first, last), rope.rotated, base=rope.base, linear=rope.linear, llama3=rope.llama3, half=plan.half
    )
    width = plan.words(rope.rotated) * plan.lanes
    both = np.empty((last - first, width // plan.lanes, 2, plan.lanes), "<u4")
    for n, (codes, filler) in enumerate(zip(tables, (1.0, 0.0), strict=True)):
        padded = np.full((last - first, width), fp32(filler))
        padded[:, : rope.rotated] = codes
        both[:, :, n] = padded.reshape(last - first, -1, plan.lanes)
    return both.reshape(-1).view(np.uint8)


def _region(where):
    return [where.address, where.bytes]


def _described(matrix):
    described = {"format": matrix.format, "inputs": matrix.inputs, "tiles": matrix.tiles}
    for name in ("rows", "columns"):
        places = getattr(matrix, name)
        described[name] = None if np.array_equal(places, np.arange(len(places))) else places.tolist()
    return described
