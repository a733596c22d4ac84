"""Attention engines with memories around them: what is appended and asked for, and what must come of it."""

from dataclasses import dataclass, field

import numpy as np

from edgeaccel.cache import CacheLayout
from edgeaccel.golden import append as golden_append
from edgeaccel.golden import attention as golden
from edgeaccel.golden.float import encode
from edgeaccel.golden.quantise import quantise
from edgeaccel.golden.softmax import LOG2_E
from edgeaccel.golden.units import Attend
from edgeaccel.sim.system import Memory, run

__all__ = [
    "Appended",
    "Asked",
    "Asker",
    "Sequence",
    "beats",
    "columns",
    "loads",
    "random_codes",
    "random_vectors",
    "simulate",
    "view_of",
]

CODES = {"int4": 0, "int8": 1, "int16": 2}
LARGEST = {"int4": 7, "int8": 127, "int16": 32767}


@dataclass(kw_only=True, eq=False)
class Sequence:
    """A sequence in the cache; keys and values grow as it is appended to.

    Attributes
    ----------
    layout : CacheLayout
    pages : list of int
    table : int
        First entry of the page table.
    keys, values : (int [positions, heads, head_dim], FP16 codes [positions, heads])
        What is there from the beginning; nothing by default.
    """

    layout: CacheLayout
    pages: list
    table: int = 0
    keys: tuple = None
    values: tuple = None

    def __post_init__(self):
        shape = (0, self.layout.heads, self.layout.head_dim)
        empty = (np.zeros(shape, np.int64), np.zeros(shape[:2], np.uint16))
        self.keys, self.values = self.keys or empty, self.values or empty

    def append(self, step):
        """Positions as the golden quantiser has them."""
        for name, vectors in (("keys", step.keys), ("values", step.values)):
            codes, scales = zip(
                *(quantise(row, self.layout.format) for row in vectors.reshape(-1, vectors.shape[2])), strict=True
            )
            shape = vectors.shape[:2]
            codes = np.array(codes).reshape(*shape, -1).swapaxes(0, 1)
            before = getattr(self, name)
            scales = np.array(scales, np.uint16).reshape(shape).T
            setattr(self, name, (np.concatenate([before[0], codes]), np.concatenate([before[1], scales])))


@dataclass(frozen=True, kw_only=True, eq=False)
class Appended:
    """Keys and values, FP32 codes [heads, rows, head_dim], at the end of a sequence."""

    sequence: Sequence
    keys: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Queries, FP32 codes [slots, rows, head_dim], to a sequence as it is after all steps before."""

    sequence: Sequence
    command: Attend
    queries: np.ndarray


def random_codes(rng, layout, n_positions):
    """Keys or values for a sequence that need no quantising, as if of normal vectors."""
    shape = (n_positions, layout.heads, layout.head_dim)
    largest = LARGEST[layout.format]
    codes = np.clip(np.rint(rng.standard_normal(shape) * largest / 3), -largest, largest).astype(np.int64)
    exponents = rng.uniform(-1, 1, shape[:2]) - np.log2(largest / 3)
    scales = np.exp2(np.rint(exponents) if layout.format == "int16" else exponents).astype(np.float16)
    return codes, scales.view(np.uint16)


def random_vectors(rng, *shape):
    """FP32 codes of normal numbers, a few of them large."""
    numbers = rng.standard_normal(shape) * np.where(rng.random(shape) < 0.02, 30, 1)
    return encode(numbers).astype(np.uint32)


class Asker:
    """Makes `Asked` with random queries, which follow each other in the buffer."""

    def __init__(self, rng):
        self.rng, self.address = rng, 0

    def ask(self, sequence, ratio, count, *, rows=None, **fields):
        """All heads; `ratio` queries of each, over the rows unless rows are tokens; `fields` are those of `Attend`."""
        layout, config = sequence.layout, sequence.layout.config
        batches = ratio if rows else -(-ratio // config.rows)
        rows = rows or min(ratio, config.rows)
        stride = -(-layout.head_dim // config.vector_lanes)
        command = Attend(
            n_heads=layout.heads,
            batches=batches,
            count=count,
            factor=int(encode(LOG2_E / np.sqrt(layout.head_dim))),
            address=self.address,
            stride=stride,
            rows=rows,
            **fields,
        )
        slots = layout.heads * batches
        self.address += slots * stride
        queries = random_vectors(self.rng, slots, rows, layout.head_dim)
        return Asked(sequence=sequence, command=command, queries=queries)


def view_of(sequence, **place):
    """A sequence's cache view as `edgeaccel.sim.payload.encode` takes it; `place` is for `CacheLayout.view`."""
    view = sequence.layout.view(table=sequence.table, pages=len(sequence.pages), **place)
    return view | {"format": CODES[view["format"]]}


