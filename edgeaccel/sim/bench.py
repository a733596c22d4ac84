"""One bench for every stream component: drive items through it under stalls, in any of three engines.

`amaranth` simulates the component itself; `verilated` and `cocotb` run the Verilog that is emitted for it. All three
drive the same traffic cycle by cycle, as `edgeaccel.golden.timing` describes it, and hold every output stream to the
contract: `valid` does not wait for `ready`, an offer stands unchanged until it is taken, nothing comes after the last
result.
"""

import ctypes
import functools
import itertools
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.hdl import Shape
from amaranth.sim import Simulator

from edgeaccel.golden.timing import Pattern
from edgeaccel.sim.payload import decode, encode, row_bytes
from edgeaccel.verilated import build_library
from edgeaccel.verilog import emit, find_stream, stream_members

__all__ = ["ENGINES", "Run", "StreamError", "random_stalls", "run"]

SOURCE = Path(__file__).parent
ROOT = SOURCE.parent.parent
BUILD = Path("build").absolute()
EXTRA_CYCLES = 50
_LONG = 100_000  # items for which compiling with optimisation, which takes three times as long, pays


class StreamError(AssertionError):
    """A stream broke its contract, or the bench ran into its limit."""


@dataclass(frozen=True)
class Run:
    """What went through: for each stream the cycles of its transfers, for each output the decoded results."""

    cycles: dict
    results: dict


def random_stalls(rng, component, n_cycles, *, share=0.6, burst=4):
    """A random stall pattern for every stream: open for `share` of the cycles, `burst` cycles at a time."""
    n_runs = n_cycles // burst + 1
    wait = burst * (1 - share) / share
    patterns = {}
    for name in itertools.chain(*stream_members(component)):
        runs = np.stack([rng.geometric(1 / burst, n_runs), rng.geometric(min(1, 1 / wait), n_runs)], axis=1)
        patterns[name] = np.repeat(np.tile([True, False], n_runs), runs.ravel())[:n_cycles]
    return patterns


def run(component, engine, inputs, n_results, *, stalls=None, max_cycles=None):
    """Drive `inputs` through a component.

    Parameters
    ----------
    component : wiring.Component
        Its members are streams.
    engine : str
        One of `ENGINES`.
    inputs : dict
        For each input stream its items, as `edgeaccel.sim.payload.encode` takes them.
    n_results : int or dict
        Items expected from the output streams.
    stalls : dict of str to bool array
        Stall pattern by stream; none by default.
    max_cycles : int
        Limit after which the bench gives up.

    Raises
    ------
    StreamError
        If an output breaks the contract of streams, or the limit is reached.
    """
    sources, sinks = stream_members(component)
    shapes = {name: find_stream(component, name).payload.shape() for name in sources + sinks}
    counts = n_results if isinstance(n_results, dict) else dict.fromkeys(sinks, n_results)
    rows = {name: encode(shapes[name], inputs[name]) for name in sources}
    rows |= {name: np.zeros((counts[name], row_bytes(Shape.cast(shapes[name]).width)), np.uint8) for name in sinks}
    patterns = {name: np.asarray((stalls or {}).get(name, ()), dtype=bool) for name in rows}
    if max_cycles is None:
        max_cycles = 10_000 + sum(len(items) for items in rows.values()) + sum(map(len, patterns.values()))
    cycles = {name: np.zeros(len(items), np.int64) for name, items in rows.items()}
    ENGINES[engine](component, sources, sinks, rows, patterns, cycles, max_cycles)
    return Run(cycles, {name: decode(shapes[name], rows[name]) for name in sinks})


class Traffic:
    """Sources and sinks of a bench that steps cycle by cycle in Python; payloads are integers."""

    def __init__(self, sources, sinks, rows, patterns, cycles):
        self.sources, self.sinks, self.rows, self.cycles = sources, sinks, rows, cycles
        self.patterns = {name: Pattern(pattern) for name, pattern in patterns.items()}
        self.n_transferred = dict.fromkeys(rows, 0)
        self.offering = dict.fromkeys(sources, False)
        self.pending = dict.fromkeys(sinks)
        self.idle = 0

    def offers(self, cycle):
        """The payload that each source offers in this cycle, None for no offer."""
        for name in self.sources:
            left = self.n_transferred[name] < len(self.rows[name])
            self.offering[name] |= left and self.patterns[name].first(cycle) == cycle
        return {
            name: int.from_bytes(self.rows[name][self.n_transferred[name]].tobytes(), "little") if offering else None
            for name, offering in self.offering.items()
        }

    def readies(self, cycle):
        return {name: self.patterns[name].first(cycle) == cycle for name in self.sinks}

    def settle(self, cycle, taken, offered):
        """Account for a cycle: `taken` inputs by name, `offered` output payloads (None for no offer)."""
        moved = False
        for name in self.sources:
            if self.offering[name] and taken[name]:
                self._transfer(name, cycle)
                self.offering[name] = False
                moved = True
        for name, ready in self.readies(cycle).items():
            payload = offered[name]
            if self.pending[name] is not None and payload != self.pending[name]:
                raise StreamError(f"cycle {cycle}: {name} changed what it offered before it was taken")
            self.pending[name] = None if ready else payload
            if payload is not None and ready:
                if self.n_transferred[name] == len(self.rows[name]):
                    raise StreamError(
                        f"cycle {cycle}: {name} gave more than the {len(self.rows[name])} results expected"
                    )
                row = self.rows[name][self.n_transferred[name]]
                row[:] = np.frombuffer(payload.to_bytes(len(row), "little"), np.uint8)
                self._transfer(name, cycle)
                moved = True
        done = all(self.n_transferred[name] == len(rows) for name, rows in self.rows.items())
        self.idle = self.idle + 1 if done and not moved else 0
        return self.idle > EXTRA_CYCLES

    def _transfer(self, name, cycle):
        self.cycles[name][self.n_transferred[name]] = cycle
        self.n_transferred[name] += 1

    def timeout(self, max_cycles):
        progress = ", ".join(f"{name} {n} of {len(self.rows[name])}" for name, n in self.n_transferred.items())
        return StreamError(f"not finished after {max_cycles} cycles: {progress}")


