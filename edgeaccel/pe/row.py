"""Row: packed pairs of weights times one row of activations, summed over blocks, exact.

packed pairs, mantissas -> chains of multipliers -> four subtrees -> digit combination -> block sums

The pairs of a word fall into two halves, and each pair gives a lower and an upper product. Chains of pairs add their
products as they are, packed; then four subtrees of equal size add the chains' lower and upper sums. What their sums are
depends on the format:

    format  lower 0    upper 0    lower 1    upper 1     results
    INT4    channel 0  channel 1  channel 0  channel 1   l0 + l1,  u0 + u1
    INT8    digit 0    digit 1    digit 0    digit 1     (l0 + l1) + 16 (u0 + u1)
    INT16   digit 0    digit 1    digit 2    digit 3     (l0 + 16 u0) + 256 (l1 + 16 u1)
    MXFP4   channel 0  channel 1  channel 2  channel 3   l0, u0, l1, u1
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from edgeaccel.formats import FORMATS, check_lanes
from edgeaccel.pe.digit import FormatCode, choose, is_format
from edgeaccel.pe.lane import cascade_length, check_mantissa_bits, field_bits, pack, split
from edgeaccel.pe.pipeline import Pipe, spread

__all__ = ["RowSums"]

# Additions that the subtrees' sums still need.
_COMBINATION_STAGES = {"int4": 1, "int8": 2, "int16": 2, "mxfp4": 0}


class RowSums(wiring.Component):
    """What a row of `GroupDatapath` does with the pairs that all rows share; parameters and arithmetic are its.

    A free-running pipeline: no streams.

    Members
    -------
    valid, format, last, mantissas : in
        Of the word.
    packed : in
        The word's pairs of digits: pair p a cycle later, and as many more as its place in its chain, `p % cascade`.
    sums : out
        Of the block, `cycles` after its last word.
    """

    def __init__(self, *, lanes, mantissa_bits, formats, block, multiplier_stages, tree_stages):
        check_lanes(lanes)
        check_mantissa_bits(mantissa_bits)
        self.mantissa_bits = mantissa_bits
        self.formats = formats
        self.cascade = cascade_length(mantissa_bits, lanes // 4)
        self.field = field_bits(mantissa_bits, self.cascade)
        self.tree_levels = exact_log2(lanes // 4 // self.cascade)
        self.multiplier_stages = multiplier_stages
        self.tree_stages = self.tree_levels if tree_stages is None else tree_stages
        if multiplier_stages not in (1, 2):
            raise ValueError(f"multiplier_stages must be 1 or 2, not {multiplier_stages!r}")
        if self.tree_stages not in range(self.tree_levels + 1):
            raise ValueError(
                f"tree_stages must be 0 to {self.tree_levels}, the levels of a tree of {lanes // 4 // self.cascade}"
                f" sums, not {tree_stages!r}"
            )
        table = [FORMATS[name] for name in formats]
        for row in table:
            row.words_per_block(lanes, block)
        largest = max(row.max_abs for row in table) * block << (mantissa_bits - 1)
        self.sum_width = bits_for(largest) + 1
        self.n_sums = max(row.channels_per_word for row in table)
        self.combination_stages = max(_COMBINATION_STAGES[name] for name in formats)
        self.cycles = multiplier_stages + self.cascade + self.tree_stages + self.combination_stages + 2
        digit = Signal(signed(5))
        super().__init__(
            {
                "valid": In(1),
                "format": In(FormatCode),
                "last": In(1),
                "mantissas": In(data.ArrayLayout(signed(mantissa_bits), lanes // 2)),
                "packed": In(data.ArrayLayout(pack(digit, digit, self.field).shape(), lanes // 2)),
                "sums": Out(data.ArrayLayout(signed(self.sum_width), self.n_sums)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, valid=self.valid, format=self.format.as_value(), last=self.last)
        sums = self._block_sums(pipe, self._channel_sums(pipe, self._subtree_sums(pipe, self._cascade_sums(pipe))))
        if pipe.cycles != self.cycles:
            raise AssertionError(f"a row has {pipe.cycles} stages, not the {self.cycles} that it states")
        m.d.comb += self.sums.eq(Cat(sums))
        return m

    def _cascade_sums(self, pipe):
        """Sums of the chains' packed products.

        In a chain the pair at place n is n cycles behind the first, so that its product finds the sum of those before
        it in the register behind their adder.
        """
        totals = [Const(0)] * (len(self.packed) // self.cascade)
        pipe.wait(self.multiplier_stages)
        for place in range(self.cascade):
            waiting = Cat(list(self.mantissas)[place :: self.cascade])
            mantissas = pipe.later(place + 1, **{f"mantissas{place}": waiting})
            mantissas = data.View(data.ArrayLayout(signed(self.mantissa_bits), len(totals)), mantissas)
            pairs = list(self.packed)[place :: self.cascade]
            products = {
                f"product{place}_{n}": pair * mantissa
                for n, (pair, mantissa) in enumerate(zip(pairs, mantissas, strict=True))
            }
            products = pipe.later(self.multiplier_stages - 1, **products)
            totals = pipe.stage(total=[total + product for total, product in zip(totals, products, strict=True)])
        return [total[: 2 * self.field].as_signed() for total in totals]

    def _subtree_sums(self, pipe, totals):
        """[lower 0, upper 0, lower 1, upper 1] from the chains' sums.

        An upper sum lacks the borrow of the lower one. A tree has one carry input for each addition, and one borrow
        more than additions; the last is added to the sum.
        """
        lowers, uppers, borrows = zip(*(split(total, self.field) for total in totals), strict=True)
        half = len(totals) // 2
        terms, carries = {}, {}
        for n, places in enumerate((slice(half), slice(half, None))):
            terms[f"lower{n}_"], carries[f"lower{n}_borrow"] = list(lowers[places]), []
            terms[f"upper{n}_"], carries[f"upper{n}_borrow"] = list(uppers[places]), list(borrows[places])
        for registered in spread(self.tree_levels, self.tree_stages):
            for name, carry in zip(terms, carries, strict=True):
                terms[name], carries[carry] = _add_level(terms[name], carries[carry])
            later = pipe.cut(registered, **terms, **carries)
            terms = dict(zip(terms, later[:4], strict=True))
            carries = dict(zip(carries, later[4:], strict=True))
        sums = [term + sum(carry) for (term,), carry in zip(terms.values(), carries.values(), strict=True)]
        width = self.field + self.tree_levels
        return pipe.stage(subtree=[total[:width].as_signed() for total in sums])

    def _channel_sums(self, pipe, subtrees):
        """What a word adds to the sum of each of its channels."""
        l0, u0, l1, u1 = subtrees
        if self.combination_stages > 0:
            is_int16, is_mxfp4 = self._is(pipe, "int16"), self._is(pipe, "mxfp4")
            first = l0 + choose(is_int16, u0 << 4, l1)
            second = choose(is_int16, l1, u0) + choose(is_int16, u1 << 4, u1)
            sums = [choose(is_mxfp4, l0, first), choose(is_mxfp4, u0, second), l1, u1]
            sums = pipe.stage(halves=sums[: max(2, self.n_sums)])
        else:
            sums = [l0, u0, l1, u1]
        if self.combination_stages > 1:
            is_int8, is_int16 = self._is(pipe, "int8"), self._is(pipe, "int16")
            upper = choose(is_int16, sums[1] << 8, choose(is_int8, sums[1] << 4, 0))
            sums = pipe.stage(whole=[sums[0] + upper, *sums[1:]])
        return sums[: self.n_sums]

    def _block_sums(self, pipe, terms):
        """Sums over the words of a block; they hold the block's result a cycle after its last word."""
        is_first = Signal(init=1)
        sums = [Signal(signed(self.sum_width), name=f"sum{n}", reset_less=True) for n in range(self.n_sums)]
        with pipe.m.If(pipe.valid):
            pipe.m.d.sync += is_first.eq(pipe.last)
            for total, term in zip(sums, terms, strict=True):
                pipe.m.d.sync += total.eq(Mux(is_first, 0, total) + term)
        pipe.stage()
        return sums

    def _is(self, pipe, name):
        return is_format(FormatCode(pipe.format), (name,), self.formats)


def _add_level(terms, carries):
    """One level of an adder tree: the pairs' sums, each with a carry if there is one, and the carries left over."""
    pairs = list(zip(terms[0::2], terms[1::2], strict=True))
    if not carries:
        return [a + b for a, b in pairs], []
    return [_add(a, b, carry) for (a, b), carry in zip(pairs, carries[: len(pairs)], strict=True)], carries[
        len(pairs) :
    ]


def _add(a, b, carry):
    """Exact a + b + carry on one carry chain: the carry enters below the lowest bit."""
    return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:].as_signed()
