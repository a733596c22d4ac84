"""Matrix engine: matrices of LLaMA2-7B in a row as one stream, on the emitted Verilog with memories behind it.

Each port has its matrices' tiles in a memory of its own. Weights and activations are random; every result is held to
the golden engine's, and the cycle of the last one to the cycle model. A share of beats is that of all ports together,
from the first beat to the last of any, over what their memories could have delivered. Cycles do not depend on `rows`.
"""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np

from edgeaccel.bench.record import Record
from edgeaccel.config import preset
from edgeaccel.cost import synthesise
from edgeaccel.formats import FORMATS
from edgeaccel.golden import engine as golden
from edgeaccel.golden.array import group_words
from edgeaccel.golden.feed import Operator
from edgeaccel.perf.matrix import PortMemory, predict
from edgeaccel.systolic import ActivationFeed, Group, MatrixEngine
from edgeaccel.verilog import emit

__all__ = ["llama2_7b", "measure", "plot", "simulate"]

SOURCE = "python -m edgeaccel.bench matmul"
SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))  # (channels, inputs): attention, up, down
BASE = 1 << 32
ELABORATE = """
import time
start = time.perf_counter()
import resource
from edgeaccel.config import preset
from edgeaccel.systolic import GroupArray
from edgeaccel.verilog import emit
size = len(emit(GroupArray(preset("vcu128")), "array"))
seconds = time.perf_counter() - start
# Not `RUSAGE_SELF`, which counts what the process was before it became this one.
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, size, 1024 * (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


def llama2_7b(config, format):
    """The operators, their activations one behind the other in the buffer."""
    operators, address = [], 0
    for channels, inputs in SHAPES:
        tiles = -(-channels // config.tile_channels)
        operators.append(Operator(format=format, inputs=inputs, channel_tiles=tiles, address=address))
        address += -(-inputs // config.vector_lanes)
    return operators


def random_tiles(rng, config, operator):
    """Packed tiles of random codes, with scales between 2**-10 and 2**-9."""
    layout = config.layout(operator.format)
    shape = (operator.channel_tiles, layout.row_words(operator.inputs), config.lanes // 2)
    tiles = rng.integers(0, 256, shape, np.uint8)
    of_scales = tiles[:, :: layout.words_per_tile]
    scales = rng.uniform(2.0**-10, 2.0**-9, (*of_scales.shape[:2], layout.channels * layout.blocks)).astype(np.float16)
    of_scales[:] = scales.view(np.uint8).reshape(of_scales.shape)
    return tiles


def simulate(config, format, model, *, operators=None, seed=0, optimise="-O3 -march=native"):
    """Run operators on the emitted engine, results held to the golden engine's: a `edgeaccel.sim.system.SystemRun`.

    Parameters
    ----------
    config : Config
    format : str
    model : edgeaccel.sim.memory.MemoryModel
        Of each port's memory.
    operators : list of Operator
        `llama2_7b` by default.
    """
    from edgeaccel.sim.system import Memory, run  # the bench of this repository

    rng = np.random.default_rng(seed)
    engine = MatrixEngine(config)
    operators = operators or llama2_7b(config, format)
    matrices = [random_tiles(rng, config, operator) for operator in operators]
    buffer = rng.standard_normal((config.rows, config.buffer_inputs)).astype(np.float32)
    loads = buffer.reshape(config.rows, -1, config.vector_lanes).swapaxes(0, 1)
    n_loads = max(operator.address + -(-operator.inputs // config.vector_lanes) for operator in operators)
    addresses, at = [], BASE
    for operator in operators:
        addresses.append(at)
        at += max(golden.port_words(config, operator)) * config.word_bytes
    memories = {}
    for group in range(config.groups):
        content = np.zeros(at - BASE, np.uint8)
        for tiles, address in zip(matrices, addresses, strict=True):
            words = group_words(config, tiles)[group].ravel()
            content[address - BASE :][: words.size] = words
        memories[f"m_axi_{group}"] = Memory(model=model, content=content, base=BASE)
    streams = {
        "i_loads": {
            "address": np.arange(n_loads),
            "elements": loads[:n_loads].view(np.uint32),
            "rows": np.full(n_loads, (1 << config.rows) - 1),
            "event": np.zeros(n_loads),
        },
        "i_operators": _columns(config, operators, n_groups=[operator.groups(config) for operator in operators]),
    }
    for group, commands in enumerate(golden.port_commands(config, operators, addresses)):
        streams[f"i_commands__{group}"] = _columns(config, commands)
    expected = golden.engine_results(config, operators, matrices, buffer.astype(np.float64))
    result = run(
        engine,
        streams=streams,
        n_results=len(expected),
        memories=memories,
        # The vectors are there before the stream begins.
        stalls=dict.fromkeys((name for name in streams if name != "i_loads"), np.arange(n_loads + 1) == n_loads),
        clocks=dict(zip(engine.domains, (config.core_mhz, config.port_mhz), strict=False)),
        check=False,
        optimise=optimise,
    )
    if not np.array_equal(result.results["o"]["values"], expected):
        raise AssertionError("the emitted Verilog and the golden engine give different results")
    return result


def beat_share(result):
    """Share of the deliverable beats that all ports together consumed, from the first beat to the last of any.

    The ports' memories are alike: each could have delivered what the one that was busy the longest could.
    """
    ports = result.ports.values()
    return sum(port.reads.beats for port in ports) / (len(ports) * max(port.deliverable for port in ports))


def _columns(config, items, **others):
    columns = {name: [getattr(item, name) for item in items] for name in vars(items[0])} | others
    columns["format"] = [FORMATS[name].code for name in columns["format"]]
    return {name: np.array(values, np.uint64) for name, values in columns.items()}


def measure(progress):
    """All records."""
    from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL  # the bench of this repository

    steps = progress.add_task("matmul", total=8)
    vcu128, vu9p = preset("vcu128"), preset("vu9p", rows=1)
    # The array at its full rate: ports that give more than a word in each of its cycles.
    full_rate = replace(vcu128, port_mhz=2 * vcu128.core_mhz + 50)
    records = []

    def record(name, value, unit, kind, note=""):
        records.append(Record(f"matmul.{name}", float(value), unit, kind, f"{SOURCE}{note}"))

    def run(config, model, **settings):
        progress.update(steps, advance=1)
        result = simulate(config, "int4", model, **settings)
        start = result.cycles["i_operators"][0]
        memory = PortMemory(latency=model.read_closed, share=model.share)
        predicted = predict(config, llama2_7b(config, "int4"), memory)
        cycles = result.cycles["o"][-1] - start
        return result, cycles, predicted.last_result / cycles - 1

    for name, config, model in (("vcu128", vcu128, HBM2), ("vu9p", vu9p, DDR4_2400)):
        progress.update(steps, description=f"{name} with {model.name}")
        result, cycles, error = run(config, model)
        note = f": INT4, {model.name}, rows={config.rows}"
        record(f"{name}.cycles", cycles, "cycle", "simulated", note)
        record(f"{name}.beat_share", beat_share(result), "1", "simulated", note)
        record(f"{name}.prediction_error", error, "1", "simulated", note)
    progress.update(steps, description="vcu128 at its full rate")
    result, cycles, error = run(full_rate, IDEAL)
    note = f": INT4, ideal memory, rows={full_rate.rows}; words of codes over all cycles of all groups"
    record("vcu128.rows4.busy_share", _code_words(full_rate) / (full_rate.groups * cycles), "1", "simulated", note)
    record("vcu128.rows4.prediction_error", error, "1", "simulated", note)

    fast = "-O3 -march=native"
    for name, config, model in (
        ("tiny", preset("tiny", buffer_inputs=32768), replace(IDEAL, data_width=128)),
        ("vcu128", replace(vcu128, rows=1), HBM2),
        ("vu9p", vu9p, DDR4_2400),
    ):
        progress.update(steps, description=f"speed of {name}", advance=1)
        start = time.perf_counter()
        operators = None if name != "tiny" else [Operator(format="int4", inputs=1024, channel_tiles=512)]
        result = simulate(config, "int4", model, operators=operators, optimise=fast)
        note = f": rows={config.rows}, compiled with {fast}"
        rate = result.n_cycles["sync"] / result.seconds
        records.append(Record(f"sim.{name}.cycles_per_s", rate, "cycle/s", "measured", SOURCE + note))
        seconds = time.perf_counter() - start - result.seconds
        note += "; emission, Verilator, g++ and the golden results; little if it was built before"
        records.append(Record(f"sim.{name}.build_s", seconds, "s", "measured", SOURCE + note))

    progress.update(steps, description="elaborate the array of vcu128", advance=1)
    child = subprocess.run([sys.executable, "-c", ELABORATE], capture_output=True, text=True, check=True)
    note = f": 32 groups x 128 lanes, rows={vcu128.rows}, in a process of its own, importing included"
    for (name, unit), value in zip(
        (("s", "s"), ("bytes", "B"), ("peak_bytes", "B")), child.stdout.split(), strict=True
    ):
        records.append(Record(f"elaborate.vcu128_array.{name}", float(value), unit, "measured", SOURCE + note))

    progress.update(steps, description="cost of a group", advance=1)
    config = replace(vcu128, rows=1)
    cost, feed = (synthesise(emit(part(config), "part"), "part") for part in (Group, ActivationFeed))
    note = f": Yosys synth_xilinx -family xcup, {config.lanes} lanes, rows=1"
    for name, value in (
        ("lut_per_lane", (cost.lut + cost.lut_memory) / config.lanes),
        ("dsp", cost.dsp),
        ("ff", cost.ff),
        ("logic_levels", cost.levels),
    ):
        record(f"group.{name}", value, "1", "estimated", note)
    lut = config.groups * (cost.lut + cost.lut_memory) + feed.lut + feed.lut_memory
    record(
        "array.lut_per_lane", lut / config.groups / config.lanes, "1", "estimated", f"{note}; 32 groups and the feed"
    )
    record("array.dsp", config.groups * cost.dsp + feed.dsp, "1", "estimated", f"{note}; 32 groups and the feed")
    return records


def _code_words(config):
    """Words of codes of all groups for the operators."""
    count = 0
    for operator in llama2_7b(config, "int4"):
        layout = config.layout(operator.format)
        scale_words = operator.channel_tiles * -(-operator.inputs // layout.inputs)
        count += sum(golden.port_words(config, operator)) - scale_words
    return count


def plot(records, axes):
    """The pipeline filling: words that each group takes, cycle by cycle, from the first address on."""
    from edgeaccel.sim.memory import HBM2, Channel

    config = preset("vcu128")
    operators = [Operator(format="int4", inputs=2048, channel_tiles=config.groups)]
    commands = golden.port_commands(config, operators, [BASE])
    memories = [Channel(HBM2).serve for _ in range(config.groups)]
    timing = golden.engine_cycles(config, operators, commands, memories, periods=(9, 5))
    cycles = max(port.words[-1] for port in timing.ports) + 1
    taken = np.zeros((config.groups, cycles), bool)
    for group, port in enumerate(timing.ports):
        taken[group, port.words] = True
    axes.imshow(taken, aspect="auto", cmap="Blues", interpolation="nearest", origin="lower")
    axes.set_xlabel("core cycle")
    axes.set_ylabel("group")
    axes.set_title("Words taken: vcu128, INT4, 2048 inputs, 32 ports of HBM2")
