"""What checksums cannot tell of an image: that it keeps to the machine's memory, and that its program does.

A machine checks much itself: words of its ports, its activation buffer and its page table, formats, jumps past the end.
Here is the rest, what would overwrite an image's own bytes, read past what the vector unit has, or never end; and what
a host relies on when it runs the image.
"""

from edgeaccel import isa
from edgeaccel.cache import CacheLayout
from edgeaccel.machine import DATA_BYTES

__all__ = ["check_manifest", "check_program", "check_segments"]

_VECTOR_PLACES = (("operand", ("factors", "residual")), ("vector", ("to_vector",)))


def check_segments(machine, segments):
    """ValueError unless all segments, (address, bytes), lie in the machine's memory, each in a place of its own."""
    end = machine.data_base + DATA_BYTES
    behind, before = 0, None
    for number, (address, data) in sorted(enumerate(segments), key=lambda each: each[1][0]):
        if address < 0 or address + len(data) > end:
            raise ValueError(
                f"segment {number}, {address:#x} to {address + len(data) - 1:#x}, is outside of the machine's memory,"
                f" which ends at {end - 1:#x}"
            )
        if address < behind:
            raise ValueError(f"segments {before} and {number} overlap at {address:#x}")
        behind, before = address + len(data), number


def check_program(machine, program, address, segments):
    """ValueError if a program is not where it is said to be, or would make the machine go wrong without an error.

    Parameters
    ----------
    machine : Machine
    program : bytes
    address : int
        Where it lies in memory.
    segments : list of (address, bytes)
    """
    size = isa.INSTRUCTION_BYTES
    if address % size or address < machine.data_base:
        raise ValueError(
            f"a program must lie at a multiple of {size} from {machine.data_base:#x} on, not at {address:#x}"
        )
    if not any(bytes(data[address - at :][: len(program)]) == program for at, data in segments if at <= address):
        raise ValueError(f"the program is not what its segment holds at {address:#x}")
    lines = [isa.decode(program[n : n + size]) for n in range(0, len(program), size)]
    _check_order(lines)
    layers = max([fields["layers"] for name, _, fields in lines if name == "loop"], default=1)
    for number, (name, _, fields) in enumerate(lines):
        try:
            if name in _CHECKS:
                _CHECKS[name](machine, fields)
            for begin, end in _written(machine, name, fields, layers):
                if (segment := _first_touched(segments, begin, end)) is not None:
                    raise ValueError(f"it would write over segment {segment}, at {begin:#x} to {end - 1:#x}")
        except ValueError as error:
            raise ValueError(f"instruction {number} ({name}) cannot be: {error}") from None


def _check_order(lines):
    """Refuses what goes on past the end, or loops in a loop, which would never end."""
    waiting, seen = [(0, False)], set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        number, in_loop = place
        if number >= len(lines):
            raise ValueError(f"the program may go on past its {len(lines)} instructions")
        name, when, fields = lines[number]
        if name == "loop":
            if in_loop:
                raise ValueError(f"instruction {number} is a loop in a loop, which would never end")
            waiting.append((number + 1, True))
        elif name == "again":
            waiting += [(fields["target"], True), (number + 1, False)] if in_loop else [(number + 1, False)]
        elif name == "next":
            waiting.append((fields["target"], False))
        elif name != "end":
            waiting.append((number + 1, in_loop))
        if when != "always":
            waiting.append((number + 1, in_loop))


