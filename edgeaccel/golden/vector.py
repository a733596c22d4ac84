"""Reductions and products of the vector unit in NumPy, on FP32 codes.

A vector is an array of codes. Nothing here knows lanes but `beats`, which cuts vectors into what the units take.
"""

import numpy as np

from edgeaccel.golden.float import add, decode, encode, multiply
from edgeaccel.golden.function import evaluate

__all__ = ["beats", "gated", "maximum", "relu", "top_k", "total"]

NEGATIVE_ZERO = np.uint32(1 << 31)


def beats(vectors, lanes, max_length, *, filler=0):
    """Vectors as beats.

    Parameters
    ----------
    vectors : list of integer arrays
        FP32 codes.
    lanes : int
        Elements of a beat.
    max_length : int
        Longest vector that the units take.
    filler : int
        Code in the lanes that a last beat does not fill.

    Returns
    -------
    dict of arrays: elements [beats, lanes], keep [beats], last [beats]

    Raises
    ------
    ValueError
        If a vector is empty or too long.
    """
    elements, keep, last = [], [], []
    for number, vector in enumerate(vectors):
        if not 1 <= len(vector) <= max_length:
            raise ValueError(f"vector {number} must have 1 to {max_length} elements, not {len(vector)}")
        n_beats = -(-len(vector) // lanes)
        padded = np.full(n_beats * lanes, filler, np.uint32)
        padded[: len(vector)] = vector
        elements.append(padded.reshape(n_beats, lanes))
        held = np.arange(n_beats * lanes).reshape(n_beats, lanes) < len(vector)
        keep.append(held @ (1 << np.arange(lanes, dtype=np.uint64)))
        last.append(np.arange(n_beats) == n_beats - 1)
    return {"elements": np.concatenate(elements), "keep": np.concatenate(keep), "last": np.concatenate(last)}


def relu(codes):
    """Codes of max(x, +0); a NaN stays as it is."""
    codes = np.asarray(codes, np.uint32)
    with np.errstate(invalid="ignore"):
        numbers = codes.view(np.float32)
        return np.where((numbers > 0) | np.isnan(numbers), codes, 0).astype(np.uint32)


def gated(function, gate, up):
    """Codes of function(gate) * up, with the name of a function of `edgeaccel.golden.function`."""
    return multiply(evaluate(function, np.ravel(gate)).reshape(np.shape(gate)), up)


def total(codes, *, square=False):
    """Code of the sum of a vector, or of its squares: neighbours are added until one is left."""
    sums = np.asarray(multiply(codes, codes) if square else codes, np.uint32)
    while len(sums) > 1 or codes is not None:
        codes = None
        odd = sums[len(sums) & ~1 :]
        pairs = sums[: len(sums) & ~1].reshape(-1, 2)
        sums = np.append(add(pairs[:, 0], pairs[:, 1]), add(odd, NEGATIVE_ZERO)).astype(np.uint32)
    return int(sums[0])


def maximum(codes):
    """(code, place) of the largest element, NaN before all numbers, the first of equals."""
    numbers = decode(codes)
    place = int(np.argmax(numbers))
    return int(encode(numbers[place] + 0.0)), place


def top_k(codes, k):
    """(codes, places) of the k largest elements, or of all if there are fewer, each the `maximum` of what is left."""
    numbers = decode(codes)
    # Python's sort is stable; NaN first, then descending.
    places = sorted(range(len(numbers)), key=lambda n: (not np.isnan(numbers[n]), -numbers[n]))[:k]
    return encode(numbers[places] + 0.0).astype(np.uint32), np.array(places)
