"""Logits to memory, and the first of the largest: several stores in a row, ties, NaN, -0, bad responses."""

import numpy as np
import pytest
from test_soc_parameters import MEMORY_BYTES, MODEL, bundle, memories, random_content
from test_soc_share import MACHINES, STALLED, closed, columns, run, stalls_of

from edgeaccel.golden import vector as golden_vector
from edgeaccel.memory import axi
from edgeaccel.memory.block import BlockErrorCode
from edgeaccel.sim.system import Memory
from edgeaccel.sim.vectors import codes, generator, random_codes

N_CYCLES = 4000
KINDS = {
    "any": None,
    "ties": [1.0, 0.5, 1.0, -3.0],
    "zeros": [0.0, -0.0],
    "negative": [-1.0, -2.0, -0.5, -np.inf],
    "infinite": [np.inf, -np.inf, 3e38],
    "nan": [np.nan, 1.0, np.inf],
    "subnormal": [1e-45, -1e-45, -0.0, 2e-45],
}


def random_logits(rng, n, kind):
    return random_codes(rng, n) if KINDS[kind] is None else codes(rng.choice(KINDS[kind], n))


class Stores:
    """Of some batches' logits, each in several instructions: the beats, the memory behind them, and the tokens.

    A batch is a list of (vectors, channels of each).
    """

    def __init__(self, rng, machine, batches, content, *, kinds=tuple(KINDS), gap=8):
        self.lanes = machine.config.vector_lanes
        self.beats, self.blocks, self.tokens = [], [], []
        self.content, self.gap = content.copy(), gap
        self.place = 4 * int(rng.integers(0, 8))
        for batch in batches:
            logits = random_logits(rng, sum(vectors * channels for vectors, channels in batch), str(rng.choice(kinds)))
            self.tokens.append(golden_vector.maximum(logits)[1])
            for number, (vectors, channels) in enumerate(batch):
                own, logits = logits[: vectors * channels].reshape(vectors, channels), logits[vectors * channels :]
                self._store(rng, own, number == 0, number == len(batch) - 1)

    def _store(self, rng, own, is_first, is_last):
        start = self.place
        self.content[start : start + 4 * own.size] = np.ascontiguousarray(own, "<u4").view(np.uint8).ravel()
        for vector, one in enumerate(own):
            self.blocks.append((start + 4 * vector * own.shape[1], 4 * own.shape[1]))
            beats = golden_vector.beats([one], self.lanes, 64, filler=int(codes(np.nan)))
            for n in range(len(beats["last"])):
                self.beats.append(
                    {
                        "elements": beats["elements"][n],
                        "keep": int(beats["keep"][n]),
                        "last": int(beats["last"][n]),
                        "address": start,
                        "channels": own.shape[1],
                        "first": int(vector == 0),
                        "starts": int(is_first and vector == 0),
                        "ends": int(is_last and vector == len(own) - 1),
                    }
                )
        self.place = start + 4 * own.size + 4 * int(rng.integers(0, self.gap))
        assert self.place < MEMORY_BYTES

    def run(self, units, content, *, stalls=None, errors=(), values=None, n_tokens=None):
        self.memory = content.copy()
        return run(
            units,
            "logits",
            {"i": columns(self.beats)},
            len(self.tokens) if n_tokens is None else n_tokens,
            stalls=stalls,
            values=values,
            memories=memories(logits=Memory(model=MODEL, content=self.memory, errors=list(errors))),
            n_cycles=N_CYCLES,
            record=True,
        )

    @property
    def first_beats(self):
        """Whether a beat is its vector's first."""
        last = np.array([beat["last"] for beat in self.beats])
        return np.append(1, last[:-1]) == 1


def random_batches(rng, n):
    channels = [1, 2, 3, 7, 8, 9, 16, 33, 64]
    return [
        [(int(rng.integers(1, 4)), int(rng.choice(channels))) for _ in range(int(rng.integers(1, 4)))] for _ in range(n)
    ]


