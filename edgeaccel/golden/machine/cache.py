"""The cache of a machine: appending to it, and attention over it."""

import numpy as np

from edgeaccel.golden import append as golden_append
from edgeaccel.golden import batch, values
from edgeaccel.golden.attention import bounds
from edgeaccel.golden.machine.error import Fault
from edgeaccel.golden.scatter import merged
from edgeaccel.tiles import unpack

__all__ = ["append", "attend", "begin_append"]


class View:
    """The cache of a layer as the last `cache` tells it.

    Parameters
    ----------
    state : State
    """

    def __init__(self, state):
        if state.cache is None:
            raise Fault("cache", "no cache was told before")
        self.state, self.config = state, state.config
        self.__dict__.update(state.cache)  # the names of the fields
        config = state.config
        self.of_set = min(config.block // config.tile_channels, config.groups)
        self.sets = config.groups // self.of_set
        self.layer_base = self.base + state.layer * self.layer_words
        self.layer_scales_base = self.scales + state.layer * self.layer_scales
        if self.format not in config.formats or self.format == "mxfp4":
            raise Fault("shape", f"the cache cannot be in {self.format}")
        if not self.heads or not self.inputs or self.inputs % 2 or self.inputs > 256:
            raise Fault("shape", f"{self.heads} heads of {self.inputs} dimensions make no cache")
        words = [config.layout(self.format).row_words(inputs) for inputs in (self.inputs, config.block)]
        if [self.k_words, self.v_words] != words:
            raise Fault("cache", f"tiles of keys and values have {words[0]} and {words[1]} words, not as it says")
        if 1 << self.share_bits > self.of_set:
            raise Fault("cache", f"{1 << self.share_bits} units cannot share the {self.of_set} groups of a set")

    def place(self, position):
        """(page, chunk of it, place in the chunk) of a position."""
        chunk, place = divmod(position, self.config.block)
        index, chunk = divmod(chunk, 1 << self.page_bits)
        if index >= self.pages or self.table + index >= len(self.state.page_table):
            raise Fault("position", f"position {position} is past the {self.pages} pages of the sequence")
        page = int(self.state.page_table[self.table + index])
        if not 0 <= page < self.n_pages:
            what = "was never written" if page < 0 else f"says {page}, of {self.n_pages} pages"
            raise Fault("page", f"entry {self.table + index} of the page table {what}")
        return page, chunk, place

    def page_word(self, page):
        return self.layer_base + page * self.page_words

    def page_scales(self, page):
        return self.layer_scales_base + page * self.page_scale_bytes

    def keys(self, chunk, heads, n_tiles):
        """(float64 [heads, inputs, positions], FP16 codes [heads, blocks, positions]) of some tiles of a chunk."""
        page, page_chunk, _ = self.place(chunk * self.config.block)
        unit = page_chunk * self.heads + heads[:, None]
        tile = np.arange(n_tiles)
        group = unit % self.sets * self.of_set + tile % self.of_set
        word = self.page_word(page) + unit // self.sets * self.k_stride + tile // self.of_set * self.k_words
        codes, scales = self._tiles(group, word, self.inputs)
        # [heads, tiles, channels, ...] to positions last
        codes = codes.reshape(len(heads), -1, self.inputs).swapaxes(1, 2)
        return codes, scales.reshape(len(heads), codes.shape[2], -1).swapaxes(1, 2)

    def values(self, chunk, heads):
        """(float64 [heads, positions, dimensions], FP16 codes [heads, 1, dimensions]) of a chunk."""
        page, page_chunk, _ = self.place(chunk * self.config.block)
        unit = page_chunk * self.heads + heads[:, None]
        tile = np.arange(-(-self.inputs // self.config.tile_channels))
        share = 1 << self.share_bits
        spread = self.of_set // share
        place = unit // self.sets
        group = unit % self.sets * self.of_set + place % share * spread + tile % spread
        word = self.page_word(page) + self.v_region + place // share * self.v_stride + tile // spread * self.v_words
        codes, scales = self._tiles(group, word, self.config.block)
        codes = codes.reshape(len(heads), -1, self.config.block)[:, : self.inputs].swapaxes(1, 2)
        return codes, scales.reshape(len(heads), 1, -1)[..., : self.inputs]

    def value_scales(self, chunk, heads, count):
        """FP16 codes [heads, positions] that values are multiplied by."""
        page, page_chunk, _ = self.place(chunk * self.config.block)
        block = 2 * self.config.block
        begin = self.page_scales(page) + (page_chunk * self.heads + int(heads[0])) * block
        rows = self.state.memory.read(begin, len(heads) * block).view("<u2").reshape(len(heads), -1)
        return rows[:, :count]

    def _tiles(self, group, word, inputs):
        """(float64 [heads * tiles, channels, inputs], FP16 codes [heads * tiles, channels, blocks]) of whole tiles."""
        config = self.config
        layout = config.layout(self.format)
        every = self.state.memory.runs(group.reshape(-1), word.reshape(-1), layout.row_words(inputs))
        self.state.tile_words += every.shape[0] * every.shape[1]
        codes, scales, at = [], [], 0
        for begin in range(0, inputs, layout.inputs):
            count = min(layout.inputs, inputs - begin)
            n_words = layout.tile_words(count)
            # All tiles are like the input tiles of one that is as long as all of them.
            block = layout.block_words(count) * layout.inputs_per_word
            part = np.ascontiguousarray(every[:, at : at + n_words]).reshape(1, -1, config.word_bytes)
            shape = config.tile_channels, len(every) * block
            read = unpack(part, format=self.format, shape=shape, block=block, lanes=config.lanes)
            codes.append(read.codes.reshape(config.tile_channels, len(every), block)[..., :count].swapaxes(0, 1))
            scales.append(read.scales.view(np.uint16).T[..., None])
            at += n_words
        return np.concatenate(codes, axis=2).astype(np.float64), np.concatenate(scales, axis=2)


def append(state):
    """Do the appends that have got their vectors."""
    while state.pending:
        view, is_values, event, rows, (page, chunk, place) = state.pending[0]
        sets = state.heads[: -(-rows // state.config.rows)]
        if min(map(len, sets)) < view.heads:
            return
        vectors = [np.concatenate([heads.popleft() for heads in sets]) for _ in range(view.heads)]
        state.pending.popleft()
        for vector in vectors:
            if vector.shape != (rows, view.inputs):
                raise Fault(
                    "shape",
                    f"{vector.shape[0]} vectors of {vector.shape[1]} are given to an append of {rows} of {view.inputs}",
                )
        config = state.config.of_batch
        command = golden_append.Append(
            kind="v" if is_values else "k",
            format=view.format,
            rows=rows,
            heads=view.heads,
            inputs=view.inputs,
            unit=chunk * view.heads,
            place=place,
            page=view.page_word(page),
            scales=view.page_scales(page),
            k_words=view.k_words,
            k_stride=view.k_stride,
            v_region=view.v_region,
            v_words=view.v_words,
            v_stride=view.v_stride,
            share_bits=view.share_bits,
        )
        if refusal := golden_append.refusal(config, command):
            raise Fault("shape", f"the append is refused: {refusal}")
        for item in golden_append.append(config, state.machine.port_bytes, command, vectors):
            before = state.memory.read(item.address, len(item.data))
            state.memory.write(item.address, np.frombuffer(merged(item, before.tobytes()), np.uint8))
        state.appends += event


def begin_append(state, f):
    """What `append` does, once the vectors are there."""
    view, position, rows = View(state), state.position, state.rows
    place = view.place(position)
    view.place(position + rows - 1)
    state.pending.append((view, f["values"], f["event"], rows, place))
    append(state)


def attend(state, f):
    """What `attend` does, for all rows of the build."""
    if f["wait"]:
        state.wait_append()
    if f["load"]:
        state.wait_load()
    for which in range(state.sets):
        _attend_set(state, f, which)
    state.loads += f["event"]


def _attend_set(state, f, which):
    config, view = state.config, View(state)
    n_heads, ratio, spread = f["n_heads"], f["ratio"], f["spread"]
    buffer_base = which * config.set_words
    batches = -(-ratio // config.rows) if spread else ratio
    if not n_heads or not ratio or f["first_head"] + n_heads > view.heads:
        raise Fault("shape", f"heads {f['first_head']} on, {n_heads} of them, each for {ratio}, of {view.heads}")
    if n_heads * batches > state.machine.slots:
        raise Fault("shape", f"{n_heads * batches} queries at once are more than the {state.machine.slots} slots")
    queries = _queries(state, f, buffer_base, view.inputs, batches)  # [heads, queries, inputs]
    count = state.position + which * config.rows + 1
    if spread:
        counts, most = np.full(ratio, count), count
    else:
        counts, most = count + np.tile(np.arange(config.rows), ratio), count + state.rows_of(which) - 1
    before = state.tile_words
    results = _attend(state, view, f, queries, counts, most)
    state.tile_words += (batches - 1) * (state.tile_words - before)  # they are read for each batch of queries
    n_words = -(-view.inputs // config.vector_lanes)
    for n in range(n_heads * ratio):
        place = buffer_base + f["out_address"] + n * f["out_stride"]
        words = state.words("activation buffer", state.buffer, place, n_words)
        head, query = divmod(n, ratio)
        own, into = (results[head, [query]], [0]) if spread else _rows_of(results[head], query, config.rows)
        words[into] = np.pad(own, ((0, 0), (0, words.shape[1] - view.inputs)))


def _rows_of(results, query, rows):
    return results[query * rows : (query + 1) * rows], slice(None)


def _queries(state, f, buffer_base, inputs, batches):
    """Codes [heads, queries of one, inputs]: of query heads, or of the rows of query heads."""
    rows = state.config.rows
    n_words = -(-inputs // state.config.vector_lanes)
    places = [buffer_base + f["address"] + n * f["stride"] for n in range(f["n_heads"] * batches)]
    words = [state.words("activation buffer", state.buffer, place, n_words) for place in places]
    queries = np.stack(words).reshape(f["n_heads"], batches * rows, -1)[..., :inputs]
    return queries[:, : f["ratio"]] if f["spread"] else queries


def _attend(state, view, f, queries, counts, most):
    """Codes [heads, queries, inputs]; a chunk of all heads at a time, in the order of `golden.units.units`."""
    config = state.config
    block, window, factor = config.block, f["window"], np.uint32(f["factor"])
    heads = f["first_head"] + np.arange(f["n_heads"])
    lo, hi = bounds(counts, window)
    running, totals = np.zeros((2, *queries.shape[:2]), np.uint32)
    sums = np.zeros(queries.shape, np.uint32)
    first_chunk = (max(counts.min() - window, 0) if window else 0) // block
    for chunk in range(first_chunk, (most - 1) // block + 1):
        first, begin = chunk == first_chunk, chunk * block
        positions = min(most - begin, block)
        n_tiles = -(-positions // config.tile_channels)
        keys, key_scales = view.keys(chunk, heads, n_tiles)
        value_codes, ones = view.values(chunk, heads)
        scores = batch.product(config, queries, keys, key_scales)
        places = begin + np.arange(n_tiles * config.tile_channels)
        seen = (lo[:, None] <= places) & (places < hi[:, None])
        scales = view.value_scales(chunk, heads, len(places))[:, None]
        weights, running, shifts, powers = batch.weights(scores, scales, seen, factor, running, first)
        totals = values.accumulate_sum(totals, powers, shifts, first)
        results = batch.product(config, weights[..., :positions], value_codes[:, :positions], ones)
        sums = values.accumulate(sums, results, shifts[..., None], first)
    return values.finish(sums, totals[..., None])
