"""Operators of the array: what the activation feed is told, and what it refuses."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory.event import EventCounters
from edgeaccel.pe.digit import FormatCode

__all__ = ["CHANNEL_TILES_WIDTH", "OPERATOR_NUMBER_WIDTH", "FeedError", "FeedErrorCode", "OperatorGate", "operator"]

CHANNEL_TILES_WIDTH = 16
OPERATOR_NUMBER_WIDTH = 16


def operator(config):
    """A matrix times the activations in the buffer.

    address
        Of the first activations, in words of the buffer, `vector_lanes` inputs each.
    inputs
        As many as the matrix has; what they lack to whole words, or tiles of two blocks, is taken as zeros.
    channel_tiles
        Tiles of output channels.
    first_group, n_groups
        The groups that the channel tiles go round; `ceil(channel_tiles / n_groups)` passes.
    format
        Of the tiles.
    wait
        Wait for one event of loads first.
    more_sets
        Further sets of activations for which each tile is used, each `Config.set_words` behind the one before. Of each
        tile come the results of a pass's groups for the first set, then for the next.
    whole
        The last tile of inputs has all its words, though the inputs end before: that of a matrix that grows. Else it
        ends with the word that the last input is in.
    """
    return data.StructLayout(
        {
            "address": range(config.buffer_words),
            "inputs": range(config.buffer_inputs + 1),
            "channel_tiles": CHANNEL_TILES_WIDTH,
            "first_group": range(config.groups),
            "n_groups": range(config.groups + 1),
            "format": FormatCode,
            "wait": 1,
            "more_sets": range(config.sets),
            "whole": 1,
        }
    )


class FeedErrorCode(enum.Enum, shape=3):
    """Why an operator was refused."""

    EMPTY = 0
    """No inputs or no channels."""
    RANGE = 1
    """The activations go past the end of the buffer."""
    GROUPS = 2
    """No groups, or more than there are."""
    FORMAT = 3
    """The format is not in the build."""
    EVENT_OVERFLOW = 4
    """More events of loads came than can be counted before operators wait for them."""


class FeedError(data.Struct):
    """The first error since reset.

    Members
    -------
    valid : 1 bit
        There was one; the rest means nothing before.
    code : FeedErrorCode
    operator : 16 bits
        Number of the refused operator since reset, from 0, modulo 2**16; of the next one for `EVENT_OVERFLOW`.
    """

    valid: 1
    code: FeedErrorCode
    operator: OPERATOR_NUMBER_WIDTH


class OperatorGate(wiring.Component):
    """Lets operators through that the build can do, once the event that they wait for has come.

    After an error nothing more goes through. An operator is offered from the cycle after it was taken on; the next one
    is taken after it has gone.

    Parameters
    ----------
    config : Config

    Members
    -------
    i, o : streams of `operator`
    event : in
        A cycle high is one event more to be waited for; up to 255 are counted.
    error : FeedError
    """

    def __init__(self, config):
        self.config = config
        operators = stream.Signature(operator(config))
        super().__init__({"i": In(operators), "o": Out(operators), "event": In(1), "error": Out(FeedError)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.events = events = EventCounters(1)
        held = Signal(operator(config), reset_less=True)
        is_held, number = Signal(), Signal(OPERATOR_NUMBER_WIDTH)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(self.i.p), is_held.eq(1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [is_held.eq(0), number.eq(number + 1)]
        codes = [FormatCode[name.upper()] for name in config.formats]
        end = (held.address << exact_log2(config.vector_lanes)) + held.inputs
        if config.sets > 1:
            end += held.more_sets * (config.set_words * config.vector_lanes)
        refusals = {
            FeedErrorCode.EMPTY: (held.inputs == 0) | (held.channel_tiles == 0),
            FeedErrorCode.RANGE: end > config.buffer_inputs,
            FeedErrorCode.GROUPS: (held.n_groups == 0) | (held.first_group + held.n_groups > config.groups),
            FeedErrorCode.FORMAT: ~Cat(held.format == code for code in codes).any(),
        }
        refused = Signal()
        m.d.comb += [
            refused.eq(Cat(refusals.values()).any()),
            self.i.ready.eq(~is_held),
            self.o.p.eq(held),
            self.o.valid.eq(is_held & ~refused & ~self.error.valid & (events.available | ~held.wait)),
            events.pulses.eq(self.event),
            events.index.eq(0),
            events.take.eq(self.o.valid & self.o.ready & held.wait),
        ]
        with m.If(~self.error.valid):
            m.d.sync += [self.error.valid.eq((is_held & refused) | events.overflow), self.error.operator.eq(number)]
            m.d.sync += self.error.code.eq(FeedErrorCode.EVENT_OVERFLOW)
            for code, is_so in reversed(refusals.items()):
                with m.If(is_held & is_so):
                    m.d.sync += self.error.code.eq(code)
        return m
