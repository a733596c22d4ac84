"""MXFP4 weights from end to end: an image of them runs on the emitted Verilog with the bytes of the golden machine."""

import os
from dataclasses import replace

import numpy as np
import pytest
from test_golden_machine import SHAPES
from test_reference import random_checkpoint

from edgeaccel.compiler import compile_model
from edgeaccel.machine import machine
from edgeaccel.runtime.check import CheckedDevice
from edgeaccel.runtime.device import StopReason
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.rtl import RtlDevice

# The smallest that has all: what takes the time is the build.
MACHINE = machine("tiny", changes={"groups": 1, "rows": 1, "formats": ("int8", "int16", "mxfp4")})


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def rtl():
    device = RtlDevice(MACHINE, data_bytes=1 << 24, checks=True)
    yield device
    device.close()


@pytest.mark.slow  # a build of its own
@pytest.mark.parametrize(
    ("name", "formats"),
    [("llama", {"weights": "mxfp4"}), ("qwen2", {"weights": "mxfp4", "classifier": "int8", "formats": {"k": "int16"}})],
)
def test_same_bytes(name, formats, rtl, rng):
    """After every token, then in all of memory: sizes that end in the first and in the second block of a tile."""
    checkpoint = random_checkpoint(replace(SHAPES[name], eos=(), bos=None), rng)
    image = compile_model(checkpoint, MACHINE, cache="int16", **formats)
    device = CheckedDevice(rtl, GoldenDevice(MACHINE))
    device.load(image)
    device.write_tokens(0, rng.integers(0, 300, 5).tolist())
    stop = device.run(0, 5, 10)
    assert (stop.reason, stop.position) == (StopReason.LIMIT, 10), stop.message
    assert device.tokens == 6
    device.compare_all()
