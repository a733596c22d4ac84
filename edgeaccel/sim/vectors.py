"""Vectors for the benches of the vector unit, and the traffic that they make."""

import numpy as np

from edgeaccel.golden import vector as golden
from edgeaccel.golden.timing import Pattern, pipeline_cycles

__all__ = ["assert_pipeline", "codes", "generator", "patterns", "random_codes", "random_lengths", "traffic"]

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3e38, -3e38], np.float32)


def generator(seed):
    """Random numbers of a seed that the report of a failure shows."""
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def codes(numbers):
    """FP32 codes of numbers."""
    return np.asarray(numbers, np.float32).view(np.uint32)


def random_codes(rng, n, *, special=0.02):
    """FP32 codes: numbers of all magnitudes that matter, any code at all, and a share of special values."""
    numbers = np.ldexp(rng.standard_normal(n), rng.integers(-8, 8, n)).astype(np.float32).view(np.uint32)
    numbers = np.where(rng.random(n) < special, rng.choice(SPECIAL, n).view(np.uint32), numbers)
    return np.where(rng.random(n) < special, rng.integers(0, 1 << 32, n, dtype=np.uint32), numbers)


def random_lengths(rng, n, lanes, max_length):
    """Lengths of vectors: 1, the longest, about multiples of the lanes, any."""
    any_length = rng.integers(1, max_length + 1, n)
    near = rng.integers(0, max_length // lanes + 1, n) * lanes + rng.integers(-1, 2, n)
    short = rng.integers(1, 2 * lanes + 1, n)
    lengths = np.choose(rng.integers(0, 4, n), [any_length, near, short, short])
    lengths[:2] = 1, max_length
    return np.clip(lengths, 1, max_length)


def traffic(rng, lanes, max_length, n_vectors, *, special=0.02):
    """Random vectors and their beats, with any code in the lanes that hold no element."""
    lengths = random_lengths(rng, n_vectors, lanes, max_length)
    # Special values make most of a sum NaN: not in every vector.
    vectors = [random_codes(rng, n, special=special * (rng.random() < 0.4)) for n in lengths]
    return vectors, golden.beats(vectors, lanes, max_length, filler=int(rng.integers(0, 1 << 32)))


def patterns(stalls, *names):
    """Stall patterns of streams; none where there are no stalls."""
    return [Pattern(stalls.get(name, ())) for name in names]


def assert_pipeline(unit, result, stalls, sources, *, emits=None):
    """The cycles of a `Pipelined` unit, of whose inputs `sources` are the names, are those of the golden timing."""
    n_items = len(result.cycles[sources[0]])
    take, taken = pipeline_cycles(
        n_items,
        patterns(stalls, *sources),
        *patterns(stalls, "o"),
        latency=unit.latency,
        credits=unit.credits,
        emits=emits,
    )
    for name in sources:
        np.testing.assert_array_equal(result.cycles[name], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
