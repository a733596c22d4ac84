"""Cycle model of the whole attention engine against the emitted Verilog: every transfer, cycle for cycle."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden.attention_cycles import attention_cycles
from edgeaccel.golden.float import encode
from edgeaccel.golden.softmax import LOG2_E
from edgeaccel.golden.units import Attend
from edgeaccel.sim import attention as sim
from edgeaccel.sim.attention import Appended, Asked, Sequence, random_codes
from edgeaccel.sim.memory import HBM2, IDEAL, Channel

CONFIG = preset("tiny", buffer_inputs=32768)
MEMORY = replace(IDEAL, data_width=CONFIG.port_data_width)
SLOW_MEMORY = replace(HBM2, data_width=CONFIG.port_data_width)
PORT_BYTES = 1 << 19
FORMATS = ("int4", "int8", "int16")  # by their codes


@pytest.fixture(scope="module")
def engine():
    return AttentionEngine(CONFIG, slots=16, entries=64, port_bytes=PORT_BYTES)


def generator(seed):
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def rows_of(columns):
    """The commands of a stream of the bench, with formats by name."""
    if not columns:
        return []
    first = next(iter(columns.values()))
    n = len(first if not isinstance(first, dict) else next(iter(first.values())))
    return [SimpleNamespace(**{name: _item(name, each, k) for name, each in columns.items()}) for k in range(n)]


def _item(name, values, k):
    if isinstance(values, dict):
        return SimpleNamespace(**{each: _item(each, of, k) for each, of in values.items()})
    return FORMATS[values[k]] if name == "format" else int(values[k])


def compare(monkeypatch, engine, model, steps, **settings):
    """Run steps on the Verilog, and hold the golden cycles of all streams and memories to it."""
    bench = {}

    def recorded(component, **inputs):
        bench.update(inputs)
        return bench["run"](component, **inputs)

    bench["run"] = sim.run
    monkeypatch.setattr(sim, "run", recorded)
    result = sim.simulate(engine, model, steps, **settings)
    monkeypatch.undo()
    streams, config = bench["streams"], engine.config
    names = [*(f"m_axi_{n}" for n in range(config.groups)), "m_axi_scales", "m_axi_cache"]
    timing = attention_cycles(
        config,
        {name: Channel(model) for name in names},
        bursts=model.outstanding,
        pages=list(zip(streams["i_pages"]["index"], streams["i_pages"]["page"], strict=True)),
        loads=list(streams["i_loads"]["event"]),
        appends=rows_of(streams.get("i_appends")),
        vectors=list(streams.get("i_vectors", {"last": ()})["last"]),
        attends=rows_of(streams["i_attends"]),
        stalls=bench["stalls"],
        port_bytes=engine.port_bytes,
    )
    for name, cycles in timing.streams.items():
        np.testing.assert_array_equal(cycles, result.cycles[name], err_msg=name)
    np.testing.assert_array_equal(timing.answers, result.ports["m_axi_cache"].writes.cycles)
    for name in names:
        asked = [
            tuple(int(burst[part]) for part in ("cycle", "address", "beats"))
            for burst in result.ports[name].reads.bursts
        ]
        assert timing.reads[name] == asked, name
    return timing, result


def vectors(rng, *shape):
    return encode(rng.standard_normal(shape)).astype(np.uint32)


def layout_of(heads, head_dim, format, **changes):
    return CacheLayout(config=CONFIG, heads=heads, head_dim=head_dim, format=format, **changes)


def filled(rng, layout, n_positions):
    n_pages = -(-n_positions // layout.page_positions)
    keys, values = (random_codes(rng, layout, n_positions) for _ in range(2))
    return Sequence(layout=layout, pages=rng.permutation(n_pages).tolist(), keys=keys, values=values)


class Asker:
    """Makes commands whose queries follow each other in the buffer."""

    def __init__(self, rng):
        self.rng, self.address = rng, 0

    def ask(self, sequence, ratio, count, *, rows=None, **fields):
        """All heads; `ratio` queries of each, over the rows unless rows are tokens."""
        layout = sequence.layout
        batches = ratio if rows else -(-ratio // CONFIG.rows)
        rows = rows or min(ratio, CONFIG.rows)
        stride = -(-layout.head_dim // CONFIG.vector_lanes)
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
        return Asked(sequence=sequence, command=command, queries=vectors(self.rng, slots, rows, layout.head_dim))


@pytest.mark.parametrize("count", [1, 33])
def test_one(monkeypatch, engine, count):
    rng = generator(count)
    sequence = filled(rng, layout_of(2, 8, "int16"), count)
    compare(monkeypatch, engine, MEMORY, [Asker(rng).ask(sequence, 1, count)], n_pages=len(sequence.pages) + 1, rng=rng)
