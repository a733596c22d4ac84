"""Checkpoints: the weights of a language model and its shape, from the files that others write."""

from pathlib import Path

from edgeaccel.checkpoint.model import Checkpoint, CheckpointError, ModelShape, Rope

__all__ = ["Checkpoint", "CheckpointError", "ModelShape", "Rope", "load"]


def load(path) -> Checkpoint:
    """The checkpoint in a folder of Hugging Face, a .gguf file, or a .bin file of llama2.c.

    Raises
    ------
    CheckpointError
        As the loaders do, `edgeaccel.checkpoint.huggingface`, `gguf` and `llama2c`.
    """
    from edgeaccel.checkpoint import gguf, huggingface, llama2c

    path = Path(path)
    if path.is_dir():
        return huggingface.load(path)
    return gguf.load(path) if path.suffix == ".gguf" else llama2c.load(path)
