"""Little English stories, made by a grammar: somebody wants something, cannot do it alone, and meets a friend.

A story is drawn from a seed: a plot, a hero and a helper with their names, a place, a colour, and for each beat of the
plot one of its sentences. Who and what they are stays the same to the end, which is what a model has to learn.
"""

import random
import re
from dataclasses import dataclass

from edgeaccel.stories.plots import PLOTS

__all__ = ["BEATS", "Cast", "Story", "generate", "stories", "vocabulary", "words"]

BEATS = [
    "opening",
    "home",
    "wish",
    "problem",
    "attempt",
    "feel",
    "meet",
    "ask",
    "tell",
    "plan",
    "solution",
    "thanks",
    "end",
    "moral",
]
OPTIONAL = ("home", "attempt", "feel", "thanks")  # beats that a story may do without
LEAST_WORDS, MOST_WORDS = 80, 150

NAMES = {  # of heroes, of helpers; no name is in two lists
    "he": ("Tom Ben Max Sam Leo Finn Tim Jack Toby Pip Hugo Noah", "Gus Otto Bruno Walter Henry George Milo Felix"),
    "she": (
        "Lily Mia Anna Lucy Sue Bella Daisy Rosie Emma Nora Ruby Molly",
        "Olive Hazel Pearl Martha Ivy Clara Rosa Betty",
    ),
}
PRONOUNS = {"he": ("he", "him", "his", "himself"), "she": ("she", "her", "her", "herself")}
COLORS = ["red", "blue", "green", "yellow", "pink", "purple"]
FLYING, SWIMMING, HOPPING = "bird owl crow bee bat firefly", "otter", "frog rabbit"

COMMON = {
    "opening": [
        "Once upon a time, there was {a_hero} named {hero}. {He} was {trait} and loved to {hobby}.",
        "Once upon a time, there was {a_hero} named {hero}.",
        "Once upon a time, {a_hero} named {hero} lived near {place}.",
        "Once there was {a_hero} named {hero}. {hero} was very {trait}.",
        "There once was a {trait} {kind} named {hero}. {He} loved to {hobby}.",
        "In a [small|little|cozy] house near {place}, there lived {a_hero} named {hero}.",
    ],
    "home": [
        "{He} lived in a [small|little|cozy] [house|home] near {place}.",
        "{He} was a very {trait} {kind}.",
        "{He} loved to {hobby}[| every day].",
        "{He} lived [with {his} family|with {his} mother] near {place}.",
    ],
    "feel": [
        "{hero} [felt very sad|was very sad|began to cry].",
        "{hero} sat down and [cried|began to cry].",
        "{hero} did not know what to do.",
        "A [big|little] tear rolled down {his} face.",
    ],
    "meet": [
        "Just then, {a_helper} named {helper} {came}.",
        "[Then|Soon], {a_helper} named {helper} {came}.",
        "At that moment, {a_helper} {came}. [It was|The name of the {helper_kind} was] {helper}.",
        "{helper}, {a_helper}, saw {him} and [stopped|came closer].",
    ],
    "ask": [
        '"[What is wrong|Why are you sad|What happened], little {kind}?" asked {helper}.',
        '"[What is wrong|Why are you so sad|Can I help you]?" asked {helper}.',
        '"You look sad," said {helper}. "[What happened|What is wrong|How can I help]?"',
    ],
    "thanks": [
        '"[Thank you|Thank you so much], {helper}!" said {hero}.',
        '"[Thank you|Oh, thank you]!" said {hero}, and gave {helper} a big hug.',
        '{hero} [smiled|laughed|was so happy]. "You are a good friend, {helper}," {he} said.',
    ],
    "moral": [
        "From that day on, {hero} knew that {lesson}.",
        "{hero} learned that {lesson}.",
        "{hero} thought about it for a long time. {He} had learned that {lesson}.",
        '"Now I know that {lesson}," said {hero}.',
        "And so the little {kind} learned that {lesson}. The end.",
        "{hero} and {helper} were friends forever, and they both knew that {lesson}.",
    ],
}
SIZES = ["little", "small", "young", "little"]
HELPER_TRAITS = ["old", "kind", "wise", "friendly", "big", "gentle"]
HOBBIES = [
    "sing",
    "play outside",
    "run in the grass",
    "look at the clouds",
    "tell stories",
    "pick flowers",
    "explore",
    "laugh",
]
CAME = {
    FLYING: ["flew by", "flew down", "came flying by"],
    SWIMMING: ["came by", "came out of the water"],
    HOPPING: ["hopped by", "came hopping by"],
    "": ["came by", "walked by", "came along the path"],
}
CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who and what stays the same throughout a story.

    Attributes
    ----------
    hero, kind, pronoun : str
        The hero's name, what the hero is, and "he" or "she".
    helper, helper_kind, helper_pronoun : str
        The same of the helper.
    words : dict of str to str
        What the names in the plot's sentences stand for, these six included.
    """

    hero: str
    kind: str
    pronoun: str
    helper: str
    helper_kind: str
    helper_pronoun: str
    words: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Story:
    """A story.

    Attributes
    ----------
    plot : str
        Its name in `edgeaccel.stories.plots.PLOTS`.
    cast : Cast
    text : str
        One paragraph of 80 to 150 words.
    """

    plot: str
    cast: Cast
    text: str


def generate(seed: int) -> Story:
    """The story of a seed."""
    draw = random.Random(seed)
    name = draw.choice(list(PLOTS))
    while True:
        cast = _cast(draw, PLOTS[name])
        text = _tell(draw, PLOTS[name], cast)
        if LEAST_WORDS <= len(text.split()) <= MOST_WORDS:
            return Story(plot=name, cast=cast, text=text)


def stories(seed: int, n: int):
    """The texts of `n` stories, which no other seed has, one after the other."""
    for index in range(n):
        yield generate(seed << 32 | index).text


def article(noun: str) -> str:
    """A noun with "a" or "an" before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _cast(draw, plot):
    variant = dict(draw.choice(plot.get("variants", [{}])))
    helpers = variant.pop("helpers", "") or plot["helpers"]
    place = draw.choice(plot["places"])
    kind = draw.choice(plot["heroes"].split())
    helper_kind = draw.choice([other for other in helpers.split() if other != kind])
    pronoun = {"girl": "she", "boy": "he"}.get(kind) or draw.choice(list(NAMES))
    helper_pronoun = "she" if helper_kind in ("hen", "cow") else draw.choice(list(NAMES))
    who = {
        "hero": draw.choice(NAMES[pronoun][0].split()),
        "kind": kind,
        "pronoun": pronoun,
        "helper": draw.choice(NAMES[helper_pronoun][1].split()),
        "helper_kind": helper_kind,
        "helper_pronoun": helper_pronoun,
    }
    known = {
        **who,
        **_pronouns("", pronoun),
        **_pronouns("helper_", helper_pronoun),
        "place": place,
        "color": draw.choice(COLORS),
        "trait": draw.choice(plot["traits"].split()),
        "hobby": draw.choice(HOBBIES),
        "came": draw.choice(_came(helper_kind)),
        "a_hero": article(f"{draw.choice(SIZES)} {kind}"),
        "a_helper": article(f"{draw.choice(HELPER_TRAITS)} {helper_kind}"),
    }
    for name, word in variant.items():
        known[name] = word.format(**known)
        known[f"a_{name}"] = word if word == "bread" else article(word)
    known["lesson"] = draw.choice(plot["lesson"]).format(**known)
    return Cast(**who, words=known)


