"""Vector unit: elements a cycle by operator, cost, and its cycles in a layer against those of the weight stream.

Cycles are those of the golden models, which tests hold the emitted Verilog to. A layer is decoding one token with INT4
weights at a context of 2048. Its phases follow each other, each from its first beat to its last result: projections of
keys, values and queries; attention, head behind head, so that a head's output leaves while the next one's scores come;
output projection; gate and up; down. The weight stream is taken as fast as the ports can be at all, and without the KV
cache, which streams beside it.
"""

from dataclasses import dataclass

import numpy as np

from edgeaccel import vector
from edgeaccel.bench.record import Record
from edgeaccel.config import preset
from edgeaccel.cost import synthesise
from edgeaccel.golden import epilogue, norm, quantise, rotary, softmax
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.golden.two_pass import two_pass
from edgeaccel.verilog import emit

__all__ = ["MODELS", "Layer", "layer_cycles", "measure", "plot", "rates"]

SOURCE = "python -m edgeaccel.bench vector"
CONTEXT, CHUNK, MAX_LENGTH, MAX_ROTATED = 2048, 128, 4096, 128
FUNCTIONS = ("silu", "gelu")
N_VECTORS = 20
COST_LANES, COST_LENGTH = 2, 1024  # as many beats as 4096 elements of 8 lanes have
OPEN = Pattern()


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Sizes of a decoder layer with a gated feed-forward part."""

    hidden: int
    heads: int
    kv_heads: int
    head: int
    inner: int

    @property
    def matrices(self):
        """(outputs, inputs) of its matrices, by phase."""
        projections = [(n * self.head, self.hidden) for n in (self.kv_heads, self.kv_heads, self.heads)]
        return {
            "projections": projections,
            "output": [(self.hidden, self.heads * self.head)],
            "gate_up": 2 * [(self.inner, self.hidden)],
            "down": [(self.hidden, self.inner)],
        }


MODELS = {
    "llama2-7b": Layer(hidden=4096, heads=32, kv_heads=32, head=128, inner=11008),
    "qwen2-7b": Layer(hidden=3584, heads=28, kv_heads=4, head=128, inner=18944),
}


def weight_cycles(layer, config, format="int4"):
    """Cycles of the array's clock in which the ports can deliver the tiles of a layer."""
    layout = config.layout(format)
    n_words = sum(
        -(-outputs // layout.channels) * layout.row_words(inputs)
        for phase in layer.matrices.values()
        for outputs, inputs in phase
    )
    bytes_per_cycle = min(config.port_bytes_per_s, config.array_bytes_per_s) / (config.core_mhz * 1e6)
    return n_words * config.word_bytes / bytes_per_cycle


def _epilogue_cycles(lengths, lanes, **on):
    """Cycles of the epilogue for vectors that come at line rate, operands in time."""
    beats = [-(-length // lanes) for length in lengths]
    last = np.concatenate([np.arange(n) == n - 1 for n in beats])
    flags = {name: np.full(len(last), on.get(name, False)) for name in ("bias", "factors", "residual", "statistics")}
    rotated = [min(length, MAX_ROTATED) if on.get("rotated") else 0 for length in lengths]
    roles = rotary.beat_roles(lengths, rotated, [True] * len(lengths), lanes)
    streams = ("i", "i_bias", "i_table", "i_factors", "i_residual", "o", "o_statistics")
    cycles = epilogue.epilogue_cycles(
        flags | {"last": last},
        roles,
        dict.fromkeys(streams, OPEN),
        functions=FUNCTIONS,
        lanes=lanes,
        max_length=max(MAX_LENGTH, *lengths),
        max_rotated=MAX_ROTATED,
    )
    return int(max(taken[-1] for taken in cycles.values() if len(taken))) + 1


def layer_cycles(layer, config):
    """Cycles of the vector unit in a layer, by phase."""
    lanes = config.vector_lanes
    heads = [layer.head] * (layer.heads + 2 * layer.kv_heads)
    # Query heads that share a KV head are rows of the same beats.
    turns = layer.kv_heads * -(-layer.heads // (layer.kv_heads * config.rows))
    last = np.tile(np.arange(CONTEXT // lanes) == CONTEXT // lanes - 1, turns)
    scores = softmax.online_cycles(last, OPEN, OPEN, OPEN, lanes=lanes, max_length=MAX_LENGTH, chunk=CHUNK)
    last_head = _epilogue_cycles([layer.head], lanes)
    return {
        "projections": _epilogue_cycles(heads, lanes, rotated=True),
        "attention": int(max(taken[-1] for taken in scores)) + 1 + last_head,
        "output": _epilogue_cycles([layer.hidden], lanes, residual=True, statistics=True),
        "gate_up": _epilogue_cycles([layer.inner, layer.inner], lanes, factors=True),
        "down": _epilogue_cycles([layer.hidden], lanes, residual=True, statistics=True),
    }


def rates(lanes, length):
    """By operator: (elements a cycle, cycles from a vector's last beat to its last result), for vectors of a length."""
    beats = -(-length // lanes)
    last = np.tile(np.arange(beats) == beats - 1, N_VECTORS)
    sizes = {"lanes": lanes, "max_length": MAX_LENGTH}

    def two(statistic_latency, apply_latency):
        take, _, taken = two_pass(
            last, beats, OPEN, OPEN, statistic_latency=statistic_latency, apply_latency=apply_latency
        )
        return take, taken

    def single(unit, *, reduces=False):
        emits = last if reduces else None
        return pipeline_cycles(len(last), [OPEN], OPEN, latency=unit.latency, credits=unit.credits, emits=emits)

    turned = rotary.beat_roles([length] * N_VECTORS, [length] * N_VECTORS, [True] * N_VECTORS, lanes)
    take, _, taken = rotary.rotary_cycles(turned, OPEN, OPEN, OPEN, lanes=lanes, max_rotated=length)
    operators = {
        "add": single(vector.VectorAdder(lanes=lanes)),
        "multiply": single(vector.VectorMultiplier(lanes=lanes)),
        "scale": single(vector.VectorScaler(lanes=lanes)),
        "relu": single(vector.Rectifier(lanes=lanes)),
        "gelu": single(vector.VectorFunction(functions=("gelu",), lanes=lanes)),
        "silu_up": single(vector.GatedProduct(functions=("silu",), lanes=lanes)),
        "sum": single(vector.VectorSum(**sizes), reduces=True),
        "argmax": single(vector.VectorMaximum(**sizes), reduces=True),
        "top_8": single(vector.TopK(k=8, **sizes), reduces=True),
        "rms_norm": two(norm.statistics_latency(**sizes), norm.applier_latency()),
        "layer_norm": two(norm.statistics_latency(**sizes, layer=True), norm.applier_latency(layer=True)),
        "softmax": softmax.softmax_cycles(last, OPEN, OPEN, **sizes, chunk=CHUNK),
        "rotary": (take, taken),
        "quantise": two(quantise.scale_latency(lanes), quantise.applier_latency()),
    }
    first = beats - 1  # the last beat of the first vector
    return {
        name: (
            length * N_VECTORS / (take[-1] - take[0] + 1),
            int(taken[first if len(taken) == len(take) else 0] - take[first]),
        )
        for name, (take, taken) in operators.items()
    }


def _costs(progress):
    """Records of cost: units of few lanes, so that what lanes share makes the cost of a lane an upper bound."""
    sizes = {"lanes": COST_LANES, "max_length": COST_LENGTH}
    units = {
        "quantiser": vector.KVQuantiser(lanes=COST_LANES, max_length=64),
        "rotary": vector.Rotary(lanes=COST_LANES, max_length=64),
        "norm": vector.Norm(**sizes),
        "softmax": vector.Softmax(**sizes, chunk=CHUNK),
        "epilogue": vector.Epilogue(functions=("silu",), max_rotated=64, **sizes),
    }
    task = progress.add_task("synthesis", total=len(units))
    records = []
    for name, unit in units.items():
        cost = synthesise(emit(unit, "dut"), "dut")
        source = f"{SOURCE}: Yosys synth_xilinx -family xcup"
        for figure, value in (("lut", cost.luts), ("ff", cost.ff), ("dsp", cost.dsp), ("levels", cost.levels)):
            records.append(Record(f"vector.{name}.{figure}", value, "1", "estimated", source))
        records.append(Record(f"vector.{name}.lut_per_lane", cost.luts / COST_LANES, "LUT", "estimated", source))
        progress.advance(task)
    return records


def measure(progress):
    """All records of the bench."""
    config = preset("vcu128")
    lanes = config.vector_lanes
    records = []

    def add(name, value, unit, kind="simulated"):
        records.append(Record(f"vector.{name}", value, unit, kind, SOURCE))

    for name, (rate, latency) in rates(lanes, CONTEXT).items():
        add(f"{name}.elements_per_cycle", rate, "1")
        add(f"{name}.latency", latency, "cycles")
    for name, layer in MODELS.items():
        cycles = layer_cycles(layer, config)
        stream = weight_cycles(layer, config)
        for phase, value in cycles.items():
            add(f"{name}.{phase}.cycles", value, "cycles")
        add(f"{name}.weight_stream.cycles", stream, "cycles", "estimated")
        add(f"{name}.stream_share", sum(cycles.values()) / stream, "1")
    return records + _costs(progress)


def plot(records, axes):
    """Cycles of the phases of a layer, as shares of the weight stream."""
    values = {record.name: record.value for record in records}
    for n, name in enumerate(MODELS):
        left = 0
        stream = values[f"vector.{name}.weight_stream.cycles"]
        for phase, colour in zip(
            ("projections", "attention", "output", "gate_up", "down"), ["C0", "C1", "C2", "C3", "C4"], strict=True
        ):
            share = 100 * values[f"vector.{name}.{phase}.cycles"] / stream
            axes.barh(n, share, left=left, color=colour, label=phase if n == 0 else None)
            left += share
    axes.axvline(25, color="black", linestyle=":")
    axes.set(
        yticks=range(len(MODELS)),
        yticklabels=list(MODELS),
        xlabel="vector cycles, % of the weight stream's",
        title=f"Vector unit in a layer, one token, context {CONTEXT}, vcu128 (simulated)",
    )
    axes.legend()
