"""Scores of a unit to weights of its values in NumPy, on FP32 codes: what the path gives, and after how many cycles.

A unit is up to a block of consecutive positions of a slot: one beat or several. A slot has its own running maximum.
"""

from typing import NamedTuple

import numpy as np

from edgeaccel.golden import softmax, vector
from edgeaccel.golden.float import decode, encode, multiply

__all__ = ["Unit", "weights"]

MINUS_INFINITY = 0xFF800000


class Unit(NamedTuple):
    """Of a row: codes of the weights, of the slot's maximum from this unit on, and of the powers' sum; the shift."""

    weights: np.ndarray
    maximum: int
    shift: int
    sum: int


def weights(scores, scales, lo, hi, factor, running, first):
    """The `Unit` of a row.

    Parameters
    ----------
    scores : FP32 codes
        As the array gives them. Positions that are not there count as masked, so whether a last beat is filled up
        changes nothing.
    scales : FP16 codes
        Of the values at the same positions.
    lo, hi : int
        Position `k` counts if lo <= k < hi.
    factor : FP32 code
    running : FP32 code
        The slot's maximum before this unit; any if `first`.
    first : bool
        Whether the slot begins with this unit.
    """
    place = np.arange(len(scores))
    is_valid = (lo <= place) & (place < hi)
    scaled = np.where(is_valid, multiply(scores, factor), MINUS_INFINITY).astype(np.uint32)
    largest = decode(softmax.maxima(scaled, len(scaled))[0][0])
    before = largest if first else decode(running)
    maximum = int(encode(np.maximum(largest, before) + 0.0))
    shift = 0 if first else int(softmax.shift(running, maximum))
    powers = np.where(is_valid, softmax.powers(scaled, maximum), 0).astype(np.uint32)
    weighted = np.where(is_valid, multiply(powers, scales, b_format="fp16"), 0).astype(np.uint32)
    return Unit(weighted, maximum, shift, vector.total(powers))
