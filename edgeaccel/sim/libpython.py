"""The shared library of Python, which cocotb loads into the simulator.

Debian and Ubuntu put it into a package of its own, which a plain python3 lacks. Then it is taken from there: downloaded
with apt, which needs no root for that, and unpacked below the given folder.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from find_libpython import find_libpython

from edgeaccel.verilated import ToolMissingError

__all__ = ["shared_libpython"]


def shared_libpython(folder):
    """Path of the library, from this Python, from `folder`, or fetched into it.

    Raises
    ------
    ToolMissingError
        If there is none and apt cannot bring it; the message says what to install.
    """
    found = os.environ.get("LIBPYTHON_LOC") or find_libpython()
    if found:
        return Path(found)
    folder = Path(folder).resolve()
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    pattern = f"usr/lib/*/{package}.so.1.0"
    if not list(folder.glob(pattern)):
        _fetch(package, folder)
    libraries = list(folder.glob(pattern))
    if not libraries:
        raise ToolMissingError(
            f"cocotb needs the shared library of Python, which this Python lacks: install it (Debian, Ubuntu:"
            f" apt-get install {package}) or set LIBPYTHON_LOC to its path"
        )
    return libraries[0]


def _fetch(package, folder):
    """Download a Debian package and unpack it into a folder, with apt's own state in the folder too."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
    for command in ([*apt, "update"], [*apt, "download", package]):
        subprocess.run(command, cwd=state, capture_output=True)
    for archive in state.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", archive, folder], capture_output=True)
    shutil.rmtree(state)
