"""Boxes and arrows on a grid, as SVG."""

from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

__all__ = ["Box", "Drawing", "text_width"]

FONT, MONO = "DejaVu Sans, Verdana, Arial, sans-serif", "DejaVu Sans Mono, Consolas, monospace"
SIZES = {"title": 14, "path": 10, "line": 11, "label": 10, "head": 20, "step": 11}
WIDE = {"title": 0.7, "path": 0.66, "line": 0.6, "label": 0.6, "head": 0.66, "step": 0.6}  # of a letter, at most
LEADING = {"title": 18, "path": 15, "line": 15, "step": 20}
PAD = 10
INK, FAINT = "#2c3e50", "#5b6875"
COLOURS = {
    "memory": ("#eef1f5", "#69788c"),
    "engine": ("#e3eefb", "#3a6ea5"),
    "array": ("#e2f4e6", "#3b8a51"),
    "vector": ("#fdf1dc", "#b8802a"),
    "attention": ("#f3e6f8", "#8a4fa3"),
    "control": ("#fbe6e6", "#b34a4a"),
}


def text_width(text, kind):
    """Pixels that a text takes at most."""
    return len(text) * SIZES[kind] * WIDE[kind]


@dataclass
class Box:
    """A box of the grid.

    Attributes
    ----------
    name : str
        By which arrows find it.
    place : (column, row) or (column, row, columns)
    kind : str
        One of `COLOURS`.
    title, path : str
    lines : list of str
        What stands in it, from top to bottom.
    steps : list of str
        A chain of small boxes below the text.
    steps_back : bool
        The chain goes from right to left.
    x, y, width, height : number
        What the drawing makes of it.
    """

    name: str
    place: tuple
    kind: str
    title: str
    path: str
    lines: list
    steps: tuple = ()
    steps_back: bool = False
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0

    @property
    def texts(self):
        """(kind, text, distance of the baseline from the top) of each line."""
        y, texts = PAD - 3, []
        for kind, text in (("title", self.title), ("path", self.path), *(("line", line) for line in self.lines)):
            y += LEADING[kind]
            texts.append((kind, text, y))
        return texts

    @property
    def step_widths(self):
        return [text_width(step, "step") + 2 * PAD for step in self.steps]

    def needs(self):
        """Width and height of what is in it."""
        widths = [text_width(text, kind) for kind, text, _ in self.texts]
        steps = sum(self.step_widths) + 20 * (len(self.steps) - 1)
        height = self.texts[-1][2] + PAD + (LEADING["step"] + PAD if self.steps else 0)
        return max(*widths, steps) + 2 * PAD, height

    def left(self, at=0.5):
        return self.x, self.y + at * self.height

    def right(self, at=0.5):
        return self.x + self.width, self.y + at * self.height

    def top(self, at=0.5):
        return self.x + at * self.width, self.y

    def bottom(self, at=0.5):
        return self.x + at * self.width, self.y + self.height


