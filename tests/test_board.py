"""A board as a device: its driver's files, played by a process that stands in for it, and all that can go wrong."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_device import MACHINE, Stand, made_image
from test_reference import LLAMA, random_checkpoint

from edgeaccel.checkpoint import Rope
from edgeaccel.checkpoint.tokenizer import Tokenizer
from edgeaccel.compiler import compile_model
from edgeaccel.machine import machine
from edgeaccel.run import main
from edgeaccel.runtime import Batch, Device, DeviceError, GoldenDevice, Sampler, StopReason, generate, xdma
from edgeaccel.runtime.board import Board, BoardError, LostBoardError
from edgeaccel.runtime.check import compare_all
from edgeaccel.runtime.xdma import Channels
from edgeaccel.sim.board import NAMES
from edgeaccel.sim.board import main as stand_in_main
from edgeaccel.soc.register_map import counter_names, register_map

TINY = machine("tiny")
MAP = register_map(TINY, counter_names(TINY))
SHAPE = replace(
    LLAMA,
    dim=32,
    hidden_dim=64,
    n_layers=1,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    vocab_size=300,
    max_positions=48,
    rope=Rope(rotated=8),
    bos=1,
    eos=(),
)
PIECES = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), b" "]
PIECES += [bytes([97 + n // 26, 97 + n % 26]) for n in range(300 - len(PIECES))]
PROMPT = [7, 8, 9]
N_TOKENS = 5


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def image():
    checkpoint = random_checkpoint(SHAPE, np.random.default_rng(4))
    return compile_model(checkpoint, TINY, tokenizer=Tokenizer(PIECES, [0.0] * len(PIECES)))


@pytest.fixture(scope="module")
def golden(image):
    """The golden machine behind its tokens."""
    device = GoldenDevice(TINY)
    device.load(image)
    device.tokens = generate(device, image, PROMPT, N_TOKENS).tokens
    return device


@contextlib.contextmanager
def started(device, *command):
    """A Python process that plays a board; it is ended in the end."""
    root = Path(__file__).parent.parent
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *map(str, command)]
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment) as process:
        try:
            assert process.stdout.readline() == f"{device} is a board\n"
            yield process
        finally:
            process.terminate()


@contextlib.contextmanager
def stand_in(folder, fault="none", *, position=0, preset="tiny", engine="golden"):
    """A process that stands in for a board; its device."""
    device, script = folder / "xdma0", Path(__file__).with_name("faulty_board.py")
    with started(device, script, device, preset, engine, fault, position):
        yield device


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """One process for all tests that leave it well."""
    with stand_in(tmp_path_factory.mktemp("board")) as device:
        yield device


@pytest.fixture
def board(device):
    with Board(TINY, device) as board:
        yield board


def follow(board, image, **settings):
    """What comes of the prompt, with all tokens as they came."""
    came = []
    done = generate(board, image, PROMPT, N_TOKENS, on_token=came.append, **settings)
    assert came == done.tokens
    return done


def test_tells_what_the_golden_machine_tells(board, image, golden, rng):
    """In a memory that holds anything at first; bytes and all."""
    for name in ("layers.0.cache", "layers.0.cache.scales", "logits"):
        address, size = image.manifest["regions"][name]
        for port in range(TINY.config.groups if address < TINY.port_bytes else 1):
            board.write(address + port * TINY.port_bytes, rng.integers(0, 256, size, np.uint8))
    assert isinstance(board, Device)
    told = []
    board.progress = lambda done, total: told.append((done, total))
    board.load(image)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1] > image.n_bytes
    done = follow(board, image)
    assert done.tokens == golden.tokens
    assert (done.stop.reason, done.stop.position) == (StopReason.LIMIT, len(PROMPT) + N_TOKENS - 1)
    assert board.read_tokens(0, 8) == PROMPT + golden.tokens
    assert compare_all(image, board, golden) is None
    counted = board.counters()
    assert counted["cycles"] == done.stop.cycles > 0
    assert {"words0", "starved1", "attention"} <= counted.keys()
    address = image.manifest["regions"]["layers.0.cache"][0]
    board.write(address, board.read(address, 1) ^ np.uint8(1))
    assert compare_all(image, board, golden) is not None  # it would have been seen


def test_sampled_and_polled(device, image, golden):
    """The host draws tokens; and without interrupts."""
    for event in (0, None):
        with Board(TINY, device, event=event) as board:
            board.load(image)
            assert follow(board, image).tokens == golden.tokens
            assert generate(board, image, PROMPT, 3, Sampler(temperature=0)).tokens == golden.tokens[:3]


def test_stops_in_a_token_and_starts_again(board, image, golden):
    board.load(image)
    for looks in (1, 3, 20):
        stop = stopped(board, looks)
        assert stop.reason is StopReason.STOPPED
        assert stop.position < 40
    seen = []
    done = generate(board, image, PROMPT, N_TOKENS, on_token=lambda token: seen.append(token) or len(seen) == 2)
    assert done.stop.reason is StopReason.STOPPED
    assert seen[:2] == golden.tokens[:2]
    assert follow(board, image).tokens == golden.tokens


def stopped(board, looks):
    """How a run ends that is told to stop after so many looks at it."""
    board.write_tokens(0, PROMPT)
    wait, left = board.channels.wait, iter(range(looks))

    def counted(seconds):
        if next(left, None) is None:
            board.stop()
        return wait(seconds)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(board.channels, "wait", counted)
        return board.run(0, 3, 40, on_batch=lambda batch: None)


def test_goes_on_behind_what_failed(board, device, image, golden):
    """Behind an exception of the host's, and a host that is gone without a word."""
    board.load(image)

    def fail(token):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        generate(board, image, PROMPT, N_TOKENS, on_token=fail)
    assert board.read_value("busy") == 0
    assert follow(board, image).tokens == golden.tokens
    board._start(0, 3, 40)
    board.close()
    with Board(TINY, device) as other:
        assert other.read_value("busy") == 0
        other.load(image)
        assert follow(other, image).tokens == golden.tokens


