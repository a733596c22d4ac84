"""Layers at full size: one of LLaMA2-7B on `vcu128`, one of stories110M on `vu9p`, on the emitted Verilog of the whole
machine.

Weights are random tiles. A run is whole tokens of a model of one layer and a small vocabulary: embedding, layer,
classifier, argmax. Decoding is measured from one token's end to the next one's, so all that a token takes counts; the
cache's earlier positions are filled beforehand. What is left in memory is that of the golden machine, byte for byte, or
the bench fails. A share of beats is that of all ports together over what their memories could have delivered; a share
of lanes is that of words of codes over the cycles of all groups, in which each word meets all rows, once for each set.
"""

import time
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgeaccel.bench.record import Record
from edgeaccel.bench.token import random_model, share
from edgeaccel.cache import CacheLayout
from edgeaccel.compiler import compile_model
from edgeaccel.compiler.plan import LAYER_KINDS
from edgeaccel.image import Lazy
from edgeaccel.machine import machine
from edgeaccel.perf.memory import of_machine
from edgeaccel.perf.model import Performance
from edgeaccel.perf.shapes import SHAPES
from edgeaccel.runtime.check import compare_all
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.rtl import RtlDevice

__all__ = ["CASES", "Case", "Result", "fill_cache", "measure", "plot", "run"]

SOURCE = "python -m edgeaccel.bench layer"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run: a layer of a shape, on a machine with `rows` rows in `sets` sets, weights of a format and a memory.

    `context` is that of the token that is decoded, after another one if `follows`; `prompt` are the tokens given in
    batches, from position 0, without a cache before them; 0 for decoding alone.
    """

    preset: str
    shape: str
    weights: str
    memory: str
    rows: int
    sets: int = 1
    context: int = 0
    prompt: int = 0
    follows: bool = True
    n_layers: int = 1
    vocabulary: int = 512

    @property
    def first(self):
        """Position of the first token."""
        return 0 if self.prompt else self.context - 1 - self.follows


CASES = {
    "stories110m.vu9p": Case(preset="vu9p", shape="stories110M", weights="int8", memory="ddr4", rows=1, context=256),
    "llama2-7b.decode": Case(preset="vcu128", shape="LLaMA2-7B", weights="int4", memory="hbm2", rows=1, context=1024),
    "llama2-7b.prefill": Case(
        preset="vcu128", shape="LLaMA2-7B", weights="int4", memory="hbm2", rows=4, sets=2, prompt=64
    ),
}


@dataclass(frozen=True)
class Result:
    """Figures of a run: cycles of what is measured, shares of beats and of lanes, and the cycle model's error."""

    cycles: int
    beat_share: float
    busy_share: float
    model_error: float
    cycles_per_s: float


def run(case, progress=None, **settings):
    """Run a case on the emitted Verilog, held to the golden machine; settings are those of `RtlDevice`.

    Raises
    ------
    RuntimeError
        If memories differ.
    """
    say = progress or (lambda text: None)
    built = machine(case.preset, changes={"rows": case.rows, "sets": case.sets})
    n_positions = max(case.context + 1, case.prompt + 1)
    shape = replace(SHAPES[case.shape], n_layers=case.n_layers, vocab_size=case.vocabulary, bos=None, eos=())
    say("compiling the model")
    image = random_image(shape, built, weights=case.weights, positions=n_positions)
    say("emitting and compiling the machine")
    rtl, golden = RtlDevice(built, memory=case.memory, **settings), GoldenDevice(built)
    first = case.first
    prompt = case.prompt or first + 1
    tokens = np.random.default_rng(7).integers(0, case.vocabulary, prompt).tolist()
    for device in (rtl, golden):
        say(f"loading {image.n_bytes / 1e6:.0f} MB")
        device.load(image)
        device.write_tokens(0, tokens)
    if first:
        say(f"filling {first} positions of the cache")
        fill_cache(image, (rtl, golden), first)
    say("simulating")
    limit = case.prompt or case.context
    marks, batches = [rtl.mark()], []

    def mark(batch):
        marks.append(rtl.mark())
        batches.append(batch)

    begin = time.perf_counter()
    stop = rtl.run(first, prompt, limit, on_batch=mark)
    seconds = time.perf_counter() - begin
    rtl.settle()
    say("golden machine")
    expected = golden.run(first, prompt, limit)
    place = compare_all(image, rtl, golden)
    if stop.reason != expected.reason or place:
        raise RuntimeError(f"the Verilog is not the golden machine: {stop}, {expected}, {place}")
    logits = rtl.read(image.manifest["logits"], 4 * case.vocabulary).view("<f4")
    if not np.isfinite(logits).all() or logits.std() < 1e-3:
        raise RuntimeError(f"logits with a deviation of {logits.std()} show nothing")
    counted = batches[-1:] if case.follows and not case.prompt else batches
    begin = marks[-1 - len(counted)]
    result = Result(
        cycles=marks[-1].cycles - begin.cycles,
        beat_share=share(rtl, [begin, marks[-1]]),
        busy_share=_code_words(image, case.weights, counted) / (marks[-1].cycles - begin.cycles),
        model_error=_predicted(built, shape, case, n_positions).cycles / (marks[-1].cycles - begin.cycles) - 1,
        cycles_per_s=stop.cycles / seconds,
    )
    rtl.close()
    return result


