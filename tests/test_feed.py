"""Activation feed against the golden feed: beats, cycles, padding, what is refused."""

import functools

import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from edgeaccel.config import preset
from edgeaccel.formats import FORMATS
from edgeaccel.golden import feed as golden
from edgeaccel.golden.feed import Operator
from edgeaccel.sim.bench import random_stalls
from edgeaccel.sim.system import run
from edgeaccel.systolic import ActivationFeed
from edgeaccel.systolic.operator import FeedErrorCode

ALL = tuple(FORMATS)
TYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32}


class Watched(wiring.Component):
    """A feed, and in which cycle it was `done` the last time, and how often."""

    def __init__(self, config):
        self.feed = ActivationFeed(config)
        members = {name: member for name, member in self.feed.signature.members.items() if name != "done"}
        super().__init__(members | {"n_done": Out(8), "done_at": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.feed = feed = self.feed
        for name in ("i_loads", "i_operators", "o"):
            wiring.connect(m, getattr(feed, name), wiring.flipped(getattr(self, name)))
        cycle = Signal(32)
        m.d.comb += self.error.eq(feed.error)
        m.d.sync += cycle.eq(cycle + 1)
        with m.If(feed.done):
            m.d.sync += [self.n_done.eq(self.n_done + 1), self.done_at.eq(cycle)]
        return m


watched = functools.cache(Watched)  # whose Verilog is emitted once


def loads_of(config, buffer, *, event):
    """Loads of a whole buffer [rows, inputs]; the one of the word `event` has an event."""
    words = buffer.reshape(config.rows, -1, config.vector_lanes)
    type_ = np.dtype(TYPES[config.activations])
    return {
        "address": np.arange(words.shape[1]),
        "elements": np.moveaxis(words, 1, 0).astype(type_).view(f"u{type_.itemsize}"),
        "rows": np.full(words.shape[1], (1 << config.rows) - 1),
        "event": np.arange(words.shape[1]) == event,
    }


def operators_of(config, operators):
    columns = {name: [getattr(operator, name) for operator in operators] for name in vars(operators[0])}
    columns["format"] = [ALL.index(name) for name in columns["format"]]
    columns["n_groups"] = [operator.groups(config) for operator in operators]
    return {name: np.array(values, np.int64) for name, values in columns.items()}


def random_buffer(rng, config):
    """Activations of many magnitudes, some not finite, exact in the format of the build."""
    shape = (config.rows, config.buffer_inputs)
    buffer = rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 10, config.buffer_inputs)
    buffer[rng.random(shape) < 0.002] = np.nan
    buffer[rng.random(shape) < 0.001] = -np.inf
    return buffer.astype(TYPES[config.activations]).astype(np.float64)


def check(config, seed, operators, *, stalled=True):
    """Load the buffer, then run operators, the first of which waits for the last load."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    feed = watched(config)
    buffer = random_buffer(rng, config)
    last = config.buffer_words - 1
    operators = [Operator(**operator, wait=n == 0) for n, operator in enumerate(operators)]
    expected = golden.feed_beats(config, operators, buffer)
    n_beats = len(expected["last"])
    stalls = random_stalls(rng, feed, 2 * n_beats + last) if stalled else {}
    stalls.pop("i_loads", None)  # so that the golden model knows the cycle of the event
    result = run(
        feed,
        streams={"i_loads": loads_of(config, buffer, event=last), "i_operators": operators_of(config, operators)},
        n_results=n_beats,
        stalls=stalls,
    )
    assert not result.outputs["error"]["valid"]
    assert result.cycles["i_loads"][-1] == last
    cycles = golden.feed_cycles(config, operators, stalls, events=[last])
    for name in ("i_operators", "o"):
        np.testing.assert_array_equal(result.cycles[name], cycles[name], err_msg=name)
    assert (result.outputs["n_done"], result.outputs["done_at"]) == (len(operators), cycles["done"][-1])
    beats = result.results["o"]
    is_finite = (expected["nans"][:, None] >> np.arange(config.rows)) & 1 == 0
    for name, values in expected.items():
        where = is_finite if name in ("mantissas", "exponents") else slice(None)
        np.testing.assert_array_equal(beats[name][where], values[where], err_msg=name)
    return result


def shapes_of(format, shapes, **fields):
    return [{"format": format, "inputs": inputs, "channel_tiles": tiles} | fields for inputs, tiles in shapes]


@pytest.mark.parametrize("format", ALL)
def test_shapes(format):
    """One input, whole and broken tiles, more and fewer channel tiles than groups; stale activations all around."""
    config = preset("tiny", groups=4, formats=ALL, buffer_inputs=1024)
    check(config, 60, shapes_of(format, [(1, 1), (32, 4), (33, 5), (172, 9), (1000, 2)], address=3))


@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("sets", [2, 3])
def test_sets(sets, stalled):
    """Operators for all sets, some, or one: each tile of one set after the other, whole tiles and single beats."""
    config = preset("tiny", groups=4, sets=sets, buffer_inputs=sets * 512)
    operators = []
    for number, (format, inputs) in enumerate([("int8", 172), ("int4", 1), ("int16", 33), ("int8", 64), ("int4", 500)]):
        fields = {"address": 3, "more_sets": (0, sets - 1, 1)[number % 3]}
        operators += shapes_of(format, [(inputs, 9)], **fields)
    check(config, 68, [*operators, *reversed(operators)], stalled=stalled)


@pytest.mark.parametrize("format", ALL)
def test_last_tiles(format):
    """A tile ends with the word that holds the last input, or whole: the edges of words and tiles, in a row."""
    config = preset("tiny", groups=4, formats=ALL, buffer_inputs=1024)
    layout = config.layout(format)
    word, tile = layout.inputs_per_word, layout.inputs
    sizes = [tile + 1, 1, word, tile - 1, word + 1, 2 * tile - word, tile, word - 1]
    result = check(config, 67, shapes_of(format, [(size, 5) for size in sizes], address=3))
    words = [layout.row_words(size) - -(-size // tile) for size in sizes]  # of codes
    beats = [2 * n // layout.groups * word // config.vector_lanes for n in words]  # in two passes
    assert len(result.cycles["o"]) == sum(beats)


@pytest.mark.parametrize("activations", ["bf16", "fp16"])
def test_activation_formats(activations):
    config = preset("tiny", activations=activations, buffer_inputs=512)
    check(config, 61, shapes_of("int8", [(40, 3), (512, 1)]))


@pytest.mark.parametrize(("name", "changes"), [("vcu128", {"rows": 2}), ("vu9p", {"rows": 3, "vector_lanes": 1})])
def test_widths(name, changes):
    config = preset(name, buffer_inputs=512, **changes)
    check(config, 62, shapes_of("int4", [(500, 70), (129, 1)]) + shapes_of("int16", [(128, 33)]))


def test_one_beat_a_cycle_without_a_gap():
    """Over tiles, passes and operators, whose tiles get no longer."""
    config = preset("tiny", groups=4, formats=ALL, buffer_inputs=512)
    operators = shapes_of("mxfp4", [(500, 5)]) + shapes_of("int4", [(500, 9), (64, 9)]) + shapes_of("int16", [(64, 3)])
    cycles = check(config, 63, operators, stalled=False).cycles["o"]
    np.testing.assert_array_equal(np.diff(cycles), 1)


def test_some_of_the_groups():
    config = preset("tiny", groups=4, buffer_inputs=512)
    operators = shapes_of("int8", [(64, 5)], first_group=1, n_groups=2) + shapes_of("int8", [(32, 2)], first_group=3)
    operators[-1]["n_groups"] = 1
    check(config, 64, operators)


REFUSED = [
    ("EMPTY", {"inputs": 0}),
    ("EMPTY", {"channel_tiles": 0}),
    ("RANGE", {"inputs": 509, "address": 1}),
    ("GROUPS", {"n_groups": 0}),
    ("GROUPS", {"first_group": 1}),
    ("FORMAT", {"format": "mxfp4"}),
]


@pytest.mark.parametrize(("code", "fields"), REFUSED)
def test_refused(code, fields):
    """What goes before is done, the error tells the operator, and nothing follows: the bench would see it."""
    config = preset("tiny", buffer_inputs=512)
    buffer = random_buffer(np.random.default_rng(65), config)
    good = Operator(format="int8", inputs=40, channel_tiles=3)
    bad = Operator(**{"format": "int8", "inputs": 40, "channel_tiles": 3} | fields)
    assert golden.refusal(config, good) is None
    assert golden.refusal(config, bad) == code
    result = run(
        watched(config),
        streams={"i_loads": loads_of(config, buffer, event=-1), "i_operators": operators_of(config, [good, good, bad])},
        n_results=2 * len(golden.feed_beats(config, [good], buffer)["last"]),
        until=("error", {"valid": 1, "code": FeedErrorCode[code].value, "operator": 2}),
    )
    assert result.outputs["error"] == {"valid": 1, "code": FeedErrorCode[code].value, "operator": 2}


def test_too_many_events():
    config = preset("tiny", buffer_inputs=2048)
    loads = loads_of(config, random_buffer(np.random.default_rng(66), config), event=-1)
    loads["event"] = np.arange(config.buffer_words) < 256
    expected = {"valid": 1, "code": FeedErrorCode.EVENT_OVERFLOW.value, "operator": 0}
    run(watched(config), streams={"i_loads": loads}, until=("error", expected))


@pytest.mark.parametrize("format", ["int4", "int16"])
def test_whole_tiles(format):
    """Matrices that grow: their last tile has all its words, and activations past the inputs count as zeros."""
    config = preset("tiny", groups=4, buffer_inputs=512)
    tile, word = config.layout(format).inputs, config.layout(format).inputs_per_word
    sizes = [1, tile + 3, tile, 2 * tile - 1]
    operators = shapes_of(format, [(size, 5) for size in sizes], address=3, whole=True)
    operators += shapes_of(format, [(3, 2)])
    result = check(config, 68, operators)
    assert len(result.cycles["o"]) == 2 * (1 + 2 + 1 + 2) * tile // config.vector_lanes + word // config.vector_lanes
