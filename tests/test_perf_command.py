"""The cycle model of whole models: shapes, what must hold of any prediction, energy, and the command line."""

import json
import struct
import sys
from dataclasses import replace

import pytest

from edgeaccel.compiler import KINDS, CompileError
from edgeaccel.machine import machine
from edgeaccel.perf.__main__ import main
from edgeaccel.perf.energy import EDGELLM_TOKENS_PER_J, Range, estimate
from edgeaccel.perf.memory import of_machine
from edgeaccel.perf.model import Performance, batches, roofline
from edgeaccel.perf.report import EDGELLM_MACS_PER_S, by_layer, by_operator
from edgeaccel.perf.shapes import SHAPES, find, macs, parameters

# What the publishers of the models say: llama2.c, README.md (110M); counts of Hugging Face's model pages, which add up
# the files' tensors.
PARAMETERS = {
    "stories110M": (109_500_000, 0.005),
    "TinyLlama-1.1B": (1_100_048_384, 0),
    "LLaMA2-7B": (6_738_415_616, 0),
    "Llama-3-8B": (8_030_261_248, 0),
    "ChatGLM2-6B": (6_243_584_000, 0),
    "Qwen2-7B": (7_615_616_512, 0),
}
SMALL = replace(SHAPES["stories110M"], n_layers=2, vocab_size=2000)


def performance(shape, preset="vu9p", *, positions=600, sizes=None, **formats):
    on = machine(preset, **(sizes or {}))
    return Performance(shape, on, of_machine(preset, on), positions=positions, **formats)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters(name):
    count, error = PARAMETERS[name]
    assert parameters(SHAPES[name]) == pytest.approx(count, rel=error, abs=0)


def test_macs():
    """Of LLaMA2-7B one for each parameter, without norms and embedding, and two for each of 513 positions."""
    norms, embedding, dim = 65 * 4096, 32000 * 4096, 4096
    attention = 2 * 32 * dim * 513
    assert macs(SHAPES["LLaMA2-7B"], positions=513) == 6_738_415_616 - norms - embedding + attention
    window = replace(SHAPES["LLaMA2-7B"], window=100)
    assert macs(window, positions=513) == macs(window, positions=100)
    assert macs(window, positions=1) - macs(window, positions=1, classifier=False) == embedding


def test_find(tmp_path):
    assert find("llama2-7b") == ("LLaMA2-7B", SHAPES["LLaMA2-7B"])
    # The header of a file of llama2.c: dim, hidden_dim, layers, heads, KV heads, vocabulary (tied), positions.
    path = tmp_path / "own.bin"
    sizes = 48 * 300 + 2 * (2 * 48 + 2 * 48 * 48 + 2 * 48 * 16 + 3 * 48 * 100) + 48 + 40 * 8
    path.write_bytes(struct.pack("<7i", 48, 100, 2, 6, 2, 300, 40) + bytes(4 * sizes))
    name, shape = find(path)
    assert (name, shape.dim, shape.n_layers, shape.n_kv_heads) == ("own.bin", 48, 2, 2)
    with pytest.raises(ValueError, match="neither a file or folder of that name, nor one of stories110M"):
        find("GPT-5")


@pytest.mark.parametrize(
    ("rows", "tokens", "position", "expected"),
    [
        (4, 10, 0, [(0, 4), (4, 4), (8, 2)]),
        (4, 7, 3, [(3, 1), (4, 4), (8, 2)]),
        (3, 7, 0, [(0, 3), (3, 1), (4, 3)]),
        (1, 3, 0, [(0, 1), (1, 1), (2, 1)]),
    ],
)
def test_batches(rows, tokens, position, expected):
    assert batches(rows, tokens, position) == expected


@pytest.fixture(scope="module")
def small():
    return performance(SMALL, weights="int8")


