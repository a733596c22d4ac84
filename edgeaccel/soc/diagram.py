"""Block diagram of a machine, as SVG: units with their modules and sizes, and how much goes between them in a cycle."""

import inspect

from edgeaccel import isa
from edgeaccel.attention.attention import weight_places
from edgeaccel.attention.writer import OUTSTANDING
from edgeaccel.cache import group_sets
from edgeaccel.soc.drawing import FAINT, Box, Drawing
from edgeaccel.soc.logits import BUFFER_BEATS as LOGITS_BEATS
from edgeaccel.soc.parameters import BUFFER_BEATS as PARAMETER_BEATS
from edgeaccel.soc.register_map import register_map
from edgeaccel.systolic.engine import MatrixEngine
from edgeaccel.systolic.store import store_size

__all__ = ["block_diagram"]

ACTIVATION_BITS = {"fp16": 16, "bf16": 16, "fp32": 32}
ATTENTION = "edgeaccel/attention/attention.py"


def block_diagram(machine, name=""):
    """SVG text of a machine's units.

    Data flow from the memories at the left through the array and round: results of the groups become vectors, and
    vectors the activations of what comes next. At an arrow stands what goes there in a cycle.

    Parameters
    ----------
    machine : Machine
    name : str
        For the title.
    """
    boxes = (_memories, _control, _engines, _array, _vectors, _attention)
    drawing = Drawing(
        [box for of in boxes for box in of(machine)],
        column_gutters=[24, 110, 150, 150, 130, 130, 24],
        row_gutters=[16, 30, 40, 76, 62, 92, 66, 56, 24],
        top=66,
    )
    config = machine.config
    drawing.text(24, 34, f"edgeaccel {name}".strip(), "head", bold=True)
    clocks = f"core {config.core_mhz:g} MHz · ports {config.port_mhz:g} MHz"
    drawing.text(24, 56, f"{clocks} · at an arrow: data in a cycle · dashed: orders", "line", colour=FAINT)
    drawing.frame(("values", "scores", "router", "walk", "passes"), "attention", "Attention", ATTENTION)
    _control_arrows(drawing, config)
    _vector_arrows(drawing, config)
    _array_arrows(drawing, config)
    _attention_arrows(drawing, config)
    return drawing.svg(f"edgeaccel {name}".strip())


def _memories(machine):
    config = machine.config
    core, ports = f"AXI4, {config.port_data_width} bit, core", f"AXI4, {config.port_data_width} bit, ports"
    last = config.groups - 1
    yield Box("host", (0, 0), "memory", "Host", "s_axil, irq, activity", ["AXI4-Lite, 32 bit"])
    yield Box("program_port", (0, 1), "memory", "Program", "m_axi_program", [core])
    yield Box("data_port", (0, 2), "memory", "Parameters, logits", "m_axi_data", [core])
    yield Box(
        "ports",
        (0, 4),
        "memory",
        _several(config.groups, "memory port"),
        f"m_axi_0 … m_axi_{last}" if last else "m_axi_0",
        [
            "tiles of weights, keys, values",
            ports,
            f"{_size(machine.port_bytes)} each",
            f"{config.port_bytes_per_s / 1e9:,.1f} GB/s in all",
        ],
    )
    yield Box("scales_port", (0, 6), "memory", "Scales of values", "m_axi_scales", [ports])
    yield Box("cache_port", (0, 7), "memory", "Keys and values", "m_axi_cache", [core])


def _control(machine):
    program, tokens = machine.instructions * isa.INSTRUCTION_BYTES, register_map(machine).tokens_bytes
    orders = [
        "read: parameters · fetch: ports · multiply: feed",
        "vector: result path · append: cache · attend: attention",
    ]
    for name, place, title, module, lines in (
        ("registers", (1, 0), "Registers", "soc/registers", [f"{2 * machine.config.groups} counters, interrupt"]),
        ("sequencer", (2, 0), "Sequencer", "soc/sequencer", [f"{len(isa.INSTRUCTIONS)} instructions", "loops, waits"]),
        ("orders", (3, 0, 2), "Orders, to each unit in a stream", "soc/command", orders),
        ("reader", (1, 1), "Program reader", "memory/reader", ["once a run"]),
        (
            "program",
            (2, 1),
            "Program memory",
            "soc/program",
            [f"{machine.instructions} × {isa.INSTRUCTION_BYTES} bytes", _size(program)],
        ),
        ("tokens", (3, 1), "Token memory", "soc/tokens", [f"{machine.positions:,} tokens", _size(tokens)]),
    ):
        yield Box(name, place, "control", title, f"edgeaccel/{module}.py", lines)


