"""Tokenizers of SentencePiece, a `tokenizer.model` as Llama 2, Mistral and ChatGLM2 have it, through that package."""

import base64
import json
from pathlib import Path

from edgeaccel.checkpoint.model import CheckpointError
from edgeaccel.checkpoint.package import package
from edgeaccel.checkpoint.tokenizer_huggingface import check_size

__all__ = ["SentencePieceTokenizer", "load", "restore"]

# ChatGLM2 begins a text with two tokens behind the file's own: of [MASK], [gMASK], [sMASK], sop and eop, which have the
# next numbers, the second and the fourth (its tokenization_chatglm.py, `SPTokenizer` and `get_prefix_tokens`).
CHATGLM_TOKENS, CHATGLM_PREFIX = 5, (1, 3)


class SentencePieceTokenizer:
    """Text to tokens and back, as `edgeaccel.checkpoint.tokenizer.Tokenizer`.

    Parameters
    ----------
    model : bytes
        What the file holds.
    vocab_size : int
        Tokens of the model; it may have more than the tokenizer. Those behind the tokenizer's have no text.
    begins : list of int
        Tokens that a text begins with.

    Raises
    ------
    ValueError
        If it is no model of SentencePiece.
    """

    def __init__(self, model, vocab_size, begins):
        self._model, self._vocab_size, self._begins = bytes(model), vocab_size, list(begins)
        self._pieces = package("sentencepiece").SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(self._model)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"SentencePiece cannot read it: {error}".strip()) from None

    def __len__(self):
        return self._vocab_size

    @property
    def n_pieces(self):
        """Tokens of the tokenizer."""
        return self._pieces.GetPieceSize()

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Tokens of a text; with `bos` behind those that a text begins with.

        Raises
        ------
        ValueError
            If the vocabulary lacks a character.
        """
        try:
            text.encode("utf-8")
        except UnicodeError as error:
            raise ValueError(f"the text is no Unicode that can be encoded ({error}); leave out what is not") from None
        tokens, unknown = self._pieces.encode(text), self._pieces.unk_id()
        if unknown in tokens:
            lacking = (n for n, character in enumerate(text) if unknown in self._pieces.encode(character))
            place = next(lacking, 0)
            raise ValueError(f"the vocabulary lacks {text[place]!r}, character {place} of the text; leave it out")
        return self._begins * bos + tokens

    def decode(self, tokens) -> str:
        """Text of tokens; special ones have none."""
        tokens = [int(token) for token in tokens]
        for token in tokens:
            if not 0 <= token < self._vocab_size:
                raise ValueError(f"token must be 0 to {self._vocab_size - 1}, not {token!r}")
        return self._pieces.decode([token for token in tokens if token < self.n_pieces])

    def describe(self):
        """What JSON can hold, of which `restore` makes the tokenizer again."""
        model = base64.b64encode(self._model).decode("ascii")
        return {"kind": "sentencepiece", "model": model, "vocab_size": self._vocab_size, "begins": self._begins}


def load(path, vocab_size) -> SentencePieceTokenizer:
    """The tokenizer in a file.

    Raises
    ------
    CheckpointError
        A file that is no tokenizer, or has more tokens than the model.
    ModuleNotFoundError
        If the package sentencepiece is not installed.
    """
    path = Path(path)
    try:
        made = SentencePieceTokenizer(path.read_bytes(), vocab_size, ())
    except ValueError as error:
        raise CheckpointError(f"{path}: is no tokenizer.model ({error}); get the file anew") from None
    if _is_chatglm(path.parent):
        check_size(path, made.n_pieces + CHATGLM_TOKENS, vocab_size)
        made._begins = [made.n_pieces + n for n in CHATGLM_PREFIX]
        return made
    check_size(path, made.n_pieces, vocab_size)
    bos = made._pieces.bos_id()
    made._begins = [bos] if bos >= 0 and _adds_bos(path.parent) else []
    return made


def restore(fields) -> SentencePieceTokenizer:
    """The tokenizer of `SentencePieceTokenizer.describe`; raises KeyError, TypeError or ValueError if it is none."""
    begins = [int(token) for token in fields["begins"]]
    return SentencePieceTokenizer(base64.b64decode(fields["model"], validate=True), int(fields["vocab_size"]), begins)


def _is_chatglm(folder):
    return _config(folder / "config.json").get("model_type") == "chatglm"


def _adds_bos(folder):
    return _config(folder / "tokenizer_config.json").get("add_bos_token", True) is not False


def _config(path):
    """The fields of a configuration, or none if there is none."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}
