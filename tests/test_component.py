"""Components by name: what is found, how values are read, and what the messages say."""

import pytest

from edgeaccel import component, pe
from edgeaccel.component import arguments, build, find_component, public_components
from edgeaccel.pe.digit import DigitDecoder
from edgeaccel.pe.float import BF16, FP16, FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_convert import FloatConverter
from edgeaccel.pe.group import GroupDatapath
from edgeaccel.pe.lane import LanePair
from edgeaccel.pe.scaler import Scaler


@pytest.fixture
def exports(monkeypatch):
    """`edgeaccel.pe`, the only package, exports two components and a function."""
    monkeypatch.setattr(component, "_PACKAGES", ("pe",))
    for name, value in {"LanePair": LanePair, "FloatAdder": FloatAdder, "build": build}.items():
        monkeypatch.setattr(pe, name, value, raising=False)
    monkeypatch.setattr(pe, "__all__", ["LanePair", "FloatAdder", "build"], raising=False)


def test_public_components_are_what_packages_export(exports):
    assert public_components() == {"pe.LanePair": LanePair, "pe.FloatAdder": FloatAdder}
    assert find_component("pe.LanePair") is LanePair


def test_component_by_module():
    assert find_component("pe.group.GroupDatapath") is GroupDatapath
    assert isinstance(build("pe.lane.LanePair"), LanePair)


@pytest.mark.parametrize(
    "name",
    [
        "pe.Nothing",
        "pe.nothing.LanePair",
        "nothing.LanePair",
        "LanePair",
        "pe.LanePair.datapath",  # not a class
        "pe.build",  # not a component
        "pe.group.Pipelined",  # imported there, not exported
        "pe.lane._LanePair",
        "pe..LanePair",
        ".pe.LanePair",
        "pe.lane.LanePair ",
        "",
    ],
)
def test_unknown_component(exports, name):
    with pytest.raises(ValueError, match=r"no public component '.*'; there are: pe\.LanePair, pe\.FloatAdder$"):
        find_component(name)


def test_a_missing_dependency_is_not_an_unknown_component(monkeypatch):
    monkeypatch.setattr(component, "import_module", lambda name: __import__("absent_dependency"))
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        find_component("pe.LanePair")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("128", 128),
        ("-1", -1),
        ("None", None),
        ("int4", "int4"),
        ("'int4'", "int4"),
        ("int4,int8", ("int4", "int8")),
        ("int4,", ("int4",)),
        ("(int4, 'int8')", ("int4", "int8")),
        ("FP16", FP16),
        ("fp16", "fp16"),
        ("FP16,BF16", (FP16, BF16)),
        (" 3 ", 3),
    ],
)
def test_values(text, value):
    assert arguments(GroupDatapath, [f"formats={text}"])["formats"] == value


def test_arguments_include_defaults():
    assert arguments(LanePair) == {"mantissa_bits": 16}
    assert arguments(FloatAdder, ["depth=2"]) == {"format": FP32, "depth": 2}


def test_build_passes_values():
    group = build("pe.group.GroupDatapath", ["lanes=32", "formats=int8,int4", "block=64"])
    assert (group.lanes, group.formats, group.block) == (32, ("int4", "int8"), 64)
    converter = build("pe.float_convert.FloatConverter", ["i_format=FP32", "o_format=BF16"])
    assert isinstance(converter, FloatConverter)
    assert converter.o.payload.shape().width == BF16.width


@pytest.mark.parametrize(
    ("component_type", "settings", "message"),
    [
        (LanePair, ["lanes=4"], "unknown parameter 'lanes'; LanePair has the parameters: mantissa_bits=16$"),
        (DigitDecoder, ["lanes"], "a setting is NAME=VALUE, not 'lanes'"),
        (DigitDecoder, ["lanes=16", "lanes=32"], "parameter 'lanes' is set twice, to '32' at last"),
        (DigitDecoder, ["lanes=12x"], "lanes must be a Python literal or words, .* not '12x'"),
        (DigitDecoder, ["lanes="], "lanes must be a Python literal or words, .* not ''"),
        (DigitDecoder, ["lanes=print(1)"], r"lanes must be a Python literal or words, .* not 'print\(1\)'"),
        (Scaler, [], "sum_width must be set; Scaler has the parameters: sum_width, scales="),
        (FloatAdder, ["width=4"], "FloatAdder has the parameters: format=FP32, depth="),
    ],
)
def test_bad_settings(component_type, settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(component_type, settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pe.lane.LanePair", ["mantissa_bits=19"], "mantissa_bits must be 8 to 18"),
        ("pe.group.GroupDatapath", ["formats=3"], r"GroupDatapath cannot be built with .*formats=3.*: 'int' object"),
        ("pe.float_add.FloatAdder", ["format=fp99"], "FloatAdder cannot be built with format='fp99', .*attribute"),
    ],
)
def test_refused_values(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build(name, settings)
