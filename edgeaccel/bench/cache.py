"""KV cache: error of attention by the cache's format, and perplexity of a real model.

Errors are of what heads give, against attention in float64 over keys and values that were never quantised: the mean
magnitude of the error over that of the values, and its largest. The arithmetic alone is against float64 over the same
quantised cache. Perplexity is over the tokens that the model gives greedily in float32, `edgeaccel.checkpoint.example`;
centred keys are less what those of another text have in common, `edgeaccel.golden.model.key_offsets`.
"""

import numpy as np

from edgeaccel.bench.record import Record
from edgeaccel.checkpoint import example
from edgeaccel.config import preset
from edgeaccel.golden import batch, quantise
from edgeaccel.golden.float import decode, encode
from edgeaccel.golden.model import Model, key_offsets
from edgeaccel.golden.reference import Reference, agreement, greedy, perplexity
from edgeaccel.golden.softmax import LOG2_E

__all__ = ["CACHES", "CALIBRATION", "WEIGHTS", "attention_errors", "exact_attention", "measure", "plot", "random_data"]

SOURCE = "python -m edgeaccel.bench cache"
N_TOKENS, N_PERPLEXITY = 200, 150
FORMATS = ("int16", "int8", "int4")
# Of matrices and of the classifier, by name.
WEIGHTS = {name: (name, name) for name in FORMATS} | {"int4_classifier_int8": ("int4", "int8")}
# Of keys and of values.
CACHES = {name: (name, name) for name in ("float", *FORMATS)}
CACHES |= {f"{keys}_values_int4": (keys, "int4") for keys in ("int16", "int8")}
CACHES |= {f"{name}_centred": (name, name) for name in ("int8", "int4")}
CALIBRATION = """Tim had a big dog. The dog liked to run in the sun and play with a red ball. One day, they went to the
beach. Tim saw a boat on the water. "Look!" he said to his mom. The boat was very fast. The dog was happy and jumped up
and down. At night they were tired and went home to sleep.""".replace("\n", " ")


def exact_attention(queries, keys, values, counts):
    """Attention in float64: [tokens, KV heads, query heads of one, head_dim], of which token n sees counts[n]."""
    scores = np.einsum("tkgd,pkd->tkgp", queries, keys, optimize=True) / np.sqrt(queries.shape[-1])
    scores[~np.broadcast_to((np.arange(len(keys)) < counts[:, None])[:, None, None], scores.shape)] = -np.inf
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("tkgp,pkd->tkgd", powers / powers.sum(axis=-1, keepdims=True), values, optimize=True)


def attention_errors(config, queries, keys, values, counts, format):
    """Errors over the mean magnitude: (mean, largest, mean of the arithmetic alone) of a cache's format."""
    cached = [_quantised(vectors, format) for vectors in (keys, values)]
    factor = encode(LOG2_E / np.sqrt(queries.shape[-1]))
    results = decode(batch.attend(config, encode(queries), *cached, counts=counts, factor=factor))
    exact = exact_attention(queries, keys, values, counts)
    again = exact_attention(queries, *(codes * decode(scales, "fp16")[..., None] for codes, scales in cached), counts)
    error = np.abs(results - exact)
    return (
        error.mean() / np.abs(exact).mean(),
        error.max() / np.abs(exact).mean(),
        np.abs(results - again).mean() / np.abs(again).mean(),
    )


def _quantised(vectors, format):
    pairs = [quantise.quantise(vector, format) for vector in encode(vectors).reshape(-1, vectors.shape[-1])]
    codes, scales = (np.array(each) for each in zip(*pairs, strict=True))
    return codes.reshape(vectors.shape), scales.reshape(vectors.shape[:-1])


