"""Checkpoints of Hugging Face and in GGUF: small random models that the packages themselves write, and refusals."""

import json
import struct
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from edgeaccel.checkpoint import Checkpoint, CheckpointError, ModelShape, Rope, gguf, huggingface, load
from edgeaccel.golden.reference import Reference
from edgeaccel.golden.rotary import Llama3Scaling

GGUFWriter = pytest.importorskip("gguf").GGUFWriter
quants = pytest.importorskip("gguf.quants")
save_file = pytest.importorskip("safetensors.numpy").save_file

LLAMA2 = ModelShape(
    dim=32,
    hidden_dim=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    vocab_size=20,
    max_positions=64,
    rope=Rope(rotated=8, half=True),
    norm_epsilon=1e-5,
    bos=1,
    eos=(2,),
)
SCALING = Llama3Scaling(factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_positions=8192)
SHAPES = {
    "llama2": LLAMA2,
    "linear": replace(LLAMA2, rope=Rope(rotated=8, half=True, linear=4.0)),
    "llama3": replace(LLAMA2, tied=True, eos=(2, 3), rope=Rope(rotated=8, half=True, base=500000.0, llama3=SCALING)),
    "mistral": replace(LLAMA2, window=16, head_dim=16, rope=Rope(rotated=16, half=True, base=1e6)),
    "qwen2": replace(LLAMA2, qkv_bias=True, tied=True, norm_epsilon=1e-6, rope=Rope(rotated=8, half=True, base=1e6)),
    "chatglm2": replace(LLAMA2, qkv_bias=True, bos=None, rope=Rope(rotated=4)),
}


def random_tensors(shape):
    """Numbers that every type holds exactly, by our names."""
    rng = np.random.default_rng(40)
    sizes = {name: size for name, size in shape.tensors().items() if name != "classifier" or not shape.tied}
    return {name: (rng.integers(-64, 65, size) / 64).astype(np.float32) for name, size in sizes.items()}


def as_checkpoint(shape, tensors):
    return Checkpoint(shape=shape, sources={name: tensor.__getitem__ for name, tensor in tensors.items()})


def config_of(name, shape):
    """config.json as the models' own have it."""
    eos = list(shape.eos) if len(shape.eos) > 1 else shape.eos[0]
    if name == "chatglm2":
        return {
            "model_type": "chatglm",
            "hidden_size": shape.dim,
            "ffn_hidden_size": shape.hidden_dim,
            "num_layers": shape.n_layers,
            "num_attention_heads": shape.n_heads,
            "multi_query_attention": True,
            "multi_query_group_num": shape.n_kv_heads,
            "kv_channels": shape.head_dim,
            "padded_vocab_size": shape.vocab_size,
            "seq_length": shape.max_positions,
            "layernorm_epsilon": shape.norm_epsilon,
            "add_qkv_bias": True,
            "add_bias_linear": False,
            "rmsnorm": True,
            "original_rope": True,
            "post_layer_norm": True,
            "apply_residual_connection_post_layernorm": False,
            "tie_word_embeddings": False,
            "eos_token_id": eos,
        }
    config = {
        "model_type": name if name in ("mistral", "qwen2") else "llama",
        "hidden_act": "silu",
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope.base,
        "rope_scaling": None,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": shape.bos,
        "eos_token_id": eos,
    }
    if name == "linear":
        config["rope_scaling"] = {"type": "linear", "factor": 4.0}
    if name == "llama3":
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    if name == "mistral":
        config |= {"sliding_window": shape.window, "head_dim": shape.head_dim}
    if name == "qwen2":
        config |= {"sliding_window": 32, "use_sliding_window": False}
    return config


