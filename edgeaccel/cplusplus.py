"""C++ of Verilator's models, compiled into a shared library.

Every file of a model reads Verilator's headers, which takes longer than most files themselves, and every model needs
Verilator's own C++. Both are compiled once in a folder, for all models there.
"""

import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from edgeaccel.lock import locked

__all__ = ["ToolMissingError", "compile_shared", "key_of"]

_HEADERS = '#include "verilated.h"\n'
_ALONE_BYTES = 1_000_000  # larger files are compiled alone, beside others; smaller ones together, as one


class ToolMissingError(RuntimeError):
    """A program or package that simulation needs is not installed; the message says which and how to get it."""


def compile_shared(files, runtime, target, folder, *, flags):
    """Compile and link a shared library.

    Parameters
    ----------
    files : list of (path, str)
        C++ files of one folder, each with its optimisation, such as "-O1 -march=native"; objects go beside them.
    runtime : list of path
        Verilator's own C++.
    target : path
        The library.
    folder : path
        Where that stays which is the same for all models.
    flags : list of str
        For all files.

    Raises
    ------
    ToolMissingError
        If there is no compiler.
    RuntimeError
        If it refuses a file; the message is its own.
    """
    _version()
    units = _units(files)
    headers = {level: _headers(flags, level, folder) for level in {level for _, level in units}}

    def compiled(unit):
        path, level = unit
        return _compile(path, path.with_suffix(".o"), ["-include", headers[level], *flags, *level.split()])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        own = pool.map(lambda path: _runtime_object(path, flags, folder), runtime)
        objects = [*pool.map(compiled, units), *own]
    _gxx("-shared", "-pthread", "-o", target, *objects)


def key_of(*parts):
    """What the name of a made file ends with: other parts, another name."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _units(files):
    """What is compiled at a time, the longest first: each large file, and of each optimisation all small ones."""
    units, small = [], {}
    for path, level in files:
        if path.stat().st_size > _ALONE_BYTES:
            units.append((path, level))
        else:
            small.setdefault(level, []).append(path)
    for n, (level, paths) in enumerate(small.items()):
        together = paths[0].with_name(f"together{n}.cc")
        together.write_text("".join(f'#include "{path.name}"\n' for path in paths))
        units.append((together, level))
    return sorted(units, key=lambda unit: (unit[1] == "-O0", -unit[0].stat().st_size))


def _headers(flags, level, folder):
    """A header that has Verilator's compiled beside it, where a compiler looks for that.

    It was compiled with the very optimisation: g++ takes one with another, and ends with a fault.
    """
    path = folder / f"headers-{key_of(_version(), level, *flags)}.h"
    compiled = path.with_name(path.name + ".gch")
    with locked(compiled):
        if not compiled.exists():
            path.write_text(_HEADERS)
            draft = _compile(path, path.with_suffix(".draft"), [*flags, *level.split(), "-x", "c++-header"])
            draft.replace(compiled)
    return path


def _runtime_object(source, flags, folder):
    """Verilator's own C++, in which a simulation spends little."""
    target = folder / f"{source.stem}-{key_of(_version(), *flags)}.o"
    with locked(target):
        if not target.exists():
            _compile(source, target.with_suffix(".draft"), [*flags, "-O1"]).replace(target)
    return target


def _compile(source, target, flags):
    _gxx(*flags, "-c", source, "-o", target)
    return target


def _gxx(*arguments):
    run = subprocess.run([_compiler(), *map(str, arguments)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"g++ failed:\n{run.stderr}")


@functools.cache
def _version():
    """Which compiler and which Verilator: what was made with others does not fit."""
    compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True).stdout
    return compiler + importlib.metadata.version("verilator")


def _compiler():
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise ToolMissingError("no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++) or set CXX")
    return compiler
