"""The program of a model: one for all prompts and positions."""

import numpy as np

from edgeaccel import isa
from edgeaccel.compiler.plan import CompileError, cuts
from edgeaccel.compiler.weights import fp32
from edgeaccel.golden.softmax import LOG2_E

__all__ = ["program"]


def program(plan):
    """(bytes, names): the instructions, and of each what it is for: a tensor's name, with * for the layer's number.

    A layer's matrices are asked for as early as their order allows: the array takes tiles in the order of its
    operators, those of attention among them. The first layer stands before the loop, so that its first tiles come
    while the embedding is read; the other layers share the instructions behind it.

    Raises
    ------
    CompileError
        If it is too long for the machine, or a number does not fit its field.
    """
    most = plan.machine.instructions
    for peeled in (True, False):
        writer = _Writer(plan)
        writer.model(peeled=peeled and plan.shape.n_layers > 1)
        if len(writer.lines) <= most:
            break
    else:
        raise CompileError(
            f"{plan.origin}: the program takes {len(writer.lines)} instructions, but the machine holds {most}"
        )
    try:
        return isa.assemble([(name, fields) for name, fields, _ in writer.lines]), [text for _, _, text in writer.lines]
    except ValueError as error:
        raise CompileError(f"{plan.origin}: the model is too large for the instruction set: {error}") from None


