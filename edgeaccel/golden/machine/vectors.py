"""The vector path of a machine: what is done to results of the array, and reads of parameters."""

import numpy as np

from edgeaccel.golden import batch
from edgeaccel.golden.float import add, decode, multiply
from edgeaccel.golden.machine.error import Fault

__all__ = ["read", "vector"]


def read(state, f):
    """What `read` does."""
    lanes, rows = state.config.vector_lanes, state.rows
    indices = {
        "none": [0],
        "layer": [state.layer],
        "token": state.tokens[state.position : state.position + rows].tolist(),
        "position": list(range(state.position, state.position + rows)),
    }[f["index"]]
    of_beat = (8 if f["target"] == "table" else 4) * lanes
    if not f["bytes"] or f["bytes"] % of_beat:
        raise Fault("shape", f"{f['bytes']} bytes are no whole beats of {of_beat}")
    by_row = f["index"] in ("token", "position")
    # Of all rows of each set if it is not read for each row.
    places = [
        (*divmod(n, state.config.rows), index) if by_row else (n, slice(None), indices[0])
        for n, index in enumerate(indices if by_row else range(state.sets))
    ]
    for which, own, index in places:
        data = state.memory.read(f["address"] + f["stride"] * index, f["bytes"]).view("<u4")
        if f["target"] in ("bias", "gain"):
            getattr(state, f["target"]).put(data)
        elif f["target"] == "vector":
            place = f["vector"] + which * state.machine.set_vector_words
            state.words("vector memory", state.vector_memory, place, len(data) // lanes)[own] = data
        else:
            beats = data.reshape(-1, 2, lanes)
            if len(beats) > state.tables.shape[2]:
                raise Fault("shape", f"a table of {len(beats)} beats is longer than {state.tables.shape[2]}")
            state.tables[which, own, : len(beats)] = beats


def vector(state, f):
    """What `vector` does."""
    _check(state, f)
    first = state.sets - 1 if f["to_logits"] else 0
    for _ in range(first if f["take"] else 0):
        _take(state)
    for which in range(first, state.sets):
        _vector(state, f, which)
    state.loads += f["to_buffer"] and f["event"]


def _take(state):
    if not state.statistics:
        raise Fault("queue", "it takes statistics, and none were given")
    return state.statistics.popleft()


def _vector(state, f, which):
    """For a set."""
    n_vectors, channels = f["vectors"], f["channels"]
    lanes = state.config.vector_lanes
    n_words = -(-channels // lanes)
    vector_base = which * state.machine.set_vector_words
    x = _source(state, f, which)  # [rows, vectors, channels]
    if f["take"]:
        state.factors[which] = _take(state)
    if f["scale"]:
        if state.factors[which] is None:
            raise Fault("queue", "it scales before any statistics were taken")
        x = multiply(x, state.factors[which][:, None, None])
    if f["bias"]:
        x = add(x, _beats(state.bias, n_vectors, n_words * lanes)[:, :channels])
    if f["rotated"]:
        used = state.tables[which, :, : -(-f["rotated"] // lanes)]
        tables = (used[:, :, n].reshape(len(used), 1, -1)[..., : f["rotated"]] for n in range(2))
        x = batch.rotate(np.asarray(x, np.uint32), *tables, f["rotated"], half=bool(f["half"]))
    if f["activate"]:
        x = batch.evaluate(f["function"], x)
    if f["factors"] or f["residual"]:
        places = [vector_base + f["operand"] + n * f["stride"] for n in range(n_vectors)]
        words = [state.words("vector memory", state.vector_memory, place, n_words) for place in places]
        operand = np.stack(words, axis=1)[..., :channels]
        x = multiply(x, operand) if f["factors"] else add(x, operand)
    x = np.asarray(x, np.uint32)
    if f["statistics"]:
        scales = batch.rsqrt_mean_square(x, np.uint32(f["inverse_length"]), np.uint32(f["epsilon"]))
        state.statistics.extend(scales.T)
    _destinations(state, f, x, n_words, which)


def _check(state, f):
    machine = state.machine
    if not f["vectors"] or not 1 <= f["channels"] <= machine.max_channels:
        raise Fault(
            "shape", f"{f['vectors']} vectors of {f['channels']} channels: a vector has 1 to {machine.max_channels}"
        )
    tile = state.config.tile_channels
    given = f["vectors"] * -(-f["channels"] // tile) * tile
    if state.sets > 1 and not (f["zeros"] or f["to_logits"]) and given > machine.max_channels:
        raise Fault(
            "shape",
            f"{given} channels of a set would have to wait while others are worked on: there is room for"
            f" {machine.max_channels}",
        )
    if f["rotated"] % 2 or f["rotated"] > min(f["channels"], machine.max_rotated):
        raise Fault(
            "shape",
            f"{f['rotated']} of {f['channels']} channels cannot be rotated: they must be even, at most"
            f" {machine.max_rotated}",
        )
    if f["rotated"] and f["half"] and f["rotated"] % (2 * state.config.vector_lanes):
        raise Fault("shape", f"half of {f['rotated']} channels is not whole beats")
    if f["factors"] and f["residual"]:
        raise Fault("shape", "factors and a residual have the same operand")
    if f["activate"] and f["function"] not in machine.functions:
        raise Fault("shape", f"the build has no {f['function']}; it has {', '.join(machine.functions)}")


def _source(state, f, which):
    """Codes [rows, vectors, channels]."""
    config = state.config
    n_vectors, channels = f["vectors"], f["channels"]
    if f["zeros"]:
        return np.zeros((config.rows, n_vectors, channels), np.uint32)
    given = -(-channels // config.tile_channels) * config.tile_channels
    results = state.results[which].take(n_vectors * given)  # [channels, rows]
    return results.T.reshape(config.rows, n_vectors, given)[..., :channels]


def _beats(queue, n_vectors, elements):
    return queue.take(n_vectors * elements).reshape(n_vectors, elements)


def _destinations(state, f, x, n_words, which):
    rows, n_vectors, channels = x.shape
    lanes = state.config.vector_lanes
    padded = np.zeros((rows, n_vectors, n_words * lanes), np.uint32)
    padded[..., :channels] = x
    if f["to_vector"]:
        for n in range(n_vectors):
            place = which * state.machine.set_vector_words + f["vector"] + n * f["stride"]
            state.words("vector memory", state.vector_memory, place, n_words)[:] = padded[:, n]
    if f["to_cache"]:
        state.heads[which].extend(x[: state.rows_of(which), n] for n in range(n_vectors))
    if f["to_logits"]:
        logits = x[state.rows_of(which) - 1].reshape(-1)
        state.memory.write(f["logits"], logits.astype("<u4").view(np.uint8))
        _choose(state, f, logits)
    if f["gain"]:
        padded = multiply(padded, _beats(state.gain, n_vectors, n_words * lanes))
    if f["to_buffer"]:
        for n in range(n_vectors):
            place, into, of = _place(state, f, n)
            place += which * state.config.set_words
            words = state.words("activation buffer", state.buffer, place, n_words)
            words[into] = padded[of, n]


def _place(state, f, n):
    """Of a vector: word of the buffer, rows that it is loaded into, rows that it is taken of."""
    if not f["spread"]:
        return f["address"] + n * f["stride"], slice(None), slice(None)
    if not f["ratio"]:
        raise Fault("shape", "0 query heads cannot share a head of keys")
    head, query = divmod(n, f["ratio"])
    batches = -(-f["ratio"] // state.config.rows)
    place, row = divmod(query, state.config.rows)
    return f["address"] + (head * batches + place) * f["stride"], slice(row, row + 1), slice(0, 1)


def _choose(state, f, logits):
    """The largest of all logits since `starts`: the first of equals, +0 and -0 alike, NaN larger than all."""
    numbers = decode(logits)
    place = int(np.argmax(numbers))  # NaN first, as of `golden.vector.maximum`
    if f["starts"]:
        state.best, state.channel = None, 0
    elif state.best is None:
        raise Fault("queue", "logits go on that have not begun")
    if state.best is None or _is_larger(numbers[place], state.best[0]):
        state.best = numbers[place], state.channel + place
    state.channel += len(logits)
    if f["ends"]:
        state.token, state.best = state.best[1], None


def _is_larger(number, than):
    return not np.isnan(than) and (np.isnan(number) or number > than)
