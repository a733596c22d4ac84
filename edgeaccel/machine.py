"""The one description of a whole machine: the array's configuration, and the sizes of what stands around it."""

from dataclasses import dataclass, replace

from edgeaccel.cache import MAX_HEAD_DIM
from edgeaccel.config import PRESETS, Config

__all__ = ["DATA_BYTES", "MACHINES", "Machine", "machine"]

DATA_BYTES = 1 << 34  # of the memory behind the ports'; in a simulation only what is touched takes room


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Sizes of a machine.

    The memory that its masters see: port `n` of the array from `n * port_bytes` on, then, from `data_base` on, all that
    is no tile: program, parameters, tables, scales of values, logits.

    Attributes
    ----------
    config : Config
    vector_inputs : int
        Elements of each row that the vector memory holds, all sets together: of each, the residual stream, and the up
        half of a gated layer.
    max_channels : int
        Channels of the longest vector that leaves the array as one: at least a model's `dim`.
    max_rotated : int
        Most dimensions of a head that are rotated.
    functions : tuple of str
        Activation functions of the build.
    slots : int
        Running sums of attention: query heads of one command.
    pages : int
        Entries of the page table; a power of two.
    positions : int
        Tokens that the machine's token memory holds: the longest context; a power of two.
    instructions : int
        Of the longest program; a power of two.
    port_bytes : int
        Memory of a port; a power of two.

    Raises
    ------
    ValueError
        If a value cannot be built.
    """

    config: Config
    vector_inputs: int
    max_channels: int
    max_rotated: int = MAX_HEAD_DIM
    functions: tuple[str, ...] = ("silu",)
    slots: int = 32
    pages: int = 1024
    positions: int = 32768
    instructions: int = 256
    port_bytes: int = 1 << 28

    def __post_init__(self):
        tile = self.config.tile_channels
        for name in ("vector_inputs", "max_channels"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < tile or value % tile:
                raise ValueError(f"{name} must be a multiple of the {tile} channels of a tile, not {value!r}")
        lanes = self.config.vector_lanes
        if (
            not isinstance(self.max_rotated, int)
            or self.max_rotated % lanes
            or not lanes <= self.max_rotated <= MAX_HEAD_DIM
        ):
            raise ValueError(
                f"max_rotated must be a multiple of {lanes} of at most {MAX_HEAD_DIM}, not {self.max_rotated!r}"
            )
        for name, most in (
            ("pages", 1 << 16),
            ("positions", 1 << 20),
            ("instructions", 1 << 8),
            ("port_bytes", 1 << 40),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 2 or value & (value - 1) or value > most:
                raise ValueError(f"{name} must be a power of two from 2 to {most}, not {value!r}")
        if not isinstance(self.slots, int) or not 1 <= self.slots <= 256:
            raise ValueError(f"slots must be 1 to 256, not {self.slots!r}")

    @property
    def data_base(self):
        """Address of the first byte behind the ports' memories."""
        return self.config.groups * self.port_bytes

    @property
    def vector_words(self):
        """Words of the vector memory, `vector_lanes` elements of each row."""
        return self.vector_inputs // self.config.vector_lanes

    @property
    def set_vector_words(self):
        """Words of the vector memory from a set's to the next set's."""
        return self.vector_words // self.config.sets

    @property
    def table_beats(self):
        """Beats of cosines and sines that a row keeps."""
        return self.max_rotated // self.config.vector_lanes


MACHINES = {
    "tiny": Machine(
        config=PRESETS["tiny"],
        vector_inputs=4096,
        max_channels=1024,
        slots=32,
        pages=64,
        positions=2048,
        instructions=128,
        port_bytes=1 << 24,
    ),
    "vcu128": Machine(config=PRESETS["vcu128"], vector_inputs=65536, max_channels=8192),
    "vu9p": Machine(config=PRESETS["vu9p"], vector_inputs=32768, max_channels=8192, port_bytes=1 << 32),
}


def machine(name, *, changes=None, **sizes):
    """A named machine, with some of its sizes changed, and some of its configuration's (`changes`).

    Raises
    ------
    ValueError
        If there is no such machine, or the changed values cannot be built.
    """
    if name not in MACHINES:
        raise ValueError(f"preset must be one of {', '.join(MACHINES)}, not {name!r}")
    made = MACHINES[name]
    config = replace(made.config, **changes) if changes else made.config
    return replace(made, config=config, **sizes)
