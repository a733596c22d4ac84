"""Where vectors go behind the epilogue: each to the places that its instruction names, under stalls."""

from functools import cache

import numpy as np
import pytest
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

from edgeaccel.golden import vector as golden_vector
from edgeaccel.sim.vectors import generator, random_codes
from edgeaccel.soc.command import vector_job
from edgeaccel.soc.results import BEATS, ResultSplit

N_CYCLES = 3000
PLACES = ("to_vector", "to_buffer", "to_cache", "to_logits")


@cache
def bundle(**sizes):
    machine = small_machine(**sizes)
    return machine, Bundle({"split": ResultSplit(machine)}, ("split.done",))


def random_jobs(rng, machine, n):
    """Instructions: vectors that end within a beat, in steps of any size, for any of the places, or for none."""
    config = machine.config
    jobs = []
    for number in range(n):
        places = {name: int(rng.random() < 0.5) for name in PLACES}
        jobs.append(
            random_fields(
                rng,
                vector_job(machine),
                vectors=int(rng.integers(1, 8)),
                channels=int(rng.choice([1, 2, 7, 8, 9, 15, 16, 17])),
                rows=int(rng.integers(1, config.rows + 1)),
                # So that most of them go round all rows, and begin anew at the next head, before they end.
                ratio=int(rng.integers(1, 8)),
                vector=int(rng.integers(0, machine.vector_words)),
                address=int(rng.integers(0, config.buffer_words)),
                stride=int(rng.integers(0, machine.vector_words)),
                **(dict.fromkeys(PLACES, 1) if number == 1 else places),
            )
        )
    return jobs


class Split:
    """Of some jobs: the beats that come, and those that go to each place, in NumPy.

    `whose` are the numbers of the jobs of all beats; `ends` marks the last of each.
    """

    def __init__(self, rng, machine, jobs):
        config = machine.config
        rows, lanes = config.rows, config.vector_lanes
        self.beats, self.whose, self.ends = [], [], []
        self.out = {"o_vectors": [], "o_loads": [], "o_cache": [], "o_logits": []}
        for number, job in enumerate(jobs):
            for vector in range(job["vectors"]):
                codes = random_codes(rng, rows * job["channels"]).reshape(rows, -1)
                by_row = [golden_vector.beats([row], lanes, 64, filler=int(rng.integers(0, 1 << 32))) for row in codes]
                n_beats = len(by_row[0]["last"])
                for beat in range(n_beats):
                    elements = np.stack([one["elements"][beat] for one in by_row]).astype(np.int64)
                    one = {
                        "elements": elements,
                        "keep": int(by_row[0]["keep"][beat]),
                        "last": int(beat == n_beats - 1),
                    }
                    held = codes[:, beat * lanes : (beat + 1) * lanes]
                    padded = np.zeros((rows, lanes), np.int64)
                    padded[:, : held.shape[1]] = held
                    ends = one["last"] and vector == job["vectors"] - 1
                    self.beats.append(one)
                    self.whose.append(number)
                    self.ends.append(bool(ends))
                    self._give(machine, job, vector, beat, one, padded, int(ends))
        self.whose, self.ends = np.array(self.whose), np.array(self.ends)

    def _give(self, machine, job, vector, beat, one, padded, ends):
        config, rows = machine.config, machine.config.rows
        if job["to_vector"]:
            address = (job["vector"] + vector * job["stride"] + beat) % machine.vector_words
            self.out["o_vectors"].append({"address": address, "elements": padded, "last": ends})
        if job["to_buffer"]:
            place, marks, elements = vector, (1 << rows) - 1, padded
            if job["spread"]:
                # A head's queries side by side: its places, and those of the heads before it.
                head, query = divmod(vector, job["ratio"])
                place = head * -(-job["ratio"] // rows) + query // rows
                marks, elements = 1 << query % rows, np.repeat(padded[:1], rows, axis=0)
            load = {
                "address": (job["address"] + place * job["stride"] + beat) % config.buffer_words,
                "elements": elements,
                "rows": marks,
                "event": job["event"] & ends,
            }
            self.out["o_loads"].append({"load": load, "gain": job["gain"]})
        if job["to_cache"]:
            self.out["o_cache"].append(one)
        if job["to_logits"]:
            is_first, is_last = vector == 0, vector == job["vectors"] - 1
            self.out["o_logits"].append(
                {
                    "elements": padded[job["rows"] - 1],
                    "keep": one["keep"],
                    "last": one["last"],
                    "address": job["logits"],
                    "channels": job["channels"],
                    "first": int(is_first),
                    "starts": job["starts"] & is_first,
                    "ends": job["ends"] & is_last,
                }
            )

    def run(self, units, jobs, stalls):
        counts = {name: len(items) for name, items in self.out.items()}
        inputs = {"i_jobs": columns(jobs), "i": columns(self.beats)}
        result = run(units, "split", inputs, counts, stalls=stalls, n_cycles=N_CYCLES)
        for name, items in self.out.items():
            assert_items(result.results[name], columns(items))
        # It writes as it takes a beat, and tells that it is done in the cycle in which the last one goes.
        goes = np.isin(self.whose, [n for n, job in enumerate(jobs) if job["to_vector"]])
        np.testing.assert_array_equal(result.cycles["o_vectors"], result.cycles["i"][goes])
        (done,) = np.nonzero(result.watched["split_done"])
        np.testing.assert_array_equal(done, result.cycles["i"][self.ends])
        return result


@MACHINES
@STALLED
def test_split(sizes, stalled):
    machine, units = bundle(**sizes)
    rng = generator([520, stalled])
    jobs = random_jobs(rng, machine, 40)
    split = Split(rng, machine, jobs)
    stalls = stalls_of(rng, units, "split") if stalled else {}
    stalls.pop("o_vectors", None)  # always ready
    result = split.run(units, jobs, stalls)
    if not stalled:  # one beat a cycle, to all places
        np.testing.assert_array_equal(result.cycles["i"], 1 + np.arange(len(split.beats)))
        for name, place in (("o_loads", "to_buffer"), ("o_cache", "to_cache"), ("o_logits", "to_logits")):
            goes = np.isin(split.whose, [n for n, job in enumerate(jobs) if job[place]])
            np.testing.assert_array_equal(result.cycles[name], result.cycles["i"][goes] + 1)


@pytest.mark.parametrize("name", ["loads", "cache", "logits"])
def test_only_those_wait_that_go_there(name):
    """A place that takes nothing holds up what goes there, once its queue is full, and nothing else before that."""
    machine, units = bundle()
    rng = generator(521)
    jobs = random_jobs(rng, machine, 3)
    place = {"loads": "to_buffer", "cache": "to_cache", "logits": "to_logits"}[name]
    for number, job in enumerate(jobs):
        job |= dict.fromkeys(PLACES, 1) | {place: int(number == 1), "vectors": 3, "channels": 16}
    split = Split(rng, machine, jobs)
    result = split.run(units, jobs, {f"o_{name}": closed(200)})
    cycles, whose = result.cycles["i"], split.whose
    np.testing.assert_array_equal(cycles[whose == 0], 1 + np.arange((whose == 0).sum()))
    assert (cycles[whose == 1] < 200).sum() == BEATS
    assert cycles[whose == 2][0] > 200
