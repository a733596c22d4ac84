"""Quantisers: a float matrix to integer codes with one scale per output channel and block of inputs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeaccel.formats import Format, get_format

__all__ = ["Quantised", "quantise"]

# Elements that are worked on at a time: temporaries stay in the cache and do not grow with the matrix.
_CHUNK_ELEMENTS = 1 << 18

_MIN_FP16_EXPONENT = -24  # 2**-24 is the smallest FP16 subnormal
_E8M0_VALUES = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.float32(np.nan))


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """A quantised matrix of N output channels by K inputs.

    ``weight[n, k] = element(codes[n, k]) * 2**lsb_exponent * scales[n, k // block]``, see `Format`.

    Parameters
    ----------
    format : str
        Name of the format, a key of `FORMATS`.
    codes : array [N, K] of the format's ``code_dtype``
        int4, int8, int16: the integer element; mxfp4: the E2M1 code.
    scales : array [N, ceil(K / block)] of the format's ``scale_dtype``
        float16, or for mxfp4 uint8 E8M0 codes.
    block : int
        Inputs that share a scale; the last block of a channel may be shorter.

    Raises
    ------
    ValueError
        A wrong shape or dtype, or a code that the format does not have.
    """

    format: str
    codes: np.ndarray
    scales: np.ndarray
    block: int

    def __post_init__(self):
        spec = get_format(self.format)
        _check_block(self.block)
        if self.codes.ndim != 2 or not self.codes.size:
            raise ValueError(f"codes must be [channels, inputs] and not empty, not of shape {self.codes.shape}")
        if self.codes.dtype != spec.code_dtype:
            raise ValueError(f"{self.format} codes must be {spec.code_dtype}, not {self.codes.dtype}")
        shape = (self.shape[0], -(-self.shape[1] // self.block))
        if self.scales.shape != shape:
            raise ValueError(
                f"scales must have shape {shape} for codes of shape {self.shape} in blocks of {self.block},"
                f" not {self.scales.shape}"
            )
        if self.scales.dtype != spec.scale_dtype:
            raise ValueError(f"{self.format} scales must be {spec.scale_dtype}, not {self.scales.dtype}")
        lowest = -(1 << (spec.element_bits - 1)) if spec.code_dtype.kind == "i" else 0
        highest = lowest + (1 << spec.element_bits) - 1
        if self.codes.min() < lowest or self.codes.max() > highest:
            n, k = np.argwhere((self.codes < lowest) | (self.codes > highest))[0]
            raise ValueError(f"codes[{n}, {k}] is {self.codes[n, k]}, {self.format} codes are {lowest} to {highest}")

    @property
    def shape(self) -> tuple[int, int]:
        """Output channels and inputs: N, K."""
        return self.codes.shape

    def dequantise(self) -> np.ndarray:
        """The weights that the codes stand for, float32 [N, K], each rounded once.

        Exact for what `quantise` makes of weights within float32's range.
        """
        spec = get_format(self.format)
        weights = np.empty(self.shape, np.float32)
        width = min(self.block, self.shape[1])
        with np.errstate(over="ignore"):  # six times E8M0's largest scale is over float32's range
            for part in _chunks(self.shape):
                scales = np.repeat(_scale_values(self.scales[part], spec), width, axis=1)[:, : self.shape[1]]
                np.ldexp(spec.elements(self.codes[part]).astype(np.float32), spec.lsb_exponent, out=weights[part])
                weights[part] *= scales
        return weights


def quantise(weights: np.ndarray, format: str, *, block: int | None = None) -> Quantised:
    """Quantise ``weights`` [N output channels, K inputs], in blocks along K.

    With ``largest`` the block's largest magnitude and ``E = floor(log2(largest))``:

    int4, int8
        Symmetric. ``scale = fp16(largest / q)`` with q = 7 or 127, but at least 2**-24, FP16's smallest;
        ``code = rint(w / scale)``, clipped to ±q.
    int16
        Aligned mantissas. ``scale = 2**max(E - 14, -24)``; ``code = rint(w / scale)``, clipped to ±32767. An
        FP16 weight within four binades of the block's largest is exact; any other is off by at most half the
        scale, or a whole one where a weight wider than FP16 is clipped.
    mxfp4
        OCP Microscaling Formats v1.0, section 6.3. ``scale = 2**(E - 2)``, within E8M0's 2**-127 to 2**127;
        elements are ``w / scale`` rounded to E2M1 and saturated at ±6. Zeros keep their sign.

    Every rounding is to nearest, ties to even. A block of zeros has the format's ``zero_scale`` (0.0, or
    2**0 in E8M0, whose specification leaves that open) and zero elements.

    Parameters
    ----------
    weights : array of float16, bfloat16, float32 or wider
        Arithmetic is in float32, where ``w / scale`` rounds to no tie that it is not, or in the wider type.
    format : str
        A key of `FORMATS`.
    block : int, optional
        Inputs that share a scale; the format's own by default. The last block may be shorter.

    Raises
    ------
    ValueError
        An unknown format, a block below 1, weights that are empty, not two-dimensional, not floating point or
        not finite (named by index), or a scale beyond FP16 (named by channel and block).
    """
    spec = get_format(format)
    block = spec.block if block is None else block
    _check_block(block)
    weights = np.asarray(weights)
    if weights.ndim != 2 or not weights.size:
        raise ValueError(f"weights must be [channels, inputs] and not empty, not of shape {weights.shape}")
    # bfloat16 is an extension type, which NumPy does not count as floating point.
    if weights.dtype.kind != "f" and weights.dtype.name != "bfloat16":
        raise ValueError(f"weights must be floating point, not {weights.dtype}")

    channels, inputs = weights.shape
    width = min(block, inputs)
    blocks = -(-inputs // width)
    codes = np.empty(weights.shape, spec.code_dtype)
    scales = np.empty((channels, blocks), spec.scale_dtype)
    for part in _chunks(weights.shape):
        chunk = weights[part]
        values = np.zeros((len(chunk), blocks, width), np.promote_types(weights.dtype, np.float32))
        flat = values.reshape(len(chunk), -1)[:, :inputs]
        flat[:] = chunk
        largest = np.abs(values).max(axis=2)
        if not np.isfinite(largest).all():
            n, k = np.argwhere(~np.isfinite(flat))[0]
            raise ValueError(f"weights[{part.start + n}, {k}] is {flat[n, k]}, weights must be finite")
        scales[part] = _scales(largest, spec)
        divisors = _scale_values(scales[part], spec)
        if not np.isfinite(divisors).all():
            n, b = np.argwhere(~np.isfinite(divisors))[0]
            raise ValueError(
                f"channel {part.start + n}, block {b}: a largest weight of {largest[n, b]:.6g} needs an"
                f" {format} scale over FP16's largest, {np.finfo(np.float16).max:.0f}"
            )
        divisors[divisors == 0] = 1
        values /= divisors[:, :, np.newaxis]
        if format == "mxfp4":
            codes[part] = _e2m1(flat, spec)
        else:
            np.rint(values, out=values)
            codes[part] = np.clip(flat, 1 - spec.max_abs, spec.max_abs - 1)
    return Quantised(format=format, codes=codes, scales=scales, block=block)


def _check_block(block: int) -> None:
    if block < 1:
        raise ValueError(f"block must be at least 1, not {block!r}")


def _chunks(shape: tuple[int, int]) -> Iterator[slice]:
    """Slices of consecutive channels, of about `_CHUNK_ELEMENTS` elements each."""
    channels, inputs = shape
    step = max(1, _CHUNK_ELEMENTS // inputs)
    return (slice(start, start + step) for start in range(0, channels, step))


def _scale_values(scales: np.ndarray, spec: Format) -> np.ndarray:
    return _E8M0_VALUES[scales] if spec.scale == "e8m0" else scales.astype(np.float32)


def _scales(largest: np.ndarray, spec: Format) -> np.ndarray:
    """The scales, as held, of blocks with these largest magnitudes; infinite where FP16 overflows."""
    exponents = np.frexp(largest)[1] - 1
    with np.errstate(over="ignore"):
        match spec.name:
            case "mxfp4":
                scales = np.clip(exponents - 2, -127, 127) + 127
            case "int16":
                scales = np.ldexp(1.0, np.maximum(exponents - 14, _MIN_FP16_EXPONENT))
            case _:
                scales = largest.astype(np.float64) / (spec.max_abs - 1)
                scales = np.maximum(scales, 2.0**_MIN_FP16_EXPONENT)
        return np.where(largest == 0, spec.zero_scale, scales).astype(spec.scale_dtype)


def _e2m1(values: np.ndarray, spec: Format) -> np.ndarray:
    """E2M1 codes of ``values``, rounded to nearest even and saturated at ±6."""
    magnitudes = np.ldexp(np.array(spec.digit_table[0][:8], np.float32), spec.lsb_exponent)
    codes = np.signbit(values).astype(np.uint8) << 3
    values = np.abs(values)
    # Half-way between two neighbours, the one with the even code wins.
    for code, middle in enumerate((magnitudes[:-1] + magnitudes[1:]) / 2, start=1):
        codes += values > middle if code % 2 else values >= middle
    return codes
