"""Processing elements of edgeaccel in another Amaranth design.

`DotProduct` is such a design: it takes FP16 activations and INT8 weights with their scales, block by block, and gives
one FP32 number a block. It wires three units by their streams and adds a queue for what goes around one of them. Run it
to multiply a matrix by a vector on the Verilog that is emitted for it:

    python examples/import_pe.py
"""

import sys
from pathlib import Path

import numpy as np
from amaranth.hdl import Cat, Module
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.formats import FORMATS
from edgeaccel.pe import FP16, BlockAligner, FormatCode, GroupDatapath, Scaler
from edgeaccel.quantise import quantise
from edgeaccel.tiles import lane_order, pack


class DotProduct(wiring.Component):
    """FP16 x INT8 dot products of blocks, one word of weights a cycle.

    o[n] = scale[n] * sum over the block of activation * weight

    Members
    -------
    i_activations : stream of {elements: FP16 codes x inputs of a word, last: 1}
    i_words : stream of 4 bits x lanes
    i_scales : stream of FP16 codes
    o : stream of FP32 codes
    """

    def __init__(self, *, lanes=128, block=128):
        inputs = FORMATS["int8"].inputs_per_word(lanes)
        self.aligner = BlockAligner(format=FP16, width=inputs, block=block)
        self.group = GroupDatapath(lanes=lanes, formats=("int8",), block=block)
        self.scaler = Scaler(self.group.sum_width)
        super().__init__(
            {
                "i_activations": In(stream.Signature(self.aligner.beat)),
                "i_words": In(stream.Signature(data.ArrayLayout(4, lanes))),
                "i_scales": In(stream.Signature(16)),
                "o": Out(stream.Signature(32)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.aligner = aligner = self.aligner
        m.submodules.group = group = self.group
        m.submodules.scaler = scaler = self.scaler
        # The exponent of a block goes around the group; room for as many blocks as the group can hold.
        m.submodules.exponents = exponents = fifo.SyncFIFO(width=10, depth=group.credits + 1)

        wiring.connect(m, wiring.flipped(self.i_activations), aligner.i)
        wiring.connect(m, wiring.flipped(self.i_words), group.i_words)
        beat = aligner.o.p
        m.d.comb += [
            group.i_activations.valid.eq(aligner.o.valid & exponents.w_rdy),
            group.i_activations.p.mantissas[0].eq(beat.mantissas),
            group.i_activations.p.format.eq(FormatCode.INT8),
            group.i_activations.p.last.eq(beat.last),
            aligner.o.ready.eq(group.i_activations.ready & exponents.w_rdy),
            exponents.w_en.eq(aligner.o.valid & group.i_activations.ready & beat.last),
            exponents.w_data.eq(Cat(beat.exponent, beat.nan)),
        ]
        together = Cat(group.o.valid, self.i_scales.valid, exponents.r_rdy).all()
        taken = together & scaler.i.ready
        m.d.comb += [
            scaler.i.valid.eq(together),
            scaler.i.p.sum.eq(group.o.p[0][0]),
            scaler.i.p.scale.eq(self.i_scales.p),
            scaler.i.p.exponent.eq(exponents.r_data[:9]),
            scaler.i.p.nan.eq(exponents.r_data[9]),
            group.o.ready.eq(taken),
            self.i_scales.ready.eq(taken),
            exponents.r_en.eq(taken),
        ]
        wiring.connect(m, scaler.o, wiring.flipped(self.o))
        return m


def multiply(matrix, vector, *, engine="verilated", lanes=128, block=128):
    """Multiply an INT8-quantised matrix by a vector on the simulated design: (products, float64 reference, cycles)."""
    from edgeaccel.sim.bench import run

    design = DotProduct(lanes=lanes, block=block)
    inputs = FORMATS["int8"].inputs_per_word(lanes)
    n_channels, n_inputs = matrix.shape
    quantised = quantise(matrix, "int8", block=block)

    # The stream holds tiles; this design takes a channel's words in turn.
    tiles = pack(quantised, lanes=lanes)
    words_per_block = block // inputs
    words_per_tile = 1 + lanes // 4 * words_per_block
    words = tiles.reshape(len(tiles), -1, words_per_tile, lanes // 2)[:, :, 1:]
    words = words.reshape(*words.shape[:2], lanes // 4, words_per_block, lanes // 2)
    words = lane_order(words.transpose(0, 2, 1, 3, 4).reshape(-1, lanes // 2))
    beats = np.tile(vector.astype(np.float16).view(np.uint16).reshape(-1, inputs), (n_channels, 1))
    n_blocks = n_channels * n_inputs // block
    result = run(
        design,
        engine,
        {
            "i_activations": {
                "elements": beats,
                "last": np.arange(len(beats)) % words_per_block == words_per_block - 1,
            },
            "i_words": np.stack([words & 15, words >> 4], axis=-1).reshape(len(words), lanes),
            "i_scales": quantised.scales.view(np.uint16).ravel(),
        },
        n_blocks,
    )
    sums = result.results["o"].astype(np.uint32).view(np.float32).reshape(n_channels, -1)
    reference = quantised.dequantise().astype(np.float64) @ vector.astype(np.float16).astype(np.float64)
    return sums.sum(axis=1), reference, result.cycles["i_words"]


def main():
    rng = np.random.default_rng(1)
    matrix, vector = rng.standard_normal((256, 1024)).astype(np.float32), rng.standard_normal(1024)
    print("Emitting Verilog, compiling it, and multiplying a 256 x 1024 INT8 matrix by an FP16 vector on it ...")
    products, reference, cycles = multiply(matrix, vector)
    error = np.abs(products - reference).mean() / np.abs(reference).mean()
    n_words = len(cycles)
    print(
        f"{n_words} words of 512 bits in {cycles[-1] - cycles[0] + 1} cycles, 64 multiply-accumulates each (simulated)"
    )
    print(f"mean error / mean magnitude against float64: {error:.5%}")
    print("first products:", *(f"{value:.4f}" for value in products[:6]))
    print("in float64:    ", *(f"{value:.4f}" for value in reference[:6]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
