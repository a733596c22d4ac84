"""Tokenizers of Hugging Face and of GGUF files, made by the packages themselves."""

import json

import numpy as np
import pytest

from edgeaccel.checkpoint import CheckpointError, tokenizer
from edgeaccel.compile import main
from edgeaccel.image import Image

tokenizers = pytest.importorskip("tokenizers")
GGUFWriter = pytest.importorskip("gguf").GGUFWriter

TEXT = "Once there was a cat. The cat's name was Tom!\n\n  Tom had 1234 mice, ünd they sang: ♪ 猫 \U0001f638."
CORPUS = [TEXT, "the cat sat on the mat, and the mat was a very good mat", "one two three 123 4567"]


def byte_level(size=300):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return made


def test_huggingface(tmp_path):
    path = tmp_path / "tokenizer.json"
    theirs = byte_level()
    theirs.save(str(path))
    found = tokenizer.find(None, tmp_path, 320)
    restored = tokenizer.restore(json.loads(json.dumps(found.describe())))
    for ours in (found, tokenizer.find(path, "x.bin", 320), restored):
        assert len(ours) == 320
        tokens = ours.encode(TEXT)
        assert tokens == theirs.encode(TEXT).ids
        assert tokens[0] == 0
        assert ours.encode(TEXT, bos=False) == tokens[1:]
        assert ours.decode(tokens) == TEXT
        # What fills up the model's vocabulary has no text.
        assert ours.decode([*tokens, 319]) == TEXT
        with pytest.raises(ValueError, match="token must be 0 to 319, not 320"):
            ours.decode([320])
        with pytest.raises(ValueError, match="the text is no Unicode that can be encoded"):
            ours.encode("\ud800")


@pytest.mark.parametrize("unknown", [None, "<unk>"])
def test_characters_that_it_lacks(unknown, tmp_path):
    vocabulary = {"<unk>": 0, "a": 1, "b": 2, "ab": 3}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b")], unk_token=unknown))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.find(tmp_path, tmp_path, 4)
    assert ours.encode("ab b") == [3, 2]
    with pytest.raises(ValueError, match="the vocabulary lacks 'c', character 2 of the text; leave it out"):
        ours.encode("abc")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": {}}', "\udcff", '{"version":"1.0","model":{"type":"BPE"}}'])
def test_files_that_are_no_tokenizers(text, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"is no tokenizer\.json .*get the file anew"):
        tokenizer.find(None, tmp_path, 4)


def test_another_size(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="300 tokens, but the model has 299; take the tokenizer"):
        tokenizer.find(None, tmp_path, 299)


def test_none():
    assert tokenizer.find(None, "model.bin", 300) is None


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        {"kind": "x"},
        {"kind": "huggingface"},
        {"kind": "huggingface", "json": "{", "vocab_size": 4},
        {"kind": "llama2c", "pieces": ["a"], "scores": [], "bos": 1, "eos": 2},
        {"kind": "llama2c", "pieces": [4]},
    ],
)
def test_restore_refuses(fields):
    with pytest.raises(ValueError, match=r"is no tokenizer .*; compile the image anew"):
        tokenizer.restore(fields)