def test_operators_tile_the_batch(small):
    """Every operator of every layer once, in order; nothing is counted twice, and all that the model needs."""
    run = small.decode(300)
    (batch,) = run.batches
    order = [*KINDS[:3], "attention", *KINDS[3:7]]
    names = [(operator.name, operator.layer) for operator in batch.operators]
    assert names == [(name, layer) for layer in range(2) for name in order] + [("classifier", None)]
    total = sum(operator.cycles for operator in batch.operators)
    assert 0 < batch.cycles - total < 1000  # the last vectors and the token
    assert all(0 <= operator.wait_cycles <= operator.cycles for operator in batch.operators)
    assert run.macs == macs(SMALL, positions=301)
    assert sum(total.cycles for total in by_operator(run).values()) == pytest.approx(total)
    assert set(by_layer(run)) == {0, 1, None}
    # INT8 with 16-bit scales for 128 of them, in both layers.
    assert by_operator(run)["up"].bytes == 2 * SMALL.dim * SMALL.hidden_dim * (8 + 16 / 128) / 8


def test_prompts(small):
    """As many tokens at a time as there are rows; only the last batch gives logits."""
    run = small.prefill(37)
    assert [batch.rows for batch in run.batches] == [8, 8, 8, 8, 5]
    assert [batch.operators[-1].name for batch in run.batches] == [*["down"] * 4, "classifier"]
    needed = sum(macs(SMALL, positions=n + 1, classifier=n == 36) for n in range(37))
    assert run.macs == needed
    assert run.cycles == sum(batch.cycles for batch in run.batches)
    assert small.tokens_per_s(run) > 5 * small.tokens_per_s(small.decode(36))


def test_monotonic(small):
    """More to read or to do takes longer."""
    decode = [small.decode(position).cycles for position in (0, 100, 200, 599)]
    assert decode == sorted(decode)
    assert decode[0] < decode[-1]
    text = small.text(100, 4)
    assert text.tokens == 4
    assert small.decode(100).cycles <= text.cycles / 4 <= small.decode(103).cycles
    fewer = performance(SMALL, weights="int4")
    assert fewer.decode(100).cycles < small.decode(100).cycles
    assert performance(SMALL, weights="int8", cache="int8").decode(599).cycles < decode[-1]
    half = performance(SMALL, sizes={"changes": {"groups": 2}}, weights="int8")
    assert half.decode(100).cycles > 1.5 * small.decode(100).cycles
    one_row = performance(SMALL, sizes={"changes": {"rows": 1}}, weights="int8")
    assert one_row.prefill(16).cycles > 4 * small.prefill(16).cycles


@pytest.mark.parametrize("preset", ["tiny", "vcu128", "vu9p"])
@pytest.mark.parametrize("weights", ["int4", "int8"])
@pytest.mark.parametrize("cache", ["int16", "int4"])
def test_roofline(preset, weights, cache):
    """Nothing is faster than all beats delivered, or all multipliers at work."""
    shape = replace(SMALL, dim=512, hidden_dim=1024, n_heads=8, n_kv_heads=4) if preset == "tiny" else SMALL
    model = performance(shape, preset, positions=300, weights=weights, cache=cache)
    for run in (model.decode(299), model.decode(0), model.prefill(33)):
        assert run.cycles >= model.bound(run)
        assert 0 < run.beat_share < 1
        assert 0 < model.busy_share(run) < 1
        rate = run.macs * model.core_hz / run.cycles
        assert rate <= roofline(model.machine, model.memories, "int4", run.macs / run.bytes)


@pytest.mark.parametrize(
    ("name", "preset", "weights", "least"), [("LLaMA2-7B", "vcu128", "int4", 110), ("stories110M", "vu9p", "int8", 450)]
)
def test_what_is_asked_for(name, preset, weights, least):
    """Tokens a second at a context of 512; a prompt as fast as four of EdgeLLM's arrays that never wait."""
    model = performance(SHAPES[name], preset, weights=weights)
    run = model.decode(512)
    assert model.tokens_per_s(run) >= least
    assert run.beat_share >= 0.95
    if name == "LLaMA2-7B":
        prompt = model.prefill(64)
        assert model.tokens_per_s(prompt) >= 4 * EDGELLM_MACS_PER_S * 64 / prompt.macs


def test_refuses_what_does_not_fit():
    with pytest.raises(
        CompileError, match=r"a port has 268435456 bytes, but weights take 4[0-9]{8} of each and 5 pages"
    ):
        performance(SHAPES["LLaMA2-7B"], "vcu128", weights="int16")
    with pytest.raises(CompileError, match=r"ask for at most [0-9]+ positions"):
        performance(SHAPES["LLaMA2-7B"], "vcu128", weights="int8", positions=4096)
    with pytest.raises(
        ValueError, match="hbm2, has ports of 256 bits at 450 MHz, but the machine's have 256 bits at 300"
    ):
        of_machine("vcu128", machine("vcu128", changes={"port_mhz": 300.0}))


