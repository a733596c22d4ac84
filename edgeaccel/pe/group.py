"""Group datapath: one word of weights times the activations, summed over blocks, exact.

word -> delays -> digits -> packed pairs -> RowSums of each row -> block sums

The pairs of a word are multiplied in chains, where each adds its product to the sum of those before it, a cycle later
than they. So codes wait as many cycles as there are pairs before theirs in the chain.
"""

from amaranth.hdl import Cat, signed
from amaranth.lib import data

from edgeaccel.pe.digit import FormatCode, check_formats, decode
from edgeaccel.pe.lane import pack
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.pe.row import RowSums
from edgeaccel.repeated import repeated

__all__ = ["GroupDatapath"]


class GroupDatapath(Pipelined):
    """Block sums of a group: one word of weights a cycle against `rows` activation vectors.

    sum[row][channel] = sum over the block's inputs of mantissa[row][input] * element[channel][input]

    in integers, without rounding or overflow. A block is the words up to one with `last`; it leaves one result with the
    sums of all the channels that share a word. Equals `edgeaccel.golden.pe.block_sums`.

    Cost: rows * lanes / 2 multiplications with an addition, one DSP48E2 each.

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
        Registers in the adder trees, 0 to log2(lanes / 4 / cascade), their levels, which is the default.

    Members
    -------
    i_words : stream of 4 bits x lanes
        Codes, lane by lane, as `edgeaccel.formats.Format` places them.
    i_activations : stream of {mantissas: signed(mantissa_bits) x lanes / 2 x rows, format: FormatCode, last: 1}
        What each pair of lanes multiplies, how to read the word that it meets, and whether the block ends with it.
        A format that gives an input to several pairs (`Format.pairs_per_input`) has the mantissas repeated here.
    o : stream of signed(sum_width) x n_sums x rows
    n_sums : int
        Channels that share a word, at most: 1, 2 or 4 by the formats. Sums past a format's channels are undefined.
    sum_width : int
        As wide as the largest sum of any format.
    cascade : int
        Pairs whose products are added in a chain: `edgeaccel.pe.lane.cascade_length`, 4 with 16-bit mantissas.
    latency : int
        multiplier_stages + cascade + tree_stages + combination_stages + 3 cycles, where combination_stages is 2 with
        INT8 or INT16 in the build, else 1 with INT4, else 0.

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
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows!r}")
        self.lanes = lanes
        self.mantissa_bits = mantissa_bits
        self.rows = rows
        self.block = block
        self._row = {
            "lanes": lanes,
            "mantissa_bits": mantissa_bits,
            "formats": check_formats(formats),
            "block": block,
            "multiplier_stages": multiplier_stages,
            "tree_stages": tree_stages,
        }
        self._rows = [RowSums(**self._row) for _ in range(rows)]
        row = self._rows[0]
        self.multiplier_stages, self.tree_stages = row.multiplier_stages, row.tree_stages
        self.formats, self.sum_width, self.n_sums = row.formats, row.sum_width, row.n_sums
        self.cascade = row.cascade
        mantissas = data.ArrayLayout(data.ArrayLayout(signed(mantissa_bits), lanes // 2), rows)
        super().__init__(
            {
                "i_words": data.ArrayLayout(4, lanes),
                "i_activations": data.StructLayout({"mantissas": mantissas, "format": FormatCode, "last": 1}),
            },
            data.ArrayLayout(data.ArrayLayout(signed(self.sum_width), self.n_sums), rows),
            cycles=row.cycles,
        )

    def emits(self, i_words, i_activations):
        return i_activations.last

    def datapath(self, pipe, i_words, i_activations):
        first = {"valid": pipe.valid, "format": i_activations.format, "last": i_activations.last}
        packed = self._packed(pipe, i_words, i_activations.format)
        for n, (row, mantissas) in enumerate(zip(self._rows, i_activations.mantissas, strict=True)):
            pipe.m.submodules[f"row{n}"] = repeated(pipe.platform, row, key=tuple(self._row.items()))
            pipe.m.d.comb += [row.packed.eq(Cat(packed)), row.mantissas.eq(mantissas)]
            pipe.m.d.comb += [getattr(row, name).eq(value) for name, value in first.items()]
        pipe.wait(self.latency - 1)
        return Cat(row.sums for row in self._rows)

    def _packed(self, pipe, codes, format):
        """Pairs of digits: those at place n of their chains n + 1 cycles later."""
        pairs = self.lanes // 2
        packed = [None] * pairs
        with pipe.inside("digits"):
            for place in range(self.cascade):
                here = range(place, pairs, self.cascade)
                waiting = Cat(codes[lane] for pair in here for lane in (2 * pair, 2 * pair + 1))
                arrived, format_then = pipe.later(place, **{f"codes{place}": waiting, f"format{place}": format})
                factors = {
                    f"packed{pair}": self._factor(pipe.m, pair, arrived[8 * n : 8 * n + 8], format_then)
                    for n, pair in enumerate(here)
                }
                packed[place :: self.cascade] = pipe.later(1, **factors)
        return packed

    def _factor(self, m, pair, codes, format):
        lanes = ((2 * pair, codes[:4]), (2 * pair + 1, codes[4:]))
        digits = [decode(m, code, format, self.formats, lane=lane, lanes=self.lanes) for lane, code in lanes]
        return pack(*digits, self._rows[0].field)
