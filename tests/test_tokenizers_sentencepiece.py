"""Tokenizers of SentencePiece in folders of Hugging Face, trained here by the package itself."""

import io
import json

import numpy as np
import pytest

from edgeaccel.checkpoint import CheckpointError, tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

CORPUS = ["the cat sat on the mat, and the mat was a very good mat", "one two three 123 4567"] * 20
TEXT = "Once there was a cat. The cat's name\nwas Tom! ünd ♪ 猫 \U0001f638."


def trained(**options):
    """Bytes of a model; by default as Llama 2's: byte pairs, bytes for what it lacks, nothing normalised."""
    made = io.BytesIO()
    defaults = {"vocab_size": 300, "byte_fallback": True, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=made,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
        **defaults | options,
    )
    return made.getvalue()


def pieces_of(model):
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(model)
    return pieces


@pytest.fixture(scope="module")
def model():
    return trained()


def test_folder(model, tmp_path):
    """Tokens and text are those of the package, behind the token that begins a text."""
    (tmp_path / "tokenizer.model").write_bytes(model)
    theirs = pieces_of(model)
    found = tokenizer.find(None, tmp_path, 320)
    restored = tokenizer.restore(json.loads(json.dumps(found.describe())))
    for ours in (found, tokenizer.find(tmp_path / "tokenizer.model", "x.bin", 320), restored):
        assert len(ours) == 320
        tokens = ours.encode(TEXT)
        assert tokens == [theirs.bos_id(), *theirs.encode(TEXT)]
        assert tokens[0] == 1
        assert ours.encode(TEXT, bos=False) == tokens[1:]
        assert ours.decode(tokens) == TEXT
        assert ours.decode([*tokens, 2, 319]) == TEXT
        assert ours.encode("") == [1]
        with pytest.raises(ValueError, match="token must be 0 to 319, not 320"):
            ours.decode([320])
        with pytest.raises(ValueError, match="the text is no Unicode that can be encoded"):
            ours.encode("a\ud800")


def test_json_comes_first(model, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "tokenizer.json").write_text("{")
    pytest.importorskip("tokenizers")
    with pytest.raises(CheckpointError, match=r"is no tokenizer\.json"):
        tokenizer.find(None, tmp_path, 320)


def test_no_token_begins(model, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    assert tokenizer.find(None, tmp_path, 320).encode("cat") == pieces_of(model).encode("cat")


def test_chatglm(model, tmp_path):
    """[gMASK] and sop begin a text: the second and the fourth token behind the file's."""
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "config.json").write_text('{"model_type": "chatglm"}')
    theirs = pieces_of(model)
    n_pieces = theirs.GetPieceSize()
    ours = tokenizer.find(None, tmp_path, n_pieces + 5)
    tokens = ours.encode(TEXT)
    assert tokens == [n_pieces + 1, n_pieces + 3, *theirs.encode(TEXT)]
    assert ours.decode(tokens) == TEXT
    assert tokenizer.restore(ours.describe()).encode(TEXT) == tokens
    with pytest.raises(CheckpointError, match=f"{n_pieces + 5} tokens, but the model has {n_pieces + 4}"):
        tokenizer.find(None, tmp_path, n_pieces + 4)


def test_characters_that_it_lacks(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(trained(vocab_size=60, byte_fallback=False))
    ours = tokenizer.find(None, tmp_path, 60)
    assert ours.decode(ours.encode("the cat")) == "the cat"
    with pytest.raises(ValueError, match="the vocabulary lacks '猫', character 4 of the text; leave it out"):
        ours.encode("the 猫")


def test_another_size(model, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    n_pieces = pieces_of(model).GetPieceSize()
    assert len(tokenizer.find(None, tmp_path, n_pieces)) == n_pieces
    with pytest.raises(CheckpointError, match=f"{n_pieces} tokens, but the model has {n_pieces - 1}; take the tok"):
        tokenizer.find(None, tmp_path, n_pieces - 1)


def test_damaged_files(model, tmp_path):
    """An error, or a tokenizer of as many pieces: what is changed in a piece's text nobody can tell."""
    path, rng, said = tmp_path / "tokenizer.model", np.random.default_rng(5), []
    for n in range(200):
        data = bytearray(model[: int(rng.integers(len(model)))] if n % 2 else model)
        for place in rng.integers(len(data), size=3) if data else ():
            data[place] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            ours = tokenizer.find(None, tmp_path, 320)
        except CheckpointError as error:
            said.append(str(error))
        else:
            assert len(ours) == 320
            assert isinstance(ours.decode(range(3, 250)), str)
    assert all("get the file anew" in each or "but the model has" in each for each in said)
    assert len(said) > 90


@pytest.mark.parametrize("fields", [{"model": "x"}, {"model": "eA==", "vocab_size": 4, "begins": []}, {"begins": 4}])
def test_restore_refuses(fields):
    with pytest.raises(ValueError, match=r"is no tokenizer .*; compile the image anew"):
        tokenizer.restore({"kind": "sentencepiece", **fields})


def test_packages_are_needed_only_here(model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    (tmp_path / "tokenizer.model").write_bytes(model)
    with pytest.raises(ModuleNotFoundError) as error:
        tokenizer.find(None, tmp_path, 320)
    assert "edgeaccel[models]" in error.value.__notes__[0]
