"""The tokenizer of llama2.c: pieces of text with scores, joined pair by pair.

The file holds a little-endian int32, the length of the longest piece, then for each token a float32 score, an int32
length and so many bytes. Tokens 1 and 2 begin and end a text; pieces "<0x00>" to "<0xFF>" stand for single bytes.
"""

import re
import struct
from pathlib import Path

from edgeaccel.checkpoint.model import CheckpointError

__all__ = ["Tokenizer", "find", "load", "restore"]

BOS, EOS = 1, 2
NAMES = ("tokenizer.json", "tokenizer.model")  # in a folder of Hugging Face
BYTE = re.compile(rb"<0x([0-9A-F]{2})>")


class Tokenizer:
    """Text to tokens and back.

    Parameters
    ----------
    pieces : list of bytes
    scores : list of float
        Of two pairs of neighbours that could be joined, the one with the higher score of the joined piece is.
    bos, eos : int
        Tokens that begin and end a text.
    """

    def __init__(self, pieces, scores, *, bos=BOS, eos=EOS):
        self.pieces, self.scores = list(pieces), list(scores)
        self._bos, self._eos = bos, eos
        self._tokens = {}
        self._bytes = {}
        for token, piece in enumerate(self.pieces):
            self._tokens.setdefault(piece, token)
            if match := BYTE.fullmatch(piece):
                self._bytes.setdefault(int(match[1], 16), token)

    def __len__(self):
        return len(self.pieces)

    def encode(self, text: str, *, bos: bool = True, eos: bool = False) -> list[int]:
        """Tokens of a text; one that is not empty gets a space before it.

        Raises
        ------
        ValueError
            If a character is no piece, and its bytes are none either.
        """
        tokens = [self._character(character) for character in (" " + text if text else "")]
        tokens = [token for character in tokens for token in character]
        while (place := self._best_pair(tokens)) is not None:
            tokens[place : place + 2] = [self._tokens[self._joined(tokens, place)]]
        return [self._bos] * bos + tokens + [self._eos] * eos

    def decode(self, tokens) -> str:
        """Text of tokens; those that begin and end a text have none, and the first after a beginning no space."""
        text, before = b"", None
        for token in tokens:
            if not 0 <= token < len(self.pieces):
                raise ValueError(f"token must be 0 to {len(self.pieces) - 1}, not {token!r}")
            piece = self.pieces[token]
            if token in (self._bos, self._eos):
                piece = b""
            elif match := BYTE.fullmatch(piece):
                piece = bytes([int(match[1], 16)])
            elif before == self._bos:
                piece = piece.removeprefix(b" ")
            text += piece
            before = token
        return text.decode("utf-8", "replace")

    def describe(self):
        """What JSON can hold, of which `restore` makes the tokenizer again."""
        pieces = [piece.decode("latin-1") for piece in self.pieces]
        return {"kind": "llama2c", "pieces": pieces, "scores": self.scores, "bos": self._bos, "eos": self._eos}

    def _character(self, character):
        code = character.encode("utf-8", "surrogatepass")
        if code in self._tokens:
            return [self._tokens[code]]
        if any(byte not in self._bytes for byte in code):
            raise ValueError(f"the vocabulary has neither {character!r} nor the pieces of its bytes; leave it out")
        return [self._bytes[byte] for byte in code]

    def _joined(self, tokens, place):
        return self.pieces[tokens[place]] + self.pieces[tokens[place + 1]]

    def _best_pair(self, tokens):
        """The first of the pairs whose joined piece has the highest score."""
        found = [self._tokens.get(self._joined(tokens, place)) for place in range(len(tokens) - 1)]
        places = [place for place, token in enumerate(found) if token is not None]
        return max(places, key=lambda place: self.scores[found[place]], default=None)


