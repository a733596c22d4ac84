"""Cost of whole machines on their parts, estimated by Yosys: `vcu128`, with one row too, and `vu9p`.

A module that stands in a machine several times is synthesised alone, and counts as often as it stands there; the rest
is one. So Yosys saves nothing across those borders, and of a path that crosses one each side counts for itself.
"""

from edgeaccel.bench.record import Record
from edgeaccel.boards.board import VU9P, VU37P
from edgeaccel.cost import synthesise_parts
from edgeaccel.machine import machine
from edgeaccel.soc.soc import SoC
from edgeaccel.verilog import emit

__all__ = ["MACHINES", "PARTS", "measure", "plot", "totals"]

SOURCE = "python -m edgeaccel.bench cost"
# Names in the records, presets, and what is changed in them.
MACHINES = (("vcu128", "vcu128", {}), ("vu9p", "vu9p", {}), ("vcu128.one_row", "vcu128", {"rows": 1}))
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
    for name, preset, changes in MACHINES:
        built = machine(preset, changes=changes)
        progress.update(task, description=f"{name}: emitting", total=None)
        text = emit(SoC(built), preset)

        def tell(part, done, total, name=name):
            progress.update(task, description=f"{name}: {part}", completed=done, total=total)

        records += _records(name, built.config, PARTS[preset], synthesise_parts(text, preset, tell))
    return records


def _records(name, config, part, costs):
    """Of one machine, from {module: (Cost, how often)}."""
    note = f"{SOURCE}: the whole machine, rows={config.rows}, {len(costs)} modules summed"
    found = totals(costs)
    lanes = config.groups * config.lanes
    longest = max(costs, key=lambda module: costs[module][0].levels)
    there = {"lut": part.luts, "dsp": part.dsps, "bram": part.brams, "uram": part.urams}
    values = [
        *((each, found[each], unit, note) for each, unit in COUNTS.items()),
        *(
            (f"{each}_share", found[each] / most, "1", f"{note}; {part.name} has {most}")
            for each, most in there.items()
        ),
        ("lut_per_lane", found["lut"] / lanes, "LUT/lane", note),
        ("dsp_per_int4_product", found["dsp"] / (lanes * config.rows), "DSP48E2/product", note),
        ("levels", costs[longest][0].levels, "levels of logic", f"{note}; the longest of {longest}"),
    ]
    return [Record(f"cost.{name}.{each}", float(value), unit, "estimated", why) for each, value, unit, why in values]


def plot(records, axes):
    """Shares of the parts."""
    shares = [record for record in records if record.name.endswith("_share")]
    names = [record.name.removeprefix("cost.").removesuffix("_share") for record in shares]
    axes.barh(names, [100 * record.value for record in shares])
    axes.axvline(100, color="gray", linestyle=":")
    axes.set_xlabel("% of the part")