def _engines(machine):
    config = machine.config
    words = inspect.signature(MatrixEngine).parameters["buffer_words"].default
    beat_bytes = config.port_data_width // 8
    for name, row, title, module, lines in (
        ("parameters", 2, "Parameter reader", "soc/parameters", [f"buffer {_size(PARAMETER_BEATS * beat_bytes)}"]),
        (
            "streamers",
            4,
            _several(config.groups, "tile streamer"),
            "memory/streamer",
            [f"buffers {config.groups} × {_size(words * config.word_bytes)}", _crossing(config)],
        ),
        (
            "requests",
            5,
            "Request chain",
            "systolic/commands",
            ["weights', attention's"],
        ),
        ("scales", 6, "Scale streamer", "memory/streamer", [_crossing(config)]),
        ("writer", 7, "Cache writer", "attention/writer", ["quantiser", f"{OUTSTANDING} writes under way"]),
    ):
        yield Box(name, (1, row), "engine", title, f"edgeaccel/{module}.py", lines)


def _array(machine):
    config = machine.config
    rows, inputs = config.rows, config.buffer_inputs
    format = config.activations
    feed = [
        f"{rows} × {inputs:,} × {format.upper()}",
        f"buffer {_size(rows * inputs * ACTIVATION_BITS[format] // 8)}",
        f"{_several(rows, 'aligner')}, to {config.mantissa_bits} bit",
    ]
    yield Box("feed", (2, 4), "array", "Activation feed", "edgeaccel/systolic/feed.py", feed)
    groups = [f"group {n}" for n in range(config.groups)]
    if len(groups) > 5:
        groups[3:-1] = ["…"]
    tiles, lines = store_size(config)
    yield Box(
        "groups",
        (3, 4, 2),
        "array",
        f"Array: {_several(config.groups, 'group')} × {config.lanes} lanes × {_several(rows, 'row')}",
        "edgeaccel/systolic/group.py, edgeaccel/pe/group.py",
        [
            f"{config.multipliers:,} multipliers; {', '.join(config.formats)} in blocks of {config.block}",
            f"in each {_size(tiles * lines * rows * config.lanes // 2 * config.mantissa_bits // 8)} of activations,"
            f" {_several(config.scalers * rows, 'scaler')}",
        ],
        groups,
    )
    yield Box("results", (5, 4), "array", "Result share", "edgeaccel/soc/share.py", ["the weights' or", "attention's"])


def _vectors(machine):
    config = machine.config
    rows, lanes = config.rows, config.vector_lanes
    waiting = config.groups * config.tile_channels * rows * 4
    logits = LOGITS_BEATS * config.port_data_width // 8
    for name, place, title, module, lines in (
        (
            "rotary",
            (3, 2),
            "Rotary table",
            "soc/vectors",
            [f"cos, sin: {rows} × {machine.max_rotated} × FP32", _size(rows * machine.max_rotated * 8)],
        ),
        (
            "vectors",
            (4, 2),
            "Vector memory",
            "soc/vectors",
            [f"{rows} × {machine.vector_inputs:,} × FP32", _size(rows * machine.vector_inputs * 4)],
        ),
        ("logits", (1, 3), "Logits", "soc/logits", ["the largest is the next token", f"buffer {_size(logits)}"]),
        ("loader", (2, 3), "Gain loader", "soc/loads", [f"{_several(rows, 'row')} × {lanes} lanes"]),
        ("split", (3, 3), "Result split", "soc/results", ["to as many of four places", "as an order names"]),
        ("source", (5, 3), "Vector source", "soc/steps", ["results, or zeros;", "steps of each vector"]),
        ("rows", (2, 7), "Row serialiser", "attention/rows", [f"buffer {_size(waiting)}"]),
    ):
        yield Box(name, place, "vector", title, f"edgeaccel/{module}.py", lines)
    yield Box(
        "path",
        (4, 3),
        "vector",
        "Result path",
        "edgeaccel/vector/path.py, edgeaccel/vector/epilogue.py",
        [
            f"{_several(rows, 'row')} × {lanes} lanes, FP32; vectors of up to {machine.max_channels:,}",
            f"activation: {', '.join(machine.functions)}",
        ],
        ["scale", "bias", "rotary", "activation", "× factors", "+ residual", "1/rms"],
        steps_back=True,
    )


