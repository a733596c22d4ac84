"""Families of models: error of logits against `transformers` in float32, of random small models of each.

A model is filled with random weights and written by the packages that its files come from, `transformers` or `gguf`;
read by this project's loaders, compiled for `tiny` with weights and cache of 16 bits, and run token after token: a
prompt in batches, then single tokens. An error is the mean magnitude of what logits differ by, over that of the logits:
of the float32 model that the accelerator is held against, and of the accelerator's golden machine.
"""

import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgeaccel.bench.record import Record

__all__ = [
    "BOUND",
    "EXACT",
    "FAMILIES",
    "Family",
    "add_fields",
    "error",
    "errors",
    "golden_logits",
    "logits",
    "measure",
    "packages",
]
__all__ += ["plot", "random_model", "write"]

SOURCE = "python -m edgeaccel.bench families"
SEEDS, N_TOKENS, N_PROMPT = 4, 40, 33
EXACT, BOUND = 1e-5, 2e-3  # of errors: of the float32 model, of the golden machine

# 6 heads of 8 that share 2 of keys and values; nothing is a round number of tiles.
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Rows of whole blocks of 32, but those of `down`: who writes quantised files leaves them in 16 bits.
BLOCKS = {"hidden_size": 64, "num_attention_heads": 4}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
# So few original positions that 40 tokens tell all three ranges of frequencies.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
# Positions as of Llama 3.1: a GGUF file has only what comes of them, so its reader takes them for granted.
LLAMA31 = {
    "rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8192},
    "max_position_embeddings": 131072,
    "head_dim": 16,
}
GLM = {"head_dim": 16, "pad_token_id": 0}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model, and of file.

    Attributes
    ----------
    model : str
        Its class in `transformers`, without "ForCausalLM"; "Glm", whose layers are the same, for ChatGLM2.
    sizes : dict
        What of `SIZES` is different, and what else its configuration says.
    type : str
        Of numbers in the file: "F32", "F16", "BF16"; in GGUF also "Q8_0" and "Q4_0".
    is_gguf : bool
    shard : str
        Size of the largest of a folder's files.
    """

    model: str = "Llama"
    sizes: dict = field(default_factory=dict)
    type: str = "F32"
    is_gguf: bool = False
    shard: str = "1GB"

    @property
    def config(self):
        return SIZES | self.sizes

    @property
    def dtype(self):
        """Of a folder's numbers, as `torch` calls it."""
        return {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[self.type]


FAMILIES = {
    "llama2": Family(),
    "llama2_tied": Family(sizes={"tie_word_embeddings": True, "num_key_value_heads": 6}),
    "llama2_head_dim": Family(sizes={"head_dim": 20, "num_key_value_heads": 1}),
    "llama2_bfloat16": Family(type="BF16"),
    "llama2_sharded": Family(type="F16", shard="20KB"),
    "llama2_linear": Family(sizes={"rope_parameters": LINEAR}),
    "llama3": Family(sizes={"rope_parameters": LLAMA3, "head_dim": 16, "eos_token_id": [2, 3]}),
    "llama3_tied": Family(sizes={"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "mistral": Family(model="Mistral", sizes={"sliding_window": 11, "head_dim": 16}),
    "qwen2": Family(model="Qwen2", sizes={"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    # 7 query heads to one of keys and values, as in Qwen2-0.5B.
    "qwen2_tied": Family(
        model="Qwen2",
        sizes={"tie_word_embeddings": True, "hidden_size": 56, "num_attention_heads": 14, "rms_norm_eps": 1e-6},
    ),
    "chatglm2": Family(model="Glm", sizes=GLM),
    "chatglm2_sharded": Family(model="Glm", sizes=GLM | {"head_dim": 8}, type="F16", shard="20KB"),
    "tinystories": Family(
        sizes={"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8}
        | {"num_key_value_heads": 4, "vocab_size": 512, "tie_word_embeddings": True}
    ),
    "gguf_llama2": Family(is_gguf=True),
    "gguf_llama2_f16": Family(is_gguf=True, type="F16", sizes={"tie_word_embeddings": True, "head_dim": 16}),
    "gguf_llama2_q8_0": Family(is_gguf=True, type="Q8_0", sizes=BLOCKS),
    "gguf_llama2_q4_0": Family(is_gguf=True, type="Q4_0", sizes=BLOCKS),
    "gguf_llama2_linear": Family(is_gguf=True, sizes={"rope_parameters": LINEAR}),
    "gguf_llama3": Family(is_gguf=True, sizes=LLAMA31),
    "gguf_mistral": Family(is_gguf=True, model="Mistral", sizes={"sliding_window": 11}),
    "gguf_qwen2": Family(is_gguf=True, model="Qwen2", type="BF16"),
    "gguf_chatglm2": Family(is_gguf=True, model="Glm", type="F16", sizes=GLM),
}


def packages():
    """The modules (torch, transformers, gguf).

    Raises
    ------
    ModuleNotFoundError
        If one is not installed; says how to get it.
    """
    try:
        import gguf
        import torch
        import transformers
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"no module {missing.name}, for models as others write them; pip install 'edgeaccel[families]' brings it"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers, gguf


def random_model(family, seed):
    """A model of `transformers` in float32, with numbers that its file will hold as they are.

    Queries and keys are so large that positions are told from each other.
    """
    torch, transformers, _ = packages()
    config = getattr(transformers, f"{family.model}Config")(**family.config)
    config._attn_implementation = "eager"
    rng = np.random.default_rng(seed)
    with torch.no_grad(), torch.random.fork_rng():
        model = getattr(transformers, f"{family.model}ForCausalLM")(config).eval()
        for name, parameter in model.named_parameters():
            numbers = rng.standard_normal(tuple(parameter.shape))
            if parameter.ndim == 2:
                numbers *= (2 if "q_proj" in name or "k_proj" in name else 1) / parameter.shape[1] ** 0.5
            else:
                numbers = 0.5 * numbers if name.endswith("bias") else 1 + 0.2 * numbers
            parameter.copy_(torch.from_numpy(_rounded(family, numbers.astype(np.float32))))
    return model


def _rounded(family, tensor):
    """As the file will hold it."""
    _, _, gguf = packages()
    type_ = _type(family, tensor)
    return gguf.quants.dequantize(gguf.quants.quantize(tensor, type_), type_).reshape(tensor.shape)


def _type(family, tensor):
    """Of a tensor in the file: in GGUF vectors are never quantised, nor rows that are no whole number of blocks."""
    _, _, gguf = packages()
    types = gguf.GGMLQuantizationType
    if family.is_gguf and tensor.ndim == 1:
        return types.F32
    type_ = types[family.type]
    return type_ if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[type_][0] == 0 else types.F16


def write(model, family, folder):
    """The files of a model of the family, as they are downloaded; where they are."""
    torch, _, _ = packages()
    folder = Path(folder)
    if family.is_gguf:
        return _write_gguf(model, family, folder / "model.gguf")
    if family.model == "Glm":
        from huggingface_hub import save_torch_state_dict

        (folder / "config.json").write_text(json.dumps(_chatglm_config(model.config), indent=2))
        tensors = {name: tensor.to(getattr(torch, family.dtype)) for name, tensor in _chatglm_tensors(model).items()}
        save_torch_state_dict(tensors, folder, max_shard_size=family.shard)
    else:
        # Of a copy: the frequencies of rotary embeddings would be rounded as well.
        copy = deepcopy(model).to(getattr(torch, family.dtype))
        copy.save_pretrained(folder, max_shard_size=family.shard)
    return folder


def _chatglm_config(config):
    """As ChatGLM2-6B's own."""
    return {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "ffn_hidden_size": config.intermediate_size,
        "fp32_residual_connection": False,
        "hidden_size": config.hidden_size,
        "kv_channels": config.head_dim,
        "layernorm_epsilon": config.rms_norm_eps,
        "multi_query_attention": True,
        "multi_query_group_num": config.num_key_value_heads,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
        "original_rope": True,
        "padded_vocab_size": config.vocab_size,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": config.max_position_embeddings,
        "tie_word_embeddings": False,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }


def _chatglm_tensors(model):
    """A Glm model's tensors by the names of ChatGLM2."""
    torch, _, _ = packages()
    tensors = model.state_dict()
    renamed = {
        "transformer.embedding.word_embeddings.weight": tensors["model.embed_tokens.weight"],
        "transformer.encoder.final_layernorm.weight": tensors["model.norm.weight"],
        "transformer.output_layer.weight": tensors["lm_head.weight"],
    }
    names = {
        "input_layernorm": "input_layernorm",
        "self_attn.o_proj": "self_attention.dense",
        "post_attention_layernorm": "post_attention_layernorm",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
    }
    for n in range(model.config.num_hidden_layers):
        glm, chatglm = f"model.layers.{n}", f"transformer.encoder.layers.{n}"
        for theirs, ours in names.items():
            renamed[f"{chatglm}.{ours}.weight"] = tensors[f"{glm}.{theirs}.weight"]
        for kind in ("weight", "bias"):
            parts = [tensors[f"{glm}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            renamed[f"{chatglm}.self_attention.query_key_value.{kind}"] = torch.cat(parts)
    return renamed


def _write_gguf(model, family, path):
    """As llama.cpp's converter does it."""
    _, _, gguf = packages()
    config = model.config
    kind = {"Qwen2": "QWEN2", "Glm": "CHATGLM"}.get(family.model, "LLAMA")
    writer = gguf.GGUFWriter(path, kind.lower())
    writer.add_name("a random model")
    add_fields(writer, family, config)
    tensors = _chatglm_tensors(model) if kind == "CHATGLM" else model.state_dict()
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind], config.num_hidden_layers)
    for name, tensor in tensors.items():
        if kind == "LLAMA" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            # Halves of a head become neighbours.
            tensor = tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
        type_ = _type(family, tensor)
        place = names.get_name(name.removeprefix("transformer."), try_suffixes=(".weight", ".bias"))
        writer.add_tensor(place, gguf.quants.quantize(np.ascontiguousarray(tensor), type_), raw_dtype=type_)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _divisors(model.model.rotary_emb, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_fields(writer, family, config):
    """What a GGUF file of a family says of a model."""
    _, _, gguf = packages()
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    head_dim = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    if family.model != "Qwen2":
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if family.model == "Mistral":
        writer.add_sliding_window(config.sliding_window)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)


def _divisors(embedding, config):
    """What each frequency of Llama 3 is divided by."""
    rope = config.rope_parameters
    n = 2 * len(embedding.inv_freq)
    return (rope["rope_theta"] ** (-np.arange(0, n, 2) / n) / embedding.inv_freq.numpy()).astype(np.float32)


def logits(model, tokens):
    """float32 [tokens, vocab_size], of `transformers`."""
    torch, _, _ = packages()
    with torch.no_grad():
        return model(torch.tensor([list(tokens)]), use_cache=False).logits[0].numpy()


def golden_logits(image, tokens, n_prompt=N_PROMPT):
    """float32 [tokens from the prompt's last on, vocab_size], of the golden machine."""
    from edgeaccel.runtime.generate import read_logits
    from edgeaccel.runtime.golden import GoldenDevice

    device = GoldenDevice(image.machine)
    device.load(image)
    rows, position = [], 0
    for end in range(n_prompt, len(tokens) + 1):
        device.write_tokens(position, tokens[position:end])
        stop = device.run(position, end, end)
        if stop.position != end:
            raise RuntimeError(f"the golden machine has stopped at {stop.position}, not {end}: {stop.message}")
        rows.append(read_logits(device, image).copy())
        position = end
    return np.array(rows)


def error(logits, expected):
    """Mean magnitude of the difference over that of what is expected."""
    expected = np.asarray(expected, np.float64)
    return float(np.abs(logits - expected).mean() / np.abs(expected).mean())


def errors(family, seed, weights="int16", cache="int16"):
    """Errors of a random model: (of the float32 model, of the golden machine)."""
    from edgeaccel.checkpoint import load
    from edgeaccel.compiler import compile_model
    from edgeaccel.golden.reference import Reference
    from edgeaccel.machine import machine

    model = random_model(family, seed)
    tokens = np.random.default_rng(seed).integers(0, model.config.vocab_size, N_TOKENS).tolist()
    expected = logits(model, tokens)
    with TemporaryDirectory() as folder:
        checkpoint = load(write(model, family, folder))
        image = compile_model(checkpoint, machine("tiny"), weights=weights, cache=cache)
        golden = golden_logits(image, tokens)
        reference = Reference(checkpoint).forward(tokens)
    return error(reference, expected), error(golden, expected[N_PROMPT - 1 :])


def measure(progress):
    """All records of the bench: of each family the largest errors of some random models."""
    packages()
    task = progress.add_task("families", total=len(FAMILIES) * SEEDS)
    records = []
    for name, family in FAMILIES.items():
        largest = np.zeros(2)
        for seed in range(SEEDS):
            largest = np.maximum(largest, errors(family, seed))
            progress.advance(task)
        for figure, value in zip(("reference", "golden"), largest, strict=True):
            records.append(Record(f"families.{figure}_error.{name}", float(value), "1", "simulated", SOURCE))
    return records


def plot(records, axes):
    """Errors by family."""
    for figure in ("reference", "golden"):
        begin = f"families.{figure}_error."
        chosen = {record.name.removeprefix(begin): record.value for record in records if record.name.startswith(begin)}
        axes.plot(list(chosen), list(chosen.values()), "o", label=figure)
    axes.set(yscale="log", ylabel="mean error / mean magnitude", title="Logits against transformers (simulated)")
    axes.tick_params(axis="x", rotation=90)
    axes.grid(True, axis="y", which="both", alpha=0.3)
    axes.legend()
