"""Images that somebody else wrote: whole, with the right checksums, but with what cannot be or would do harm."""

from dataclasses import replace

import numpy as np
import pytest
from test_reference import LLAMA, random_checkpoint

from edgeaccel import isa
from edgeaccel.compiler import compile_model
from edgeaccel.image import Image, ImageError
from edgeaccel.machine import DATA_BYTES, MACHINES, machine

TINY = machine("tiny")
END = TINY.data_base + DATA_BYTES
SIZE = isa.INSTRUCTION_BYTES


@pytest.fixture(scope="module")
def compiled():
    return compile_model(random_checkpoint(replace(LLAMA, qkv_bias=True), np.random.default_rng(8)), TINY)


@pytest.fixture
def image(compiled):
    """One whose parts may be changed."""
    made = Image(**vars(compiled))
    made.segments = [(address, np.array(np.asarray(data))) for address, data in compiled.segments]
    made.manifest = dict(compiled.manifest)
    return made


def loaded(image, tmp_path):
    image.save(tmp_path / "x.image")
    return Image.load(tmp_path / "x.image")


def lines_of(image):
    return [isa.decode(image.program[n : n + SIZE]) for n in range(0, len(image.program), SIZE)]


def set_program(image, lines):
    """Another program, in memory and in the header, of as many instructions."""
    code = isa.assemble([(name, {"when": when, **fields}) for name, when, fields in lines])
    image.program = code
    for address, data in image.segments:
        if address == image.program_address:
            data[: len(code)] = np.frombuffer(code, np.uint8)


def first(lines, name, **wanted):
    """Number of the first instruction of a name whose fields are so."""
    return next(
        n for n, (other, _, f) in enumerate(lines) if other == name and all(f[key] == wanted[key] for key in wanted)
    )


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_compiled_is_loaded(name, tmp_path):
    compiled = compile_model(random_checkpoint(LLAMA, np.random.default_rng(8)), machine(name))
    assert loaded(compiled, tmp_path).program == compiled.program


@pytest.mark.parametrize(
    ("number", "address", "says"),
    [
        (0, END - 1, "segment 0, .* is outside of the machine's memory, which ends at"),
        (3, 1 << 60, "segment 3, 0x1000000000000000 .* outside"),
        (1, None, "segments . and . overlap at 0x"),
    ],
)
def test_segments(number, address, says, image, tmp_path):
    """An address past the end, or just behind the beginning of another segment."""
    of_other = image.segments[0][0] + 1
    image.segments[number] = (of_other if address is None else address, image.segments[number][1])
    with pytest.raises(ImageError, match=f"{says}.*; compile it anew"):
        loaded(image, tmp_path)


