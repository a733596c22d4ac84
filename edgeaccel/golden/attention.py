"""Attention over a quantised cache in NumPy, on FP32 codes: what the engine gives.

A chunk of positions at a time: keys times queries, weights of their values (`golden.scores`), values times weights,
summed over the chunks (`golden.values`).
"""

import numpy as np

from edgeaccel.golden import float as golden_float
from edgeaccel.golden import scores as golden_scores
from edgeaccel.golden import values as golden_values
from edgeaccel.golden.pe import align

__all__ = ["attend", "bounds", "product"]


def bounds(counts, window):
    """(lo, hi) of each row, the positions that it sees: the last `window` of its first `count`, or all if 0."""
    counts = np.asarray(counts)
    return np.maximum(counts - window, 0) if window else np.zeros_like(counts), counts


def product(config, matrix, scales, inputs):
    """Codes [channels, rows] of a matrix times rows of inputs, as the array gives them.

    Parameters
    ----------
    config : Config
        `block` and `mantissa_bits`.
    matrix : int [channels, inputs]
    scales : FP16 codes [channels]
        The same for all blocks of inputs.
    inputs : FP32 codes [rows, inputs]
    """
    numbers = golden_float.decode(inputs)
    total = None
    for begin in range(0, matrix.shape[1], config.block):
        part = slice(begin, begin + config.block)
        aligned = [align(row, "fp32", config.mantissa_bits) for row in numbers[:, part]]
        mantissas, exponents, nans = (np.array(each) for each in zip(*aligned, strict=True))
        sums = matrix[:, part].astype(np.int64) @ mantissas.T
        term = golden_float.scale(sums, scales[:, None], exponents, nan=nans)
        total = term if total is None else golden_float.add(total, term)
    return total.astype(np.uint32)


def attend(config, queries, keys, values, *, counts, window=0, factor):
    """Codes [rows, head_dim] of what rows of queries get from a head's cache.

    Parameters
    ----------
    config : Config
    queries : FP32 codes [rows, head_dim]
    keys, values : (int [positions, head_dim], FP16 codes [positions])
        Codes and scales of the cache; positions past the largest count do not matter.
    counts : int [rows]
        Positions that each row sees, from the first on.
    window : int
        If not 0, a row sees only the last so many of them.
    factor : FP32 code
        Of the scores: log2(e), times what they are to be multiplied by.

    Raises
    ------
    ValueError
        If a row would see no position.
    """
    rows, head_dim = queries.shape
    counts = np.asarray(counts)
    if counts.min() < 1:
        raise ValueError(f"each row must see a position at least, not {counts.tolist()}")
    lo, hi = bounds(counts, window)
    one = np.full(head_dim, 0x3C00)
    running, shifts, totals = np.zeros(rows, np.uint32), np.zeros(rows, int), np.zeros(rows, np.uint32)
    sums = np.zeros((rows, head_dim), np.uint32)
    first_chunk = lo.min() // config.block * config.block
    for begin in range(first_chunk, counts.max(), config.block):
        part = slice(begin, min(begin + config.block, counts.max()))
        first = begin == first_chunk
        scores = product(config, keys[0][part], keys[1][part], queries)
        weights = np.zeros((rows, part.stop - begin), np.uint32)
        for row in range(rows):
            unit = golden_scores.weights(
                scores[:, row], values[1][part], lo[row] - begin, hi[row] - begin, factor, running[row], first
            )
            weights[row], running[row], shifts[row] = unit.weights, unit.maximum, unit.shift
            totals[row] = golden_values.accumulate_sum(totals[row], unit.sum, unit.shift, first)
        results = product(config, values[0][part].T, one, weights)
        sums = golden_values.accumulate(sums, results.T, shifts[:, None], first)
    return golden_values.finish(sums, totals[:, None])
