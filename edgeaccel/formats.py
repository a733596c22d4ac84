"""Number formats of everything that streams: weights, keys and values.

The array multiplies signed *digits*, each a 4-bit code in memory. So a format is what each code means at each
digit position of an element, how many output channels share a word, and the type of its scales.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["FORMATS", "Format", "check_lanes", "get_format", "tile_channels"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One number format: how its elements decode, and how they lie in a word of ``lanes`` 4-bit digits.

    With ``c[i]`` the element's 4-bit codes, least significant first, ::

        element = sum(digit_table[i][c[i]] * 16**i for i in range(digits))
        weight  = element * 2**lsb_exponent * scale

    Lanes ``2 p`` and ``2 p + 1`` of a word are *pair* ``p``, which sees one activation. An input takes
    ``digits * channels_per_word`` lanes, two to a pair: digit ``d`` of channel ``c`` of input ``i`` is, with
    ``n = c * digits + d``, in lane ``n % 2`` of pair ``(n // 2) * inputs_per_word + i``.

    Attributes
    ----------
    name : str
        Key in `FORMATS`.
    code : int
        The format's number on the wire.
    digit_table : tuple of tuple of int
        For every digit position, least significant first, the digits (-16..15) of codes 0 to 15.
    channels_per_word : int
        Output channels that one word serves.
    block : int
        Default number of inputs that share a scale.
    lsb_exponent : int
        Binary exponent of the integer element.
    code_dtype : numpy.dtype
        Type of an element's code outside a word: the element itself if signed, its bit pattern if not.
    scale : str
        Scale type: ``"fp16"`` (IEEE 754 binary16) or ``"e8m0"`` (``2**(code - 127)``, 255 is NaN; OCP
        Microscaling Formats v1.0, section 5.4.1).
    scale_dtype : numpy.dtype
        What holds a scale: a float16, or the uint8 E8M0 code.
    zero_scale : int
        The scale, as held, of a block that has no nonzero element: 0.0, or E8M0's code for 1.
    """

    name: str
    code: int
    digit_table: tuple[tuple[int, ...], ...]
    channels_per_word: int
    block: int
    lsb_exponent: int
    code_dtype: np.dtype
    scale: str
    scale_dtype: np.dtype
    zero_scale: int

    @property
    def digits(self) -> int:
        """Digits, and so lanes, per element."""
        return len(self.digit_table)

    @property
    def element_bits(self) -> int:
        return 4 * self.digits

    @property
    def scale_bits(self) -> int:
        return 8 * self.scale_dtype.itemsize

    @property
    def pairs_per_input(self) -> int:
        """Lane pairs that one input of a word takes, for all its channels."""
        return self.digits * self.channels_per_word // 2

    @property
    def max_abs(self) -> int:
        """Largest magnitude of an integer element."""
        lowest = sum(min(table) * 16**i for i, table in enumerate(self.digit_table))
        highest = sum(max(table) * 16**i for i, table in enumerate(self.digit_table))
        return max(-lowest, highest)

    def inputs_per_word(self, lanes: int) -> int:
        """Inputs that one word of ``lanes`` digits carries, for each of its channels."""
        check_lanes(lanes)
        return lanes // (self.digits * self.channels_per_word)

    def words_per_block(self, lanes: int, block: int) -> int:
        """Words that a block of ``block`` inputs takes; ValueError if that is not a whole number."""
        inputs = self.inputs_per_word(lanes)
        if block < 1 or block % inputs:
            raise ValueError(
                f"block must be a positive multiple of {inputs}, the inputs of one {self.name} word at"
                f" {lanes} lanes, not {block!r}"
            )
        return block // inputs

    def elements(self, codes: np.ndarray) -> np.ndarray:
        """Integer elements, int32, that codes of type `code_dtype` stand for; any shape."""
        elements = np.zeros(codes.shape, np.int32)
        for i, table in enumerate(self.digit_table):
            elements += np.array(table, np.int32)[(codes >> (4 * i)) & 15] << (4 * i)
        return elements


_UNSIGNED = tuple(range(16))
_SIGNED = (*range(8), *range(-8, 0))
# Twice the E2M1 value, which makes the smallest step, 0.5, an integer (OCP Microscaling v1.0, section 5.3.3).
_TWICE_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

_FP16 = {"scale": "fp16", "scale_dtype": np.dtype(np.float16), "zero_scale": 0}
_E8M0 = {"scale": "e8m0", "scale_dtype": np.dtype(np.uint8), "zero_scale": 127}

FORMATS: dict[str, Format] = {
    spec.name: spec
    for spec in (
        Format(
            name="int4",
            code=0,
            digit_table=(_SIGNED,),
            channels_per_word=2,
            block=128,
            lsb_exponent=0,
            code_dtype=np.dtype(np.int8),
            **_FP16,
        ),
        Format(
            name="int8",
            code=1,
            digit_table=(_UNSIGNED, _SIGNED),
            channels_per_word=1,
            block=128,
            lsb_exponent=0,
            code_dtype=np.dtype(np.int8),
            **_FP16,
        ),
        Format(
            name="int16",
            code=2,
            digit_table=(_UNSIGNED, _UNSIGNED, _UNSIGNED, _SIGNED),
            channels_per_word=1,
            block=128,
            lsb_exponent=0,
            code_dtype=np.dtype(np.int16),
            **_FP16,
        ),
        Format(
            name="mxfp4",
            code=3,
            digit_table=(_TWICE_E2M1,),
            channels_per_word=4,
            block=32,
            lsb_exponent=-1,
            code_dtype=np.dtype(np.uint8),
            **_E8M0,
        ),
    )
}


def get_format(name: str) -> Format:
    """The format called ``name``; ValueError names the allowed ones."""
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, not {name!r}")
    return FORMATS[name]


def check_lanes(lanes: int) -> None:
    """ValueError unless ``lanes`` is a legal number of lanes: a power of two of at least 16.

    With 16 lanes a tile has four channels, as many as one MXFP4 word serves; fewer would leave lanes idle.
    """
    if not isinstance(lanes, int) or lanes < 16 or lanes & (lanes - 1):
        raise ValueError(f"lanes must be a power of two of at least 16, not {lanes!r}")


def tile_channels(lanes: int) -> int:
    """Output channels of a tile: as many as one word of ``lanes * 4`` bits holds FP16 scales."""
    check_lanes(lanes)
    return lanes // 4
