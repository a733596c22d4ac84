"""Compile a design with Verilator for cocotb and run a test module on it.

    python -m edgeaccel.sim.cocotb_runner FOLDER [MODULE [+ARGUMENT ...]]

FOLDER holds `dut.v` with the module `dut`. MODULE is `sim.cocotb_streams` if not given, which takes `traffic.npz` from
FOLDER and leaves `results.npz` there; the arguments are what it finds in `cocotb.plusargs`. The exit status is 1 if one
of its tests fails.
"""

import importlib.metadata
import os
import shlex
import sys
from pathlib import Path

from cocotb_tools.runner import get_results, get_runner

from edgeaccel.sim.libpython import shared_libpython
from edgeaccel.verilated import LINT_WAIVERS, verilator_root

# Settings that the makefile fragment of the `verilator` package leaves empty.
MAKE_SETTINGS = (
    "CFG_CXXFLAGS_PCH_I=-include PYTHON3=python3 CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread "
    "OPT_FAST=-O0 OPT_GLOBAL=-O0 OBJCACHE=compile-once"
)
# Verilator's own C++, which is the same for all designs, is compiled once: the command tells the object.
COMPILE_ONCE = """#!/bin/sh
for source; do :; done
case "$source" in
  */verilated*.cpp) ;;
  *) exec "$@" ;;
esac
kept={folder}/$(echo "$*" | sha256sum | cut -c 1-16).o
object=$(basename "$source" .cpp).o
if [ ! -e "$kept" ]; then
  "$@" && cp "$object" "$kept.$$" && mv "$kept.$$" "$kept"
else
  cp "$kept" "$object"
fi
"""
# cocotb makes every signal public, so Verilator cannot split structs, and takes a field made from another for a loop.
WAIVERS = [*LINT_WAIVERS, "UNOPTFLAT"]


def main():
    folder = Path(sys.argv[1]).resolve()
    module = sys.argv[2] if len(sys.argv) > 2 else "edgeaccel.sim.cocotb_streams"
    os.environ["PATH"] = f"{_tools(folder)}{os.pathsep}{os.environ['PATH']}"
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


def _tools(folder):
    """A folder for PATH, with a `verilator` that is the binary itself: cocotb takes the first, and hands it to Perl."""
    objects = folder.parent / f"objects-{importlib.metadata.version('verilator')}"
    objects.mkdir(exist_ok=True)
    tools = folder / "bin"
    tools.mkdir()
    verilator = f'#!/usr/bin/env perl\nexec("{verilator_root()}/bin/verilator_bin", @ARGV);\n'
    for name, text in (
        ("verilator", verilator),
        ("compile-once", COMPILE_ONCE.format(folder=shlex.quote(str(objects)))),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return tools


if __name__ == "__main__":
    main()
