"""What goes into the path behind the array: beats of results or of zeros, and the steps of each vector."""

from functools import cache

import numpy as np
from amaranth.hdl import Shape
from test_soc_share import (
    MACHINES,
    STALLED,
    Bundle,
    assert_items,
    closed,
    columns,
    random_fields,
    run,
    small_machine,
    stalls_of,
)

from edgeaccel.sim.vectors import generator, random_codes
from edgeaccel.soc.command import vector_job
from edgeaccel.soc.steps import JOBS, StepControl, VectorSource, beats_of, result_path, tiles_of


@cache
def bundle(**sizes):
    machine = small_machine(**sizes)
    parts = {"source": VectorSource(machine), "control": StepControl(machine, result_path(machine))}
    return machine, Bundle(parts)


def test_sizes_of_vectors():
    config = small_machine(vector_lanes=4).config
    for channels in range(1, 100):
        assert beats_of(config, channels) == -(-channels // 4)
        assert tiles_of(config, channels) == -(-channels // 8)


def random_sources(rng, machine, n):
    """Jobs, the beats that the array gives for them, and those that go on with whose they are."""
    config = machine.config
    jobs = [
        {
            "zeros": int(rng.random() < 0.4),
            "vectors": int(rng.integers(1, 4)),
            # To the end of a tile, a channel more or less, or anywhere.
            "channels": int(np.clip(rng.choice([8, 16]) + rng.choice([-1, 0, 1, rng.integers(-7, 30)]), 1, 64)),
        }
        for _ in range(n)
    ]
    jobs[0] |= {"channels": 1, "vectors": 1}
    beats_of_tile = config.tile_channels // config.vector_lanes
    n_beats = np.array([job["vectors"] * -(-job["channels"] // config.tile_channels) * beats_of_tile for job in jobs])
    from_array = np.repeat([not job["zeros"] for job in jobs], n_beats)
    total = from_array.sum()
    values = random_codes(rng, total * config.rows * config.vector_lanes)
    beats = {
        "values": values.reshape(total, config.rows, config.vector_lanes),
        "last": rng.integers(0, 2, total),
    }
    out = {name: np.zeros((len(from_array), *items.shape[1:]), np.int64) for name, items in beats.items()}
    for name, items in beats.items():
        out[name][from_array] = items
    return jobs, beats, out, from_array


@MACHINES
@STALLED
def test_source(sizes, stalled):
    """Zeros do not wait for the array, and the array's beats go through without a register, one a cycle."""
    machine, units = bundle(**sizes)
    rng = generator([510, stalled])
    jobs, beats, out, from_array = random_sources(rng, machine, 60)
    stalls = stalls_of(rng, units, "source") if stalled else {}
    result = run(units, "source", {"i_jobs": columns(jobs), "i": beats}, len(from_array), stalls=stalls)
    assert_items(result.results["o"], out)
    np.testing.assert_array_equal(result.cycles["i"], result.cycles["o"][from_array])
    if not stalled:
        np.testing.assert_array_equal(result.cycles["o"], 1 + np.arange(len(from_array)))


def test_zeros_need_no_results():
    _, units = bundle()
    jobs = {"zeros": [1, 1, 0], "vectors": [2, 1, 1], "channels": [9, 1, 8]}
    beats = {"values": np.ones((4, 3, 2), int), "last": np.zeros(4, int)}
    result = run(units, "source", {"i_jobs": jobs, "i": beats}, 24, stalls={"i": closed(100)})
    np.testing.assert_array_equal(result.cycles["o"], [*range(1, 21), *range(100, 104)])
    assert not result.results["o"]["values"][:20].any()
    assert (result.results["o"]["values"][20:] == 1).all()


def random_vectors(rng, machine, n):
    """Jobs, the statistics that they take, and the steps of each vector."""
    rows = machine.config.rows
    asked = result_path(machine).i_steps.p.shape()
    jobs, statistics, steps, factor = [], [], [], None
    for number in range(n):
        job = random_fields(
            rng,
            vector_job(machine),
            vectors=int(rng.integers(1, 5)),
            take=int(number == 0 or rng.random() < 0.4),
            rows=int(rng.integers(1, rows + 1)),
        )
        for name, field in asked:
            if name != "factor":
                job[name] &= (1 << Shape.cast(field.shape).width) - 1
        if job["take"]:
            factor = random_codes(rng, rows).tolist()
            statistics.append([{"scale": code} for code in factor])
        own = {name: job[name] for name in asked.members if name != "factor"} | {"factor": factor}
        jobs.append(job)
        steps += job["vectors"] * [own]
    return jobs, {"scale": np.array([[row["scale"] for row in item] for item in statistics])}, steps


@MACHINES
@STALLED
def test_control(sizes, stalled):
    """The 1/rms that was taken stays until the next is."""
    machine, units = bundle(**sizes)
    rng = generator([511, stalled])
    jobs, statistics, steps = random_vectors(rng, machine, 60)
    stalls = stalls_of(rng, units, "control") if stalled else {}
    result = run(units, "control", {"i": columns(jobs), "i_statistics": statistics}, len(steps), stalls=stalls)
    assert_items(result.results["o"], columns(steps))


def test_control_waits_for_what_it_takes():
    """Vectors that take nothing go on with what was taken; one that takes waits, and holds up those behind it."""
    machine, units = bundle()
    rng = generator(512)
    jobs, _, _ = random_vectors(rng, machine, 14)
    for number, job in enumerate(jobs):
        job |= {"take": int(number in (0, 9)), "vectors": 1}
    factors = random_codes(rng, 6).reshape(2, 3)
    result = run(
        units,
        "control",
        {"i": columns(jobs), "i_statistics": {"scale": factors}},
        14,
        stalls={"i_statistics": np.arange(200) == 0},
    )
    np.testing.assert_array_equal(result.results["o"]["factor"], np.repeat(factors, [9, 5], axis=0))
    given = result.cycles["o"]
    assert given[8] < 20
    assert given[9] > 200
    assert given[13] < 220


def test_jobs_in_advance():
    """As many wait as there is room for while the path takes nothing."""
    machine, units = bundle()
    rng = generator(513)
    jobs, _, _ = random_vectors(rng, machine, 8)
    for job in jobs:
        job |= {"take": 0, "vectors": 1}
    result = run(
        units, "control", {"i": columns(jobs), "i_statistics": {"scale": np.zeros((0, 3))}}, 8, stalls={"o": closed(50)}
    )
    assert (result.cycles["i"] < 50).sum() == JOBS
    jobs = {"zeros": [1] * 8, "vectors": [1] * 8, "channels": [1] * 8}
    inputs = {"i_jobs": jobs, "i": {"values": np.zeros((0, 3, 2)), "last": np.zeros(0)}}
    result = run(units, "source", inputs, 32, stalls={"o": closed(50)})
    assert (result.cycles["i_jobs"] < 50).sum() == JOBS