def test_energy_of_edgellm():
    """The rule, applied to the machine that it was made from, spans what that machine reports."""
    as_edgellm = replace(machine("vcu128").config, core_mhz=140.0)
    energy = estimate(as_edgellm, "hbm2", bytes=221e9, tokens=85.8, seconds=1.0, lut=967_000)
    assert energy.tokens_per_joule.low < EDGELLM_TOKENS_PER_J < energy.tokens_per_joule.high
    assert energy.watts.low < 85.8 / 1.51 < energy.watts.high


def test_energy():
    config = machine("vcu128").config
    of_run = {"bytes": 4e9, "tokens": 1, "seconds": 0.01}
    energy = estimate(config, "hbm2", **of_run)
    # 4 GB at 3.9 to 7 pJ a bit.
    assert energy.memory.low == pytest.approx(0.1248)
    assert energy.memory.high == pytest.approx(0.224)
    assert energy.joules_per_token.low == pytest.approx(1 / energy.tokens_per_joule.high)
    assert energy.joules_per_token.high == pytest.approx(100 * energy.watts.high * 1e-4)
    known = estimate(config, "hbm2", lut=900_000, **of_run)
    assert energy.rest.low <= known.rest.low < known.rest.high <= energy.rest.high
    assert estimate(config, "ddr4-2400", **of_run).memory.low > energy.memory.high
    with pytest.raises(ValueError, match="nothing is known of the energy of ideal"):
        estimate(config, "ideal", **of_run)
    with pytest.raises(ValueError, match="a range must ascend"):
        Range(2.0, 1.0)


def test_command(tmp_path, capsys):
    path, picture = tmp_path / "perf.json", tmp_path / "perf.png"
    asked = ["--model", "stories110m", "--preset", "vu9p", "--weights", "int8", "--context", "40", "--prompt", "20"]
    assert main([*asked, "--text", "2", "--json", str(path), "--plot", str(picture)]) == 0
    assert "token at position 40" in capsys.readouterr().out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    records = {record["name"]: record for record in json.loads(path.read_text())}
    assert len(records) == len(json.loads(path.read_text()))
    assert all(
        record["kind"] == "estimated" and "perf --model stories110m" in record["source"] for record in records.values()
    )
    value = {name.removeprefix("perf.stories110m.vu9p."): record["value"] for name, record in records.items()}
    assert value["tok_s"] == pytest.approx(300e6 / value["decode.cycles"])
    assert value["prefill_tok_s"] == pytest.approx(20 * 300e6 / value["prefill.cycles"])
    assert value["text.tokens"] == 2
    assert value["decode.cycles"] >= value["decode.bound_cycles"]
    layers = sum(value[f"decode.layer{n}.cycles"] for n in range(12)) + value["decode.classifier.cycles"]
    assert layers == pytest.approx(value["decode.cycles"], rel=0.01)
    assert value["decode.joules_per_token.low"] < value["decode.joules_per_token.high"]
    assert value["prefill_goal_tok_s"] == pytest.approx(4 * 4096 * 140e6 * 20 / value["prefill.macs"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "GPT-5"], "there is no model GPT-5"),
        (["--model", "LLaMA2-7B", "--weights", "int16"], "a port has 268435456 bytes"),
        (["--model", "LLaMA2-7B", "--context", "1000000"], "positions must be 1 to 32768"),
        (["--model", "stories110M", "--set", "rows=0"], "rows must be a positive whole number"),
        (["--model", "stories110M", "--set", "cores=4"], "cores"),
        (["--model", "stories110M", "--json", "nowhere/perf.json"], "there is no folder nowhere"),
        (["--model", "stories110M", "--weights", "mxfp4"], "the format of k must be one of int4, int8, int16"),
    ],
)
def test_bad_input(arguments, says, capsys):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--model", "x", "--context", "0"], ["--model", "x", "--preset", "u280"]])
def test_bad_options(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    asked = ["--model", "stories110M", "--preset", "vu9p", "--context", "2", "--plot", str(tmp_path / "perf.png")]
    assert main(asked) == 3
    assert "pip install 'edgeaccel[bench]'" in capsys.readouterr().err
