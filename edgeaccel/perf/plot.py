"""Pictures of what the cycle model says: the roofline, and where a token's cycles go, layer by layer."""

import numpy as np

from edgeaccel.perf.model import roofline
from edgeaccel.perf.report import NAMES, by_layer, by_operator

__all__ = ["draw"]


def draw(report, path):
    """Write a picture of a `Report`; the file's name says what kind.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(14, 5.5), layout="constrained")
    figure.suptitle(f"{report.name} on {report.preset}: cycle model")
    _roofline(report, axes[0])
    _layers(report, axes[1])
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _roofline(report, axes):
    performance = report.performance
    machine, memories = performance.machine, performance.memories
    formats = sorted({*performance.plan.formats.values(), performance.plan.cache})
    intensity = np.geomspace(0.2, 64, 200)
    for format in formats:
        bound = [roofline(machine, memories, format, each) / 1e9 for each in intensity]
        axes.plot(intensity, bound, label=f"bound, {format}, {machine.config.rows} rows")
    for run, marker in ((report.decode, "o"), (report.prefill, "^")):
        for n, (kind, total) in enumerate(by_operator(run).items()):
            seconds = total.cycles / performance.core_hz
            axes.plot(
                total.macs / total.bytes,
                total.macs / seconds / 1e9,
                marker,
                color=f"C{n}",
                markersize=7,
                label=kind if run is report.decode else None,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("multiply-accumulates a byte of tiles")
    axes.set_ylabel("10⁹ multiply-accumulates a second")
    axes.set_title(f"roofline: ○ token at position {report.context}, △ prompt of {report.prefill.tokens}")
    axes.legend(fontsize="small", ncols=2)
    axes.grid(alpha=0.3, which="both")


def _layers(report, axes):
    layers = by_layer(report.decode)
    labels = ["cls" if layer is None else str(layer) for layer in layers]
    bottom = np.zeros(len(labels))
    for n, kind in enumerate(NAMES):
        cycles = np.array([totals[kind].cycles if kind in totals else 0.0 for totals in layers.values()])
        axes.bar(labels, cycles, bottom=bottom, color=f"C{n}", label=kind)
        bottom += cycles
    waits = [sum(total.wait_cycles for total in totals.values()) for totals in layers.values()]
    axes.plot(labels, waits, "k.", label="of these, array waits")
    axes.set_xlabel("layer")
    axes.set_ylabel("core cycles")
    axes.set_title(f"token at position {report.context}, by layer")
    axes.tick_params(axis="x", labelsize="small")
    axes.legend(fontsize="small", ncols=3)
