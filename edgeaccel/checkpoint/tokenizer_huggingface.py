"""Tokenizers of Hugging Face, a `tokenizer.json`, through the package that wrote it."""

from pathlib import Path

from edgeaccel.checkpoint.model import CheckpointError
from edgeaccel.checkpoint.package import package

__all__ = ["HuggingFaceTokenizer", "load", "restore"]


class HuggingFaceTokenizer:
    """Text to tokens and back, as `edgeaccel.checkpoint.tokenizer.Tokenizer`.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    vocab_size : int
        Tokens of the model; it may have more than the tokenizer, to be a round number of them.
    """

    def __init__(self, tokenizer, vocab_size):
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        tokenizer.no_truncation()
        tokenizer.no_padding()
        unknown = getattr(tokenizer.model, "unk_token", None)
        self._unknown = None if unknown is None else tokenizer.token_to_id(unknown)

    def __len__(self):
        return self._vocab_size

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Tokens of a text; with `bos` those among them that the tokenizer puts round a whole text.

        Raises
        ------
        ValueError
            If the vocabulary lacks a character.
        """
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=bos)
        except (UnicodeError, TypeError) as error:
            raise ValueError(f"the text is no Unicode that can be encoded ({error}); leave out what is not") from None
        places = zip(encoding.ids, encoding.offsets, strict=True)
        known = {place for token, offsets in places if token != self._unknown for place in range(*offsets)}
        for place, character in enumerate(text):
            if place not in known and not character.isspace():
                raise ValueError(f"the vocabulary lacks {character!r}, character {place} of the text; leave it out")
        return encoding.ids

    def decode(self, tokens) -> str:
        """Text of tokens; special ones have none."""
        tokens = [int(token) for token in tokens]
        for token in tokens:
            if not 0 <= token < self._vocab_size:
                raise ValueError(f"token must be 0 to {self._vocab_size - 1}, not {token!r}")
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def describe(self):
        """What JSON can hold, of which `restore` makes the tokenizer again."""
        return {"kind": "huggingface", "json": self._tokenizer.to_str(), "vocab_size": self._vocab_size}


def load(path, vocab_size) -> HuggingFaceTokenizer:
    """The tokenizer in a file.

    Raises
    ------
    CheckpointError
        A file that is no tokenizer, or has more tokens than the model.
    ModuleNotFoundError
        If the package tokenizers is not installed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is no tokenizer.json ({error}); get the file anew") from None
    try:
        tokenizer = _parse(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: is no tokenizer.json ({error}); get the file anew") from None
    check_size(path, max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1, vocab_size)
    return HuggingFaceTokenizer(tokenizer, vocab_size)


def check_size(path, n_tokens, vocab_size):
    """CheckpointError unless a tokenizer of so many tokens can be a model's."""
    if not 1 <= n_tokens <= vocab_size:
        raise CheckpointError(
            f"{path}: {n_tokens} tokens, but the model has {vocab_size}; take the tokenizer that it was trained with"
        )


def restore(fields) -> HuggingFaceTokenizer:
    """The tokenizer of `HuggingFaceTokenizer.describe`; raises KeyError, TypeError or ValueError if it is none."""
    return HuggingFaceTokenizer(_parse(fields["json"]), int(fields["vocab_size"]))


def _parse(text):
    tokenizers = package("tokenizers")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the package knows no other class
        raise ValueError(str(error)) from None
