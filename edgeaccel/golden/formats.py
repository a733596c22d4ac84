"""What the words of a tile mean, for the golden models: nothing here comes from the format table."""

import numpy as np

__all__ = ["datapath_words", "integer_elements", "scale_values", "twice_e2m1"]


def datapath_words(words: np.ndarray) -> np.ndarray:
    """Words of codes, uint8 [..., lanes // 2], from memory to the datapath: even bytes are the lower half's pairs."""
    return np.concatenate([words[..., 0::2], words[..., 1::2]], axis=-1)


def integer_elements(words: np.ndarray, format: str) -> np.ndarray:
    """Integer elements of words of lane pairs: uint8 [..., lanes // 2] to int64 [..., channels, inputs] of a word.

    int4, int8, int16 are two's complement; mxfp4 gives twice the E2M1 value. ValueError: unknown format.
    """
    words = np.ascontiguousarray(words)
    lower, upper = np.split(words, 2, axis=-1)
    match format:
        case "int4":
            channels = [(words << 4).view(np.int8) >> 4, words.view(np.int8) >> 4]
        case "int8":
            channels = [words.view(np.int8)]
        case "int16":
            channels = [lower + 256 * np.ascontiguousarray(upper).view(np.int8).astype(np.int64)]
        case "mxfp4":
            channels = [twice_e2m1(nibbles) for half in (lower, upper) for nibbles in (half % 16, half // 16)]
        case _:
            raise ValueError(f"format must be int4, int8, int16 or mxfp4, not {format!r}")
    return np.stack(channels, axis=-2).astype(np.int64)


def scale_values(words: np.ndarray, format: str) -> np.ndarray:
    """Scales of scale words: uint8 [..., lanes // 2] to float64 [..., blocks, channels] of a tile.

    E8M0 is ``2**(code - 127)``, 255 is NaN; the others are little-endian FP16. ValueError: unknown format.
    """
    words = np.ascontiguousarray(words)
    match format:
        case "int4" | "int8" | "int16":
            values = words.view("<f2").astype(np.float64)
        case "mxfp4":
            values = np.where(words == 255, np.nan, 2.0 ** (words.astype(np.float64) - 127))
        case _:
            raise ValueError(f"format must be int4, int8, int16 or mxfp4, not {format!r}")
    return values.reshape(*words.shape[:-1], -1, words.shape[-1] // 2)


def twice_e2m1(codes: np.ndarray) -> np.ndarray:
    """Twice the value of E2M1 codes: (-1)**s * 2**e * (1 + m / 2), or with e = 0, subnormal, (-1)**s * m."""
    sign, exponent, mantissa = codes >> 3, (codes >> 1) & 3, (codes & 1).astype(np.int64)
    normal = (2 + mantissa) << (np.maximum(exponent, 1) - 1)
    return np.where(exponent == 0, mantissa, normal) * (1 - 2 * sign.astype(np.int64))
