"""The compiler: a checkpoint becomes an image, with a program that runs it on a machine."""

import dataclasses

import numpy as np

from edgeaccel.compiler.memory import memory
from edgeaccel.compiler.plan import KINDS, CompileError, Plan
from edgeaccel.compiler.program import program
from edgeaccel.compiler.weights import Packer
from edgeaccel.image import Image
from edgeaccel.vector.beat import check_length
from edgeaccel.vector.rotary import check_positions, check_rotation

__all__ = ["KINDS", "CompileError", "compile_model", "plan_model"]


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
    plan = plan_model(
        shape,
        machine,
        weights=weights,
        classifier=classifier,
        cache=cache,
        positions=positions,
        formats=formats,
        origin=checkpoint.origin,
    )
    if tokenizer is not None and len(tokenizer) != shape.vocab_size:
        raise CompileError(
            f"{checkpoint.origin}: the tokenizer has {len(tokenizer)} tokens, but the model {shape.vocab_size}; take"
            " the one that it was trained with"
        )
    code, names = program(plan)
    regions, segments = memory(plan, Packer(checkpoint, machine), code)
    address = plan.data["program"].address
    manifest = {
        "model": dataclasses.asdict(shape),
        "origin": str(checkpoint.origin),
        "formats": plan.formats,
        "cache_format": cache,
        "positions": plan.positions,
        "vocab_size": shape.vocab_size,
        "bos": shape.bos,
        "eos": list(plan.ends),
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


def plan_model(
    shape, machine, *, weights="int8", classifier=None, cache="int16", positions=None, formats=None, origin=""
):
    """Where everything of a model lies on a machine, from its shape alone; `program` writes the program from it.

    Parameters
    ----------
    shape : edgeaccel.checkpoint.ModelShape
    machine, weights, classifier, cache, positions, formats
        As of `compile_model`.
    origin : str
        Where the model comes from, for messages.

    Returns
    -------
    Plan

    Raises
    ------
    CompileError
        If the machine cannot run the model, or there is no such kind or format.
    """
    of_model = {
        "shape": shape,
        "machine": machine,
        "formats": _formats(weights, classifier, formats or {}),
        "cache": cache,
        "origin": origin,
    }
    try:
        plan = Plan(
            positions=min(shape.max_positions, machine.positions) if positions is None else positions, **of_model
        )
    except CompileError as error:
        if positions is not None or not error.positions:
            raise
        plan = Plan(positions=error.positions, **of_model)
    _check_units(plan)
    return plan


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


def _described(matrix):
    described = {"format": matrix.format, "inputs": matrix.inputs, "tiles": matrix.tiles}
    for name in ("rows", "columns"):
        places = getattr(matrix, name)
        described[name] = None if np.array_equal(places, np.arange(len(places))) else places.tolist()
    return described
