"""A small vocabulary for the stories: pieces joined by byte-pair encoding, in the file format of llama2.c.

The most frequent pair of neighbouring pieces within a word becomes a piece, again and again (Sennrich, Haddow and
Birch, 2016). The order in which pieces were made is their score, so that `edgeaccel.checkpoint.tokenizer` joins them in
the same order.
"""

import itertools
import re
import struct
from collections import Counter

__all__ = ["build", "encode", "write"]

# Tokens 0 to 2 and then one for each byte, as in the vocabularies of Llama.
SPECIAL = [b"<unk>", b"\n<s>\n", b"\n</s>\n"]
BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]
# What is joined: a word with the space before it, or signs. Nothing is joined across these.
WORD = re.compile(r" ?[A-Za-z]+|'s| ?[^A-Za-z ]+")


def build(texts, vocab_size: int) -> tuple[list[bytes], list[float]]:
    """Pieces and their scores for some texts.

    Raises
    ------
    ValueError
        If there is no place for all characters, or the texts have too few pairs.
    """
    words = Counter(word for text in texts for word in WORD.findall(" " + text))
    characters = sorted({character for word in words for character in word})
    n_joined = vocab_size - len(SPECIAL) - len(BYTES) - len(characters)
    if n_joined < 0:
        raise ValueError(
            f"vocab_size must be at least {vocab_size - n_joined}, one for each character, not {vocab_size}"
        )
    spellings = {word: list(word) for word in words}
    joined = []
    while len(joined) < n_joined:
        pairs = Counter()
        for word, spelling in spellings.items():
            for pair in itertools.pairwise(spelling):
                pairs[pair] += words[word]
        if not pairs:
            raise ValueError(f"vocab_size must be at most {vocab_size - n_joined + len(joined)}: all words are whole")
        pair = max(pairs, key=lambda pair: (pairs[pair], pair))  # of equals the same one always
        joined.append("".join(pair))
        spellings = {word: _join(spelling, pair) for word, spelling in spellings.items()}
    pieces = [*SPECIAL, *BYTES, *(piece.encode() for piece in joined + characters)]
    scores = [0.0] * (len(SPECIAL) + len(BYTES)) + [-float(rank) for rank in range(len(joined) + len(characters))]
    return pieces, scores


def write(path, pieces, scores):
    """Writes what `edgeaccel.checkpoint.tokenizer.load` reads."""
    data = struct.pack("<i", max(map(len, pieces)))
    for piece, score in zip(pieces, scores, strict=True):
        data += struct.pack("<fi", score, len(piece)) + piece
    path.write_bytes(data)


def encode(tokenizer, texts):
    """Tokens of each text, beginning and end included: what `tokenizer.encode` gives, faster for many texts.

    A space is only ever the first character of a piece, so the words between spaces can be encoded one by one.
    """
    known = {}
    for text in texts:
        tokens = []
        for word in text.split(" "):
            if word not in known:
                known[word] = tokenizer.encode(word, bos=False)
            tokens += known[word]
        yield [1, *tokens, 2]


def _join(spelling, pair):
    joined, place = [], 0
    while place < len(spelling):
        n = 2 if tuple(spelling[place : place + 2]) == pair else 1
        joined.append("".join(spelling[place : place + n]))
        place += n
    return joined
