"""Element-wise units against the golden models: results and cycles, under stalls."""

import numpy as np
import pytest

from edgeaccel.golden import float as golden_float
from edgeaccel.golden import function
from edgeaccel.golden import vector as golden
from edgeaccel.pe.float import BF16, FP16, FP32
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import assert_pipeline, codes, generator, random_codes, traffic
from edgeaccel.vector.beat import check_length
from edgeaccel.vector.choice import Function
from edgeaccel.vector.elementwise import (
    GatedProduct,
    Rectifier,
    VectorAdder,
    VectorConverter,
    VectorFunction,
    VectorMultiplier,
    VectorScaler,
)

MAX_LENGTH = 64


def check(unit, engine, seed, n_vectors, expect, *, lanes, fields=(), stalled=True):
    """`expect` makes the elements from those of the inputs and the fields; keep and last are the first input's."""
    rng = generator(seed)
    names = [name for name in unit.signature.members if name != "o"]
    _, first = traffic(rng, lanes, MAX_LENGTH, n_vectors, special=0.2)
    n_beats = len(first["last"])
    inputs = {names[0]: first | {name: random_codes(rng, n_beats, special=0.2) for name in fields}}
    for name in names[1:]:
        elements = random_codes(rng, n_beats * lanes, special=0.2).reshape(n_beats, lanes)
        inputs[name] = {
            "elements": elements,
            "keep": rng.integers(0, 1 << lanes, n_beats),
            "last": rng.integers(0, 2, n_beats),
        }
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, inputs, n_beats, stalls=stalls)
    operands = [beats["elements"] for beats in inputs.values()] + [inputs[names[0]][name][:, None] for name in fields]
    np.testing.assert_array_equal(result.results["o"]["elements"], expect(*operands))
    for name in ("keep", "last"):
        np.testing.assert_array_equal(result.results["o"][name], first[name])
    assert_pipeline(unit, result, stalls, names)
    if not stalled:
        np.testing.assert_array_equal(result.cycles[names[0]], np.arange(n_beats))


CASES = {
    "add": (lambda lanes: VectorAdder(lanes=lanes), golden_float.add, ()),
    "multiply": (lambda lanes: VectorMultiplier(lanes=lanes), golden_float.multiply, ()),
    "scale": (lambda lanes: VectorScaler(lanes=lanes), golden_float.multiply, ("factor",)),
    "relu": (lambda lanes: Rectifier(lanes=lanes), golden.relu, ()),
    "function": (
        lambda lanes: VectorFunction(lanes=lanes),
        lambda x: function.evaluate("silu", x.ravel()).reshape(x.shape),
        (),
    ),
    "gated": (lambda lanes: GatedProduct(lanes=lanes), lambda gate, up: golden.gated("silu", gate, up), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_amaranth(case):
    make, expect, fields = CASES[case]
    check(make(1), "amaranth", 120, 5, expect, lanes=1, fields=fields)
    check(make(2), "amaranth", 125, 20, expect, lanes=2, fields=fields)


def check_verilog(case, lanes):
    make, expect, fields = CASES[case]
    unit = make(lanes)
    check(unit, "verilated", 121, 2000, expect, lanes=lanes, fields=fields)
    check(unit, "verilated", 122, 50, expect, lanes=lanes, fields=fields, stalled=False)


@pytest.mark.parametrize("case", ["add", "gated"])
def test_verilog(case):
    check_verilog(case, 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_full_size(case):
    check_verilog(case, 8)


@pytest.mark.parametrize("gated", [False, True])
def test_function_by_beat(gated):
    """Each beat tells which function it wants."""
    rng = generator(123)
    names = ("silu", "gelu", "gelu_tanh")
    unit = (GatedProduct if gated else VectorFunction)(functions=names, lanes=2)
    _, beats = traffic(rng, 2, MAX_LENGTH, 20)
    chosen = rng.choice(names, len(beats["last"]))
    first = beats | {"function": [Function[name.upper()].value for name in chosen]}
    inputs = {"i_gate": first, "i_up": beats} if gated else {"i": first}
    result = run(unit, "amaranth", inputs, len(chosen))
    for name, x, o in zip(chosen, beats["elements"], result.results["o"]["elements"], strict=True):
        expected = golden.gated(name, x, x) if gated else function.evaluate(name, x)
        np.testing.assert_array_equal(o, expected)


@pytest.mark.parametrize(("i_format", "o_format"), [("fp16", "fp32"), ("fp32", "fp16"), ("bf16", "fp32")])
def test_converter(i_format, o_format):
    """Between memory's formats and FP32, with what else is in a beat."""
    rng = generator(124)
    formats = {"fp16": FP16, "fp32": FP32, "bf16": BF16}
    unit = VectorConverter(formats[i_format], formats[o_format], lanes=4, fields={"tag": 5})
    n_beats = 400
    elements = rng.integers(0, 1 << formats[i_format].width, (n_beats, 4))
    if i_format == "fp32":
        elements = random_codes(rng, elements.size, special=0.2).reshape(elements.shape)
    others = {name: rng.integers(0, 1 << n, n_beats) for name, n in (("keep", 4), ("last", 1), ("tag", 5))}
    stalls = random_stalls(rng, unit, 2 * n_beats)
    result = run(unit, "amaranth", {"i": {"elements": elements} | others}, n_beats, stalls=stalls)
    expected = golden_float.convert(elements, i_format, o_format)
    np.testing.assert_array_equal(result.results["o"]["elements"], expected)
    for name, values in others.items():
        np.testing.assert_array_equal(result.results["o"][name], values)
    assert_pipeline(unit, result, stalls, ["i"])


@pytest.mark.parametrize("length", [0, -1, 65, 2.5])
def test_refused_lengths(length):
    check_length(1, 64)
    check_length(64, 64)
    with pytest.raises(ValueError, match=f"a vector must have 1 to 64 elements, not {length}"):
        check_length(length, 64)


def test_relu_by_hand():
    numbers = codes([1.5, -1.5, -0.0, 0.0, np.inf, -np.inf])
    assert golden.relu(numbers).tolist() == codes([1.5, 0, 0, 0, np.inf, 0]).tolist()
    assert golden.relu([0xFFC00001]).tolist() == [0xFFC00001]


@pytest.mark.parametrize("unit", [VectorAdder, VectorMultiplier, VectorScaler, Rectifier])
def test_bad_lanes(unit):
    with pytest.raises(ValueError, match="lanes must be a power of two, not 6"):
        unit(lanes=6)
