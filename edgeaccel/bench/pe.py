"""Processing elements: error of dot products by mantissa width, and cost by formats.

The error is that of the arithmetic, not of quantising weights: the reference multiplies the same FP16 activations by
the same INT4 weights, or FP16 by FP16, in float64. Mean magnitude of the error over the mean magnitude of the results.
"""

import numpy as np

from edgeaccel.cost import synthesise
from edgeaccel.formats import FORMATS
from edgeaccel.golden import float as golden_float
from edgeaccel.golden.pe import align
from edgeaccel.pe import FP16, Accumulator, BlockAligner, GroupDatapath, Scaler
from edgeaccel.pe.lane import MANTISSA_BITS
from edgeaccel.quantise import quantise
from edgeaccel.verilog import emit

__all__ = ["dot_products", "measure", "plot"]

from edgeaccel.bench.record import Record

SOURCE = "python -m edgeaccel.bench pe"
N_PRODUCTS, LENGTH = 20_000, 128
LANES = 128
SUBSETS = (
    ("int4",),
    ("int8",),
    ("int16",),
    ("mxfp4",),
    ("int4", "int8"),
    ("int4", "int16"),
    ("int4", "int8", "int16"),
    ("int4", "int8", "int16", "mxfp4"),
)
HEADLINE = ("int4", "int8", "int16")
EDGELLM = "EdgeLLM, IEEE TCAS-I 2025, arXiv 2407.21325: 0.0472% and 0.0044%"


def dot_products(activations, weights, format, mantissa_bits):
    """Dot products of rows as the processing elements make them, and in float64: (float32 array, float64 array).

    `activations` are float16, `weights` are quantised to `format` first; for "int16" the reference keeps them as they
    are, because aligning them is part of the arithmetic.
    """
    quantised = quantise(weights, format, block=LENGTH)
    elements = FORMATS[format].elements(quantised.codes).astype(np.int64)
    kept = weights if format == "int16" else quantised.dequantise()
    exact = (activations.astype(np.float64) * kept.astype(np.float64)).sum(axis=1)
    aligned = [align(row.astype(np.float64), "fp16", mantissa_bits) for row in activations]
    mantissas = np.stack([mantissa for mantissa, _, _ in aligned])
    exponents = np.array([exponent for _, exponent, _ in aligned])
    codes = golden_float.scale((mantissas * elements).sum(axis=1), quantised.scales[:, 0].view(np.uint16), exponents)
    return codes.astype(np.uint32).view(np.float32), exact


def _errors(progress):
    """Records of errors: one by format, data and width, and the two that count."""
    rng = np.random.default_rng(2407)
    shape = (N_PRODUCTS, LENGTH)
    normal = rng.standard_normal(shape).astype(np.float16)
    outliers = (normal * np.where(rng.random(shape) < 0.01, 50, 1)).astype(np.float16)
    weights = rng.standard_normal(shape).astype(np.float16)
    task = progress.add_task("dot products", total=4 * len(MANTISSA_BITS))
    records = []
    for name, format in (("int4", "int4"), ("fp16", "int16")):
        for data, activations in (("normal", normal), ("outliers", outliers)):
            for mantissa_bits in MANTISSA_BITS:
                result, exact = dot_products(activations, weights, format, mantissa_bits)
                error = np.abs(result - exact).mean() / np.abs(exact).mean()
                records.append(Record(f"pe.error.{name}.{data}.{mantissa_bits}_bits", error, "1", "simulated", SOURCE))
                if (data, mantissa_bits) == ("normal", 16):
                    records.append(Record(f"pe.error.{name}", error, "1", "simulated", SOURCE))
                progress.advance(task)
    return records


def _costs(progress):
    """Records of cost: the group datapath by formats, then the units that a group has one of."""
    groups = {formats: GroupDatapath(lanes=LANES, formats=formats) for formats in SUBSETS}
    units = {
        "block_aligner": BlockAligner(format=FP16),
        "scaler": Scaler(groups[HEADLINE].sum_width),
        "accumulator": Accumulator(),
    }
    task = progress.add_task("synthesis", total=len(SUBSETS) + len(units))
    records = []

    def add(name, value, unit):
        records.append(Record(name, value, unit, "estimated", f"{SOURCE}: Yosys synth_xilinx -family xcup"))

    for formats, group in groups.items():
        cost = synthesise(emit(group, "dut"), "dut")
        name = f"pe.group.{'+'.join(formats)}"
        for figure, value in (("lut", cost.luts), ("ff", cost.ff), ("dsp", cost.dsp), ("levels", cost.levels)):
            add(f"{name}.{figure}", value, "1")
        add(f"{name}.lut_per_lane", cost.luts / LANES, "LUT")
        if formats == HEADLINE:
            add("pe.lut_per_lane", cost.luts / LANES, "LUT")
            add("pe.dsp_per_int4_product", cost.dsp / LANES, "DSP48E2")
        progress.advance(task)
    for name, unit in units.items():
        cost = synthesise(emit(unit, "dut"), "dut")
        for figure, value in (("lut", cost.luts), ("ff", cost.ff), ("dsp", cost.dsp), ("levels", cost.levels)):
            add(f"pe.{name}.{figure}", value, "1")
        progress.advance(task)
    return records


def measure(progress):
    """All records of the bench."""
    reported = [
        Record("edgellm.error.int4", 0.000472, "1", "reported", EDGELLM),
        Record("edgellm.error.fp16", 0.000044, "1", "reported", EDGELLM),
    ]
    return _errors(progress) + reported + _costs(progress)


def plot(records, axes):
    """Error by mantissa width, with EdgeLLM's as lines."""
    values = {record.name: record.value for record in records}
    for name, label, colour in (("int4", "FP16 x INT4", "tab:blue"), ("fp16", "FP16 x FP16", "tab:orange")):
        for data, style in (("normal", "o-"), ("outliers", "s--")):
            errors = [values[f"pe.error.{name}.{data}.{bits}_bits"] for bits in MANTISSA_BITS]
            title = f"{label}, {'normal' if data == 'normal' else '1% outliers of x50'}"
            axes.semilogy(MANTISSA_BITS, errors, style, color=colour, label=title)
        axes.axhline(values[f"edgellm.error.{name}"], color=colour, linestyle=":", label=f"{label}, EdgeLLM (reported)")
    axes.set(
        xlabel="mantissa bits",
        ylabel="mean error / mean magnitude",
        title=f"Error of {N_PRODUCTS} dot products of {LENGTH} (simulated)",
    )
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
