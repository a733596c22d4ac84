"""Checkpoints: the weights of a language model and its shape, from the files that others write."""

from edgeaccel.checkpoint.model import Checkpoint, CheckpointError, ModelShape, Rope

__all__ = ["Checkpoint", "CheckpointError", "ModelShape", "Rope"]