def _came(kind):
    return next(ways for kinds, ways in CAME.items() if kind in kinds.split() or not kinds)


def _pronouns(prefix, pronoun):
    known = {}
    for name, word in zip(PRONOUNS["he"], PRONOUNS[pronoun], strict=True):
        known[prefix + name] = word
        known[(prefix + name).capitalize()] = word.capitalize()
    return known


def _tell(draw, plot, cast):
    sentences = []
    left_out = draw.sample(OPTIONAL, draw.randint(1, 2))
    for beat in BEATS:
        if beat in left_out:
            continue
        template = draw.choice(plot.get(beat) or COMMON[beat])
        sentence = _choose(draw, template).format(**cast.words)
        if beat == "home" and _is_said(sentence, sentences[0], cast.words["trait"]):
            continue
        sentences.append(sentence)
    return " ".join(filter(None, sentences))


def _is_said(sentence, opening, trait):
    """Whether the opening has told already what a sentence says: where, what like, or what the hero loves."""
    return any(word in sentence and word in opening for word in ("lived", "loved", trait))


def _choose(draw, template):
    while match := CHOICE.search(template):
        template = template[: match.start()] + draw.choice(match[1].split("|")) + template[match.end() :]
    return template


def vocabulary() -> frozenset[str]:
    """All words that a story can have, in small letters, without the "'s" of what belongs to somebody."""
    texts = [word for names in NAMES.values() for word in names]
    texts += [
        *(word for words in PRONOUNS.values() for word in words),
        *COLORS,
        *SIZES,
        *HELPER_TRAITS,
        *HOBBIES,
        "a an",
    ]
    texts += [text for ways in CAME.values() for text in ways]
    for plot in (COMMON, *PLOTS.values()):
        for told in plot.values():
            for text in [told] if isinstance(told, str) else told:
                texts += text.values() if isinstance(text, dict) else [text]
    return frozenset(words(re.sub(r"\{.*?\}", " ", " ".join(texts))))


def words(text: str) -> list[str]:
    """A text's words, in small letters, without the "'s" of what belongs to somebody."""
    return re.findall(r"[a-z]+", text.lower().replace("'s", ""))