def test_errors_have_names(board, image, golden):
    board.load(image)
    board._image = replace(image, program_address=1 << 40)
    with pytest.raises(
        DeviceError, match=r"error program.response .*, address 0x10000000000; at instruction 0"
    ) as caught:
        generate(board, image, PROMPT, 1)
    assert (caught.value.stop.code, caught.value.stop.address) == ("program.response", 1 << 40)
    board._image = image
    assert follow(board, image).tokens == golden.tokens


def test_bad_input(board, image):
    with pytest.raises(ValueError, match="no image is loaded"):
        board.run(0, 3, 4)
    board.load(image)
    for call, message in (
        (lambda: board.load(replace(image, machine=machine("vcu128"))), "for another machine"),
        (lambda: board.run(2, 2, 3), "position must be below"),
        (lambda: board.write_tokens(TINY.positions, [1]), "are outside of the 2048"),
        (lambda: board.read(-1, 1), "there is no memory at -0x1"),
        (lambda: Board(TINY, register_base=2), "register_base must be a multiple of 4, not 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_one_at_a_time(board, device):
    with pytest.raises(BoardError, match=r"another process holds the board; wait until it has ended \(fuser"):
        Board(TINY, device)
    board.close()
    Board(TINY, device).close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exit", "the process that stands in for the board has ended"),
        ("ones", "all registers read as ones: the card has fallen off the bus, or its bitstream was replaced"),
    ],
)
def test_lost_in_a_token(tmp_path, image, golden, fault, message):
    with stand_in(tmp_path, fault, position=5) as device, Board(TINY, device) as board:
        board.load(image)
        came = []
        with pytest.raises(DeviceError, match=message) as caught:
            generate(board, image, PROMPT, N_TOKENS, on_token=came.append)
        assert caught.value.stop.code == "lost"
        assert len(came) < N_TOKENS
        assert came == golden.tokens[: len(came)]
        assert board.counters()["cycles"] == 0
        with pytest.raises(LostBoardError):
            board.load(image)