@pytest.mark.parametrize(
    ("name", "wanted", "changes", "says"),
    [
        ("vector", {"to_logits": 1}, {"logits": TINY.data_base}, "it would write over segment"),
        ("vector", {"to_logits": 1}, {"logits": END - 4}, "outside of the machine's memory"),
        ("vector", {"to_logits": 1}, {"channels": 1025}, "vectors of 1025 channels; there must be 1 to 1024"),
        ("vector", {"to_cache": 1}, {"vectors": 0}, "0 vectors of"),
        ("vector", {"rotated": 6}, {"rotated": 7}, "7 of 6 channels cannot be rotated"),
        ("vector", {"rotated": 6}, {"half": 1}, "half of 6 channels is not whole beats of 4"),
        ("vector", {"activate": 1}, {"function": "gelu"}, "the build has no gelu, only silu"),
        ("vector", {"activate": 1}, {"residual": 1}, "factors and a residual have the same operand"),
        ("vector", {"residual": 1}, {"operand": 1022}, "words 1022 to 1024 of a vector memory of 1024"),
        ("vector", {"to_vector": 1}, {"vector": 1022}, "words 1022 to .* of a vector memory of 1024"),
        ("vector", {"gain": 1}, {"address": 1 << 19}, "of an activation buffer of 1024"),
        ("vector", {"spread": 1}, {"ratio": 0}, "0 query heads"),
        ("read", {"target": "gain"}, {"bytes": 20}, "20 bytes are no whole beats of 16"),
        ("read", {"target": "vector"}, {"vector": 1023}, "words 1023 to 1025 of a vector memory"),
        ("read", {"target": "table"}, {"bytes": 32 * 65}, "a table of 65 beats, of which a row keeps 64"),
        ("loop", {}, {"layers": 0}, "a loop has at least a layer"),
        ("cache", {}, {"base": 0}, "it would write over segment"),
        ("cache", {}, {"base": (1 << 24) // 16 - 1}, "a cache to byte .* of each port, which has 16777216"),
        ("cache", {}, {"layer_words": 1 << 30}, "a cache to byte .* of each port"),
        ("cache", {}, {"scales": TINY.data_base}, "it would write over segment"),
        ("cache", {}, {"k_stride": 1}, "k_stride must be .* for its heads, not 1"),
        ("cache", {}, {"format": "mxfp4"}, "the cache's format must be one of"),
        ("again", {}, {"target": 200}, "the program may go on past its"),
        ("next", {}, {"target": 200}, "the program may go on past its"),
    ],
)
def test_programs(name, wanted, changes, says, image, tmp_path):
    """A field of an instruction that the machine itself would not refuse."""
    lines = lines_of(image)
    number = first(lines, name, **wanted)
    lines[number][2].update(changes)
    set_program(image, lines)
    with pytest.raises(ImageError, match=f"{says}.*; compile it anew"):
        loaded(image, tmp_path)


def test_loops_that_never_end(image, tmp_path):
    lines = lines_of(image)
    again = len(lines) - 1 - [name for name, _, _ in lines][::-1].index("again")
    lines[again][2]["target"] = first(lines, "loop")
    set_program(image, lines)
    with pytest.raises(ImageError, match="is a loop in a loop, which would never end; compile it anew"):
        loaded(image, tmp_path)


def test_program_that_goes_past_its_end(image, tmp_path):
    lines = lines_of(image)
    assert [name for name, _, _ in lines[-2:]] == ["next", "end"]
    lines[-2:] = [(name, "several", fields) for name, _, fields in lines[-2:]]
    set_program(image, lines)
    with pytest.raises(ImageError, match="the program may go on past its"):
        loaded(image, tmp_path)


def test_place_of_the_program(image, tmp_path):
    address = image.program_address
    for wrong, says in (
        (address + 32, "multiple of 64"),
        (0, "multiple of 64"),
        (address + 64, "not what its segment"),
    ):
        image.program_address = wrong
        with pytest.raises(ImageError, match=f"{says}.*; compile it anew"):
            loaded(image, tmp_path)
    image.program_address, image.program = address, image.program[:-SIZE] + isa.encode("sync")
    with pytest.raises(ImageError, match="the program is not what its segment holds"):
        loaded(image, tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"positions": 4096}, "positions must be a whole number from 1 to 2048, not 4096"),
        ({"positions": 2.5}, "positions must be a whole number"),
        ({"vocab_size": 18}, "the program's logits are not the 18 at"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"eos": [17]}, "a token must be a whole number from 0 to 16, not 17"),
        ({"bos": -1}, "a token must be"),
        ({"eos": None}, "manifest makes no sense"),
        ({"logits": 64}, "the program's logits are not the 17 at 64"),
        ({"names": []}, "names must be .* texts"),
        ({"regions": {"x": [0, END + 1]}}, "bytes of x must be"),
        ({"regions": {"x": "y"}}, "manifest makes no sense"),
        ({"model": {}}, "manifest makes no sense"),
        ({"formats": 4}, "formats must be a dict, not 4"),
    ],
)
def test_manifests(changes, says, image, tmp_path):
    image.manifest |= changes
    with pytest.raises(ImageError, match=f"{says}.*; compile it anew"):
        loaded(image, tmp_path)


@pytest.mark.parametrize("name", ["regions", "positions", "names", "cache"])
def test_manifests_that_lack_something(name, image, tmp_path):
    del image.manifest[name]
    with pytest.raises(ImageError, match=rf"manifest makes no sense \(KeyError\('{name}'\)\); compile it anew"):
        loaded(image, tmp_path)
