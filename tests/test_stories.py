"""The stories' grammar, their vocabulary, and the model of the package, which tells such stories."""

import re

import numpy as np
import pytest

from edgeaccel import checkpoint, stories
from edgeaccel.checkpoint import tokenizer as tokenizers
from edgeaccel.golden.reference import Reference, greedy, perplexity
from edgeaccel.stories import generator, plots
from edgeaccel.stories import tokenizer as vocabulary

HELD_OUT_SEED = 3  # as in edgeaccel.stories.train: the model has not learned from its stories
NAMES = {name for lists in generator.NAMES.values() for names in lists for name in names.split()}
GENDERED = {word for words in generator.PRONOUNS.values() for word in words}


@pytest.fixture(scope="module")
def told():
    return [generator.generate(seed) for seed in range(1000)]


@pytest.fixture(scope="module")
def model():
    return checkpoint.load(stories.files()[0])


@pytest.fixture(scope="module")
def tokenizer(model):
    return tokenizers.load(stories.files()[1], model.shape.vocab_size)


def names_in(text):
    return NAMES & set(re.findall(r"[A-Z][a-z]+", text))


def genders_in(text):
    said = set(generator.words(text)) & GENDERED
    return {pronoun for pronoun, words in generator.PRONOUNS.items() if said & set(words)}


def expansions(template):
    match = generator.CHOICE.search(template)
    if not match:
        return [template]
    choices = match[1].split("|")
    return [
        text for choice in choices for text in expansions(template[: match.start()] + choice + template[match.end() :])
    ]


def test_a_seed_gives_its_story():
    assert [generator.generate(seed).text for seed in range(20)] == [
        generator.generate(seed).text for seed in range(20)
    ]
    assert list(generator.stories(5, 3)) == list(generator.stories(5, 4))[:3]


def test_stories_differ(told):
    assert len({story.text for story in told}) == len(told)
    assert {story.plot for story in told} == set(plots.PLOTS)
    assert not set(generator.stories(2, 200)) & set(generator.stories(3, 200))


def test_length(told):
    assert all(80 <= len(story.text.split()) <= 150 for story in told)


def test_hero_and_helper_are_the_only_names(told):
    for story in told:
        assert names_in(story.text) == {story.cast.hero, story.cast.helper}, story
    assert len(NAMES) == sum(len(names.split()) for lists in generator.NAMES.values() for names in lists)


def test_pronouns_are_those_of_hero_and_helper(told):
    for story in told:
        assert genders_in(story.text) <= {story.cast.pronoun, story.cast.helper_pronoun}, story
        if story.cast.kind in ("girl", "boy"):
            assert story.cast.pronoun == {"girl": "she", "boy": "he"}[story.cast.kind]
        assert story.cast.kind != story.cast.helper_kind


def test_articles(told):
    for story in told:
        for word, noun in re.findall(r"\b([Aa]n?) (\w+)", story.text):
            assert (word.lower() == "an") == (noun[0] in "aeiou" or noun == "hour"), (word, noun, story)


def test_sentences(told):
    for story in told:
        assert not re.search(r"[\[\]{}|]|  |[.!?,] ?[.!?,]|\ba a\b", story.text), story
        assert story.text[-1] == "."
        assert story.text[0].isupper()
        assert not re.search(r"[.!?] [a-z]", story.text), story
        assert story.text.count('"') % 2 == 0
        quoted = story.text.split('"')
        for before, said in zip(quoted[::2], quoted[1::2], strict=False):
            assert said[0].isupper() or before.endswith(", "), story
            assert said[-1] in ".,!?", story


def test_words_are_of_the_vocabulary(told):
    assert set().union(*(generator.words(story.text) for story in told)) <= generator.vocabulary()
    assert len(generator.vocabulary()) < 1000


@pytest.mark.parametrize("name", plots.PLOTS)
def test_every_sentence_can_be_told(name):
    plot = plots.PLOTS[name]
    cast = next(story.cast for seed in range(10000) if (story := generator.generate(seed)).plot == name)
    assert set(plot) <= {"heroes", "helpers", "traits", "places", "variants", "lesson", *generator.BEATS}
    for beat, templates in ((beat, plot[beat]) for beat in generator.BEATS if beat in plot):
        for text in (text for template in templates for text in expansions(template)):
            assert text == "" or re.fullmatch(r"[^{}\[\]]*[.!?]\"?", text.format(**cast.words)), (beat, text)


def test_many_sentences(told):
    """What is learned is how sentences go on, not a list of them."""
    sentences = {sentence for story in told for sentence in re.split(r"(?<=[.!?]) ", story.text)}
    assert len(sentences) > 5 * len(told)