def test_an_interrupt_that_never_comes(tmp_path, image, golden):
    with stand_in(tmp_path, "silent") as device, Board(TINY, device) as board:
        board.load(image)
        with pytest.warns(RuntimeWarning, match="its interrupt has not come; going on without. Is `irq` wired"):
            assert follow(board, image).tokens == golden.tokens
        assert follow(board, image).tokens == golden.tokens  # and says it once


def test_an_interrupt_that_comes_twice(tmp_path, image, golden):
    """The second one is not taken for that of the next run, which has none."""
    with stand_in(tmp_path, "twice") as device, Board(TINY, device) as board:
        board.load(image)
        assert generate(board, image, PROMPT, 1).stop.reason is StopReason.LIMIT
        with pytest.warns(RuntimeWarning, match="its interrupt has not come"):
            assert follow(board, image).tokens == golden.tokens


def test_batches_between_two_looks(tmp_path):
    """Those of given tokens are told as one, and all others one by one."""

    def at(position):
        def change(window):
            window[MAP["at_position"].offset // 4] = position
            window[MAP.tokens_offset // 4 :] = np.arange(TINY.positions) + 100

        return change

    last = TINY.positions
    for number, (first, prompt, position, batches) in enumerate(
        [
            (0, 5, 0, []),
            (0, 5, 4, [(0, 4, None)]),
            (2, 5, 5, [(2, 3, 105)]),
            (2, 5, 7, [(2, 3, 105), (5, 1, 106), (6, 1, 107)]),
            (5, 5, 7, [(5, 1, 106), (6, 1, 107)]),
            (7, 5, 7, []),
            (last - 2, 5, last, [(last - 2, 1, 99 + last), (last - 1, 1, None)]),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        with Board(TINY, plain_board(tmp_path / str(number), at(position))) as board:
            told = []
            assert board._report(first, prompt, told.append) == max(first, position)
            assert told == [Batch(*batch) for batch in batches]


def test_a_machine_that_makes_no_progress(tmp_path, image):
    with stand_in(tmp_path, "stuck") as device, Board(TINY, device, hang_seconds=0.3) as board:
        board.load(image)
        with pytest.raises(DeviceError, match=r"the machine is running at .*no progress for 0.3 s, though it counts"):
            generate(board, image, PROMPT, 1)
        with pytest.raises(BoardError, match=r"is still busy 2.0 s after it was cleared"):
            board.reset()


def test_another_machine(tmp_path, image):
    """It is refused before anything is written."""
    message = r"another machine than the image's: .*groups is 32, not 2, lanes is 128"
    with stand_in(tmp_path, preset="vcu128") as device:
        with pytest.raises(BoardError, match=message):
            Board(TINY, device)
        assert Path(f"{device}_h2c_0").stat().st_blocks == 0


def plain_board(folder, change=None):
    """Files of a board at rest, all of them plain, registers mapped."""
    device = folder / "xdma0"
    window = np.zeros((MAP.tokens_offset + MAP.tokens_bytes) // 4, "<u4")
    for register in MAP.registers:
        window[register.offset // 4] = register.value
    if change is not None:
        change(window)
    Path(f"{device}_user").write_bytes(window.tobytes())
    with open(f"{device}_h2c_0", "wb") as file:
        file.truncate(TINY.data_base + (1 << 26))
    os.link(f"{device}_h2c_0", f"{device}_c2h_0")
    os.mkfifo(f"{device}_events_0")
    return device


def test_mapped_registers(tmp_path, image):
    """What registers read as, where it does not matter that nothing happens behind them."""
    device = plain_board(tmp_path)
    with Board(TINY, device) as board:
        board.load(image)
        board.write_tokens(4, [1, 2, 3])
        assert board.read_tokens(4, 3) == [1, 2, 3]
        board.write_value("program_address", 0x123456789A)
        assert board.read_value("program_address") == 0x123456789A
        held = np.frombuffer(Path(f"{device}_user").read_bytes(), "<u4")
        low = MAP["program_address_low"].offset // 4
        assert held[low : low + 2].tolist() == [0x3456789A, 0x12]
        assert held[MAP.tokens_offset // 4 :][3:8].tolist() == [0, 1, 2, 3, 0]
        for address, data in image.segments:
            np.testing.assert_array_equal(board.read(address, len(data)), data)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda window: window.fill(0xFFFFFFFF), LostBoardError, "all registers read as ones"),
        (lambda window: window.fill(0), BoardError, "no machine of ours: register magic reads 0x0, not 0x45474445"),
        (lambda window: window.__setitem__(1, 7), BoardError, "another map of registers: register version reads 0x7"),
        (lambda window: window.__setitem__(2, 7), BoardError, "n_counters is 7, not 9; compile the model"),
    ],
)
def test_what_it_says_of_itself(tmp_path, change, kind, message):
    device = plain_board(tmp_path, change)
    with pytest.raises(kind, match=message):
        Board(TINY, device)
    assert Path(f"{device}_h2c_0").stat().st_blocks == 0


def test_where_registers_and_memory_begin(tmp_path, image):
    device = plain_board(tmp_path)
    window = Path(f"{device}_user")
    window.write_bytes(bytes(4100) + window.read_bytes() + bytes(4092))
    with Board(TINY, device, register_base=4100, memory_base=1 << 20) as board:
        board.load(image)
        address, data = image.segments[0]
        board.write_tokens(0, [99])
    with open(f"{device}_c2h_0", "rb") as file:
        file.seek((1 << 20) + address)
        assert file.read(len(data)) == np.asarray(data).tobytes()
    assert np.frombuffer(window.read_bytes(), "<u4")[1025 + MAP.tokens_offset // 4] == 99
    with pytest.raises(BoardError, match=r"registers at 0x100000 to .* cannot be mapped"):
        Board(TINY, device, register_base=1 << 20)


def test_memory_that_is_not_there(tmp_path, image):
    """Addresses that wrap: what is written last is found where something else was written."""
    with Board(TINY, plain_board(tmp_path)) as board:
        write, read = board.channels.write, board.channels.read
        board.channels.write = lambda address, data: write(address % (1 << 24), data)
        board.channels.read = lambda address, n_bytes: read(address % (1 << 24), n_bytes)
        with pytest.raises(
            BoardError, match=r"of the machine, 0x\w+ of the card, holds 0x\w\w where 0x\w\w was written"
        ):
            board.load(image)
        with pytest.raises(ValueError, match="no image is loaded"):
            board.run(0, 1, 1)
    os.truncate(f"{board.channels.device}_h2c_0", 1000)
    message = "reading 100 bytes at the card's address 0x3e8 failed: there is nothing"
    with Board(TINY, board.channels.device) as board, pytest.raises(BoardError, match=message):
        board.read(1000, 100)


@pytest.mark.parametrize("piece", [xdma.PIECE_BYTES, 8192])
def test_transfers(tmp_path, monkeypatch, rng, piece):
    """Any place and length, in parts that are aligned as the card's addresses are, and not all of which go at once."""
    monkeypatch.setattr(xdma, "PIECE_BYTES", piece)
    seen, pwrite = [], os.pwrite

    def some(descriptor, data, address):
        seen.append((np.frombuffer(data, np.uint8).ctypes.data % 4096, address % 4096))
        return pwrite(descriptor, data[:5000], address)

    monkeypatch.setattr(os, "pwrite", some)
    device = plain_board(tmp_path)
    expected = np.zeros(1 << 17, np.uint8)
    channels = Channels(device, register_bytes=4096)
    for size in (0, 1, 4095, 4096, 4097, 8192, 12288, 12289, *rng.integers(1, 1 << 16, 20)):
        address, data = int(rng.integers(0, 1 << 16)), rng.integers(0, 256, size, np.uint8)
        channels.write(address, data)
        expected[address : address + size] = data
        np.testing.assert_array_equal(channels.read(address, int(size)), data)
    np.testing.assert_array_equal(channels.read(0, len(expected)), expected)
    channels.close()
    assert all(buffer == card for buffer, card in seen)

    def fail(descriptor, data, address):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", fail)
    channels = Channels(device, register_bytes=4096)
    with pytest.raises(
        BoardError, match=r"writing 3 bytes at the card's address 0x10 failed: Input/output error; is there"
    ):
        channels.write(16, np.zeros(3, np.uint8))
    channels.close()


def test_no_board(tmp_path, monkeypatch, capsys):
    """What the messages say to do."""
    driver = tmp_path / "driver"
    monkeypatch.setattr(xdma, "_DRIVER", driver)
    with pytest.raises(BoardError, match=r"there is no /dev/xdma77_h2c_0, and the driver xdma is not loaded; build it"):
        Board(TINY, "/dev/xdma77")
    driver.mkdir()
    with pytest.raises(BoardError, match=r"the driver has found no card for /dev/xdma77; was the bitstream loaded"):
        Board(TINY, "/dev/xdma77")
    device = plain_board(tmp_path)
    with pytest.raises(BoardError, match=rf"there is no .*xdma1_h2c_0; there are: {device}$"):
        Board(TINY, tmp_path / "xdma1")
    Path(f"{device}_events_0").unlink()
    with pytest.raises(BoardError, match=r"there is no .*xdma0_events_0"):
        Board(TINY, device)
    Board(TINY, device, event=None).close()
    for number, message in (
        (errno.EACCES, "may not be opened by this user; give it to a group"),
        (errno.ENODEV, "is there, but no card behind it .*; unload and load the driver"),
        (errno.EBUSY, "cannot be opened: Device or resource busy"),
    ):

        def fail(*arguments, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", fail)
            with pytest.raises(BoardError, match=message):
                Board(TINY, device)
    assert main(["--engine", "board", "--device", "/dev/xdma77", "--tokens", "1"]) == 2
    assert "no card for /dev/xdma77" in capsys.readouterr().err
    assert main(["--device", "/dev/xdma77"]) == 2
    assert "--device needs --engine board" in capsys.readouterr().err


def test_command(device, image, golden, tmp_path, capsys):
    image.save(tmp_path / "i")
    texts = []
    for engine in (["golden"], ["board", "--device", str(device)]):
        arguments = ["--image", str(tmp_path / "i"), "--prompt", "ab", "--tokens", "4", "--json", str(tmp_path / "j")]
        assert main([*arguments, "--engine", *engine]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    record = json.loads((tmp_path / "j").read_text())
    assert (record["engine"], record["cycles_are"], record["stop"]) == ("board", "measured", "limit")
    assert record["cycles"] > 0


def test_command_of_the_stand_in(tmp_path, capsys):
    device = tmp_path / "xdma0"
    with started(device, "-m", "edgeaccel.sim.board", "--device", device, "--engine", "golden") as process:
        assert {path.name for path in tmp_path.iterdir()} == {f"xdma0_{name}" for name in NAMES}
        assert stand_in_main(["--device", str(device)]) == 2
        assert "already; remove it, or take another name" in capsys.readouterr().err
    assert process.returncode == 0
    assert not list(tmp_path.iterdir())
    assert stand_in_main(["--device", "/no/such/folder/xdma0", "--engine", "golden"]) == 2


def test_verilog_of_the_registers(tmp_path, monkeypatch):
    """The real registers and interrupt, compiled, in front of what makes a token in 200 cycles."""
    monkeypatch.setattr("edgeaccel.runtime.board.counter_names", lambda machine: Stand.bit_names["events"])
    with stand_in(tmp_path, engine="registers") as device, Board(MACHINE, device, hang_seconds=0.5) as board:
        board.load(made_image())
        board.write_tokens(3, [5, 6, 1 << 19])
        assert board.read_tokens(3, 3) == [5, 6, 1 << 19]
        told = []
        for on_batch in (None, told.append):
            stop = board.run(1, 6, 9, on_batch)
            assert (stop.reason, stop.position) == (StopReason.LIMIT, 9)
            assert 6 * 200 < stop.cycles < 6 * 202
            assert board.read_tokens(6, 4) == [13, 14, 15, 16]
        assert [batch.token for batch in told if batch.token is not None] == [13, 14, 15, 16]
        assert sum(batch.rows for batch in told) == 8
        counted = board.counters()
        assert (counted["running"], counted["cycles"]) == (stop.cycles, 2 * stop.cycles)
        for _ in range(2):
            board._start(0, 2, 60)
            board.write_value("stop", 1)
            assert board._wait(0, 2, None) is None
            assert board._stop(None).reason is StopReason.STOPPED
        board.load(made_image(2))
        stop = board.run(0, 2, 3)
        assert (stop.code, stop.command, stop.address) == ("port.response", 0, 0x1234567890)
        board.load(made_image(1))
        stop = board.run(0, 2, 3)
        assert (stop.reason, stop.code) == (StopReason.ERROR, "hang")
        assert "running at instruction 0 (a), layer 0, position 0: it has made no progress" in stop.message
        board._start(0, 2, 3)  # by a host that is gone without a word
        board.close()
        with Board(MACHINE, device) as other:
            other.load(made_image())
            assert other.run(0, 2, 3).reason is StopReason.LIMIT


@pytest.mark.slow
def test_verilog_behind_the_files(tmp_path, image, golden):
    """The compiled machine tells the same, leaves the same bytes, stops in a token, and names its errors."""
    with stand_in(tmp_path, engine="rtl") as device, Board(TINY, device) as board:
        board.load(image)
        assert follow(board, image).tokens == golden.tokens
        assert compare_all(image, board, golden) is None
        assert board.counters()["words0"] > 0
        assert generate(board, image, PROMPT, 3, Sampler(temperature=0)).tokens == golden.tokens[:3]
        assert stopped(board, 3).reason is StopReason.STOPPED
        assert follow(board, image).tokens == golden.tokens
        board._image = replace(image, program_address=1 << 40)
        with pytest.raises(DeviceError, match=r"error program\.response of command \d+, port 0, address 0x10000000000"):
            generate(board, image, PROMPT, 1)
        board._image = image
        board._start(0, 3, 40)  # by a host that is gone
        board.close()
        with Board(TINY, device) as other:
            other.load(image)
            assert follow(other, image).tokens == golden.tokens


@pytest.mark.slow
def test_verilog_is_lost(tmp_path, image, golden):
    with stand_in(tmp_path, "exit", position=5, engine="rtl") as device, Board(TINY, device) as board:
        board.load(image)
        with pytest.raises(DeviceError, match="has ended"):
            generate(board, image, PROMPT, N_TOKENS, on_token=lambda token: None)


@pytest.mark.slow
def test_a_story(tmp_path, capsys):
    """The package's own model, by the command, with compiled Verilog behind the files."""
    texts = []
    with stand_in(tmp_path, engine="rtl") as device:
        for engine in (["board", "--device", str(device)], ["golden"]):
            assert main(["--tokens", "20", "--engine", *engine]) == 0
            texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert re.match(r"Once upon a time.* \w+", texts[0])
