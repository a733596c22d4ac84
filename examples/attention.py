"""The attention engine of edgeaccel alone: tokens appended to a quantised cache, and attended to, on emitted Verilog.

Random keys, values and queries of a layer with grouped queries, token by token: the engine quantises keys and values
into its pages in memory, and each token's queries see all tokens so far. Results are held to the golden model, bit for
bit, and compared with attention in float64 on what had not been quantised:

    python examples/attention.py
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden.float import decode, encode
from edgeaccel.golden.softmax import LOG2_E
from edgeaccel.golden.units import Attend

CONFIG = preset("tiny")
HEADS, RATIO, HEAD_DIM = 2, 2, 16


def decode_tokens(engine, format, n_tokens, *, seed=0):
    """(error of the mean magnitude, cycles from the first command to the last result) of decoding some tokens."""
    from edgeaccel.sim.attention import Appended, Asked, Sequence, simulate
    from edgeaccel.sim.memory import HBM2

    config, rng = engine.config, np.random.default_rng(seed)
    keys, values = rng.standard_normal((2, HEADS, n_tokens, HEAD_DIM))
    queries = rng.standard_normal((n_tokens, HEADS, RATIO, HEAD_DIM))
    layout = CacheLayout(config=config, heads=HEADS, head_dim=HEAD_DIM, format=format)
    n_pages = -(-n_tokens // layout.page_positions)
    sequence = Sequence(layout=layout, pages=rng.permutation(n_pages).tolist())
    steps = []
    for token in range(n_tokens):
        new = (encode(part[:, token : token + 1]).astype(np.uint32) for part in (keys, values))
        steps.append(Appended(sequence=sequence, **dict(zip(("keys", "values"), new, strict=True))))
        command = Attend(
            n_heads=HEADS,
            count=token + 1,
            factor=int(encode(LOG2_E / np.sqrt(HEAD_DIM))),
            address=token * HEADS * HEAD_DIM // config.vector_lanes,
            stride=HEAD_DIM // config.vector_lanes,
            rows=RATIO,
        )
        asked = encode(queries[token]).astype(np.uint32)
        steps.append(Asked(sequence=sequence, command=command, queries=asked))
    memory = replace(HBM2, data_width=config.port_data_width)
    result = simulate(engine, memory, steps, n_pages=n_pages, rng=rng)

    given = decode(result.results["o"]["elements"])  # [beats, rows, lanes]
    given = given.reshape(n_tokens, HEADS, -1, config.rows, config.vector_lanes).swapaxes(2, 3)
    given = given.reshape(n_tokens, HEADS, config.rows, HEAD_DIM)[:, :, :RATIO]
    exact = np.empty_like(given)
    for token in range(n_tokens):
        scores = queries[token] @ keys[:, : token + 1].swapaxes(1, 2) / np.sqrt(HEAD_DIM)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        exact[token] = weights / weights.sum(axis=-1, keepdims=True) @ values[:, : token + 1]
    cycles = result.cycles["o"][-1] - result.cycles["i_appends"][0]
    return np.abs(given - exact).mean() / np.abs(exact).mean(), int(cycles)


def main(n_tokens=40):
    engine = AttentionEngine(CONFIG, slots=HEADS, entries=16, port_bytes=1 << 16)
    for format in ("int16", "int8", "int4"):
        error, cycles = decode_tokens(engine, format, n_tokens)
        print(f"{format:>5}: {n_tokens} tokens, mean error {error:.5%}, {cycles / n_tokens:.0f} cycles a token")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for `sim`, the bench of this repository
    main()
