"""Images: what is saved is loaded, and what was damaged or is for another machine is refused."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from test_reference import LLAMA, random_checkpoint

from edgeaccel.compile import main
from edgeaccel.compiler import compile_model
from edgeaccel.image import PREFIX, PREFIX_BYTES, Image, ImageError, Lazy, machine_fields, machine_from
from edgeaccel.machine import MACHINES, machine
from edgeaccel.runtime import GoldenDevice, generate

TINY = machine("tiny")


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


@pytest.fixture
def image(rng):
    return compile_model(random_checkpoint(LLAMA, rng), TINY)


@pytest.fixture
def path(image, tmp_path):
    image.save(tmp_path / "x.image")
    return tmp_path / "x.image"


def test_loads_no_hardware():
    program = "import sys, edgeaccel.image; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith("amaranth")]


def test_round_trip(image, path):
    loaded = Image.load(path, TINY)
    assert loaded.machine == TINY
    assert loaded.program == image.program
    assert loaded.program_address == image.program_address
    assert loaded.manifest == json.loads(json.dumps(image.manifest))
    assert loaded.n_bytes == image.n_bytes
    for (address, data), (expected, made) in zip(loaded.segments, image.segments, strict=True):
        assert address == expected
        np.testing.assert_array_equal(data, np.asarray(made))
    assert sum(len(data) for _, data in loaded.pieces()) == image.n_bytes
    assert [*path.parent.iterdir()] == [path]


def test_the_same_input_gives_the_same_bytes(image, path):
    image.save(path.with_name("other"))
    assert path.with_name("other").read_bytes() == path.read_bytes()


def test_segments_stay_in_the_file(path):
    data = Image.load(path).segments[0][1]
    while data is not None and not isinstance(data, np.memmap):
        data = data.base
    assert data is not None


def test_what_fails_leaves_no_file(image, tmp_path):
    image.segments.append((0, Lazy(8, lambda: np.zeros(7, np.uint8))))
    with pytest.raises(ValueError, match="a segment must be 8 bytes"):
        image.save(tmp_path / "y.image")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", MACHINES)
def test_machines(name):
    assert machine_from(json.loads(json.dumps(machine_fields(machine(name))))) == machine(name)


def test_another_machine(path):
    with pytest.raises(ImageError, match="is for another machine: slots is 32, not 16; compile for this one"):
        Image.load(path, machine("tiny", slots=16))
    with pytest.raises(ImageError, match="rows is 2, not 4"):
        Image.load(path, machine("tiny", changes={"rows": 4}))


def rewritten(path, change):
    """The file with another header, whose checksums are right."""
    data = path.read_bytes()
    magic, version, zero, place, _, _ = PREFIX.unpack_from(data)
    header = json.loads(data[place:])
    change(header)
    encoded = json.dumps(header).encode()
    prefix = PREFIX.pack(magic, version, zero, place, len(encoded), hashlib.sha256(encoded).digest())
    prefix += hashlib.sha256(prefix).digest()[: PREFIX_BYTES - PREFIX.size]
    path.write_bytes(prefix + data[PREFIX_BYTES:place] + encoded)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda header: header.update(instruction_set="0"), "of another version of the instruction set"),
        (lambda header: header.update(program="00"), "header makes no sense"),
        (lambda header: header.update(program=""), "a program of 0 bytes cannot run"),
        (lambda header: header.update(program="1f" * 64), "header makes no sense"),
        (lambda header: header.update(program="00" * 64 * 200), "a program of 12800 bytes cannot run"),
        (lambda header: header.update(manifest=[]), "manifest must be an object"),
        (lambda header: header["segments"].pop(), "belong to no segment"),
        (lambda header: header["segments"][1].__setitem__(1, 0), "segment 1 cannot lie at byte 0"),
        (lambda header: header["segments"][0].__setitem__(2, 1 << 60), "segment 0 cannot lie at byte 96"),
        (lambda header: header["segments"][0].__setitem__(0, -1), "segment 0 cannot lie"),
        (lambda header: header["segments"][0].pop(), "header makes no sense"),
        (lambda header: header["machine"].update(slots=0), "header makes no sense"),
        (lambda header: header["machine"].update(wheels=4), "header makes no sense"),
        (lambda header: header.pop("machine"), "header makes no sense"),
        (lambda header: header.clear(), "header makes no sense"),
        (lambda header: header.update(program_address=None), "header makes no sense"),
    ],
)
def test_headers_that_make_no_sense(path, change, says):
    with pytest.raises(ImageError, match=says):
        Image.load(rewritten(path, change))


def test_another_version(path):
    data = bytearray(path.read_bytes())
    data[16] = 7
    data[PREFIX.size : PREFIX_BYTES] = hashlib.sha256(data[: PREFIX.size]).digest()[: PREFIX_BYTES - PREFIX.size]
    path.write_bytes(data)
    with pytest.raises(ImageError, match="version 7 of the format, not 1; compile it anew"):
        Image.load(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: b"", "is no image; name a file that"),
        (lambda data: b"hello", "is no image"),
        (lambda data: data[:50], "50 bytes: it is cut"),
        (lambda data: data[:-1], "were written: it is cut; compile it anew"),
        (lambda data: data + b"x", "followed by something else"),
        (lambda data: data[:-9] + b"x" + data[-8:], "its header is damaged"),
        (lambda data: data[:20] + b"x" + data[21:], "its first 96 bytes are damaged"),
        (lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:], "segment 0, bytes 96 to .*, is damaged"),
    ],
)
def test_damage_is_named(path, change, says):
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ImageError, match=says):
        Image.load(path)


FUZZ = pytest.mark.parametrize("n_files", [240, pytest.param(10_000, marks=pytest.mark.slow)])


@FUZZ
def test_random_damage(path, rng, n_files):
    """A few bytes changed, bytes cut out, put in or moved: never loaded, and never another error."""
    whole = path.read_bytes()
    _, _, _, header, _, _ = PREFIX.unpack_from(whole)
    for _ in range(n_files):
        data = bytearray(whole)
        # The prefix and the header are short, but matter most.
        begin, end = [(0, PREFIX_BYTES), (PREFIX_BYTES, header), (header, len(data))][rng.integers(3)]
        place = int(rng.integers(begin, end))
        match rng.integers(4):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                del data[place : place + int(rng.integers(1, 99))]
            case 2:
                data[place:place] = rng.bytes(int(rng.integers(1, 99)))
            case 3:
                data = data[:place]
        path.write_bytes(data)
        with pytest.raises(ImageError):
            Image.load(path)


def model_file(tmp_path):
    from test_checkpoint import write

    return write(tmp_path / "x.bin")


def test_command(tmp_path, capsys):
    model, out, text = model_file(tmp_path), tmp_path / "x.image", tmp_path / "x.txt"
    arguments = ["--model", model, "--out", out, "--weights", "int16", "--format", "down=int8", "--listing", text]
    assert main([*map(str, arguments), "--json", "--cache", "int8", "--positions", "5", "--set", "slots=8"]) == 0
    made = json.loads(capsys.readouterr().out)
    image = Image.load(out)
    assert made["image"] == str(out)
    assert made["file_bytes"] == out.stat().st_size
    assert made["positions"] == image.manifest["positions"] == 5
    assert made["formats"]["down"] == "int8"
    assert made["formats"]["k"] == "int16"
    assert made["instructions"] == len(text.read_text().splitlines()) == len(image.program) // 64
    assert image.machine == machine("tiny", slots=8)
    assert "layers.*.attention.q" in text.read_text()
    assert main(["--model", str(model), "--out", str(out)]) == 0
    assert "no tokenizer" in capsys.readouterr().err


def test_command_for_a_machine_with_mxfp4(tmp_path, capsys):
    arguments = ["--model", model_file(tmp_path), "--out", tmp_path / "x.image", "--weights", "mxfp4"]
    assert main([*map(str, arguments), "--set", "formats=int4,int8,int16,mxfp4"]) == 0
    image = Image.load(tmp_path / "x.image")
    assert image.machine == machine("tiny", changes={"formats": ("int4", "int8", "int16", "mxfp4")})
    assert {*image.manifest["formats"].values()} == {"mxfp4"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nothing.bin"], "there is no nothing.bin; name a checkpoint's file or folder"),
        (["--weights", "mxfp4"], "must be one of int4, int8, int16, those of the build, not mxfp4; no preset has it"),
        (["--format", "down"], "--format must be KIND=FORMAT, such as down=int8, not 'down'"),
        (["--format", "dawn=int8"], "kinds of matrices are k, v"),
        (["--set", "slots=x"], "slots must be 1 to 256, not 'x'"),
        (["--set", "wheels=4"], "unknown parameter 'wheels'; a machine has the sizes: vector_inputs"),
        (["--set", "formats=int5"], "format must be one of 'int4', 'int8', 'int16', 'mxfp4', not 'int5'"),
        (["--set", "pages=3"], "pages must be a power of two"),
        (["--positions", "4096"], "positions must be 1 to 2048"),
        (["--tokenizer", "nothing.bin"], "nothing.bin"),
        (["--out", "no/such/folder"], "no/such/folder"),
    ],
)
def test_command_refuses(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--model", str(model_file(tmp_path)), "--out", "x.image", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert not [name for name in tmp_path.iterdir() if name.name.startswith("x.image")]


def damaged(whole, rng, first_bytes):
    """A few bytes changed, or the rest cut; what a file says of itself stands in its first bytes."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(min(len(data), first_bytes) if rng.random() < 0.6 else len(data)))
        match rng.integers(3):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place] = int(rng.integers(256))
            case 2:
                data[place : place + 4] = rng.bytes(4)
    return data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data