def _attention(machine):
    config = machine.config
    _, sets = group_sets(config)
    rows, lanes = config.rows, config.vector_lanes
    weights = weight_places(config) * config.block // config.vector_lanes  # words of the activation buffer
    for name, place, title, module, lines in (
        ("output", (2, 5), "Attention output", "soc/outputs", [f"{_several(rows, 'row')} × {lanes} lanes"]),
        ("values", (3, 5), "Values", "attention/values", [f"{machine.slots} running sums", f"{rows} × {lanes} lanes"]),
        (
            "scores",
            (4, 5),
            "Scores",
            "attention/scores",
            [
                f"online softmax, {_several(rows, 'row')} × {lanes} lanes",
                f"weights: {_size(weights * rows * lanes * 4)} of the activation buffer",
            ],
        ),
        ("router", (5, 5), "Result router", "attention/route", ["keys' or values'"]),
        ("table", (2, 6), "Page table", "attention/table", [f"{machine.pages:,} pages"]),
        ("walk", (3, 6), "Walk", "attention/walk", [f"units: {config.block} positions", "of a head"]),
        (
            "passes",
            (4, 6),
            "Passes",
            "attention/passes",
            [f"{_several(sets, 'set')} of {config.groups // sets} groups"],
        ),
    ):
        yield Box(name, place, "attention", title, f"edgeaccel/{module}.py", lines)


def _control_arrows(d, config):
    d.arrow(d["host"].right(), d["registers"].left(), "32 bit", both=True)
    d.arrow(d["registers"].right(), d["sequencer"].left(), "start, stop", both=True)
    d.arrow(d["sequencer"].right(), d["orders"].left(), dashed=True)
    d.arrow(d["program_port"].right(), d["reader"].left(), f"{config.port_data_width} bit")
    d.arrow(d["reader"].right(), d["program"].left(), f"{8 * isa.INSTRUCTION_BYTES} bit")
    d.arrow(d["program"].top(0.3), d["sequencer"].bottom(0.3))
    d.arrow(d["tokens"].top(), d["sequencer"].bottom(0.85), by=[("y", d.above_row(1, 14))], both=True)


def _vector_arrows(d, config):
    """From the array to the epilogue and to all places, with what memory gives to it."""
    port, lanes = f"{config.port_data_width} bit", f"{config.vector_lanes} × 32 bit"
    all_rows = _rows(config, 32)
    parameters, path, split = d["parameters"], d["path"], d["split"]
    d.arrow(d["data_port"].right(), parameters.left(), port)
    d.arrow(d["logits"].left(), d["data_port"].bottom(), port, by=[("x", d["data_port"].bottom()[0])])
    d.arrow(parameters.right(0.3), d["rotary"].left(0.3), f"tables, {lanes}")
    above = d.above_row(2, 16)
    d.arrow(parameters.top(0.8), d["vectors"].top(), f"embeddings, {lanes}", by=[("y", above)])
    d.arrow(parameters.right(0.75), d["loader"].top(), f"gains, {lanes}", by=[("x", d["loader"].top()[0])])
    d.arrow(parameters.bottom(0.8), path.top(0.66), f"biases, {lanes}", by=[("y", d.above_row(3, 58))], at=0.37)
    d.arrow(d["rotary"].bottom(0.7), path.top(0.5), _rows(config, 64), by=[("y", d.above_row(3, 36))], at=0.75)
    d.arrow(d["vectors"].bottom(0.8), path.top(0.8), f"operands, {all_rows}")
    d.arrow(split.top(0.4), d["vectors"].bottom(0.1), all_rows, by=[("y", d.above_row(3, 14))])
    d.arrow(d["source"].left(), path.right(), all_rows)
    d.arrow(path.left(), split.right(), all_rows)
    d.arrow(split.left(), d["loader"].right(), all_rows)
    d.arrow(split.bottom(0.4), d["logits"].bottom(), lanes, by=[("y", d.above_row(4, 22))], at=0.75)
    d.arrow(d["loader"].bottom(0.35), d["feed"].top(0.35), all_rows, at=0.25)
    column = d.before_column(3, 24)
    d.arrow(split.bottom(0.2), d["rows"].right(), all_rows, by=[("y", d.above_row(4, 42)), ("x", column)], segment=1)
    d.arrow(d["rows"].left(), d["writer"].right(), lanes)
    d.arrow(d["writer"].left(), d["cache_port"].right(), port)


