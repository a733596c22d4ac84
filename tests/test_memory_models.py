"""Memory models: a few bursts by hand, what was measured on real memories, and the same from all simulators."""

import ctypes
import subprocess
import sys
import tempfile
from dataclasses import replace

import cocotb
import numpy as np
import pytest
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from edgeaccel.memory import TileStreamer
from edgeaccel.sim.bench import BUILD, ROOT
from edgeaccel.sim.cocotb_memory import AxiMemory, pauses
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL, Access, MemoryModel
from edgeaccel.sim.system import Memory, build, run
from edgeaccel.verilog import emit

MODELS = (IDEAL, HBM2, DDR4_2400)
GB = 1e9
PARAMETERS = {"data_width": 256, "word_width": 512, "buffer_words": 256}


def stream(model, size, stride=None, extent=1 << 26):
    """The addresses of a benchmark: `size` bytes each `stride` bytes, starting anew after `extent` bytes."""
    stride = stride or size
    return [Access(0, address, size // model.beat_bytes) for address in range(0, extent, stride)]


def sustained(model, reads, *, n_refreshes=60):
    """Share of the cycles with a beat, over whole refresh intervals long after the start."""
    interval = model.refresh_interval or 2000
    window = n_refreshes * interval
    return model.deliverable(reads, 2 * interval, 2 * interval + window - 1) / window


def random_model(rng):
    """Any parameters at all, small enough that everything happens."""
    bits = rng.permutation(np.arange(4, 11))[: rng.integers(0, 6)].tolist()
    hit, activate, precharge = rng.integers(1, 12, 3).tolist()
    return MemoryModel(
        name="random",
        data_width=64,
        mhz=1,
        read_hit=hit,
        read_closed=hit + activate,
        read_miss=hit + activate + precharge,
        row_bit=11,
        bank_bits=tuple(bits),
        group_bits=tuple(bits[: rng.integers(0, len(bits) + 1)]),
        row_cycles=int(rng.integers(0, 30)),
        group_cycles=int(rng.integers(1, 4)),
        read_to_write=int(rng.integers(1, 10)),
        write_to_read=int(rng.integers(1, 10)),
        refresh_interval=int(rng.choice([0, 150, 400])),
        refresh_cycles=int(rng.integers(0, 40)),
        outstanding=int(rng.integers(1, 9)),
        in_order=bool(rng.integers(2)),
    )


def random_accesses(rng, model, n, *, writes=0.4, idle=6):
    """Bursts near to each other and far, close upon each other and long after."""
    cycle, address, accesses = 0, 0, []
    for _ in range(n):
        cycle += int(rng.choice([0, rng.integers(idle), rng.integers(40 * idle)], p=[0.5, 0.45, 0.05]))
        address = int(rng.choice([address, address ^ 1 << int(rng.integers(14)), rng.integers(1 << 16)]))
        accesses.append(Access(cycle, address, int(rng.integers(1, 17)), bool(rng.random() < writes)))
    return accesses


@pytest.mark.parametrize("model", [HBM2, DDR4_2400, IDEAL.with_latency(7)], ids=lambda model: model.name)
def test_idle_latencies(model):
    later = 500
    accesses = [Access(10, 0, 1), Access(10 + later, 0, 1), Access(10 + 2 * later, 1 << model.row_bit, 1)]
    latencies = [cycles[0] - access.cycle for cycles, access in zip(model.timing(accesses), accesses, strict=True)]
    assert latencies == [model.read_closed, model.read_hit, model.read_miss]


def test_geometry():
    assert (HBM2.banks, HBM2.page_bytes, HBM2.peak) == (16, 1024, 14.4 * GB)
    assert (DDR4_2400.banks, DDR4_2400.page_bytes, DDR4_2400.peak) == (16, 8192, 19.2 * GB)
    # 48, 55 and 62 cycles; 22, 27 and 32: Shuhai gives them in nanoseconds, too.
    measured = {HBM2: (106.7, 122.2, 137.8), DDR4_2400: (73.3, 89.9, 106.6)}
    for model, times in measured.items():
        cycles = np.array([model.read_hit, model.read_closed, model.read_miss])
        np.testing.assert_allclose(1000 * cycles / model.mhz, times, atol=0.2)


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
def test_sequential_reads(size):
    shares = {model.name: sustained(model, stream(model, size)) for model in MODELS}
    assert shares["ideal"] == 1
    assert 0.90 <= shares["hbm2"] <= 0.94
    assert shares["hbm2"] * HBM2.peak == pytest.approx(13.27 * GB, rel=0.01)
    assert shares["ddr4-2400"] * DDR4_2400.peak == pytest.approx(18.0 * GB, rel=0.02)


@pytest.mark.parametrize(("extent", "measured"), [(8 << 10, 6.7), (256 << 20, 2.4)])
def test_strided_reads_as_measured(extent, measured):
    """Shuhai, figure 7: a beat each 4 KiB, in two rows of one bank group, and all over four banks."""
    share = sustained(HBM2, stream(HBM2, 32, 4096, extent))
    assert share * HBM2.peak == pytest.approx(measured * GB, rel=0.02)


def test_refresh():
    first, last = 3 * HBM2.refresh_interval, 3 * HBM2.refresh_interval + HBM2.refresh_cycles
    reads = [Access(5000, 512 * n, 16) for n in range(40)]
    cycles = np.concatenate(HBM2.timing(reads)) - HBM2.read_hit
    assert np.any(cycles == first - 1)
    assert not np.any((cycles >= first) & (cycles < last + HBM2.read_closed - HBM2.read_hit))
    assert np.any(cycles == last + HBM2.read_closed - HBM2.read_hit)
    moved = np.concatenate(HBM2.timing(reads, first_refresh=100)) - HBM2.read_hit
    assert np.any(cycles != moved)


def test_turning():
    reads = [Access(0, 0, 1), Access(0, 32, 1, True), Access(0, 0, 1)]
    first, second, third = (cycles[0] for cycles in HBM2.timing(reads))
    assert (second - first, third - second) == (HBM2.read_to_write, HBM2.write_to_read)


def test_timing_is_causal_and_exclusive():
    for seed in range(20):
        print(f"seed {seed}")
        rng = np.random.default_rng(seed)
        model = random_model(rng)
        accesses = random_accesses(rng, model, 200)
        timing = model.timing(accesses)
        assert np.all(np.diff(np.concatenate(timing)) > 0)
        assert all(cycles[0] >= access.cycle + model.read_hit for cycles, access in zip(timing, accesses, strict=True))
        # Asked earlier, nothing comes later.
        early = [access._replace(cycle=access.cycle // 2) for access in accesses]
        for before, after in zip(model.timing(early), timing, strict=True):
            assert np.all(before <= after)


def to_rows(accesses):
    """Accesses as the C++ takes them."""
    return np.array([(a.cycle, a.address, a.beats, a.write) for a in accesses], np.uint64)


@pytest.fixture(scope="module")
def library():
    library = build(TileStreamer(**PARAMETERS))
    library.deliverable_beats.restype = ctypes.c_uint64
    return library


def test_cpp_is_the_same(library):
    for seed in range(60):
        print(f"seed {seed}")
        rng = np.random.default_rng(seed)
        model = (*MODELS, random_model(rng))[min(seed, 3)]
        first_refresh = int(rng.integers(1, 300)) if seed % 2 else model.refresh_interval
        accesses = random_accesses(rng, model, 400)
        expected = np.concatenate(model.timing(accesses, first_refresh=first_refresh))
        rows, cycles = to_rows(accesses), np.zeros(len(expected), np.int64)
        common = ctypes.byref(model.to_c()), ctypes.c_int64(first_refresh), ctypes.c_void_p(rows.ctypes.data)
        library.serve(*common, ctypes.c_uint64(len(rows)), ctypes.c_void_p(cycles.ctypes.data))
        np.testing.assert_array_equal(cycles, expected)
        first, last = int(rng.integers(200)), int(rng.integers(200, 3000))
        window = ctypes.c_int64(first), ctypes.c_int64(last)
        count = library.deliverable_beats(*common, ctypes.c_uint64(len(rows)), *window)
        assert count == model.deliverable(accesses, first, last, first_refresh=first_refresh)


def test_deliverable():
    for seed in range(20):
        print(f"seed {seed}")
        rng = np.random.default_rng(seed)
        model = replace((HBM2, DDR4_2400, random_model(rng))[min(seed, 2)], outstanding=150)
        reads = random_accesses(rng, model, 150, writes=0)
        delivered = np.concatenate(model.timing(reads))
        assert model.deliverable(reads, delivered[0], delivered[-1]) >= len(delivered)
        always = [read._replace(cycle=n) for n, read in enumerate(reads)]
        delivered = np.concatenate(model.timing(always))
        assert model.deliverable(always, delivered[0], delivered[-1]) == len(delivered)


def test_deliverable_of_a_lazy_reader():
    lazy = [Access(1000, 0, 1), Access(1099, 32, 1)]
    assert IDEAL.deliverable(lazy, 1020, 1119) == 100
    assert IDEAL.deliverable(lazy, 1020, 1020) == 1
    assert IDEAL.deliverable(lazy, 1000, 1019) == 0
    # One at a time: a beat each 20 cycles of latency and one to ask again.
    assert replace(IDEAL, outstanding=1).deliverable(lazy, 1020, 1119) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"read_hit": 0}, r"read_hit, read_closed and read_miss must ascend from 1 on, not \(0, 55, 62\)"),
        ({"read_closed": 63}, "must ascend from 1 on"),
        ({"group_bits": (6,)}, "bank_bits must be at most 8 and contain group_bits"),
        ({"bank_bits": tuple(range(9)), "group_bits": ()}, "bank_bits must be at most 8"),
        ({"row_bit": 13}, "bank_bits must be below row_bit 13"),
        ({"group_cycles": 0}, "group_cycles must be at least 1, not 0"),
        ({"outstanding": 0}, "outstanding must be at least 1, not 0"),
        ({"refresh_interval": 208}, "refresh_interval must be 0 or above 208, not 208"),
    ],
)
def test_bad_parameters(change, message):
    with pytest.raises(ValueError, match=message):
        replace(HBM2, **change)


