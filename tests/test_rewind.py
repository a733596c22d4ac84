"""The buffer whose items can be had again, against a list."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from edgeaccel.memory.rewind import RewindBuffer


def simulate(seed, rows, *, pushes=0.7, pops=0.8, n_cycles=600):
    """Random items in, and out in runs that come one to three times; returns (given, expected, most that were held)."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    dut = RewindBuffer(16, rows)
    given, released, most = [], 0, 0
    # Runs of items in order: how long, and how often; the last time for good.
    runs = [(int(rng.integers(1, rows + 1)), int(rng.integers(1, 4))) for _ in range(n_cycles)]
    order = [
        (first + n, time < times - 1, n == length - 1)
        for first, (length, times) in zip(np.cumsum([0, *(run[0] for run in runs[:-1])]), runs, strict=True)
        for time in range(times)
        for n in range(length)
    ]

    async def drive(ctx):
        nonlocal released, most
        pushed = 0
        for _ in range(n_cycles):
            item, keep, ends = order[len(given)]
            ctx.set(dut.i.valid, int(rng.random() < pushes))
            ctx.set(dut.i.payload, pushed)
            takes = rng.random() < pops
            ctx.set(dut.o.ready, int(takes))
            ctx.set(dut.keep, int(keep))
            ctx.set(dut.rewind, int(takes and keep and ends and ctx.get(dut.o.valid)))
            if takes and ctx.get(dut.o.valid):
                given.append((ctx.get(dut.o.payload), item))
                released += not keep
            pushed += ctx.get(dut.i.valid) & ctx.get(dut.i.ready)
            assert ctx.get(dut.released) == (takes and ctx.get(dut.o.valid) and not keep)
            await ctx.tick()
            most = max(most, pushed - released)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    return np.array(given), most


@pytest.mark.parametrize("rows", [1, 2, 5, 16])
def test_order(rows):
    given, most = simulate(80 + rows, rows)
    assert len(given) > 100
    np.testing.assert_array_equal(given[:, 0], given[:, 1])
    assert most <= rows


def test_one_item_a_cycle():
    """Also where it begins again: all but the first ones, which are waited for."""
    given, _ = simulate(90, 64, pushes=1.0, pops=1.0)
    assert len(given) >= 595
