"""Elementary functions: error over every FP16 argument, and cost of the units.

The results of the golden models, which the Verilog equals, rounded to FP16, against the functions in float64. That is
good to some 2**-52, and no function comes nearer than 2**-38 to halfway between two FP16 numbers unless it is exactly
there: so the nearest FP16 number to the float64 one is the correctly rounded result.
"""

import math

import numpy as np

from edgeaccel.bench.record import Record
from edgeaccel.cost import synthesise
from edgeaccel.golden import float as golden_float
from edgeaccel.golden import function as golden
from edgeaccel.vector import function as units
from edgeaccel.vector.function import FunctionUnit
from edgeaccel.verilog import emit

__all__ = ["UNITS", "errors_in_ulp", "half_arguments", "measure", "plot", "reference"]

SOURCE = "python -m edgeaccel.bench functions"
UNITS = {
    "exp2": units.Exponential2,
    "exp": units.Exponential,
    "reciprocal": units.Reciprocal,
    "rsqrt": units.ReciprocalSquareRoot,
    "sigmoid": units.Sigmoid,
    "silu": units.SiLU,
    "tanh": units.Tanh,
    "gelu": units.GELU,
    "gelu_tanh": units.TanhGELU,
}
LANES = {
    "softmax": ("exp2", "reciprocal"),
    "llama": ("exp2", "reciprocal", "rsqrt", "silu"),
    "lane": ("exp2", "reciprocal", "rsqrt", "silu", "gelu"),
    "all": golden.FUNCTIONS,
}


def _logistic(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _over(y, x):
    return y / x if x else math.copysign(math.inf, x)


_REFERENCES = {
    "exp2": lambda x: 2.0**x if x < 1000 else math.inf,
    "exp": lambda x: math.exp(x) if x < 700 else math.inf,
    "reciprocal": lambda x: _over(1, x),
    "rsqrt": lambda x: math.nan if x < 0 else _over(1, math.copysign(math.sqrt(abs(x)), x)),
    "sigmoid": _logistic,
    "silu": lambda x: x * _logistic(x) if x > -math.inf else -0.0,
    "tanh": math.tanh,
    "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2 if x > -math.inf else -0.0,
    "gelu_tanh": lambda x: x * _logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) if x > -math.inf else -0.0,
}


def reference(function, numbers):
    """A function in float64: limits at infinities, NaN where it has no value."""
    return np.array([_REFERENCES[function](x) for x in np.asarray(numbers, np.float64).tolist()])


def half_arguments():
    """All FP16 numbers but the NaNs, in rising order, -0 before +0, as float64."""
    codes = np.arange(1 << 16)
    numbers = golden_float.decode(codes, "fp16")
    numbers = numbers[np.lexsort((~np.signbit(numbers), numbers))]
    return numbers[~np.isnan(numbers)]


def half_results(function, numbers):
    """What the golden model gives, rounded to FP16, as float64."""
    codes = golden.evaluate(function, golden_float.encode(numbers))
    return golden_float.decode(golden_float.convert(codes, "fp32", "fp16"), "fp16")


def errors_in_ulp(function, numbers):
    """Error of the FP16 results in units of the last place of the correctly rounded ones; 0 where both are infinite."""
    results, exact = half_results(function, numbers), reference(function, numbers)
    with np.errstate(all="ignore"):
        rounded = np.abs(golden_float.decode(golden_float.encode(exact, "fp16"), "fp16"))
        ulp = np.ldexp(1.0, np.maximum(np.frexp(rounded)[1] - 11, -24))
        return np.where((results == exact) | (np.isinf(results) & np.isinf(rounded)), 0, (results - exact) / ulp)


def _error_records(progress):
    task = progress.add_task("errors", total=len(UNITS))
    numbers = half_arguments()
    records = []
    for function in UNITS:
        with np.errstate(invalid="ignore"):
            inside = numbers[~np.isnan(reference(function, numbers))]
        error = np.abs(errors_in_ulp(function, inside))
        exact = golden_float.decode(golden_float.encode(reference(function, inside), "fp16"), "fp16")
        n_others = np.count_nonzero(half_results(function, inside) != exact)
        for figure, value, unit in (("worst", error.max(), "ULP of FP16"), ("not_nearest", n_others, "arguments")):
            records.append(Record(f"functions.{function}.{figure}", float(value), unit, "simulated", SOURCE))
        progress.advance(task)
    return records


def _cost_records(progress):
    components = {name: unit() for name, unit in UNITS.items()}
    components |= {f"unit.{name}": FunctionUnit(functions) for name, functions in LANES.items()}
    task = progress.add_task("synthesis", total=len(components))
    records = []
    for name, component in components.items():
        cost = synthesise(emit(component, "dut"), "dut")
        figures = {"lut": cost.luts, "ff": cost.ff, "dsp": cost.dsp, "bram": cost.bram, "levels": cost.levels}
        for figure, value in figures.items():
            source = f"{SOURCE}: Yosys synth_xilinx -family xcup"
            records.append(Record(f"functions.{name}.{figure}", value, "1", "estimated", source))
        records.append(Record(f"functions.{name}.latency", component.latency, "cycles", "simulated", SOURCE))
        progress.advance(task)
    return records


def measure(progress):
    """All records of the bench."""
    return _error_records(progress) + _cost_records(progress)


def plot(records, axes):
    """Error of each function over all FP16 arguments, one below the other."""
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(12, 10)
    numbers = half_arguments()
    numbers = numbers[np.isfinite(numbers)]
    values = {record.name: record.value for record in records}
    for panel, function in zip(figure.subplots(3, 3).flat, UNITS, strict=True):
        inside = numbers[np.isfinite(golden_float.encode(reference(function, numbers), "fp16"))]
        panel.plot(inside, errors_in_ulp(function, inside), ",", color="tab:blue")
        panel.axhline(0.5, color="tab:grey", linewidth=0.5)
        panel.axhline(-0.5, color="tab:grey", linewidth=0.5)
        panel.set_xscale("symlog", linthresh=2.0**-14)
        panel.set_title(f"{function}: worst {values[f'functions.{function}.worst']:.4f}", fontsize="medium")
        panel.set_ylim(-1, 1)
        panel.set_xticks([sign * 10.0**power for sign in (-1, 1) for power in (-4, 0, 4)])
        panel.minorticks_off()
    figure.supxlabel("argument, every FP16 number")
    figure.supylabel("error of the FP16 result, ULP")
