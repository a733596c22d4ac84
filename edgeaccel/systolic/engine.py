"""Matrix engine: the array with all that feeds it."""

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.command import StreamerError
from edgeaccel.memory.streamer import TileStreamer
from edgeaccel.repeated import repeated
from edgeaccel.systolic.array import GroupArray
from edgeaccel.systolic.beat import result_beat
from edgeaccel.systolic.feed import ActivationFeed, activation_load
from edgeaccel.systolic.operator import FeedError, operator

__all__ = ["MatrixEngine"]


class MatrixEngine(wiring.Component):
    """Matrices from memory times vectors from a buffer: a tile streamer for each group, the feed, and the array.

    Streamers and feed have commands of their own and run ahead, each as far as its buffers go: tiles of later operators
    come from memory while the array works on earlier ones, and no cycle passes between operators. The words that a
    port's commands bring must be those that its group needs: tiles `n`, `n + n_groups` and so on of the operators in
    which it takes part, each as many input tiles as the operator has. Equals `edgeaccel.golden.engine`.

    Throughput: a word of every port each cycle; with memories that are slower than the array, every beat that they
    can deliver.

    Parameters
    ----------
    config : Config
        With `port_mhz` other than `core_mhz` the ports are in the clock domain "port".
    buffer_words, burst_beats, outstanding, queue : int
        Of each `TileStreamer`.

    Members
    -------
    m_axi : array of axi.Signature, read channels, one for each group
    i_commands : array of streams of `TileStreamer` commands
    i_loads : stream of `activation_load`
    i_operators : stream of `operator`
    o : stream of `result_beat`
    events : n_events bits
        To all streamers: a pulse is an event that commands may wait for.
    clear : 1 bit
        A pulse ends everything and makes all as after reset but the contents of the activation buffer. It takes as long
        as the memories take to answer what they were asked for; until then commands and operators are not ready.
    done : 1 bit
        Of the feed.
    errors : array of StreamerError
    feed_error : FeedError
    domains : tuple of str
        Clock domains.
    """

    def __init__(self, config, *, buffer_words=512, burst_beats=16, outstanding=32, queue=8):
        self.config = config
        self._settings = {
            "data_width": config.port_data_width,
            "word_width": config.word_bits,
            "buffer_words": buffer_words,
            "burst_beats": burst_beats,
            "outstanding": outstanding,
            "queue": queue,
            "formats": config.formats,
            "port_domain": "sync" if config.port_mhz == config.core_mhz else "port",
            "most_kept": config.most_kept,
        }
        self._streamers = [TileStreamer(**self._settings) for _ in range(config.groups)]
        streamer = self._streamers[0]
        self.domains = streamer.domains
        ports = streamer.signature.members
        super().__init__(
            {
                "m_axi": Out(ports["m_axi"].signature).array(config.groups),
                "i_commands": In(stream.Signature(streamer.i_commands.p.shape())).array(config.groups),
                "i_loads": In(stream.Signature(activation_load(config))),
                "i_operators": In(stream.Signature(operator(config))),
                "o": Out(stream.Signature(result_beat(config))),
                "events": In(ports["events"].shape),
                "clear": In(1),
                "clearing": Out(1),
                "words": Out(config.groups),
                "starved": Out(config.groups),
                "done": Out(1),
                "errors": Out(StreamerError).array(config.groups),
                "feed_error": Out(FeedError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        feed, array = ActivationFeed(config), GroupArray(config)
        clearing, clear = Signal(config.groups), Signal()
        m.submodules.feed = ResetInserter(clear)(feed)
        m.submodules.array = array
        wiring.connect(m, feed.o, array.i_beats)
        wiring.connect(m, wiring.flipped(self.i_loads), feed.i_loads)
        wiring.connect(m, array.o, wiring.flipped(self.o))
        m.d.comb += [
            feed.i_operators.p.eq(self.i_operators.p),
            feed.i_operators.valid.eq(self.i_operators.valid & ~clear),
            self.i_operators.ready.eq(feed.i_operators.ready & ~clear),
            clear.eq(self.clear | clearing.any()),
            array.clear.eq(clear),
            self.clearing.eq(clearing.any()),
            self.done.eq(feed.done),
            self.feed_error.eq(feed.error),
        ]
        for n, streamer in enumerate(self._streamers):
            m.submodules[f"port{n}"] = repeated(platform, streamer, key=tuple(self._settings.items()))
            wiring.connect(m, streamer.m_axi, wiring.flipped(self.m_axi[n]))
            wiring.connect(m, wiring.flipped(self.i_commands[n]), streamer.i_commands)
            words = array.i_words[n]
            m.d.comb += [
                words.p.eq(streamer.o_words.p),
                words.valid.eq(streamer.o_words.valid),
                streamer.o_words.ready.eq(words.ready),
                *([streamer.keep.eq(array.keep[n])] if config.most_kept else []),
                *([streamer.rewind.eq(array.rewind[n])] if config.most_kept else []),
                streamer.events.eq(self.events),
                streamer.clear.eq(self.clear),
                clearing[n].eq(streamer.clearing),
                self.errors[n].eq(streamer.error),
                self.words[n].eq(words.valid & words.ready),
                self.starved[n].eq(~words.valid & words.ready),
            ]
        return m
