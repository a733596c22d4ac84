"""A process that stands in for a board: files under the names of XDMA's devices, with a simulated machine behind them.

What stands where (``/dev/xdma0`` being the name that it is given):

- ``xdma0_h2c_0``, ``xdma0_c2h_0``: one file under two names, in which holes take no room; it is the machine's memory;
- ``xdma0_user``: a socket for accesses of registers, `edgeaccel.runtime.xdma.SocketRegisters`, since no process sees
  when another one touches a mapped file;
- ``xdma0_events_0``: a FIFO, into which 4 bytes go for each interrupt.

So `edgeaccel.runtime.board.Board` opens, locks, reads, writes and waits as with a real card. What is not the same:
registers are not mapped, a file takes any address and any buffer, and time passes as slowly as the simulation.
"""

import argparse
import contextlib
import mmap
import os
import select
import signal
import socket
import sys
from pathlib import Path

import numpy as np

from edgeaccel.runtime.xdma import ANSWER, REQUEST

__all__ = ["ENGINES", "NAMES", "Memory", "RtlMachine", "StandIn", "files", "main", "serve"]

EXAMPLES = """\
examples:
  mkdir -p /tmp/board && python -m edgeaccel.sim.board --device /tmp/board/xdma0 &
  python -m edgeaccel.run --engine board --device /tmp/board/xdma0

exit status: 0 when it is told to end (SIGINT, SIGTERM); 2 for bad input; 3 if a tool is missing.
"""
DATA_BYTES = 1 << 30
NAMES = ("h2c_0", "c2h_0", "user", "events_0")
_SLICE_CYCLES = 2048  # of a simulation, between two looks at what the host wants
_QUIET_STEPS = 2  # that a machine goes on after a write, without being busy
_PATIENCE_SECONDS = 0.0005  # for the host's next access, before time goes on


class Memory:
    """A machine's memory in a file that is as large, and takes room where it was written.

    Members
    -------
    bytes : uint8 array
        Shared with all who have the file open.
    """

    def __init__(self, path, n_bytes):
        with open(path, "x+b") as file:
            file.truncate(n_bytes)
            self._map = mmap.mmap(file.fileno(), n_bytes)
        self.bytes = np.frombuffer(self._map, np.uint8)


class RtlMachine:
    """The Verilog of a machine, compiled, behind its registers and its interrupt.

    Parameters
    ----------
    machine : Machine
    memory : uint8 array
        By global address.
    settings : dict
        Of `edgeaccel.runtime.rtl.RtlDevice`.

    Members
    -------
    registers : RegisterMap
    """

    def __init__(self, machine, memory, **settings):
        from edgeaccel.runtime.rtl import RtlDevice

        self._device = RtlDevice(machine, content=memory, **settings)
        self.registers, self._simulation = self._device.registers, self._device.simulation
        self.interrupt, self._left = False, 0
        self._simulation.reset()

    @property
    def is_busy(self):
        """Whether anything may happen while time passes."""
        return self._left > 0

    def read(self, offset):
        """The 32 bits of a register."""
        return self._simulation.read(offset)

    def write(self, offset, value):
        """Write the 32 bits of a register."""
        self._simulation.write(offset, value)
        self._left = _QUIET_STEPS
        self._look()

    def step(self):
        """Let some time pass."""
        self._simulation.run(_SLICE_CYCLES, until_interrupt=not self.interrupt)
        self._left = _QUIET_STEPS if self._device.read_value("busy") else self._left - 1
        self._look()

    def _look(self):
        self.interrupt = self._simulation.run(1) == "interrupt"


def _golden(machine, memory):
    from edgeaccel.sim.board_golden import GoldenBoard

    return GoldenBoard(machine, memory)


ENGINES = {"rtl": RtlMachine, "golden": _golden}


class StandIn:
    """Serves a machine as a board would.

    Parameters
    ----------
    machine : object
        As `RtlMachine` or `edgeaccel.sim.board_golden.GoldenBoard`: `read`, `write`, `step`, `is_busy`, `interrupt`.
    device : path
        What the names of the files begin with; `h2c_0` and `c2h_0` are there.
    """

    def __init__(self, machine, device):
        self.machine = machine
        events = f"{device}_events_0"
        os.mkfifo(events)
        self._events = os.open(events, os.O_RDWR | os.O_NONBLOCK)  # so that the host's open does not wait
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"{device}_user")
        self._server.listen()
        self._hosts, self._was_up = [], False

    def serve(self):
        """Answer what hosts want, and let time pass while the machine is busy."""
        while True:
            patience = _PATIENCE_SECONDS if self.machine.is_busy else None
            ready = select.select([self._server, *self._hosts], [], [], patience)[0]
            for connection in ready:
                if connection is self._server:
                    self._hosts.append(self._server.accept()[0])
                else:
                    self._answer(connection)
            if not ready:
                self.machine.step()
            self._raise_interrupt()

    def access(self, what, offset, value):
        """Do what a host wants of a register; the answer."""
        if what == b"R":
            return self.machine.read(offset)
        self.machine.write(offset, value)
        return 0

    def raise_event(self):
        """Tell the host of an interrupt."""
        with contextlib.suppress(BlockingIOError):  # nobody has taken thousands of them
            os.write(self._events, bytes([1, 0, 0, 0]))

    def _answer(self, connection):
        try:
            request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
        except OSError:
            request = b""
        if len(request) < REQUEST.size:
            self._hosts.remove(connection)
            connection.close()
            return
        answer = self.access(*REQUEST.unpack(request))
        self._raise_interrupt()  # before the host can see what it is about
        with contextlib.suppress(OSError):
            connection.sendall(ANSWER.pack(answer))

    def _raise_interrupt(self):
        if self.machine.interrupt and not self._was_up:
            self.raise_event()
        self._was_up = self.machine.interrupt


def main(arguments=None):
    """Run the command line; returns the exit status."""
    from edgeaccel.machine import MACHINES, machine
    from edgeaccel.verilated import ToolMissingError

    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.sim.board",
        description="Stand in for a board, for programs that use one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", metavar="PATH", type=Path, required=True, help="what the files' names begin with")
    parser.add_argument("--preset", choices=tuple(MACHINES), default="tiny", help="the machine (tiny by default)")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="rtl", help="what computes (rtl by default)")
    options = parser.parse_args(arguments)
    try:
        with files(options.device):
            serve(machine(options.preset), options.device, ENGINES[options.engine])
    except (ToolMissingError, ModuleNotFoundError) as error:
        print(f"error: {error}; pip install 'edgeaccel[sim]' brings what a simulation needs", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


@contextlib.contextmanager
def files(device):
    """Remove the files of a board in the end; SIGTERM is an end as well."""
    if there := [name for name in NAMES if Path(f"{device}_{name}").exists()]:
        raise FileExistsError(f"there is a {device}_{there[0]} already; remove it, or take another name")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for name in NAMES:
            Path(f"{device}_{name}").unlink(missing_ok=True)


def serve(machine, device, engine, stand_in=StandIn):
    """Make the files of a board, and serve them until a signal comes.

    Parameters
    ----------
    machine : Machine
    device : path
        What the names of the files begin with.
    engine : function of (Machine, uint8 array)
        What makes the machine that is served, as `ENGINES`.
    stand_in : type
    """
    memory = Memory(f"{device}_h2c_0", machine.data_base + DATA_BYTES)
    os.link(f"{device}_h2c_0", f"{device}_c2h_0")
    served = stand_in(engine(machine, memory.bytes), device)
    print(f"{device} is a board", flush=True)
    served.serve()


if __name__ == "__main__":
    sys.exit(main())
