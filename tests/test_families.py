"""Random small models of every family, as `transformers` and `gguf` write them: logits against `transformers`."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from edgeaccel.bench import families
from edgeaccel.bench.families import BOUND, EXACT, FAMILIES, N_PROMPT, N_TOKENS, Family, error
from edgeaccel.checkpoint import CheckpointError, gguf, huggingface, load, tokenizer
from edgeaccel.compiler import CompileError, compile_model
from edgeaccel.golden.reference import Reference
from edgeaccel.machine import machine

try:
    torch, transformers, gguf_package = families.packages()
except ModuleNotFoundError as missing:
    pytest.skip(str(missing), allow_module_level=True)

# Of those packages themselves.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def seed():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return seed


def written(family, seed, folder):
    """(model, tokens, its logits, what the loader makes of its file)"""
    model = families.random_model(family, seed)
    tokens = np.random.default_rng(seed).integers(0, model.config.vocab_size, N_TOKENS).tolist()
    return model, tokens, families.logits(model, tokens), load(families.write(model, family, folder))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits(name, seed, tmp_path):
    """Of the float32 model, and of the golden machine with 16-bit weights and cache: a prompt, then single tokens."""
    _, tokens, expected, checkpoint = written(FAMILIES[name], seed, tmp_path)
    assert error(Reference(checkpoint).forward(tokens), expected) < EXACT
    image = compile_model(checkpoint, machine("tiny"), weights="int16", cache="int16")
    assert error(families.golden_logits(image, tokens), expected[N_PROMPT - 1 :]) < BOUND


@pytest.mark.parametrize(
    ("name", "leave_out"),
    [
        ("llama2", lambda shape: {"rope": replace(shape.rope, half=False)}),
        ("llama2", lambda shape: {"rope": replace(shape.rope, base=20000.0)}),
        ("llama2_head_dim", lambda shape: {"norm_epsilon": 1e-2}),
        ("llama2_linear", lambda shape: {"rope": replace(shape.rope, linear=1.0)}),
        ("llama3", lambda shape: {"rope": replace(shape.rope, llama3=None)}),
        ("mistral", lambda shape: {"window": shape.window + 1}),
        ("qwen2", lambda shape: {"qkv_bias": False}),
        ("chatglm2", lambda shape: {"rope": replace(shape.rope, half=True)}),
        ("chatglm2", lambda shape: {"rope": replace(shape.rope, rotated=shape.head_dim)}),
        ("gguf_llama2", lambda shape: {"rope": replace(shape.rope, half=True)}),
        ("gguf_llama3", lambda shape: {"rope": replace(shape.rope, llama3=None)}),
        ("gguf_qwen2", lambda shape: {"rope": replace(shape.rope, half=False)}),
    ],
)
def test_a_family_is_told_from_others(name, leave_out, seed, tmp_path):
    """Without what makes it one, logits are beyond the bounds by far: the models would show a fault."""
    _, tokens, expected, checkpoint = written(FAMILIES[name], seed, tmp_path)
    other = replace(checkpoint, shape=replace(checkpoint.shape, **leave_out(checkpoint.shape)))
    assert error(Reference(other).forward(tokens), expected) > 5 * BOUND


def test_shards(seed, tmp_path):
    for name in ("llama2_sharded", "chatglm2_sharded"):
        folder = tmp_path / name
        folder.mkdir()
        written(FAMILIES[name], seed, folder)
        assert len(list(folder.glob("*.safetensors"))) > 3
        assert (folder / "model.safetensors.index.json").is_file()


@pytest.mark.parametrize(
    "name", ["gguf_llama2", "gguf_llama2_f16", "gguf_llama2_q8_0", "gguf_llama2_q4_0", "gguf_qwen2"]
)
def test_gguf_is_what_transformers_reads(name, seed, tmp_path):
    """Our writer follows llama.cpp's converter, so its permutation is undone by others as well."""
    pytest.importorskip("accelerate", reason="pip install 'edgeaccel[families]' brings accelerate")
    _, tokens, expected, _ = written(FAMILIES[name], seed, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    assert error(families.logits(model.eval(), tokens), expected) < EXACT


def test_types_in_gguf(tmp_path):
    families.write(families.random_model(FAMILIES["gguf_llama2_q4_0"], 0), FAMILIES["gguf_llama2_q4_0"], tmp_path)
    types = {
        tensor.name: tensor.tensor_type.name for tensor in gguf_package.GGUFReader(tmp_path / "model.gguf").tensors
    }
    assert types["blk.1.attn_q.weight"] == types["token_embd.weight"] == "Q4_0"
    assert (types["blk.0.ffn_down.weight"], types["output_norm.weight"]) == ("F16", "F32")


# Refused.

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("Llama", {"rope_parameters": YARN}, "rope_scaling of type 'yarn' is not supported, only linear and llama3"),
        ("Llama", {"rope_parameters": DYNAMIC}, "rope_scaling of type 'dynamic' is not supported"),
        ("Qwen2", {"rope_parameters": YARN}, "rope_scaling of type 'yarn' is not supported"),
        ("Llama", {"rope_parameters": HALF}, "partial_rotary_factor 0.5 is not supported, only 1"),
        ("Llama", {"attention_bias": True}, "attention_bias True is not supported, only False"),
        ("Llama", {"mlp_bias": True}, "mlp_bias True is not supported, only False"),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported, only 'silu'"),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "use_sliding_window True"),
        ("Qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types with sliding_attention"),
        ("Gemma", {}, "model_type 'gemma' is not supported, only llama, mistral, qwen2 and chatglm"),
        ("Qwen3", {}, "model_type 'qwen3' is not supported"),
        ("Mixtral", {}, "model_type 'mixtral' is not supported"),
        ("Phi3", {"pad_token_id": 0}, "model_type 'phi3' is not supported"),
        ("GPT2", {}, "model_type 'gpt2' is not supported"),
    ],
)
def test_configurations_that_are_refused(model, changes, message, tmp_path):
    getattr(transformers, f"{model}Config")(**Family(sizes=changes).config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"config.json: {message}"):
        huggingface.load(tmp_path)


