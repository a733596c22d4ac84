"""What travels along the systolic chain."""

from amaranth.hdl import signed
from amaranth.lib import data

from edgeaccel.pe.align import EXPONENT_WIDTH
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.float import FP32

__all__ = ["activation_beat", "block_tag", "result_beat", "word"]


def activation_beat(config):
    """What every group does in a cycle, and with which activations.

    mantissas
        What each pair of lanes multiplies, for each row.
    exponents, nans
        Of the block, for each row; they count in its last beat.
    format
        How to read the word of weights.
    scales
        Take a word of scales and do nothing else; of the other fields `active` and `pass_start` count.
    last
        The beat is the last of its block.
    first_block, last_block
        Sums begin with this block, or end with it and leave.
    pass_start
        The first beat, one of scales, of a pass: the active groups take all inputs of one tile of channels each.
    active
        How many groups from this one on take part in the pass; the rest hand the beat on and need no words.
    """
    rows = config.rows
    return data.StructLayout(
        {
            "mantissas": data.ArrayLayout(data.ArrayLayout(signed(config.mantissa_bits), config.lanes // 2), rows),
            "exponents": data.ArrayLayout(signed(EXPONENT_WIDTH), rows),
            "nans": rows,
            "format": FormatCode,
            "scales": 1,
            "last": 1,
            "first_block": 1,
            "last_block": 1,
            "pass_start": 1,
            "active": range(config.groups + 1),
        }
    )


def word(config):
    """A word of a tile: a code for each lane, or as many scales as there is room for."""
    return data.ArrayLayout(4, config.lanes)


def block_tag(config):
    """What has to meet the sums of a block behind the datapath; the fields are those of `activation_beat`."""
    names = ("exponents", "nans", "format", "first_block", "last_block")
    return data.StructLayout({name: activation_beat(config)[name].shape for name in names})


def result_beat(config):
    """Results of one output channel, an FP32 code for each row; `last` with the last channel of the pass so far."""
    return data.StructLayout({"values": data.ArrayLayout(FP32.width, config.rows), "last": 1})
