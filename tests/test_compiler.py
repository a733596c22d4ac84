"""The compiler: programs run by a few lines of NumPy in float64, memory read back, and what is refused."""

import itertools
import os
import tracemalloc
from collections import deque
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from test_reference import random_checkpoint

from edgeaccel import isa
from edgeaccel.attention.attention import Attention
from edgeaccel.checkpoint import Checkpoint, CheckpointError, ModelShape, Rope, example
from edgeaccel.compiler import KINDS, CompileError, compile_model, plan_model
from edgeaccel.compiler.plan import Plan, cuts, ring
from edgeaccel.compiler.program import program
from edgeaccel.config import PRESETS
from edgeaccel.golden.reference import Reference
from edgeaccel.golden.rotary import Llama3Scaling
from edgeaccel.machine import machine
from edgeaccel.quantise import quantise
from edgeaccel.tiles import unpack

TINY = machine("tiny", port_bytes=1 << 20)
ODD = ModelShape(
    dim=48,
    hidden_dim=100,
    n_layers=3,
    n_heads=6,
    n_kv_heads=2,
    head_dim=8,
    vocab_size=300,
    max_positions=40,
    rope=Rope(rotated=8),
    bos=1,
    eos=(2, 3),
)
SHAPES = {
    "llama": ODD,
    "one layer": replace(ODD, n_layers=1, n_heads=2, tied=True),
    "llama3": replace(ODD, rope=Rope(rotated=8, half=True, base=500.0, llama3=Llama3Scaling(original_positions=64))),
    "half split, but not by beats": replace(ODD, head_dim=12, rope=Rope(rotated=12, half=True)),
    "qwen2": replace(ODD, qkv_bias=True, rope=Rope(rotated=4, half=True, base=1e6), norm_epsilon=1e-6),
    "mistral": replace(ODD, window=5, rope=Rope(rotated=8, linear=4.0)),
    "chatglm2": replace(ODD, head_dim=16, n_kv_heads=1, qkv_bias=True, rope=Rope(rotated=8)),
    "odd words": replace(ODD, dim=42, hidden_dim=101, head_dim=10, vocab_size=301, rope=Rope(rotated=6)),
    "odd words, biases": replace(ODD, head_dim=6, qkv_bias=True, rope=Rope(rotated=6, half=True)),
}
TIGHT = {
    "as it is": TINY,
    "short vectors": replace(TINY, max_channels=56, vector_inputs=160),
    "few slots": replace(TINY, slots=6),
    "rows": machine("tiny", port_bytes=1 << 20, changes={"rows": 4}),
    "one row": machine("tiny", port_bytes=1 << 20, changes={"rows": 1, "groups": 4}),
    "8 lanes": machine("tiny", port_bytes=1 << 20, changes={"vector_lanes": 8, "buffer_inputs": 8192}),
}


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