def _run_amaranth(component, sources, sinks, rows, patterns, cycles, max_cycles):
    traffic = Traffic(sources, sinks, rows, patterns, cycles)

    async def bench(ctx):
        for cycle in range(max_cycles):
            for name, payload in traffic.offers(cycle).items():
                stream = find_stream(component, name)
                ctx.set(stream.valid, payload is not None)
                if payload is not None:
                    ctx.set(_bits(stream.payload), payload)
            for name in sinks:
                ctx.set(find_stream(component, name).ready, 0)
            valid = {name: ctx.get(find_stream(component, name).valid) for name in sinks}
            for name, ready in traffic.readies(cycle).items():
                ctx.set(find_stream(component, name).ready, ready)
            if valid != {name: ctx.get(find_stream(component, name).valid) for name in sinks}:
                raise StreamError(f"cycle {cycle}: valid waits for ready")
            taken = {name: ctx.get(find_stream(component, name).ready) for name in sources}
            offered = {
                name: ctx.get(_bits(find_stream(component, name).payload)) if valid[name] else None for name in sinks
            }
            if traffic.settle(cycle, taken, offered):
                return
            await ctx.tick()
        raise traffic.timeout(max_cycles)

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def _bits(payload):
    """A payload as an unsigned value."""
    value = payload.as_value() if hasattr(payload, "as_value") else payload
    return value.as_unsigned()


class _CTraffic(ctypes.Structure):
    """`Traffic` of streams.cpp."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("n_rows", ctypes.c_uint64),
        ("pattern", ctypes.c_void_p),
        ("pattern_cycles", ctypes.c_uint64),
        ("transferred", ctypes.c_void_p),
        ("n_transferred", ctypes.c_uint64),
    )


_OUTCOMES = {
    2: "more results than expected",
    3: "an output changed what it offered before it was taken",
    4: "valid of an output waits for ready",
}


@functools.cache
def _verilog(component):
    return emit(component, "dut")


def _in_cpp(name):
    """Verilator's name of a port: it takes two underscores for itself."""
    return name.replace("__", "___05F")


def _run_verilated(component, sources, sinks, rows, patterns, cycles, max_cycles):
    harness = "".join(
        f"#define {kind}(X) {' '.join(f'X({_in_cpp(name)})' for name in names)}\n"
        for kind, names in (("INPUTS", sources), ("OUTPUTS", sinks))
    )
    harness += (SOURCE / "streams.cpp").read_text()
    optimise = "-O1" if max(map(len, rows.values())) > _LONG else "-O0"
    library = ctypes.CDLL(build_library(_verilog(component), "dut", harness, BUILD / "verilated", optimise=optimise))

    def traffic(names):
        return (_CTraffic * len(names))(
            *(
                _CTraffic(
                    rows[name].ctypes.data,
                    len(rows[name]),
                    patterns[name].ctypes.data,
                    len(patterns[name]),
                    cycles[name].ctypes.data,
                    0,
                )
                for name in names
            )
        )

    c_sources, c_sinks = traffic(sources), traffic(sinks)
    n_cycles = ctypes.c_uint64()
    outcome = library.run(
        c_sources, c_sinks, ctypes.c_uint64(max_cycles), ctypes.c_uint64(EXTRA_CYCLES), ctypes.byref(n_cycles)
    )
    if outcome == 1:
        ends = zip(sources + sinks, [*c_sources, *c_sinks], strict=True)
        progress = ", ".join(f"{name} {end.n_transferred} of {end.n_rows}" for name, end in ends)
        raise StreamError(f"not finished after {max_cycles} cycles: {progress}")
    if outcome:
        raise StreamError(f"cycle {n_cycles.value}: {_OUTCOMES[outcome]}")


def _run_cocotb(component, sources, sinks, rows, patterns, cycles, max_cycles):
    with tempfile.TemporaryDirectory(dir=_made(BUILD / "cocotb"), prefix="run-") as folder:
        traffic = Path(folder) / "traffic.npz"
        np.savez(
            traffic,
            sources=sources,
            sinks=sinks,
            max_cycles=max_cycles,
            **{f"rows_{name}": array for name, array in rows.items()},
            **{f"pattern_{name}": array for name, array in patterns.items()},
        )
        (Path(folder) / "dut.v").write_text(_verilog(component))
        command = [sys.executable, "-m", "edgeaccel.sim.cocotb_runner", folder]
        bench = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        results = Path(folder) / "results.npz"
        if not results.exists():
            raise RuntimeError(f"cocotb did not run:\n{bench.stdout[-4000:]}{bench.stderr[-4000:]}")
        with np.load(results) as file:
            if file["error"]:
                raise StreamError(str(file["error"]))
            for name in rows:
                rows[name][:] = file[f"rows_{name}"]
                cycles[name][:] = file[f"cycles_{name}"]


def _made(folder):
    os.makedirs(folder, exist_ok=True)
    return folder


ENGINES = {"amaranth": _run_amaranth, "verilated": _run_verilated, "cocotb": _run_cocotb}
