"""Attention: share of the deliverable beats that decoding a layer consumes, and what is lost between heads."""

import time

import numpy as np

from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.attention.writer import OUTSTANDING
from edgeaccel.bench.record import Record
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden.append import Append, append, append_cycles
from edgeaccel.golden.float import encode
from edgeaccel.golden.softmax import LOG2_E
from edgeaccel.golden.units import Attend, passes, units
from edgeaccel.perf.attention import predict
from edgeaccel.perf.matrix import PortMemory

__all__ = ["MODELS", "measure", "plot"]

SOURCE = "python -m edgeaccel.bench attention"
# Heads of keys and values, queries of each, dimensions: arXiv 2307.09288, table of the released model's configuration,
# and arXiv 2407.21783, table 3.
MODELS = {"llama2-7b": (32, 1, 128), "llama3-8b": (8, 4, 128)}
CONTEXTS = (128, 2048, 8192)
PORT_BYTES = 1 << 23  # of memory for each port, as much as the longest context needs


def decoding(config, heads, queries, head_dim, context, *, format="int16"):
    """(layout, command) of decoding a token in one layer."""
    layout = CacheLayout(config=config, heads=heads, head_dim=head_dim, format=format)
    command = Attend(
        n_heads=heads,
        batches=-(-queries // config.rows),
        count=context,
        factor=int(encode(LOG2_E / np.sqrt(head_dim))),
        stride=-(-head_dim // config.vector_lanes),
        rows=min(queries, config.rows),
    )
    return layout, command


def random_pages(layout, count, *, seed=0):
    """Pages of a sequence, in no order."""
    return np.random.default_rng(seed).permutation(-(-count // layout.page_positions)).tolist()


def simulate(config, engine, model, layout, command, pages, *, seed=0, **settings):
    """Decode one layer's attention on the emitted engine, results held to the golden attention: a `SystemRun`."""
    from edgeaccel.sim import attention as bench  # the bench of this repository

    rng = np.random.default_rng(seed)
    context = command.count
    sequence = bench.Sequence(
        layout=layout,
        pages=pages,
        keys=bench.random_codes(rng, layout, context),
        values=bench.random_codes(rng, layout, context),
    )
    shape = (command.n_heads * command.batches, command.rows, layout.head_dim)
    vectors = encode(rng.standard_normal(shape)).astype(np.uint32)
    step = bench.Asked(sequence=sequence, command=command, queries=vectors)
    settings = {"check": False, "optimise": "-O1"} | settings
    return bench.simulate(engine, model, [step], n_pages=len(pages), rng=rng, **settings)


def first_port_reads(config, layout, command, pages):
    """(address, bytes) of what the first port is asked for, in order."""
    view = layout.view(pages=len(pages), n_pages=len(pages))
    of_command = {"view": view, "factor": command.factor, "lookahead": 3 * layout.sets, "ring": 0}
    streams = passes(config, layout, units(config, layout, command, pages), **of_command)
    size = config.word_bytes
    return [(item["address"] * size, item["words"] * size) for item in streams["requests"] if item["skip"] == 0]


def beat_share(result, config):
    """(share, beats that could have come and did not) of the ports of the groups, from the first beat to the last."""
    ports = [result.ports[f"m_axi_{n}"] for n in range(config.groups)]
    deliverable = len(ports) * max(port.deliverable for port in ports)
    beats = sum(port.reads.beats for port in ports)
    return beats / deliverable, deliverable - beats


def append_records(config, model):
    """What it costs to append a position in one layer of LLaMA2-7B: cycles and traffic.

    Keys are projected before values and values before queries. Results of values come a pass of the array at a time,
    and wait in a queue; what is not written when the stream of the queries' weights has ended would be waited for.
    """
    heads, _, head_dim = MODELS["llama2-7b"]
    layout = CacheLayout(config=config, heads=heads, head_dim=head_dim)
    of_layer = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]  # outputs, inputs: as MODELS
    rate = min(1.0, config.port_data_width * config.port_mhz * model.share / (config.word_bits * config.core_mhz))

    def stream_cycles(outputs, inputs):
        tiles = -(-outputs // config.tile_channels)
        return -(-tiles // config.groups) * config.layout("int4").row_words(inputs) / rate

    names = ("k_words", "k_stride", "v_region", "v_words", "v_stride", "share_bits")
    place = {name: getattr(layout, name) for name in names} | {"format": layout.format, "inputs": head_dim}
    place |= {"rows": 1, "unit": 0, "place": 1, "page": 0, "scales": 1 << 40}

    def items_of(kind):
        vectors = np.ones((heads, 1, head_dim), np.float32).view(np.uint32)
        return append(config, PORT_BYTES, Append(kind=kind, heads=heads, **place), vectors)

    # A pass gives the values of some heads, which are written during the next pass, or behind the last.
    pass_cycles = stream_cycles(config.tile_channels * config.groups, 4096)
    n_passes = -(-heads * head_dim // (config.tile_channels * config.groups))
    command = Append(kind="v", heads=heads // n_passes, **place)
    writing = int(append_cycles(config, [command], latency=model.read_closed, outstanding=OUTSTANDING)["b"][-1])
    behind = writing + (n_passes - 1) * max(0, writing - pass_cycles)
    layer = sum(stream_cycles(*matrix) for matrix in of_layer)
    exposed = max(0, behind - stream_cycles(4096, 4096))
    useful = heads * (head_dim + 1) * 2
    note = (
        f"{SOURCE}: golden model, exact in cycles with a memory that answers after {model.read_closed}; one"
        f" position, one layer of LLaMA2-7B, 16-bit cache"
    )
    beat_bytes = config.port_data_width // 8
    n_keys, n_values = len(items_of("k")), len(items_of("v"))
    return [
        Record(f"attention.append.llama2-7b.{name}", float(value), unit, "simulated", note)
        for name, value, unit in (
            ("behind_values", behind, "cycle"),
            ("stream_of_queries", stream_cycles(4096, 4096), "cycle"),
            ("exposed_share", exposed / layer, "1"),
            ("port_share", (n_keys + n_values) * rate / (config.groups * layer), "1"),
            ("write_amplification.keys", n_keys * beat_bytes / useful, "1"),
            ("write_amplification.values", n_values * beat_bytes / useful, "1"),
        )
    ]


def measure(progress):
    """All records."""
    from edgeaccel.sim.memory import HBM2  # the bench of this repository

    config = preset("vcu128")
    engine = AttentionEngine(config, port_bytes=PORT_BYTES)
    steps = progress.add_task("attention", total=len(MODELS) * len(CONTEXTS))
    records = []
    for model, (heads, queries, head_dim) in MODELS.items():
        for context in CONTEXTS:
            progress.update(steps, description=f"{model} at {context} positions")
            start = time.perf_counter()
            layout, command = decoding(config, heads, queries, head_dim, context)
            pages = random_pages(layout, context)
            result = simulate(config, engine, HBM2, layout, command, pages)
            share, lost = beat_share(result, config)
            note = (
                f"{SOURCE}: one layer, all {heads} heads x {queries} queries, 16-bit cache, {HBM2.name},"
                f" rows={config.rows}, emitted Verilog; {time.perf_counter() - start:.0f} s"
            )
            cycles = result.cycles["o"][-1] - result.cycles["i_attends"][0]
            share_of_reads = HBM2.share_of(first_port_reads(config, layout, command, pages))
            memory = PortMemory(latency=HBM2.read_closed, share=share_of_reads)
            predicted = predict(config, layout, command, memory).last_result
            for name, value, unit in (
                ("beat_share", share, "1"),
                ("prediction_error", predicted / cycles - 1, "1"),
                ("cycles", cycles, "cycle"),
                ("lost_beats_per_head", lost / config.groups / heads, "beat"),
            ):
                records.append(Record(f"attention.{model}.{context}.{name}", float(value), unit, "simulated", note))
            progress.update(steps, advance=1)
    return records + append_records(config, HBM2)


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
