"""Tokenizers of Hugging Face, and of byte pairs in GGUF files, made by the packages themselves."""

import json

import pytest

from edgeaccel.checkpoint import CheckpointError, tokenizer

tokenizers = pytest.importorskip("tokenizers")
write_gguf = pytest.importorskip("test_tokenizers_gguf").write_gguf

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


def test_gguf_pairs_that_make_no_sense(tmp_path):
    add = byte_pairs(byte_level())

    def broken(writer):
        add(writer)
        writer.kv_data[0]["tokenizer.ggml.merges"].value[0] = "x y z"

    path = write_gguf(tmp_path / "x.gguf", 304, broken)
    with pytest.raises(CheckpointError, match="a merge must be of two pieces, not 'x y z'; get the file anew"):
        tokenizer.find(None, path, 304)
