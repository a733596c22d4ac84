"""Where everything lies: the activation buffer, the vector memory, the ports' memories and the data behind them."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edgeaccel.cache import MAX_HEAD_DIM, CacheLayout, group_sets
from edgeaccel.checkpoint import ModelShape
from edgeaccel.compiler.weights import Matrix, head_places
from edgeaccel.formats import FORMATS
from edgeaccel.golden.feed import Operator, refusal
from edgeaccel.isa import INSTRUCTION_BYTES, POSITION_WIDTH, TOKEN_WIDTH
from edgeaccel.machine import MACHINES, Machine

__all__ = ["KINDS", "CompileError", "Plan", "Region", "cuts", "ring"]

KINDS = ("k", "v", "q", "o", "up", "gate", "down", "classifier")
"""Kinds of matrices, in the order in which they are used."""

LAYER_KINDS = {
    **{kind: f"attention.{kind}" for kind in ("k", "v", "q", "o")},
    **{kind: f"feed_forward.{kind}" for kind in ("up", "gate", "down")},
}
ALIGNMENT = 64  # bytes, of everything that is no tile
MAX_EOS = 4


class CompileError(ValueError):
    """A model that the machine cannot run; says which size is too large, with the arithmetic.

    Parameters
    ----------
    message : str
    positions : int
        With so many the model would fit, if fewer of them are all it takes; else 0.
    """

    def __init__(self, message, positions=0):
        super().__init__(message)
        self.positions = positions


@dataclass(frozen=True)
class Region:
    """A place in memory: `address` and `bytes`; of tiles those in port 0, which has as many as any."""

    address: int
    bytes: int


def ring(config):
    """Word of the buffer from which on attention has its weights: `edgeaccel.attention.attention.Attention.ring`."""
    lookahead = max(6, 3 * group_sets(config)[1])
    return config.buffer_words - (lookahead + 4) * config.block // config.vector_lanes


def cuts(channels, most):
    """(vectors, channels of each, first channel) of so many channels: as many as possible are as long as possible."""
    whole, rest = divmod(channels, most)
    return [(whole, most, 0)] * (whole > 0) + [(1, rest, whole * most)] * (rest > 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What a model needs of a machine, and where it gets it.

    Parameters
    ----------
    shape : ModelShape
    machine : Machine
    formats : dict of str to str
        Of each of `KINDS`.
    cache : str
        Format of keys and values.
    positions : int
        Tokens that a sequence can have.
    origin : str
        Where the model comes from, for messages.

    Raises
    ------
    CompileError
        If the machine has not enough of something, or lacks a format or function.
    """

    shape: ModelShape
    machine: Machine
    formats: dict = field(repr=False)
    cache: str
    positions: int
    origin: str = ""

    def __post_init__(self):
        self._check_build()
        self._check_model()
        self._check_buffer()
        self._check_ports()

    # Sizes in words of `vector_lanes` elements.

    @property
    def ends(self):
        """Tokens that end a text: also the one that begins the next."""
        bos = () if self.shape.bos is None else (self.shape.bos,)
        return tuple(dict.fromkeys((*self.shape.eos, *bos)))

    @property
    def lanes(self):
        return self.machine.config.vector_lanes

    def words(self, elements):
        """Words that so many elements take."""
        return -(-elements // self.lanes)

    @property
    def head_words(self):
        return self.words(self.shape.head_dim)

    @property
    def x(self):
        """Word of the vector memory: the residual stream."""
        return 0

    @property
    def up(self):
        """Word of the vector memory: the up half of a layer."""
        return self.words(self.shape.dim)

    @cached_property
    def buffer(self):
        """Words of the activation buffer: what enters the array, queries, results of attention, hidden layer.

        The hidden layer lies over queries and results: they have been read when its first elements come, and it has
        when the next layer's queries do.
        """
        heads = self.shape.n_heads * self.head_words
        inputs, q = 0, self.words(self.shape.dim)
        return {"inputs": inputs, "q": q, "attention": q + heads, "hidden": q, "end": q + max(2 * heads, self._hidden)}

    @property
    def _hidden(self):
        return self.words(self.shape.hidden_dim)

    def cuts(self, channels):
        """`cuts` into vectors of the longest kind, an instruction each in a machine of several sets.

        There the results of a set wait while the array gives another one's, and what finds room is a longest vector.
        """
        parts = cuts(channels, self.machine.max_channels)
        if self.machine.config.sets == 1:
            return parts
        return [(1, each, first + n * each) for vectors, each, first in parts for n in range(vectors)]

    def head_cuts(self, heads):
        """(heads, first head) of the instructions for the heads' vectors of several tokens.

        With several sets as many as a pass gives: a set's are worked on before the array is through with all.
        """
        config = self.machine.config
        if config.sets == 1:
            return [(heads, 0)]
        channels = -(-self.shape.head_dim // config.tile_channels) * config.tile_channels
        most = max(1, min(self.machine.max_channels, config.groups * config.tile_channels) // channels)
        return [(min(most, heads - first), first) for first in range(0, heads, most)]

    # Heads.

    @property
    def ratio(self):
        """Query heads that share a head of keys and values."""
        return self.shape.n_heads // self.shape.n_kv_heads

    @property
    def half(self):
        """Whether rotation is half-split; neighbours are rotated if it is not, also where heads had to be permuted."""
        return self.shape.rope.half and self.shape.rope.rotated % (2 * self.lanes) == 0

    def batches(self, *, spread):
        """Places of the queries of a head: a place has a row for each of its query heads, or one for all tokens."""
        return -(-self.ratio // self.machine.config.rows) if spread else self.ratio

    def attends(self, *, spread):
        """(first head, heads) of each attend: as many heads of keys and values as there are slots for."""
        most = self.machine.slots // self.batches(spread=spread)
        heads = self.shape.n_kv_heads
        return [(first, min(most, heads - first)) for first in range(0, heads, most)]

    # Matrices.

    @cached_property
    def matrices(self):
        """A `Matrix` of each kind."""
        shape, config = self.shape, self.machine.config
        rope = shape.rope
        halves = rope.rotated if rope.half and not self.half else 0
        tile, dim = config.tile_channels, shape.dim
        kv = head_places(shape.n_kv_heads, shape.head_dim, tile)
        rows = {
            "k": head_places(shape.n_kv_heads, shape.head_dim, tile, halves=halves),
            "v": kv,
            "q": head_places(shape.n_heads, shape.head_dim, tile, halves=halves),
            "o": np.arange(dim),
            "up": np.arange(shape.hidden_dim),
            "gate": np.arange(shape.hidden_dim),
            "down": np.arange(dim),
            "classifier": np.arange(shape.vocab_size),
        }
        columns = dict.fromkeys(KINDS, np.arange(dim)) | {
            "o": head_places(shape.n_heads, shape.head_dim, self.lanes),
            "down": np.arange(shape.hidden_dim),
        }
        return {
            kind: Matrix(config=config, format=self.formats[kind], rows=rows[kind], columns=columns[kind])
            for kind in KINDS
        }

    @cached_property
    def first_words(self):
        """Word of each port where a kind of matrix of layer 0 begins; the classifier comes behind all layers."""
        word, words = 0, {}
        for kind in LAYER_KINDS:
            words[kind] = word
            word += self.matrices[kind].port_words
        return words | {"classifier": self.layer_stride * self.shape.n_layers}

    @cached_property
    def layer_stride(self):
        """Words of each port from layer to layer."""
        return sum(self.matrices[kind].port_words for kind in LAYER_KINDS)

    # The cache.

    @cached_property
    def layout(self):
        """The `CacheLayout` whose pages are as small as the page table allows."""
        shape = self.shape
        sizes = {"config": self.machine.config, "heads": shape.n_kv_heads, "head_dim": shape.head_dim}
        layout = CacheLayout(**sizes, format=self.cache)
        while -(-self.positions // layout.page_positions) > self.machine.pages and layout.page_bits < 8:
            layout = CacheLayout(**sizes, format=self.cache, page_bits=layout.page_bits + 1)
        return layout

    @property
    def pages(self):
        return -(-self.positions // self.layout.page_positions)

    @property
    def cache_word(self):
        """Word of each port where the cache begins."""
        return self.first_words["classifier"] + self.matrices["classifier"].port_words

    @property
    def end_word(self):
        """Words of each port that are in use."""
        return self.cache_word + self.shape.n_layers * self.pages * self.layout.page_words

    # The data region.

    @cached_property
    def data(self):
        """A `Region` of each part of the data region."""
        shape, positions = self.shape, self.positions
        of_layers = shape.n_layers * self.pages * self.layout.page_scale_bytes
        sizes = {
            "program": self.machine.instructions * INSTRUCTION_BYTES,
            "logits": self.words(shape.vocab_size) * self.word_bytes,
            "attention.norm": (shape.n_layers + 1) * self.gain_stride,
            "feed_forward.norm": shape.n_layers * self.gain_stride,
        }
        if shape.qkv_bias:
            sizes |= {f"attention.{kind}_bias": shape.n_layers * self.bias_bytes(kind) for kind in "kvq"}
        sizes |= {
            "table": positions * self.table_bytes,
            "cache.scales": of_layers,
            "embedding": shape.vocab_size * self.word_bytes * self.words(shape.dim),
        }
        regions, address = {}, self.machine.data_base
        for name, size in sizes.items():
            # The cache wants its scales aligned to those of a chunk.
            alignment = max(ALIGNMENT, 2 * self.machine.config.block if name == "cache.scales" else 0)
            address = _up(address, alignment)
            regions[name] = Region(address, size)
            address += size
        return regions

    @property
    def word_bytes(self):
        """Bytes of a word of `vector_lanes` elements, FP32."""
        return 4 * self.lanes

    @property
    def gain_bytes(self):
        return self.words(self.shape.dim) * self.word_bytes

    @property
    def gain_stride(self):
        return _up(self.gain_bytes, ALIGNMENT)

    def bias_bytes(self, kind):
        """Bytes of a layer's bias of queries, keys or values: whole words for each head."""
        return self._heads(kind) * self.head_words * self.word_bytes

    def _heads(self, kind):
        return self.shape.n_heads if kind == "q" else self.shape.n_kv_heads

    @property
    def table_bytes(self):
        """Bytes of a position's cosines and sines."""
        return self.words(self.shape.rope.rotated) * 2 * self.word_bytes

    # Checks.

    def _check_build(self):
        machine, config = self.machine, self.machine.config
        if config.activations != "fp32":
            self._refuse(f"activations of the configuration must be fp32, not {config.activations}")
        if config.vector_lanes not in (4, 8, 16, 32, 64):
            self._refuse(f"vector_lanes must be 4 to 64 for attention, not {config.vector_lanes}")
        if "silu" not in machine.functions:
            self._refuse(f"the machine has no silu, only {', '.join(machine.functions)}; build one with it")
        for kind in KINDS:
            if self.formats[kind] not in config.formats:
                self._refuse(
                    f"the format of {kind} must be one of {', '.join(config.formats)}, those of the build, not"
                    f" {self.formats[kind]}{_where(self.formats[kind])}"
                )

    def _check_model(self):
        shape, machine = self.shape, self.machine
        try:
            self._check_cache()
        except ValueError as error:
            self._refuse(str(error))
        if shape.dim > machine.max_channels:
            self._refuse(f"dim must be at most {machine.max_channels}, the machine's max_channels, not {shape.dim}")
        if shape.head_dim > machine.max_channels:
            self._refuse(f"head_dim must be at most {machine.max_channels}, max_channels, not {shape.head_dim}")
        if shape.rope.rotated > machine.max_rotated:
            self._refuse(f"rotated must be at most {machine.max_rotated}, max_rotated, not {shape.rope.rotated}")
        if shape.vocab_size > 1 << TOKEN_WIDTH:
            self._refuse(f"vocab_size must be at most {1 << TOKEN_WIDTH}, not {shape.vocab_size}")
        if len(self.ends) > MAX_EOS:
            self._refuse(f"a program knows {MAX_EOS} tokens that end a text, not {len(self.ends)}: {self.ends}")
        for spread in (True, False):
            if (batches := self.batches(spread=spread)) > machine.slots:
                self._refuse(
                    f"{self.ratio} query heads share a head of keys and values, which takes {batches} slots, but the"
                    f" machine has {machine.slots}"
                )
        used, words, sets = self.up + self._hidden, machine.set_vector_words, machine.config.sets
        if used > words:
            self._refuse(
                f"the vector memory has {words} words of {self.lanes}{_of_set(sets)}, but dim {shape.dim}"
                f" and hidden_dim {shape.hidden_dim} take {self.up} + {self._hidden} = {used}; vector_inputs must be"
                f" at least {sets * used * self.lanes}, not {machine.vector_inputs}"
            )

    def _check_cache(self):
        shape, machine = self.shape, self.machine
        most = min(machine.positions, (1 << POSITION_WIDTH) - 1)
        if not 1 <= self.positions <= most:
            raise ValueError(f"positions must be 1 to {most}, the tokens that the machine holds, not {self.positions}")
        if shape.head_dim % 2 or shape.head_dim > MAX_HEAD_DIM:
            raise ValueError(f"head_dim must be even and at most {MAX_HEAD_DIM}, not {shape.head_dim}")
        if self.pages > machine.pages:
            raise ValueError(
                f"{self.positions} positions take {self.pages} pages of {self.layout.page_positions}, but the page"
                f" table has {machine.pages} entries; ask for at most {machine.pages * self.layout.page_positions}"
            )

    def _check_buffer(self):
        config, shape, end = self.machine.config, self.shape, ring(self.machine.config)
        # Behind the last set lie attention's weights.
        sets, of_last = config.sets, end - (config.sets - 1) * config.set_words
        end = min(config.set_words, of_last) if sets > 1 else end
        places, inputs, heads = self.buffer, self.words(shape.dim), shape.n_heads * self.head_words
        if places["end"] > end:
            self._refuse(
                f"the activation buffer has {max(end, 0)} words of {self.lanes}{_of_set(sets)} beside attention's"
                f" own, but dim {shape.dim} takes {inputs}, and behind it the larger of 2 x {heads} for {shape.n_heads}"
                f" heads and {self._hidden} for hidden_dim {shape.hidden_dim}: {places['end']} in all; buffer_inputs"
                f" must be at least {config.buffer_inputs + sets * (places['end'] - end) * self.lanes}, not"
                f" {config.buffer_inputs}"
            )
        at = dict.fromkeys(KINDS, places["inputs"]) | {"o": places["attention"], "down": places["hidden"]}
        for kind, matrix in self.matrices.items():
            operator = Operator(
                format=matrix.format,
                inputs=matrix.inputs,
                channel_tiles=matrix.tiles,
                address=at[kind],
                more_sets=sets - 1,
            )
            if why := refusal(config, operator):
                self._refuse(f"the array would refuse {kind} of {matrix.tiles} tiles x {matrix.inputs} inputs: {why}")

    def _check_ports(self):
        config, shape = self.machine.config, self.shape
        need, have = self.end_word * config.word_bytes, self.machine.port_bytes
        if need <= have:
            return
        weights = self.cache_word * config.word_bytes
        page = shape.n_layers * self.layout.page_words * config.word_bytes
        fit = (have - weights) // page * self.layout.page_positions
        least = 1 << (need - 1).bit_length()
        self._refuse(
            f"a port has {have} bytes, but weights take {weights} of each and {self.pages} pages of the cache"
            f" {self.pages} x {page}: {need} in all; "
            + (f"ask for at most {fit} positions, or" if fit > 0 else "take a smaller format of weights, or")
            + f" port_bytes of {least}",
            max(fit, 0),
        )

    def _refuse(self, why, positions=0):
        raise CompileError(f"{self.origin}: {why}" if self.origin else why, positions)


def _of_set(sets):
    return "" if sets == 1 else f" for each of the {sets} sets of rows"


def _where(format):
    """Which machines have a format that one lacks, and how to get one that does, as text."""
    if format not in FORMATS:
        return ""
    have = [name for name, machine in MACHINES.items() if format in machine.config.formats]
    presets = f"of the presets {', '.join(have)} have it" if have else "no preset has it"
    cost = ", since its words complete four sums at once, which takes up to four scalers a row" * (format == "mxfp4")
    return f"; {presets}{cost}; set formats=...,{format} to build a machine with it"


def _up(number, multiple):
    return -(-number // multiple) * multiple
