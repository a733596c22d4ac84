"""Shapes of published models, for the cycle model: nobody needs their weights to know how long they take.

Sizes are those of the published configurations. Counts of parameters, to which tests hold them, are those that their
publishers give.
"""

from pathlib import Path

from edgeaccel.checkpoint import ModelShape, Rope, load

__all__ = ["SHAPES", "find", "macs", "parameters"]


def _llama(dim, hidden_dim, n_layers, heads, vocab_size, max_positions, *, head_dim=128, rope=None, **others):
    n_heads, n_kv_heads = heads
    return ModelShape(
        dim=dim,
        hidden_dim=hidden_dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        vocab_size=vocab_size,
        max_positions=max_positions,
        rope=rope or Rope(rotated=head_dim, half=True),
        **others,
    )


SHAPES = {
    # karpathy/llama2.c, README.md, table of models; hidden_dim by the rule of its `model.py` (multiple_of 32).
    "stories110M": _llama(
        768, 2048, 12, (12, 12), 32000, 1024, head_dim=64, rope=Rope(rotated=64), tied=True, bos=1, eos=(2,)
    ),
    # Zhang et al., arXiv 2401.02385, table 2; config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0.
    "TinyLlama-1.1B": _llama(2048, 5632, 22, (32, 4), 32000, 2048, head_dim=64, bos=1, eos=(2,)),
    # Touvron et al., arXiv 2307.09288; config.json of meta-llama/Llama-2-7b-hf.
    "LLaMA2-7B": _llama(4096, 11008, 32, (32, 32), 32000, 4096, bos=1, eos=(2,)),
    # Grattafiori et al., arXiv 2407.21783, table 3; config.json of meta-llama/Meta-Llama-3-8B.
    "Llama-3-8B": _llama(
        4096, 14336, 32, (32, 8), 128256, 8192, rope=Rope(rotated=128, half=True, base=5e5), bos=128000, eos=(128001,)
    ),
    # Team GLM, arXiv 2406.12793; config.json of THUDM/chatglm2-6b.
    "ChatGLM2-6B": _llama(
        4096, 13696, 28, (32, 2), 65024, 32768, rope=Rope(rotated=64), qkv_bias=True, bos=1, eos=(2,)
    ),
    # Yang et al., arXiv 2407.10671, table 1; config.json of Qwen/Qwen2-7B, whose vocabulary is padded to 152064.
    "Qwen2-7B": _llama(
        3584,
        18944,
        28,
        (28, 4),
        152064,
        131072,
        rope=Rope(rotated=128, half=True, base=1e6),
        norm_epsilon=1e-6,
        qkv_bias=True,
        eos=(151643,),
    ),
}
"""Shapes by the names that their models go by."""


def find(name):
    """(name, ModelShape) of a built-in shape, in any letters, or of a checkpoint in a file or folder.

    Raises
    ------
    ValueError
        If there is neither.
    CheckpointError
        As of `edgeaccel.checkpoint.load`.
    """
    for known, shape in SHAPES.items():
        if known.lower() == str(name).lower():
            return known, shape
    path = Path(name)
    if not path.exists():
        raise ValueError(
            f"there is no model {name}: neither a file or folder of that name, nor one of {', '.join(SHAPES)}"
        )
    return path.name, load(path).shape


def parameters(shape):
    """Parameters of a model; a tied classifier counts once."""
    tensors = shape.tensors()
    count = 0
    for name, size in tensors.items():
        if name == "classifier" and shape.tied:
            continue
        of_tensor = 1
        for n in size:
            of_tensor *= n
        count += of_tensor
    return count


def macs(shape, *, positions, classifier=True):
    """Multiply-accumulates of a token that sees so many positions: one for each weight, and those of attention.

    Parameters
    ----------
    positions : int
        That the token sees, itself among them.
    classifier : bool
        Whether its logits are wanted.
    """
    seen = min(positions, shape.window or positions)
    matrices = [size for name, size in shape.tensors().items() if len(size) == 2 and name.startswith("layers.")]
    count = sum(rows * columns for rows, columns in matrices)
    count += 2 * shape.n_layers * shape.n_heads * shape.head_dim * seen
    return count + (shape.vocab_size * shape.dim if classifier else 0)
