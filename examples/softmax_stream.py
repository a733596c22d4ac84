"""Online softmax of edgeaccel in another Amaranth design, and attention from what streams out of it.

`HalfSoftmax` is such a design: FP16 scores come in beats, row behind row, and each chunk leaves as powers of two as
soon as it is complete; no row is ever stored. What a row's later chunks change of the earlier ones is an exact power
of two, a shift, so values can be summed up as the powers come: that is done here in NumPy. Run it to attend with 64
queries to random keys and values on the Verilog that is emitted for it:

    python examples/softmax_stream.py
"""

import sys
from pathlib import Path

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.golden.softmax import LOG2_E
from edgeaccel.pe import FP16, FP32
from edgeaccel.vector import OnlineSoftmax, VectorConverter


class HalfSoftmax(wiring.Component):
    """Softmax of rows of FP16 scores as they come.

    Members
    -------
    i : stream of {elements: FP16 codes x lanes, keep: a bit a lane, last: 1, factor: FP32 code, count}
    o, o_rows : streams, as `OnlineSoftmax` gives them
    """

    def __init__(self, *, lanes=4, max_length=512, chunk=64):
        self.softmax = OnlineSoftmax(lanes=lanes, max_length=max_length, chunk=chunk)
        beat = self.softmax.i.payload.shape()
        fields = {name: beat[name].shape for name in ("factor", "count")}
        self.reader = VectorConverter(FP16, FP32, lanes=lanes, fields=fields)
        super().__init__(
            {
                "i": In(stream.Signature(self.reader.i.payload.shape())),
                "o": Out(stream.Signature(self.softmax.o.payload.shape())),
                "o_rows": Out(stream.Signature(self.softmax.o_rows.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = self.reader
        m.submodules.softmax = softmax = self.softmax
        wiring.connect(m, wiring.flipped(self.i), reader.i)
        wiring.connect(m, reader.o, softmax.i)
        wiring.connect(m, softmax.o, wiring.flipped(self.o))
        wiring.connect(m, softmax.o_rows, wiring.flipped(self.o_rows))
        return m


def attend(queries, keys, values, *, engine="verilated", lanes=4, chunk=64):
    """Causal attention of the last positions' queries on the simulated design: (outputs, float64 reference, cycles).

    `queries` are [queries, dimensions], `keys` and `values` [positions, dimensions]. `cycles` are those in which the
    beats of scores are taken and those of powers leave.
    """
    from edgeaccel.sim.bench import run

    n_queries, dimensions = queries.shape
    n_positions = len(keys)
    n_beats = n_positions // lanes
    scores = (queries @ keys.T).astype(np.float16)
    counts = n_positions - n_queries + 1 + np.arange(n_queries)
    factor = np.float32(LOG2_E / np.sqrt(dimensions)).view(np.uint32)
    beats = {
        "elements": scores.view(np.uint16).reshape(-1, lanes),
        "keep": np.full(n_queries * n_beats, (1 << lanes) - 1),
        "last": np.tile(np.arange(n_beats) == n_beats - 1, n_queries),
        "factor": np.full(n_queries * n_beats, factor),
        "count": np.repeat(counts, n_beats),
    }
    design = HalfSoftmax(lanes=lanes, max_length=n_positions, chunk=chunk)
    result = run(design, engine, {"i": beats}, {"o": n_queries * n_beats, "o_rows": n_queries})

    def numbers(codes):
        return codes.astype(np.uint32).view(np.float32)

    powers = numbers(result.results["o"]["elements"]).reshape(n_queries, n_beats, lanes)
    shifts = result.results["o"]["shift"].reshape(n_queries, n_beats)
    sums = np.zeros((n_queries, values.shape[1]), np.float32)
    for beat in range(n_beats):
        sums *= np.ldexp(np.float32(1), -shifts[:, beat])[:, None]
        sums += powers[:, beat] @ values[beat * lanes : (beat + 1) * lanes]
    outputs = sums * numbers(result.results["o_rows"]["inverse"])[:, None]

    exact = scores.astype(np.float64) / np.sqrt(dimensions)
    exact[np.arange(n_positions) >= counts[:, None]] = -np.inf
    weights = np.exp(exact - exact.max(axis=1, keepdims=True))
    reference = weights / weights.sum(axis=1, keepdims=True) @ values.astype(np.float64)
    return outputs, reference, (result.cycles["i"], result.cycles["o"])


def main():
    rng = np.random.default_rng(1)
    queries, keys, values = (rng.standard_normal((n, 64)).astype(np.float32) for n in (64, 512, 512))
    print("Emitting Verilog, compiling it, and streaming 64 rows of 512 scores through it ...")
    outputs, reference, (taken, left) = attend(2 * queries, keys, values)
    error = np.abs(outputs - reference).mean() / np.abs(reference).mean()
    print(f"{len(taken)} beats of 4 scores in {taken[-1] - taken[0] + 1} cycles; the first powers leave")
    print(f"{left[0] - taken[15]} cycles after their chunk of 64 scores is complete (simulated)")
    print(f"mean error / mean magnitude against float64: {error:.5%}")
    print("first outputs:", *(f"{value:.5f}" for value in outputs[0, :6]))
    print("in float64:   ", *(f"{value:.5f}" for value in reference[0, :6]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
