"""The instruction set: what a program can say, and how it says it in 64 bytes an instruction.

This table is all there is. The sequencer's decoder, the assembler, the disassembler, the golden machine and the page
that `python -m edgeaccel.elaborate --preset` writes derive from it. Nothing here knows Amaranth.

The state that instructions depend on:

position, rows
    The batch of tokens that is worked on: tokens `position` to `position + rows - 1`.
sets
    The machine's rows take so many turns with the batch: tokens `position` to `position + R - 1` are the first set of
    `R` rows, and so on; the last set may have fewer. `multiply` is for all sets, and so is `append`. What else depends
    on tokens is done once for each set: `read` (or once for each token), `vector` and `attend`, with words of memories
    that are those of the first set. An instruction's event comes with its last set, and what it waits for comes before
    its first.
prompt, limit
    Tokens that were given, and positions at which to stop; both set by the host.
layer, layers
    The turn of the loop, and how many there are; 0 outside of it.
"""

from dataclasses import dataclass

from edgeaccel.formats import FORMATS

__all__ = [
    "FORMAT_NAMES",
    "HEADER",
    "INDICES",
    "INSTRUCTIONS",
    "INSTRUCTION_BYTES",
    "POSITION_WIDTH",
    "TARGETS",
    "TOKEN_WIDTH",
    "WHEN",
    "Instruction",
    "assemble",
    "decode",
    "disassemble",
    "encode",
]

INSTRUCTION_BYTES = 64
TOKEN_WIDTH = 20
POSITION_WIDTH = 20
FORMAT_NAMES = tuple(sorted(FORMATS, key=lambda name: FORMATS[name].code))

WHEN = ("always", "single", "several", "last", "followed", "unfollowed")
"""When an instruction is executed; else it is skipped.

single, several     The batch has one token, or more.
last                The batch ends with the last given token, so another one is wanted: ``position + rows >= prompt``.
followed            Another layer follows, or the batch is the last: what the layer gives is used.
unfollowed          Not so.
"""

INDICES = ("none", "layer", "token", "position")
"""What the stride of a read is multiplied by.

With `token` and `position` a read is done for each token of the batch, with its own; else for each set.
"""

TARGETS = ("bias", "gain", "vector", "table")
"""What becomes of what is read.

bias, gain      Goes to the vectors that ask for it, in the order of the program.
vector          Into the vector memory, of that row alone, or of all rows if the read is done once for a set.
table           Becomes the row's cosines and sines, or all rows' if the read is done once for a set.
"""

