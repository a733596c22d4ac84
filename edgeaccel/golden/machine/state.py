"""What a machine holds between instructions."""

from collections import deque

import numpy as np

from edgeaccel.golden.machine.error import Fault

__all__ = ["Beats", "State", "rows_at"]


class Beats:
    """A queue of whole beats of elements.

    Parameters
    ----------
    name : str
        For messages.
    """

    def __init__(self, name):
        self.name, self._parts, self.length = name, deque(), 0

    def put(self, elements):
        self._parts.append(elements)
        self.length += len(elements)

    def take(self, count):
        """The next elements; a `Fault` if there are fewer."""
        if count > self.length:
            raise Fault("queue", f"{count} elements of {self.name} are wanted, but {self.length} were given")
        taken = []
        self.length -= count
        while count:
            part = self._parts.popleft()
            taken.append(part[:count])
            if len(part) > count:
                self._parts.appendleft(part[count:])
            count -= len(taken[-1])
        return np.concatenate(taken)


class State:
    """Memories, registers and queues of a machine.

    Members
    -------
    buffer, vector_memory : FP32 codes [rows, elements]
    tables : FP32 codes [sets, rows, beats, cosines or sines, lanes]
    factors : list of FP32 codes [rows] or None
        Of each set.
    page_table : int [pages], -1 where there is none
    cache : dict or None
        Fields of the last `cache`.
    tokens : int [positions]
    position, rows, prompt, limit, layer, layers : int
    results : list of Beats of [tile channels, rows]
        Of each set.
    statistics : queue of FP32 codes [rows]
    loads, appends : int
        Events that nothing has waited for.
    heads : list of queues of FP32 codes [rows, channels]
        What is given to appends, of each set.
    pending : queue of (view, is V, with event, rows, (page, chunk, place))
        Appends that wait for them.
    token : int or None
        What the logits have given.
    tile_words : int
        Words of weights and of the cache that the array has taken.
    """

    def __init__(self, machine, memory):
        config = machine.config
        self.machine, self.config, self.memory = machine, config, memory
        self.buffer = np.zeros((config.rows, config.buffer_inputs), np.uint32)
        self.vector_memory = np.zeros((config.rows, machine.vector_inputs), np.uint32)
        self.tables = np.zeros((config.sets, config.rows, machine.table_beats, 2, config.vector_lanes), np.uint32)
        self.page_table = np.full(machine.pages, -1)
        self.tokens = np.zeros(machine.positions, np.int64)
        self.cache, self.tile_words = None, 0
        self.begin(0, 1, 1)

    def begin(self, position, prompt, limit):
        """Be ready to run from a position on: all queues empty."""
        self.position, self.prompt, self.limit = position, prompt, limit
        self.rows = rows_at(self.config, position, prompt)
        self.layer = self.layers = 0
        sets = range(self.config.sets)
        self.factors, self.token, self.best = [None for _ in sets], None, None
        self.bias, self.gain, self.results = Beats("bias"), Beats("gain"), [Beats("results") for _ in sets]
        self.statistics, self.heads, self.pending = deque(), [deque() for _ in sets], deque()
        self.loads = self.appends = 0

    @property
    def last(self):
        """Whether the batch ends with the last given token."""
        return self.position + self.rows >= self.prompt

    @property
    def sets(self):
        """Of the batch."""
        return -(-self.rows // self.config.rows)

    def rows_of(self, which):
        """Tokens of a set."""
        return min(self.config.rows, self.rows - which * self.config.rows)

    def left(self):
        """What was begun and never used, as text, or "" if there is none."""
        left = {
            "elements of bias": self.bias.length,
            "elements of gain": self.gain.length,
            "results of the array": sum(results.length for results in self.results),
            "statistics": len(self.statistics),
            "vectors for appends": sum(map(len, self.heads)),
            "appends without vectors": len(self.pending),
            "events of loads": self.loads,
            "events of appends": self.appends,
        }
        return ", ".join(f"{count} {name}" for name, count in left.items() if count)

    def words(self, name, memory, first, count):
        """Elements of the words of a memory, [rows, elements], a view; a `Fault` if there are none."""
        lanes = self.config.vector_lanes
        if first < 0 or (first + count) * lanes > memory.shape[1]:
            n_words = memory.shape[1] // lanes
            raise Fault(
                "buffer", f"words {first} to {first + count - 1} are outside of the {n_words} words of the {name}"
            )
        return memory[:, first * lanes : (first + count) * lanes]

    def wait_load(self):
        if not self.loads:
            raise Fault("event", "it waits for the event of a load, and none was given")
        self.loads -= 1

    def wait_append(self):
        if not self.appends:
            raise Fault("event", "it waits for the event of an append, and none was given")
        self.appends -= 1


def rows_at(config, position, prompt):
    """Tokens of the batch that begins at a position: those that were given, within an aligned group of positions."""
    group = max(2, 1 << (config.batch_rows - 1).bit_length())
    return min(config.batch_rows, prompt - position, group - position % group)
