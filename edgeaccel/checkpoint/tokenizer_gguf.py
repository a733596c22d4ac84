"""Tokenizers that GGUF files carry: pieces with scores, or byte pairs with the order in which they are joined."""

from pathlib import Path

from edgeaccel.checkpoint.model import CheckpointError
from edgeaccel.checkpoint.package import package
from edgeaccel.checkpoint.tokenizer import Tokenizer
from edgeaccel.checkpoint.tokenizer_huggingface import HuggingFaceTokenizer, check_size

__all__ = ["load"]

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # types of tokens
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

# How a text is cut before bytes are joined, by the name that files have for it (llama.cpp, src/llama-vocab.cpp).
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CUTS = {
    "gpt-2": None,  # the package's own
    "default": None,
    "llama-bpe": _CUT.format(numbers=r"\p{N}{1,3}"),
    "chatglm-bpe": _CUT.format(numbers=r"\p{N}{1,3}"),
    "qwen2": _CUT.format(numbers=r"\p{N}"),
}


def load(path, vocab_size):
    """The tokenizer in a file, or None if it has none of a kind that is known.

    Raises
    ------
    CheckpointError
        A file that is damaged, or has more tokens than the model.
    ModuleNotFoundError
        If the package gguf is not installed, or for byte pairs tokenizers.
    """
    from edgeaccel.checkpoint import gguf

    path = Path(path)
    reader = gguf.read(path)

    def field(name, kind, *default):
        found = reader.get_field(f"tokenizer.ggml.{name}")
        value = None if found is None else found.contents()
        if value is None and default:
            return default[0]
        if not isinstance(value, kind):
            raise CheckpointError(f"{path}: tokenizer.ggml.{name} is {value!r:.40}, no tokenizer; get the file anew")
        return value

    model, cut = field("model", str, None), field("pre", str, "default")
    if not (model == "gpt2" and cut in CUTS) and not (model == "llama" and field("add_space_prefix", bool, True)):
        return None
    pieces = field("tokens", list)
    types = field("token_type", list, [NORMAL] * len(pieces))
    check_size(path, len(pieces), vocab_size)
    if len(types) != len(pieces):
        raise CheckpointError(f"{path}: {len(pieces)} tokens, but types of {len(types)}; get the file anew")
    bos, eos = (field(f"{name}_token_id", int, None) for name in ("bos", "eos"))
    if model == "llama":
        scores = field("scores", list)
        if len(scores) != len(pieces):
            raise CheckpointError(f"{path}: {len(pieces)} tokens, but scores of {len(scores)}; get the file anew")
        spare = vocab_size - len(pieces)
        coded = [_piece(piece, kind) for piece, kind in zip(pieces, types, strict=True)]
        ends = {name: token for name, token in (("bos", bos), ("eos", eos)) if token is not None}
        return Tokenizer(coded + [b""] * spare, [*scores, *[0.0] * spare], **ends)
    tokenizer = _byte_pairs(path, pieces, types, field("merges", list), cut)
    if bos is not None and bos < len(pieces) and field("add_bos_token", bool, cut == "llama-bpe"):
        tokenizer.post_processor = package("tokenizers").processors.TemplateProcessing(
            single=f"{pieces[bos]} $A", special_tokens=[(pieces[bos], bos)]
        )
    return HuggingFaceTokenizer(tokenizer, vocab_size)


def _piece(piece, kind):
    """Bytes of a token; a control token has none, so it is no part of any text."""
    if kind in (NORMAL, USER_DEFINED):
        return piece.replace(SPACE, " ").encode()
    return piece.encode() if kind == BYTE else b""


def _byte_pairs(path, pieces, types, merges, cut):
    tokenizers = package("tokenizers")
    pairs = [tuple(str(merge).split(" ")) for merge in merges]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise CheckpointError(f"{path}: a merge must be of two pieces, not {' '.join(wrong[0])!r}; get the file anew")
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    try:
        # Llama 3 takes what is a token as it is, without joining pairs.
        whole = cut == "llama-bpe"
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, pairs, ignore_merges=whole))
    except Exception as error:  # the package knows no other class
        raise CheckpointError(f"{path}: its tokenizer makes no sense ({error}); get the file anew") from None
    in_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=CUTS[cut] is None)
    if CUTS[cut] is not None:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(CUTS[cut]), "isolated")
        in_bytes = tokenizers.pre_tokenizers.Sequence([split, in_bytes])
    tokenizer.pre_tokenizer, tokenizer.decoder = in_bytes, tokenizers.decoders.ByteLevel()
    special = [piece for piece, kind in zip(pieces, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False) for piece in special])
    own = [piece for piece, kind in zip(pieces, types, strict=True) if kind == USER_DEFINED]
    tokenizer.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in own])
    return tokenizer
