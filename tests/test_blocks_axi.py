"""The block movers' Verilog against the public `cocotbext-axi` memory: `sim.cocotb_blocks`, one build at a time."""

import json
import subprocess
import sys
import tempfile

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from edgeaccel.memory.reader import BlockReader
from edgeaccel.memory.writer import BlockWriter
from edgeaccel.sim.bench import BUILD, ROOT
from edgeaccel.verilog import emit

pytestmark = pytest.mark.slow

PARAMETERS = {"buffer_beats": 24, "burst_beats": 8, "outstanding": 5, "queue": 3, "memory_bytes": 1 << 16}


class Movers(wiring.Component):
    """A reader and a writer of the same parameters."""

    def __init__(self, **parameters):
        self._parts = {"reader": BlockReader(**parameters), "writer": BlockWriter(**parameters)}
        super().__init__({name: Out(part.signature) for name, part in self._parts.items()})

    def elaborate(self, platform):
        m = Module()
        for name, part in self._parts.items():
            m.submodules[name] = part
            wiring.connect(m, wiring.flipped(getattr(self, name)), part)
        return m


@pytest.mark.parametrize(("data_width", "stream_bytes"), [(64, 32), (128, 16), (256, 8), (512, 64)])
def test_cocotb(data_width, stream_bytes):
    seed = 1000 * data_width + stream_bytes
    print(f"seed {seed}")
    parameters = PARAMETERS | {"data_width": data_width, "stream_bytes": stream_bytes}
    (BUILD / "cocotb").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD / "cocotb", prefix="blocks-") as folder:
        with open(f"{folder}/dut.v", "w") as file:
            file.write(emit(Movers(**parameters), "dut"))
        arguments = [f"+parameters={json.dumps(parameters, separators=(',', ':'))}", f"+seed={seed}"]
        command = [
            sys.executable,
            "-m",
            "edgeaccel.sim.cocotb_runner",
            folder,
            "edgeaccel.sim.cocotb_blocks",
            *arguments,
        ]
        bench = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not bench.returncode, f"{bench.stdout[-6000:]}{bench.stderr[-3000:]}"
