"""Checkpoints of Hugging Face: a folder with `config.json` and one or several files of safetensors.

Llama, Mistral, Qwen2 and ChatGLM2. The first three rotate dimension i with i + head_dim / 2 and have a tensor for each
matrix; ChatGLM2 rotates neighbours in the first half of a head, and fuses queries, keys and values, and gate and up.
"""

import json
from functools import partial
from importlib import import_module
from pathlib import Path

from edgeaccel.checkpoint.model import CheckpointError, ModelShape, Rope
from edgeaccel.checkpoint.package import package
from edgeaccel.checkpoint.sources import Source, checkpoint_of
from edgeaccel.golden.rotary import Llama3Scaling

__all__ = ["load"]

DTYPES = ("F16", "BF16", "F32", "F64")
LLAMA_NAMES = {
    "attention.norm": "input_layernorm.weight",
    **{f"attention.{name}": f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"attention.{name}_bias": f"self_attn.{name}_proj.bias" for name in "qkv"},
    "feed_forward.norm": "post_attention_layernorm.weight",
    **{f"feed_forward.{name}": f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}


class _Config:
    """The configuration, whose missing or wrong fields are named."""

    def __init__(self, path):
        self.path = path
        try:
            self.fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{path.parent}: there is no config.json; name the folder of a downloaded model"
            ) from None
        except ValueError as error:
            raise CheckpointError(f"{path}: is no JSON ({error}); get the file anew") from None
        if not isinstance(self.fields, dict):
            raise CheckpointError(f"{path}: must be a JSON object; get the file anew")

    def __call__(self, name, *default, kind=int):
        """A field; `default` where it is missing or null."""
        value = self.fields.get(name)
        if value is None:
            if default:
                return default[0]
            raise CheckpointError(f"{self.path}: {name} is missing; get the file anew")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise CheckpointError(f"{self.path}: {name} must be of type {kind.__name__}, not {value!r}")
        return value

    def must(self, name, *allowed):
        """Refuses a field that is there and is none of what is supported."""
        if name in self.fields and self.fields[name] not in (None, *allowed):
            raise CheckpointError(
                f"{self.path}: {name} {self.fields[name]!r} is not supported, only {' or '.join(map(repr, allowed))}"
            )

    def tokens(self, name):
        value = self.fields.get(name)
        tokens = tuple(value) if isinstance(value, list) else (() if value is None else (value,))
        if not all(type(token) is int for token in tokens):
            raise CheckpointError(f"{self.path}: {name} must be a token or a list of them, not {value!r}")
        return tokens


def load(folder):
    """The checkpoint in a folder.

    Raises
    ------
    CheckpointError
        A file that is missing, cut or no such file; a model that is not supported, and what in it; sizes that disagree.
    ModuleNotFoundError
        If the package safetensors is not installed.
    """
    folder = Path(folder)
    config = _Config(folder / "config.json")
    model_type = config("model_type", kind=str)
    if model_type not in ("llama", "mistral", "qwen2", "chatglm"):
        raise CheckpointError(
            f"{config.path}: model_type {model_type!r} is not supported, only llama, mistral, qwen2 and chatglm"
        )
    is_chatglm = model_type == "chatglm"
    try:
        shape = _chatglm_shape(config) if is_chatglm else _llama_shape(config, model_type)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{config.path}: {error}; get the file anew") from None
    names = _chatglm_names(shape) if is_chatglm else _llama_names(shape)
    return checkpoint_of(shape, _tensors(folder), names, folder)


