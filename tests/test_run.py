"""The command that makes text, and the comparison of two devices."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_reference import LLAMA, random_checkpoint

from edgeaccel.cache import CacheLayout
from edgeaccel.checkpoint import Rope
from edgeaccel.checkpoint.tokenizer import Tokenizer
from edgeaccel.compiler import compile_model
from edgeaccel.machine import machine
from edgeaccel.quantise import Quantised
from edgeaccel.run import main
from edgeaccel.runtime import GoldenDevice, StopReason, generate
from edgeaccel.runtime.check import CheckedDevice, Difference
from edgeaccel.tiles import pack

TINY = machine("tiny")
SHAPE = replace(
    LLAMA,
    dim=48,
    hidden_dim=100,
    n_layers=2,
    n_heads=6,
    n_kv_heads=2,
    head_dim=8,
    vocab_size=300,
    max_positions=48,
    rope=Rope(rotated=8),
    bos=1,
    eos=(2,),
)
PIECES = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), b" "]
PIECES += [bytes([97 + n // 26, 97 + n % 26]) for n in range(300 - len(PIECES))]


@pytest.fixture(scope="module")
def image():
    checkpoint = random_checkpoint(SHAPE, np.random.default_rng(4))
    return compile_model(checkpoint, TINY, tokenizer=Tokenizer(PIECES, [0.0] * len(PIECES)))


@pytest.fixture(scope="module")
def path(image, tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "odd.image"
    image.save(path)
    return path


def run(capsys, *arguments):
    """(status, standard output, standard error)"""
    status = main(list(map(str, arguments)))
    return status, *capsys.readouterr()


def test_golden(capsys, path, tmp_path):
    arguments = ("--image", path, "--engine", "golden", "--prompt", "ab c", "--tokens", 8, "--json", tmp_path / "j")
    status, text, progress = run(capsys, *arguments)
    record = json.loads((tmp_path / "j").read_text())
    assert status == 0
    assert record["text"] + "\n" == text
    assert text.startswith("ab c")
    assert (record["engine"], record["preset"], record["identical"]) == ("golden", "tiny", None)
    assert {"cycles_per_token", "beat_share", "tokens_per_second"} <= record.keys()
    assert len(record["tokens"]) == 8 or record["stop"] == "end_of_text"
    assert "tokens/s" in progress
    assert run(capsys, *arguments)[1] == text


def test_drawn_tokens_repeat_with_their_seed(capsys, path):
    drawn = (
        "--image",
        path,
        "--engine",
        "golden",
        "--prompt",
        "ab",
        "--tokens",
        6,
        "--temperature",
        1.5,
        "--top-k",
        50,
    )
    texts = [run(capsys, *drawn, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_end_of_the_context(capsys, path, tmp_path):
    arguments = ("--image", path, "--engine", "golden", "--prompt", "a" * 43, "--tokens", 20, "--json", tmp_path / "j")
    status, _, progress = run(capsys, *arguments)
    record = json.loads((tmp_path / "j").read_text())
    assert status == 0
    if record["stop"] == "limit":
        assert "the context of 48 tokens is full" in progress
        assert record["prompt_tokens"] + len(record["tokens"]) == 48 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--image", "IMAGE", "--prompt", "a" * 60],
            "the prompt has 62 tokens, but the image's context has 48; shorten",
        ),
        (["--image", "IMAGE", "--tokens", 0], "--tokens must be at least 1, not 0"),
        (["--image", "IMAGE", "--preset", "vcu128"], "is for another machine"),
        (["--image", "IMAGE", "--preset", "huge"], "preset must be one of tiny, vcu128, vu9p, not 'huge'"),
        (["--image", "IMAGE", "--check"], "--check needs --engine rtl"),
        (["--image", "IMAGE", "--temperature", -1], "temperature must be 0 or more, not -1.0"),
        (["--image", "IMAGE", "--json", "/no/such/file"], "there is no folder /no/such to write file to"),
        (["--image", "/no/such/image"], "No such file"),
        (["--image", __file__], "is no image"),
        (["--model", "/no/such/model.bin", "--tokenizer", "x"], "No such file"),
    ],
)
def test_bad_input(capsys, path, arguments, message):
    arguments = [path if argument == "IMAGE" else argument for argument in arguments]
    status, text, progress = run(capsys, *arguments, "--engine", "golden")
    assert status == 2
    assert message in progress
    assert text == ""


class Tampered(GoldenDevice):
    """Changes bytes of its memory after the token at a position."""

    def __init__(self, position, changes):
        super().__init__(TINY)
        self.position, self.changes = position, changes

    def run(self, *arguments, on_batch=None):
        def tamper(batch):
            if batch.position + batch.rows == self.position:
                for address, mask in self.changes.items():
                    self.write(address, self.read(address, 1) ^ np.uint8(mask))
            on_batch(batch)

        return super().run(*arguments, on_batch=tamper)


def test_two_that_agree(image):
    device = CheckedDevice(GoldenDevice(TINY), GoldenDevice(TINY))
    device.load(image)
    alone = GoldenDevice(TINY)
    alone.load(image)
    for sampler in (None, lambda logits: int(np.argsort(logits)[-2])):
        before = device.tokens
        both, one = (generate(each, image, [1, 5, 9, 11, 4], 6, sampler) for each in (device, alone))
        assert both.tokens == one.tokens
        assert device.tokens - before == 6 or both.stop.reason is StopReason.END_OF_TEXT
        device.compare_all()
    seen = []
    done = generate(device, image, [1, 5], 30, on_token=lambda token: seen.append(token) or len(seen) == 3)
    assert done.stop.reason is StopReason.STOPPED
    assert len(seen) == 3
    assert generate(device, image, [1, 5], 5).tokens[:3] == seen


def changed_bytes(one, other):
    """{offset: mask} of two packed tiles."""
    one, other = one.reshape(-1), other.reshape(-1)
    return {int(at): int(one[at] ^ other[at]) for at in np.flatnonzero(one != other)}


def tile_change(channel, place, *, inputs, what):
    """What differs in a tile if one element, or one scale, does."""
    config = TINY.config
    codes = np.zeros((config.tile_channels, inputs), np.int16)
    scales = np.ones((config.tile_channels, -(-inputs // config.block)), np.float16)
    made = [(codes, scales), (codes.copy(), scales.copy())]
    if what == "code":
        made[1][0][channel, place] = 3
    else:
        made[1][1][channel, place] = 2
    tiles = [
        pack(Quantised(format="int16", codes=c, scales=s, block=config.block), lanes=config.lanes) for c, s in made
    ]
    return changed_bytes(*tiles)


@pytest.mark.parametrize(
    ("layer", "values", "what", "head", "position", "dimension"),
    [
        (0, False, "code", 0, 0, 0),
        (1, False, "code", 1, 5, 3),
        (1, False, "scale", 1, 6, 0),
        (0, True, "code", 1, 3, 7),
        (1, True, "code", 0, 6, 2),
    ],
)
def test_finds_an_element_of_the_cache(image, layer, values, what, head, position, dimension):
    config, channels = TINY.config, TINY.config.tile_channels
    layout = CacheLayout(
        config=config, heads=2, head_dim=8, format="int16", page_bits=image.manifest["cache"]["page_bits"]
    )
    page, rest = divmod(position, layout.page_positions)
    chunk, place = divmod(rest, layout.chunk)
    if values:
        tile, channel = divmod(dimension, channels)
        port, word = layout.value_tile(head, chunk, tile)
        change = tile_change(channel, place, inputs=layout.chunk, what=what)
    else:
        tile, channel = divmod(place, channels)
        port, word = layout.key_tile(head, chunk, tile)
        change = tile_change(channel, dimension, inputs=layout.head_dim, what=what)
    base = image.manifest["regions"][f"layers.{layer}.cache"][0] + port * TINY.port_bytes
    base += (page * layout.page_words + word) * config.word_bytes
    device = CheckedDevice(Tampered(7, {base + at: mask for at, mask in change.items()}), GoldenDevice(TINY))
    device.load(image)
    with pytest.raises(Difference) as caught:
        generate(device, image, [1, 5, 9, 11, 4], 10)
    found = caught.value
    assert device.tokens == 2
    assert (found.position, found.place.tensor) == (7, f"layers.{layer}.cache")
    element = f"dimension {dimension}" if what == "code" else f"scale of block {dimension}"
    assert found.place.text == f"{'values' if values else 'keys'}, head {head}, position {position}, {element}"
    assert found.place.values[0] != found.place.values[1]
    assert f"(append layers.{layer if layer == 0 else '*'}" in str(found)


def test_finds_logits_scales_and_stray_bytes(image):
    regions = image.manifest["regions"]
    logits, scales = regions["logits"][0], regions["layers.1.cache.scales"][0]
    for changes, tensor, text in (
        ({logits + 4 * 70 + 3: 1}, "logits", "element 70"),
        ({scales + 2 * (TINY.config.block + 5): 8}, "layers.1.cache.scales", "scale of values, head 1, position 5"),
    ):
        device = CheckedDevice(GoldenDevice(TINY), Tampered(6, changes))
        device.load(image)
        with pytest.raises(Difference, match=r"rtl .* golden") as caught:
            generate(device, image, [1, 5, 9, 11, 4], 10)
        assert (caught.value.place.tensor, caught.value.place.text) == (tensor, text)
    weights = regions["layers.1.attention.q"][0] + TINY.port_bytes + 40
    for address, tensor in ((weights, "layers.1.attention.q, port 1"), (logits + 4 * 300, "no tensor at all")):
        device = CheckedDevice(GoldenDevice(TINY), GoldenDevice(TINY))
        device.load(image)
        device.one.write(address, device.one.read(address, 1) ^ np.uint8(1))
        with pytest.raises(Difference) as caught:
            device.compare_all()
        assert caught.value.place.tensor == tensor
        assert caught.value.place.address == address


def test_finds_other_tokens(image):
    class Other(GoldenDevice):
        def run(self, position, prompt, limit, on_batch=None):
            return super().run(position, prompt, limit, lambda batch: on_batch(replace(batch, token=7)))

    device = CheckedDevice(Other(TINY), GoldenDevice(TINY))
    device.load(image)
    with pytest.raises(Difference, match=r"at position 0: rtl batch Batch.*token=7.*, golden Batch"):
        generate(device, image, [1, 5], 4)
    device = CheckedDevice(GoldenDevice(TINY), GoldenDevice(TINY))
    device.load(image)
    with pytest.raises(ValueError, match="position must be below"):
        device.run(3, 3, 3)
