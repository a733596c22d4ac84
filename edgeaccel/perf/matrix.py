"""Cycle model of the matrix engine: when operators in a row are through, from their shapes and the memory."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, log2

from edgeaccel.formats import FORMATS
from edgeaccel.golden.array import tile_beats
from edgeaccel.golden.engine import port_words
from edgeaccel.golden.pe import group_latency, scaled_accumulator_latency

__all__ = ["PortMemory", "Prediction", "array_cycles", "predict"]

ADDRESS_CYCLES = 3  # from a streamer's command to its first burst
ENTRY_CYCLES = 2  # from an entry to its first word
READ_CYCLES = 5  # from an operator to its first activations out of the buffer
SHIFT_CYCLES = 4  # through the aligner's shifter
STORE_CYCLES = 2  # from a tile's last beat to its first word, in the first group
PACK_CYCLES = 1  # from a group's last result to a beat
CROSSING_EDGES = 3  # until the other clock sees what was written


@dataclass(frozen=True, kw_only=True)
class PortMemory:
    """What a port can get out of its memory.

    Attributes
    ----------
    latency : int
        Port cycles from an address to its first beat.
    share : float
        Beats a port cycle, in long sequential reads.
    """

    latency: int
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Core cycles from the cycle in which the commands and the first operator are taken, activations in the buffer.

    Attributes
    ----------
    first_word, last_word : int
        When the first group takes its first word, and the last one that any group takes.
    last_result : int
    busy_share : float
        Words of codes that the groups take in all those cycles, over what they could take: the share of multipliers
        at work.
    """

    first_word: int
    last_word: int
    last_result: int
    busy_share: float


def predict(config, operators, memory):
    """Cycles of operators in a row on a `MatrixEngine`.

    The first tile waits for its activations, or for its first word; from then on every group takes a word each core
    cycle, or as its memory gives them, whichever is less: nothing waits between tiles, passes and operators. Exact with
    an ideal memory, as long as the feed keeps up (a tile's beats are no more than its words) and so do the results (a
    pass gives no more beats of them than it has words) and the scalers. They limit matrices of few inputs whose words
    serve several channels, as INT4 at no more inputs than a word has: taken here as if each pass waited for them.

    Parameters
    ----------
    config : Config
    operators : list of edgeaccel.golden.feed.Operator
    memory : PortMemory
        Of each port.
    """
    clocks = _Clocks(config)
    first, last = operators[0], operators[-1]
    words = _of_groups(port_words(config, operator) for operator in operators)
    cycles = _of_groups(array_cycles(config, operator) for operator in operators)
    beats = max(1, config.word_bits // config.port_data_width)
    words_per_beat = max(1, config.port_data_width // config.word_bits)

    first_beat = clocks.to_port(ADDRESS_CYCLES) + memory.latency

    def offered(word):
        """When the word is out of the streamer, were it taken at once."""
        beat = (word // words_per_beat + 1) * beats - 1
        return clocks.to_core(first_beat + int(beat / memory.share)) + ENTRY_CYCLES + word % words_per_beat

    n_beats = tile_beats(config, first.format, first.stored_inputs(config))[0]
    stored = READ_CYCLES + n_beats - 1 + ceil(log2(config.vector_lanes)) + 2
    stored += SHIFT_CYCLES + n_beats - 1 + STORE_CYCLES + first.first_group
    first_word = max(offered(0), stored)

    def last_taken(group):
        behind = group - first.first_group
        return max(offered(words[group] - 1), max(offered(0), stored + behind) + cycles[group] - 1)

    last_take = (last.channel_tiles - 1) % last.groups(config)  # groups behind the first in the last pass
    layout, shared = config.layout(last.format), FORMATS[last.format].channels_per_word
    # The channels of the last tile become beats one a cycle, from the first one's last word on; so do the last word's.
    words_between = (layout.groups - 1) * layout.block_words((last.inputs - 1) % layout.inputs + 1)
    packed = max(shared - 1, config.tile_channels - 1 - int(words_between * clocks.word_cycles(memory.share)))
    results = config.tile_channels // config.vector_lanes
    through = (
        group_latency(config.lanes, config.formats, mantissa_bits=config.mantissa_bits)
        + scaled_accumulator_latency()
        + packed
        + PACK_CYCLES
    )
    last_result = last_taken(last.first_group) + through + results * last_take + config.groups - last.first_group
    codes = [
        count * (1 - -(-operator.inputs // layout.inputs) / layout.row_words(operator.stored_inputs(config)))
        for operator in operators
        for layout in [config.layout(operator.format)]
        for count in port_words(config, operator)
    ]
    return Prediction(
        first_word=first_word,
        last_word=max(last_taken(group) for group in range(config.groups) if words[group]),
        last_result=last_result,
        busy_share=sum(codes) / (config.groups * (last_result + 1)),
    )


def _of_groups(counts):
    """Of each group, all that the operators have for it."""
    return [sum(of_group) for of_group in zip(*counts, strict=True)]


def array_cycles(config, operator):
    """Cycles that each group needs at least: for its words, or for its channels' block sums, `scalers` a cycle."""
    layout = config.layout(operator.format)
    n_blocks = -(-operator.inputs // layout.inputs) * layout.blocks
    taken = min(config.scalers, FORMATS[operator.format].channels_per_word)
    words, steps = layout.row_words(operator.stored_inputs(config)), n_blocks * layout.channels // taken
    return [count // words * max(words, steps) for count in port_words(config, operator)]


class _Clocks:
    """From a cycle of one clock to the one of the other in which it is seen."""

    def __init__(self, config):
        ratio = Fraction(config.port_mhz) / Fraction(config.core_mhz)
        self._word_cycles = Fraction(config.word_bits, config.port_data_width) / ratio
        self._is_one = ratio == 1
        self._core, self._port = ratio.numerator, ratio.denominator

    def word_cycles(self, share):
        """Core cycles from one word to the next, in long reads."""
        return max(1, float(self._word_cycles) / share)

    def to_port(self, cycle):
        """Of what is handed to the port in a core cycle."""
        return cycle + 1 if self._is_one else cycle * self._core // self._port + CROSSING_EDGES

    def to_core(self, cycle):
        """Of what the port takes in a cycle, and hands on in the next."""
        return cycle + 1 if self._is_one else (cycle + 1) * self._port // self._core + CROSSING_EDGES
