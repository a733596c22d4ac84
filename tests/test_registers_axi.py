"""The registers' Verilog against the public `cocotbext-axi` master: `sim.cocotb_registers`, one build at a time."""

import json
import subprocess
import sys
import tempfile

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from edgeaccel.machine import machine
from edgeaccel.sim.bench import BUILD, ROOT
from edgeaccel.soc.registers import Registers
from edgeaccel.soc.tokens import TokenMemory, token_port
from edgeaccel.verilog import emit

pytestmark = pytest.mark.slow

COUNTERS = ("words0", "starved0", "waits")


class RegistersAndTokens(wiring.Component):
    """Registers with the memory that their window of tokens shows, whose other port is free."""

    def __init__(self, machine):
        self._registers, self._tokens = Registers(machine, COUNTERS), TokenMemory(machine)
        members = dict(self._registers.signature.members)
        del members["tokens"]
        super().__init__(members | {"sequencer": In(token_port(machine))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers, m.submodules.tokens = registers, tokens = self._registers, self._tokens
        connect(m, registers.tokens, tokens.host)
        connect(m, flipped(self.sequencer), tokens.sequencer)
        connect(m, flipped(self.s_axil), registers.s_axil)
        for name, member in registers.signature.members.items():
            if member.is_port:
                inner, outer = getattr(registers, name), getattr(self, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


@pytest.mark.parametrize("positions", [64, 2048])
def test_cocotb(positions):
    seed = 600 + positions
    print(f"seed {seed}")
    sizes = {"name": "tiny", "positions": positions}
    (BUILD / "cocotb").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD / "cocotb", prefix="registers-") as folder:
        with open(f"{folder}/dut.v", "w") as file:
            file.write(emit(RegistersAndTokens(machine(**sizes)), "dut"))
        arguments = {"machine": sizes, "counters": list(COUNTERS), "seed": seed}
        command = [
            sys.executable,
            "-m",
            "edgeaccel.sim.cocotb_runner",
            folder,
            "edgeaccel.sim.cocotb_registers",
            *(f"+{name}={json.dumps(value, separators=(',', ':'))}" for name, value in arguments.items()),
        ]
        bench = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not bench.returncode, f"{bench.stdout[-6000:]}{bench.stderr[-3000:]}"