def test_biases_that_the_configuration_does_not_tell(tmp_path):
    """A model with biases everywhere, under a configuration without."""
    family = Family(sizes={"attention_bias": True})
    families.write(families.random_model(family, 0), family, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_bias": False}))
    with pytest.raises(CheckpointError, match=r"nothing uses .*self_attn\..*bias.*; such a model is not supported"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multi_query_attention": False}, "multi_query_attention must be true; other models are not supported"),
        ({"multi_query_group_num": 3}, "query_key_value.weight must have 192 rows for the sizes .*, not 160"),
        ({"add_bias_linear": True}, "add_bias_linear True is not supported"),
        ({"rope_ratio": 50}, "rope_ratio 50 is not supported"),
    ],
)
def test_chatglm_that_is_refused(change, message, tmp_path):
    written(FAMILIES["chatglm2"], 0, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "add", "message"),
    [
        ("gemma", None, "architecture 'gemma' is not supported, only llama, qwen2 and chatglm"),
        ("llama", "YARN", "rope.scaling.type 'yarn' is not supported, only linear"),
        ("llama", "experts", "mixtures of experts are not supported"),
    ],
)
def test_gguf_that_is_refused(architecture, add, message, tmp_path):
    family = FAMILIES["gguf_llama2"]
    model = families.random_model(family, 0)
    writer = gguf_package.GGUFWriter(tmp_path / "x.gguf", architecture)
    families.add_fields(writer, family, model.config)
    if add == "YARN":
        writer.add_rope_scaling_type(gguf_package.RopeScalingType.YARN)
    elif add == "experts":
        writer.add_expert_count(8)
    writer.add_tensor("token_embd.weight", model.model.embed_tokens.weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=message):
        gguf.load(tmp_path / "x.gguf")


def words(n_words):
    """A tokenizer of so many words, as the package of Hugging Face writes it."""
    model = transformers.PreTrainedTokenizerFast
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"word{n}": n for n in range(n_words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="word0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return model(tokenizer_object=made, unk_token="word0")


def test_tokenizer(tmp_path):
    """One that has fewer tokens than the model is filled up, as published ones are; one that has more is refused."""
    _, _, _, checkpoint = written(FAMILIES["llama2"], 0, tmp_path)
    size = checkpoint.shape.vocab_size
    for n_words in (size, size - 3):
        words(n_words).save_pretrained(tmp_path)
        found = tokenizer.find(None, tmp_path, size)
        assert (len(found), found.encode("word7 word9")) == (size, [7, 9])
        image = compile_model(checkpoint, machine("tiny"), weights="int16", cache="int16", tokenizer=found)
        assert image.manifest["tokenizer"] is not None
    words(size + 1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"tokenizer.json: 301 tokens, but the model has 300; take the tokenizer"):
        tokenizer.find(None, tmp_path, size)
    with pytest.raises(CompileError, match=r"the tokenizer has 512 tokens, but the model 300; take the one"):
        compile_model(checkpoint, machine("tiny"), weights="int16", tokenizer=range(512))