def _array_arrows(d, config):
    words = f"{config.groups} × {config.word_bits} bit"
    d.arrow(d["ports"].right(), d["streamers"].left(), f"{config.groups} × {config.port_data_width} bit")
    d.arrow(
        d["streamers"].right(0.88),
        d["groups"].bottom(0.3),
        words,
        by=[("x", d.before_column(2, 128)), ("y", d.above_row(5, 64))],
    )
    d.arrow(d["feed"].right(), d["groups"].left(), _rows(config, config.mantissa_bits))
    d.arrow(d["groups"].right(), d["results"].left(), _rows(config, 32))
    d.arrow(d["results"].top(), d["source"].bottom())
    d.arrow(d["results"].bottom(), d["router"].top())


def _attention_arrows(d, config):
    all_rows = _rows(config, 32)
    d.arrow(d["router"].left(), d["scores"].right(), all_rows)
    d.arrow(d["router"].bottom(0.3), d["values"].bottom(0.7), all_rows, by=[("y", d.above_row(6, 50))])
    d.arrow(d["scores"].left(), d["values"].right(), "maxima")
    d.arrow(d["values"].left(0.65), d["output"].right(0.65), all_rows)
    d.arrow(d["output"].top(0.35), d["feed"].bottom(0.35), all_rows, at=0.2)
    weights = f"weights, {all_rows}"
    d.arrow(d["scores"].top(0.3), d["feed"].bottom(0.8), weights, by=[("y", d.above_row(5, 40))])
    d.arrow(d["scales_port"].right(), d["scales"].left(), f"{config.port_data_width} bit")
    scales = f"scales, {config.vector_lanes} × 16 bit"
    d.arrow(d["scales"].top(0.8), d["scores"].bottom(0.25), scales, by=[("y", d.above_row(6, 26))], at=0.3)
    d.arrow(d["table"].right(), d["walk"].left(0.5), "pages")
    d.arrow(d["table"].bottom(), d["writer"].top(0.8), "pages", by=[("y", d.above_row(7, 14))])
    d.arrow(d["walk"].right(), d["passes"].left(), "units", dashed=True)
    d.arrow(d["passes"].right(), d["router"].bottom(0.7), by=[("x", d["router"].bottom(0.7)[0])], dashed=True)
    trunk = d.before_column(2, 60)
    end = d["requests"].right()
    d.arrow(
        d["passes"].bottom(),
        end,
        "requests, operators",
        by=[("y", d.above_row(7, 34)), ("x", trunk)],
        at=0.75,
        dashed=True,
    )
    d.arrow((trunk, end[1]), d["feed"].left(0.3), by=[("y", d["feed"].left(0.3)[1])], dashed=True)
    d.arrow(d["requests"].top(), d["streamers"].bottom(), dashed=True)


def _several(count, what):
    return f"{count} {what}{'' if count == 1 else 's'}"


def _rows(config, bits):
    """Elements of all rows in a cycle."""
    return f"{config.rows} × {config.vector_lanes} × {bits} bit"


def _crossing(config):
    core, ports = f"{config.core_mhz:g} MHz", f"{config.port_mhz:g} MHz"
    return core if core == ports else f"{ports} → {core}"


def _size(n_bytes):
    """A number of bytes as it is read."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        # Memories on the chip are told in KiB however large they are.
        if n_bytes >= factor and (unit == "KiB" or (n_bytes % factor == 0 and n_bytes >= 1 << 24)):
            return f"{n_bytes / factor:,.4g} {unit}" if n_bytes < 1000 * factor else f"{n_bytes / factor:,.0f} {unit}"
    return f"{n_bytes} bytes"