def _llama_shape(config, model_type):
    config.must("hidden_act", "silu")
    config.must("mlp_bias", False)
    config.must("partial_rotary_factor", 1, 1.0)
    config.must("use_sliding_window", False)
    if "sliding_attention" in config("layer_types", [], kind=list):
        raise CheckpointError(f"{config.path}: layer_types with sliding_attention are not supported")
    if model_type != "qwen2":
        config.must("attention_bias", False)
    dim, n_heads = config("hidden_size"), config("num_attention_heads")
    head_dim = config("head_dim", dim // max(n_heads, 1))
    bos = config.tokens("bos_token_id")
    return ModelShape(
        dim=dim,
        hidden_dim=config("intermediate_size"),
        n_layers=config("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=config("num_key_value_heads", n_heads),
        head_dim=head_dim,
        vocab_size=config("vocab_size"),
        max_positions=config("max_position_embeddings"),
        rope=_rope(config, head_dim),
        norm_epsilon=config("rms_norm_eps", kind=float),
        qkv_bias=model_type == "qwen2",
        window=config("sliding_window", None) if model_type == "mistral" else None,
        tied=config("tie_word_embeddings", False, kind=bool),
        bos=bos[0] if bos else None,
        eos=config.tokens("eos_token_id"),
    )


def _rope(config, head_dim):
    """Also as newer files have it, all in `rope_parameters`; where both are, `transformers` heeds the older."""
    parameters = config("rope_scaling", {}, kind=dict) or config("rope_parameters", {}, kind=dict)
    nested = _Config.__new__(_Config)
    nested.path, nested.fields = config.path, parameters
    nested.must("partial_rotary_factor", 1, 1.0)
    kind = nested("rope_type", nested("type", "default", kind=str), kind=str)
    linear, llama3 = 1.0, None
    match kind:
        case "default":
            pass
        case "linear":
            linear = nested("factor", kind=float)
        case "llama3":
            llama3 = Llama3Scaling(
                factor=nested("factor", kind=float),
                low_frequency_factor=nested("low_freq_factor", kind=float),
                high_frequency_factor=nested("high_freq_factor", kind=float),
                original_positions=nested("original_max_position_embeddings"),
            )
        case _:
            raise CheckpointError(
                f"{config.path}: rope_scaling of type {kind!r} is not supported, only linear and llama3"
            )
    base = nested("rope_theta", config("rope_theta", 10000.0, kind=float), kind=float)
    return Rope(rotated=head_dim, half=True, base=base, linear=linear, llama3=llama3)


def _llama_names(shape):
    names = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "classifier": "lm_head.weight"}
    for n in range(shape.n_layers):
        names |= {f"layers.{n}.{ours}": f"model.layers.{n}.{theirs}" for ours, theirs in LLAMA_NAMES.items()}
    return {ours: (theirs, None) for ours, theirs in names.items()}


def _chatglm_shape(config):
    config.must("rmsnorm", True)
    config.must("post_layer_norm", True)
    config.must("apply_residual_connection_post_layernorm", False)
    config.must("add_bias_linear", False)
    config.must("original_rope", True)
    config.must("rope_ratio", 1, 1.0)
    if not config("multi_query_attention", False, kind=bool):
        # Queries, keys and values of each head would lie together; no published model has them so.
        raise CheckpointError(f"{config.path}: multi_query_attention must be true; other models are not supported")
    head_dim, n_heads = config("kv_channels"), config("num_attention_heads")
    bos = config.tokens("bos_token_id")
    return ModelShape(
        dim=config("hidden_size"),
        hidden_dim=config("ffn_hidden_size"),
        n_layers=config("num_layers"),
        n_heads=n_heads,
        n_kv_heads=config("multi_query_group_num"),
        head_dim=head_dim,
        vocab_size=config("padded_vocab_size"),
        max_positions=config("seq_length"),
        rope=Rope(rotated=head_dim // 2),
        norm_epsilon=config("layernorm_epsilon", kind=float),
        qkv_bias=config("add_qkv_bias", False, kind=bool),
        tied=config("tie_word_embeddings", False, kind=bool),
        bos=bos[0] if bos else None,
        eos=config.tokens("eos_token_id"),
    )


def _chatglm_names(shape):
    names = {
        "embedding": ("transformer.embedding.word_embeddings.weight", None),
        "norm": ("transformer.encoder.final_layernorm.weight", None),
        "classifier": ("transformer.output_layer.weight", None),
    }
    firsts = {"q": 0, "k": shape.q_dim, "v": shape.q_dim + shape.kv_dim}
    for n in range(shape.n_layers):
        theirs = f"transformer.encoder.layers.{n}"
        fused = f"{theirs}.self_attention.query_key_value"
        layer = {
            "attention.norm": (f"{theirs}.input_layernorm.weight", None),
            **{f"attention.{name}": (f"{fused}.weight", first) for name, first in firsts.items()},
            **{f"attention.{name}_bias": (f"{fused}.bias", first) for name, first in firsts.items()},
            "attention.o": (f"{theirs}.self_attention.dense.weight", None),
            "feed_forward.norm": (f"{theirs}.post_attention_layernorm.weight", None),
            "feed_forward.gate": (f"{theirs}.mlp.dense_h_to_4h.weight", 0),
            "feed_forward.up": (f"{theirs}.mlp.dense_h_to_4h.weight", shape.hidden_dim),
            "feed_forward.down": (f"{theirs}.mlp.dense_4h_to_h.weight", None),
        }
        names |= {f"layers.{n}.{ours}": place for ours, place in layer.items()}
    return names


def _tensors(folder):
    """All tensors of the folder's files, by name."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return _file_tensors(single)
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: there is neither {single.name} nor {index.name}; older files (.bin) are not read, convert them"
            " with the package safetensors"
        )
    weight_map = _Config(index)("weight_map", kind=dict)
    tensors = {}
    for name in sorted(set(map(str, weight_map.values()))):
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{index}: there is no file {name} beside it; get the missing part")
        tensors |= _file_tensors(folder / name)
    return tensors


def _file_tensors(path):
    tensors = {}
    with _opened(path) as file:
        for name in tuple(file.keys()):
            part = file.get_slice(name)
            read = partial(_read, path, name, part.get_dtype())
            tensors[name] = Source(tuple(part.get_shape()), read)
    return tensors


def _opened(path):
    safetensors = package("safetensors")
    try:
        return safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {error}; get the file anew") from None


def _read(path, name, dtype, channels):
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{path}: {name} is of type {dtype}, not one of {', '.join(DTYPES)}; get the model before it was quantised"
        )
    if dtype == "BF16":
        import_module("ml_dtypes")  # makes NumPy know bfloat16
    # Opened for each part: as long as it is open, all that was read of it stays in this process's memory.
    with _opened(path) as file:
        return file.get_slice(name)[channels]
