"""Whole tokens on the emitted Verilog of `tiny`: cycles, share of the memory, and what the text is worth.

`story` is stories260K, `edgeaccel.checkpoint.example`, with a 16-bit cache, one token after the other; `large` a
random model whose layers are large against the array. The cycle model is `edgeaccel.perf.token`, over a whole run.
Perplexity is that of the golden model, which the golden machine and the Verilog equal bit for bit, over the tokens that
the model gives greedily in float32.
"""

import time

import numpy as np

from edgeaccel.bench.record import Record
from edgeaccel.checkpoint import Checkpoint, ModelShape, Rope, example
from edgeaccel.compiler import compile_model
from edgeaccel.golden.model import Model
from edgeaccel.golden.reference import Reference, agreement, greedy, perplexity
from edgeaccel.isa import INSTRUCTION_BYTES, decode
from edgeaccel.machine import machine
from edgeaccel.perf.matrix import PortMemory
from edgeaccel.perf.token import predict
from edgeaccel.runtime.rtl import MEMORIES, RtlDevice
from edgeaccel.soc.soc import SoC

__all__ = ["LARGE", "measure", "plot", "port_memory", "predicted", "random_model", "run_tokens", "share"]

SOURCE = "python -m edgeaccel.bench token"
N_TOKENS, N_PERPLEXITY = 200, 150
LARGE = ModelShape(
    dim=512,
    hidden_dim=1376,
    n_heads=16,
    n_kv_heads=8,
    head_dim=32,
    n_layers=2,
    vocab_size=512,
    max_positions=256,
    rope=Rope(rotated=32),
)


def random_model(shape, seed=6):
    """A checkpoint of normal weights, scaled so that activations stay as large as they are."""

    def source(name, size):
        def read(channels):
            rng = np.random.default_rng([seed, *name.encode()])
            made = rng.standard_normal(size) / np.sqrt(size[-1]) if len(size) > 1 else rng.uniform(0.5, 1.5, size)
            return made.astype(np.float32)[channels]

        return read

    return Checkpoint(shape=shape, sources={n: source(n, size) for n, size in shape.tensors().items()}, origin="random")


def run_tokens(device, image, tokens, limit):
    """Decode from some tokens on: (Stop, seconds, marks of the ports after each batch)."""
    device.load(image)
    device.write_tokens(0, tokens)
    marks = []
    begin = time.perf_counter()
    stop = device.run(0, len(tokens), limit, on_batch=lambda batch: marks.append(device.mark()))
    return stop, time.perf_counter() - begin, marks


def share(device, marks):
    """Share of the beats that the ports of the array could deliver between the first mark and the last."""
    ports = [port for port in device.traffic(since=marks[0], until=marks[-1]).values() if port["is_array"]]
    return sum(port["beats_read"] for port in ports) / sum(port["deliverable"] for port in ports)


def predicted(built, image, memory, limit):
    """Cycles of all tokens of a run from one given token on, by the cycle model."""
    size = INSTRUCTION_BYTES
    program = [decode(image.program[n : n + size]) for n in range(0, len(image.program), size)]
    return sum(predict(built, program, memory, position=n, rows=1, last=True).cycles for n in range(limit))


def port_memory(name, width):
    """A memory of `edgeaccel.runtime.rtl.MEMORIES` behind ports of some bits, as the cycle model takes it."""
    model = MEMORIES[name].with_width(width)
    return PortMemory(latency=model.read_hit, share=model.share)


def measure(progress):
    task = progress.add_task("compiling the machine", total=4)
    built = machine("tiny")
    soc = SoC(built)
    device = RtlDevice(built, component=soc)
    progress.update(task, advance=1, description="telling a story")
    records = []

    def record(name, value, unit, kind="simulated"):
        records.append(Record(name, float(value), unit, kind, SOURCE))

    checkpoint = _story()
    if checkpoint is not None:
        tokens = greedy(Reference(checkpoint), [1], N_TOKENS)
        for weights, cache in (("int8", "int16"), ("int4", "int16")):
            image = compile_model(checkpoint, built, weights=weights, cache=cache)
            stop, seconds, marks = run_tokens(device, image, [1], N_TOKENS)
            name = f"story.{weights}"
            record(f"{name}.cycles_per_token", stop.cycles / N_TOKENS, "cycles")
            record(f"{name}.beat_share", share(device, marks), "1")
            model = predicted(built, image, port_memory("ideal", built.config.port_data_width), N_TOKENS)
            record(f"{name}.model_error", model / stop.cycles - 1, "1")
            record(f"{name}.cycles_per_s", stop.cycles / seconds, "cycles/s", "measured")
            record(f"{name}.tokens_per_s", N_TOKENS / seconds, "tokens/s", "measured")
            given = device.read_tokens(1, N_TOKENS)
            equal = next((n for n, pair in enumerate(zip(given, tokens, strict=False)) if pair[0] != pair[1]), N_TOKENS)
            record(f"{name}.equal_tokens", equal, "tokens")
            quantised = Model(checkpoint, built.config, weights=weights, cache=cache, folded=False)
            logits = quantised.forward([1, *tokens[: N_PERPLEXITY - 1]])
            record(f"{name}.perplexity", perplexity(logits, tokens[:N_PERPLEXITY]), "1")
            record(f"{name}.agreement", agreement(logits, tokens[:N_PERPLEXITY]), "tokens")
    progress.update(task, advance=1, description="large layers")
    for weights in ("int8", "int4"):
        image = compile_model(random_model(LARGE), built, weights=weights, cache="int16")
        for memory in ("ideal", "hbm2"):
            timed = RtlDevice(built, component=soc, memory=memory)
            stop, _, marks = run_tokens(timed, image, [1], 4)
            record(f"large.{weights}.{memory}.beat_share", share(timed, marks), "1")
            model = predicted(built, image, port_memory(memory, built.config.port_data_width), 4)
            record(f"large.{weights}.{memory}.model_error", model / stop.cycles - 1, "1")
            timed.close()
        progress.advance(task)
    return records


def _story():
    try:
        return example.load()[0]
    except FileNotFoundError:
        return None


def plot(records, axes):
    shares = [record for record in records if record.name.endswith("beat_share")]
    axes.barh([record.name.removesuffix(".beat_share") for record in shares], [100 * record.value for record in shares])
    axes.axvline(90, color="gray", linestyle=":")
    axes.set_xlabel("share of the beats that memory can deliver over whole tokens, %")
