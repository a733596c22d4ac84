"""Checkpoints of llama2.c and their tokenizers: what is read, and what is refused."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from edgeaccel.checkpoint import CheckpointError, ModelShape, Rope, example, llama2c, tokenizer
from edgeaccel.checkpoint.tokenizer import Tokenizer

SIZES = {"dim": 8, "hidden_dim": 12, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 11, "seq_len": 6}


def write(path, *, tied=True, **changes):
    """A version-0 file whose tensors are numbered in the order of the file."""
    sizes = SIZES | changes
    dim, hidden, layers, heads, kv_heads, vocab, positions = sizes.values()
    kv_dim = dim // heads * kv_heads
    counts = [vocab * dim] + [
        layers * count
        for count in (dim, dim * dim, kv_dim * dim, kv_dim * dim, dim * dim, dim, hidden * dim, dim * hidden)
    ]
    counts += [layers * hidden * dim, dim, positions * dim // heads // 2, positions * dim // heads // 2]
    counts += [] if tied else [vocab * dim]
    body = np.concatenate([1000 * n + np.arange(count) % 1000 for n, count in enumerate(counts)]).astype("<f4")
    header = [*list(sizes.values())[:5], vocab if tied else -vocab, positions]
    path.write_bytes(struct.pack("<7i", *header) + body.tobytes())
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_llama2c(tmp_path, tied):
    checkpoint = llama2c.load(write(tmp_path / "x.bin", tied=tied))
    assert checkpoint.shape == ModelShape(
        dim=8,
        hidden_dim=12,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=2,
        vocab_size=11,
        max_positions=6,
        rope=Rope(rotated=2),
        tied=tied,
        bos=1,
        eos=(2,),
    )
    places = {
        "embedding": (0, 0),
        "layers.0.attention.norm": (1, 0),
        "layers.1.attention.norm": (1, 8),
        "layers.0.attention.q": (2, 0),
        "layers.1.attention.k": (3, 32),
        "layers.1.attention.v": (4, 32),
        "layers.1.attention.o": (5, 64),
        "layers.1.feed_forward.norm": (6, 8),
        "layers.1.feed_forward.gate": (7, 96),
        "layers.1.feed_forward.down": (8, 96),
        "layers.1.feed_forward.up": (9, 96),
        "norm": (10, 0),
        "classifier": (0, 0) if tied else (13, 0),
    }
    for name, (order, start) in places.items():
        tensor = checkpoint.tensor(name)
        shape = checkpoint.shape.tensors()[name]
        assert tensor.dtype == np.float32
        assert tensor.shape == shape
        np.testing.assert_array_equal(tensor.ravel(), 1000 * order + start + np.arange(tensor.size), err_msg=name)
    np.testing.assert_array_equal(checkpoint.tensor("embedding", slice(3, 5)), checkpoint.tensor("embedding")[3:5])
    assert set(checkpoint.shape.tensors()) >= set(places)
    with pytest.raises(KeyError):
        checkpoint.tensor("layers.2.attention.q")


def test_tensors_stay_in_the_file(tmp_path):
    tensor = llama2c.load(write(tmp_path / "x.bin")).tensor("layers.1.attention.q")
    while tensor is not None and not isinstance(tensor, np.memmap):
        tensor = tensor.base
    assert tensor is not None


def header(path, *numbers):
    path.write_bytes(struct.pack(f"<{len(numbers)}i", *numbers))
    return path


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((8, 12), "x.bin: 8 bytes, but the header alone is 28; get the file anew"),
        ((0x616B3432, 1, 8, 12, 2, 4, 2), "version 1 of llama2.c's format.* only version 0 is read: convert"),
        ((8, -12, 2, 4, 2, 11, 6), "header: hidden_dim must be 1 to 1048576, not -12; is it a version-0 checkpoint"),
        ((-8, 12, 2, 4, 2, 11, 6), "header: dim must be a positive multiple of the 4 heads, not -8"),
        ((8, 12, 2, 0, 2, 11, 6), "header: dim must be a positive multiple of the 0 heads, not 8"),
        ((8, 12, 2, 3, 2, 11, 6), "header: dim must be a positive multiple of the 3 heads, not 8"),
        ((8, 12, 2, 4, 3, 11, 6), "header: n_heads must be a multiple of the 3 KV heads, not 4"),
        ((8, 12, 2, 8, 4, 11, 6), "header: rotated must be an even number of dimensions, not 1"),
        ((8, 12, 0, 4, 2, 11, 6), "header: n_layers must be 1 to 4096, not 0"),
        ((8, 12, 2, 4, 2, 0, 6), "header: vocab_size must be 1 to"),
        ((8, 12, 2, 4, 2, 2, 6), "header: tokens must be 0 to 1, but bos or eos is 2"),
        ((8, 12, 2, 4, 2, 11, 1 << 30), "header: max_positions must be 1 to 268435456, not 1073741824"),
        ((1 << 18, 1 << 20, 4096, 64, 2, 1 << 22, 6), "28 bytes, but the header's sizes need 1[0-9]{16}: truncated by"),
    ],
)
def test_headers_that_are_refused(tmp_path, numbers, message):
    with pytest.raises(CheckpointError, match=message):
        llama2c.load(header(tmp_path / "x.bin", *numbers))


def test_sizes_that_disagree(tmp_path):
    path = write(tmp_path / "x.bin")
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(CheckpointError, match=f"{len(data) - 3} bytes.* need {len(data)}: truncated by 3; get"):
        llama2c.load(path)
    path.write_bytes(data + bytes(5))
    with pytest.raises(CheckpointError, match=f"{len(data) + 5} bytes.* need {len(data)}: followed by 5 more; get"):
        llama2c.load(path)


def test_shape_refuses():
    shape = ModelShape(
        dim=8,
        hidden_dim=12,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=2,
        vocab_size=11,
        max_positions=6,
        rope=Rope(rotated=2),
    )
    for change, message in (
        ({"rope": Rope(rotated=4)}, "rotated must be at most the 2 of a head, not 4"),
        ({"norm_epsilon": -1.0}, "norm_epsilon must be 0 to 1, not -1.0"),
        ({"window": 0}, "window must be at least 1 position, not 0"),
        ({"eos": (3, 11)}, "tokens must be 0 to 10, but bos or eos is 11"),
        ({"dim": 8.0}, "dim must be 1 to 262144, not 8.0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(shape, **change)
    with pytest.raises(ValueError, match="base must be a positive number, not 0"):
        Rope(rotated=2, base=0)
    assert "layers.1.attention.k_bias" in replace(shape, qkv_bias=True).tensors()


def test_a_source_of_another_shape(tmp_path):
    checkpoint = llama2c.load(write(tmp_path / "x.bin"))
    wrong = replace(checkpoint, sources={**checkpoint.sources, "norm": lambda channels: np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"x.bin: norm must be of shape \(8,\), not \(3,\); get the file anew"):
        wrong.tensor("norm")


PIECES = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += [" ", "a", "b", "ab", " a", "aa", "é", "abab"]
SCORES = [0.0] * 259 + [-9, -9, -9, -1, -2, -2, -9, -8]


def write_tokenizer(path, pieces=PIECES, scores=SCORES, longest=None):
    encoded = [piece.encode() for piece in pieces]
    longest = max(map(len, encoded)) if longest is None else longest
    entries = [struct.pack("<fi", score, len(p)) + p for score, p in zip(scores, encoded, strict=True)]
    path.write_bytes(struct.pack("<i", longest) + b"".join(entries))
    return path


def test_tokenizer(tmp_path):
    vocabulary = tokenizer.load(write_tokenizer(tmp_path / "t.bin"), len(PIECES))
    assert len(vocabulary) == len(PIECES)
    token = {piece: n for n, piece in enumerate(PIECES)}

    def pieces(text, **options):
        return [PIECES[n] for n in vocabulary.encode(text, **options)]

    # "ab" scores highest, so " a" comes too late; then two of them.
    assert pieces("abab", eos=True) == ["\n<s>\n", " ", "abab", "\n</s>\n"]
    # Of equal scores, the first pair.
    assert pieces("aaa", bos=False) == [" a", "aa"]
    assert pieces("é", bos=False) == [" ", "é"]
    assert pieces("€", bos=False) == [" ", "<0xE2>", "<0x82>", "<0xAC>"]
    assert vocabulary.encode("") == [1]
    assert vocabulary.encode("", bos=False, eos=True) == [2]
    for text in ("abab", " a", "aé€\n😀 b"):
        assert vocabulary.decode(vocabulary.encode(text, eos=True)) == text
    # Only the first piece after the beginning loses its space.
    assert vocabulary.decode([1, token[" a"], token[" a"]]) == "a a"
    assert vocabulary.decode([token[" a"]]) == " a"
    assert vocabulary.decode([token["<0xE2>"]]) == "\ufffd"
    with pytest.raises(ValueError, match="token must be 0 to 266, not 267"):
        vocabulary.decode([267])


def test_vocabulary_without_bytes():
    with pytest.raises(ValueError, match="the vocabulary has neither 'c' nor the pieces of its bytes; leave it out"):
        Tokenizer([b"<unk>", b"<s>", b"</s>", b" ", b"a"], [0] * 5).encode("ac")


def test_tokenizers_that_are_refused(tmp_path):
    path = write_tokenizer(tmp_path / "t.bin")
    data, size = path.read_bytes(), len(PIECES)
    for count, message in (
        (size + 1, f"t.bin: {size} tokens, but the model has {size + 1}; take the tokenizer that it was trained with"),
        (size - 1, f"12 bytes after token {size - 2}, the model's last; take the tokenizer"),
    ):
        with pytest.raises(CheckpointError, match=message):
            tokenizer.load(path, count)
    for cut, message in (
        (3, "3 bytes, but the length of the longest piece alone is 4"),
        (len(data) - 1, f"ends within token {size - 1} of {size}; get the file anew"),
        (len(data) - 7, f"ends within token {size - 1} of {size}; get the file anew"),
    ):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=message):
            tokenizer.load(path, size)
    with pytest.raises(CheckpointError, match=r"token 1 has a length of 5.* at byte 15, but the longest piece is 4"):
        tokenizer.load(write_tokenizer(path, ["abc", "<s>\n "], [0, 0], longest=4), 2)
    with pytest.raises(CheckpointError, match="token 0 has a length of 3 and a score of nan"):
        tokenizer.load(write_tokenizer(path, ["abc", "<s>"], [np.nan, 0]), 2)


def test_example():
    try:
        model, pieces = example.files()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    checkpoint, vocabulary = example.load()
    assert checkpoint.shape == llama2c.load(model).shape
    assert checkpoint.shape.tensors()["layers.4.feed_forward.down"] == (64, 172)
    assert (checkpoint.shape.n_heads, checkpoint.shape.n_kv_heads, checkpoint.shape.head_dim) == (8, 4, 8)
    text = "Once upon a time, there was a little girl named Lily. 漢😀"
    tokens = vocabulary.encode(text)
    assert tokens[:6] == [1, 403, 407, 261, 378, 432]
    assert vocabulary.decode(tokens) == text
    with pytest.raises(CheckpointError, match="512 tokens, but the model has 32000"):
        tokenizer.load(pieces, 32000)


def test_example_that_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEACCEL_MODELS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no stories260K.bin in .*EDGEACCEL_MODELS"):
        example.load()
