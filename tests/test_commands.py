"""Chain of the ports' commands: who gets what, and in which cycle, under random stalls."""

import numpy as np
import pytest

from edgeaccel.config import preset
from edgeaccel.golden import commands as golden
from edgeaccel.memory.command import Widths
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.systolic import CommandChain

COMMANDS = Widths(address=64, beat=128, word=128, beats_per_burst=16, n_events=4).commands


def random_requests(rng, config, n):
    """To one group, to all, to some in a row."""
    skip = rng.integers(0, config.groups, n)
    take = 1 + rng.integers(0, config.groups - skip)
    whole = rng.random(n) < 0.2
    skip, take = np.where(whole, 0, skip), np.where(whole, config.groups, take)
    address = rng.integers(0, 1 << 40, n)
    return {
        "address": address,
        "words": rng.integers(1, 1 << 20, n),
        "format": rng.integers(0, 3, n),
        "skip": skip,
        "take": take,
    }


@pytest.mark.parametrize("engine", ["amaranth", "verilated"])
@pytest.mark.parametrize(("groups", "seed"), [(1, 0), (2, 1), (8, 2)])
def test_chain(engine, groups, seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    config = preset("tiny", groups=groups)
    chain = CommandChain(config, COMMANDS)
    requests = random_requests(rng, config, 60)
    rows = [tuple(int(value) for value in row) for row in zip(*requests.values(), strict=True)]
    expected = golden.chain(config, rows)
    for stalls in ({}, random_stalls(rng, chain, 1000)):
        n_results = {f"o__{n}": len(each) for n, each in enumerate(expected)}
        result = run(chain, engine, {"i": requests}, n_results, stalls=stalls)
        for n, each in enumerate(expected):
            given = result.results[f"o__{n}"]
            columns = zip(*(given[name].tolist() for name in ("address", "words", "format")), strict=True)
            assert list(columns) == each
            assert not given["wait"].any()
        for name, cycles in golden.chain_cycles(config, rows, stalls).items():
            np.testing.assert_array_equal(result.cycles[name], cycles, err_msg=name)


def test_a_request_each_cycle():
    """Without stalls, and a cycle from group to group."""
    config = preset("tiny", groups=4)
    n = 20
    requests = {"address": np.arange(n), "words": np.ones(n, int), "format": np.zeros(n, int)}
    requests |= {"skip": np.zeros(n, int), "take": np.full(n, 4)}
    result = run(CommandChain(config, COMMANDS), "verilated", {"i": requests}, {f"o__{k}": n for k in range(4)})
    for group in range(4):
        np.testing.assert_array_equal(result.cycles[f"o__{group}"], result.cycles["i"] + 1 + group)
