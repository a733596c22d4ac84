"""A group of the systolic array: what one memory port feeds.

beats in ---> Hop ----------------------------------------------> beats out, to the next group
               |  `-> turns ------------------------------------------------------------------.
               v                                                                              |
        ActivationStore                                                                       |
               v                                                                              v
words ---> TileWalk ---> GroupDatapath -> Serialiser -> ScaledAccumulator -> Packer -> own -> Merge ---> results out
               `-> scales ------------------^                                                   ^
results in -------------------------------------------------------------------------------------'
"""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.formats import FORMATS
from edgeaccel.pe.group import GroupDatapath
from edgeaccel.pe.scaled_accumulator import ScaledAccumulator
from edgeaccel.queue import Queue
from edgeaccel.systolic.accumulator import SetAccumulator
from edgeaccel.systolic.beat import activation_beat, block_tag, pass_turn, result_beat, word
from edgeaccel.systolic.hop import Hop
from edgeaccel.systolic.merge import Merge
from edgeaccel.systolic.packer import Packer
from edgeaccel.systolic.serialiser import Serialiser
from edgeaccel.systolic.store import ActivationStore
from edgeaccel.systolic.walk import TileWalk

__all__ = ["Group"]

SCALE_WORDS = 4
TURNS = 32  # passes that have begun and whose results are not all through
OWN_TILES = 2  # of each set, whose results wait for those of the groups before
RESULT_BEATS = 4


class Group(wiring.Component):
    """Words of tiles times activations, to FP32 results that leave in order.

    A group that takes part in a pass keeps the activations that pass by, tile by tile, and goes through the words of
    each tile with them: one word a cycle. A group whose port stalls delays the next one only once its store is full.
    Equals `edgeaccel.golden.array`, in results and cycles.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_words : stream of `word`
        The tiles of this group's channels, from its port.
    keep, rewind : out
        In a build of several sets: the offered word is wanted again, for the next set; with the last of such words,
        that all of them come again now.
    i_beats, o_beats : streams of `activation_beat`
    i_results, o_results : streams of `result_beat`
    """

    def __init__(self, config):
        self.config = config
        beats = stream.Signature(activation_beat(config))
        results = stream.Signature(result_beat(config))
        super().__init__(
            {
                "i_words": In(stream.Signature(word(config))),
                **({"keep": Out(1), "rewind": Out(1)} if config.sets > 1 else {}),
                "i_beats": In(beats),
                "o_beats": Out(beats),
                "i_results": In(results),
                "o_results": Out(results),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.hop = hop = Hop(config)
        m.submodules.store = store = ActivationStore(config)
        m.submodules.walk = walk = TileWalk(config)
        m.submodules.datapath = datapath = GroupDatapath(
            lanes=config.lanes,
            mantissa_bits=config.mantissa_bits,
            formats=config.formats,
            rows=config.rows,
            block=config.block,
        )
        m.submodules.serialiser = serialiser = Serialiser(config, sum_width=datapath.sum_width, n_sums=datapath.n_sums)
        m.submodules.packer = packer = Packer(config)
        m.submodules.merge = merge = Merge(config)
        m.submodules.turns = turns = Queue(pass_turn(config), TURNS)
        m.submodules.blocks = blocks = Queue(block_tag(config), datapath.credits + 1)
        m.submodules.scales = scales = Queue(word(config), SCALE_WORDS)
        own_beats = OWN_TILES * config.sets * config.tile_channels // config.vector_lanes
        m.submodules.own = own = Queue(result_beat(config), own_beats)
        m.submodules.results = results = Queue(result_beat(config), RESULT_BEATS)

        wiring.connect(m, wiring.flipped(self.i_beats), hop.i)
        wiring.connect(m, hop.o, wiring.flipped(self.o_beats))
        wiring.connect(m, hop.o_own, store.i)
        wiring.connect(m, hop.o_turns, turns.i)
        wiring.connect(m, store.o, walk.i_tags)
        wiring.connect(m, wiring.flipped(self.i_words), walk.i_words)
        if config.sets > 1:
            m.d.comb += [self.keep.eq(walk.keep), self.rewind.eq(walk.rewind)]
        wiring.connect(m, walk.o_blocks, blocks.i)
        wiring.connect(m, walk.o_scales, scales.i)
        codes, words, activations = walk.o_codes, datapath.i_words, datapath.i_activations
        m.d.comb += [
            store.line.eq(walk.line),
            words.p.eq(codes.p.word),
            words.valid.eq(codes.valid),
            activations.p.mantissas.eq(store.mantissas),
            activations.p.format.eq(codes.p.format),
            activations.p.last.eq(codes.p.last),
            activations.valid.eq(codes.valid),
            codes.ready.eq(words.ready),  # and those of the activations are taken too
        ]
        wiring.connect(m, datapath.o, serialiser.i_sums)
        wiring.connect(m, blocks.o, serialiser.i_tags)
        wiring.connect(m, scales.o, serialiser.i_scales)
        for n, term in enumerate(serialiser.o):
            if config.sets > 1:
                accumulator = SetAccumulator(config, sum_width=datapath.sum_width)
            else:
                accumulator = ScaledAccumulator(
                    sum_width=datapath.sum_width,
                    rows=config.rows,
                    channels=config.tile_channels // config.scalers,
                    scales=tuple(dict.fromkeys(FORMATS[name].scale for name in config.formats)),
                )
            m.submodules[f"accumulator{n}"] = accumulator
            wiring.connect(m, term, accumulator.i)
            wiring.connect(m, accumulator.o, packer.i[n])
        wiring.connect(m, turns.o, merge.i_turns)
        wiring.connect(m, wiring.flipped(self.i_results), merge.i_before)
        wiring.connect(m, packer.o, own.i)
        wiring.connect(m, own.o, merge.i_own)
        wiring.connect(m, merge.o, results.i)
        wiring.connect(m, results.o, wiring.flipped(self.o_results))
        return m