class Runner:
    """Runs a program in float64 on matrices read back from memory; asserts that all that waits is given, and taken."""

    def __init__(self, image):
        self.image, self.machine, config = image, image.machine, image.machine.config
        self.config, self.lanes, self.rows = config, config.vector_lanes, config.rows
        end = max(address + size for address, size in image.manifest["regions"].values())
        self.memory = np.zeros(end, np.uint8)
        for address, data in image.pieces():
            self.memory[address : address + len(data)] = data
        self.program = [isa.decode(image.program[n : n + 64]) for n in range(0, len(image.program), 64)]
        # What was never written is NaN.
        self.x = np.full((self.rows, self.machine.vector_inputs), np.nan)
        self.buffer = np.full((self.rows, config.buffer_inputs), np.nan)
        self.keys, self.values = {}, {}
        self.executed = set()

    def __call__(self, tokens, position=0):
        """Logits after the last token."""
        self.tokens, self.position, self.layer = tokens, position, 0
        self.queues = {name: deque() for name in ("gain", "bias", "fetch", "results", "scales", "append")}
        self.loads = self.appends = self.layers = 0
        self.scale = None
        self.logits, self.logits_at = [], None
        pc = 0
        self._batch()
        while pc is not None:
            name, when, fields = self.program[pc]
            if self._happens(when):
                self.executed.add(pc)
                pc = getattr(self, f"_{name}")(pc, **fields)
            else:
                pc += 1
        assert not any(self.queues.values())
        assert self.loads == self.appends == 0
        return np.concatenate(self.logits)

    def _batch(self):
        group = max(2, 1 << (self.rows - 1).bit_length())
        self.n = min(self.rows, len(self.tokens) - self.position, group - self.position % group)

    def _happens(self, when):
        last = self.position + self.n >= len(self.tokens)
        followed = self.layer + 1 < self.layers or last
        return {
            "always": True,
            "single": self.n == 1,
            "several": self.n > 1,
            "last": last,
            "followed": followed,
            "unfollowed": not followed,
        }[when]

    def _floats(self, address, size):
        assert address % (4 * self.lanes) == size % (4 * self.lanes) == 0
        return self.memory[address : address + size].view("<f4").astype(np.float64)

    def _read(self, pc, *, address, stride, index, bytes, target, vector):
        rows = range(self.n) if index in ("token", "position") else [None]
        for row in rows:
            position = self.position + (row or 0)
            of = {"none": 0, "layer": self.layer, "token": self.tokens[position], "position": position}[index]
            floats = self._floats(address + stride * of, bytes)
            to = slice(None) if row is None else row
            match target:
                case "vector":
                    self.x[to, vector * self.lanes : vector * self.lanes + len(floats)] = floats
                case "table":
                    if row in (None, 0):
                        self.table = np.zeros((self.rows, 2, len(floats) // 2))
                    self.table[to] = floats.reshape(-1, 2, self.lanes).swapaxes(0, 1).reshape(2, -1)
                case _:
                    self.queues[target].extend(floats)
        return pc + 1

    def _fetch(self, pc, *, address, stride, words, long_words, long, format):
        word_bytes, ports = self.config.word_bytes, []
        for port in range(self.config.groups):
            n_words = long_words if port < long else words
            begin = port * self.machine.port_bytes + (address + stride * self.layer) * word_bytes
            ports.append(self.memory[begin : begin + n_words * word_bytes].reshape(-1, word_bytes))
        self.queues["fetch"].append((ports, format))
        return pc + 1

    def _multiply(self, pc, *, address, inputs, channel_tiles, format, wait, last):
        self._wait(wait)
        self.for_logits = last
        ports, fetched = self.queues["fetch"].popleft()
        assert fetched == format
        layout = self.config.layout(format)
        row_words = layout.row_words(inputs)
        tiles = np.empty((channel_tiles, row_words, self.config.word_bytes), np.uint8)
        for port, words in enumerate(ports):
            tiles[port :: self.config.groups] = words.reshape(-1, row_words, self.config.word_bytes)
        shape = (channel_tiles * self.config.tile_channels, inputs)
        matrix = unpack(tiles, format=format, shape=shape, block=layout.block, lanes=self.config.lanes)
        start = address * self.lanes
        product = self.buffer[: self.n, start : start + inputs] @ matrix.dequantise().T.astype(np.float64)
        assert np.isfinite(product).all()
        self.queues["results"].extend(product.T)
        return pc + 1

    def _wait(self, waits):
        assert self.loads >= waits
        self.loads -= waits

    def _vector(self, pc, *, vectors, channels, **f):
        width = -(-channels // self.lanes) * self.lanes
        tile = self.config.tile_channels
        assert f["stride"] == width // self.lanes
        assert channels <= self.machine.max_channels
        made = []
        for n in range(vectors):
            if f["zeros"]:
                y = np.zeros((self.n, channels))
            else:
                taken = [self.queues["results"].popleft() for _ in range(-(-channels // tile) * tile)]
                y = np.array(taken[:channels]).T
            if f["take"] and n == 0:
                self.scale = self.queues["scales"].popleft()
            if f["scale"]:
                y = y * self.scale
            if f["bias"]:
                y = y + [self.queues["bias"].popleft() for _ in range(width)][:channels]
            if f["rotated"]:
                y = self._rotate(y, f["rotated"], f["half"])
            if f["activate"]:
                y = y / (1 + np.exp(-y))
            operand, vector, buffer = (
                slice((f[name] + n * f["stride"]) * self.lanes, (f[name] + n * f["stride"]) * self.lanes + width)
                for name in ("operand", "vector", "address")
            )
            other = self.x[: self.n, operand][:, :channels]
            y = y * other if f["factors"] else y + other if f["residual"] else y
            if f["statistics"]:
                inverse, epsilon = np.array([f["inverse_length"], f["epsilon"]], np.uint32).view(np.float32)
                scale = 1 / np.sqrt(np.sum(y * y, axis=1, keepdims=True) * np.float64(inverse) + epsilon)
                self.queues["scales"].append(scale)
            padded = np.pad(y, ((0, 0), (0, width - channels)))
            if f["to_vector"]:
                assert vector.stop <= self.machine.vector_inputs
                self.x[: self.n, vector] = padded
            if f["gain"]:
                padded = padded * [self.queues["gain"].popleft() for _ in range(width)]
            if f["to_buffer"] and f["spread"]:
                head, query = divmod(n, f["ratio"])
                place, row = divmod(query, self.rows)
                place += head * -(-f["ratio"] // self.rows)
                start = (f["address"] + place * f["stride"]) * self.lanes
                self.buffer[row, start : start + width] = padded[0]
            elif f["to_buffer"]:
                assert buffer.stop <= ring(self.config) * self.lanes
                self.buffer[: self.n, buffer] = padded
            made.append(y)
        self.loads += f["event"]
        if f["to_cache"]:
            values, event = self.queues["append"].popleft()
            for row, vectors in enumerate(np.stack(made, axis=1)):
                (self.values if values else self.keys)[self.layer, self.position + row] = vectors
            self.appends += event
        assert f["zeros"] or f["to_logits"] == self.for_logits
        if f["to_logits"]:
            assert f["starts"] == (self.logits_at is None)
            assert self.logits_at in (None, f["logits"])
            assert f["logits"] % 64 == 0 or not f["starts"]
            self.logits += [y[-1] for y in made]
            self.logits_at = f["logits"] + 4 * sum(len(y.T) for y in made)
            assert f["ends"] == (sum(map(len, self.logits)) == self.image.manifest["vocab_size"])
        return pc + 1

    def _rotate(self, y, rotated, half):
        x = y[:, :rotated]
        if half:
            assert rotated % (2 * self.lanes) == 0
            partners = np.concatenate([-x[:, rotated // 2 :], x[:, : rotated // 2]], axis=1)
        else:
            partners = np.stack([-x[:, 1::2], x[:, 0::2]], axis=2).reshape(x.shape)
        cosines, sines = self.table[: self.n, 0, :rotated], self.table[: self.n, 1, :rotated]
        return np.concatenate([x * cosines + partners * sines, y[:, rotated:]], axis=1)

    def _append(self, pc, *, values, event):
        self.queues["append"].append((values, event))
        return pc + 1

    def _attend(self, pc, *, first_head, n_heads, ratio, spread, address, stride, window, factor, **f):
        assert self.appends >= f["wait"]
        self.appends -= f["wait"]
        self._wait(f["load"])
        batches = -(-ratio // self.rows) if spread else ratio
        assert n_heads * batches <= self.machine.slots
        factor, head_dim = np.uint32(factor).view(np.float32), self.image.manifest["model"]["head_dim"]
        for head in range(n_heads):
            for query in range(ratio):
                out = (f["out_address"] + (head * ratio + query) * f["out_stride"]) * self.lanes
                for row in range(self.n):
                    place, of = divmod(query, self.rows) if spread else (query, row)
                    start = (address + (head * batches + place) * stride) * self.lanes
                    last = self.position + row
                    seen = range(max(0, last + 1 - window) if window else 0, last + 1)
                    q = self.buffer[of, start : start + head_dim]
                    scores = [q @ self.keys[self.layer, p][first_head + head] * factor for p in seen]
                    powers = np.exp2(np.array(scores) - max(scores))
                    mixed = powers @ [self.values[self.layer, p][first_head + head] for p in seen] / powers.sum()
                    self.buffer[row, out : out + f["out_stride"] * self.lanes] = 0
                    self.buffer[row, out : out + head_dim] = mixed
        self.loads += f["event"]
        return pc + 1

    def _loop(self, pc, *, layers):
        self.layer, self.layers = 0, layers
        return pc + 1

    def _again(self, pc, *, target):
        self.layer += 1
        return target if self.layer < self.layers else pc + 1

    def _sync(self, pc):
        return pc + 1

    def _pages(self, pc, *, first, count, page):
        assert first + count <= self.machine.pages
        assert page == 0
        return pc + 1

    def _cache(self, pc, *, layer_words, layer_scales, **view):
        assert layer_words == view["page_words"] * view["pages"]
        assert layer_scales == view["page_scale_bytes"] * view["pages"]
        return pc + 1

    def _next(self, pc, *, target, n_eos, **eos):
        assert not any(self.queues.values())
        assert self.loads == self.appends == 0
        assert tuple(eos[f"eos{n}"] for n in range(n_eos)) == tuple(self.image.manifest["eos"])
        self.position, self.layer, self.layers = self.position + self.n, 0, 0
        self._batch()
        return target if self.position < len(self.tokens) else None

    def _end(self, pc):
        raise AssertionError("nothing leads here")


def compiled(shape, rng, machine=TINY, **options):
    checkpoint = random_checkpoint(shape, rng)
    return checkpoint, compile_model(checkpoint, machine, **{"weights": "int16"} | options)


@pytest.mark.parametrize(
    ("name", "on"),
    [(name, "as it is") for name in SHAPES] + [(name, on) for on in TIGHT for name in ("mistral", "odd words, biases")],
)
def test_program(name, on, rng):
    shape, on = SHAPES[name], TIGHT[on]
    checkpoint, image = compiled(shape, rng, on)
    tokens = rng.integers(0, shape.vocab_size, 11).tolist()
    run = Runner(image)
    run(tokens[:6])
    logits = [run(tokens[:n], n - 1) for n in (7, 8)] + [run(tokens, 8)]
    expected = Reference(checkpoint).forward(tokens)[[6, 7, 10]]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    # The first of several layers, which stands alone, is always followed; one row makes no batch of several.
    alone = [n for n, (name, _, _) in enumerate(run.program) if name == "again"][0 : shape.n_layers > 1]
    never = {n for n, (name, _, _) in enumerate(run.program) if name == "end"}
    never |= {n for n, (_, when, _) in enumerate(run.program) if when == "unfollowed" and n < max(alone, default=0)}
    if on.config.rows == 1:
        never |= {n for n, (_, when, _) in enumerate(run.program) if when == "several"}
    assert run.executed == set(range(len(run.program))) - never


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "mxfp4"},
        {"weights": "int4", "classifier": "int8", "formats": {"down": "mxfp4", "k": "int16"}},
        {"weights": "int8"},
    ],
)
def test_formats(options, rng):
    """Logits are those of a float model whose weights are the codes' own."""
    on = replace(TINY, config=replace(TINY.config, formats=("int4", "int8", "int16", "mxfp4")))
    checkpoint, image = compiled(ODD, rng, on, **options)
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.shape.tensors()}
    for name, tensor in tensors.items():
        if format := image.manifest["formats"].get(name.rpartition(".")[2]):
            tensors[name] = quantise(tensor, format, block=on.config.block_of(format)).dequantise()
    rounded = Checkpoint(shape=ODD, sources={name: tensor.__getitem__ for name, tensor in tensors.items()})
    tokens = rng.integers(0, ODD.vocab_size, 9).tolist()
    expected = Reference(rounded).forward(tokens)[-1]
    np.testing.assert_allclose(Runner(image)(tokens), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def memory_of(image):
    return Runner(image).memory


def channels_in(image, memory, name, kind):
    """The `Quantised` matrix of a region of memory."""
    config, machine = image.machine.config, image.machine
    described, (address, _) = image.manifest["matrices"][kind], image.manifest["regions"][name]
    layout = config.layout(described["format"])
    row_words = layout.row_words(described["inputs"])
    tiles = np.empty((described["tiles"], row_words, config.word_bytes), np.uint8)
    for port in range(config.groups):
        of_port = tiles[port :: config.groups]
        begin = address + port * machine.port_bytes
        of_port[:] = memory[begin : begin + of_port.size].reshape(of_port.shape)
    shape = (described["tiles"] * config.tile_channels, described["inputs"])
    return unpack(tiles, format=described["format"], shape=shape, block=layout.block, lanes=config.lanes)


def test_weights_in_memory(rng):
    formats = {"k": "int8", "down": "int16", "o": "int8"}
    checkpoint, image = compiled(SHAPES["odd words"], rng, weights="int4", classifier="int8", formats=formats)
    memory, shape = memory_of(image), checkpoint.shape
    names = [f"layers.{layer}.attention.{kind}" for layer in range(3) for kind in "qkvo"]
    names += [f"layers.{layer}.feed_forward.{kind}" for layer in range(3) for kind in ("gate", "up", "down")]
    for name in [*names, "classifier"]:
        kind = name.rpartition(".")[2]
        described = image.manifest["matrices"][kind]
        assert described["format"] == {"classifier": "int8", **formats}.get(kind, "int4")
        tensor = checkpoint.tensor(name)
        padded = np.zeros((described["tiles"] * 8, described["inputs"]), np.float32)
        rows, columns = (
            np.arange(n) if described[name] is None else np.array(described[name])
            for n, name in zip(tensor.shape, ("rows", "columns"), strict=True)
        )
        padded[np.ix_(np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0))] = tensor[
            np.ix_(rows[rows >= 0], columns[columns >= 0])
        ]
        assert np.count_nonzero(padded) == np.count_nonzero(tensor)
        expected, found = quantise(padded, described["format"], block=32), channels_in(image, memory, name, kind)
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.scales, expected.scales)
    embedding = image.manifest["regions"]["embedding"]
    floats = memory[embedding[0] : sum(embedding)].view("<f4").reshape(shape.vocab_size, -1)
    np.testing.assert_array_equal(floats[:, : shape.dim], checkpoint.tensor("embedding"))
    assert not floats[:, shape.dim :].any()


@pytest.mark.parametrize("name", SHAPES)
def test_regions(name, rng):
    _, image = compiled(SHAPES[name], rng, positions=33)
    base, regions = image.machine.data_base, image.manifest["regions"]
    places = sorted((*place, name) for name, place in regions.items())
    for (address, size, name), (following, _, other) in itertools.pairwise(places):
        assert address + size <= following, f"{name} runs into {other}"
        assert (address + size <= image.machine.port_bytes) == (address < base)
        assert size > 0
    held = np.zeros(places[-1][0] + places[-1][1], bool)
    for address, data in image.segments:
        assert not held[address : address + len(data)].any()
        held[address : address + len(data)] = True
        # Each lies in a region, or the same port's copy of one.
        at = address % image.machine.port_bytes if address < base else address
        assert any(begin <= at and at + len(data) <= begin + size for begin, size, _ in places)
    assert image.program_address % 64 == 0
    assert memory_of(image)[image.program_address :][: len(image.program)].tobytes() == image.program
    assert all(address % image.machine.config.word_bytes == 0 for address, _ in regions.values())


def test_layers_lie_apart_evenly(rng):
    shape = replace(ODD, qkv_bias=True)
    _, image = compiled(shape, rng)
    regions = image.manifest["regions"]
    decoded = [isa.decode(image.program[n : n + 64]) for n in range(0, len(image.program), 64)]
    for (name, _, fields), text in zip(decoded, image.manifest["names"], strict=True):
        if fields.get("stride") and (name == "fetch" or fields.get("index") == "layer"):
            text = text.replace(" + 1", "").replace("layers.0", "layers.*")
            unit = 16 if name == "fetch" else 1
            first = [regions[text.replace("*", str(layer))][0] for layer in range(3)]
            begin = fields["address"] * unit
            if "+ 1" in image.manifest["names"][decoded.index((name, _, fields))]:
                first = [*first[1:], regions["norm"][0]]
            assert first == [begin + layer * fields["stride"] * unit for layer in range(3)]


def test_listing_is_readable(rng):
    _, image = compiled(ODD, rng)
    lines = isa.disassemble(image.program)
    assert len(lines) == len(image.manifest["names"])
    assert any("attend   [single] n_heads=2 ratio=3 spread=1" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "machine_", "options", "says"),
    [
        ({"dim": 1032}, {}, {}, r"dim must be at most 1024, the machine's max_channels, not 1032"),
        ({"hidden_dim": 4080}, {}, {}, r"vector memory has 1024 words of 4, but .* take 12 \+ 1020 = 1032"),
        ({"hidden_dim": 4000}, {"vector_inputs": 8192}, {}, r"activation buffer has 944 .*1012 in all; buffer_inputs"),
        ({"head_dim": 9}, {}, {}, "head_dim must be even and at most 256, not 9"),
        ({"head_dim": 258, "n_heads": 2}, {}, {}, "head_dim must be even and at most 256, not 258"),
        ({}, {"slots": 2}, {}, "takes 3 slots, but the machine has 2"),
        ({}, {"positions": 32}, {"positions": 33}, "positions must be 1 to 32"),
        ({}, {}, {"positions": 0}, "positions must be 1 to 2048"),
        ({}, {"pages": 2}, {"positions": 5000}, "positions must be 1 to 2048"),
        (
            {},
            {"port_bytes": 1 << 17},
            {"positions": 2000},
            r"a port has 131072 bytes, .* ask for at most 448 positions",
        ),
        ({}, {"port_bytes": 1 << 12}, {}, "a smaller format of weights, or port_bytes of"),
        ({}, {"instructions": 32}, {}, r"the program takes \d+ instructions, but the machine holds 32"),
        ({}, {"max_rotated": 4}, {}, "rotated must be at most 4, max_rotated, not 8"),
        ({}, {"functions": ("gelu",)}, {}, "the machine has no silu"),
        ({}, {}, {"weights": "mxfp4"}, "the format of k must be one of int4, int8, int16, those of the build"),
        ({}, {}, {"formats": {"down": "int7"}}, "the format of down must be"),
        ({}, {}, {"formats": {"dawn": "int8"}}, "kinds of matrices are k, v, .* not dawn"),
        ({}, {}, {"cache": "mxfp4"}, "the cache's format must be one of int16, int8, int4"),
        ({"eos": (2, 3, 4, 5)}, {}, {}, "a program knows 4 tokens that end a text, not 5"),
        ({}, {"changes": {"activations": "bf16"}}, {}, "must be fp32, not bf16"),
        ({}, {"changes": {"buffer_inputs": 320}}, {}, "buffer has 0 words of 4 beside attention's own"),
    ],
)
def test_refuses(changes, machine_, options, says, rng):
    with pytest.raises(CompileError, match=says):
        compiled(replace(ODD, **changes), rng, machine("tiny", **machine_), **options)


def test_refuses_a_tokenizer_of_another_size(rng):
    with pytest.raises(CompileError, match="the tokenizer has 3 tokens, but the model 300"):
        compiled(ODD, rng, tokenizer=["a", "b", "c"])


@pytest.mark.parametrize("name", ["layers.1.attention.o", "embedding", "norm", "layers.2.attention.v_bias"])
def test_weights_that_are_no_numbers(name, rng):
    checkpoint = random_checkpoint(replace(ODD, qkv_bias=True), rng)
    tensor = checkpoint.tensor(name).copy()
    tensor[(5, *[0] * (tensor.ndim - 1))] = np.nan
    broken = Checkpoint(shape=checkpoint.shape, sources={**checkpoint.sources, name: tensor.__getitem__}, origin="x")
    image = compile_model(broken, TINY)
    with pytest.raises(CheckpointError, match=rf"x: {name}.*\[5.*nan"):
        list(image.pieces())


def test_angles_that_are_no_numbers(rng):
    _, image = compiled(replace(ODD, rope=Rope(rotated=8, linear=1e-310)), rng)
    with pytest.raises(CheckpointError, match="random: no angles of positions come of Rope"):
        list(image.pieces())


LLAMA2_7B = ModelShape(
    dim=4096,
    hidden_dim=11008,
    n_layers=32,
    n_heads=32,
    n_kv_heads=32,
    head_dim=128,
    vocab_size=32000,
    max_positions=4096,
    rope=Rope(rotated=128, half=True),
)
PUBLISHED = {
    "Llama 2 7B": LLAMA2_7B,
    "Llama 3 8B": replace(LLAMA2_7B, hidden_dim=14336, n_kv_heads=8, vocab_size=128256, max_positions=8192),
    "Mistral 7B": replace(LLAMA2_7B, hidden_dim=14336, n_kv_heads=8, window=4096, max_positions=32768),
    "Qwen2 7B": replace(
        LLAMA2_7B, dim=3584, hidden_dim=18944, n_layers=28, n_heads=28, n_kv_heads=4, vocab_size=152064, qkv_bias=True
    ),
    "ChatGLM2 6B": replace(
        LLAMA2_7B, hidden_dim=13696, n_layers=28, n_kv_heads=2, vocab_size=65024, qkv_bias=True, rope=Rope(rotated=64)
    ),
}


@pytest.mark.parametrize("on", ["vcu128", "vu9p"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_fit(name, on):
    shape, formats = PUBLISHED[name], dict.fromkeys(KINDS, "int4")
    plan = Plan(shape=shape, machine=machine(on), formats=formats, cache="int8", positions=shape.max_positions)
    assert plan.end_word * machine(on).config.word_bytes <= machine(on).port_bytes
    code, names = program(plan)
    assert len(code) == 64 * len(names)


def test_plan_without_weights(rng):
    """A shape alone gives the program that its checkpoint gives."""
    checkpoint, image = compiled(SHAPES["qwen2"], rng, weights="int4", cache="int8")
    plan = plan_model(checkpoint.shape, TINY, weights="int4", cache="int8")
    assert program(plan) == (image.program, image.manifest["names"])
    assert plan.positions == image.manifest["positions"]
    with pytest.raises(CompileError, match="7B: a port has 1048576 bytes, but weights take"):
        plan_model(replace(SHAPES["llama"], vocab_size=1 << 17), TINY, positions=8, origin="7B")


def test_pages_grow_where_the_table_is_short(rng):
    _, image = compiled(replace(ODD, max_positions=300), rng, replace(TINY, pages=4))
    assert image.manifest["cache"]["page_bits"] == 2
    assert image.manifest["cache"]["pages"] == 3


def test_as_many_positions_as_fit(rng):
    on = replace(TINY, port_bytes=1 << 17)
    shape = replace(ODD, max_positions=2000)
    with pytest.raises(CompileError, match="ask for at most 448 positions") as refused:
        compiled(shape, rng, on, positions=2000)
    assert refused.value.positions == 448
    checkpoint, image = compiled(shape, rng, on)
    assert image.manifest["positions"] == 448
    assert on.port_bytes - 3312 < sum(image.manifest["regions"]["layers.2.cache"]) <= on.port_bytes
    with pytest.raises(CompileError, match="ask for at most 448"):
        compile_model(checkpoint, on, weights="int16", positions=449)


def test_cuts():
    assert cuts(24, 32) == [(1, 24, 0)]
    assert cuts(64, 32) == [(2, 32, 0)]
    assert cuts(70, 32) == [(2, 32, 0), (1, 6, 64)]


@pytest.mark.parametrize("name", PRESETS)
def test_ring(name):
    assert ring(PRESETS[name]) == Attention(PRESETS[name]).ring


def test_large_model_is_never_whole_in_memory():
    """Llama 2 7B's sizes, but for the number of layers."""
    shape = replace(LLAMA2_7B, n_layers=2)
    most = 0

    def source(size, channels):
        nonlocal most
        rows = len(range(*channels.indices(size[0])))
        most = max(most, rows * int(np.prod(size[1:])))
        return np.ones((rows, *size[1:]), np.float32)

    sources = {name: partial(source, size) for name, size in shape.tensors().items()}
    checkpoint = Checkpoint(shape=shape, sources=sources, origin="ones")
    image = compile_model(checkpoint, machine("vcu128"), weights="int4", classifier="int8")
    assert image.n_bytes > 850e6
    # A part of each matrix: all of them take the same way.
    wanted = [n for n, (address, _) in enumerate(image.segments) if address < machine("vcu128").port_bytes]
    tracemalloc.start()
    for n in wanted[:: len(wanted) // 4]:
        assert np.asarray(image.segments[n][1]).any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= 11008 * 1024
    assert peak < 400e6


def test_example():
    try:
        checkpoint, pieces = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    image = compile_model(checkpoint, machine("tiny"), tokenizer=pieces)
    tokens = pieces.encode("Once upon a time, there was")
    logits = Runner(image)(tokens)
    expected = Reference(checkpoint).forward(tokens)[-1]
    assert np.argmax(logits) == np.argmax(expected)
    assert np.abs(logits - expected).max() < 0.5
