"""Results of several sets in the order of the vectors, and keys and values in that of the heads, against lists."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from edgeaccel.machine import machine as named_machine
from edgeaccel.soc.deal import CacheDeal, ResultDeal, room
from edgeaccel.soc.share import ResultShare
from edgeaccel.soc.steps import VectorSource

TILE_BEATS = 2  # of `tiny`


def small_machine(sets):
    return named_machine("tiny", changes={"sets": sets}, max_channels=48, max_rotated=48)


class Way(wiring.Component):
    """From the array to the path of vectors, as `edgeaccel.soc.core.Core` connects it."""

    def __init__(self, machine):
        self.parts = ResultShare(machine), ResultDeal(machine), VectorSource(machine)
        share, _, source = self.parts
        members = {
            "i": share.signature.members["i"],
            "i_routes": share.signature.members["i_routes"],
            "i_jobs": source.signature.members["i_jobs"],
            "o": source.signature.members["o"],
            "o_attention": share.signature.members["o_attention"],
        }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.share, m.submodules.deal, m.submodules.source = share, deal, source = self.parts
        for name in ("i", "i_routes", "o_attention"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(share, name))
        for name in ("i_jobs", "o"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(source, name))
        wiring.connect(m, share.o_vectors, deal.i)
        wiring.connect(m, deal.o, source.i)
        m.d.comb += [
            deal.i_set.eq(share.set),
            deal.i_dealt.eq(share.dealt),
            deal.o_set.eq(source.set),
            deal.o_dealt.eq(source.dealt),
        ]
        return m


async def put(ctx, stream, items, rng, share):
    """Offer items, dicts of fields or numbers, with stalls; an offer stands until it is taken."""
    for item in items:
        while rng.random() >= share:
            await ctx.tick()
        if isinstance(item, dict):
            for name, value in item.items():
                ctx.set(getattr(stream.p, name), value)
        else:
            ctx.set(stream.p.values[0][0], item)
        ctx.set(stream.valid, 1)
        await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)


async def take(ctx, stream, n, rng, share, read):
    """What a stream gives, n items, taken with stalls."""
    taken = []
    for _ in range(n):
        while rng.random() >= share:
            await ctx.tick()
        ctx.set(stream.ready, 1)
        (item,) = await ctx.tick().sample(read).until(stream.valid)
        ctx.set(stream.ready, 0)
        taken.append(item)
    return taken


def run(dut, *benches, deadline=20_000):
    results = {}

    def bench(name, part):
        async def drive(ctx):
            results[name] = await part(ctx)

        return drive

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name, part in enumerate(benches):
        simulator.add_testbench(bench(name, part))
    simulator.run_until(deadline * 1e-6)
    assert len(results) == len(benches), f"only {sorted(results)} of {len(benches)} have ended: it is locked up"
    return [results[n] for n in range(len(benches))]


def random_work(rng, config, machine):
    """Operators and the vectors that take their results: (routes, beats, jobs, beats as the vectors take them)."""
    most = machine.max_channels // config.tile_channels
    routes, beats, jobs, expected, number = [], [], [], [], 0
    for _ in range(12):
        more_sets = int(rng.integers(0, config.sets))
        attends = not more_sets and rng.random() < 0.3
        parts = [int(rng.integers(1, most + 1)) for _ in range(int(rng.integers(1, 4)))]  # tiles of instructions
        tiles = sum(parts)
        of_set = [[] for _ in range(more_sets + 1)]
        for first in range(0, tiles, config.groups):
            n_beats = min(config.groups, tiles - first) * TILE_BEATS
            for which in range(more_sets + 1):
                of_set[which] += range(number, number + n_beats)
                number += n_beats
        routes.append({"attend": int(attends), "tiles": tiles, "more_sets": more_sets})
        if attends:
            continue
        for part in parts:
            for which, each in enumerate(of_set):
                expected += each[: part * TILE_BEATS]
                del each[: part * TILE_BEATS]
                job = {"zeros": 0, "vectors": 1, "channels": part * config.tile_channels}
                jobs.append(job | {"set": which, "dealt": int(more_sets > 0)})
    beats = list(range(number))
    return routes, beats, jobs, expected


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("sets", [2, 3])
def test_results(sets, share):
    seed = 10 * sets + int(share)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    machine = small_machine(sets)
    dut = Way(machine)
    routes, beats, jobs, expected = random_work(rng, machine.config, machine)
    rest = sorted(set(beats) - set(expected))
    code = dut.o.p.values[0][0], dut.o_attention.p.values[0][0]
    *_, vectors, attention = run(
        dut,
        lambda ctx: put(ctx, dut.i, beats, rng, share),
        lambda ctx: put(ctx, dut.i_routes, routes, rng, share),
        lambda ctx: put(ctx, dut.i_jobs, jobs, rng, share),
        lambda ctx: take(ctx, dut.o, len(expected), rng, share, code[0]),
        lambda ctx: take(ctx, dut.o_attention, len(rest), rng, share, code[1]),
    )
    assert vectors == expected
    assert attention == rest


def test_room():
    """A pass of the first set, an instruction of the last."""
    machine = small_machine(2)
    assert [room(machine, which) for which in range(2)] == [2 * TILE_BEATS, 12]
    assert [room(small_machine(3), which) for which in range(3)] == [2 * TILE_BEATS, 12, 12]


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("sets", [1, 2, 3])
def test_heads(sets, share):
    """Batches of any number of sets, in one instruction or several; heads come with all their sets."""
    seed = 20 * sets + int(share)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    machine = small_machine(sets)
    dut = CacheDeal(machine)
    beats, expected, number = [], [], 0
    for _ in range(10):
        n_sets, n_beats = int(rng.integers(1, sets + 1)), int(rng.integers(1, 4))
        for _ in range(int(rng.integers(1, 4))):  # instructions
            heads = int(rng.integers(1, 12 // n_beats + 1))
            vectors = {}
            for which in range(n_sets):
                for head in range(heads):
                    vectors[head, which] = range(number, number + n_beats)
                    number += n_beats
                    place = {"set": which, "more": int(which < n_sets - 1)}
                    beats += [{"last": int(n == n_beats - 1), "keep": n} | place for n in range(n_beats)]
            expected += [n for key in sorted(vectors) for n in vectors[key]]
    numbered = [beat | {"keep": n % 16} for n, beat in enumerate(beats)]
    _, given = run(
        dut,
        lambda ctx: put(ctx, dut.i, numbered, rng, share),
        lambda ctx: take(ctx, dut.o, len(expected), rng, share, dut.o.p.keep),
    )
    assert given == [n % 16 for n in expected]