def check_idle(stores, result):
    """It is idle when all vectors that came are written, and that has been answered; and so it is at the end."""
    idle = result.watched["logits_idle"]
    writes = result.ports["logits_m_axi"].writes
    starts, answers = writes.bursts["address"].astype(np.int64), writes.cycles
    came = result.cycles["i"][stores.first_beats]
    ends = np.array([answers[(starts >= at // 16 * 16) & (starts < at + size)].max() for at, size in stores.blocks])
    busy = np.zeros(N_CYCLES + 1, int)
    np.add.at(busy, came + 1, 1)
    np.add.at(busy, ends + 1, -1)
    busy = busy.cumsum()[:N_CYCLES] > 0
    assert not idle[busy].any()
    assert idle[ends.max() + 4 :].all()
    assert ends.max() + 4 < N_CYCLES


@MACHINES
@STALLED
def test_logits(sizes, stalled):
    """Memory, tokens, and `idle`; a vector takes a cycle for its command, and one for each beat."""
    machine, units = bundle(**sizes)
    rng = generator([560, stalled])
    content = random_content(rng)
    stores = Stores(rng, machine, random_batches(rng, 16), content)
    stalls = {}
    if stalled:
        stalls = stalls_of(rng, units, "logits")
        stalls |= {f"m_axi_{name}": np.repeat(rng.random(500) < 0.7, 4) for name in ("aw", "w", "b")}
    result = stores.run(units, content, stalls=stalls)
    np.testing.assert_array_equal(result.results["o"]["token"], stores.tokens)
    np.testing.assert_array_equal(stores.memory, stores.content)
    check_idle(stores, result)


def test_a_beat_a_cycle():
    """One long vector, and many of them: as the docstring says."""
    machine, units = bundle()
    rng = generator(561)
    content = random_content(rng)
    stores = Stores(rng, machine, [[(6, 64)]], content)
    result = stores.run(units, content)
    np.testing.assert_array_equal(np.diff(result.cycles["i"]), 1 + stores.first_beats[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_the_largest(kind):
    """In vectors of one, of several beats, and across vectors and instructions."""
    machine, units = bundle()
    rng = generator([562, list(KINDS).index(kind)])
    content = random_content(rng)
    batches = [[(1, 1)], [(1, 7)], [(5, 1)], [(3, 2), (1, 9)], [(1, 64), (2, 33)], [(2, 3), (2, 3), (2, 3)]]
    stores = Stores(rng, machine, 3 * batches, content, kinds=(kind,))
    result = stores.run(units, content)
    np.testing.assert_array_equal(result.results["o"]["token"], stores.tokens)


def test_tokens_by_hand():
    """The reference too is held to cases that are known."""
    machine, units = bundle()
    rng = generator(563)
    content = random_content(rng)
    cases = [
        ([0.0, -0.0, -1.0], 0),
        ([-0.0, 0.0], 0),
        ([-1.0, -0.0, 0.0], 1),
        ([1.0, np.nan, 2.0, np.nan], 1),
        ([-np.inf, -np.inf], 0),
        ([-3e38, -np.inf, 1.0, 1.0, 0.5, 1.0], 2),
        ([np.inf, np.nan], 1),
    ]
    stores = Stores(rng, machine, [], content)
    for numbers, token in cases:
        stores._store(rng, codes([numbers]), True, True)
        stores.tokens.append(token)
        # The same as vectors of one element, which instructions of one vector give.
        for n, number in enumerate(numbers):
            stores._store(rng, codes([[number]]), n == 0, n == len(numbers) - 1)
        stores.tokens.append(token)
    result = stores.run(units, content)
    assert result.results["o"]["token"].tolist() == stores.tokens
    assert [golden_vector.maximum(codes(numbers))[1] for numbers, _ in cases] == [token for _, token in cases]


def test_a_token_that_is_not_taken():
    """Holds up the logits behind it in the end, and none of them is lost."""
    machine, units = bundle()
    rng = generator(564)
    content = random_content(rng)
    stores = Stores(rng, machine, 90 * [[(1, 1)]], content, gap=1)
    result = stores.run(units, content, stalls={"o": closed(1000)})
    assert result.cycles["i"][-1] > 1000
    np.testing.assert_array_equal(result.results["o"]["token"], stores.tokens)
    np.testing.assert_array_equal(stores.memory, stores.content)


@pytest.mark.parametrize("n_beats", [1, 2, 5])
def test_not_idle_with_logits_at_the_door(n_beats):
    """From the cycle on in which the first beat is offered, not only from that in which it is taken."""
    machine, units = bundle()
    rng = generator(565)
    content = random_content(rng)
    stores = Stores(rng, machine, [[(1, machine.config.vector_lanes * n_beats)]], content)
    result = stores.run(units, content, stalls={"i": closed(50)})
    idle = result.watched["logits_idle"]
    answered = int(result.ports["logits_m_axi"].writes.cycles[-1])
    assert idle[:50].all()
    assert not idle[50 : answered + 1].any()
    assert idle[answered + 4 :].all()


@pytest.mark.parametrize("bad", ["SLVERR", "DECERR"])
def test_bad_response(bad):
    """It is told, and nothing is idle any more; `clear` makes all as at first, the search for the largest too."""
    machine, units = bundle()
    rng = generator([566, bad == "SLVERR"])
    content = random_content(rng)
    stores = Stores(rng, machine, [[(1, 8), (1, 8), (1, 5)]], content)
    stores.beats = stores.beats[:10]  # one that was begun, and ends in the middle of its last vector
    address = stores.blocks[1][0] // 16 * 16
    errors = [(address, address + 1, bad)]
    result = stores.run(units, content, errors=errors, n_tokens=0)
    error = result.outputs["error"]
    assert error == {
        "valid": 1,
        "code": BlockErrorCode.RESPONSE.value,
        "response": axi.Response[bad].value,
        "address": address,
        "command": 1,
    }
    assert not result.outputs["idle"]

    stores.tokens = []
    stores.place = 2048
    for numbers in ([-5.0, -4.0, -4.0], [2.0]):
        stores._store(rng, codes([numbers]), True, True)
    stores.tokens = [1, 0]
    stalls = {"i": np.append(np.ones(result.cycles["i"][-1] + 1, bool), closed(1000))}
    result = stores.run(units, content, errors=errors, stalls=stalls, values={"clear": {800: 1, 801: 0}})
    assert result.results["o"]["token"].tolist() == stores.tokens
    assert not result.outputs["error"]["valid"]
    assert result.watched["logits_idle"][801:1000].all()
    assert result.outputs["idle"]
    for at, size in stores.blocks[-2:]:
        np.testing.assert_array_equal(stores.memory[at : at + size], stores.content[at : at + size])
