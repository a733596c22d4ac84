"""Hop: where a group takes what it needs of the activations that pass by."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.queue import Queue
from edgeaccel.systolic.beat import activation_beat, pass_turn

__all__ = ["Hop"]

HOP_BEATS = 2  # as many as one beat a cycle needs


class Hop(wiring.Component):
    """Hands each beat on to the next group and, if this group takes part, to this one.

    The two go in whatever order they are ready. With the first beat of a pass it is noted what this group will have to
    do with the pass's results; a group in front of all that take part has nothing to do with them. One beat a cycle,
    one cycle a hop.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : stream of `activation_beat`
    o : stream of `activation_beat`
        To the next group.
    o_own : stream of `activation_beat`
    o_turns : stream of `pass_turn`
    """

    def __init__(self, config):
        self.config = config
        beats = stream.Signature(activation_beat(config))
        super().__init__(
            {
                "i": In(beats),
                "o": Out(beats),
                "o_own": Out(beats),
                "o_turns": Out(stream.Signature(pass_turn(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.beats = beats = Queue(activation_beat(self.config), HOP_BEATS)
        wiring.connect(m, wiring.flipped(self.i), beats.i)
        beat, own, turns = beats.o.p, self.o_own, self.o_turns

        is_next = Signal()  # the beat is the next group's turn to count down
        takes_part, has_turn = Signal(), Signal()
        own_done, own_now, next_done, next_now = Signal(), Signal(), Signal(), Signal()
        own_free, turn_free = Signal(), Signal()
        m.d.comb += [
            is_next.eq(beat.skip == 0),
            takes_part.eq(is_next & (beat.take != 0)),
            has_turn.eq(beat.pass_start & (takes_part | beat.follows)),
            own_free.eq(own.ready | ~takes_part),
            turn_free.eq(turns.ready | ~has_turn),
            own.p.eq(beat),
            own.valid.eq(beats.o.valid & ~own_done & takes_part & turn_free),
            turns.p.own.eq(takes_part),
            turns.p.follows.eq(beat.follows),
            turns.valid.eq(beats.o.valid & ~own_done & has_turn & own_free),
            own_now.eq(own_done | (beats.o.valid & own_free & turn_free)),
            self.o.p.eq(beat),
            self.o.p.skip.eq(Mux(is_next, 0, beat.skip - 1)),
            self.o.p.take.eq(beat.take - takes_part),
            self.o.p.follows.eq(beat.follows | takes_part),
            self.o.valid.eq(beats.o.valid & ~next_done),
            next_now.eq(next_done | (self.o.valid & self.o.ready)),
            beats.o.ready.eq(own_now & next_now),
        ]
        m.d.sync += [own_done.eq(own_now & ~beats.o.ready), next_done.eq(next_now & ~beats.o.ready)]
        return m