def load(path, vocab_size: int) -> Tokenizer:
    """The tokenizer in a file.

    Parameters
    ----------
    path : path
    vocab_size : int
        Tokens of the model that it belongs to; the file does not say.

    Raises
    ------
    CheckpointError
        A file that ends early, has other tokens than the model, or lengths that cannot be.
    """
    path = Path(path)
    data = path.read_bytes()
    if len(data) < 4:
        raise CheckpointError(f"{path}: {len(data)} bytes, but the length of the longest piece alone is 4")
    (longest,) = struct.unpack_from("<i", data)
    place = 4
    pieces, scores = [], []
    for token in range(vocab_size):
        if place == len(data):
            raise CheckpointError(
                f"{path}: {token} tokens, but the model has {vocab_size}; take the tokenizer that it was trained with"
            )
        if place + 8 > len(data):
            raise CheckpointError(f"{path}: ends within token {token} of {vocab_size}; get the file anew")
        score, length = struct.unpack_from("<fi", data, place)
        place += 8
        if not 0 <= length <= longest or score != score:
            raise CheckpointError(
                f"{path}: token {token} has a length of {length} and a score of {score}, at byte {place - 8}, but the"
                f" longest piece is {longest}; is it a tokenizer of llama2.c?"
            )
        if place + length > len(data):
            raise CheckpointError(f"{path}: ends within token {token} of {vocab_size}; get the file anew")
        pieces.append(data[place : place + length])
        scores.append(score)
        place += length
    if place != len(data):
        raise CheckpointError(
            f"{path}: {len(data) - place} bytes after token {vocab_size - 1}, the model's last; take the tokenizer"
            " that it was trained with"
        )
    return Tokenizer(pieces, scores)


def find(path, model, vocab_size):
    """The tokenizer in a file, or if none is named the one that a model's folder or file has, or None.

    Parameters
    ----------
    path : path, optional
        A file of llama2.c, a tokenizer.json or tokenizer.model of Hugging Face or the folder that one is in, or a .gguf
        file. A folder's tokenizer.json is taken before its tokenizer.model.
    model : path
        As `edgeaccel.checkpoint.load` takes it.
    vocab_size : int
        Tokens of the model.

    Raises
    ------
    CheckpointError
        A file that is damaged, or has other tokens than the model.
    """
    model, is_named = Path(model), path is not None
    if not is_named:
        if not any((model / name).is_file() for name in NAMES) and model.suffix != ".gguf":
            return None
        path = model
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in NAMES if (path / name).is_file()), path / NAMES[0])
    if path.suffix == ".json":
        from edgeaccel.checkpoint import tokenizer_huggingface

        return tokenizer_huggingface.load(path, vocab_size)
    if path.suffix == ".model":
        from edgeaccel.checkpoint import tokenizer_sentencepiece

        return tokenizer_sentencepiece.load(path, vocab_size)
    if path.suffix == ".gguf":
        from edgeaccel.checkpoint import tokenizer_gguf

        found = tokenizer_gguf.load(path, vocab_size)
        if found is None and is_named:
            raise CheckpointError(f"{path}: has no tokenizer of a kind that is known; name another file")
        return found
    return load(path, vocab_size)


def restore(fields):
    """The tokenizer of which `describe` gave these fields.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        if fields["kind"] == "huggingface":
            from edgeaccel.checkpoint import tokenizer_huggingface

            return tokenizer_huggingface.restore(fields)
        if fields["kind"] == "sentencepiece":
            from edgeaccel.checkpoint import tokenizer_sentencepiece

            return tokenizer_sentencepiece.restore(fields)
        if fields["kind"] != "llama2c":
            raise ValueError(f"kind must be llama2c, huggingface or sentencepiece, not {fields['kind']!r}")
        pieces = [piece.encode("latin-1") for piece in fields["pieces"]]
        scores = [float(score) for score in fields["scores"]]
        if len(pieces) != len(scores):
            raise ValueError(f"{len(pieces)} pieces must have as many scores, not {len(scores)}")
        return Tokenizer(pieces, scores, bos=fields["bos"], eos=fields["eos"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"is no tokenizer ({error!r}); compile the image anew") from None
