"""What travels along the systolic chain."""

from amaranth.hdl import signed
from amaranth.lib import data

from edgeaccel.pe.align import EXPONENT_WIDTH
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.float import FP32

__all__ = ["activation_beat", "activations", "block_tag", "pass_turn", "result_beat", "tile_lines", "tile_tag", "word"]


def activation_beat(config):
    """Aligned activations on their way to the groups that need them, `vector_lanes` of each row.

    The inputs of a tile take as many beats as the words of the tile have room for, in ascending order, and all fields
    but `mantissas`, `last` and `pass_start` are the same in all of them.

    mantissas
    exponents, nans
        Of the tile's inputs, for each row.
    format
        How to read the tile.
    last
        The beat is the last of its tile.
    first_tile, last_tile
        Sums begin with this tile, or end with it and leave.
    pass_start
        The first beat of a pass: the groups that take part take all inputs of one tile of channels each. If the pass is
        for several sets, of each set's.
    set, again
        Which of the sets of activations that share the pass's words; the same tile's of another set comes next.
    skip, take
        `take` groups behind the next `skip` ones take part; others hand the beat on.
    follows
        A group before this one takes part.
    """
    rows = config.rows
    return data.StructLayout(
        {
            "mantissas": activations(config, config.vector_lanes),
            "exponents": data.ArrayLayout(signed(EXPONENT_WIDTH), rows),
            "nans": rows,
            "format": FormatCode,
            "last": 1,
            "first_tile": 1,
            "last_tile": 1,
            "pass_start": 1,
            "skip": range(config.groups),
            "take": range(config.groups + 1),
            "follows": 1,
            "set": range(config.sets),
            "again": range(min(2, config.sets)),
        }
    )


def activations(config, width):
    """Mantissas of `width` activations of each row."""
    return data.ArrayLayout(data.ArrayLayout(signed(config.mantissa_bits), width), config.rows)


def word(config):
    """A word of a tile as it lies in memory: codes of all lanes, or as many scales as there is room for."""
    return data.ArrayLayout(4, config.lanes)


def tile_lines(config):
    """Lines of a tile, at most: mantissas for all pairs of lanes, which a word of each group of channels meets."""
    layouts = [config.layout(name) for name in config.formats]
    return max(layout.inputs // layout.inputs_per_word for layout in layouts)


def tile_tag(config):
    """What is kept of the activations of a tile beside their mantissas.

    last_line
        Lines of the tile, less one.
    The other fields are those of `activation_beat`.
    """
    fields = _fields(config, "exponents", "nans", "format", "first_tile", "last_tile", "set", "again")
    return data.StructLayout(dict(fields.members) | {"last_line": range(tile_lines(config))})


def block_tag(config):
    """What has to meet the sums of a block behind the datapath; sums of a set begin with `first`, end with `last`."""
    fields = _fields(config, "exponents", "nans", "format", "set")
    return data.StructLayout(dict(fields.members) | {"first": 1, "last": 1})


def pass_turn(config):
    """What a group has to do with the results of a pass: give its own, after those of the groups before or alone."""
    return data.StructLayout({"own": 1, "follows": 1})


def result_beat(config):
    """Results of `vector_lanes` output channels, an FP32 code for each row; `last` with the pass's last so far."""
    values = data.ArrayLayout(data.ArrayLayout(FP32.width, config.vector_lanes), config.rows)
    return data.StructLayout({"values": values, "last": 1})


def _fields(config, *names):
    return data.StructLayout({name: activation_beat(config)[name].shape for name in names})
