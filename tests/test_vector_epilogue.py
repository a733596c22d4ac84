"""The steps after the array against the golden model: results and cycles, under stalls, whichever steps are on."""

from functools import cache

import numpy as np
import pytest

from edgeaccel.golden import epilogue as golden
from edgeaccel.golden import norm as golden_norm
from edgeaccel.golden import rotary as golden_rotary
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.timing import Pattern
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator, random_codes, random_lengths
from edgeaccel.vector.choice import Function
from edgeaccel.vector.epilogue import Epilogue

FUNCTIONS = ("silu", "gelu")
EPSILON = int(codes(1e-5))
ALL = ("factor", "bias", "rotary", "activation", "factors", "residual", "statistics")


def random_steps(rng, length, *, lanes, max_rotated, on):
    """Steps of a vector; each is on with a chance of a half, or as `on` tells."""

    def chosen(name):
        return name in on if on is not None else rng.random() < 0.5

    values = {"half": bool(rng.integers(0, 2))}
    if chosen("factor"):
        values["factor"] = int(random_codes(rng, 1)[0])
    for name in ("bias", "factors", "residual"):
        if chosen(name):
            values[name] = random_codes(rng, length)
    if chosen("rotary"):
        step = 2 * lanes if values["half"] else 2
        values["rotated"] = int(rng.integers(0, min(length, max_rotated) // step + 1)) * step
        padded = -(-length // lanes) * lanes
        values |= {name: random_codes(rng, padded) for name in ("cosines", "sines")}
    if chosen("activation"):
        values["activation"] = str(rng.choice(FUNCTIONS))
    return golden.Steps(**values), chosen("statistics")


def cut(vectors, lanes):
    """Operands of vectors in beats; zeros where the vectors have no element."""
    parts = [np.append(v, np.zeros(-len(v) % lanes, np.uint32)).reshape(-1, lanes) for v in vectors]
    return np.concatenate(parts) if parts else np.zeros((0, lanes), np.uint32)


@cache  # so that Verilog is emitted once
def build(lanes, max_length, max_rotated, layer):
    return Epilogue(functions=FUNCTIONS, lanes=lanes, max_length=max_length, max_rotated=max_rotated, layer=layer)


def check(engine, seed, n_vectors, *, lanes, max_length, max_rotated, layer=False, on=None, stalled=True):
    rng = generator(seed)
    unit = build(lanes, max_length, max_rotated, layer)
    lengths = random_lengths(rng, n_vectors, lanes, max_length)
    vectors = [random_codes(rng, n) for n in lengths]
    sizes = {"lanes": lanes, "max_rotated": max_rotated}
    steps, wanted = zip(*(random_steps(rng, n, on=on, **sizes) for n in lengths), strict=True)
    centres = rng.integers(0, 2, n_vectors) * layer
    beats = golden_vector.beats(vectors, lanes, max_length, filler=int(rng.integers(0, 1 << 32)))
    beats_of = -(-lengths // lanes)

    def each(values):
        return np.repeat(np.array(values), beats_of)

    flags = {name: each([getattr(s, name) is not None for s in steps]) for name in ("bias", "factors", "residual")}
    beats |= flags | {
        "scale": each([s.factor is not None for s in steps]),
        "factor": each([int(codes(7)) if s.factor is None else s.factor for s in steps]),
        "rotated": each([s.rotated for s in steps]),
        "half": each([s.half for s in steps]),
        "activate": each([s.activation is not None for s in steps]),
        "function": each([Function[(s.activation or "silu").upper()].value for s in steps]),
        "statistics": each(wanted),
        "inverse_length": each(codes(1 / lengths)),
        "epsilon": each([EPSILON] * n_vectors),
    }
    if layer:
        beats["centre"] = each(centres)
    roles = golden_rotary.beat_roles(lengths, [s.rotated for s in steps], [s.half for s in steps], lanes)
    inputs = {"i": beats}
    for name in ("bias", "factors", "residual"):
        inputs[f"i_{name}"] = cut([getattr(s, name) for s in steps if getattr(s, name) is not None], lanes)
    inputs["i_table"] = {}
    for field, name in (("cos", "cosines"), ("sin", "sines")):
        tables = [getattr(s, name) for s in steps]
        tables = [np.zeros(n * lanes, np.uint32) if x is None else x for x, n in zip(tables, beats_of, strict=True)]
        inputs["i_table"][field] = cut(tables, lanes)[roles[0]]
    n_beats = len(beats["last"])
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, inputs, {"o": n_beats, "o_statistics": sum(wanted)}, stalls=stalls)

    out, out_statistics = result.results["o"], result.results["o_statistics"]
    expected = [golden.epilogue(vector, s) for vector, s in zip(vectors, steps, strict=True)]
    ends = np.cumsum(beats_of)
    for vector, end, n in zip(expected, ends, beats_of, strict=True):
        np.testing.assert_array_equal(out["elements"][end - n : end].ravel()[: len(vector)], vector)
    for name in ("keep", "last"):
        np.testing.assert_array_equal(out[name], beats[name])
    statistics = np.array(
        [
            golden_norm.statistics(vector, codes(1 / len(vector)), EPSILON, centre=centre)
            for vector, centre, is_wanted in zip(expected, centres, wanted, strict=True)
            if is_wanted
        ]
    ).reshape(-1, 2)
    np.testing.assert_array_equal(out_statistics["scale"], statistics[:, 1])
    if layer:
        np.testing.assert_array_equal(out_statistics["mean"], statistics[:, 0])

    cycles = golden.epilogue_cycles(
        flags | {"statistics": beats["statistics"].astype(bool), "last": beats["last"].astype(bool)},
        roles,
        {name: Pattern(stalls.get(name, ())) for name in result.cycles},
        functions=FUNCTIONS,
        max_length=max_length,
        layer=layer,
        **sizes,
    )
    for name, expected_cycles in cycles.items():
        np.testing.assert_array_equal(result.cycles[name], expected_cycles, err_msg=name)
    if not stalled:
        np.testing.assert_array_equal(result.cycles["i"], np.arange(n_beats))


def test_amaranth():
    check("amaranth", 170, 20, lanes=2, max_length=16, max_rotated=8)
    check("amaranth", 175, 5, lanes=2, max_length=8, max_rotated=8, on=ALL, stalled=False)


@pytest.mark.slow
def test_verilog():
    """Any steps, and one, none or all of them, at line rate."""
    sizes = {"lanes": 2, "max_length": 16, "max_rotated": 8}
    check("verilated", 171, 1500, **sizes)
    for on in ((), ALL, *((name,) for name in ALL)):
        print("on:", *on)
        check("verilated", 172, 40, **sizes, on=on)
        check("verilated", 173, 40, **sizes, on=on, stalled=False)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [False, True])
def test_full_size(layer):
    check("verilated", 174, 100, lanes=8, max_length=4096, max_rotated=128, layer=layer)


def test_bad_parameters():
    with pytest.raises(ValueError, match="max_rotated must be a multiple of 4 to 64, not 128"):
        Epilogue(lanes=4, max_length=64, max_rotated=128)
    with pytest.raises(ValueError, match="functions must be one or more of"):
        Epilogue(functions=("sine",))