class Drawing:
    """Boxes on a grid whose columns and rows are as large as they must be, with gutters between them for arrows.

    Parameters
    ----------
    boxes : iterable of Box
    column_gutters, row_gutters : list of number
        In front of each column and row, and behind the last.
    top : number
        Height of what is above the grid.
    """

    def __init__(self, boxes, column_gutters, row_gutters, top=0):
        self.boxes = {box.name: box for box in boxes}
        self._out = []
        widths, heights = [0] * (len(column_gutters) - 1), [0] * (len(row_gutters) - 1)
        for box in self.boxes.values():
            column, row, *span = box.place
            width, height = box.needs()
            heights[row] = max(heights[row], height)
            if not span:
                widths[column] = max(widths[column], width)
        for box in self.boxes.values():  # a wide one widens its last column
            column, row, *span = box.place
            if span:
                last = column + span[0] - 1
                there = sum(widths[column : last + 1]) + sum(column_gutters[column + 1 : last + 1])
                widths[last] += max(0, box.needs()[0] - there)
        self._x, self.width = _places(widths, column_gutters, 0)
        self._y, self.height = _places(heights, row_gutters, top)
        for box in self.boxes.values():
            column, row, *span = box.place
            last = column + (span[0] if span else 1) - 1
            box.x, box.y = self._x[column], self._y[row]
            box.width = self._x[last] + widths[last] - box.x
            box.height = heights[row]

    def __getitem__(self, name):
        return self.boxes[name]

    def before_column(self, column, distance):
        """Position in the gutter in front of a column."""
        return self._x[column] - distance

    def above_row(self, row, distance):
        """Position in the gutter above a row."""
        return self._y[row] - distance

    def text(self, x, y, text, kind, anchor="start", colour="#1d2733", bold=False):
        font = MONO if kind == "path" else FONT
        weight = ' font-weight="bold"' if bold else ""
        anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self._out.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-family="{font}" font-size="{SIZES[kind]}" fill="{colour}"'
            f"{weight}{anchor}>{escape(text)}</text>"
        )

    def rectangle(self, x, y, width, height, fill, stroke, radius=5, extra=""):
        self._out.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" fill="{fill}"'
            f' stroke="{stroke}"{extra}/>'
        )

    def frame(self, names, kind, title, path):
        """A frame round some boxes."""
        boxes = [self.boxes[name] for name in names]
        x, y = min(box.x for box in boxes) - 12, min(box.y for box in boxes) - 26
        width = max(box.x + box.width for box in boxes) + 12 - x
        height = max(box.y + box.height for box in boxes) + 12 - y
        self.rectangle(x, y, width, height, "none", COLOURS[kind][1], extra=' stroke-dasharray="5 4"')
        self.text(x + 12, y + 17, title, "title", bold=True)
        self.text(x + 12 + text_width(title, "title") + PAD, y + 17, path, "path", colour=FAINT)

    def arrow(self, start, end, label="", *, by=(), segment=None, at=0.5, dashed=False, both=False):
        """An arrow from point to point, round the corners `by`: ("x", x) goes there sideways, ("y", y) up or down.

        The label stands above the longest horizontal piece, or that of the number `segment`, and beside an arrow that
        has none: in the middle, or as far along as `at` says.
        """
        points = [start]
        for axis, value in by:
            x, y = points[-1]
            points.append((value, y) if axis == "x" else (x, value))
        if by:
            x, y = points[-1]
            points.append((end[0], y) if by[-1][0] == "y" else (x, end[1]))
        points = [point for point, after in pairwise([*points, end]) if point != after] + [end]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        extra = (' stroke-dasharray="4 3"' if dashed else "") + (' marker-start="url(#tip)"' if both else "")
        self._out.append(
            f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.6"{extra} marker-end="url(#tip)"/>'
        )
        if not label:
            return
        flat = [(a, b) for a, b in pairwise(points) if a[1] == b[1] and a[0] != b[0]]
        if not flat:
            self.text(start[0] + 6, start[1] + at * (end[1] - start[1]) + 4, label, "label", colour=INK)
            return
        a, b = max(flat, key=lambda piece: abs(piece[1][0] - piece[0][0])) if segment is None else flat[segment]
        self.text(a[0] + at * (b[0] - a[0]), a[1] - 5, label, "label", anchor="middle", colour=INK)

    def svg(self, title):
        """The picture."""
        shapes = self._out
        self._out = []
        for box in self.boxes.values():
            self._draw(box)
        boxes, self._out = self._out, shapes
        size = f"{self.width:.0f} {self.height:.0f}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{self.width:.0f}"'
                f' height="{self.height:.0f}">',
                f"<title>{escape(title)}</title>",
                '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="6" markerHeight="6"'
                ' orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="#2c3e50"/></marker></defs>',
                f'<rect width="{self.width:.0f}" height="{self.height:.0f}" fill="#ffffff"/>',
                *boxes,
                *shapes,
                "</svg>",
                "",
            ]
        )

    def _draw(self, box):
        fill, stroke = COLOURS[box.kind]
        self.rectangle(box.x, box.y, box.width, box.height, fill, stroke)
        for kind, text, y in box.texts:
            colour = FAINT if kind == "path" else "#1d2733"
            self.text(box.x + PAD, box.y + y, text, kind, colour=colour, bold=kind == "title")
        if not box.steps:
            return
        gap = (box.width - 2 * PAD - sum(box.step_widths)) / max(1, len(box.steps) - 1)
        x, y = box.x + PAD, box.y + box.height - PAD - LEADING["step"]
        steps = list(zip(box.steps, box.step_widths, strict=True))
        edges = []
        for step, width in reversed(steps) if box.steps_back else steps:
            self.rectangle(x, y, width, LEADING["step"], "#ffffff", stroke, radius=3)
            self.text(x + width / 2, y + 14, step, "step", anchor="middle")
            edges.append((x, x + width))
            x += width + gap
        for (_, a), (b, _) in pairwise(edges):
            middle = y + LEADING["step"] / 2
            ends = ((b, middle), (a, middle)) if box.steps_back else ((a, middle), (b, middle))
            self.arrow(*ends)


def _places(sizes, gutters, start):
    """Where each begins, and where all ends."""
    places, at = [], start
    for size, gutter in zip(sizes, gutters, strict=False):
        places.append(at + gutter)
        at += gutter + size
    return places, at + gutters[-1]