def hf_tensors(name, shape, tensors):
    if name == "chatglm2":
        renamed = {
            "transformer.embedding.word_embeddings.weight": tensors["embedding"],
            "transformer.encoder.final_layernorm.weight": tensors["norm"],
            "transformer.output_layer.weight": tensors["classifier"],
            "transformer.rotary_pos_emb.inv_freq": np.ones(2, np.float32),
        }
        for n in range(shape.n_layers):
            ours, theirs = f"layers.{n}", f"transformer.encoder.layers.{n}"
            renamed |= {
                f"{theirs}.input_layernorm.weight": tensors[f"{ours}.attention.norm"],
                f"{theirs}.post_attention_layernorm.weight": tensors[f"{ours}.feed_forward.norm"],
                f"{theirs}.self_attention.query_key_value.weight": np.concatenate(
                    [tensors[f"{ours}.attention.{each}"] for each in "qkv"]
                ),
                f"{theirs}.self_attention.query_key_value.bias": np.concatenate(
                    [tensors[f"{ours}.attention.{each}_bias"] for each in "qkv"]
                ),
                f"{theirs}.self_attention.dense.weight": tensors[f"{ours}.attention.o"],
                f"{theirs}.mlp.dense_h_to_4h.weight": np.concatenate(
                    [tensors[f"{ours}.feed_forward.{each}"] for each in ("gate", "up")]
                ),
                f"{theirs}.mlp.dense_4h_to_h.weight": tensors[f"{ours}.feed_forward.down"],
            }
        return renamed
    words = {"embedding": "model.embed_tokens", "norm": "model.norm", "classifier": "lm_head"}
    words |= {"attention.norm": "input_layernorm", "feed_forward.norm": "post_attention_layernorm"}
    words |= {f"attention.{each}": f"self_attn.{each}_proj" for each in "qkvo"}
    words |= {f"feed_forward.{each}": f"mlp.{each}_proj" for each in ("gate", "up", "down")}
    renamed = {}
    for ours, tensor in tensors.items():
        kind = "bias" if ours.endswith("_bias") else "weight"
        if ours.startswith("layers."):
            _, n, rest = ours.split(".", 2)
            renamed[f"model.layers.{n}.{words[rest.removesuffix('_bias')]}.{kind}"] = tensor
        else:
            renamed[f"{words[ours]}.{kind}"] = tensor
    return renamed


def write_hf(folder, name, *, dtype=np.float32, shards=1):
    """A folder; the shape and the tensors that it holds."""
    shape = SHAPES[name]
    tensors = random_tensors(shape)
    (folder / "config.json").write_text(json.dumps(config_of(name, shape)))
    renamed = {key: tensor.astype(dtype) for key, tensor in hf_tensors(name, shape, tensors).items()}
    if shards == 1:
        save_file(renamed, folder / "model.safetensors")
        return shape, tensors
    weight_map = {}
    for n in range(shards):
        part = dict(list(renamed.items())[n::shards])
        save_file(part, folder / f"model-{n}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{n}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return shape, tensors


def check(checkpoint, shape, tensors):
    assert checkpoint.shape == shape
    for name in shape.tensors():
        expected = tensors["embedding" if name == "classifier" and shape.tied else name]
        tensor = checkpoint.tensor(name)
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, expected, err_msg=name)
        for part in (slice(3, 5), slice(7, 8), slice(1, None, 3)):
            np.testing.assert_array_equal(checkpoint.tensor(name, part), expected[part], err_msg=name)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("dtype", "shards"), [(np.float32, 1), (np.float16, 3), (ml_dtypes.bfloat16, 1)])
def test_hugging_face(tmp_path, name, dtype, shards):
    shape, tensors = write_hf(tmp_path, name, dtype=dtype, shards=shards)
    check(load(tmp_path), shape, tensors)


