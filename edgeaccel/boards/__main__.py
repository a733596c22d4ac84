"""What Vivado needs to put a machine on a board, from the command line.

    python -m edgeaccel.elaborate --preset vcu128 --out machine
    python -m edgeaccel.boards --board vcu128 --preset vcu128 --out machine

The first writes the machine's Verilog, the second, within seconds, all that goes round it.
"""

import argparse
import json
import sys
from pathlib import Path

from edgeaccel.boards import BOARDS, MemoryMap, check_fit
from edgeaccel.boards.files import board_files
from edgeaccel.boards.page import describe_board
from edgeaccel.elaborate import build_machine, describe_machine
from edgeaccel.machine import MACHINES
from edgeaccel.soc.soc import SoC

__all__ = ["main"]

_EXAMPLES = """\
examples:
  python -m edgeaccel.boards --board vcu128 --preset vcu128 --out machine
  python -m edgeaccel.boards --board vcu1525 --preset vu9p --out machine
  python -m edgeaccel.boards --board vcu118 --preset vu9p --set groups=2 --set port_bytes=1073741824 --out machine
  python -m edgeaccel.boards --board vcu118 --preset tiny --json

The machine's Verilog comes from `python -m edgeaccel.elaborate`: the same preset and settings, the same folder.
exit status: 0, or 2 if the machine does not fit on the board, or something else asked for is not possible
"""


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.boards",
        description="Write what Vivado needs to put a machine on a board: IP packaging, block design, constraints,"
        " memory map. A machine that does not fit is refused.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--board", required=True, choices=list(BOARDS), help="the board")
    parser.add_argument("--preset", required=True, metavar="NAME", help=f"the machine: {', '.join(MACHINES)}")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="set a size of the machine")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the files; made if it is not there")
    parser.add_argument("--json", action="store_true", help="print the memory map and the rest of board.json")
    options = parser.parse_args(arguments)
    if options.out is None and not options.json:
        parser.error("there is nothing to do without --out DIR or --json")
    try:
        board, machine = BOARDS[options.board], build_machine(options.preset, options.set)
        check_fit(board, machine)  # before the machine is built, which takes seconds
        description = describe_machine(SoC(machine), options.preset)
        if options.out is not None:
            elaborated = options.out / f"{description['module']}.json"
            _check_same(elaborated, description)
            files = board_files(board, machine, description)
            options.out.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (options.out / name).write_text(text, encoding="utf-8")
            print(f"wrote {', '.join(files)} to {options.out}", file=sys.stderr)
            if not elaborated.exists():
                same = " ".join([f"--preset {options.preset}", *(f"--set {text}" for text in options.set)])
                print(
                    f"the machine's Verilog is still missing: python -m edgeaccel.elaborate {same} --out {options.out}",
                    file=sys.stderr,
                )
        if options.json:
            print(json.dumps(describe_board(description, MemoryMap(board=board, machine=machine)), indent=2))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _check_same(path, description):
    """A machine that has been elaborated into the folder must be this one."""
    if not path.exists():
        return
    try:
        elaborated = json.loads(path.read_text(encoding="utf-8"))
        parts = [(elaborated[part], json.loads(json.dumps(description[part]))) for part in ("machine", "config")]
        others = [f"{name}={was[name]!r}" for was, now in parts for name in now if was[name] != now[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no description of a machine: elaborate it again") from error
    if others:
        raise ValueError(
            f"{path} is of another machine, with {', '.join(others)}: elaborate it again with the same settings, or"
            " choose another folder"
        )


if __name__ == "__main__":
    sys.exit(main())
