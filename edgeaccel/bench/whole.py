"""A whole token of LLaMA2-7B's shape, all layers and the classifier, on the emitted Verilog of `vcu128`.

Matrices are random INT4 tiles, the cache's earlier positions random too; everything that the token leaves in memory is
held to the golden machine. The machine is built with one row, which is what decoding uses of any.
"""

import time

from edgeaccel.bench.layer import Case, run
from edgeaccel.bench.record import Record
from edgeaccel.perf.shapes import SHAPES

__all__ = ["CASE", "measure", "plot"]

SOURCE = "python -m edgeaccel.bench whole"
CASE = Case(
    preset="vcu128",
    shape="LLaMA2-7B",
    weights="int4",
    memory="hbm2",
    rows=1,
    context=512,
    follows=False,
    n_layers=SHAPES["LLaMA2-7B"].n_layers,
    vocabulary=SHAPES["LLaMA2-7B"].vocab_size,
)


def measure(progress):
    """All records."""
    task = progress.add_task("whole token", total=1)
    start = time.perf_counter()
    result = run(CASE, lambda text: progress.update(task, description=text))
    minutes = (time.perf_counter() - start) / 60
    progress.advance(task)
    note = (
        f"{SOURCE}: {CASE.n_layers} layers, context of {CASE.context}, INT4, 16-bit cache, HBM2, rows={CASE.rows},"
        f" emitted Verilog, memory equal to the golden machine's; {result.cycles_per_s:.0f} cycles/s"
    )
    simulated = (("beat_share", "1"), ("model_error", "1"), ("cycles", "cycle"))
    records = [
        Record(f"whole.llama2-7b.{name}", float(getattr(result, name)), unit, "simulated", note)
        for name, unit in simulated
    ]
    return [*records, Record("whole.llama2-7b.minutes", minutes, "min", "measured", note)]


def plot(records, axes):
    """The token's time, and what memory alone would have taken."""
    values = {record.name.rsplit(".", 1)[1]: record.value for record in records}
    axes.barh(["token", "memory alone"], [values["cycles"], values["cycles"] * values["beat_share"]])
    axes.set_xlabel("cycles")
