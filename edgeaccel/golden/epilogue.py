"""The steps after the array in NumPy, on FP32 codes: what the unit gives, and after how many cycles."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.golden import function, norm, rotary
from edgeaccel.golden.elastic import Move, Source, pipe, run
from edgeaccel.golden.float import add, multiply

__all__ = ["OPERANDS", "Steps", "epilogue", "epilogue_cycles", "steps_net"]

ADDER, MULTIPLIER = 5, 5  # register stages
OPERANDS = ("i_bias", "i_table", "i_factors", "i_residual")


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """What is done to a vector; None or 0 for what is not.

    Attributes
    ----------
    factor : FP32 code
    bias, factors, residual : FP32 codes, of the vector's length
    rotated : int
    half : bool
    cosines, sines : FP32 codes, at least `rotated`
    activation : str
        A function of `edgeaccel.golden.function`.
    """

    factor: int | None = None
    bias: np.ndarray | None = None
    rotated: int = 0
    half: bool = False
    cosines: np.ndarray | None = None
    sines: np.ndarray | None = None
    activation: str | None = None
    factors: np.ndarray | None = None
    residual: np.ndarray | None = None


def epilogue(vector, steps):
    """Codes of a vector after its steps."""
    x = np.asarray(vector, np.uint32)
    if steps.factor is not None:
        x = multiply(x, steps.factor)
    if steps.bias is not None:
        x = add(x, steps.bias)
    if steps.rotated:
        x = rotary.rotate(x, steps.cosines, steps.sines, steps.rotated, half=steps.half)
    if steps.activation is not None:
        x = function.evaluate(steps.activation, x)
    if steps.factors is not None:
        x = multiply(x, steps.factors)
    if steps.residual is not None:
        x = add(x, steps.residual)
    return x.astype(np.uint32)


def epilogue_cycles(flags, roles, patterns, *, functions, lanes, max_length, max_rotated, layer=False):
    """Cycles of `edgeaccel.vector.epilogue.Epilogue`.

    Parameters
    ----------
    flags : dict of bool arrays, an entry for each beat
        bias, factors, residual, statistics, last.
    roles : what `rotary.beat_roles` gives
    patterns : dict of Pattern
        Of the streams by name.

    Returns
    -------
    dict of int64 arrays, by the names of the streams
    """
    streams = {name: Source(patterns[name]) for name in ("i", *OPERANDS)}
    scaler, moves = steps_net(
        flags,
        roles,
        streams,
        patterns,
        functions=functions,
        lanes=lanes,
        max_length=max_length,
        max_rotated=max_rotated,
        layer=layer,
    )
    turns = len(flags["last"])
    entry = Move([streams["i"]], [scaler], choices=[(streams["i_bias"], flags["bias"])], turns=turns)
    cycles = run([entry, *moves])
    taken = {name: np.array(source.takes, np.int64) for name, source in streams.items()}
    return taken | {"o": cycles[-2], "o_statistics": cycles[-1]}


def steps_net(flags, roles, streams, patterns, *, functions, lanes, max_length, max_rotated, layer):
    """The first steps' pipe, which a beat enters with its bias, and the moves from there on, `o` and statistics last.

    Arguments as of `epilogue_cycles`; `streams` are the sources of the operands by name.
    """
    scaler = pipe(MULTIPLIER + 1 + ADDER + 1)
    finisher = pipe(function.latency(functions) + 1 + MULTIPLIER + 1 + ADDER)
    statistics = pipe(norm.statistics_latency(lanes, max_length, layer=layer))
    turning = rotary.Stage(roles, streams["i_table"], lanes=lanes, max_rotated=max_rotated)
    wanted = flags["statistics"] & flags["last"]
    operands = [(streams[f"i_{name}"], flags[name]) for name in ("factors", "residual")]
    return scaler, [
        Move([scaler], turning.entry),
        *turning.moves,
        Move([turning.exit], [finisher], choices=operands),
        Move([finisher], [(statistics, wanted)], turns=len(wanted), sink=patterns["o"]),
        Move([statistics], [], turns=int(wanted.sum()), sink=patterns["o_statistics"]),
    ]
