"""Tokenizers of pieces with scores, in GGUF files that the package itself writes."""

import json

import numpy as np
import pytest

from edgeaccel.checkpoint import CheckpointError, tokenizer
from edgeaccel.compile import main
from edgeaccel.image import Image

GGUFWriter = pytest.importorskip("gguf").GGUFWriter


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


def test_goes_with_the_image(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", 270, pieces_with_scores())
    assert main(["--model", str(path), "--out", str(tmp_path / "x.image")]) == 0
    image = Image.load(tmp_path / "x.image")
    assert tokenizer.restore(image.manifest["tokenizer"]).encode("cat at") == [1, 265, 259, 264]
