"""Processing elements in NumPy: what each unit gives, and after how many cycles.

Elements are read from the packed words as numbers (`edgeaccel.golden.formats`), and a dot product is just that: there
are no digits here.
"""

import numpy as np

from edgeaccel.golden.formats import integer_elements

__all__ = [
    "LATENCY",
    "accumulate",
    "accumulator_latency",
    "align",
    "aligner_cycles",
    "block_sums",
    "group_latency",
    "lane_pair",
    "pair_mantissas",
]

# Cycles from taking an item to offering its result, of the units without parameters that change it.
LATENCY = {"DigitDecoder": 2, "LanePair": 4}


def lane_pair(lower, upper, mantissa):
    """The products (lower * mantissa, upper * mantissa)."""
    return lower * mantissa, upper * mantissa


def pair_mantissas(mantissas, format):
    """Mantissas of a word's inputs [..., inputs] as its pairs of lanes see them [..., lanes / 2].

    The pairs of INT16 and MXFP4 words go over the inputs twice.
    """
    return np.concatenate([mantissas] * (2 if format in ("int16", "mxfp4") else 1), axis=-1)


def block_sums(words, mantissas, format):
    """Sums of one block.

    Parameters
    ----------
    words : uint8 [words, lanes / 2]
        The block's words.
    mantissas : int64 [rows, words, inputs of a word]

    Returns
    -------
    int64 [rows, channels of a word]
    """
    return np.einsum("wci,rwi->rc", integer_elements(words, format), mantissas)


def group_latency(lanes, formats, *, mantissa_bits=16, multiplier_stages=2, tree_stages=None):
    """Cycles of the group datapath from a block's last word to its sums.

    One to decode, the multiplier's, one for each further product of a chain, the tree's, one for the last borrow, up to
    two to combine digits (two for INT8 and 16-bit elements, one to add the halves of INT4 channels, none for MXFP4),
    one to add up the block, one in the queue.
    """
    # A chain adds two sums of n products of 5-bit digits, side by side, with a factor of at most 27 bits.
    chain = min(lanes // 4, 2 ** (27 - 5 - (mantissa_bits + 4)))
    tree_stages = int(np.log2(lanes // 4 // chain)) if tree_stages is None else tree_stages
    combination = max({"int4": 1, "int8": 2, "int16": 2, "mxfp4": 0}[format] for format in formats)
    return 1 + multiplier_stages + chain - 1 + tree_stages + 1 + combination + 1 + 1


def align(elements, format, mantissa_bits):
    """Mantissas of one block.

    Parameters
    ----------
    elements : float64 array
        The block's activations, exactly as their format holds them.
    format : str
        "fp16", "bf16" or "fp32"; only its smallest normal number, 2**-14 or 2**-126, matters.

    Returns
    -------
    (mantissas, exponent, nan) : int64 array, int, bool
        elements ~ mantissas * 2**exponent, unless the block holds an infinity or a NaN.
    """
    if not np.isfinite(elements).all():
        return np.zeros(elements.shape, np.int64), 0, True
    smallest = {"fp16": -14, "bf16": -126, "fp32": -126}[format]
    largest = np.abs(elements).max(initial=0)
    exponent = max(int(np.floor(np.log2(largest))) if largest else smallest, smallest) - (mantissa_bits - 2)
    limit = 2 ** (mantissa_bits - 1) - 1
    return np.clip(np.rint(np.ldexp(elements, -exponent)), -limit, limit).astype(np.int64), exponent, False


def aligner_cycles(lengths, source, sink, *, width, block, depth=3):
    """Cycles in which the block aligner takes its beats and in which its results are taken.

    A beat waits, with at most `block / width + ceil(log2(width)) + 1` others, until the largest exponent of its block
    is known: ceil(log2(width)) + 2 cycles after the last beat. The shifter then takes one beat a cycle.

    Parameters
    ----------
    lengths : list of int
        Beats of each block.
    source, sink : Pattern

    Returns
    -------
    (take, taken) : int64 arrays, one entry for each beat
    """
    finder_latency = int(np.ceil(np.log2(width))) + 2
    waiting = block // width + finder_latency
    take, shift, taken, found = [], [], [], []
    for length in lengths:
        for _ in range(length):
            cycle = source.first(take[-1] + 1 if take else 0)
            if len(take) >= waiting:  # a place in the queue of beats
                cycle = max(cycle, shift[len(take) - waiting] + 1)
            if len(found) >= waiting:  # a credit of the search for the largest exponent
                cycle = max(cycle, found[len(found) - waiting] + 1)
            take.append(cycle)
        known = take[-1] + finder_latency
        for _ in range(length):
            cycle = max(known, shift[-1] + 1 if shift else 0)
            if len(shift) >= depth + 2:  # a credit of the shifter
                cycle = max(cycle, taken[len(shift) - (depth + 2)] + 1)
            shift.append(cycle)
            taken.append(sink.first(max(cycle + depth + 1, taken[-1] + 1 if taken else 0)))
        found.append(shift[-1])
    return np.array(take), np.array(taken)


def accumulate(terms, first, last, channels):
    """Sums of channels that take turns: term `n` belongs to channel `n mod channels`.

    Parameters
    ----------
    terms : float32 array
    first, last : bool arrays
        Where a channel's sum begins, and where it ends and leaves a result.

    Returns
    -------
    float32 array of results, in the order of their last terms
    """
    sums = np.zeros(channels, np.float32)
    results = []
    with np.errstate(all="ignore"):
        for n, term in enumerate(np.asarray(terms, np.float32)):
            channel = n % channels
            sums[channel] = term if first[n] else sums[channel] + term
            if last[n]:
                results.append(sums[channel])
    return np.array(results, np.float32)


def accumulator_latency(depth):
    """Cycles from a channel's last term to its sum: one to read the sum so far, the adder's, one in the queue."""
    return 1 + depth + 1


def scaled_accumulator_latency(scaler_depth=6, adder_depth=5):
    """Cycles from a channel's last block sum to its result: scaler, reading the sum so far, adder, queue."""
    return scaler_depth + 1 + adder_depth + 1
