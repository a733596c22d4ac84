"""A model of the Llama family: its shape, and its tensors by neutral names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeaccel.golden.rotary import Llama3Scaling

__all__ = ["Checkpoint", "CheckpointError", "ModelShape", "Rope"]

# Beyond every model of this family by far: what is larger comes from a file that is not what it is taken for.
LARGEST = {
    "dim": 1 << 18,
    "hidden_dim": 1 << 20,
    "n_layers": 1 << 12,
    "n_heads": 1 << 12,
    "n_kv_heads": 1 << 12,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 22,
    "max_positions": 1 << 28,
}


class CheckpointError(ValueError):
    """A file that cannot be what it is taken for; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary position embedding.

    Attributes
    ----------
    rotated : int
        First dimensions of a head that are rotated: all, or half of them in ChatGLM2.
    half : bool
        Whether dimension i is turned with i + rotated / 2, as in files of Hugging Face, or 2 i with 2 i + 1.
    base : float
        Pair i turns by ``position / linear * base**(-2 i / rotated)``.
    linear : float
        What positions are divided by.
    llama3 : Llama3Scaling, optional
        What Llama 3.1 does to the frequencies.
    """

    rotated: int
    half: bool = False
    base: float = 10000.0
    linear: float = 1.0
    llama3: Llama3Scaling | None = None

    def __post_init__(self):
        if self.rotated < 2 or self.rotated % 2:
            raise ValueError(f"rotated must be an even number of dimensions, not {self.rotated!r}")
        for name in ("base", "linear"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Everything about a model but its weights.

    A layer is ``x += o(attention(norm(x))); x += down(silu(gate(norm(x))) * up(norm(x)))``, with RMSNorm.

    Attributes
    ----------
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, vocab_size : int
        `n_heads / n_kv_heads` query heads share a head of keys and values.
    max_positions : int
        Positions that the model was made for.
    rope : Rope
    norm_epsilon : float
        Added to the mean square.
    qkv_bias : bool
        Whether queries, keys and values have a bias (Qwen2, ChatGLM2).
    window : int, optional
        Last positions that a position sees, itself among them (Mistral); all by default.
    tied : bool
        Whether the classifier is the embedding.
    bos : int, optional
        The token that begins a text.
    eos : tuple of int
        Tokens that end one.

    Raises
    ------
    ValueError
        A size that is not positive, or absurd, or does not fit the others.
    """

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rope: Rope
    norm_epsilon: float = 1e-5
    qkv_bias: bool = False
    window: int | None = None
    tied: bool = False
    bos: int | None = None
    eos: tuple[int, ...] = ()

    def __post_init__(self):
        for name, largest in LARGEST.items():
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= largest:
                raise ValueError(f"{name} must be 1 to {largest}, not {size!r}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads must be a multiple of the {self.n_kv_heads} KV heads, not {self.n_heads}")
        if self.rope.rotated > self.head_dim:
            raise ValueError(f"rotated must be at most the {self.head_dim} of a head, not {self.rope.rotated}")
        if not 0 <= self.norm_epsilon < 1:
            raise ValueError(f"norm_epsilon must be 0 to 1, not {self.norm_epsilon!r}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 position, not {self.window!r}")
        for token in (*self.eos, *(() if self.bos is None else (self.bos,))):
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"tokens must be 0 to {self.vocab_size - 1}, but bos or eos is {token!r}")

    @property
    def q_dim(self) -> int:
        """Dimensions of all query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Dimensions of all heads of keys, or of values."""
        return self.n_kv_heads * self.head_dim

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names of all tensors and their shapes; of matrices [output channels, inputs]."""
        layer = {
            "attention.norm": (self.dim,),
            "attention.q": (self.q_dim, self.dim),
            "attention.k": (self.kv_dim, self.dim),
            "attention.v": (self.kv_dim, self.dim),
            "attention.o": (self.dim, self.q_dim),
            "feed_forward.norm": (self.dim,),
            "feed_forward.gate": (self.hidden_dim, self.dim),
            "feed_forward.up": (self.hidden_dim, self.dim),
            "feed_forward.down": (self.dim, self.hidden_dim),
        }
        if self.qkv_bias:
            layer |= {f"attention.{name}_bias": layer[f"attention.{name}"][:1] for name in "qkv"}
        return {
            "embedding": (self.vocab_size, self.dim),
            **{f"layers.{n}.{name}": shape for n in range(self.n_layers) for name, shape in layer.items()},
            "norm": (self.dim,),
            "classifier": (self.vocab_size, self.dim),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model's shape and its tensors, which are read one at a time, when they are asked for.

    Parameters
    ----------
    shape : ModelShape
    sources : mapping of str to function
        For each of the shape's tensors (but the classifier if it is tied) what gives a slice of its channels.
    origin : str
        Where it comes from, for messages.
    """

    shape: ModelShape
    sources: Mapping[str, Callable[[slice], np.ndarray]] = field(repr=False)
    origin: str = ""

    def tensor(self, name: str, channels: slice = slice(None)) -> np.ndarray:
        """A tensor as float32, or some of its channels (rows; elements of a vector).

        Raises
        ------
        KeyError
            If the model has no such tensor.
        CheckpointError
            If the file does not hold what it promised.
        """
        shape = self.shape.tensors()[name]
        source = self.sources["embedding" if name == "classifier" and self.shape.tied else name]
        tensor = np.asarray(source(channels), np.float32)
        expected = (len(range(*channels.indices(shape[0]))), *shape[1:])
        if tensor.shape != expected:
            raise CheckpointError(
                f"{self.origin}: {name} must be of shape {expected}, not {tensor.shape}; get the file anew"
            )
        return tensor
