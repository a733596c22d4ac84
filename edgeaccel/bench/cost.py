"""Cost of whole machines on their parts, estimated by Yosys: `vcu128` and `vu9p`, modules that repeat synthesised once.

A module that stands in a machine several times is synthesised alone, and counts as often as it stands there; the rest
is one. So Yosys saves nothing across those borders, and of a path that crosses one each side counts for itself.
"""

from edgeaccel.bench.record import Record
from edgeaccel.boards.board import VU9P, VU37P
from edgeaccel.cost import synthesise_parts
from edgeaccel.machine import machine
from edgeaccel.soc.soc import SoC
from edgeaccel.verilog import emit

__all__ = ["PARTS", "PRESETS", "measure", "plot", "totals"]

SOURCE = "python -m edgeaccel.bench cost"
PRESETS = ("vcu128", "vu9p")
COUNTS = {
    "lut": "LUT",
    "lut_memory": "LUT",
    "ff": "FF",
    "dsp": "DSP48E2",
    "bram": "RAMB36E2",
    "uram": "URAM288",
}
PARTS = {"vcu128": VU37P, "vu9p": VU9P}


def totals(costs):
    """Sums over {name: (Cost, how often)}, by the names of `COUNTS`; `lut` are those of both kinds."""
    return {
        name: sum((cost.luts if name == "lut" else getattr(cost, name)) * number for cost, number in costs.values())
        for name in COUNTS
    }


def measure(progress):
    """All records."""
    records = []
    task = progress.add_task("cost", total=None)
    for preset in PRESETS:
        built = machine(preset)
        config = built.config
        progress.update(task, description=f"{preset}: emitting", total=None)
        text = emit(SoC(built), preset)

        def tell(name, done, total, preset=preset):
            progress.update(task, description=f"{preset}: {name}", completed=done, total=total)

        costs = synthesise_parts(text, preset, tell)
        note = f"{SOURCE}: the whole machine, rows={config.rows}, {len(costs)} modules summed"
        found = totals(costs)
        part = PARTS[preset]
        there = {"lut": part.luts, "dsp": part.dsps, "bram": part.brams, "uram": part.urams}
        lanes = config.groups * config.lanes
        records += [
            Record(f"cost.{preset}.{name}", float(found[name]), COUNTS[name], "estimated", note) for name in COUNTS
        ]
        records += [
            Record(
                f"cost.{preset}.{name}_share", found[name] / most, "1", "estimated", f"{note}; {part.name} has {most}"
            )
            for name, most in there.items()
        ]
        records += [
            Record(f"cost.{preset}.lut_per_lane", found["lut"] / lanes, "LUT/lane", "estimated", note),
            Record(
                f"cost.{preset}.dsp_per_int4_product",
                found["dsp"] / (lanes * config.rows),
                "DSP48E2/product",
                "estimated",
                note,
            ),
            Record(
                f"cost.{preset}.levels",
                float(max(cost.levels for cost, _ in costs.values())),
                "levels of logic",
                "estimated",
                f"{note}; the longest of {max(costs, key=lambda name: costs[name][0].levels)}",
            ),
        ]
    return records


def plot(records, axes):
    """Shares of the parts."""
    shares = [record for record in records if record.name.endswith("_share")]
    names = [record.name.removeprefix("cost.").removesuffix("_share") for record in shares]
    axes.barh(names, [100 * record.value for record in shares])
    axes.axvline(100, color="gray", linestyle=":")
    axes.set_xlabel("% of the part")
