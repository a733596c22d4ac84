"""The tile streamer's Verilog against the public `cocotbext-axi` memory: `sim.cocotb_streamer`, one build at a time."""

import json
import subprocess
import sys
import tempfile

import pytest

from edgeaccel.memory import TileStreamer
from edgeaccel.sim.bench import BUILD, ROOT
from edgeaccel.verilog import emit

pytestmark = pytest.mark.slow

PARAMETERS = {
    "buffer_words": 64,
    "burst_beats": 8,
    "outstanding": 5,
    "queue": 3,
    "formats": ["int4", "int8", "int16"],
    "memory_bytes": 1 << 16,
}


@pytest.mark.parametrize(
    ("data_width", "word_width", "port_domain"),
    [
        (128, 1024, "sync"),
        (128, 512, "sync"),
        (256, 512, "sync"),
        (256, 256, "sync"),
        (256, 128, "sync"),
        (512, 128, "sync"),
        (512, 64, "sync"),
        (128, 128, "hbm"),
        (256, 512, "hbm"),
        (512, 64, "hbm"),
    ],
)
def test_cocotb(data_width, word_width, port_domain):
    seed = 1000 * data_width + word_width
    print(f"seed {seed}")
    parameters = PARAMETERS | {"data_width": data_width, "word_width": word_width, "port_domain": port_domain}
    (BUILD / "cocotb").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD / "cocotb", prefix="streamer-") as folder:
        with open(f"{folder}/dut.v", "w") as file:
            file.write(emit(TileStreamer(**parameters), "dut"))
        arguments = [f"+parameters={json.dumps(parameters, separators=(',', ':'))}", f"+seed={seed}"]
        command = [
            sys.executable,
            "-m",
            "edgeaccel.sim.cocotb_runner",
            folder,
            "edgeaccel.sim.cocotb_streamer",
            *arguments,
        ]
        bench = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not bench.returncode, f"{bench.stdout[-6000:]}{bench.stderr[-3000:]}"