def random_image(shape, built, *, weights, positions, seed=6):
    """The image of a model whose matrices are random tiles: as `compile_model` makes it, without quantising."""
    image = compile_model(random_model(shape), built, weights=weights, cache="int16", positions=positions)
    regions, layers = image.manifest["regions"], range(shape.n_layers)
    kinds = {f"layers.{layer}.{name}": kind for layer in layers for kind, name in LAYER_KINDS.items()}
    places = [
        (*regions[name], image.manifest["matrices"][kind])
        for name, kind in (kinds | {"classifier": "classifier"}).items()
    ]
    places.sort(key=lambda place: place[0])
    begins = [place[0] for place in places]

    def segment(address, data):
        if address >= built.data_base:
            return address, data
        _, _, matrix = places[bisect_right(begins, address % built.port_bytes) - 1]
        make = partial(_random_tiles, built.config, weights, matrix["inputs"], len(data), [seed, address])
        return address, Lazy(len(data), make)

    return replace(image, segments=[segment(*each) for each in image.segments])


def _random_tiles(config, format, inputs, n_bytes, seed):
    """Rows of tiles of random codes, with random scales that leave activations as large as they are."""
    rng = np.random.default_rng(seed)
    layout = config.layout(format)
    row_words = layout.row_words(inputs)
    words = rng.integers(0, 256, (n_bytes // config.word_bytes // row_words, row_words, config.word_bytes), np.uint8)
    scale = 1 / (np.sqrt(inputs / 12) * 2 ** {"int4": 4, "int8": 8}[format])
    places = words[:, :: layout.row_words(layout.inputs)]
    scales = rng.uniform(0.5, 1.5, (*places.shape[:2], config.word_bytes // 2)) * scale
    places[:] = scales.astype("<f2").view(np.uint8)
    return words.reshape(-1)


def fill_cache(image, devices, count, *, seed=5):
    """Write random keys and values of the first `count` positions of all layers."""
    from edgeaccel.sim.attention import random_codes

    built, cache = image.machine, image.manifest["cache"]
    regions, model = image.manifest["regions"], image.manifest["model"]
    layout = CacheLayout(
        config=built.config, heads=model["n_kv_heads"], head_dim=model["head_dim"], format=cache["format"]
    )
    pages = list(range(-(-count // layout.page_positions)))
    for layer in range(model["n_layers"]):
        rng = np.random.default_rng([seed, layer])
        begin, size = regions[f"layers.{layer}.cache"]
        scales_begin, scales_size = regions[f"layers.{layer}.cache.scales"]
        ports = np.zeros((built.config.groups, size), np.uint8)
        scales = np.zeros(scales_size, np.uint8)
        layout.fill(ports, scales, pages, random_codes(rng, layout, count), random_codes(rng, layout, count))
        for device in devices:
            for n, port in enumerate(ports):
                device.write(n * built.port_bytes + begin, port)
            device.write(scales_begin, scales)


def _code_words(image, format, batches):
    """Words of codes of the matrices that each group takes for batches, on average, each as often as there are sets.

    Those of attention do not count.
    """
    config, count = image.machine.config, 0
    layout = config.layout(format)
    sets = sum(-(-batch.rows // config.rows) for batch in batches)
    for kind, matrix in image.manifest["matrices"].items():
        words = layout.row_words(matrix["inputs"]) - -(-matrix["inputs"] // layout.inputs)
        # Only batches behind which a token comes want logits, and those of a set.
        n_logits = sum(batch.token is not None for batch in batches)
        times = n_logits if kind == "classifier" else sets * image.manifest["model"]["n_layers"]
        count += times * matrix["tiles"] * words
    return count / config.groups


def _predicted(built, shape, case, positions):
    memories = of_machine(case.preset, built)
    performance = Performance(shape, built, memories, positions=positions, weights=case.weights, name=case.shape)
    return performance.prefill(case.prompt) if case.prompt else performance.decode(case.context - 1)


def measure(progress):
    """All records."""
    records = []
    task = progress.add_task("layer", total=len(CASES))
    for name, case in CASES.items():
        result = run(case, progress=lambda text, name=name: progress.update(task, description=f"{name}: {text}"))
        note = (
            f"{SOURCE}: {case.preset} with rows={case.rows}, sets={case.sets}, {case.weights}, 16-bit cache,"
            f" {case.memory}, emitted Verilog, memory equal to the golden machine's; {result.cycles_per_s:.0f} cycles/s"
        )
        for what in ("beat_share", "busy_share", "model_error"):
            records.append(Record(f"layer.{name}.{what}", getattr(result, what), "1", "simulated", note))
        records.append(Record(f"layer.{name}.cycles", float(result.cycles), "cycle", "simulated", note))
        progress.advance(task)
    return records


def plot(records, axes):
    """Shares of beats, and of lanes."""
    for offset, what in ((-0.2, "beat_share"), (0.2, "busy_share")):
        shares = [100 * record.value for record in records if record.name.endswith(what)]
        axes.barh(np.arange(len(shares)) + offset, shares, height=0.35, label=what.replace("_", " "))
    axes.set_yticks(range(len(CASES)), CASES)
    axes.set_xlabel("%")
    axes.legend()
