"""A small trained model that is not part of the project: where it is looked for, and what it is.

stories260K, Karpathy's tinyllamas: `stories260K.bin` in llama2.c's version 0 and its tokenizer `tok512.bin`, in a
folder that the environment variable EDGEACCEL_MODELS names, or else in ../shared/models beside the project.
"""

import os
from pathlib import Path

from edgeaccel.checkpoint import llama2c, tokenizer

__all__ = ["files", "load"]

NAMES = ("stories260K.bin", "tok512.bin")


def files():
    """Paths of the checkpoint and of its tokenizer.

    Raises
    ------
    FileNotFoundError
        If one is not there; says where to get it.
    """
    default = Path(__file__).resolve().parents[3] / "shared" / "models"
    folder = Path(os.environ.get("EDGEACCEL_MODELS") or default)
    for name in NAMES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {name} in {folder}: get stories260K from huggingface.co/karpathy/tinyllamas and name its"
                " folder in EDGEACCEL_MODELS"
            )
    return tuple(folder / name for name in NAMES)


def load():
    """(checkpoint, tokenizer); raises as `files` does."""
    model, pieces = files()
    checkpoint = llama2c.load(model)
    return checkpoint, tokenizer.load(pieces, checkpoint.shape.vocab_size)
