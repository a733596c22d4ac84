"""Tensors under a file's names, made into a checkpoint: sections of fused ones, and the check of all shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgeaccel.checkpoint.model import Checkpoint, CheckpointError, ModelShape

__all__ = ["Source", "checkpoint_of"]

UNUSED = ("inv_freq", "rope_freqs.weight")  # tables of what the configuration says


@dataclass(frozen=True)
class Source:
    """A tensor in a file.

    Attributes
    ----------
    shape : tuple of int
    read : function
        Gives the rows of a slice.
    """

    shape: tuple[int, ...]
    read: Callable[[slice], np.ndarray]

    def section(self, begin, end):
        """Rows `begin` to `end` as a tensor."""
        return Source((end - begin, *self.shape[1:]), partial(self._read_section, begin, end))

    def _read_section(self, begin, end, channels):
        first, last, step = channels.indices(end - begin)
        return self.read(slice(begin, end))[channels] if step != 1 else self.read(slice(begin + first, begin + last))


def checkpoint_of(shape: ModelShape, tensors: Mapping[str, Source], names: Mapping[str, tuple], origin) -> Checkpoint:
    """A checkpoint of a file's tensors.

    Parameters
    ----------
    shape : ModelShape
    tensors : mapping of str to Source
        By the file's names.
    names : mapping of str to (name in the file, first row, or None for all of it)
        By the names of `ModelShape.tensors`.
    origin : path

    Raises
    ------
    CheckpointError
        If a tensor is not there, or has other sizes than the model, or nothing uses it.
    """
    sections, rows = {}, {}
    for name, size in shape.tensors().items():
        if name == "classifier" and shape.tied:
            continue
        where, begin = names[name]
        if where not in tensors:
            raise CheckpointError(
                f"{origin}: there is no tensor {where}, the model's {name}; is a part of the download missing, or is it"
                " another model than its configuration says?"
            )
        tensor = tensors[where]
        if begin is not None:
            rows[where] = max(rows.get(where, 0), begin + size[0])
            # Cut from what is there; that all of it is used is checked below.
            tensor = tensor.section(begin, begin + size[0])
        if tensor.shape != size:
            raise CheckpointError(
                f"{origin}: {where} must be of shape {size} for the sizes of the configuration, not {tensor.shape}"
            )
        sections[name] = tensor.read
    for where, used in rows.items():
        if tensors[where].shape[0] != used:
            raise CheckpointError(
                f"{origin}: {where} must have {used} rows for the sizes of the configuration, not"
                f" {tensors[where].shape[0]}"
            )
    used = {names[name][0] for name in shape.tensors()}
    unused = [name for name in tensors if name not in used and not name.endswith(UNUSED)]
    if unused:
        raise CheckpointError(
            f"{origin}: nothing uses {', '.join(unused[:3])}{' and others' * (len(unused) > 3)}; such a model is not"
            " supported"
        )
    return Checkpoint(shape=shape, sources=sections, origin=str(origin))