FUNCTIONS = ("exp2", "exp", "reciprocal", "rsqrt", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh")

_ADDRESS, _WORD, _BUFFER, _WORDS, _HEADS, _FP32 = 64, 40, 20, 24, 9, 32


@dataclass(frozen=True)
class Field:
    """A field of an instruction: its bits, its meaning, and the names of its values if they have any."""

    width: int
    doc: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instruction:
    """An instruction: its number, its fields from bit 8 on, and what it does."""

    opcode: int
    doc: str
    fields: dict[str, Field]


def _flag(doc):
    return Field(1, doc)


INSTRUCTIONS = {
    "end": Instruction(0, "Stop once all that was begun is done.", {}),
    "read": Instruction(
        1,
        "Read FP32 parameters from memory: `bytes` from `address + stride * index` on, in beats of `vector_lanes`"
        " elements, or for a table of as many cosines and then as many sines.",
        {
            "address": Field(_ADDRESS, "byte address"),
            "stride": Field(32, "bytes"),
            "index": Field(2, "what the stride is multiplied by", INDICES),
            "bytes": Field(_WORDS, "of a read"),
            "target": Field(2, "what becomes of them", TARGETS),
            "vector": Field(_BUFFER, "word of the vector memory, for the target `vector`"),
        },
    ),
    "fetch": Instruction(
        2,
        "Ask the array's ports for the tiles of a matrix: `long_words` words from `address + stride * layer` on for the"
        " first `long` ports, `words` for the others.",
        {
            "address": Field(_WORD, "word of each port's memory"),
            "stride": Field(_WORD, "words from layer to layer"),
            "words": Field(_WORDS, "may be 0"),
            "long_words": Field(_WORDS, "not 0 if `long` is not"),
            "long": Field(_HEADS, "ports that have a tile more than the others"),
            "format": Field(2, "of the tiles", FORMAT_NAMES),
        },
    ),
    "multiply": Instruction(
        3,
        "Multiply a matrix, whose tiles were asked for, by the rows of inputs in the activation buffer. Channel tiles"
        " go round all groups.",
        {
            "address": Field(_BUFFER, "word of the activation buffer"),
            "inputs": Field(24, ""),
            "channel_tiles": Field(16, ""),
            "format": Field(2, "of the tiles", FORMAT_NAMES),
            "wait": _flag("wait for one event of loads first"),
            "last": _flag("only for the batch's last set: the results are for `to_logits`"),
        },
    ),
    "vector": Instruction(
        4,
        "What is done to the next results of the array, `vectors` vectors of `channels` each, every one from the"
        " beginning of a tile; with several sets all together at most as many channels as the longest vector, in whole"
        " tiles. Steps in this order, each if its field is set: `scale`, `bias`, `rotated`, `activate`,"
        " `factors`, `residual`, `statistics`; then the destinations, where what lacks to a whole word is zeros.",
        {
            "zeros": _flag("take zeros instead of results of the array"),
            "vectors": Field(16, "at least 1"),
            "channels": Field(16, "of each vector"),
            "take": _flag("take the next statistics first: they are what `scale` multiplies by from now on"),
            "scale": _flag("multiply each row by its 1/rms"),
            "bias": _flag("add the next beats of bias, whole beats for each vector"),
            "rotated": Field(9, "rotate as many of the first channels, by the row's table"),
            "half": _flag("channel i goes with i + rotated / 2, not 2 i with 2 i + 1"),
            "activate": _flag("apply the function"),
            "function": Field(4, "", FUNCTIONS),
            "factors": _flag("multiply by the vector memory from `operand` on"),
            "residual": _flag("add the vector memory from `operand` on; not beside `factors`"),
            "operand": Field(_BUFFER, "word of the vector memory"),
            "statistics": _flag("give 1/rms of the result"),
            "inverse_length": Field(_FP32, "FP32 code of 1 / channels"),
            "epsilon": Field(_FP32, "FP32 code"),
            "to_vector": _flag("write to the vector memory from `vector` on"),
            "vector": Field(_BUFFER, "word of the vector memory"),
            "to_buffer": _flag("load into the activation buffer from `address` on"),
            "gain": _flag("what is loaded is multiplied by the next beats of gain"),
            "address": Field(_BUFFER, "word of the activation buffer"),
            "stride": Field(_BUFFER, "words from vector to vector, of `operand`, `vector` and `address`"),
            "spread": _flag("load row 0 of the vectors of a head's `ratio` queries into rows 0, 1, ... of one place"),
            "ratio": Field(_HEADS, "query heads that share a head of keys and values"),
            "event": _flag("the last load is an event that an operator waits for"),
            "to_cache": _flag("give the batch's rows to the next append"),
            "to_logits": _flag(
                "write the batch's last row to `logits`, FP32, and find its largest element; only for the last set, and"
                " `take` drops the statistics of the others"
            ),
            "logits": Field(_ADDRESS, "byte address, from vector to vector on"),
            "starts": _flag("with `to_logits`: the first channel is that of token 0"),
            "ends": _flag("with `to_logits`: the last channel is that of the last token"),
        },
    ),
    "cache": Instruction(
        5,
        "Say where keys and values lie, for the appends and attends that follow: `edgeaccel.cache.CacheLayout.view`.",
        {
            "table": Field(16, "first entry of the page table"),
            "pages": Field(16, "entries that the sequence has"),
            "n_pages": Field(16, "pages that there are"),
            "base": Field(_WORD, "of page 0 of layer 0, word of each port's memory"),
            "scales": Field(_ADDRESS, "of page 0's scales of layer 0, byte address"),
            "page_words": Field(_WORDS, ""),
            "page_scale_bytes": Field(_WORDS, ""),
            "page_bits": Field(4, ""),
            "heads": Field(_HEADS, "of keys and values"),
            "inputs": Field(_HEADS, "dimensions of a head"),
            "format": Field(2, "of keys and values", FORMAT_NAMES),
            "k_words": Field(_WORDS, ""),
            "k_stride": Field(_WORDS, ""),
            "v_region": Field(_WORDS, ""),
            "v_words": Field(_WORDS, ""),
            "v_stride": Field(_WORDS, ""),
            "share_bits": Field(2, ""),
            "layer_words": Field(_WORD, "words from layer to layer"),
            "layer_scales": Field(_WORD, "bytes of scales from layer to layer"),
        },
    ),
    "pages": Instruction(
        6,
        "Write the page table: entries `first` on become pages `page` on.",
        {"first": Field(16, ""), "count": Field(16, "at least 1"), "page": Field(16, "")},
    ),
    "append": Instruction(
        7,
        "Append the batch's keys or values, which the next vector with `to_cache` gives, at `position`.",
        {"values": _flag("values, not keys"), "event": _flag("give an event that an attend waits for")},
    ),
    "attend": Instruction(
        8,
        "Queries from the activation buffer to what they get from the cache, back into the buffer.",
        {
            "first_head": Field(_HEADS, ""),
            "n_heads": Field(_HEADS, "of keys and values"),
            "ratio": Field(_HEADS, "query heads that share one"),
            "spread": _flag(
                "the rows of a place are query heads of one token; results go back to row 0. Else they are the"
                " tokens of the batch, each of which sees one position more"
            ),
            "address": Field(_BUFFER, "word of the buffer: the first queries"),
            "stride": Field(_BUFFER, "words from place to place"),
            "window": Field(POSITION_WIDTH, "if not 0, the last positions that are seen"),
            "factor": Field(_FP32, "FP32 code: log2(e) times what scores are multiplied by"),
            "wait": _flag("wait for one event of appends first"),
            "load": _flag("its first operator waits for one event of loads"),
            "out_address": Field(_BUFFER, "word of the buffer: the first result"),
            "out_stride": Field(_BUFFER, "words from query head to query head"),
            "event": _flag("the last load is an event that an operator waits for"),
        },
    ),
    "loop": Instruction(9, "Begin layer 0 of `layers`.", {"layers": Field(12, "at least 1")}),
    "again": Instruction(
        10,
        "The next layer, at the instruction `target`, or on, if this was the last.",
        {"target": Field(8, "number of an instruction")},
    ),
    "sync": Instruction(11, "Wait until all vectors, and all reads for `vector` and `table`, are done.", {}),
    "next": Instruction(
        12,
        "The next batch: `position` becomes `position + rows`. If tokens were given there, as many of them as the rows"
        " hold (and one aligned group of positions), else the token that the logits gave, which is written to the token"
        " memory and ends all if it is an end of text. Ends too if `position` reaches `limit`.",
        {
            "target": Field(8, "number of an instruction"),
            **{f"eos{n}": Field(TOKEN_WIDTH, "an end of text") for n in range(4)},
            "n_eos": Field(3, "how many of them count"),
        },
    ),
}

HEADER = {"opcode": 5, "when": 3}
"""What every instruction begins with: fields and their bits, from bit 0 on."""


def _layout(name):
    """(name, first bit, width) of the fields of an instruction."""
    begin = sum(HEADER.values())
    for field, of in INSTRUCTIONS[name].fields.items():
        yield field, begin, of
        begin += of.width


def encode(name, *, when="always", **values):
    """64 bytes of an instruction; fields that are left out are 0.

    Raises
    ------
    ValueError
        If there is no such instruction, field or name, or a value does not fit.
    """
    if name not in INSTRUCTIONS:
        raise ValueError(f"instruction must be one of {', '.join(INSTRUCTIONS)}, not {name!r}")
    if when not in WHEN:
        raise ValueError(f"when must be one of {', '.join(WHEN)}, not {when!r}")
    fields = INSTRUCTIONS[name].fields
    if unknown := values.keys() - fields.keys():
        raise ValueError(f"{name} has no {', '.join(sorted(unknown))}; it has {', '.join(fields) or 'no fields'}")
    code = INSTRUCTIONS[name].opcode | WHEN.index(when) << HEADER["opcode"]
    for field, begin, of in _layout(name):
        value = values.get(field, 0)
        if isinstance(value, str):
            if value not in of.names:
                raise ValueError(f"{name}: {field} must be one of {', '.join(of.names)}, not {value!r}")
            value = of.names.index(value)
        value = int(value)
        if not 0 <= value < 1 << of.width:
            raise ValueError(f"{name}: {field} must be 0 to {(1 << of.width) - 1}, not {value}")
        code |= value << begin
    return code.to_bytes(INSTRUCTION_BYTES, "little")


def decode(data):
    """(name, when, {field: value}) of 64 bytes; values that have names come by name.

    Raises
    ------
    ValueError
        If there is no such instruction.
    """
    code = int.from_bytes(data, "little")
    opcode, when = code & 31, code >> HEADER["opcode"] & 7
    names = {of.opcode: name for name, of in INSTRUCTIONS.items()}
    if len(data) != INSTRUCTION_BYTES or opcode not in names or when >= len(WHEN):
        raise ValueError(f"no instruction has the code {bytes(data[:8]).hex()}...")
    values = {}
    for field, begin, of in _layout(names[opcode]):
        value = code >> begin & ((1 << of.width) - 1)
        if of.names:
            if value >= len(of.names):
                raise ValueError(f"{names[opcode]}: {field} must be below {len(of.names)}, not {value}")
            value = of.names[value]
        values[field] = value
    return names[opcode], WHEN[when], values


def assemble(program):
    """Bytes of a program: a list of (name, {field: value}), `when` among the fields."""
    return b"".join(encode(name, **values) for name, values in program)


def disassemble(data):
    """Lines of text, one an instruction, with the fields that are not 0."""
    lines = []
    for n in range(0, len(data), INSTRUCTION_BYTES):
        name, when, values = decode(data[n : n + INSTRUCTION_BYTES])
        words = [f"{n // INSTRUCTION_BYTES:3}", f"{name:8}", *([] if when == "always" else [f"[{when}]"])]
        fields = INSTRUCTIONS[name].fields
        words += [f"{field}={value}" for field, value in values.items() if value not in (0, *fields[field].names[:1])]
        lines.append(" ".join(words))
    return lines