class _Writer:
    """Writes instructions one after the other, in `lines`: (name, fields, what it is for)."""

    def __init__(self, plan):
        self.plan, self.shape, self.lines = plan, plan.shape, []
        self.layer = "layers.*"
        self.norm = {
            "residual": 1,
            "operand": plan.x,
            "statistics": 1,
            "inverse_length": _code(1 / self.shape.dim),
            "epsilon": _code(self.shape.norm_epsilon),
            "to_buffer": 1,
            "gain": 1,
            "address": plan.buffer["inputs"],
            "event": 1,
        }

    def emit(self, name, text, **fields):
        self.lines.append((name, fields, text))

    @property
    def next(self):
        """Number of the next instruction."""
        return len(self.lines)

    def model(self, *, peeled):
        shape, plan = self.shape, self.plan
        self._cache()
        batch = self.next
        if peeled:
            self._fetch_inputs()
        self._embedding()
        self.emit("loop", "layers", layers=shape.n_layers)
        if peeled:
            self.layer = "layers.0"
            self._layer()
            self.emit("again", "layers", target=self.next + 1)
            self.layer = "layers.*"
        start = self.next
        self._fetch_inputs()
        self._layer()
        self.emit("again", "layers", target=start)
        self._fetch("classifier", when="last")
        self._multiply("classifier", plan.buffer["inputs"], wait=1, last=1, when="last")
        parts = cuts(shape.vocab_size, plan.machine.max_channels)
        for n, (vectors, channels, first) in enumerate(parts):
            self._vector(
                "classifier",
                vectors,
                channels,
                when="last",
                take=n == 0,
                scale=1,
                to_logits=1,
                logits=plan.data["logits"].address + 4 * first,
                starts=n == 0,
                ends=n == len(parts) - 1,
            )
        ends = {f"eos{n}": token for n, token in enumerate(plan.ends)}
        self.emit("next", "token", target=batch, n_eos=len(plan.ends), **ends)
        self.emit("end", "end")

    def _cache(self):
        plan, layout = self.plan, self.plan.layout
        self.emit("pages", "cache", first=0, count=plan.pages, page=0)
        view = layout.view(
            pages=plan.pages, n_pages=plan.pages, base=plan.cache_word, scales=plan.data["cache.scales"].address
        )
        layers = {
            "layer_words": plan.pages * layout.page_words,
            "layer_scales": plan.pages * layout.page_scale_bytes,
        }
        self.emit("cache", "cache", **view, **layers)

    def _embedding(self):
        """The batch's tokens become the residual stream, which enters the array as the first layer's inputs."""
        plan = self.plan
        # The batch before may still need its tables and its residual stream.
        self.emit("sync", "embedding")
        self._read("table", plan.data["table"].address, plan.table_bytes, "table", index="position")
        embedding = plan.data["embedding"].address
        self._read("embedding", embedding, plan.gain_bytes, "vector", index="token", vector=plan.x)
        self.emit("sync", "embedding")
        self._read("layers.0.attention.norm", plan.data["attention.norm"].address, plan.gain_bytes, "gain")
        self._vector("layers.0.attention.norm", 1, self.shape.dim, zeros=1, **self.norm)

    def _layer(self):
        self._attention()
        self._feed_forward()

    def _fetch_inputs(self):
        for kind in "kvq":
            self._fetch(kind)

    def _attention(self):
        plan, shape, buffer = self.plan, self.shape, self.plan.buffer
        head = {"scale": 1, "bias": shape.qkv_bias}
        rotated = {"rotated": shape.rope.rotated, "half": plan.half}
        for kind in "kv":
            self._multiply(kind, buffer["inputs"], wait=kind == "k")
            values = kind == "v"
            own = {} if values else {"take": 1, **rotated}
            # In front of its vectors: without it they go nowhere, and there may be more than can wait for their turn.
            self.emit("append", self._name("cache"), values=values, event=values)
            self._head_vectors(kind, shape.n_kv_heads, to_cache=1, **head, **own)
        self._multiply("q", buffer["inputs"])
        # The rows of a single token's places are query heads, the rows of several tokens' are those.
        own = {"to_buffer": 1, "address": buffer["q"], "ratio": plan.ratio, "event": 1}
        self._vector_of_heads("q", shape.n_heads, 0, when="single", spread=1, **head, **rotated, **own)
        self._vectors_of_cuts("q", shape.n_heads, when="several", **head, **rotated, **own)
        for spread in (True, False):
            self._attend("single" if spread else "several", spread)
        self._fetch("o")
        gains = plan.data["feed_forward.norm"].address
        self._layer_read("feed_forward.norm", gains, plan.gain_stride, plan.gain_bytes, "gain")
        self._multiply("o", buffer["attention"], wait=1)
        self._vector(self._name("o"), 1, shape.dim, to_vector=1, vector=plan.x, **self.norm)

    def _head_vectors(self, kind, heads, **fields):
        """The vectors of all heads: of a single token, and of several."""
        if len(self.plan.head_cuts(heads)) == 1:
            self._vector_of_heads(kind, heads, 0, **fields)
        else:
            self._vector_of_heads(kind, heads, 0, when="single", **fields)
            self._vectors_of_cuts(kind, heads, when="several", **fields)

    def _vectors_of_cuts(self, kind, heads, **fields):
        """The same in as many instructions as several tokens need: the first takes, the last gives an event."""
        parts = self.plan.head_cuts(heads)
        for n, (count, first) in enumerate(parts):
            own = {"take": n == 0, "event": n == len(parts) - 1}
            if "address" in fields:
                own["address"] = fields["address"] + first * self.plan.head_words
            self._vector_of_heads(kind, count, first, **fields | {name: own[name] for name in own if name in fields})

    def _vector_of_heads(self, kind, count, first, when="always", **fields):
        """Vectors of some heads, and the bias that they ask for."""
        plan = self.plan
        if self.shape.qkv_bias:
            name, head_bytes = f"attention.{kind}_bias", plan.head_words * plan.word_bytes
            address = plan.data[name].address + first * head_bytes
            self._layer_read(name, address, plan.bias_bytes(kind), count * head_bytes, "bias", when=when)
        self._vector(self._name(kind), count, self.shape.head_dim, when=when, **fields)

    def _attend(self, when, spread):
        plan, shape = self.plan, self.shape
        attends, places = plan.attends(spread=spread), plan.batches(spread=spread)
        window = shape.window or 0
        for n, (first, heads) in enumerate(attends):
            self.emit(
                "attend",
                self._name("cache"),
                when=when,
                first_head=first,
                n_heads=heads,
                ratio=plan.ratio,
                spread=spread,
                address=plan.buffer["q"] + first * places * plan.head_words,
                stride=plan.head_words,
                window=0 if window >= plan.positions else window,
                factor=_code(LOG2_E / np.sqrt(shape.head_dim)),
                wait=n == 0,
                load=n == 0,
                out_address=plan.buffer["attention"] + first * plan.ratio * plan.head_words,
                out_stride=plan.head_words,
                event=n == len(attends) - 1,
            )

    def _feed_forward(self):
        plan, shape, buffer = self.plan, self.shape, self.plan.buffer
        parts = plan.cuts(shape.hidden_dim)
        self._fetch("up")
        self._multiply("up", buffer["inputs"], wait=1)
        for n, (vectors, channels, first) in enumerate(parts):
            place = plan.up + plan.words(first)
            self._vector(self._name("up"), vectors, channels, take=n == 0, scale=1, to_vector=1, vector=place)
        self._fetch("gate")
        self._multiply("gate", buffer["inputs"])
        for n, (vectors, channels, first) in enumerate(parts):
            self._vector(
                self._name("gate"),
                vectors,
                channels,
                scale=1,
                activate=1,
                function="silu",
                factors=1,
                operand=plan.up + plan.words(first),
                to_buffer=1,
                address=buffer["hidden"] + plan.words(first),
                event=n == len(parts) - 1,
            )
        self._fetch("down")
        # Behind the gains of the last layer's attention lie those of the norm before the classifier.
        gains = plan.data["attention.norm"].address + plan.gain_stride
        followed = {"when": "followed"}
        self._layer_read("attention.norm", gains, plan.gain_stride, plan.gain_bytes, "gain", next_layer=1, **followed)
        self._multiply("down", buffer["hidden"], wait=1)
        result = {"to_vector": 1, "vector": plan.x}
        self._vector(self._name("down"), 1, shape.dim, **followed, **result, **self.norm)
        residual = {name: self.norm[name] for name in ("residual", "operand")}
        self._vector(self._name("down"), 1, shape.dim, when="unfollowed", **result, **residual)

    def _name(self, kind):
        if kind == "classifier":
            return kind
        return f"{self.layer}.{'feed_forward' if kind in ('up', 'gate', 'down') else 'attention'}.{kind}"

    def _fetch(self, kind, **fields):
        plan = self.plan
        matrix = plan.matrices[kind]
        self.emit(
            "fetch",
            self._name(kind),
            address=plan.first_words[kind],
            stride=0 if kind == "classifier" else plan.layer_stride,
            words=matrix.words,
            long_words=matrix.port_words if matrix.long else 0,
            long=matrix.long,
            format=matrix.format,
            **fields,
        )

    def _multiply(self, kind, address, **fields):
        matrix = self.plan.matrices[kind]
        self.emit(
            "multiply",
            self._name(kind),
            address=address,
            inputs=matrix.inputs,
            channel_tiles=matrix.tiles,
            format=matrix.format,
            **fields,
        )

    def _vector(self, text, vectors, channels, **fields):
        self.emit("vector", text, vectors=vectors, channels=channels, stride=self.plan.words(channels), **fields)

    def _read(self, text, address, size, target, *, index="none", stride=None, **fields):
        stride = {} if index == "none" else {"stride": stride or size}
        self.emit("read", text, address=address, bytes=size, target=target, index=index, **stride, **fields)

    def _layer_read(self, name, address, stride, size, target, *, next_layer=False, **fields):
        layer = f"{self.layer} + 1" if next_layer else self.layer
        self._read(f"{layer}.{name}", address, size, target, index="layer", stride=stride, **fields)


def _code(number):
    return int(fp32(number))