def test_vocabulary_is_built_of_the_most_frequent_pairs():
    pieces, scores = vocabulary.build(["abab abab ba."] * 2, 259 + 4 + 3)
    # " abab" twice and " ba" once: "ab" is there four times, then "abab" twice and with it its space.
    assert pieces[259:262] == [b"ab", b"abab", b" abab"]
    assert sorted(pieces[262:]) == [b" ", b".", b"a", b"b"]
    assert scores[259:] == [0, -1, -2, -3, -4, -5, -6]


def test_vocabulary_of_impossible_size():
    with pytest.raises(ValueError, match="vocab_size must be at least 262, one for each character, not 260"):
        vocabulary.build(["ab"], 260)
    with pytest.raises(ValueError, match="vocab_size must be at most 264: all words are whole"):
        vocabulary.build(["ab"], 300)


def test_vocabulary_is_written_and_read(tmp_path):
    texts = list(generator.stories(7, 30))
    pieces, scores = vocabulary.build(texts, 400)
    vocabulary.write(tmp_path / "tokenizer.bin", pieces, scores)
    tokenizer = tokenizers.load(tmp_path / "tokenizer.bin", 400)
    assert (tokenizer.pieces, tokenizer.scores) == (pieces, scores)
    assert tokenizer.decode(tokenizer.encode(texts[0], eos=True)) == texts[0]


def test_tokenizer_of_the_package(tokenizer):
    texts = list(generator.stories(HELD_OUT_SEED, 200))
    tokens = list(vocabulary.encode(tokenizer, texts))
    assert [tokenizer.decode(ones) for ones in tokens] == texts
    assert tokens[:5] == [tokenizer.encode(text, eos=True) for text in texts[:5]]
    assert max(map(len, tokens)) <= 256
    others = "Zoë ate 3 crêpes — 美味しい! 🦊"
    assert tokenizer.decode(tokenizer.encode(others)) == others


def test_package_data(model):
    assert sum(path.stat().st_size for path in stories.files()) < 2e6
    assert {path.parent.name for path in stories.files()} == {"model"}
    shape = model.shape
    assert (shape.max_positions, shape.bos, shape.eos) == (256, 1, (2,))
    weights = sum(np.prod(size) for name, size in shape.tensors().items() if not shape.tied or name != "classifier")
    assert 250e3 <= weights <= 450e3
    assert all(np.isfinite(model.tensor(name)).all() for name in shape.tensors())


def test_held_out_perplexity(model, tokenizer):
    """The grammar's own choices are 44 nats a story, a perplexity of 1.23."""
    losses = []
    for tokens in vocabulary.encode(tokenizer, generator.stories(HELD_OUT_SEED, 8)):
        losses += [np.log(perplexity(Reference(model).forward(tokens[:-1]), tokens[1:]))]
    assert np.exp(np.mean(losses)) < 1.3


PROMPTS = pytest.mark.parametrize(
    "prompt",
    [
        "Once upon a time",
        "Once upon a time, there was a little fox named Pip.",
        "There once was a curious girl named Lily. She",
        "Once there was a young bear named Tom. Tom was very brave. One winter day",
    ],
)


def told_after(model, tokenizer, prompt):
    """The story that the model tells, always with its most likely token; fails if it does not end in its context."""
    tokens = tokenizer.encode(prompt)
    made = greedy(Reference(model), tokens, model.shape.max_positions - len(tokens))
    text = tokenizer.decode(tokens + made)
    print(text)
    assert len(tokens) + len(made) < model.shape.max_positions, "it does not end"
    return text


@PROMPTS
def test_it_tells_a_story(model, tokenizer, prompt):
    text = told_after(model, tokenizer, prompt)
    assert 70 <= len(text.split()) <= 170
    assert text.startswith(prompt)
    assert text[-1] in '."'


@PROMPTS
def test_it_tells_of_a_hero_and_a_helper(model, tokenizer, prompt):
    text = told_after(model, tokenizer, prompt)
    assert set(generator.words(text)) <= generator.vocabulary()
    assert len(names_in(text)) == 2
    assert text.count(re.search("named ([A-Z][a-z]+)", text)[1]) >= 5
    # Only the pronouns of those two.
    genders = {pronoun for pronoun, lists in generator.NAMES.items() if names_in(text) & set(" ".join(lists).split())}
    assert genders_in(text) <= genders


def test_training_writes_what_it_trained(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'edgeaccel[train]'")
    from edgeaccel.stories import train

    sizes = train.Sizes(dim=16, hidden_dim=24, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=300, seq_len=32)
    torch.manual_seed(1)
    decoder = train.Decoder(sizes)
    decoder.write(tmp_path / "stories.bin")
    tokens = [1, *range(40, 60), 2]
    with torch.no_grad():
        expected = decoder(torch.tensor([tokens]))[0].numpy()
    np.testing.assert_allclose(
        Reference(checkpoint.load(tmp_path / "stories.bin")).forward(tokens), expected, atol=1e-4
    )
