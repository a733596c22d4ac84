"""The memories of the presets, as the cycle model takes them: latency and share of their beats, from their models."""

from dataclasses import dataclass, replace
from functools import cache

from edgeaccel.golden.units import Attend, passes, units
from edgeaccel.perf.matrix import PortMemory
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL, MemoryModel

__all__ = ["PRESET_MEMORIES", "PortMemories", "of_machine"]

_LONG_READ, _VALUES = 1 << 20, 1 << 12  # bytes, channels: refreshes among them

PRESET_MEMORIES = {"tiny": IDEAL, "vcu128": HBM2, "vu9p": DDR4_2400}
"""Memory behind each port of a preset: `edgeaccel.sim.memory` has the sources of its timing."""


@dataclass(frozen=True, kw_only=True)
class PortMemories:
    """A memory model behind all ports of a machine.

    Attributes
    ----------
    model : MemoryModel
    config : Config
    """

    model: MemoryModel
    config: object

    @property
    def peak(self):
        """Bytes a second of all ports with a beat in every cycle."""
        return self.config.groups * self.config.port_data_width / 8 * self.config.port_mhz * 1e6

    @property
    def deliverable(self):
        """Bytes a second of all ports in long sequential reads, refreshes and rows included."""
        return self.peak * self.model.share

    def weights(self):
        """`PortMemory` for the tiles of matrices: one long read after the other."""
        share = 1.0 if self.model.share == 1 else self.model.share_of([(0, _LONG_READ)])
        return PortMemory(latency=self.model.read_closed, share=share)

    def value_share(self, layout):
        """Share of the beats that the memory takes while values are written: one in the words of each channel."""
        if self.model.share == 1:
            return 1.0
        size, stride = self.model.beat_bytes, layout.v_words // layout.config.tile_channels * layout.config.word_bytes
        return self.model.share_of([(channel * stride, size) for channel in range(_VALUES)])

    def tiles(self, layout, *, n_heads, batches=1):
        """`PortMemory` for the tiles of keys and values.

        They lie in several rows of the memory, so that it delivers less than in one long read: as much as the model
        gives for the very reads of a port.

        Parameters
        ----------
        layout : CacheLayout
        n_heads, batches : int
            As of `edgeaccel.golden.units.Attend`.
        """
        return PortMemory(latency=self.model.read_closed, share=_share_of(self.model, layout, n_heads, batches))


@cache
def _share_of(model, layout, n_heads, batches):
    """Share of the memory's beats while the first port reads keys and values, page by page.

    Of rows and banks a few chunks tell all. Refreshes are too rare for that: they cost what they cost in long reads.
    """
    if model.share == 1:
        return 1.0
    config = layout.config
    chunks = max(4, 1 << layout.page_bits)
    n_pages = -(-chunks // (1 << layout.page_bits))
    command = Attend(count=chunks * layout.chunk, factor=0, n_heads=n_heads, batches=batches)
    streams = passes(
        config,
        layout,
        units(config, layout, command, range(n_pages)),
        lookahead=max(6, 3 * layout.sets),  # as `edgeaccel.attention.attention.Attention`
        ring=0,
        view=layout.view(pages=n_pages, n_pages=n_pages),
        factor=0,
    )
    size = config.word_bytes
    reads = [(item["address"] * size, item["words"] * size) for item in streams["requests"] if item["skip"] == 0]
    steady = replace(model, refresh_interval=0)
    return min(1.0, steady.share_of(reads) / steady.share_of([(0, 1 << 16)])) * model.share


def of_machine(preset, machine):
    """The memories behind the ports of a machine that was made from a preset.

    Raises
    ------
    ValueError
        If its ports have another clock than the memory's, for which nothing is known of its timing.
    """
    model, config = PRESET_MEMORIES[preset], machine.config
    if model is IDEAL:
        return PortMemories(model=replace(IDEAL, data_width=config.port_data_width), config=config)
    if (config.port_data_width, config.port_mhz) != (model.data_width, model.mhz):
        raise ValueError(
            f"the memory model of {preset}, {model.name}, has ports of {model.data_width} bits at {model.mhz} MHz, but"
            f" the machine's have {config.port_data_width} bits at {config.port_mhz:g} MHz; leave port_data_width and"
            " port_mhz as they are"
        )
    return PortMemories(model=model, config=config)
