"""A group of the systolic array: what one memory port feeds.

beats in ---> hop queue ---+---------------------------> beats out, to the next group
                           v
words ---> scales | codes -> GroupDatapath -> Serialiser -> ScaledAccumulator ---+
              `-> queue of scales -------------^                                 v
results in ------------------------------------------------------------------> Merge -> results out
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.formats import FORMATS
from edgeaccel.pe.group import GroupDatapath
from edgeaccel.pe.scaled_accumulator import ScaledAccumulator
from edgeaccel.queue import Queue
from edgeaccel.systolic.beat import activation_beat, block_tag, result_beat, word
from edgeaccel.systolic.merge import Merge
from edgeaccel.systolic.serialiser import Serialiser

__all__ = ["Group"]

HOP_BEATS = 16  # that a group may lag behind the one before it
SCALE_WORDS = 4
PASSES = 4
RESULT_BEATS = 4


class Group(wiring.Component):
    """Words of tiles times the activations that pass by, to FP32 results that leave in order.

    Each activation beat goes to the next group and, if this one takes part, meets a word: of scales if the beat says
    so, else of codes. A group whose port stalls delays the next one only once its hop queue is full. One beat a cycle.
    Equals `edgeaccel.golden.array`, in results and cycles.

    Parameters
    ----------
    config : Config

    Members
    -------
    is_first : in
        Whether the group is the first in the chain: constant.
    i_words : stream of `word`
        The tiles of this group's channels, from its port.
    i_beats, o_beats : streams of `activation_beat`
    i_results, o_results : streams of `result_beat`
        `i_results` is not used in the first group.
    """

    def __init__(self, config):
        self.config = config
        beats = stream.Signature(activation_beat(config))
        results = stream.Signature(result_beat(config))
        super().__init__(
            {
                "is_first": In(1),
                "i_words": In(stream.Signature(word(config))),
                "i_beats": In(beats),
                "o_beats": Out(beats),
                "i_results": In(results),
                "o_results": Out(results),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.datapath = datapath = GroupDatapath(
            lanes=config.lanes,
            mantissa_bits=config.mantissa_bits,
            formats=config.formats,
            rows=config.rows,
            block=config.block,
        )
        m.submodules.serialiser = serialiser = Serialiser(config, sum_width=datapath.sum_width, n_sums=datapath.n_sums)
        m.submodules.merge = merge = Merge(config)
        m.submodules.hop = hop = Queue(activation_beat(config), HOP_BEATS)
        m.submodules.tags = tags = Queue(block_tag(config), datapath.credits + 1)
        m.submodules.scales = scales = Queue(word(config), SCALE_WORDS)
        m.submodules.passes = passes = Queue(1, PASSES)
        m.submodules.results = results = Queue(result_beat(config), RESULT_BEATS)
        wiring.connect(m, wiring.flipped(self.i_beats), hop.i)
        wiring.connect(m, datapath.o, serialiser.i_sums)
        wiring.connect(m, tags.o, serialiser.i_tags)
        wiring.connect(m, scales.o, serialiser.i_scales)
        for n, term in enumerate(serialiser.o):
            m.submodules[f"accumulator{n}"] = accumulator = ScaledAccumulator(
                sum_width=datapath.sum_width,
                rows=config.rows,
                channels=config.tile_channels // config.scalers,
                scales=tuple(dict.fromkeys(FORMATS[name].scale for name in config.formats)),
            )
            wiring.connect(m, term, accumulator.i)
            wiring.connect(m, accumulator.o, merge.i_own[n])
        m.d.comb += merge.is_first.eq(self.is_first)
        wiring.connect(m, passes.o, merge.i_passes)
        wiring.connect(m, wiring.flipped(self.i_results), merge.i_before)
        wiring.connect(m, merge.o, results.i)
        wiring.connect(m, results.o, wiring.flipped(self.o_results))
        self._fork(m, hop.o, datapath, tags.i, scales.i, passes.i)
        return m

    def _fork(self, m, hop, datapath, tags, scales, passes):
        """Each beat once to the next group and once into this one, in whatever order the two are ready."""
        beat, words = hop.p, self.i_words
        own_done, next_done = Signal(), Signal()
        is_own, is_scales, is_codes, is_idle = Signal(), Signal(), Signal(), Signal()
        takes_part = beat.active != 0
        may_start = passes.ready | ~beat.pass_start
        m.d.comb += [
            is_own.eq(hop.valid & ~own_done),
            scales.valid.eq(is_own & takes_part & beat.scales & words.valid & may_start),
            scales.p.eq(words.p),
            is_scales.eq(scales.valid & scales.ready),
            datapath.i_activations.valid.eq(is_own & takes_part & ~beat.scales & (tags.ready | ~beat.last)),
            datapath.i_words.valid.eq(datapath.i_activations.valid & words.valid),
            datapath.i_words.p.eq(words.p),
            is_codes.eq(datapath.i_words.valid & datapath.i_words.ready),
            is_idle.eq(is_own & ~takes_part & may_start),
            words.ready.eq(is_scales | is_codes),
            tags.valid.eq(is_codes & beat.last),
            passes.valid.eq((is_scales | is_idle) & beat.pass_start),
            passes.p.eq(takes_part),
        ]
        for name in ("mantissas", "format", "last"):
            m.d.comb += datapath.i_activations.p[name].eq(beat[name])
        for name in tags.p.shape().members:
            m.d.comb += tags.p[name].eq(beat[name])

        goes_on = Signal()
        own_now, next_now = Signal(), Signal()
        m.d.comb += [
            self.o_beats.valid.eq(hop.valid & ~next_done),
            self.o_beats.p.eq(beat),
            self.o_beats.p.active.eq(Mux(takes_part, beat.active - 1, 0)),
            own_now.eq(own_done | is_scales | is_codes | is_idle),
            next_now.eq(next_done | (self.o_beats.valid & self.o_beats.ready)),
            goes_on.eq(own_now & next_now),
            hop.ready.eq(goes_on),
        ]
        m.d.sync += [own_done.eq(own_now & ~goes_on), next_done.eq(next_now & ~goes_on)]
