"""The cocotb side of `edgeaccel.sim.bench`: drives the traffic of a file through the emitted Verilog.

It uses nothing but cocotb's public interface, so it is also an example of a bench against an edgeaccel component: a
stream `x` is the ports `x__payload`, `x__valid` and `x__ready`, all synchronous to `clk`.
"""

import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from edgeaccel.sim.bench import StreamError, Traffic


@cocotb.test()
async def drive(dut):
    path = Path(os.environ["EDGEACCEL_TRAFFIC"])
    with np.load(path) as file:
        sources, sinks = file["sources"].tolist(), file["sinks"].tolist()
        rows = {name: file[f"rows_{name}"] for name in sources + sinks}
        patterns = {name: file[f"pattern_{name}"] for name in rows}
        max_cycles = int(file["max_cycles"])
    cycles = {name: np.zeros(len(items), np.int64) for name, items in rows.items()}
    traffic = Traffic(sources, sinks, rows, patterns, cycles)
    error = ""
    try:
        await _drive(dut, traffic, max_cycles)
    except StreamError as broken:
        error = str(broken)
    results = {f"rows_{name}": array for name, array in rows.items()}
    results |= {f"cycles_{name}": array for name, array in cycles.items()}
    np.savez(path.with_name("results.npz"), error=error, **results)


async def _drive(dut, traffic, max_cycles):
    def port(name, part):
        return getattr(dut, f"{name}__{part}")

    Clock(dut.clk, 10, "ns").start()
    dut.rst.value = 1
    for name in traffic.sources:
        port(name, "valid").value = 0
    for name in traffic.sinks:
        port(name, "ready").value = 0
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    for cycle in range(max_cycles):
        for name, payload in traffic.offers(cycle).items():
            port(name, "valid").value = int(payload is not None)
            if payload is not None:
                port(name, "payload").value = payload
        for name, ready in traffic.readies(cycle).items():
            port(name, "ready").value = int(ready)
        await ReadOnly()
        taken = {name: bool(port(name, "ready").value) for name in traffic.sources}
        offered = {
            name: int(port(name, "payload").value) if port(name, "valid").value else None for name in traffic.sinks
        }
        if traffic.settle(cycle, taken, offered):
            return
        await RisingEdge(dut.clk)
    raise traffic.timeout(max_cycles)
