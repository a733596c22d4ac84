"""The one description of an accelerator that everything is sized by."""

from dataclasses import dataclass, replace
from functools import cache

from edgeaccel.formats import FORMATS, check_lanes, get_format, tile_channels
from edgeaccel.tiles import TileLayout

__all__ = ["PRESETS", "Config", "preset"]

ACTIVATIONS = ("fp16", "bf16", "fp32")
PORT_DATA_WIDTHS = (128, 256, 512)
ADDER_TURN = 7  # cycles until a sum that was read for adding can be read again: `edgeaccel.pe.Accumulator`


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size of an accelerator.

    Attributes
    ----------
    groups : int
        Groups in the systolic chain, each with a memory port of its own; a power of two, so that channels divide.
    lanes : int
        4-bit digits that a group multiplies each cycle; a power of two of at least 16.
    rows : int
        Activation vectors that meet each word of weights in a cycle.
    sets : int
        Sets of as many vectors for which a word is used before the next tile's words come: a batch has up to
        `rows * sets` tokens, and needs `sets` times fewer words for each.
    mantissa_bits : int
        Bits of an aligned activation, 8 to 18: what one DSP48E2 multiplies by two digits.
    formats : tuple of str
        Number formats that the build carries, from `edgeaccel.formats.FORMATS`.
    activations : str
        Format of the activations that the array takes: "fp16", "bf16" or "fp32", which attention and residuals need.
    block : int
        Inputs that share a weight scale and an activation exponent; MXFP4 keeps its own blocks of 32 inside.
    vector_lanes : int
        Elements of each row that go into the array, or leave it, in a cycle; a power of two, at most `lanes / 4`.
    buffer_inputs : int
        Elements of each row that the activation buffer holds, all sets together: a whole number of blocks.
    port_data_width : int
        Bits of a memory port: 128, 256 or 512.
    port_mhz, core_mhz : float
        Clocks of the memory ports and of the array.

    Raises
    ------
    ValueError
        If a value, or values together, cannot be built; the message says what would be right.
    """

    groups: int
    lanes: int
    rows: int
    sets: int = 1
    mantissa_bits: int = 16
    formats: tuple[str, ...] = ("int4", "int8", "int16")
    activations: str = "fp32"
    block: int = 128
    vector_lanes: int
    buffer_inputs: int = 32768
    port_data_width: int
    port_mhz: float
    core_mhz: float

    def __post_init__(self):
        for name in ("groups", "rows", "sets", "block"):
            _check(name, getattr(self, name), "a positive whole number", lambda value: value >= 1)
        _check("groups", self.groups, "a power of two", lambda value: value & (value - 1) == 0)
        check_lanes(self.lanes)
        _check("mantissa_bits", self.mantissa_bits, "8 to 18", lambda value: 8 <= value <= 18)
        if not isinstance(self.formats, tuple) or not self.formats or len(set(self.formats)) != len(self.formats):
            raise ValueError(
                f"formats must be a tuple of one or more of {', '.join(FORMATS)}, each once, not {self.formats!r}"
            )
        for name in self.formats:
            get_format(name).words_per_block(self.lanes, self.block_of(name))
        for name, allowed in (("activations", ACTIVATIONS), ("port_data_width", PORT_DATA_WIDTHS)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(repr, allowed))
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        _check(
            "vector_lanes",
            self.vector_lanes,
            f"a power of two of at most {self.tile_channels}, a quarter of the lanes",
            lambda value: 1 <= value <= self.tile_channels and value & (value - 1) == 0,
        )
        _check(
            "buffer_inputs",
            self.buffer_inputs,
            f"a positive multiple of the {self.block} inputs of a block",
            lambda value: value >= 1 and value % self.block == 0,
        )
        for name in ("port_mhz", "core_mhz"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)!r}")
        if self.tile_channels < ADDER_TURN * self.scalers:
            raise ValueError(
                f"lanes must be more than {self.lanes} for blocks of {self.block} in {', '.join(self.formats)}: the"
                f" {self.tile_channels} channels of a tile would share {self.scalers} accumulators, but a channel can"
                f" have its next turn only after {ADDER_TURN} cycles; or use larger blocks"
            )

    def block_of(self, format):
        """Inputs that share a scale in a format: `block`, or MXFP4's 32."""
        row = get_format(format)
        return row.block if row.scale == "e8m0" else self.block

    def layout(self, format):
        """What a tile of a format holds, a `TileLayout`."""
        return _layout(format, self.lanes, self.block_of(format))

    @property
    def word_bits(self):
        """Bits that a group takes each cycle: 4 for each lane."""
        return 4 * self.lanes

    @property
    def word_bytes(self):
        return self.word_bits // 8

    @property
    def buffer_words(self):
        """Words of the activation buffer, `vector_lanes` elements of each row."""
        return self.buffer_inputs // self.vector_lanes

    @property
    def set_words(self):
        """Words of the activation buffer from a set's activations to the next set's."""
        return self.buffer_words // self.sets

    @property
    def batch_rows(self):
        """Most tokens of a batch."""
        return self.rows * self.sets

    @property
    def of_batch(self):
        """The configuration in which all tokens of a batch are rows, as units see it that take them one by one."""
        return replace(self, rows=self.batch_rows, sets=1)

    @property
    def most_kept(self):
        """Words of the longest tile, which a port keeps while sets take turns with them; 0 if there is one set."""
        return max(self.layout(name).words_per_tile for name in self.formats) if self.sets > 1 else 0

    @property
    def tile_channels(self):
        """Output channels of a tile."""
        return tile_channels(self.lanes)

    @property
    def scalers(self):
        """Scalers and accumulators of a row: the most block sums that a format completes in a cycle, rounded up."""
        return max(
            -(-FORMATS[name].channels_per_word // FORMATS[name].words_per_block(self.lanes, self.block_of(name)))
            for name in self.formats
        )

    @property
    def multipliers(self):
        """Multipliers of the array, one DSP48E2 each: two lanes share one."""
        return self.groups * self.rows * self.lanes // 2

    def macs_per_cycle(self, format):
        """Multiply-accumulates of the whole array in a cycle."""
        return self.groups * self.rows * self.lanes // get_format(format).digits

    @property
    def port_bytes_per_s(self):
        """What all memory ports can deliver, at their clock."""
        return self.groups * self.port_data_width // 8 * self.port_mhz * 1e6

    @property
    def array_bytes_per_s(self):
        """What the array takes, at its clock; more than the ports deliver, so that bubbles are made up."""
        return self.groups * self.word_bytes * self.core_mhz * 1e6


@cache
def _layout(format, lanes, block):
    return TileLayout(format=format, lanes=lanes, block=block)


def _check(name, value, allowed, is_right):
    if not isinstance(value, int) or isinstance(value, bool) or not is_right(value):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


PRESETS = {
    # Simulates fast. Small blocks, because the models that fit are narrow.
    "tiny": Config(
        groups=2,
        lanes=32,
        rows=2,
        block=32,
        vector_lanes=4,
        buffer_inputs=4096,
        port_data_width=128,
        port_mhz=250,
        core_mhz=250,
    ),
    # VCU128: XCVU37P, 32 HBM2 pseudo-channels of 256 bits at 450 MHz.
    "vcu128": Config(
        groups=32,
        lanes=128,
        rows=4,
        sets=2,
        vector_lanes=8,
        buffer_inputs=65536,
        port_data_width=256,
        port_mhz=450,
        core_mhz=250,
    ),
    # VU9P boards: four DDR4-2400 channels, whose controllers give 512 bits at 300 MHz. With 16 rows LUTs would run out.
    "vu9p": Config(groups=4, lanes=128, rows=8, vector_lanes=4, port_data_width=512, port_mhz=300, core_mhz=300),
}


def preset(name, **changes):
    """A named configuration, with some of its values changed.

    Raises
    ------
    ValueError
        If there is no such preset, or the changed values cannot be built.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {name!r}")
    unknown = changes.keys() - Config.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(
            f"a configuration has no {', '.join(sorted(unknown))}; it has {', '.join(Config.__dataclass_fields__)}"
        )
    return replace(PRESETS[name], **changes)
