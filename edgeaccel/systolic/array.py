"""The group systolic array: groups in a chain, each with a port of its own."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.repeated import repeated
from edgeaccel.systolic.beat import activation_beat, result_beat, word
from edgeaccel.systolic.group import Group

__all__ = ["GroupArray"]


class GroupArray(wiring.Component):
    """`groups` groups in a chain: activation beats enter at the first, results leave at the last.

    An operator is a number of passes. In a pass some groups in a row each take one tile of channels, over all inputs;
    the results come out in the order of passes, in a pass in the order of groups.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_beats : stream of `activation_beat`
    i_words : array of streams of `word`, one for each group
    keep, rewind : out, a bit for each group
        In a build of several sets: as those of `Group`.
    o : stream of `result_beat`
    clear : 1 bit
        A pulse makes all as after reset.
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "i_beats": In(stream.Signature(activation_beat(config))),
                "i_words": In(stream.Signature(word(config))).array(config.groups),
                **({"keep": Out(config.groups), "rewind": Out(config.groups)} if config.sets > 1 else {}),
                "o": Out(stream.Signature(result_beat(config))),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beats, results = wiring.flipped(self.i_beats), None
        for n, words in enumerate(self.i_words):
            group = Group(self.config)
            m.submodules[f"group{n}"] = repeated(platform, group, clear=self.clear)
            wiring.connect(m, beats, group.i_beats)
            wiring.connect(m, wiring.flipped(words), group.i_words)
            if self.config.sets > 1:
                m.d.comb += [self.keep[n].eq(group.keep), self.rewind[n].eq(group.rewind)]
            if results is not None:
                wiring.connect(m, results, group.i_results)
            beats, results = group.o_beats, group.o_results
        m.d.comb += beats.ready.eq(1)
        wiring.connect(m, results, wiring.flipped(self.o))
        return m