COCOTB_WORDS = 1500


COMMAND = {"address": 0x1C0, "words": COCOTB_WORDS, "format": 0, "wait": 0, "event": 0}


def content():
    return np.random.default_rng(7).integers(0, 256, 1 << 17, dtype=np.uint8)


@cocotb.test()
async def read_in_cocotb(dut):
    Clock(dut.clk, 2222, "ps").start()
    for pin in (dut.i_commands__valid, dut.o_words__ready, dut.events, dut.clear):
        pin.value = 0
    dut.rst.value = 1
    memory = AxiMemory(dut, "m_axi", dut.clk, dut.rst, model=HBM2, content=bytearray(content().tobytes()), write=False)
    for _ in range(8):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    layout = TileStreamer(**PARAMETERS).widths.commands
    dut.i_commands__payload.value = layout.const(COMMAND).as_bits()
    dut.i_commands__valid.value = 1
    dut.o_words__ready.value = 1
    words = []
    while len(words) < COCOTB_WORDS:
        await RisingEdge(dut.clk)
        if dut.i_commands__valid.value and dut.i_commands__ready.value:
            dut.i_commands__valid.value = 0
        if dut.o_words__valid.value:
            words.append(dut.o_words__payload.value.to_unsigned().to_bytes(64, "little"))
    np.savez(cocotb.plusargs["results"], words=np.frombuffer(b"".join(words), np.uint8), beats=memory.beats)


