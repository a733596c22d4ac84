"""The golden arithmetic on many vectors at once: what the models of the units give, along the last axis of arrays."""

import numpy as np

from edgeaccel.golden import float as golden_float
from edgeaccel.golden import function, softmax, values
from edgeaccel.golden.float import add, decode, encode, multiply

__all__ = ["align", "attend", "evaluate", "product", "rotate", "rsqrt_mean_square", "total", "weights"]

SIGN = np.uint32(1 << 31)
MINUS_INFINITY = np.uint32(0xFF800000)
ONE = 0x3C00  # FP16
MX_BLOCK, MX_ONE = 32, 127  # inputs of a block of MXFP4; the scale 1 in E8M0


def evaluate(name, codes):
    """FP32 codes of a function, `edgeaccel.golden.function`."""
    return function.evaluate(name, np.ravel(codes)).reshape(np.shape(codes))


def total(codes):
    """Codes of sums, each as `golden.vector.total`: neighbours are added until one is left."""
    sums = np.asarray(codes, np.uint32)
    while True:
        even = sums.shape[-1] & ~1
        odd = add(sums[..., even:], SIGN)
        sums = np.concatenate([add(sums[..., 0:even:2], sums[..., 1:even:2]), odd], axis=-1).astype(np.uint32)
        if sums.shape[-1] == 1:
            return sums[..., 0]


def rsqrt_mean_square(codes, inverse_length, epsilon):
    """Codes of RMSNorm's scales, as `golden.norm.statistics` has them."""
    return evaluate("rsqrt", add(multiply(total(multiply(codes, codes)), inverse_length), epsilon))


