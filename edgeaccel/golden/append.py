"""Appending to the KV cache in NumPy: which half bytes of which beats are written, and in which cycles."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.formats import get_format
from edgeaccel.golden.elastic import Move, Source, Store, pipe, queue, run
from edgeaccel.golden.quantise import applier_latency, quantise, scale_latency
from edgeaccel.golden.scatter import Item, Scatter
from edgeaccel.golden.timing import Pattern
from edgeaccel.golden.two_pass import Stage

__all__ = ["Append", "append", "append_cycles", "head_steps", "refusal"]

ONE = 0x3C00  # in FP16
KV_FORMATS = ("int4", "int8", "int16")
PLANNER_LATENCY, PLANS, FORMER_LATENCY = 4, 2, 4


@dataclass(frozen=True, kw_only=True)
class Append:
    """What the writer is told; `edgeaccel.attention.append_command` says what it means. `kind` is "k" or "v"."""

    kind: str
    format: str
    rows: int
    heads: int
    inputs: int
    unit: int
    place: int
    page: int
    scales: int
    k_words: int = 0
    k_stride: int = 0
    v_region: int = 0
    v_words: int = 0
    v_stride: int = 0
    share_bits: int = 0


class Layout:
    """Where the elements of a command lie: sizes in words and in elements, and addresses of words.

    A word of codes has `slots` slots of two bytes. Slot `k` has byte `k` of both halves of the word's lane pairs: a
    16-bit element, or two bytes of inputs that are half a word apart.
    """

    def __init__(self, config, port_bytes, command):
        format = get_format(command.format)
        self.config, self.port_bytes, self.command = config, port_bytes, command
        self.word_bytes = config.word_bytes
        self.beat_bytes = config.port_data_width // 8
        self.span_bytes = min(self.word_bytes, self.beat_bytes)
        self.channels = self.slots = config.tile_channels
        self.cpw = format.channels_per_word
        self.ipw = format.inputs_per_word(config.lanes)
        self.tile_words = 1 + self.channels // self.cpw * (config.block // self.ipw)
        self.set_groups = min(config.block // self.channels, config.groups)
        self.sets = config.groups // self.set_groups
        self.window_rows = max(2, 1 << (config.rows - 1).bit_length())

    def port_word(self, group, word):
        return group * self.port_bytes + word * self.word_bytes % self.port_bytes

    def k_tile(self, head):
        """Address of the K tile that the positions of a command are in."""
        command = self.command
        unit, tile = command.unit + head, command.place // self.channels
        local, column = unit // self.sets, tile // self.set_groups
        group = unit % self.sets * self.set_groups + tile % self.set_groups
        return self.port_word(group, command.page + local * command.k_stride + column * command.k_words)

    def v_tile(self, head, tile):
        """Address of a V tile."""
        command = self.command
        unit = command.unit + head
        local, share = unit // self.sets, 1 << command.share_bits
        spread = self.set_groups // share
        group = unit % self.sets * self.set_groups + local % share * spread + tile % spread
        word = command.page + command.v_region + local // share * command.v_stride + tile // spread * command.v_words
        return self.port_word(group, word)

    def scales(self, head):
        """Address of the word of V scales that the positions are in."""
        block = 2 * self.config.block
        place = self.command.place // self.slots * self.slots
        return self.command.scales + (self.command.unit + head) * block + 2 * place

    def k_words(self, tile):
        """Words of a channel in an input tile of K."""
        block = self.config.block
        return -(-min(block, self.command.inputs - tile * block) // self.ipw)

    def spans(self, address, data, nibbles):
        """Items of a word, given as bytes and as masks of 4 half bytes a slot; parts without any are left out."""
        items = []
        for start in range(0, self.word_bytes, self.span_bytes):
            part = slice(start, start + self.span_bytes)
            mask = sum(int(of_slot) << 4 * n for n, of_slot in enumerate(nibbles[start // 2 : part.stop // 2]))
            if mask:
                beat, lane = divmod(address + start, self.beat_bytes)
                placed = bytes(lane) + data[part] + bytes(self.beat_bytes - lane - self.span_bytes)
                items.append(Item(beat * self.beat_bytes, placed, mask << 2 * lane))
        return items

    def scale_items(self, address, scales):
        """Items of the scales of the positions, in a word of one scale for each channel or position."""
        word, nibbles = np.zeros(self.slots, np.uint16), np.zeros(self.slots, int)
        places = self.command.place % self.slots + np.arange(len(scales))
        word[places], nibbles[places] = scales, 15
        return self.spans(address, word.tobytes(), nibbles)


def append(config, port_bytes, command, vectors):
    """Items that a command makes of its vectors, FP32 codes [heads, rows, inputs], in the order of the RTL.

    What is outside of an item's half bytes is zero here, and anything there.
    """
    layout = Layout(config, port_bytes, command)
    items = []
    for head in range(command.heads):
        codes, scales = zip(*(quantise(vector, command.format) for vector in vectors[head]), strict=True)
        items += (_k_items if command.kind == "k" else _v_items)(layout, head, np.array(codes), scales)
    return items


def _k_items(layout, head, codes, scales):
    config, command = layout.config, layout.command
    address, items = layout.k_tile(head), []
    first = command.place % layout.channels
    for tile in range(-(-command.inputs // config.block)):
        items += layout.scale_items(address, scales)
        words = layout.k_words(tile)
        inputs = np.zeros((command.rows, words * layout.ipw), int)
        part = codes[:, tile * config.block : (tile + 1) * config.block]
        inputs[:, : part.shape[1]] = part
        for pair in range(first // layout.cpw, (first + command.rows - 1) // layout.cpw + 1):
            rows = pair * layout.cpw - first + np.arange(layout.cpw)
            present = [row in range(command.rows) for row in rows]
            of_channels = [inputs[row] if there else 0 * inputs[0] for row, there in zip(rows, present, strict=True)]
            # A channel whose place is before the batch's first has its codes already.
            nibbles = np.full(layout.slots, 15 if present[0] else 10)
            for word in range(words):
                place = slice(word * layout.ipw, (word + 1) * layout.ipw)
                data = _slots(layout, command.format, *(channel[place] for channel in of_channels))
                start = address + (1 + pair * words + word) * layout.word_bytes
                items += layout.spans(start, data.tobytes(), nibbles)
        address += layout.tile_words * layout.word_bytes
    return items


def _slots(layout, format, codes, odd=None):
    """A word of the codes of a channel, or of two in int4, as its slots of two bytes."""
    if format == "int16":
        return codes.astype(np.uint16)
    pairs = (codes & 255 if odd is None else codes & 15 | (odd & 15) << 4).reshape(2, layout.slots)
    return (pairs[0] | pairs[1] << 8).astype(np.uint16)


def _v_items(layout, head, codes, scales):
    command, items = layout.command, []
    word, place = divmod(command.place, layout.ipw)
    half, first = divmod(place, layout.slots)
    slots = first + np.arange(command.rows)
    nibbles = np.zeros(layout.slots, int)
    nibbles[slots] = 15 if command.format == "int16" else 12 if half else 3
    for start in range(0, command.inputs, layout.channels):
        address = layout.v_tile(head, start // layout.channels)
        if command.place == 0:
            items += layout.spans(address, np.full(layout.slots, ONE, np.uint16).tobytes(), np.full(layout.slots, 15))
        for dim in range(start, min(start + layout.channels, command.inputs), layout.cpw):
            values = np.zeros((layout.cpw, layout.ipw), int)
            values[:, place : place + command.rows] = codes[:, dim : dim + layout.cpw].T
            number = (dim - start) // layout.cpw * (layout.config.block // layout.ipw) + word
            data = _slots(layout, command.format, *values)
            items += layout.spans(address + (1 + number) * layout.word_bytes, data.tobytes(), nibbles)
    return items + layout.scale_items(layout.scales(head), scales)


def refusal(config, command, *, max_head_dim=256):
    """Why a command is refused: the name of an `AppendErrorCode`, or None."""
    layout_rows = max(2, 1 << (config.rows - 1).bit_length())
    if not 1 <= command.rows <= config.rows:
        return "ROWS"
    if not command.heads:
        return "HEADS"
    if not 1 <= command.inputs <= max_head_dim or command.inputs % 2:
        return "INPUTS"
    if command.format not in config.formats or command.format not in KV_FORMATS:
        return "FORMAT"
    if command.place + command.rows > config.block:
        return "PLACE"
    if command.place % layout_rows + command.rows > layout_rows:
        return "GROUP"
    if command.scales % config.word_bytes:
        return "ALIGNMENT"
    if 1 << command.share_bits > min(config.block // config.tile_channels, config.groups):
        return "SHARE"
    return None


def head_steps(config, command):
    """The steps of the walk over a head: which of them complete a write."""
    layout = Layout(config, 1 << 30, command)
    spans = layout.word_bytes // layout.span_bytes
    if command.kind == "v":
        n_ones = spans * -(-command.inputs // layout.channels) if command.place == 0 else 0
        return np.ones(n_ones + command.inputs // layout.cpw + 1, bool)
    reads = layout.span_bytes // 2 // config.vector_lanes * (1 if command.format == "int16" else 2)
    first = command.place % layout.channels
    n_channels = (first + command.rows - 1) // layout.cpw - first // layout.cpw + 1
    of_span = np.arange(reads) == reads - 1
    tiles = range(-(-command.inputs // config.block))
    return np.concatenate(
        [part for tile in tiles for part in ([True], np.tile(of_span, n_channels * layout.k_words(tile) * spans))]
    )


def append_cycles(config, commands, *, latency, outstanding=32, max_head_dim=256, stalls=None):
    """Cycles of legal commands with an ideal memory, if none of them writes single half bytes.

    Those are commands of K in int4 that begin with an odd position: their reads and writes share the memory.

    Parameters
    ----------
    config : Config
    commands : list of Append
    latency : int
        Of the memory: from a beat to its answer.
    outstanding, max_head_dim : int
        As of the writer.
    stalls : dict of str to Pattern
        Of the streams "i_commands" and "i", and of "aw", "w" and "b", as `golden.scatter.Scatter` has them.

    Returns
    -------
    dict of int64 arrays
        Of "i_commands" and "i" the cycles in which items are taken, of "w" those of the beats, of "b" of the answers.
    """
    stalls = {name: (stalls or {}).get(name, Pattern()) for name in ("i_commands", "i", "aw", "w", "b")}
    lanes = config.vector_lanes
    vector_last = [np.arange(beats := -(-command.inputs // lanes)) == beats - 1 for command in commands]
    head_last = [np.tile(last, command.rows) for last, command in zip(vector_last, commands, strict=True)]
    head_ends = [np.arange(len(last)) == len(last) - 1 for last in head_last]

    def of_commands(parts, of_last_head=False):
        """The flags of a head, for all heads; or only for the last one of a command."""
        flags = []
        for part, command in zip(parts, commands, strict=True):
            before = np.zeros_like(part) if of_last_head else part
            flags += [before] * (command.heads - 1) + [part]
        return np.concatenate(flags)

    last = of_commands(head_last)
    ends_head, ends_command = of_commands(head_ends), of_commands(head_ends, True)
    steps = [head_steps(config, command) for command in commands]
    step_ends = [np.arange(len(step)) == len(step) - 1 for step in steps]
    emits, frees, ends_walk = of_commands(steps), of_commands(step_ends), of_commands(step_ends, True)

    held, feeding = Store(1, 1), Store(1, 1, refund=0)
    filling, plans, walking = queue(PLANS), Store(PLANNER_LATENCY, PLANS), Store(1, 1)
    quantiser = Stage(
        max_head_dim // lanes,
        statistic_latency=scale_latency(lanes),
        apply_latency=applier_latency(),
        last=last,
    )
    banks, formed = Store(1, 2), pipe(FORMER_LATENCY)
    scatter = Scatter(outstanding=outstanding, latency=latency, **{name: stalls[name] for name in ("aw", "w", "b")})
    take_command = Move([Source(stalls["i_commands"])], [held], turns=len(commands))
    take_beat = Move([Source(stalls["i"]), (feeding, ends_command)], quantiser.entry, turns=len(last))
    moves = [
        take_command,
        Move([held], [feeding, filling, plans], turns=len(commands)),
        take_beat,
        *quantiser.moves,
        Move([quantiser.exit, (filling, ends_command)], [(banks, ends_head)], turns=len(last)),
        Move([plans], [walking], turns=len(commands)),
        Move([(walking, ends_walk), (banks, frees)], [(formed, emits)], turns=len(emits)),
        Move([formed], [scatter.entry], turns=int(emits.sum())),
        *scatter.moves,
    ]
    cycles = run(moves)
    return {"i_commands": cycles[0], "i": cycles[2], "w": cycles[-2], "b": cycles[-1]}