def _check_vector(machine, f):
    lanes = machine.config.vector_lanes
    if not f["vectors"] or not 1 <= f["channels"] <= machine.max_channels:
        raise ValueError(
            f"{f['vectors']} vectors of {f['channels']} channels; there must be 1 to {machine.max_channels}"
        )
    if f["rotated"] % 2 or f["rotated"] > min(f["channels"], machine.max_rotated):
        raise ValueError(
            f"{f['rotated']} of {f['channels']} channels cannot be rotated, nor more than {machine.max_rotated}"
        )
    if f["rotated"] and f["half"] and f["rotated"] % (2 * lanes):
        raise ValueError(f"half of {f['rotated']} channels is not whole beats of {lanes}")
    if f["factors"] and f["residual"]:
        raise ValueError("factors and a residual have the same operand")
    if f["activate"] and f["function"] not in machine.functions:
        raise ValueError(f"the build has no {f['function']}, only {', '.join(machine.functions)}")
    words = (f["vectors"] - 1) * f["stride"] - (-f["channels"] // lanes)
    for place, users in _VECTOR_PLACES:
        if any(f[user] for user in users) and f[place] + words > machine.vector_words:
            raise ValueError(f"words {f[place]} to {f[place] + words - 1} of a vector memory of {machine.vector_words}")
    if f["to_buffer"] and not f["spread"] and f["address"] + words > machine.config.buffer_words:
        last = f["address"] + words - 1
        raise ValueError(f"words {f['address']} to {last} of an activation buffer of {machine.config.buffer_words}")
    if f["to_buffer"] and f["spread"] and not f["ratio"]:
        raise ValueError("0 query heads cannot share a head of keys")


def _check_read(machine, f):
    lanes = machine.config.vector_lanes
    beat = (8 if f["target"] == "table" else 4) * lanes
    if not f["bytes"] or f["bytes"] % beat:
        raise ValueError(f"{f['bytes']} bytes are no whole beats of {beat}")
    beats = f["bytes"] // beat
    if f["target"] == "vector" and f["vector"] + beats > machine.vector_words:
        raise ValueError(
            f"words {f['vector']} to {f['vector'] + beats - 1} of a vector memory of {machine.vector_words}"
        )
    if f["target"] == "table" and beats > machine.table_beats:
        raise ValueError(f"a table of {beats} beats, of which a row keeps {machine.table_beats}")


def _check_loop(machine, f):
    if not f["layers"]:
        raise ValueError("a loop has at least a layer")


def _check_cache(machine, f):
    sizes = {"heads": f["heads"], "head_dim": f["inputs"], "format": f["format"], "page_bits": f["page_bits"]}
    view = CacheLayout(config=machine.config, **sizes).view(
        table=f["table"], pages=f["pages"], n_pages=f["n_pages"], base=f["base"], scales=f["scales"]
    )
    for name, value in view.items():
        if f[name] != value:
            raise ValueError(f"{name} must be {value} for its heads, not {f[name]}")


_CHECKS = {"vector": _check_vector, "read": _check_read, "loop": _check_loop, "cache": _check_cache}


def _written(machine, name, f, layers):
    """(begin, end) of global addresses that an instruction, or those that it is for, may write to."""
    end = machine.data_base + DATA_BYTES
    if name == "vector" and f["to_logits"]:
        places = [(f["logits"], f["logits"] + 4 * f["vectors"] * f["channels"])]
    elif name == "cache":
        word = machine.config.word_bytes
        bases = [f["base"] + n * f["layer_words"] for n in (0, layers - 1)]
        first, behind = bases[0] * word, (bases[1] + f["n_pages"] * f["page_words"]) * word
        if behind > machine.port_bytes:
            raise ValueError(f"a cache to byte {behind} of each port, which has {machine.port_bytes}")
        ports = range(machine.config.groups)
        places = [(n * machine.port_bytes + first, n * machine.port_bytes + behind) for n in ports]
        last = f["scales"] + (layers - 1) * f["layer_scales"]
        places.append((f["scales"], last + f["n_pages"] * f["page_scale_bytes"]))
    else:
        return
    for first, behind in places:
        if behind > end:
            raise ValueError(f"it would write to {first:#x} to {behind - 1:#x}, outside of the machine's memory")
        yield first, behind


def _first_touched(segments, begin, end):
    touched = (n for n, (address, data) in enumerate(segments) if address < end and begin < address + len(data))
    return next(touched, None)


def check_manifest(machine, manifest, program):
    """ValueError, KeyError or TypeError unless a manifest has what a host needs, and that agrees with the program."""
    size = isa.INSTRUCTION_BYTES
    lines = [isa.decode(program[n : n + size]) for n in range(0, len(program), size)]
    for name, kind in (("origin", str), ("formats", dict), ("cache_format", str), ("cache", dict), ("matrices", dict)):
        if not isinstance(manifest[name], kind):
            raise TypeError(f"{name} must be a {kind.__name__}, not {manifest[name]!r:.40}")
    _whole("n_layers", manifest["model"]["n_layers"], 1, 1 << 12)
    _whole("positions", manifest["positions"], 1, machine.positions)
    vocab_size = _whole("vocab_size", manifest["vocab_size"], 1, 1 << isa.TOKEN_WIDTH)
    for token in [*manifest["eos"], *([] if manifest["bos"] is None else [manifest["bos"]])]:
        _whole("a token", token, 0, vocab_size - 1)
    names = manifest["names"]
    if len(names) != len(lines) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names must be {len(lines)} texts, one for each instruction")
    end = machine.data_base + DATA_BYTES
    for name, (address, n_bytes) in manifest["regions"].items():
        _whole(f"the address of {name}", address, 0, end)
        _whole(f"bytes of {name}", n_bytes, 0, end - address)
    logits = [f for name, _, f in lines if name == "vector" and f["to_logits"]]
    if logits and (
        logits[0]["logits"] != manifest["logits"] or sum(f["vectors"] * f["channels"] for f in logits) != vocab_size
    ):
        raise ValueError(f"the program's logits are not the {vocab_size} at {manifest['logits']!r} that it says")


def _whole(name, value, least, most):
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r:.40}")
    return value
