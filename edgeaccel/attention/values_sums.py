"""Sums that are kept by slot while chunks come: of weights, and of values.

sum -> 2**-shift -> + what comes -> sum, and after the last chunk on to what makes a result of it
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.memory.buffer import memory_attributes
from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import NEGATIVE_ZERO
from edgeaccel.vector.chunk import SHIFT_WIDTH, shifted
from edgeaccel.vector.function import Reciprocal

__all__ = ["SUM_TURN", "TurnGate", "ValueSum", "WeightSum"]

SUM_CYCLES = 7  # of `_add_to_sums`: reading, shifting, adding
SUM_TURN = SUM_CYCLES + 1  # from reading a sum until it can be read again


def _add_to_sums(pipe, adder, depth, address, terms, shift, first):
    """The sums at an address with `terms` added, which are also written back; of a slot's first, the terms alone."""
    m = pipe.m
    words = data.ArrayLayout(FP32.width, len(terms))
    m.submodules.sums = sums = Memory(shape=words, depth=depth, init=[], attrs=memory_attributes(depth))
    read, write = sums.read_port(), sums.write_port()
    m.d.comb += read.addr.eq(address)
    pipe.carry(address=address)
    shift, first, terms = pipe.stage(shift=shift, first=first, term=terms)
    before, terms = pipe.stage(
        before=[Mux(first, NEGATIVE_ZERO, shifted(code, shift)) for code in read.data], term=terms
    )
    totals = []
    for n, (a, b) in enumerate(zip(before, terms, strict=True)):
        lane = pipe.branch(f"add{n}")
        totals.append(adder.inline(lane, SimpleNamespace(a=a, b=b)))
    pipe.wait(lane.cycles)
    m.d.comb += [write.addr.eq(pipe.take("address")), write.data.eq(Cat(totals)), write.en.eq(pipe.valid)]
    return totals


class TurnGate(wiring.Component):
    """Holds an item back as long as the sum that it reads is on its way from the adder to the memory.

    That is until `SUM_TURN` cycles after an earlier item of the same address went on. What is compared is known a cycle
    after an item is taken, in the register that it waits in; others go on in that cycle.

    Parameters
    ----------
    address : shape
        Of a sum.
    fields : shape
        What goes along.

    Members
    -------
    i, o : streams of {address, reads: 1, fields}
        `reads` tells whether it counts what the sum was: the item is not the first of a slot.
    """

    def __init__(self, address, fields):
        item = data.StructLayout({"address": address, "reads": 1, "fields": fields})
        super().__init__({"i": In(stream.Signature(item)), "o": Out(stream.Signature(item))})

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        is_held, takes, gives = Signal(), Signal(), Signal()
        too_soon = Signal(SUM_TURN - 1)  # bit k: the sum was read k + 1 cycles ago
        next_same = Signal.like(too_soon)
        m.d.comb += [
            o.valid.eq(is_held & ~too_soon.any()),
            gives.eq(o.valid & o.ready),
            i.ready.eq(~is_held | gives),
            takes.eq(i.valid & i.ready),
        ]
        address, was_given = o.p.address, gives
        for n in range(SUM_TURN - 1):
            m.d.comb += next_same[n].eq(was_given & (address == i.p.address))
            before, was_before = Signal.like(i.p.address, name=f"address{n}", reset_less=True), Signal(name=f"given{n}")
            m.d.sync += [before.eq(address), was_before.eq(was_given)]
            address, was_given = before, was_before
        m.d.sync += too_soon.eq(too_soon << 1)
        with m.If(takes):
            m.d.sync += [o.p.eq(i.p), too_soon.eq(next_same & i.p.reads.replicate(SUM_TURN - 1))]
        with m.If(i.ready):
            m.d.sync += is_held.eq(i.valid)
        return m


class WeightSum(Pipelined):
    """Sums of the weights of slots, and one over them: o = reciprocal(l[slot]) after the last chunk, 0 if infinite.

    l[slot] = sum if first, else round(l[slot] * 2**-shift + sum)

    Equals `edgeaccel.golden.values.accumulate_sum` and `inverse`. One chunk a cycle, but chunks of the same slot only
    `SUM_TURN` cycles apart, unless the later one is its first.

    Parameters
    ----------
    slots : int
    credits : int
        Results that may be on their way or waiting.

    Members
    -------
    i : stream of {slot, first: 1, last: 1, shift: 8 bits, sum: FP32 code}
    o : stream of FP32 codes
        One for each item with `last`.
    latency : int
        17 cycles.
    """

    def __init__(self, *, slots=32, credits=32):
        self.slots = slots
        self._adder, self._reciprocal = FloatAdder(), Reciprocal()
        i = {"slot": range(slots), "first": 1, "last": 1, "shift": SHIFT_WIDTH, "sum": FP32.width}
        cycles = SUM_CYCLES + self._reciprocal.latency - 1
        super().__init__({"i": data.StructLayout(i)}, FP32.width, cycles=cycles, credits=credits)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        (total,) = _add_to_sums(pipe, self._adder, self.slots, i.slot, [i.sum], i.shift, i.first)
        inverse = FP32.layout(self._reciprocal.inline(pipe, total))
        is_infinite = inverse.exponent.all() & ~inverse.fraction.any()
        return Mux(is_infinite, 0, inverse.as_value())


class ValueSum(Pipelined):
    """Sums of the values of slots in a row: o = round(sum * inverse) for each beat after the last chunk.

    sum[slot][beat] = elements if first, else round(sum[slot][beat] * 2**-shift + elements)

    Equals `edgeaccel.golden.values.accumulate` and, with the inverse, `finish`; lanes that are not kept give 0. One
    beat a cycle, but one of the same slot and place only `SUM_TURN` cycles after the last, unless it is of the first
    chunk: see `TurnGate`. An adder and one DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    slots : int
    beats : int
        Of the longest vector.

    Members
    -------
    i : stream of {elements: FP32 codes x lanes, keep: a bit a lane, address, first: 1, last: 1, shift: 8 bits,
        inverse: FP32 code}
        The address is that of the sums, beat first, then slot. `inverse` counts only with `last`, of the last chunk.
    o : stream of FP32 codes x lanes
        One for each item with `last`.
    latency : int
        14 cycles.
    """

    def __init__(self, *, lanes=8, slots=32, beats=32):
        self.lanes = lanes
        self._depth = ((slots - 1) << ceil_log2(beats)) + beats
        self._adder, self._multiplier = FloatAdder(), FloatMultiplier()
        elements = data.ArrayLayout(FP32.width, lanes)
        i = {
            "elements": elements,
            "keep": lanes,
            "address": ceil_log2(beats) + ceil_log2(slots),
            "first": 1,
            "last": 1,
            "shift": SHIFT_WIDTH,
            "inverse": FP32.width,
        }
        cycles = SUM_CYCLES + self._multiplier.latency - 1 + 1
        super().__init__({"i": data.StructLayout(i)}, elements, cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        pipe.carry(keep=i.keep, inverse=i.inverse)
        totals = _add_to_sums(pipe, self._adder, self._depth, i.address, list(i.elements), i.shift, i.first)
        inverse = pipe.take("inverse")
        products = []
        for n, total in enumerate(totals):
            lane = pipe.branch(f"lane{n}")
            products.append(self._multiplier.inline(lane, SimpleNamespace(a=total, b=inverse)))
        pipe.wait(lane.cycles)
        # In a stage of its own, this is the reset of a register.
        return Cat(
            pipe.stage(kept=[Mux(keep, code, 0) for keep, code in zip(pipe.take("keep"), products, strict=True)])
        )
