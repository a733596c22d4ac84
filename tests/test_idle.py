"""Verilog that rests while nothing changes, beside the one that it was made of: both give the same in every cycle."""

import ctypes

import numpy as np
import pytest

from edgeaccel.memory import BlockReader
from edgeaccel.pe import FloatAdder, ScaledAccumulator
from edgeaccel.sim.bench import BUILD
from edgeaccel.sim.idle import rest_when_idle
from edgeaccel.vector import TopK, VectorFunction
from edgeaccel.verilated import build_library
from edgeaccel.verilog import describe_ports, emit

HARNESS = """
#include "Vtop.h"
extern "C" long first_difference(const unsigned *inputs, const unsigned char *resets, long cycles, unsigned *differs) {
    VerilatedContext context;
    Vtop top(&context);
    const long words = sizeof(top.x) / sizeof(unsigned);
    for (long n = 0; n < cycles; ++n) {
        for (long k = 0; k < words; ++k) top.x[k] = inputs[n * words + k];
        top.rst = resets[n];
        top.eval();
        if ((*differs = top.differs)) return n;
        top.clk = 1;
        top.eval();
        top.clk = 0;
        top.eval();
        if ((*differs = top.differs)) return n;
    }
    return -1;
}
"""
COMPONENTS = {
    "pipeline": FloatAdder,
    "sums in a memory": lambda: ScaledAccumulator(sum_width=20, channels=8),
    "tables": lambda: VectorFunction(lanes=1),
    "loops": lambda: TopK(k=2, lanes=2),
    "bursts": lambda: BlockReader(data_width=64, stream_bytes=8, buffer_beats=32),
}


def both(component):
    """A top level with both texts of a component under the same inputs, all of them in `x`."""
    given, rested = emit(component, "given"), rest_when_idle(emit(component, "rested"))
    ports = [port for port in describe_ports(component) if port["name"] not in ("clk", "rst")]
    place, n_outputs = 0, 0
    inputs, outputs, wires = [], ([], []), []
    for port in ports:
        name, width = port["name"], port["width"]
        if port["direction"] == "input":
            inputs.append(f".{name}(x[{place + width - 1}:{place}])")
            place += width
            continue
        for side, found in enumerate(outputs):
            wires.append(f"  wire [{width - 1}:0] o{side}_{n_outputs};")
            found.append(f".{name}(o{side}_{n_outputs})")
        n_outputs += 1
    width = max(96, place)  # so that it is an array in C++
    differs = ", ".join(f"o0_{n} != o1_{n}" for n in range(n_outputs))
    shared = ".clk(clk), .rst(rst), " + ", ".join(inputs)
    top = "\n".join(
        [
            f"module both (input clk, input rst, input [{width - 1}:0] x, output [{n_outputs - 1}:0] differs);",
            *wires,
            f"  given a ({shared}, {', '.join(outputs[0])});",
            f"  rested b ({shared}, {', '.join(outputs[1])});",
            f"  assign differs = {{ {differs} }};",
            "endmodule",
        ]
    )
    return given + rested + top, (width + 31) // 32


def stimuli(rng, words, cycles):
    """Inputs that change in every cycle, or now and then, all or a few bits of them; and resets."""
    inputs = np.zeros((cycles, words), np.uint32)
    now, kind = np.zeros(words, np.uint32), 0
    for n in range(cycles):
        if n % 100 == 0:
            kind = rng.integers(4)
        if kind == 0 or (kind == 1 and rng.random() < 0.04):
            now = rng.integers(1 << 32, size=words, dtype=np.uint32)
        elif kind == 2 and rng.random() < 0.1:
            now = now.copy()
            now[rng.integers(words)] ^= np.uint32(1 << rng.integers(32))
        inputs[n] = now
    return inputs, (rng.random(cycles) < 0.002).astype(np.uint8)


@pytest.mark.parametrize("name", COMPONENTS)
def test_all_cycles_are_the_same(name):
    seed, cycles = 5, 40_000
    source, words = both(COMPONENTS[name]())
    assert "idle_work_" in source
    library = ctypes.CDLL(build_library(source, "both", HARNESS, BUILD / "verilated"))
    library.first_difference.restype = ctypes.c_long
    inputs, resets = stimuli(np.random.default_rng(seed), words, cycles)
    differs = ctypes.c_uint()
    pointers = inputs.ctypes.data_as(ctypes.c_void_p), resets.ctypes.data_as(ctypes.c_void_p)
    cycle = library.first_difference(*pointers, ctypes.c_long(cycles), ctypes.byref(differs))
    assert cycle == -1, f"seed {seed}: outputs {differs.value:#b} (from the last on) differ in cycle {cycle}"
