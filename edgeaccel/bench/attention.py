"""Attention: share of the deliverable beats that decoding a layer consumes, and what is lost between heads."""

import time

import numpy as np

from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.bench.record import Record
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden.float import encode
from edgeaccel.golden.softmax import LOG2_E
from edgeaccel.golden.units import Attend

__all__ = ["MODELS", "measure", "plot"]

SOURCE = "python -m edgeaccel.bench attention"
# Heads of keys and values, queries of each, dimensions: arXiv 2307.09288, table of the released model's configuration,
# and arXiv 2407.21783, table 3.
MODELS = {"llama2-7b": (32, 1, 128), "llama3-8b": (8, 4, 128)}
CONTEXTS = (128, 2048, 8192)
PORT_BYTES = 1 << 23  # of memory for each port, as much as the longest context needs


def simulate(config, engine, model, heads, queries, head_dim, context, *, format="int16", seed=0, **settings):
    """Decode one layer's attention on the emitted engine, results held to the golden attention: a `SystemRun`."""
    from sim import attention as bench  # the bench of this repository

    rng = np.random.default_rng(seed)
    layout = CacheLayout(config=config, heads=heads, head_dim=head_dim, format=format)
    n_pages = -(-context // layout.page_positions)
    sequence = bench.Sequence(
        layout=layout,
        pages=rng.permutation(n_pages).tolist(),
        keys=bench.random_codes(rng, layout, context),
        values=bench.random_codes(rng, layout, context),
    )
    batches = -(-queries // config.rows)
    rows = min(queries, config.rows)
    command = Attend(
        n_heads=heads,
        batches=batches,
        count=context,
        factor=int(encode(LOG2_E / np.sqrt(head_dim))),
        stride=-(-head_dim // config.vector_lanes),
        rows=rows,
    )
    vectors = encode(rng.standard_normal((heads * batches, rows, head_dim))).astype(np.uint32)
    step = bench.Asked(sequence=sequence, command=command, queries=vectors)
    return bench.simulate(engine, model, [step], n_pages=n_pages, rng=rng, check=False, **settings)


def beat_share(result, config):
    """(share, beats that could have come and did not) of the ports of the groups, from the first beat to the last."""
    ports = [result.ports[f"m_axi_{n}"] for n in range(config.groups)]
    deliverable = len(ports) * max(port.deliverable for port in ports)
    beats = sum(port.reads.beats for port in ports)
    return beats / deliverable, deliverable - beats


def measure(progress):
    """All records."""
    from sim.memory import HBM2  # the bench of this repository

    config = preset("vcu128", activations="fp32")
    engine = AttentionEngine(config, port_bytes=PORT_BYTES)
    steps = progress.add_task("attention", total=len(MODELS) * len(CONTEXTS))
    records = []
    for model, (heads, queries, head_dim) in MODELS.items():
        for context in CONTEXTS:
            progress.update(steps, description=f"{model} at {context} positions")
            start = time.perf_counter()
            result = simulate(config, engine, HBM2, heads, queries, head_dim, context)
            share, lost = beat_share(result, config)
            note = (
                f"{SOURCE}: one layer, all {heads} heads x {queries} queries, 16-bit cache, {HBM2.name},"
                f" rows={config.rows}, emitted Verilog; {time.perf_counter() - start:.0f} s"
            )
            cycles = result.cycles["o"][-1] - result.cycles["i_attends"][0]
            for name, value, unit in (
                ("beat_share", share, "1"),
                ("cycles", cycles, "cycle"),
                ("lost_beats_per_head", lost / config.groups / heads, "beat"),
            ):
                records.append(Record(f"attention.{model}.{context}.{name}", float(value), unit, "simulated", note))
            progress.update(steps, advance=1)
    return records


def plot(records, axes):
    """Share of the deliverable beats by context."""
    for model in MODELS:
        shares = [
            record.value
            for record in records
            if record.name.startswith(f"attention.{model}") and "share" in record.name
        ]
        axes.plot(CONTEXTS, shares, marker="o", label=model)
    axes.axhline(0.95, linestyle=":", color="grey")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("positions in the cache")
    axes.set_ylabel("share of the deliverable beats")
    axes.legend()