def test_cocotb_is_nearly_the_same():
    component = TileStreamer(**PARAMETERS)
    memories = {"m_axi": Memory(model=HBM2, content=content())}
    streams = {"i_commands": {name: np.array([value]) for name, value in COMMAND.items()}}
    compiled = run(component, streams=streams, n_results=COCOTB_WORDS, memories=memories, record=True)
    (BUILD / "cocotb").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD / "cocotb", prefix="memory-") as folder:
        with open(f"{folder}/dut.v", "w") as file:
            file.write(emit(component, "dut"))
        command = [sys.executable, "-m", "edgeaccel.sim.cocotb_runner", folder, "tests.test_memory_models"]
        bench = subprocess.run([*command, f"+results={folder}/results.npz"], cwd=ROOT, capture_output=True, text=True)
        assert not bench.returncode, f"{bench.stdout[-6000:]}{bench.stderr[-3000:]}"
        with np.load(f"{folder}/results.npz") as results:
            words, beats = results["words"], results["beats"]
    start = COMMAND["address"]
    np.testing.assert_array_equal(words, content()[start : start + len(words)])
    expected = compiled.ports["m_axi"].reads.cycles
    assert len(expected) == len(beats) == 2 * COCOTB_WORDS
    differences = beats - expected
    print(f"cocotb is {differences.min()} to {differences.max()} cycles later")
    assert differences.min() >= 0
    assert differences.max() <= 4


def test_pauses():
    assert list(pauses([True, False, True])) == [False, True, False, False]
