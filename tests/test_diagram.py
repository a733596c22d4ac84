"""The picture of a machine: whole, legible, the same twice."""

import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise
from pathlib import Path

import pytest

import edgeaccel
from edgeaccel.machine import machine
from edgeaccel.soc.diagram import block_diagram
from edgeaccel.soc.drawing import SIZES, WIDE

SVG = "{http://www.w3.org/2000/svg}"
UNITS = """Host, Program, Parameters, Registers, Sequencer, Orders, Program reader, Program memory, Token memory,
    Parameter reader, Rotary table, Vector memory, Logits, Gain loader, Result split, Result path, Vector source,
    Activation feed, Array, Result share, Request chain, Attention, Attention output, Values, Scores, Result router,
    Scales of values, Scale streamer, Page table, Walk, Passes, Keys and values, Cache writer, Row serialiser, group 0,
    scale, bias, rotary, activation, × factors, + residual, 1/rms"""
MACHINES = {
    "tiny": machine("tiny"),
    "vcu128": machine("vcu128"),
    "vu9p": machine("vu9p"),
    "one group, one row": machine("tiny", changes={"groups": 1, "rows": 1, "port_mhz": 300, "formats": ("int8",)}),
    "large": machine("vcu128", changes={"groups": 64, "rows": 64}, functions=("silu", "gelu"), positions=1 << 20),
}


@pytest.fixture(params=MACHINES, scope="module")
def picture(request):
    return MACHINES[request.param], ElementTree.fromstring(block_diagram(MACHINES[request.param], request.param))


def texts(root):
    """(text, (x0, y0, x1, y1)) of each."""
    widths = {(str(SIZES[kind]), "Mono" in font): WIDE[kind] for kind in SIZES for font in ["Mono" * (kind == "path")]}
    found = []
    for text in root.iter(f"{SVG}text"):
        size, is_mono = text.get("font-size"), "Mono" in text.get("font-family")
        width = len(text.text) * float(size) * widths[size, is_mono]
        x, y = float(text.get("x")), float(text.get("y"))
        x -= width / 2 if text.get("text-anchor") == "middle" else 0
        found.append((text.text, (x, y - 0.75 * float(size), x + width, y + 0.2 * float(size))))
    return found


def rectangles(root):
    for each in list(root.iter(f"{SVG}rect"))[1:]:
        x, y, width, height = (float(each.get(name)) for name in ("x", "y", "width", "height"))
        yield x, y, x + width, y + height


def meet(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_units_and_modules(picture):
    machine, root = picture
    written = [text for text, _ in texts(root)]
    for unit in " ".join(UNITS.split()).split(", "):
        assert any(text == unit or text.startswith((f"{unit}:", f"{unit},")) for text in written), unit
    paths = [path for text in written if text.startswith("edgeaccel/") for path in text.split(", ")]
    assert len(paths) > 25
    for path in paths:
        assert (Path(edgeaccel.__path__[0]).parent / path).is_file(), path
    assert f"group {machine.config.groups - 1}" in written


def test_nothing_overlaps(picture):
    _, root = picture
    placed, boxes = texts(root), list(rectangles(root))
    for (a, a_place), (b, b_place) in combinations(placed, 2):
        assert not meet(a_place, b_place), (a, b)
    for text, place in placed:
        for box in boxes:
            inside = box[0] <= place[0] and place[2] <= box[2] and box[1] <= place[1] and place[3] <= box[3]
            assert inside or not meet(box, place), (text, box)
    width, height = (float(root.get(name)) for name in ("width", "height"))
    assert all(x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height for _, (x0, y0, x1, y1) in placed)


def test_no_arrow_crosses_a_text(picture):
    _, root = picture
    for line in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for (x0, y0), (x1, y1) in pairwise(points):
            assert x0 == x1 or y0 == y1
            piece = (min(x0, x1) - 0.8, min(y0, y1) - 0.8, max(x0, x1) + 0.8, max(y0, y1) + 0.8)
            for text, place in texts(root):
                assert not meet(piece, place), text


def test_sizes():
    svg = block_diagram(MACHINES["vcu128"], "vcu128")
    for text in (
        "32 memory ports",
        "m_axi_0 … m_axi_31",
        "460.8 GB/s in all",
        "256 MiB each",
        "32 × 256 bit",
        "32 × 512 bit",
        "Array: 32 groups × 128 lanes × 4 rows",
        "8,192 multipliers; int4, int8, int16 in blocks of 128",
        "450 MHz → 250 MHz",
        "buffer 1,024 KiB",
        "32,768 tokens",
        "128 KiB",
        "8 sets of 4 groups",
        "4 × 8 × 16 bit",
    ):
        assert f">{text}<" in svg, text


def test_the_same_twice():
    assert block_diagram(MACHINES["tiny"], "tiny") == block_diagram(machine("tiny"), "tiny")
    assert "&lt;x&gt;" in block_diagram(MACHINES["tiny"], "<x>")
