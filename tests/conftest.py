"""The order of the tests: files that take longest come first, so that at the end no worker has one left alone.

A worker takes file by file (`make test`). Three files need the compiled `tiny`: who comes first compiles it, the others
come when it is there.
"""

LONGEST = (
    "test_soc",
    "test_array",
    "test_elaborate",
    "test_proofs",
    "test_attention",
    "test_engine",
    "test_golden_cycles",
    "test_streamer",
    "test_float",
    "test_group",
    "test_function",
    "test_device",
    "test_cost",
    "test_attention_scores",
    "test_bench_layer",
    "test_append",
    "test_accumulator",
    "test_vector_softmax",
    "test_attention_values",
    "test_feed",
)


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))
