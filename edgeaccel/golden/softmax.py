"""Softmax with a running maximum in NumPy, on FP32 codes: what the units give, and after how many cycles."""

from typing import NamedTuple

import numpy as np

from edgeaccel.golden import function
from edgeaccel.golden.elastic import Move, Source, pipe, run
from edgeaccel.golden.float import add, decode, encode, multiply
from edgeaccel.golden.two_pass import Stage

__all__ = [
    "LOG2_E",
    "Online",
    "apply",
    "inverse",
    "maxima",
    "online",
    "online_cycles",
    "powers",
    "scale",
    "softmax",
    "softmax_cycles",
]

LOG2_E = 1.4426950408889634
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-126
MAX_SHIFT = 255
ADDER, MULTIPLIER = 5, 5  # register stages


class Online(NamedTuple):
    """Of a row: codes of all positions' powers, and of each chunk the maximum and the shift; 1/sum."""

    powers: np.ndarray
    maxima: np.ndarray
    shifts: np.ndarray
    inverse: int


def scale(scores, factor, count):
    """Codes of score * factor, -infinity from position `count` on."""
    return np.where(np.arange(len(scores)) < count, multiply(scores, factor), 0xFF800000).astype(np.uint32)


def maxima(scores, chunk):
    """(codes, shifts) of the running maximum after each chunk of a row of scores to base 2."""
    numbers = decode(scores)
    largest = np.array([numbers[n : n + chunk].max() for n in range(0, len(numbers), chunk)])
    running = np.maximum(np.ceil(largest) + 0.0, -LARGEST)
    for n in range(1, len(running)):
        running[n] = np.maximum(running[n], running[n - 1])
    codes = encode(running).astype(np.uint32)
    before = np.append(codes[:1], codes[:-1])
    return codes, shift(before, codes)


def shift(earlier, later):
    """Later - earlier, rounded to FP32, as a shift: 0 to 255, and 0 if it is NaN."""
    difference = decode(add(later, np.asarray(earlier, np.uint32) ^ np.uint32(1 << 31)))
    return np.nan_to_num(np.clip(difference, 0, MAX_SHIFT), nan=0).astype(int)


def powers(scores, maximum):
    """Codes of exp2(score - maximum)."""
    return function.evaluate("exp2", add(scores, np.asarray(maximum, np.uint32) ^ np.uint32(1 << 31)))


def inverse(codes, shifts):
    """Code of 1/sum of a row's powers; `shifts` has for each position the shift of a chunk that begins there, or 0."""
    sums, shifts = np.asarray(codes, np.uint32), np.asarray(shifts)
    while len(sums) > 1:
        odd = len(sums) & ~1
        earlier, later = sums[0:odd:2], sums[1:odd:2]
        number = decode(earlier) * 2.0 ** -shifts[1:odd:2].astype(float)
        earlier = encode(np.where(number < SMALLEST, 0.0, number))
        sums = np.append(add(earlier, later), sums[odd:]).astype(np.uint32)
        shifts = np.append(np.minimum(shifts[0:odd:2] + shifts[1:odd:2], MAX_SHIFT), shifts[odd:])
    result = int(function.evaluate("reciprocal", sums)[0])
    return 0 if result == 0x7F800000 else result


def online(scores, factor, count, chunk):
    """The `Online` softmax of a row."""
    scores = scale(scores, factor, count)
    codes, shifts = maxima(scores, chunk)
    chunk_of = np.arange(len(scores)) // chunk
    weights = powers(scores, codes[chunk_of])
    at_begin = np.where(np.arange(len(scores)) % chunk == 0, shifts[chunk_of], 0)
    return Online(weights, codes, shifts, inverse(weights, at_begin))


def apply(codes, maximum, inverse, last_maximum):
    """Codes of power * inverse * 2**(maximum - last_maximum)."""
    return multiply(codes, inverse, -shift(maximum, last_maximum))


def softmax(scores, factor, count, chunk):
    """Codes of the probabilities of a row."""
    row = online(scores, factor, count, chunk)
    of_position = row.maxima[np.arange(len(scores)) // chunk]
    return apply(row.powers, of_position, row.inverse, row.maxima[-1]).astype(np.uint32)


def scaler_latency():
    """Cycles from scores to scaled ones."""
    return MULTIPLIER + 1


def maximum_latency(lanes):
    """From a chunk's last beat to its maximum: order, lanes, beats, rounding up, chunks, the shift, queue."""
    return 1 + int(np.log2(lanes)) + 1 + 2 + 1 + (ADDER + 1) + 1


def powers_latency():
    """From scaled scores and the maximum to powers."""
    return ADDER + function.latency({"exp2"})


def sum_latency(lanes, max_length):
    """From a row's last beat to 1/sum: an adder a level, with a stage that pairs and one that shifts between beats."""
    levels = max(1, int(np.ceil(np.log2(max_length // lanes))))
    return ADDER * int(np.log2(lanes)) + (ADDER + 2) * levels + function.latency({"reciprocal"})


def applier_latency():
    """From powers and the row's 1/sum to probabilities: the shift, the product, queue."""
    return (ADDER + 1) + MULTIPLIER + 1


def _net(last, lanes, chunk, source):
    """Scaler and powers: (the move into the scaler, all moves, the store of powers)."""
    last = np.asarray(last, bool)
    place = 0
    ends_chunk = np.zeros(len(last), bool)
    for n in range(len(last)):
        place += 1
        ends_chunk[n] = last[n] or place == chunk // lanes
        place = 0 if ends_chunk[n] else place
    scaler = pipe(scaler_latency())
    stage = Stage(
        chunk // lanes, statistic_latency=maximum_latency(lanes), apply_latency=powers_latency(), last=ends_chunk
    )
    take = Move([Source(source)], [scaler], turns=len(last))
    return [take, Move([scaler], stage.entry), *stage.moves], stage.exit


def online_cycles(last, source, sink, row_sink, *, lanes, max_length, chunk):
    """Cycles of `edgeaccel.vector.softmax.OnlineSoftmax`: (take, taken, rows taken), by beats and by rows."""
    moves, weights = _net(last, lanes, chunk, source)
    total = pipe(sum_latency(lanes, max_length))
    moves += [
        Move([weights], [(total, last)], turns=len(last), sink=sink),
        Move([total], [], turns=int(np.sum(last)), sink=row_sink),
    ]
    cycles = run(moves)
    return cycles[0], cycles[-2], cycles[-1]


def softmax_cycles(last, source, sink, *, lanes, max_length, chunk):
    """Cycles of `edgeaccel.vector.softmax.Softmax`: (take, taken), by beats."""
    moves, weights = _net(last, lanes, chunk, source)
    rows = Stage(
        max_length // lanes,
        statistic_latency=sum_latency(lanes, max_length),
        apply_latency=applier_latency(),
        last=np.asarray(last, bool),
    )
    moves += [Move([weights], rows.entry), *rows.moves, Move([rows.exit], [], turns=len(last), sink=sink)]
    cycles = run(moves)
    return cycles[0], cycles[-1]
