"""Golden models and hardware know nothing of each other; and the cycle model of nets by hand."""

import subprocess
import sys

import numpy as np
import pytest

from edgeaccel.golden.elastic import Move, Source, Store, buffered, pipe, queue, run
from edgeaccel.golden.timing import Pattern, pipeline_cycles

GOLDEN = ("elastic", "epilogue", "norm", "quantise", "rotary", "softmax", "two_pass", "vector")
UNITS = ("epilogue", "norm", "quantise", "reduce", "rotary", "softmax", "topk", "two_pass")


def loaded_with(*names):
    """Modules that a fresh Python has after importing some."""
    program = f"import sys, {', '.join(names)}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_golden_models_load_no_hardware():
    loaded = loaded_with(*(f"edgeaccel.golden.{name}" for name in GOLDEN))
    assert not [name for name in loaded if name.startswith(("amaranth", "edgeaccel.vector", "edgeaccel.pe"))]


def test_hardware_loads_no_golden_models():
    loaded = loaded_with(*(f"edgeaccel.vector.{name}" for name in UNITS))
    assert not [name for name in loaded if name.startswith("edgeaccel.golden")]


def test_pipe_is_the_pipeline_of_the_other_model():
    rng = np.random.default_rng(180)
    for _ in range(50):
        source, sink = (Pattern(rng.random(200) < rng.random()) for _ in range(2))
        latency, credits = int(rng.integers(1, 9)), int(rng.integers(1, 12))
        emits = rng.random(60) < 0.5
        store = pipe(latency, credits)
        cycles = run(
            [
                Move([Source(source)], [(store, emits)], turns=60),
                Move([store], [], turns=int(emits.sum()), sink=sink),
            ]
        )
        expected = pipeline_cycles(60, [source], sink, latency=latency, credits=credits, emits=emits)
        for own, other in zip(cycles, expected, strict=True):
            np.testing.assert_array_equal(own, other)


def test_queues_by_hand():
    """A queue of two offers a cycle later and is full for a cycle after it is read; the buffered one, two later."""
    late = Pattern([False] * 10)
    store = queue(2)
    put, taken = run([Move([Source(Pattern())], [store], turns=5), Move([store], [], turns=5, sink=late)])
    assert put.tolist() == [0, 1, 11, 12, 13]
    assert taken.tolist() == [10, 11, 12, 13, 14]
    inside, register, forward = buffered(3)
    put, _, taken = run(
        [Move([Source(Pattern())], [inside], turns=5), forward, Move([register], [], turns=5, sink=late)]
    )
    # Two in the memory, one in the register; the register is filled again in the cycle in which it is read.
    assert put.tolist() == [0, 1, 2, 11, 12]
    assert taken.tolist() == [10, 11, 12, 13, 14]


def test_a_net_that_is_stuck():
    """The second item wants what nobody puts."""
    empty, store = Store(1, 4), Store(1, 4)
    moves = [
        Move([Source(Pattern())], [store], turns=3),
        Move([store], [], choices=[(empty, np.array([False, True, False]))], turns=3),
    ]
    with pytest.raises(ValueError, match="move 1 is stuck after 1 of 3 turns"):
        run(moves)
