"""Two devices side by side: what one leaves in memory the other must, byte for byte, after every token."""

import queue
import threading
from dataclasses import dataclass

import numpy as np

from edgeaccel import isa
from edgeaccel.cache import CacheLayout
from edgeaccel.runtime.device import StopReason
from edgeaccel.tiles import unpack

__all__ = ["CheckedDevice", "Difference", "compare", "compare_all"]

_SETTLES = 32
_PIECE = 1 << 24  # bytes that are compared at a time


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where two memories differ first.

    Attributes
    ----------
    tensor : str
        Region of the image.
    text : str
        The element, in words.
    values : (str, str)
        What the two hold.
    address : int
        Global, of the first byte that differs there.
    """

    tensor: str
    text: str
    values: tuple
    address: int


class Difference(Exception):
    """Two devices that do not agree.

    Members
    -------
    position : int
        Of the last token that both have made.
    place : Place or None
        In memory; None if it is not memory that differs.
    """

    def __init__(self, message, *, position=None, place=None):
        super().__init__(message)
        self.position, self.place = position, place


def compare(image, one, other):
    """The first `Place` in what a token leaves behind, by layers: keys, values, scales of values; then logits.

    Parameters
    ----------
    image : Image
    one, other : Device

    Returns
    -------
    Place or None
    """
    regions = image.manifest["regions"]
    for layer in range(image.manifest["model"]["n_layers"]):
        for find, name in ((_in_cache, f"layers.{layer}.cache"), (_in_scales, f"layers.{layer}.cache.scales")):
            if place := find(image, name, regions[name], one, other):
                return place
    return _in_floats("logits", regions["logits"], one, other)


def compare_all(image, one, other):
    """The first `Place` in all of memory up to the last region, weights and what lies between regions included."""
    machine = image.machine
    regions = image.manifest["regions"]
    ports = max((begin + size for begin, size in regions.values() if begin < machine.data_base), default=0)
    data = max((begin + size for begin, size in regions.values()), default=0)
    parts = [(n * machine.port_bytes, ports) for n in range(machine.config.groups)]
    parts.append((machine.data_base, max(0, data - machine.data_base)))
    for begin, size in parts:
        for address in range(begin, begin + size, _PIECE):
            n_bytes = min(_PIECE, begin + size - address)
            values = one.read(address, n_bytes), other.read(address, n_bytes)
            if (at := _first(*values)) is not None:
                return _of_bytes(_region_at(image, address + at), address + at, *(value[at:] for value in values))
    return None


def _first(one, other):
    """Index of the first byte that differs, or None."""
    if np.array_equal(one, other):
        return None
    return int(np.flatnonzero(one != other)[0])


def _region_at(image, address):
    machine = image.machine
    is_port = address < machine.data_base
    place = address % machine.port_bytes if is_port else address
    for name, (begin, size) in image.manifest["regions"].items():
        if begin <= place < begin + size and (begin < machine.data_base) == is_port:
            return f"{name}, port {address // machine.port_bytes}" if is_port else name
    return "no tensor at all"


def _of_bytes(tensor, address, one, other):
    texts = tuple(bytes(value[:8]).hex(" ") for value in (one, other))
    return Place(tensor=tensor, text=f"bytes from {address:#x} on", values=texts, address=address)


def _in_floats(name, region, one, other):
    address, size = region
    values = one.read(address, size), other.read(address, size)
    if (at := _first(*values)) is None:
        return None
    index = at // 4
    codes = [np.ascontiguousarray(value[4 * index : 4 * index + 4]).view("<u4")[0] for value in values]
    texts = tuple(f"{code:#010x} ({np.array(code).view(np.float32):.9g})" for code in codes)
    return Place(tensor=name, text=f"element {index}", values=texts, address=address + 4 * index)


def _layout(image):
    view = image.manifest["cache"]
    names = {"heads": "heads", "head_dim": "inputs", "format": "format", "page_bits": "page_bits"}
    return CacheLayout(config=image.machine.config, **{name: view[of] for name, of in names.items()})


def _in_scales(image, name, region, one, other):
    """Scales of values: FP16, [page, chunk of it, head, place in the chunk]."""
    address, size = region
    values = one.read(address, size), other.read(address, size)
    if (at := _first(*values)) is None:
        return None
    layout = _layout(image)
    page, rest = divmod(at, layout.page_scale_bytes)
    unit, place = divmod(rest // 2, layout.chunk)
    chunk, head = divmod(unit, layout.heads)
    position = page * layout.page_positions + chunk * layout.chunk + place
    codes = [np.ascontiguousarray(value[at // 2 * 2 :][:2]).view("<u2")[0] for value in values]
    texts = tuple(f"{code:#06x} ({np.array(code).view(np.float16):.5g})" for code in codes)
    text = f"scale of values, head {head}, position {position}"
    return Place(tensor=name, text=text, values=texts, address=address + at // 2 * 2)


def _in_cache(image, name, region, one, other):
    """Keys, then values, that lie in the tiles of all ports."""
    machine, (address, size) = image.machine, region
    differing = []
    for port in range(machine.config.groups):
        begin = address + port * machine.port_bytes
        values = one.read(begin, size), other.read(begin, size)
        if not np.array_equal(*values):
            words = (values[0] != values[1]).reshape(-1, machine.config.word_bytes).any(axis=1)
            differing += [(port, int(word)) for word in np.flatnonzero(words)]
    if not differing:
        return None
    layout = _layout(image)
    tiles = sorted({_tile(layout, port, word) for port, word in differing})
    for tile in tiles:
        if place := _in_tile(image, layout, name, address, tile, one, other):
            return place
    port, word = differing[0]
    at = address + port * machine.port_bytes + word * machine.config.word_bytes
    values = [device.read(at, machine.config.word_bytes) for device in (one, other)]
    byte = _first(*values)
    return _of_bytes(f"{name}, port {port}", at + byte, *(value[byte:] for value in values))


def _tile(layout, port, word):
    """(is values, first position of the chunk, head, tile of it, port, first word) of the tile that a word is of."""
    page, word = divmod(word, layout.page_words)
    of, group = divmod(port, layout.of_set)
    is_values = word >= layout.v_region
    if is_values:
        shared, rest = divmod(word - layout.v_region, layout.v_stride)
        turn, column = divmod(group, layout.value_spread)
        place = (shared << layout.share_bits) + turn
        row, words = divmod(rest, layout.v_words)
        tile = row * layout.value_spread + column
    else:
        place, rest = divmod(word, layout.k_stride)
        row, words = divmod(rest, layout.k_words)
        tile = row * layout.of_set + group
    chunk, head = divmod(place * layout.sets + of, layout.heads)
    position = page * layout.page_positions + chunk * layout.chunk
    return is_values, position, head, tile, port, page * layout.page_words + word - words


def _in_tile(image, layout, name, address, tile, one, other):
    is_values, position, head, number, port, word = tile
    config = image.machine.config
    channels = config.tile_channels
    n_words, inputs = (layout.v_words, layout.chunk) if is_values else (layout.k_words, layout.head_dim)
    begin = address + port * image.machine.port_bytes + word * config.word_bytes
    n_bytes = n_words * config.word_bytes
    packed = [device.read(begin, n_bytes) for device in (one, other)]
    at = begin + _first(*packed)
    options = {"format": layout.format, "shape": (channels, inputs), "block": config.block, "lanes": config.lanes}
    try:
        read = [unpack(np.ascontiguousarray(part).reshape(1, n_words, -1), **options) for part in packed]
    except ValueError:
        return None
    what = "values" if is_values else "keys"
    for part in ("scales", "codes"):
        values = [np.asarray(getattr(each, part)) for each in read]
        bits = [value.view(f"u{value.dtype.itemsize}") for value in values]
        found = np.argwhere(bits[0] != bits[1])
        if not len(found):
            continue
        channel, index = map(int, found[np.lexsort(found.T[::1] if is_values else found.T[::-1])[0]])
        texts = tuple(f"{value[channel, index]}" for value in values)
        if is_values:
            place, dimension = position + index, number * channels + channel
        else:
            place, dimension = position + number * channels + channel, index
        element = f"dimension {dimension}" if part == "codes" else f"scale of block {index}"
        return Place(tensor=name, text=f"{what}, head {head}, position {place}, {element}", values=texts, address=at)
    return None


class CheckedDevice:
    """A `Device` that runs two, and compares them after every token that they make and at the end of each run.

    Parameters
    ----------
    one, other : Device
        What `one` gives is what this gives. `other` runs in a thread.
    names : (str, str)

    Members
    -------
    tokens : int
        Tokens after which memory was compared.
    """

    def __init__(self, one, other, names=("rtl", "golden")):
        if one.machine != other.machine:
            raise ValueError("the devices to compare are different machines")
        self.machine = one.machine
        self.one, self.other, self.names = one, other, names
        self.tokens = 0
        self._image = None

    def load(self, image):
        self._image = image
        for device in (self.one, self.other):
            device.load(image)

    def write_tokens(self, position, tokens):
        for device in (self.one, self.other):
            device.write_tokens(position, tokens)

    def read_tokens(self, position, count):
        return self.one.read_tokens(position, count)

    def read(self, address, n_bytes):
        return self.one.read(address, n_bytes)

    def write(self, address, data):
        for device in (self.one, self.other):
            device.write(address, data)

    def counters(self):
        return self.one.counters()

    def reset(self):
        for device in (self.one, self.other):
            device.reset()

    def stop(self):
        self._is_stopped = True
        for device in (self.one, self.other):
            device.stop()

    def run(self, position, prompt, limit, on_batch=None):
        """As of `Device`.

        Raises
        ------
        Difference
            As soon as the devices do not agree.
        """
        self._is_stopped = False
        follower = _Follower(self.other, (position, prompt, limit))

        def check(batch):
            expected = follower.next()
            if batch != expected:
                self._differ(f"batch {batch}", f"{expected}", batch.position)
            if batch.token is not None:
                self._compare(batch.position + batch.rows)
                self.tokens += 1
            if on_batch is not None:
                on_batch(batch)
            follower.go_on()

        try:
            stop = self.one.run(position, prompt, limit, on_batch=check)
            if self._is_stopped:
                return stop
            # What the last batch left was compared, unless the run ended before.
            expected = follower.next()
            ends = [(end.reason, end.position) for end in (stop, expected) if hasattr(end, "reason")]
            if len(ends) < 2 or ends[0] != ends[1]:
                self._differ(_said(stop), _said(expected), stop.position)
            if stop.reason is not StopReason.ERROR:
                self._compare(stop.position)
                self._compare_tokens(stop.position)
            return stop
        finally:
            follower.end()

    def compare_all(self):
        """Compare all of memory.

        Raises
        ------
        Difference
        """
        self._raise(compare_all(self._image, self.one, self.other), None)

    def _compare(self, position):
        place = compare(self._image, self.one, self.other)
        settle = getattr(self.one, "settle", None)
        for _ in range(_SETTLES if settle is not None else 0):
            if place is None or place.tensor != "logits":
                break
            settle()  # a device may go on while the last logits are on their way to memory
            place = _in_floats("logits", self._image.manifest["regions"]["logits"], self.one, self.other)
        self._raise(place, position)

    def _compare_tokens(self, position):
        count = min(position + 1, self.machine.positions)
        one, other = (device.read_tokens(0, count) for device in (self.one, self.other))
        for place, values in enumerate(zip(one, other, strict=True)):
            if values[0] != values[1]:
                self._differ(f"token {values[0]}", f"token {values[1]}", place)

    def _differ(self, one, other, position):
        raise Difference(f"at position {position}: {self.names[0]} {one}, {self.names[1]} {other}", position=position)

    def _raise(self, place, position):
        if place is None:
            return
        when = "" if position is None else f"after token {position}: "
        values = ", ".join(f"{name} {value}" for name, value in zip(self.names, place.values, strict=True))
        message = f"{when}{place.tensor}, {place.text} (address {place.address:#x}): {values}"
        if instruction := _written_by(self._image, place):
            message += f"; written by instruction {instruction}"
        raise Difference(message, position=position, place=place)


def _said(end):
    """What a device told in the end, as text; it may have gone on instead."""
    if not hasattr(end, "reason"):
        return f"went on with batch {end}"
    return f"stopped with {end.reason.value} at {end.position}" + (f": {end.message or end.code}" if end.code else "")


def _written_by(image, place):
    """The instruction that writes a place, as text, or "" if none does or several might."""
    size = isa.INSTRUCTION_BYTES
    parts = place.tensor.split(".")
    layer = parts[1] if parts[0] == "layers" else None
    is_peeled = layer == "0" and any(name.startswith("layers.0") for name in image.manifest["names"])
    found = []
    for number, text in enumerate(image.manifest["names"]):
        name, _, fields = isa.decode(image.program[number * size : (number + 1) * size])
        if place.tensor == "logits":
            is_it = name == "vector" and fields["to_logits"]
        elif layer is not None and parts[2] == "cache":
            is_values = place.tensor.endswith("scales") or place.text.startswith("values")
            of_layer = text.startswith("layers.0") == is_peeled
            is_it = name == "append" and bool(fields["values"]) == is_values and of_layer
        else:
            is_it = False
        if is_it:
            found.append(f"{number} ({name} {text})")
    return " or ".join(found)


class _Follower:
    """A device that runs in a thread and waits after each batch."""

    def __init__(self, device, arguments):
        self._told, self._may = queue.Queue(), queue.Queue()
        self._device = device
        self._is_over = False
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def next(self):
        """What comes next: a batch, or in the end the `Stop`."""
        told = self._told.get()
        if isinstance(told, BaseException):
            raise told
        return told

    def go_on(self):
        self._may.put(None)

    def end(self):
        """Make it stop, and wait until it has."""
        self._is_over = True
        self._device.stop()
        self._may.put(None)
        self._thread.join()

    def _run(self, *arguments):
        try:
            self._told.put(self._device.run(*arguments, on_batch=self._on_batch))
        except BaseException as error:  # it is the other thread that must see it
            self._told.put(error)

    def _on_batch(self, batch):
        if self._is_over:
            self._device.stop()
            return
        self._told.put(batch)
        self._may.get()