def test_rope_parameters(tmp_path):
    """As newer files have them."""
    shape, tensors = write_hf(tmp_path, "llama3")
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] = config.pop("rope_scaling") | {"rope_theta": config.pop("rope_theta")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check(huggingface.load(tmp_path), shape, tensors)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "llama2",
            {"model_type": "gpt2"},
            "model_type 'gpt2' is not supported, only llama, mistral, qwen2 and chatglm",
        ),
        ("llama2", {"hidden_size": None}, "config.json: hidden_size is missing; get the file anew"),
        ("llama2", {"hidden_size": "32"}, "hidden_size must be of type int, not '32'"),
        ("llama2", {"num_attention_heads": 0}, "n_heads must be 1 to 4096, not 0; get the file anew"),
        ("llama2", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported, only 'silu'"),
        ("llama2", {"attention_bias": True}, "attention_bias True is not supported, only False"),
        ("llama2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ("llama2", {"rope_scaling": {"type": "yarn"}}, "rope_scaling of type 'yarn' is not supported, only linear and"),
        ("llama2", {"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ("llama2", {"eos_token_id": [2, "3"]}, r"eos_token_id must be a token or a list of them, not \[2, '3'\]"),
        ("llama2", {"eos_token_id": 20}, "tokens must be 0 to 19, but bos or eos is 20"),
        (
            "llama2",
            {"vocab_size": 21},
            r"embed_tokens.weight must be of shape \(21, 32\) for the sizes.*not \(20, 32\)",
        ),
        ("llama2", {"intermediate_size": 63}, r"gate_proj.weight must be of shape \(63, 32\).* not \(64, 32\)"),
        (
            "llama2",
            {"num_hidden_layers": 3},
            "there is no tensor model.layers.2.input_layernorm.weight, the model's lay",
        ),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window True is not supported, only False"),
        (
            "qwen2",
            {"model_type": "llama", "tie_word_embeddings": False},
            "there is no tensor lm_head.weight, the model",
        ),
        ("chatglm2", {"rope_ratio": 50}, "rope_ratio 50 is not supported, only 1"),
        ("chatglm2", {"multi_query_group_num": 1}, r"query_key_value.weight must have 48 rows.*, not 64"),
        ("chatglm2", {"ffn_hidden_size": 65}, r"dense_4h_to_h.weight must be of shape \(32, 65\)"),
    ],
)
def test_configurations_that_are_refused(tmp_path, name, change, message):
    write_hf(tmp_path, name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        huggingface.load(tmp_path)


def test_tensors_that_nothing_uses(tmp_path):
    """One that would change what the model gives is not left out in silence; a tied classifier and tables are."""
    shape, tensors = write_hf(tmp_path, "qwen2")
    renamed = hf_tensors("qwen2", shape, tensors)
    extra = {"lm_head.weight": tensors["embedding"], "model.rotary_emb.inv_freq": np.ones(4, np.float32)}
    save_file(renamed | extra, tmp_path / "model.safetensors")
    check(load(tmp_path), shape, tensors)
    extra["model.layers.0.self_attn.o_proj.bias"] = np.ones(32, np.float32)
    save_file(renamed | extra, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"nothing uses .*layers.0.self_attn.o_proj.bias; such a model is not sup"
    ):
        load(tmp_path)


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no config.json; name the folder of a downloaded model"):
        load(tmp_path)
    write_hf(tmp_path, "llama2", shards=2)
    (tmp_path / "model-1.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"there is no file model-1.safetensors beside it; get the missing part"):
        load(tmp_path)
    (tmp_path / "model-1.safetensors").write_bytes((tmp_path / "elsewhere").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-1.safetensors: .*; get the file anew"):
        load(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"there is no file ../model.safetensors beside it"):
        load(tmp_path)
    index.write_text("{")
    with pytest.raises(CheckpointError, match=r"index.json: is no JSON"):
        load(tmp_path)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"there is neither model.safetensors nor model.safetensors.index.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config.json: must be a JSON object"):
        load(tmp_path)


def test_quantised_tensors_are_refused(tmp_path):
    write_hf(tmp_path, "llama2", dtype=np.int8)
    with pytest.raises(CheckpointError, match=r"model.norm.weight is of type I8, not one of F16, BF16, F32, F64; get"):
        load(tmp_path).tensor("norm")


# GGUF


def permuted(tensor, heads):
    """What llama.cpp's converter does to queries and keys of Llama: halves of a head become neighbours."""
    return tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)


def gguf_case(name):
    """What a file has: its shape, and the tensors by our names, of which queries and keys may be permuted."""
    shape, tensors = SHAPES[name], random_tensors(SHAPES[name])
    shape = replace(shape, eos=shape.eos[:1])
    if name not in ("qwen2", "chatglm2"):
        shape = replace(shape, rope=replace(shape.rope, half=False))
        for n in range(shape.n_layers):
            for each, heads in (("q", shape.n_heads), ("k", shape.n_kv_heads)):
                tensors[f"layers.{n}.attention.{each}"] = permuted(tensors[f"layers.{n}.attention.{each}"], heads)
    return shape, tensors


def write_gguf(path, name, *, kind="F32", leave_out=(), changes=None):
    """A file; the shape and the tensors that it holds, after quantising."""
    from gguf import GGMLQuantizationType, RopeScalingType

    shape, tensors = gguf_case(name)
    architecture = {"qwen2": "qwen2", "chatglm2": "chatglm"}.get(name, "llama")
    writer = GGUFWriter(path, architecture)
    fields = {
        "context_length": shape.max_positions,
        "embedding_length": shape.dim,
        "block_count": shape.n_layers,
        "feed_forward_length": shape.hidden_dim,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.key_length": shape.head_dim,
        "rope.dimension_count": shape.rope.rotated,
        **({"attention.sliding_window": shape.window} if shape.window else {}),
    } | (changes or {})
    for field, value in fields.items():
        writer.add_uint32(f"{architecture}.{field}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 2.0**-17)
    writer.add_float32(f"{architecture}.rope.freq_base", shape.rope.base)
    if name == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    if shape.bos is not None:
        writer.add_bos_token_id(shape.bos)
    writer.add_eos_token_id(shape.eos[0])
    type_ = GGMLQuantizationType[kind]
    words = {"embedding": "token_embd", "norm": "output_norm", "classifier": "output"}
    words |= {"attention.norm": "attn_norm", "feed_forward.norm": "ffn_norm", "attention.o": "attn_output"}
    words |= {f"attention.{each}": f"attn_{each}" for each in "qkv"}
    words |= {f"feed_forward.{each}": f"ffn_{each}" for each in ("gate", "up", "down")}
    renamed, held = {}, {}
    for ours, tensor in tensors.items():
        if tensor.ndim == 2:
            held[ours] = quants.dequantize(quants.quantize(tensor, type_), type_)
        else:
            held[ours] = tensor
        *_, rest = ours.split(".", 2) if ours.startswith("layers.") else (ours,)
        begin = f"blk.{ours.split('.')[1]}." if ours.startswith("layers.") else ""
        renamed[f"{begin}{words[rest.removesuffix('_bias')]}.{'bias' if ours.endswith('_bias') else 'weight'}"] = tensor
    if name == "chatglm2":
        for n in range(shape.n_layers):
            for word in ("weight", "bias"):
                parts = [renamed.pop(f"blk.{n}.attn_{each}.{word}") for each in "qkv"]
                renamed[f"blk.{n}.attn_qkv.{word}"] = np.concatenate(parts)
            parts = [renamed.pop(f"blk.{n}.ffn_{each}.weight") for each in ("gate", "up")]
            renamed[f"blk.{n}.ffn_up.weight"] = np.concatenate(parts)
    if name == "llama3":
        frequencies = shape.rope.base ** (-np.arange(0, 8, 2) / 8)
        renamed["rope_freqs.weight"] = (frequencies / SCALING.apply(frequencies)).astype(np.float32)
    for theirs, tensor in renamed.items():
        if theirs in leave_out:
            continue
        if tensor.ndim == 1:
            writer.add_tensor(theirs, tensor)
        else:
            writer.add_tensor(theirs, quants.quantize(tensor, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return replace(shape, norm_epsilon=2.0**-17), held


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_gguf(tmp_path, name, kind):
    shape, tensors = write_gguf(tmp_path / "x.gguf", name, kind=kind)
    check(load(tmp_path / "x.gguf"), shape, tensors)


@pytest.mark.parametrize("name", SHAPES)
def test_both_files_are_one_model(tmp_path, name):
    """Permuted queries and keys with neighbours rotated, and halves rotated: the same logits."""
    write_hf(tmp_path, name)
    write_gguf(tmp_path / "x.gguf", name)
    tokens = np.arange(3, 19)
    first, second = (load(path) for path in (tmp_path, tmp_path / "x.gguf"))
    second = replace(second, shape=replace(second.shape, norm_epsilon=first.shape.norm_epsilon))
    logits = Reference(first).forward(tokens)
    np.testing.assert_allclose(Reference(second).forward(tokens), logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        Reference(as_checkpoint(SHAPES[name], random_tensors(SHAPES[name]))).forward(tokens), logits
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "llama2",
            {"leave_out": ["blk.1.ffn_up.weight"]},
            "there is no tensor blk.1.ffn_up.weight, the model's layers.1",
        ),
        (
            "llama2",
            {"leave_out": ["token_embd.weight"]},
            r"there is no tensor token_embd.weight; is it the file of a voc",
        ),
        (
            "llama2",
            {"changes": {"feed_forward_length": 63}},
            r"ffn_gate.weight must be of shape \(63, 32\).* not \(64, 32",
        ),
        ("llama2", {"changes": {"attention.head_count": 0}}, "n_heads must be 1 to 4096, not 0"),
        ("llama2", {"changes": {"expert_count": 8}}, "mixtures of experts are not supported"),
        ("llama3", {"changes": {"rope.dimension_count": 6}}, r"rope_freqs.weight is not the scaling of Llama 3.1"),
        ("chatglm2", {"changes": {"attention.head_count_kv": 1}}, "attn_qkv.weight must have 48 rows.*, not 64"),
    ],
)
def test_gguf_that_is_refused(tmp_path, name, options, message):
    write_gguf(tmp_path / "x.gguf", name, **options)
    with pytest.raises(CheckpointError, match=message):
        gguf.load(tmp_path / "x.gguf")


def test_gguf_architectures(tmp_path):
    for architecture, message in (
        ("gpt2", "architecture 'gpt2' is not supported, only llama, qwen2 and chatglm"),
        ("", "general.architecture is missing; get the file anew"),
    ):
        writer = GGUFWriter(tmp_path / "x.gguf", architecture)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(CheckpointError, match=message):
            gguf.load(tmp_path / "x.gguf")


def test_gguf_that_is_cut(tmp_path):
    path = tmp_path / "x.gguf"
    write_gguf(path, "llama2")
    data = path.read_bytes()
    for size in (0, 3, 20, 500, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"x.gguf: is no GGUF file, or not all of it .*; get the file anew"):
            gguf.load(path)
    # A list of tokens whose count is broken.
    writer = GGUFWriter(path, "llama")
    writer.add_token_scores([0.5] * 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    count = struct.pack("<Q", 8)
    assert data.count(count) == 1
    scores = data.index(count) + 8
    data = (
        data[:scores].replace(count, struct.pack("<Q", 1 << 50)) + data[scores : len(data) - (len(data) - scores) % 4]
    )
    path.write_bytes(data)
    end = scores + (4 << 50)
    with pytest.raises(CheckpointError, match=rf"not all of it \(it ends before byte {end}\); get the file anew"):
        gguf.load(path)
    with pytest.raises(FileNotFoundError):
        gguf.load(tmp_path / "absent.gguf")


def test_packages_are_needed_only_here(tmp_path, monkeypatch):
    import sys

    write_hf(tmp_path, "llama2")
    for package, path in (("safetensors", tmp_path), ("gguf", tmp_path / "x.gguf")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModuleNotFoundError) as error:
            load(path)
        assert "edgeaccel[models]" in error.value.__notes__[0]
