"""From the array to the epilogue: results of all rows as vectors, and what is done to them, beat by beat.

i -------> cutter -> queue -> Epilogue of each row, all in step -> o, o_statistics
i_steps -----^                   ^
i_bias, i_table, i_factors, i_residual
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.repeated import repeated
from edgeaccel.systolic.beat import result_beat
from edgeaccel.vector.beat import fields_of
from edgeaccel.vector.epilogue import Epilogue

__all__ = ["ResultCutter", "ResultPath"]

BEATS = 2  # as many as one beat a cycle needs
BY_ROW = ("elements", "factor")  # what a beat has for each row; the rest is the same in all


def _of_rows(shape, config):
    return data.ArrayLayout(shape, config.rows)


class ResultCutter(wiring.Component):
    """Cuts the channels that the array gives into vectors, and drops those that only fill up the last tile.

    The channels of a vector begin with a tile: `channels` of them are kept, those up to the end of the tile dropped.
    There is no register: a beat goes through in the cycle in which it is offered. One beat a cycle.

    Parameters
    ----------
    config : Config
    steps : dict of str to shape
        What is asked of a vector, which goes with each of its beats.
    max_length : int
        Channels of the longest vector.

    Members
    -------
    i : stream of `result_beat`
        `last` does not count: passes end where they will.
    i_steps : stream of {channels, and the fields of `steps`}
        One for each vector, taken with the last beat of its last tile.
    o : stream of {elements: FP32 codes x lanes x rows, keep: a bit a lane, last: 1, and the fields of `steps`}
    """

    def __init__(self, config, steps, *, max_length):
        self.config = config
        self._tiles = -(-max_length // config.tile_channels)
        beat = {"elements": result_beat(config)["values"].shape, "keep": config.vector_lanes, "last": 1}
        asked = {"channels": range(max_length + 1)} | steps
        super().__init__(
            {
                "i": In(stream.Signature(result_beat(config))),
                "i_steps": In(stream.Signature(data.StructLayout(asked))),
                "o": Out(stream.Signature(data.StructLayout(beat | steps))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, steps, o = self.i, self.i_steps, self.o
        lanes, tile_channels = self.config.vector_lanes, self.config.tile_channels
        beats_of_tile = tile_channels // lanes
        beat = Signal(range(self._tiles * beats_of_tile))
        first = beat << exact_log2(lanes)
        drops, ends_vector, ends_tile = Signal(), Signal(), Signal()
        goes = Signal()
        m.d.comb += [
            drops.eq(first >= steps.p.channels),
            ends_vector.eq(first + lanes >= steps.p.channels),
            ends_tile.eq(beat[: exact_log2(beats_of_tile)].all()),
            o.p.elements.eq(i.p.values),
            o.p.keep.eq(Cat(first + n < steps.p.channels for n in range(lanes))),
            o.p.last.eq(ends_vector),
            o.valid.eq(i.valid & steps.valid & ~drops),
            # What is dropped waits for a place too: so `ready` needs no comparison.
            i.ready.eq(o.ready & steps.valid),
            goes.eq(i.valid & i.ready),
            steps.ready.eq(o.ready & i.valid & ends_vector & ends_tile),
        ]
        m.d.comb += [o.p[name].eq(value) for name, value in fields_of(steps.p, "channels").items()]
        with m.If(goes):
            m.d.sync += beat.eq(Mux(steps.ready, 0, beat + 1))
        return m


class ResultPath(wiring.Component):
    """Results of the array through an `Epilogue` for each row, at line rate, without going through memory.

    The channels of an operator are one vector, or several that each begin with a tile, such as heads. Each vector has
    an item of `i_steps`, which tells how many channels it has and what is done to it in all rows; channels past them,
    with which the last tile is filled up, are dropped. An operand's beat is taken with each beat of a vector that asks
    for it. For SiLU x up, the up channels come first, as a vector that is kept and given back as the factors of the
    gate. `edgeaccel.vector.beat.check_length` and `edgeaccel.vector.rotary.check_rotation` are for programs.

    Equals `edgeaccel.golden.epilogue.epilogue` of the rows of `edgeaccel.golden.path.cut`, and in cycles
    `edgeaccel.golden.path.path_cycles`. One beat a cycle, whichever steps are on, without bubbles between vectors and
    operators of any sizes. All rows see the same `valid` and `ready`, so they stay in step, and the first speaks for
    all.

    Parameters
    ----------
    config : Config
        `rows`, and `vector_lanes` of at least 2.
    functions : sequence of str
        Activations of the build, as `FunctionUnit` takes them.
    max_length : int
        Channels of the longest vector, a multiple of `vector_lanes`.
    max_rotated : int
        Most channels that are rotated, a multiple of `vector_lanes`.
    layer : bool
        Whether the statistics can be those of LayerNorm.

    Members
    -------
    i : stream of `result_beat`
    i_steps : stream of {channels, and what `Epilogue` takes with its beats; factor: FP32 code x rows}
        Taken with the last beat of the vector's last tile.
    i_bias : stream of FP32 codes x lanes, for all rows
    i_table : stream of {cos, sin: FP32 codes x lanes} x rows
    i_factors, i_residual : streams of FP32 codes x lanes x rows
    o : stream of {elements: FP32 codes x lanes x rows, keep: a bit a lane, last: 1}
    o_statistics : stream of what `NormStatistics` gives x rows
        One for each vector with `statistics`.
    clear : in
        Resets the rows, which `ResetInserter` does not reach where they are instances.
    latency : int
        From a beat of `i` to one of `o`, if nothing stalls: that of the functions + 38 cycles. Half-split, the first
        result waits for the beat that is half of `rotated` further.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, config, *, functions, max_length, max_rotated, layer=False):
        self.config = config
        lanes = config.vector_lanes
        self._settings = {
            "functions": tuple(functions),
            "lanes": lanes,
            "max_length": max_length,
            "max_rotated": max_rotated,
            "layer": bool(layer),
        }
        self.rows = [Epilogue(**self._settings) for _ in range(config.rows)]
        row = self.rows[0]
        self.latency = 1 + row.scaler.latency + 1 + row.rotary.rotator.latency + row.finisher.latency
        steps = {name: field.shape for name, field in row.i.p.shape() if name not in ("elements", "keep", "last")}
        steps["factor"] = _of_rows(FP32.width, config)
        self.cutter = ResultCutter(config, steps, max_length=max_length)
        elements = self.cutter.o.p.elements.shape()
        of_rows = dict.fromkeys(("i_factors", "i_residual"), In(stream.Signature(elements)))
        o = data.StructLayout({"elements": elements, "keep": lanes, "last": 1})
        super().__init__(
            {
                "i": In(stream.Signature(self.cutter.i.p.shape())),
                "i_steps": In(stream.Signature(self.cutter.i_steps.p.shape())),
                "i_bias": In(stream.Signature(row.i_bias.p.shape())),
                "i_table": In(stream.Signature(_of_rows(row.i_table.p.shape(), config))),
                **of_rows,
                "o": Out(stream.Signature(o)),
                "o_statistics": Out(stream.Signature(_of_rows(row.o_statistics.p.shape(), config))),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.cutter = cutter = self.cutter
        m.submodules.beats = beats = Queue(cutter.o.p.shape(), BEATS)
        wiring.connect(m, wiring.flipped(self.i), cutter.i)
        wiring.connect(m, wiring.flipped(self.i_steps), cutter.i_steps)
        wiring.connect(m, cutter.o, beats.i)
        beat, o = beats.o.p, self.o
        for n, row in enumerate(self.rows):
            m.submodules[f"row{n}"] = repeated(platform, row, key=tuple(self._settings.items()), clear=self.clear)
            m.d.comb += [row.i.p[name].eq(beat[name]) for name in row.i.p.shape().members if name not in BY_ROW]
            m.d.comb += [row.i.p[name].eq(beat[name][n]) for name in BY_ROW]
            m.d.comb += [
                row.i_bias.p.eq(self.i_bias.p),
                row.i_table.p.eq(self.i_table.p[n]),
                row.i_factors.p.eq(self.i_factors.p[n]),
                row.i_residual.p.eq(self.i_residual.p[n]),
                o.p.elements[n].eq(row.o.p.elements),
                self.o_statistics.p[n].eq(row.o_statistics.p),
            ]
            m.d.comb += [end.valid.eq(port.valid) for port, end in self._inputs(beats, row)]
            m.d.comb += [end.ready.eq(port.ready) for port, end in self._outputs(row)]
        first = self.rows[0]
        m.d.comb += [o.p.keep.eq(first.o.p.keep), o.p.last.eq(first.o.p.last)]
        m.d.comb += [port.ready.eq(end.ready) for port, end in self._inputs(beats, first)]
        m.d.comb += [port.valid.eq(end.valid) for port, end in self._outputs(first)]
        return m

    def _inputs(self, beats, row):
        names = ("i_bias", "i_table", "i_factors", "i_residual")
        return [(beats.o, row.i), *((getattr(self, name), getattr(row, name)) for name in names)]

    def _outputs(self, row):
        return [(self.o, row.o), (self.o_statistics, row.o_statistics)]
