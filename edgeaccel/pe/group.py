"""Group datapath: one word of weights times the activations, summed over blocks, exact.

word -> digits -> packed pairs -> multipliers -> four subtrees -> digit combination -> block sum

The pairs of a word fall into two halves, and each pair gives a lower and an upper product: four subtrees of equal size.
What their sums are depends on the format:

    format  lower 0    upper 0    lower 1    upper 1     results
    INT4    channel 0  channel 1  channel 0  channel 1   l0 + l1,  u0 + u1
    INT8    digit 0    digit 1    digit 0    digit 1     (l0 + l1) + 16 (u0 + u1)
    INT16   digit 0    digit 1    digit 2    digit 3     (l0 + 16 u0) + 256 (l1 + 16 u1)
    MXFP4   channel 0  channel 1  channel 2  channel 3   l0, u0, l1, u1
"""

from amaranth.hdl import Cat, Const, Mux, Signal, signed
from amaranth.lib import data
from amaranth.utils import bits_for, exact_log2

from edgeaccel.formats import FORMATS, check_lanes
from edgeaccel.pe.digit import FormatCode, check_formats, choose, decode, is_format
from edgeaccel.pe.lane import check_mantissa_bits, pack, split
from edgeaccel.pe.pipeline import Pipelined, spread

__all__ = ["GroupDatapath"]

# Additions that the subtrees' sums still need.
_COMBINATION_STAGES = {"int4": 1, "int8": 2, "int16": 2, "mxfp4": 0}


class GroupDatapath(Pipelined):
    """Block sums of a group: one word of weights a cycle against `rows` activation vectors.

    sum[row][channel] = sum over the block's inputs of mantissa[row][input] * element[channel][input]

    in integers, without rounding or overflow. A block is the words up to one with `last`; it leaves one result with the
    sums of all the channels that share a word. Equals `edgeaccel.golden.pe.block_sums`.

    Cost: rows * lanes / 2 multipliers, one DSP48E2 each.

    Parameters
    ----------
    lanes : int
        4-bit digits in a word, a power of two of at least 16.
    mantissa_bits : int
        Bits of an activation mantissa, 8 to 18.
    formats : tuple of str
        Formats that the build carries; it has no logic for others.
    rows : int
        Activation vectors that share each word.
    block : int
        Most inputs in a block; it sizes the sums.
    multiplier_stages : int
        Registers after the multiplication, 1 or 2; with 2 a DSP48E2 uses its M and P registers.
    tree_stages : int
        Registers in the adder trees, 0 to log2(lanes / 4), their levels, which is the default.

    Members
    -------
    i_words : stream of 4 bits x lanes
        Codes, as `edgeaccel.tiles` lays them out.
    i_activations : stream of {mantissas: signed(mantissa_bits) x lanes / 2 x rows, format: FormatCode, last: 1}
        What each pair of lanes multiplies, how to read the word that it meets, and whether the block ends with it.
        A format that gives an input to several pairs (`Format.pairs_per_input`) has the mantissas repeated here.
    o : stream of signed(sum_width) x n_sums x rows
    n_sums : int
        Channels that share a word, at most: 1, 2 or 4 by the formats. Sums past a format's channels are undefined.
    sum_width : int
        As wide as the largest sum of any format.
    latency : int
        multiplier_stages + tree_stages + combination_stages + 4 cycles, where combination_stages is 2 with INT8 or
        INT16 in the build, else 1 with INT4, else 0.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or a format's words do not divide a block.
    """

    def __init__(
        self,
        *,
        lanes=128,
        mantissa_bits=16,
        formats=("int4", "int8", "int16"),
        rows=1,
        block=128,
        multiplier_stages=2,
        tree_stages=None,
    ):
        check_lanes(lanes)
        check_mantissa_bits(mantissa_bits)
        self.lanes = lanes
        self.mantissa_bits = mantissa_bits
        self.formats = check_formats(formats)
        self.rows = rows
        self.block = block
        self.tree_levels = exact_log2(lanes // 4)
        self.multiplier_stages = multiplier_stages
        self.tree_stages = self.tree_levels if tree_stages is None else tree_stages
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows!r}")
        if multiplier_stages not in (1, 2):
            raise ValueError(f"multiplier_stages must be 1 or 2, not {multiplier_stages!r}")
        if self.tree_stages not in range(self.tree_levels + 1):
            raise ValueError(
                f"tree_stages must be 0 to {self.tree_levels}, the levels of a tree of {lanes // 4} products,"
                f" not {tree_stages!r}"
            )
        table = [FORMATS[name] for name in self.formats]
        for row in table:
            row.words_per_block(lanes, block)
        largest = max(row.max_abs for row in table) * block << (mantissa_bits - 1)
        self.sum_width = bits_for(largest) + 1
        self.n_sums = max(row.channels_per_word for row in table)
        self.combination_stages = max(_COMBINATION_STAGES[name] for name in self.formats)
        mantissas = data.ArrayLayout(data.ArrayLayout(signed(mantissa_bits), lanes // 2), rows)
        super().__init__(
            {
                "i_words": data.ArrayLayout(4, lanes),
                "i_activations": data.StructLayout({"mantissas": mantissas, "format": FormatCode, "last": 1}),
            },
            data.ArrayLayout(data.ArrayLayout(signed(self.sum_width), self.n_sums), rows),
            cycles=multiplier_stages + self.tree_stages + self.combination_stages + 3,
        )

    def emits(self, i_words, i_activations):
        return i_activations.last

    def datapath(self, pipe, i_words, i_activations):
        format, last = i_activations.format.as_value(), i_activations.last
        rows = [pipe.branch(f"row{n}", format=format, last=last) for n in range(self.rows)]
        with pipe.inside("digits"):
            digits = decode(pipe.m, list(i_words), i_activations.format, self.formats)
            pairs = zip(digits[0::2], digits[1::2], strict=True)
            packed = pipe.stage(packed=[pack(*pair, self.mantissa_bits) for pair in pairs])
        sums = []
        for row, mantissas in zip(rows, i_activations.mantissas, strict=True):
            mantissas = row.stage(mantissa=list(mantissas))
            products = [digits * mantissa for digits, mantissa in zip(packed, mantissas, strict=True)]
            for _ in range(self.multiplier_stages):
                products = row.stage(product=products)
            sums += self._block_sums(row, self._channel_sums(row, self._subtree_sums(row, products)))
            pipe.wait(row.cycles)
        return Cat(sums)

    def _subtree_sums(self, pipe, products):
        """[lower 0, upper 0, lower 1, upper 1] from the products.

        An upper product lacks the borrow of the lower one. A tree has one carry input for each addition, and one borrow
        more than additions; the last is added to the sum.
        """
        lowers, uppers, borrows = zip(*(split(product, self.mantissa_bits) for product in products), strict=True)
        half = len(products) // 2
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
        width = self.mantissa_bits + 4 + self.tree_levels
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
