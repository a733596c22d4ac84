"""A small model of the project's own that tells stories, the stories that it learned from, and how it was trained."""

from pathlib import Path

__all__ = ["files"]

CHECKPOINT, TOKENIZER = "stories.bin", "tokenizer.bin"


def files() -> tuple[Path, Path]:
    """Paths of the model's checkpoint and of its tokenizer, both in the formats of llama2.c."""
    folder = Path(__file__).resolve().parent / "model"
    return folder / CHECKPOINT, folder / TOKENIZER