def checkpoint_to_damage(kind, tmp_path):
    """(model, the file to damage, bytes that it begins with and that matter most)"""
    if kind == "bin":
        model = model_file(tmp_path)
        return model, model, 40
    if kind == "gguf":
        files = pytest.importorskip("test_tokenizers_gguf")
        pieces = ["<unk>", "<s>", "</s>", "\N{LOWER ONE EIGHTH BLOCK}", "a", "b"]
        fields = {"tokens": pieces, "types": [2, 3, 3, 1, 1, 1], "scores": [0.0] * 6}
        model = tmp_path / "x.gguf"
        files.write_gguf(model, 6, files.pieces_with_scores(fields))
        return model, model, 1500
    model = tmp_path / "x"
    model.mkdir()
    pytest.importorskip("test_checkpoint_files").write_hf(model, "qwen2")
    return (model, model / "config.json", 1 << 20) if kind == "config" else (model, model / "model.safetensors", 4000)


@FUZZ
@pytest.mark.parametrize("kind", ["bin", "gguf", "safetensors", "config"])
def test_damaged_checkpoints(kind, n_files, tmp_path, capsys, rng):
    """An image comes of it, which gives a token on the golden machine, or an error; nothing else."""
    model, path, first_bytes = checkpoint_to_damage(kind, tmp_path)
    whole, out = path.read_bytes(), tmp_path / "x.image"
    n_images = 0
    for n in range(n_files // 4):
        path.write_bytes(damaged(whole, rng, first_bytes))
        status = main(["--model", str(model), "--out", str(out), "--weights", ("int4", "int8", "int16")[n % 3]])
        error = capsys.readouterr().err
        assert status == 0 or (status == 2 and error.startswith("error: "))
        assert out.is_file() == (status == 0)
        if status == 0:
            n_images += 1
            image = Image.load(out)
            device = GoldenDevice(image.machine)
            device.load(image)
            assert len(generate(device, image, [0], 1).tokens) <= 1
        out.unlink(missing_ok=True)
    assert n_images < n_files // 4
    assert n_images or n_files < 1000  # of a few damaged configurations none may be left


def test_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out
