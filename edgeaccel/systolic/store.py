"""Activation store: the next tiles' activations, kept in each group."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from edgeaccel.pe.digit import FormatCode
from edgeaccel.queue import Queue
from edgeaccel.systolic.beat import activation_beat, activations, tile_lines, tile_tag

__all__ = ["ActivationStore", "store_size"]

STORE_LINES = 32  # of a LUT RAM


def store_size(config):
    """Tiles that find room in an `ActivationStore`, and the lines of each."""
    lines = 1 << ceil_log2(tile_lines(config))
    return max(2, STORE_LINES // lines), lines


class ActivationStore(wiring.Component):
    """Collects the activations of a tile from their beats and holds them until the tile is through.

    A *line* is what a word meets: a mantissa for each pair of lanes. Formats that give an input to several pairs
    (`Format.pairs_per_input`) have their inputs written to both halves of the lines. A tile has whole lines, as many as
    its beats fill. While one tile is read, others
    are written: as many as find room in 32 lines, and at least two. That is how far a group may lag behind the one
    before it. Takes one beat a cycle.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : stream of `activation_beat`
    o : stream of `tile_tag`
        A tile that is complete; it is given up when its tag is taken.
    line : in
        Line of that tile, as many bits as the format with the most lines needs.
    mantissas : out, signed(mantissa_bits) x lanes / 2 x rows
        In the same cycle.
    slots : int
        Tiles that find room.
    """

    def __init__(self, config):
        self.config = config
        self.slots, lines = store_size(config)
        self.line_width = exact_log2(lines)
        super().__init__(
            {
                "i": In(stream.Signature(activation_beat(config))),
                "o": Out(stream.Signature(tile_tag(config))),
                "line": In(self.line_width),
                "mantissas": Out(activations(config, config.lanes // 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, beat = self.config, self.i.p
        m.submodules.tags = tags = Queue(tile_tag(config), self.slots)
        wiring.connect(m, tags.o, wiring.flipped(self.o))
        m.d.comb += [self.i.ready.eq(tags.i.ready), tags.i.valid.eq(self.i.valid & beat.last)]

        # A line is two halves of so many beats each.
        beats = config.tile_channels // config.vector_lanes
        place = Signal(self.line_width + 1 + exact_log2(beats))  # of the beat within the tile
        is_duplicated = Cat(beat.format == code for code in (FormatCode.INT16, FormatCode.MXFP4)).any()
        beat_of_half = place[: exact_log2(beats)]
        half = place[exact_log2(beats)]
        line = Signal(self.line_width)
        m.d.comb += line.eq(Mux(is_duplicated, place[exact_log2(beats) :], place[exact_log2(beats) + 1 :]))
        for name in tags.i.p.shape().members:
            m.d.comb += tags.i.p[name].eq(line if name == "last_line" else beat[name])

        put, get = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        slots = {}
        for name, step in (("put", put & beat.last), ("get", get)):
            slots[name] = Signal(range(self.slots), name=f"{name}_slot")
            with m.If(step):
                m.d.sync += slots[name].eq(Mux(slots[name] == self.slots - 1, 0, slots[name] + 1))
        with m.If(put):
            m.d.sync += place.eq(Mux(beat.last, 0, place + 1))

        parts = [[] for _ in range(config.rows)]
        for half_number in range(2):
            for number in range(beats):
                memory = Memory(
                    shape=activations(config, config.vector_lanes),
                    depth=self.slots << self.line_width,
                    init=[],
                    attrs={"no_init": 1, "ram_style": "distributed"},
                )
                m.submodules[f"half{half_number}_beat{number}"] = memory
                write, read = memory.write_port(), memory.read_port(domain="comb")
                is_place = (beat_of_half == number) & (is_duplicated | (half == half_number))
                m.d.comb += [
                    write.en.eq(put & is_place),
                    write.addr.eq(Cat(line, slots["put"])),
                    write.data.eq(beat.mantissas),
                    read.addr.eq(Cat(self.line, slots["get"])),
                ]
                for row, part in zip(parts, read.data, strict=True):
                    row.append(part)
        m.d.comb += self.mantissas.eq(Cat(Cat(row) for row in parts))
        return m
