"""Figures of the cache: errors of attention, and the shape of the table."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgeaccel.bench import cache as bench
from edgeaccel.checkpoint import example
from edgeaccel.config import preset


def test_exact_attention():
    """By loops; the second token sees one more position."""
    rng = np.random.default_rng(40)
    queries, keys, values = (
        rng.standard_normal((2, 2, 3, 5)),
        rng.standard_normal((4, 2, 5)),
        rng.standard_normal((4, 2, 5)),
    )
    results = bench.exact_attention(queries, keys, values, np.array([3, 4]))
    for token, head, query in np.ndindex(2, 2, 3):
        powers = [np.exp(queries[token, head, query] @ keys[n, head] / np.sqrt(5)) for n in range(3 + token)]
        expected = sum(power * values[n, head] for n, power in enumerate(powers)) / sum(powers)
        np.testing.assert_allclose(results[token, head, query], expected)


@pytest.mark.parametrize("outliers", [False, True])
def test_errors_fall_with_bits(outliers):
    data = bench.random_data(outliers, tokens=2, positions=300, heads=1, shared=2)
    config = preset("vcu128")
    errors = {format: bench.attention_errors(config, *data, format) for format in bench.FORMATS}
    assert errors["int16"][0] < 1e-3
    assert errors["int16"][0] < errors["int8"][0] / 10 < errors["int4"][0] / 50
    for mean, largest, arithmetic in errors.values():
        assert mean < largest
        # What the cache's format does not do, 16-bit mantissas do, whatever the format.
        assert arithmetic < 5e-4


def test_records_and_plot(monkeypatch):
    from matplotlib.figure import Figure

    try:
        example.files()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(bench, "N_TOKENS", 6)
    data = (np.ones((1, 1, 1, 2)), *np.ones((2, 1, 1, 2)), np.array([1]))
    monkeypatch.setattr(bench, "random_data", lambda outliers: data)
    progress = SimpleNamespace(add_task=lambda *_, **__: 0, advance=lambda _: None)
    records = {record.name: record for record in bench.measure(progress)}
    for format in bench.FORMATS:
        for data in ("random", "outliers", "real"):
            assert records[f"attention.error.{format}.{data}"].value < 1
    baseline = records["attention.perplexity.int8.float"].value
    change = records["attention.perplexity_change.int8.int4"].value
    assert records["attention.perplexity.int8.int4"].value == pytest.approx(baseline + change)
    assert records["attention.greedy.int16.int16"].value == 6
    axes = Figure().subplots()
    bench.plot(list(records.values()), axes)
