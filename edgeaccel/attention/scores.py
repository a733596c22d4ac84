"""From a pass over the keys to one over the values: scores of all rows as weights in the activation buffer.

i -------+-> ScoreRow of each row, all in step -> o, o_chunks
i_steps -+       ^                                ^
   `-------------|--> queues of units ------------+
i_scales --------+
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.attention.scores_row import ScoreRow
from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.repeated import repeated
from edgeaccel.systolic.beat import result_beat
from edgeaccel.systolic.feed import activation_load
from edgeaccel.vector.chunk import SHIFT_WIDTH

__all__ = ["ScorePath", "score_chunk", "score_step"]


def score_step(config, slots):
    """What is asked of a unit.

    slot, first, last
        Whose running maximum counts; `first` begins it anew. `last` goes along.
    beats
        Of the unit, 1 to block / vector_lanes.
    factor
        FP32 code: log2(e), times what the scores are to be multiplied by.
    lo, hi
        Of each row: the positions lo <= k < hi count, others are masked.
    address
        Where the weights of the first beat go in the activation buffer; those of others follow.
    """
    bounds = data.ArrayLayout(range(config.block + 1), config.rows)
    return data.StructLayout(
        {
            "slot": range(slots),
            "first": 1,
            "last": 1,
            "beats": range(config.block // config.vector_lanes + 1),
            "factor": FP32.width,
            "lo": bounds,
            "hi": bounds,
            "address": range(config.buffer_words),
        }
    )


def score_chunk(config, slots):
    """What is known of a unit in the end: of each row the shift of the slot's units before it and its powers' sum."""
    return data.StructLayout(
        {
            "slot": range(slots),
            "first": 1,
            "last": 1,
            "shift": data.ArrayLayout(SHIFT_WIDTH, config.rows),
            "sum": data.ArrayLayout(FP32.width, config.rows),
        }
    )


class ScorePath(wiring.Component):
    """Scores that the array gives to weights that it takes, unit by unit, without going through memory.

    x[k] = round(i[k] * factor) if lo <= k < hi, else -infinity
    m[slot] = max(ceil(max(x)), m[slot])
    o[k] = round(exp2(x[k] - m[slot]) * i_scales[k]) if lo <= k < hi, else +0

    A unit is up to a block of consecutive positions in ascending order. Units of a slot may follow each other directly,
    and those of different slots come in any order. What is masked has no influence, NaNs of scores and scales neither.
    Equals, for each row, `edgeaccel.golden.scores.weights`, and in cycles `edgeaccel.golden.scores.scores_cycles`. One
    beat a cycle, without bubbles between units of any number of beats. All rows see the same `valid` and `ready`, so
    they stay in step, and the first speaks for all.

    Parameters
    ----------
    config : Config
        `activations` "fp32"; `block` a multiple of `vector_lanes`.
    slots : int
        Running maxima.

    Members
    -------
    i : stream of `result_beat`
        `last` does not count: passes end where they will.
    i_steps : stream of `score_step`
        One for each unit, taken with its last beat.
    i_scales : stream of FP16 codes x lanes
        Of the values at the positions of each beat. Taken after that of `i`, once the unit is complete.
    o : stream of `activation_load`
        All rows are written; `event` with the last beat of a unit.
    o_chunks : stream of `score_chunk`
        One for each unit.
    clear : 1 bit
        Resets the rows, which `ResetInserter` does not reach where they are instances.
    latency : int
        From a unit's last beat to its first of `o`: log2(lanes) + 41 cycles.
    chunk_latency : int
        From the last beat of a unit of one beat to its item of `o_chunks`: 6 * (log2(lanes) + levels) + 37 cycles with
        levels = max(1, ceil(log2(block / lanes))). A longer one takes a cycle more for each further beat.

    Raises
    ------
    ValueError
        If the configuration does not fit.
    """

    def __init__(self, config, *, slots=32):
        if config.activations != "fp32":
            raise ValueError(f"activations must be 'fp32' for attention, not {config.activations!r}")
        if not isinstance(slots, int) or slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots!r}")
        self.config = config
        self._settings = {"lanes": config.vector_lanes, "block": config.block, "slots": slots}
        self.rows = [ScoreRow(**self._settings) for _ in range(config.rows)]
        self.latency, self.chunk_latency = self.rows[0].latency, self.rows[0].sum_latency
        super().__init__(
            {
                "i": In(stream.Signature(result_beat(config))),
                "i_steps": In(stream.Signature(score_step(config, slots))),
                "i_scales": In(stream.Signature(self.rows[0].i_scales.p.shape())),
                "o": Out(stream.Signature(activation_load(config))),
                "o_chunks": Out(stream.Signature(score_chunk(config, slots))),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i, steps, o, chunks = self.i, self.i_steps, self.o, self.o_chunks
        for n, row in enumerate(self.rows):
            m.submodules[f"row{n}"] = repeated(platform, row, key=tuple(self._settings.items()), clear=self.clear)
        first = self.rows[0]
        # A queue for as many units as there is room for beats in a row is never full.
        m.submodules.addresses = addresses = Queue(steps.p.address.shape(), first.places)
        names = ("slot", "first", "last")
        m.submodules.units = units = Queue(
            data.StructLayout({name: chunks.p.shape()[name].shape for name in names}), first.sum_places
        )

        beat = Signal(range(self.config.block // self.config.vector_lanes))
        ends, goes = Signal(), Signal()
        m.d.comb += [
            ends.eq(beat + 1 == steps.p.beats),
            goes.eq(i.valid & steps.valid & first.i.ready),
            i.ready.eq(steps.valid & first.i.ready),
            steps.ready.eq(i.valid & first.i.ready & ends),
            addresses.i.valid.eq(goes & ends),
            addresses.i.p.eq(steps.p.address),
            units.i.valid.eq(goes & ends),
            [units.i.p[name].eq(steps.p[name]) for name in names],
        ]
        with m.If(goes):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1))

        # A unit is in the queues before anything of it comes out of the rows.
        written = Signal.like(beat)
        m.d.comb += [
            self.i_scales.ready.eq(first.i_scales.ready),
            o.valid.eq(first.o.valid),
            o.p.address.eq(addresses.o.p + written),
            o.p.rows.eq(~0),
            o.p.event.eq(first.o.p.last),
            addresses.o.ready.eq(o.valid & o.ready & o.p.event),
            chunks.valid.eq(first.o_sums.valid),
            [chunks.p[name].eq(units.o.p[name]) for name in names],
            units.o.ready.eq(chunks.valid & chunks.ready),
        ]
        with m.If(o.valid & o.ready):
            m.d.sync += written.eq(Mux(o.p.event, 0, written + 1))

        for n, row in enumerate(self.rows):
            below_hi, below_lo = self._below(beat, steps.p.hi[n]), self._below(beat, steps.p.lo[n])
            m.d.comb += [
                row.i.valid.eq(i.valid & steps.valid),
                row.i.p.elements.eq(i.p.values[n]),
                [row.i.p.keep[lane].eq(hi & ~lo) for lane, (hi, lo) in enumerate(zip(below_hi, below_lo, strict=True))],
                row.i.p.last.eq(ends),
                row.i.p.ends_chunk.eq(ends),
                row.i.p.first.eq(steps.p.first),
                row.i.p.slot.eq(steps.p.slot),
                row.i.p.factor.eq(steps.p.factor),
                row.i_scales.valid.eq(self.i_scales.valid),
                row.i_scales.p.eq(self.i_scales.p),
                row.o.ready.eq(o.ready),
                o.p.elements[n].eq(row.o.p.elements),
                row.o_sums.ready.eq(chunks.ready),
                chunks.p.shift[n].eq(row.o_sums.p.shift),
                chunks.p.sum[n].eq(row.o_sums.p.sum),
            ]
        return m

    def _below(self, beat, bound):
        """Of each lane of a beat whether its position is below a bound: two comparisons for all."""
        lanes = self.config.vector_lanes
        place_bits = exact_log2(lanes)
        is_before, is_there = beat < bound[place_bits:], beat == bound[place_bits:]
        return [*(is_before | (is_there & (lane < bound[:place_bits])) for lane in range(lanes - 1)), is_before]