def write_gguf(path, vocab_size, add):
    """A file of a small model; `add` gives the writer the tokenizer's fields."""
    writer = GGUFWriter(path, "llama")
    sizes = {"context_length": 8, "embedding_length": 8, "block_count": 1, "feed_forward_length": 8}
    for name, size in {**sizes, "attention.head_count": 2, "attention.head_count_kv": 2}.items():
        writer.add_uint32(f"llama.{name}", size)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    add(writer)
    matrices = [
        f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    ]
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(8, np.float32))
    for name in matrices:
        writer.add_tensor(f"{name}.weight", np.ones((8, 8), np.float32))
    writer.add_tensor("token_embd.weight", np.ones((vocab_size, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_pairs(made, *, pre="qwen2", begins=True):
    """Fields of a tokenizer of byte pairs, as llama.cpp's converter writes them."""
    model = json.loads(made.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(pieces)
        writer.add_token_types([3 if piece in ("<bos>", "<eos>") else 1 for piece in pieces])
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_add_bos_token(begins)

    return add


@pytest.mark.parametrize("pre", ["default", "qwen2", "llama-bpe"])
def test_gguf_byte_pairs(pre, tmp_path):
    theirs = byte_level()
    path = write_gguf(tmp_path / "x.gguf", 304, byte_pairs(theirs, pre=pre))
    for ours in (tokenizer.find(None, path, 304), tokenizer.find(path, "x", 304)):
        tokens = ours.encode(TEXT)
        assert tokens[0] == 0
        assert ours.decode(tokens) == TEXT
        assert ours.encode("<eos>", bos=False) == [1]
        if pre == "default":
            assert tokens == theirs.encode(TEXT).ids
        restored = tokenizer.restore(json.loads(json.dumps(ours.describe())))
        assert restored.encode(TEXT) == tokens
        assert len(restored) == 304
    path = write_gguf(path, 304, byte_pairs(theirs, pre=pre, begins=False))
    assert tokenizer.find(None, path, 304).encode(TEXT) == tokens[1:]


def test_gguf_cuts(tmp_path):
    vocabulary = {piece: n for n, piece in enumerate(["<eos>", "1", "2", "3", "4", "12", "123", "1234"])}
    merges = [("1", "2"), ("12", "3"), ("123", "4")]  # joined as far as the cut allows
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    for pre, expected in (("qwen2", [1, 2, 3, 4]), ("llama-bpe", [6, 4]), ("default", [7])):
        path = write_gguf(tmp_path / "x.gguf", 8, byte_pairs(made, pre=pre, begins=False))
        assert tokenizer.find(None, path, 8).encode("1234", bos=False) == expected


def pieces_with_scores(changes=None):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", "a", "t", "c", "▁c", "at", "▁cat"]
    types = [2, 3, 3, *[6] * 256, *[1] * 7]
    fields = {"tokens": pieces, "types": types, "scores": [0.0] * 262 + [-1.0, -3.0, -2.0, -4.0]} | (changes or {})

    def add(writer):
        writer.add_tokenizer_model(fields.get("model", "llama"))
        writer.add_token_list(fields["tokens"])
        writer.add_token_types(fields["types"])
        writer.add_token_scores(fields["scores"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        if "prefix" in fields:
            writer.add_add_space_prefix(fields["prefix"])

    return add


def test_gguf_scores(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", 270, pieces_with_scores())
    ours = tokenizer.find(None, path, 270)
    assert len(ours) == 270
    assert ours.encode("cat at") == [1, 265, 259, 264]
    assert ours.encode("ü", bos=False) == [259, 3 + 0xC3, 3 + 0xBC]
    assert ours.decode([1, 265, 259, 264, 3 + 0xC3, 3 + 0xBC, 269, 2]) == "cat atü"
    restored = tokenizer.restore(json.loads(json.dumps(ours.describe())))
    assert restored.encode("cat at") == [1, 265, 259, 264]
    # Control tokens are no text.
    assert not {0, 1, 2} & {*ours.encode("<unk><s></s>", bos=False)}


@pytest.mark.parametrize("changes", [{"model": "t5"}, {"prefix": False}])
def test_gguf_of_other_kinds(changes, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", 270, pieces_with_scores(changes))
    assert tokenizer.find(None, path, 270) is None
    with pytest.raises(CheckpointError, match="has no tokenizer of a kind that is known; name another file"):
        tokenizer.find(path, path, 270)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scores": [0.0]}, "266 tokens, but scores of 1"),
        ({"types": [1]}, "266 tokens, but types of 1"),
        ({"tokens": [f"x{n}" for n in range(271)]}, "271 tokens, but the model has 270"),
    ],
)
def test_gguf_sizes(changes, says, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", 270, pieces_with_scores(changes))
    with pytest.raises(CheckpointError, match=says):
        tokenizer.find(None, path, 270)


def test_gguf_pairs_that_make_no_sense(tmp_path):
    add = byte_pairs(byte_level())

    def broken(writer):
        add(writer)
        writer.kv_data[0]["tokenizer.ggml.merges"].value[0] = "x y z"

    path = write_gguf(tmp_path / "x.gguf", 304, broken)
    with pytest.raises(CheckpointError, match="a merge must be of two pieces, not 'x y z'; get the file anew"):
        tokenizer.find(None, path, 304)


def test_goes_with_the_image(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", 270, pieces_with_scores())
    assert main(["--model", str(path), "--out", str(tmp_path / "x.image")]) == 0
    image = Image.load(tmp_path / "x.image")
    assert tokenizer.restore(image.manifest["tokenizer"]).encode("cat at") == [1, 265, 259, 264]