def rotate(codes, cosines, sines, rotated, *, half):
    """Codes of vectors whose first elements are rotated in pairs, each as `golden.rotary.rotate`."""
    x = codes[..., :rotated]
    if half:
        partners = np.concatenate([x[..., rotated // 2 :] ^ SIGN, x[..., : rotated // 2]], axis=-1)
    else:
        partners = np.stack([x[..., 1::2] ^ SIGN, x[..., 0::2]], axis=-1).reshape(x.shape)
    turned = add(multiply(x, cosines), multiply(partners, sines))
    return np.concatenate([turned, codes[..., rotated:]], axis=-1).astype(np.uint32)


def align(codes, mantissa_bits):
    """Of blocks of FP32 codes (mantissas, exponents, whether NaN), each block as `golden.pe.align`."""
    numbers = decode(codes)
    nans = ~np.isfinite(numbers).all(axis=-1)
    numbers = np.where(nans[..., None], 0, numbers)
    largest = np.abs(numbers).max(axis=-1)
    exponents = np.maximum(np.where(largest == 0, -126, np.frexp(largest)[1] - 1), -126) - (mantissa_bits - 2)
    limit = 2 ** (mantissa_bits - 1) - 1
    mantissas = np.clip(np.rint(np.ldexp(numbers, -exponents[..., None])), -limit, limit)
    return mantissas, np.where(nans, 0, exponents), nans


def product(config, inputs, matrix, scales, *, e8m0=False):
    """FP32 codes of rows times a matrix, as the array gives them.

    Parameters
    ----------
    config : Config
        `block` and `mantissa_bits`.
    inputs : FP32 codes [..., rows, inputs]
    matrix : float64 [..., inputs, channels]
        Integers. Sums of a block, below 2**53, are exact in float64.
    scales : FP16 codes [..., blocks or 1, channels]
    e8m0 : bool
        Whether the matrix is MXFP4: twice its elements, whose scales, for blocks of 32 inputs, are E8M0. Two blocks
        make a tile, which is always whole and has one exponent of activations.

    Returns
    -------
    uint32 [..., rows, channels]
    """
    block = config.block
    if e8m0:
        block = MX_BLOCK
        inputs, matrix, scales = _whole_tiles(inputs, matrix, scales)
    tile = 2 * block if e8m0 else block
    sums = None
    for n, begin in enumerate(range(0, matrix.shape[-2], block)):
        if begin % tile == 0:
            mantissas, exponents, nans = align(inputs[..., begin : begin + tile], config.mantissa_bits)
        of_block = mantissas[..., begin % tile :][..., :block]
        term = golden_float.scale(
            (of_block @ matrix[..., begin : begin + block, :]).astype(np.int64),
            scales[..., min(n, scales.shape[-2] - 1), :][..., None, :],
            exponents[..., None],
            nan=nans[..., None],
            e8m0=e8m0,
        )
        sums = term if sums is None else add(sums, term)
    return sums.astype(np.uint32)


def _whole_tiles(inputs, matrix, scales):
    """Operands of MXFP4 as whole tiles: zeros behind what they have, with scales of 1 if they have none."""
    whole = -(-matrix.shape[-2] // (2 * MX_BLOCK)) * 2 * MX_BLOCK
    inputs = _filled(inputs, whole, -1, 0)
    return inputs, _filled(matrix, whole, -2, 0), _filled(scales, whole // MX_BLOCK, -2, MX_ONE)


def _filled(array, length, axis, value):
    missing = [(0, 0)] * array.ndim
    missing[axis] = (0, length - array.shape[axis])
    return np.pad(array, missing, constant_values=value) if missing[axis][1] else array


def weights(scores, scales, seen, factor, running, first):
    """What a chunk's scores become, each row as `golden.scores.weights`.

    Parameters
    ----------
    scores : FP32 codes [..., positions]
    scales : FP16 codes, of the values; a shape that broadcasts
    seen : bool, a shape that broadcasts
    factor : FP32 code
    running, first : FP32 codes and bools [...]

    Returns
    -------
    (weights, maxima, shifts, sums)
    """
    scaled = np.where(seen, multiply(scores, factor), MINUS_INFINITY)
    largest = np.maximum(np.ceil(decode(scaled).max(axis=-1)) + 0.0, -softmax.LARGEST)
    largest = decode(encode(largest))
    maxima = encode(np.maximum(largest, np.where(first, largest, decode(running))) + 0.0).astype(np.uint32)
    shifts = np.where(first, 0, softmax.shift(running, maxima))
    powers = np.where(seen, evaluate("exp2", add(scaled, maxima[..., None] ^ SIGN)), 0)
    weighted = np.where(seen, multiply(powers, scales, b_format="fp16"), 0)
    return weighted.astype(np.uint32), maxima, shifts, total(powers)


def attend(config, queries, keys, cached, *, counts, window=0, factor):
    """Codes of what each token's queries get from the cache, alone, as `golden.attention.attend`.

    Parameters
    ----------
    config : Config
    queries : FP32 codes [tokens, KV heads, query heads of one, head_dim]
    keys, cached : (int [positions, KV heads, head_dim], FP16 codes [positions, KV heads])
        The cache's keys and values.
    counts : int [tokens]
        Positions that a token sees, from the first on, in ascending order.
    window : int
        If not 0, it sees only the last so many of them.
    factor : FP32 code
    """
    block = config.block
    counts = np.asarray(counts)
    lo = np.maximum(counts - window, 0) if window else np.zeros_like(counts)
    key_codes, value_codes = (
        np.moveaxis(codes, 0, 1).astype(np.float64) for codes, _ in (keys, cached)
    )  # [heads, positions, head_dim]
    key_scales, value_scales = (scales.T for _, scales in (keys, cached))
    running, totals = np.zeros((2, *queries.shape[:-1]), np.uint32)
    sums = np.zeros(queries.shape, np.uint32)
    ones = np.full((1, queries.shape[-1]), ONE)
    for begin in range(lo.min() // block * block, counts.max(), block):
        turns = np.flatnonzero((lo // block * block <= begin) & (begin < counts))
        part = slice(begin, min(begin + block, counts[turns].max()))
        places = np.arange(part.start, part.stop)
        seen = (lo[turns, None] <= places) & (places < counts[turns, None])
        first = (lo[turns] // block * block == begin)[:, None, None]
        scores = product(
            config, queries[turns], key_codes[:, part].swapaxes(-1, -2), key_scales[:, None, part]
        )  # [tokens, heads, queries, positions]
        chunk, running[turns], shifts, powers = weights(
            scores, value_scales[:, None, part], seen[:, None, None], factor, running[turns], first
        )
        totals[turns] = values.accumulate_sum(totals[turns], powers, shifts, first)
        results = product(config, chunk, value_codes[:, part], ones)
        sums[turns] = values.accumulate(sums[turns], results, shifts[..., None], first[..., None])
    return values.finish(sums, totals[..., None])
