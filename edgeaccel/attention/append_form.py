"""Forms what is written of the codes and scales that are read."""

from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from edgeaccel.memory.scatter import scatter_item
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.pipeline import Pipelined

__all__ = ["StepKind", "WriteFormer", "append_step"]

ONE = 0x3C00  # in FP16


class StepKind(enum.Enum, shape=2):
    """What a step is for."""

    K_CODES = 0
    """Codes of K, a beat of the vector after the other, until a span is complete."""
    V_CODES = 1
    """Codes of V: of each position one dimension, or two."""
    SCALES = 2
    """The positions' scales."""
    ONES = 3
    """A span of scales that all are 1."""


def append_step(sizes):
    """A step of the walk over a head.

    word, offset, span
        Address: words of all memory, and the span within the word.
    window, half, slots
        As in `append_plan`; the window within the span.
    slot
        Of K: whose codes are read.
    column
        Of K: where in the span they are put.
    address, lane
        The beat of the vectors that is read, and of V, which of its elements.
    is_padding
        Past the end of the vector.
    emits
        The step completes a write.
    last
        The last one of its command.
    """
    return data.StructLayout(
        {
            "kind": StepKind,
            "format": FormatCode,
            "word": sizes.address_bits,
            "offset": sizes.offset_width,
            "span": sizes.span_bits,
            "window": sizes.slot_bits - sizes.row_bits - sizes.span_bits,
            "half": 1,
            "slots": sizes.rows,
            "slot": sizes.row_bits,
            "column": sizes.column_bits,
            "address": range(sizes.max_head_dim // sizes.config.vector_lanes),
            "lane": sizes.lane_bits,
            "is_padding": 1,
            "emits": 1,
            "last": 1,
        }
    )


class WriteFormer(Pipelined):
    """Steps to items for the scatter writer: reads codes and scales, and puts them where they belong in a beat.

    A step a cycle. Equals `edgeaccel.golden.append.append` in what it writes; half bytes that are not written hold
    anything.

    Parameters
    ----------
    sizes : AppendSizes
    banks : CodeBanks
        Read in the cycle in which a step is taken.

    Members
    -------
    i : stream of `append_step`
    o : stream of `edgeaccel.memory.scatter.scatter_item`
        One for each step that `emits`.
    latency : int
        4 cycles.
    """

    def __init__(self, sizes, banks):
        self.sizes, self.banks = sizes, banks
        super().__init__({"i": append_step(sizes)}, scatter_item(8 * sizes.beat_bytes), cycles=3)

    def emits(self, i):
        return i.emits

    def datapath(self, pipe, i):
        m, sizes, banks = pipe.m, self.sizes, self.banks
        m.d.comb += banks.address.eq(i.address)
        names = ("kind", "format", "span", "window", "half", "slots", "slot", "column", "lane", "is_padding", "last")
        pipe.carry(**{name: i[name] for name in names}, word=(i.word + i.offset)[: sizes.address_bits])
        pipe.stage()

        codes = [list(of_slot) for of_slot in banks.codes]
        pairs, windows = self._columns(pipe, codes), self._windows(pipe, codes, banks.scales)
        pipe.take("is_padding")
        pipe.take("lane")
        # Of two channels in a word, the first may have its codes already.
        keeps_low = (pipe.format == FormatCode.INT4) & ~_pick(pipe.slots, pipe.take("slot"))
        pipe.carry(keeps_low=keeps_low)
        pairs, windows = pipe.stage(pair=pairs, window=windows)

        # Columns come one after the other, and of each the low bytes before the high ones.
        columns = [Signal(len(Cat(pairs)), name=f"column{n}", reset_less=True) for n in range(1 << sizes.column_bits)]
        is_int16 = pipe.format == FormatCode.INT16
        for n, column in enumerate(columns):
            for place, pair in enumerate(pairs):
                for half in range(2):
                    part = slice(16 * place + 8 * half, 16 * place + 8 * half + 8)
                    with m.If(pipe.valid & (pipe.column == n) & (is_int16 | (pipe.half == half))):
                        m.d.sync += column[part].eq(pair[8 * half : 8 * half + 8])
        pipe.carry(windows=Cat(windows))
        pipe.stage()
        return self._item(pipe, Cat(columns))

    def _columns(self, pipe, codes):
        """Of K: pairs of bytes of each element of a beat."""
        # `slot`, and the one after an even one: the second channel of a word.
        chosen = ((codes, pipe.slots, pipe.slot), (codes[1::2], pipe.slots[1::2], pipe.slot[1:]))
        low, high = (
            [Mux(_pick(slots, slot) & ~pipe.is_padding, code, 0) for code in _pick(lanes, slot)]
            for lanes, slots, slot in chosen
        )
        return [_pair(pipe.format, a, b) for a, b in zip(low, high, strict=True)]

    def _windows(self, pipe, codes, scales):
        """Of V, and of scales: a pair of bytes of each slot."""
        windows = []
        for of_slot, scale in zip(codes, scales, strict=True):
            a, b = _pick(of_slot, pipe.lane), _pick(of_slot[1::2], pipe.lane[1:])
            scale = Mux(pipe.kind == StepKind.ONES, ONE, scale)
            windows.append(Mux(pipe.kind == StepKind.V_CODES, _pair(pipe.format, a, b), scale))
        return windows

    def _item(self, pipe, columns):
        """The span in its beat."""
        sizes = self.sizes
        span_slots, n_windows = sizes.span_bytes // 2, sizes.span_bytes // 2 // sizes.rows
        kind = pipe.take("kind")
        is_k, is_codes = kind == StepKind.K_CODES, kind == StepKind.V_CODES
        window, half, slots = pipe.take("window"), pipe.take("half"), pipe.take("slots")
        value = Mux(is_k, columns, pipe.take("windows").replicate(n_windows))
        is_byte = is_codes & (pipe.take("format") != FormatCode.INT16)
        halves = Cat((~is_byte | ~half).replicate(2), (~is_byte | half).replicate(2))
        of_codes = Cat(~pipe.take("keeps_low"), 1).replicate(2 * span_slots)
        of_windows = Cat(Mux(there & (window == n), halves, 0) for n in range(n_windows) for there in slots)
        whole = Const((1 << 4 * span_slots) - 1, 4 * span_slots)
        nibbles = Mux(is_k, of_codes, Mux(kind == StepKind.ONES, whole, of_windows))
        pipe.take("column")
        span = Cat(pipe.take("span"), pipe.take("word"))  # the address in spans
        beat_bits = exact_log2(sizes.beat_bytes // sizes.span_bytes)
        n_spans = 1 << beat_bits
        nibbles = Cat(Mux(span[:beat_bits] == n, nibbles, 0) for n in range(n_spans)) if beat_bits else nibbles
        address = Cat(Const(0, exact_log2(sizes.beat_bytes)), span[beat_bits:])
        return Cat(address, value.replicate(n_spans), nibbles, pipe.take("last"))


def _pair(format, a, b):
    """The two bytes of a slot: a 16-bit element, or twice a byte, of which one is written."""
    byte = Mux(format == FormatCode.INT4, Cat(a[:4], b[:4]), a[:8])
    return Mux(format == FormatCode.INT16, a, Cat(byte, byte))


def _pick(values, index):
    """The value of a number, or the values if each is a list."""
    values = list(values)
    for bit in index:
        pairs = zip(values[0::2], values[1::2], strict=True)
        values = [
            [Mux(bit, *each) for each in zip(b, a, strict=True)] if isinstance(a, list) else Mux(bit, b, a)
            for a, b in pairs
        ]
    return values[0]
