"""Activation feed: vectors in a buffer to the beats that the groups need.

loads -> buffer
operators -> OperatorGate -> BeatWalk -> BufferReader -> BlockAligner of each row -> beats
                                 `-> headers of tiles -----------------------------^
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory.buffer import memory_attributes
from edgeaccel.pe import float as pe_float
from edgeaccel.pe.align import BlockAligner
from edgeaccel.pe.digit import is_format
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.queue import Queue
from edgeaccel.systolic.beat import activation_beat
from edgeaccel.systolic.operator import FeedError, OperatorGate, operator

__all__ = ["ActivationFeed", "BeatWalk", "BufferReader", "activation_load"]

HEADERS = 8  # tiles on their way through the aligners


def activation_load(config):
    """A word for the buffer: `vector_lanes` activations of each row; only `rows` marked are written.

    With `event`, operators that wait can count on this and all loads before.
    """
    format = getattr(pe_float, config.activations.upper())
    elements = data.ArrayLayout(data.ArrayLayout(format.width, config.vector_lanes), config.rows)
    return data.StructLayout(
        {"address": range(config.buffer_words), "elements": elements, "rows": config.rows, "event": 1}
    )


def buffer_read(config):
    """A word to be read: of its elements the first `keep` are activations, the others zeros; `last` of a tile."""
    return data.StructLayout({"address": range(config.buffer_words), "keep": range(config.vector_lanes + 1), "last": 1})


def tile_header(config):
    """Of an activation beat all that is the same in the whole tile, and known before it is read."""
    names = ("format", "first_tile", "last_tile", "skip", "take", "set", "again")
    return data.StructLayout({name: activation_beat(config)[name].shape for name in names})


class ActivationFeed(wiring.Component):
    """The activation buffer, and its way into the array.

    An operator goes over its inputs once for each pass. In each cycle it reads `vector_lanes` of them, of every row,
    fills up the last tile's last word with zeros, aligns each tile to its largest exponent (`BlockAligner`, one for
    each row) and tells which groups need it. One beat a cycle, without a gap between tiles, passes and operators, but
    where tiles get longer: a tile leaves once it is complete. A load can be read from the cycle after it was taken on.
    Equals `edgeaccel.golden.feed`, in results and cycles.

    An operator that the build cannot do is refused: `error` tells which and why, and nothing follows it.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_loads : stream of `activation_load`
        Always ready.
    i_operators : stream of `operator`
    o : stream of `activation_beat`
    done : out
        High for a cycle when an operator has read its last input: its place in the buffer is free.
    error : FeedError
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "i_loads": In(stream.Signature(activation_load(config))),
                "i_operators": In(stream.Signature(operator(config))),
                "o": Out(stream.Signature(activation_beat(config))),
                "done": Out(1),
                "error": Out(FeedError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.gate = gate = OperatorGate(config)
        m.submodules.walk = walk = BeatWalk(config)
        m.submodules.headers = headers = Queue(tile_header(config), HEADERS)
        wiring.connect(m, wiring.flipped(self.i_operators), gate.i)
        wiring.connect(m, gate.o, walk.i)
        wiring.connect(m, walk.o_headers, headers.i)
        m.d.comb += [
            self.i_loads.ready.eq(1),
            gate.event.eq(self.i_loads.valid & self.i_loads.p.event),
            self.error.eq(gate.error),
            self.done.eq(walk.done),
        ]

        attributes = memory_attributes(config.buffer_words)
        loads, read_ports = self.i_loads, []
        for row, elements in enumerate(loads.p.elements):
            memory = Memory(shape=elements.shape(), depth=config.buffer_words, init=[], attrs=attributes)
            m.submodules[f"buffer{row}"] = memory
            write_port = memory.write_port()
            m.d.comb += [
                write_port.en.eq(loads.valid & loads.p.rows[row]),
                write_port.addr.eq(loads.p.address),
                write_port.data.eq(elements),
            ]
            read_ports.append(memory.read_port())
        m.submodules.reader = reader = BufferReader(config, read_ports)
        wiring.connect(m, walk.o_reads, reader.i)
        self._align(m, reader.o, headers.o)
        return m

    def _align(self, m, words, headers):
        """Of each row a block with an exponent; a beat goes when all rows, in step, and its header are there."""
        config, o = self.config, self.o
        largest_tile = max(config.layout(name).inputs for name in config.formats)
        aligners = []
        for row in range(config.rows):
            m.submodules[f"aligner{row}"] = aligner = BlockAligner(
                format=getattr(pe_float, config.activations.upper()),
                mantissa_bits=config.mantissa_bits,
                width=config.vector_lanes,
                block=largest_tile,
            )
            aligners.append(aligner)
        ready = Cat(aligner.i.ready for aligner in aligners)
        valid = Cat(aligner.o.valid for aligner in aligners)
        is_first = Signal(init=1)  # of its tile
        m.d.comb += [
            words.ready.eq(ready.all()),
            o.valid.eq(valid.all() & headers.valid),
            o.p.last.eq(aligners[0].o.p.last),
            o.p.pass_start.eq(is_first & headers.p.first_tile),
            headers.ready.eq(o.valid & o.ready & o.p.last),
        ]
        for row, aligner in enumerate(aligners):
            m.d.comb += [
                aligner.i.valid.eq(words.valid & ready.all()),
                aligner.i.p.elements.eq(words.p.elements[row]),
                aligner.i.p.last.eq(words.p.last),
                aligner.o.ready.eq(o.valid & o.ready),
                o.p.mantissas[row].eq(aligner.o.p.mantissas),
                o.p.exponents[row].eq(aligner.o.p.exponent),
                o.p.nans[row].eq(aligner.o.p.nan),
            ]
        for name in headers.p.shape().members:
            m.d.comb += o.p[name].eq(headers.p[name])
        with m.If(o.valid & o.ready):
            m.d.sync += is_first.eq(o.p.last)


class BeatWalk(wiring.Component):
    """The reads of an operator: in each pass all its inputs, one beat a cycle, with no gap between operators.

    An operator for several sets reads each tile of the first, then the same of the next, and so on.

    A tile that lacks inputs ends with the word that the last of them is in, or with the tile if it has several blocks
    or the operator says so.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : stream of `operator`
        Legal ones.
    o_reads : stream of `buffer_read`
    o_headers : stream of `tile_header`
        With the first read of a tile.
    done : out
        High with the last read of an operator.
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(operator(config))),
                "o_reads": Out(stream.Signature(buffer_read(config))),
                "o_headers": Out(stream.Signature(tile_header(config))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, lanes = self.config, self.config.vector_lanes
        reads, headers = self.o_reads, self.o_headers
        layouts = {name: config.layout(name) for name in config.formats}
        beats = {name: layout.inputs // lanes for name, layout in layouts.items()}
        # Beats after any multiple of which a tile may end: powers of two.
        steps = {
            name: (layout.inputs if layout.blocks > 1 else layout.inputs_per_word) // lanes
            for name, layout in layouts.items()
        }

        running = Signal(operator(config), reset_less=True)
        is_running = Signal()
        address = Signal.like(running.address)
        left = Signal.like(running.inputs)  # inputs of this pass
        tiles_left = Signal.like(running.channel_tiles)
        beat, last_beat = Signal(range(max(beats.values()))), Signal(range(max(beats.values())))
        step_mask = Signal(range(max(steps.values())))
        is_first = Signal()  # tile of the pass
        # Where the tile began, to begin there again, further on, for the next set.
        which, is_last_set = Signal.like(running.more_sets), Signal()
        tile_address, tile_left = Signal.like(address), Signal.like(left)
        for number, step in dict.fromkeys((beats[name], steps[name]) for name in config.formats):
            names = [name for name in config.formats if (beats[name], steps[name]) == (number, step)]
            with m.If(is_format(running.format, names, config.formats)):
                m.d.comb += [last_beat.eq(number - 1), step_mask.eq(step - 1)]

        starts_tile, ends_tile, ends_inputs, ends_pass, go = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            starts_tile.eq(beat == 0),
            ends_tile.eq((beat == last_beat) | (ends_inputs & ~running.whole & ((~beat & step_mask) == 0))),
            ends_inputs.eq(left <= lanes),
            is_last_set.eq(which == running.more_sets),
            ends_pass.eq(ends_tile & ends_inputs & is_last_set),
            reads.valid.eq(is_running & (headers.ready | ~starts_tile)),
            reads.p.address.eq(address),
            reads.p.keep.eq(Mux(ends_inputs, left, lanes)),
            reads.p.last.eq(ends_tile),
            go.eq(reads.valid & reads.ready),
            headers.valid.eq(go & starts_tile),
            headers.p.format.eq(running.format),
            headers.p.first_tile.eq(is_first),
            headers.p.last_tile.eq(left <= (last_beat + 1) << exact_log2(lanes)),
            headers.p.skip.eq(running.first_group),
            headers.p.set.eq(which),
            headers.p.again.eq(~is_last_set),
            headers.p.take.eq(Mux(tiles_left > running.n_groups, running.n_groups, tiles_left)),
            self.done.eq(go & ends_pass & (tiles_left <= running.n_groups)),
            self.i.ready.eq(~is_running | self.done),
        ]
        with m.If(go):
            m.d.sync += [
                beat.eq(Mux(ends_tile, 0, beat + 1)),
                address.eq(address + 1),
                left.eq(Mux(ends_inputs, 0, left - lanes)),
            ]
            if config.sets > 1:
                self._next_set(m, starts_tile, ends_tile, is_last_set, which, address, left, tile_address, tile_left)
            with m.If(ends_tile & is_last_set):
                m.d.sync += is_first.eq(0)
            with m.If(ends_pass):
                m.d.sync += [
                    address.eq(running.address),
                    left.eq(running.inputs),
                    tiles_left.eq(tiles_left - running.n_groups),
                    is_first.eq(1),
                ]
        with m.If(self.done):
            m.d.sync += is_running.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                running.eq(self.i.p),
                is_running.eq(1),
                address.eq(self.i.p.address),
                left.eq(self.i.p.inputs),
                tiles_left.eq(self.i.p.channel_tiles),
                is_first.eq(1),
            ]
        return m

    def _next_set(self, m, starts_tile, ends_tile, is_last_set, which, address, left, tile_address, tile_left):
        """Behind a tile the same of the next set, or the next tile of the first."""
        words = self.config.set_words
        with m.If(starts_tile):
            m.d.sync += [tile_address.eq(address), tile_left.eq(left)]
        with m.If(ends_tile):
            # A tile that is a single beat begins where it ends.
            begin, inputs = Mux(starts_tile, address, tile_address), Mux(starts_tile, left, tile_left)
            with m.If(is_last_set):
                m.d.sync += [which.eq(0), address.eq(address + 1 - which * words)]
            with m.Else():
                m.d.sync += [which.eq(which + 1), address.eq(begin + words), left.eq(inputs)]


class BufferReader(Pipelined):
    """Reads words of the buffer, and puts zeros where a word has no activations.

    Parameters
    ----------
    config : Config
    read_ports : list
        Of the memories of the rows.

    Members
    -------
    i : stream of {address, keep, last}
    o : stream of {elements: codes x vector_lanes x rows, last}
    latency : int
        3 cycles.
    """

    def __init__(self, config, read_ports):
        self._read_ports = read_ports
        elements = activation_load(config)["elements"].shape
        super().__init__({"i": buffer_read(config)}, data.StructLayout({"elements": elements, "last": 1}), cycles=2)

    def datapath(self, pipe, i):
        for port in self._read_ports:
            pipe.m.d.comb += [port.addr.eq(i.address), port.en.eq(1)]
        pipe.carry(keep=i.keep, last=i.last)
        pipe.stage()
        kept = [Mux(pipe.keep > n, code, 0) for port in self._read_ports for n, code in enumerate(port.data)]
        return Cat(pipe.stage(kept=kept), pipe.last)
