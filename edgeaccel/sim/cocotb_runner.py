"""Compile a design with Verilator for cocotb and run a test module on it.

    python -m edgeaccel.sim.cocotb_runner FOLDER [MODULE [+ARGUMENT ...]]

FOLDER holds `dut.v` with the module `dut`. MODULE is `sim.cocotb_streams` if not given, which takes `traffic.npz` from
FOLDER and leaves `results.npz` there; the arguments are what it finds in `cocotb.plusargs`. The exit status is 1 if one
of its tests fails.
"""

import os
import sys
from pathlib import Path

from cocotb_tools.runner import get_results, get_runner

from edgeaccel.sim.libpython import shared_libpython
from edgeaccel.verilated import LINT_WAIVERS, verilator_root

# Settings that the makefile fragment of the `verilator` package leaves empty.
MAKE_SETTINGS = (
    "CFG_CXXFLAGS_PCH_I=-include PYTHON3=python3 CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread "
    "OPT_FAST=-O1 OPT_GLOBAL=-O0"
)
# cocotb makes every signal public, so Verilator cannot split structs, and takes a field made from another for a loop.
WAIVERS = [*LINT_WAIVERS, "UNOPTFLAT"]


def main():
    folder = Path(sys.argv[1]).resolve()
    module = sys.argv[2] if len(sys.argv) > 2 else "edgeaccel.sim.cocotb_streams"
    os.environ["PATH"] = f"{_verilator_on_path(folder)}{os.pathsep}{os.environ['PATH']}"
    os.environ["VERILATOR_ROOT"] = str(verilator_root())
    os.environ["MAKEFLAGS"] = MAKE_SETTINGS
    os.environ["LIBPYTHON_LOC"] = str(shared_libpython(folder.parent / "libpython"))
    runner = get_runner("verilator")
    runner.build(
        sources=[folder / "dut.v"],
        hdl_toplevel="dut",
        build_dir=folder / "build",
        build_args=[f"-Wno-{name}" for name in WAIVERS],
    )
    results = runner.test(
        hdl_toplevel="dut",
        test_module=module,
        test_dir=folder,
        plusargs=sys.argv[3:],
        extra_env={"EDGEACCEL_TRAFFIC": str(folder / "traffic.npz")},
        results_xml=str(folder / "cocotb.xml"),
    )
    n_tests, n_failed = get_results(results)
    sys.exit(bool(n_failed or not n_tests))


def _verilator_on_path(folder):
    """A folder with a `verilator` that is the binary itself: cocotb takes the first on PATH, and hands it to Perl."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    script = bin_folder / "verilator"
    script.write_text(f'#!/usr/bin/env perl\nexec("{verilator_root()}/bin/verilator_bin", @ARGV);\n')
    script.chmod(0o755)
    return bin_folder


if __name__ == "__main__":
    main()
