"""Attention engines with memories around them: caches of random content, and what must come of them."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.cache import CacheLayout
from edgeaccel.golden import attention as golden
from sim.system import Memory, run

__all__ = ["Sequence", "attends", "expected", "loads_of", "memories_of", "pages_of", "random_sequence", "simulate"]

CODES = {"int4": 0, "int8": 1, "int16": 2}
LARGEST = {"int4": 7, "int8": 127, "int16": 32767}


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequence:
    """A sequence in the cache.

    Attributes
    ----------
    layout : CacheLayout
    pages : list of int
    table : int
        First entry of the page table.
    keys, values : (int [positions, heads, head_dim], float16 [positions, heads])
    """

    layout: CacheLayout
    pages: list
    table: int
    keys: tuple
    values: tuple

    def view(self, n_pages, **place):
        """The fields of a cache view."""
        view = self.layout.view(table=self.table, pages=len(self.pages), n_pages=n_pages, **place)
        return view | {"format": CODES[view["format"]]}


def random_sequence(rng, layout, n_positions, pages, *, table=0):
    """A sequence of random codes that use the whole range, as if of normal vectors."""
    shape = (n_positions, layout.heads, layout.head_dim)
    largest = LARGEST[layout.format]

    def random():
        codes = np.clip(np.rint(rng.standard_normal(shape) * largest / 3), -largest, largest).astype(np.int64)
        exponents = rng.uniform(-1, 1, shape[:2]) - np.log2(largest / 3)
        return codes, np.exp2(np.rint(exponents) if layout.format == "int16" else exponents).astype(np.float16)

    return Sequence(layout=layout, pages=list(pages), table=table, keys=random(), values=random())


def memories_of(rng, sequences, n_pages, models, *, base=0):
    """Contents that hold the sequences among random bytes: (uint8 [groups, bytes], uint8 [bytes] of scales)."""
    config = sequences[0].layout.config
    words = base + n_pages * max(sequence.layout.page_words for sequence in sequences)
    entry = max(config.port_data_width // 8, config.word_bytes)
    ports = rng.integers(0, 256, (config.groups, -(-words * config.word_bytes // entry) * entry), np.uint8)
    n_scales = n_pages * max(sequence.layout.page_scale_bytes for sequence in sequences)
    scales = rng.integers(0, 256, -(-n_scales // 4096) * 4096, np.uint8)
    for each in sequences:
        each.layout.fill(ports[:, base * config.word_bytes :], scales, each.pages, each.keys, each.values)
    return ports, scales


def loads_of(config, queries, command):
    """Loads of queries [slots, rows, head_dim] for the activation buffer."""
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


def pages_of(sequences):
    """Writes of the page table."""
    index = [sequence.table + n for sequence in sequences for n in range(len(sequence.pages))]
    pages = [page for sequence in sequences for page in sequence.pages]
    return {"index": np.array(index), "page": np.array(pages), "valid": np.ones(len(pages), int)}


def attends(items):
    """Commands, (`Attend`, cache view) each, as `sim.payload.encode` takes them."""
    columns = {name: np.array([getattr(command, name) for command, _ in items]) for name in vars(items[0][0])}
    return columns | {"cache": {name: np.array([view[name] for _, view in items], np.uint64) for name in items[0][1]}}


def expected(config, sequence, command, queries):
    """Codes [slots, rows, head_dim] of what a command gives."""
    n = np.arange(command.n_heads * command.batches)
    heads = command.first_head + n // command.batches
    counts = command.counts(config)[: queries.shape[1]]

    def of_head(part, head):
        codes, scales = part
        return codes[:, head], np.ascontiguousarray(scales[:, head]).view(np.uint16)

    return np.array(
        [
            golden.attend(
                config,
                queries[slot],
                of_head(sequence.keys, head),
                of_head(sequence.values, head),
                counts=counts,
                window=command.window,
                factor=command.factor,
            )
            for slot, head in zip(n, heads, strict=True)
        ]
    )


def simulate(engine, model, commands, *, n_pages, rng, base=0, stalls=None, clocks=None, check=True, optimise="-O1"):
    """Run commands on an `AttentionEngine`, results held to the golden attention's: a `sim.system.SystemRun`.

    Parameters
    ----------
    engine : AttentionEngine
    model : sim.memory.MemoryModel
        Of each port's memory.
    commands : list of (Sequence, Attend, queries)
        Queries are FP32 codes [slots, rows, head_dim]; all commands' must find room in the buffer together.
    n_pages : int
        Of the cache.
    rng : numpy Generator
    base : int
        First word of the cache in each port.
    """
    config = engine.config
    sequences = list({id(sequence): sequence for sequence, _, _ in commands}.values())
    ports, scales = memories_of(rng, sequences, n_pages, model, base=base)
    memories = {f"m_axi_{n}": Memory(model=model, content=port) for n, port in enumerate(ports)}
    memories["m_axi_scales"] = Memory(model=model, content=scales)
    loads = [loads_of(config, queries, command) for _, command, queries in commands]
    loads = {name: np.concatenate([each[name] for each in loads]) for name in loads[0]}
    n_first = max(len(loads["address"]), sum(len(sequence.pages) for sequence in sequences)) + 1
    streams = {
        "i_loads": loads,
        "i_pages": pages_of(sequences),
        "i_attends": attends([(command, sequence.view(n_pages, base=base)) for sequence, command, _ in commands]),
    }
    of_vector = [-(-sequence.layout.head_dim // config.vector_lanes) for sequence, _, _ in commands]
    results = [expected(config, sequence, command, queries) for sequence, command, queries in commands]
    n_results = sum(len(result) * n for result, n in zip(results, of_vector, strict=True))
    late = np.concatenate([np.zeros(n_first, bool), (stalls or {}).get("i_attends", np.ones(1, bool))])
    result = run(
        engine,
        streams=streams,
        n_results=n_results,
        memories=memories,
        stalls=(stalls or {}) | {"i_attends": late, "i_loads": (), "i_pages": ()},
        clocks=clocks or dict(zip(engine.domains, (config.core_mhz, config.port_mhz), strict=False)),
        check=check,
        optimise=optimise,
    )
    given = result.results["o"]
    at = 0
    for (_, command, queries), wanted, n in zip(commands, results, of_vector, strict=True):
        slots, rows, head_dim = queries.shape
        part = slice(at, at + slots * n)
        at = part.stop
        vectors = given["elements"][part].reshape(slots, n, config.rows, -1).swapaxes(1, 2)
        vectors = vectors.reshape(slots, config.rows, -1)[:, :rows]
        np.testing.assert_array_equal(given["slot"][part], np.repeat(np.arange(slots), n))
        np.testing.assert_array_equal(given["last"][part], np.arange(slots * n) % n == n - 1)
        np.testing.assert_array_equal(vectors[..., :head_dim], wanted)
        assert not vectors[..., head_dim:].any()
        del command
    return result