def random_data(outliers, *, tokens=8, positions=1024, heads=2, shared=4, head_dim=128):
    """(queries, keys, values, counts): normal ones, or with outliers of x10 as models have them.

    Those of keys are in the same dimensions, 1 in 64, at all positions; those of values anywhere, 1%.
    """
    rng = np.random.default_rng(2407)
    queries = rng.standard_normal((tokens, heads, shared, head_dim))
    keys, values = rng.standard_normal((2, positions, heads, head_dim))
    if outliers:
        keys = keys * np.where(np.arange(head_dim) % 64 == 5, 10, 1)
        values = values * np.where(rng.random(values.shape) < 0.01, 10, 1)
    counts = np.linspace(positions // 2, positions, tokens).astype(int)
    # FP32, which is what is quantised.
    return *(vectors.astype(np.float32).astype(np.float64) for vectors in (queries, keys, values)), counts


def _real(checkpoint, tokens):
    """(queries, keys, values, counts) of all layers, as its heads side by side, in 16-bit weights and a float cache."""
    model = Model(checkpoint, _tiny(), weights="int16", cache="float")
    model.forward(tokens)
    queries = np.concatenate(model.queries, axis=1)
    keys, values = (np.concatenate([codes for codes, _ in cache], axis=1) for cache in (model.keys, model.values))
    return *(decode(codes) for codes in (queries, keys, values)), np.arange(1, len(tokens) + 1)


def _tiny():
    return preset("tiny")


def _error_records(progress, checkpoint, tokens):
    data = {
        "random": (preset("vcu128"), random_data(False)),
        "outliers": (preset("vcu128"), random_data(True)),
        "real": (_tiny(), _real(checkpoint, tokens)),
    }
    task = progress.add_task("errors", total=len(data) * len(FORMATS))
    records = []
    for name, (config, vectors) in data.items():
        for format in FORMATS:
            errors = attention_errors(config, *vectors, format)
            for figure, value in zip(("error", "largest_error", "arithmetic_error"), errors, strict=True):
                records.append(Record(f"attention.{figure}.{format}.{name}", float(value), "1", "simulated", SOURCE))
            progress.advance(task)
    return records


def _model_records(progress, checkpoint, tokens, offsets):
    """Perplexity and greedy tokens by weights and cache; then by what is done with the norms' gains."""
    task = progress.add_task("perplexity", total=len(WEIGHTS) * (len(CACHES) + 1))
    records = []

    def run(name, weights, cache, **options):
        matrices, classifier = WEIGHTS[weights]
        keys, values = CACHES[cache]
        model = Model(
            checkpoint, _tiny(), weights=matrices, classifier=classifier, cache=keys, values=values, **options
        )
        logits = model.forward([checkpoint.shape.bos, *tokens[:-1]])
        result = perplexity(logits[:N_PERPLEXITY], tokens[:N_PERPLEXITY])
        records.append(Record(f"attention.perplexity.{name}", result, "1", "simulated", SOURCE))
        records.append(Record(f"attention.greedy.{name}", agreement(logits, tokens), "tokens", "simulated", SOURCE))
        progress.advance(task)
        return result

    for weights in WEIGHTS:
        for cache in CACHES:
            result = run(f"{weights}.{cache}", weights, cache, key_offsets=offsets if "centred" in cache else None)
            if cache == "float":
                baseline = result
            else:
                name = f"attention.perplexity_change.{weights}.{cache}"
                records.append(Record(name, result - baseline, "1", "simulated", SOURCE))
        run(f"{weights}.int16.gains_apart", weights, "int16", folded=False)
    return records


def measure(progress):
    """All records of the bench; FileNotFoundError if the real model is not there."""
    checkpoint, tokenizer = example.load()
    reference = Reference(checkpoint)
    tokens = greedy(reference, [checkpoint.shape.bos], N_TOKENS)
    logits = Reference(checkpoint).forward([checkpoint.shape.bos, *tokens[:-1]])
    result = perplexity(logits[:N_PERPLEXITY], tokens[:N_PERPLEXITY])
    return [
        Record("attention.perplexity.float32", result, "1", "simulated", SOURCE),
        *_error_records(progress, checkpoint, [checkpoint.shape.bos, *tokens[:-1]]),
        *_model_records(progress, checkpoint, tokens, key_offsets(checkpoint, tokenizer.encode(CALIBRATION))),
    ]


def plot(records, axes):
    """Errors by cache and data; perplexity by cache and weights."""
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(12, 5)
    left, right = figure.subplots(1, 2)
    values = {record.name: record.value for record in records}
    for n, data in enumerate(("random", "outliers", "real")):
        places = np.arange(len(FORMATS)) + 0.25 * (n - 1)
        left.bar(places, [values[f"attention.error.{format}.{data}"] for format in FORMATS], 0.25, label=data)
    left.set(
        xticks=np.arange(len(FORMATS)),
        xticklabels=FORMATS,
        yscale="log",
        ylabel="mean error / mean magnitude",
        title="Error of attention by the cache's format (simulated)",
    )
    for weights in WEIGHTS:
        right.plot(
            list(CACHES), [values[f"attention.perplexity.{weights}.{cache}"] for cache in CACHES], "o", label=weights
        )
    right.axhline(values["attention.perplexity.float32"], color="tab:grey", linestyle=":", label="float32")
    right.set(ylabel="perplexity", title="stories260K by weights and cache (simulated)")
    right.tick_params(axis="x", rotation=30)
    for panel in (left, right):
        panel.grid(True, axis="y", which="both", alpha=0.3)
        panel.legend()