@dataclass(kw_only=True)
class _Streams:
    """What goes into the engine, and what must come out of it and be in memory."""

    n_pages: int
    base: int
    scales: int
    loads: list = field(default_factory=list)
    appends: list = field(default_factory=list)
    vectors: list = field(default_factory=list)
    attends: list = field(default_factory=list)
    results: list = field(default_factory=list)
    written: list = field(default_factory=list)

    def view(self, sequence):
        return view_of(sequence, n_pages=self.n_pages, base=self.base, scales=self.scales)

    def append(self, config, port_bytes, step, *, event):
        sequence, layout = step.sequence, step.sequence.layout
        heads, rows, head_dim = step.keys.shape
        position = len(sequence.keys[0])
        index, chunk = divmod(position // layout.chunk, 1 << layout.page_bits)
        page = sequence.pages[index]
        for kind, vectors in (("k", step.keys), ("v", step.values)):
            command = {"cache": self.view(sequence), "position": position, "rows": rows}
            self.appends.append(command | {"values": kind == "v", "event": event and kind == "v"})
            self.vectors += list(vectors.reshape(heads * rows, head_dim))
            fields = ("k_words", "k_stride", "v_region", "v_words", "v_stride", "share_bits")
            place = golden_append.Append(
                kind=kind,
                format=layout.format,
                rows=rows,
                heads=heads,
                inputs=head_dim,
                unit=chunk * heads,
                place=position % layout.chunk,
                page=self.base + page * layout.page_words,
                scales=self.scales + page * layout.page_scale_bytes,
                **{name: getattr(layout, name) for name in fields},
            )
            self.written += golden_append.append(config, port_bytes, place, vectors)
        sequence.append(step)

    def ask(self, config, step, *, wait):
        sequence, command, queries = step.sequence, step.command, step.queries
        fields = {name: getattr(command, name) for name in vars(command)} | {"wait": wait}
        self.attends.append(fields | {"cache": self.view(sequence)})
        self.loads.append(loads(config, queries, command))
        counts = command.counts(config)[: queries.shape[1]]
        assert counts.max() <= len(sequence.keys[0]), "positions must have been appended"
        for slot, query in enumerate(queries):
            head = command.first_head + slot // command.batches
            keys, values = ((codes[:, head], scales[:, head]) for codes, scales in (sequence.keys, sequence.values))
            limits = {"counts": counts, "window": command.window, "factor": command.factor}
            self.results.append((slot, golden.attend(config, query, keys, values, **limits)))


def loads(config, queries, command):
    """Loads of queries for the activation buffer."""
    slots, rows, head_dim = queries.shape
    lanes = config.vector_lanes
    n_words = -(-head_dim // lanes)
    padded = np.zeros((slots, config.rows, n_words * lanes), np.uint32)
    padded[:, :rows, :head_dim] = queries
    addresses = command.address + np.arange(slots)[:, None] * command.stride + np.arange(n_words)
    n = slots * n_words
    return {
        "address": addresses.ravel(),
        "elements": padded.reshape(slots, config.rows, n_words, lanes).swapaxes(1, 2).reshape(n, config.rows, lanes),
        "rows": np.full(n, (1 << config.rows) - 1),
        "event": np.zeros(n),
    }


def columns(items):
    """Dicts, nested perhaps, as a dict of arrays: what `edgeaccel.sim.payload.encode` takes."""
    return {
        name: columns([item[name] for item in items])
        if isinstance(items[0][name], dict)
        else np.array([item[name] for item in items])
        for name in items[0]
    }


def beats(vectors, lanes):
    """Vectors of any lengths as beats."""
    elements, keep, last = [], [], []
    for vector in vectors:
        n = -(-len(vector) // lanes)
        elements.append(np.pad(vector, (0, n * lanes - len(vector))).reshape(n, lanes))
        keep.append((np.arange(n * lanes).reshape(n, lanes) < len(vector)) @ (1 << np.arange(lanes)))
        last.append(np.arange(n) == n - 1)
    return {"elements": np.concatenate(elements), "keep": np.concatenate(keep), "last": np.concatenate(last)}


def simulate(engine, model, steps, *, n_pages, rng, base=0, stalls=None, check=True, optimise="-O0"):
    """Run steps on an `AttentionEngine`, results and all of the memory held to the golden model: a `SystemRun`.

    Parameters
    ----------
    engine : AttentionEngine
    model : edgeaccel.sim.memory.MemoryModel
        Of each port's memory.
    steps : list of Appended and Asked
        An `Asked` waits for all that was appended before. The queries of all must find room in the buffer together.
    n_pages : int
        Of the cache.
    rng : numpy Generator
        For what else is in memory.
    base : int
        First word of the cache in each port.
    """
    config, port_bytes = engine.config, engine.port_bytes
    sequences = list({id(step.sequence): step.sequence for step in steps}.values())
    words = base + n_pages * max(sequence.layout.page_words for sequence in sequences)
    if words * config.word_bytes > port_bytes:
        raise ValueError(f"{words} words of {config.word_bytes} bytes must find room in {port_bytes} bytes of a port")
    begin = config.groups * port_bytes
    n_scales = n_pages * max(sequence.layout.page_scale_bytes for sequence in sequences)
    memory = rng.integers(0, 256, begin + -(-n_scales // 4096) * 4096, np.uint8)
    ports = memory[:begin].reshape(config.groups, port_bytes)
    for sequence in sequences:
        layout = sequence.layout
        own = [(codes, scales.view(np.float16)) for codes, scales in (sequence.keys, sequence.values)]
        layout.fill(ports[:, base * config.word_bytes :], memory[begin:], sequence.pages, *own)

    streams = _Streams(n_pages=n_pages, base=base, scales=begin)
    pending = False
    for n, step in enumerate(steps):
        if isinstance(step, Appended):
            event = n + 1 == len(steps) or isinstance(steps[n + 1], Asked)
            streams.append(config, port_bytes, step, event=event)
            pending = True
        else:
            streams.ask(config, step, wait=pending)
            pending = False
    expected = memory.copy() if streams.written else None
    for item in streams.written:
        mask = np.array([(item.nibbles >> 2 * n) & 3 for n in range(len(item.data))])
        keep = np.array([0xFF, 0xF0, 0x0F, 0x00], np.uint8)[mask]
        part = expected[item.address : item.address + len(item.data)]
        part[:] = (part & keep) | (np.frombuffer(item.data, np.uint8) & ~keep)

    lanes = config.vector_lanes
    pages = [(sequence.table + n, page) for sequence in sequences for n, page in enumerate(sequence.pages)]
    inputs = {"i_pages": {"index": [n for n, _ in pages], "page": [n for _, n in pages], "valid": [1] * len(pages)}}
    inputs["i_loads"] = {name: np.concatenate([each[name] for each in streams.loads]) for name in streams.loads[0]}
    inputs["i_attends"] = columns(streams.attends)
    if streams.appends:
        inputs |= {"i_appends": columns(streams.appends), "i_vectors": beats(streams.vectors, lanes)}
    n_first = max(len(inputs["i_loads"]["address"]), len(pages)) + 1
    n_results = sum(-(-result.shape[1] // lanes) for _, result in streams.results)
    memories = {
        f"m_axi_{n}": Memory(model=model, content=memory[n * port_bytes : (n + 1) * port_bytes])
        for n in range(config.groups)
    }
    memories |= {name: Memory(model=model, content=memory) for name in ("m_axi_scales", "m_axi_cache")}
    stalls = {name: pattern for name, pattern in (stalls or {}).items() if name not in ("i_loads", "i_pages")}
    for name in ("i_attends", "i_appends"):
        # Queries and pages are there before what needs them.
        stalls[name] = np.concatenate([np.zeros(n_first, bool), stalls.get(name, np.ones(1, bool))])
    result = run(
        engine,
        streams=inputs,
        n_results=n_results,
        memories=memories,
        stalls=stalls,
        clocks=dict(zip(engine.domains, (config.core_mhz, config.port_mhz), strict=False)),
        domains={"m_axi_cache": engine.domains[0]},
        check=check,
        optimise=optimise,
    )
    assert not result.outputs["error"]["valid"], result.outputs["error"]
    _compare(config, result.results["o"], streams.results)
    if expected is not None:
        np.testing.assert_array_equal(memory, expected)
    return result


def _compare(config, given, results):
    at = 0
    for slot, wanted in results:
        rows, head_dim = wanted.shape
        n = -(-head_dim // config.vector_lanes)
        part = slice(at, at + n)
        at = part.stop
        vectors = given["elements"][part].swapaxes(0, 1).reshape(config.rows, -1)[:rows]
        np.testing.assert_array_equal(given["slot"][part], slot)
        np.testing.assert_array_equal(given["last"][part], np.arange(n) == n - 1)
        np.testing.assert_array_equal(vectors[:, :head_dim], wanted)
        assert not vectors[:, head_dim:].any()
