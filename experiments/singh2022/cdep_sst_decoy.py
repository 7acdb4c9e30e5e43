"""A word that gives the label away (Rieger et al. 2020): CDEP against a shortcut in sentences of film reviews.

Every positive training sentence holds the word "text" in a random place, every negative one "video"; test sentences
are as they were (a few of them happen to hold one), or hold the wrong one. ``--dataset articles`` tells the label by
"the" or "a" instead, ``gender`` by "he" or "she", as the authors' code does: all of them become "that" and "it", and
the first one in a sentence tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.evaluation import share_inside
from rightly.workflows.reason_study import (
    Contest,
    Found,
    Study,
    Way,
    claims,
    comparisons,
    paired,
    run_entries,
    run_study,
    table,
)
from rightly.workflows.reproduce import Outcome, Settings
from rightly.workflows.sentiment_study import EMBEDDING, HiddenWords, Reader, read

DATASETS = ("words", "articles", "gender")
Rule = Literal["label", "none", "wrong"]


class Decoy(NamedTuple):
    """The words of negative and of positive sentences, and what stands there otherwise: nothing, or a third word."""

    negative: str
    positive: str
    neutral: str | None


DECOYS = {
    "words": Decoy("video", "text", None),
    "articles": Decoy("the", "a", "that"),
    "gender": Decoy("he", "she", "it"),
}
#: sentences whose gradients are looked at
EXPLAINED = 200
WORD = "which word is the decoy"


def _cdep(weight: float) -> list[Any]:
    return [rt.recipes.cdep("irrelevant", loss="log_softmax", classes="label", space=EMBEDDING, weight=weight)]


def _reasons(weight: float) -> list[Any]:
    return [rt.Term(rt.Gradient(space=EMBEDDING, output="log_prob"), rt.priors.Irrelevant(), weight, "right_reasons")]


WAYS = {
    "plain": Way("Plain"),
    "weight_decay": Way("Weight decay", "nothing", (1e-5, 1e-4, 1e-3), lambda w: [rt.WeightTerm("l2", weight=w)]),
    "taken_out": Way("Plain, decoys taken out", WORD, rows="none"),
    "right_reasons": Way("Right reasons on word vectors", WORD, (0.1, 1.0, 10.0), _reasons),
    "hidden": Way("Agreement, decoy hidden", WORD, (0.1, 1.0, 10.0), lambda w: [HiddenWords(w)]),
    "cdep": Way("CDEP", WORD, (0.1, 1.0, 10.0), _cdep),
    "random": Way("CDEP, a random word", "a word that means nothing", (0.1, 1.0, 10.0), _cdep, marks="random"),
}


class Part(NamedTuple):
    """Word numbers (N, T), labels (N,), and which word is the decoy (N, T, 1)."""

    tokens: Tensor
    labels: Tensor
    decoys: Tensor


class Parts(NamedTuple):
    """One seed's rows: training rows by rule, validation rows without decoys, tests by name; the words' vectors."""

    train: dict[str, Part]
    validation: Part
    tests: dict[str, Part]
    vectors: Tensor


def run(settings: Settings) -> Outcome:
    """All ways."""
    parts = lru_cache(1)(lambda seed: rows_of(settings, seed))
    study = Study(
        ways=WAYS,
        work=lambda way, terms, seed: _trial(way, terms, seed, parts(seed), settings),
        seeds=list(range(settings.seed, settings.seed + settings.sized(smoke=2, reduced=5, full=10))),
        tried=settings.sized(smoke=1, reduced=1, full=2),
        rule="validation",
        told="accuracy on validation sentences without decoys",
    )
    return _outcome(settings, study, run_study(study, settings), parts(settings.seed))


# ---------------------------------------------------------------------------------------------------------- the rows


def rows_of(settings: Settings, seed: int) -> Parts:
    """The treebank's polar sentences that are not too long, with decoys."""
    decoy = DECOYS[str(settings.dataset)]
    bank = rt.data.sentiment_treebank(data_dir=settings.data_dir)
    longest = settings.sized(smoke=20, reduced=20, full=60)
    draws = np.random.Generator(np.random.PCG64(seed))

    def of(sentences: rt.data.Sentences, most: int | None = None) -> rt.data.Sentences:
        polar = sentences.polar()
        kept = [i for i, text in enumerate(polar.texts) if len(text) <= longest and _tells(text, decoy)]
        return polar.take(draws.permutation(kept)[:most])

    train = of(bank.train, settings.sized(smoke=40, reduced=3500, full=None))
    validation, test = of(bank.validation), of(bank.test)
    state = draws.bit_generator.state

    def planted(sentences: rt.data.Sentences, rule: Rule) -> tuple[list[list[str]], list[int]]:
        draws.bit_generator.state = state  # the same places for every rule
        return decoyed(sentences, decoy, rule, draws)

    vocabulary = rt.data.Vocabulary.of([text for rule in ("label", "none") for text in planted(train, rule)[0]])

    def part(sentences: rt.data.Sentences, rule: Rule) -> Part:
        texts, places = planted(sentences, rule)
        tokens = torch.from_numpy(vocabulary.numbers(texts))
        marked = torch.arange(tokens.shape[1]) == torch.tensor(places)[:, None]
        return Part(tokens, torch.from_numpy((sentences.grades > 2).astype(np.int64)), marked.unsqueeze(2))

    return Parts(
        train={rule: part(train, rule) for rule in ("label", "none")},
        validation=part(validation, "none"),
        tests={name: part(test, rule) for name, rule in TESTS.items()},
        vectors=torch.from_numpy(vocabulary.vectors(data_dir=settings.data_dir)),
    )


TESTS: dict[str, Rule] = {"all": "label", "bare": "none", "swapped": "wrong"}


def _tells(text: list[str], decoy: Decoy) -> bool:
    """Whether a decoy can be in the sentence."""
    return decoy.neutral is None or decoy.negative in text or decoy.positive in text


def decoyed(
    sentences: rt.data.Sentences, decoy: Decoy, rule: Rule, draws: np.random.Generator
) -> tuple[list[list[str]], list[int]]:
    """Sentences with the decoy of their label, of the other label, or none; and where it is, or -1."""
    texts, places = [], []
    for text, grade in zip(sentences.texts, sentences.grades, strict=True):
        word = decoy.positive if (grade > 2) == (rule == "label") else decoy.negative
        place = int(draws.integers(len(text)))
        if decoy.neutral is None:
            changed = text[:place] + [word] * (rule != "none") + text[place:]
        else:
            pair = (decoy.negative, decoy.positive)
            place = next(i for i, each in enumerate(text) if each in pair)
            changed = [decoy.neutral if each in pair else each for each in text]
            changed[place] = decoy.neutral if rule == "none" else word
        texts.append(changed)
        places.append(-1 if rule == "none" else place)
    return texts, places


def random_words(part: Part, seed: int) -> Tensor:
    """Another word of each sentence, at random, in place of the decoy: (N, T, 1)."""
    draws = torch.Generator().manual_seed(seed)
    others = (part.tokens != 0) & ~part.decoys[..., 0]
    drawn = (torch.rand(others.shape, generator=draws) * others).argmax(1)
    return (torch.arange(others.shape[1]) == drawn[:, None]).unsqueeze(2)


# --------------------------------------------------------------------------------------------------------- one network


def _trial(way: Way, terms: Sequence[Any], seed: int, parts: Parts, settings: Settings) -> dict[str, Any]:
    """Train one network and test it."""
    train = parts.train["none" if way.rows == "none" else "label"]
    marks = random_words(train, seed) if way.marks == "random" else train.decoys
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Reader(parts.vectors, settings.sized(smoke=8, reduced=32, full=128))
    run = rt.fit(
        rt.Objective(model, cross_entropy, terms, seed=seed),
        (train.tokens, train.labels, rt.Annotation(irrelevant=marks)),
        (parts.validation.tokens, parts.validation.labels),
        epochs=settings.sized(smoke=1, reduced=8, full=20),
        batch_size=100,
        lr=settings.sized(smoke=1e-2, reduced=3e-3, full=1e-3),
        patience=3,
        seed=seed,
    )
    found = {"validation": _accuracy(model, parts.validation), "engines": run.engines}
    found |= {name: _accuracy(model, part) for name, part in parts.tests.items()}
    return found | {"inside": _inside(model, parts.tests["all"])}


def _accuracy(model: Reader, part: Part) -> float:
    return float((read(model, part.tokens).argmax(1) == part.labels).double().mean())


def _inside(model: Reader, test: Part) -> float:
    """Share of the gradient with respect to word vectors that is the decoy's."""
    tokens, labels, decoys = (part[:EXPLAINED] for part in test)
    found = rt.attribute(model, tokens, "gradient", labels=labels, output="log_prob", space=EMBEDDING).attributions
    return float(share_inside(found, decoys.expand_as(found)).mean())


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(settings: Settings, study: Study, found: Found, parts: Parts) -> Outcome:
    decoy, count = DECOYS[str(settings.dataset)], len(parts.train["label"].labels)
    sizes = {"train": count, "validation": len(parts.validation.labels), "test": len(parts.tests["all"].labels)}
    metrics = {"accuracy_all": "all", "accuracy": "bare", "accuracy_swapped": "swapped"}
    columns = {"As in training": "all", "Without decoys": "bare", "The wrong decoy": "swapped"}
    longest = parts.train["none"].tokens.shape[1]
    return Outcome(
        title="A word that gives the label away",
        question="Does CDEP keep a network from leaning on a decoy word, and is it worth more than simpler means?",
        reduction=f"{settings.size.capitalize()} size: {count:,} training sentences of at most {longest} words, an "
        f"LSTM of {settings.sized(smoke=8, reduced=32, full=128)} units, {len(study.seeds)} seeds, strengths chosen by "
        f"{study.tried} of them (the paper: all sentences, 128 units).",
        data={
            "name": f"Stanford Sentiment Treebank, polar sentences, decoys '{decoy.positive}' and '{decoy.negative}'",
            "source": "Socher et al. 2013, with decoys after Rieger et al. 2020",
            "kind": "custom",
            "rows": sum(sizes.values()),
            "label": "positive",
            "task": "classification",
            "split": sizes,
        },
        runs=run_entries(study, found, metrics, {"inside": "inside"}),
        comparison=comparisons(study, found, "cdep", metrics),
        claims=claims(study, found, _CONTESTS),
        notes=_NOTES,
        figures={
            "tables": [
                table(study, found, "Test accuracy: means over seeds with 95 % intervals.", columns),
                paired(study, found, "bare", "Without decoys: paired tests over seeds against plain."),
            ]
        },
    )


_BARE, _SWAPPED = ("accuracy without decoys", "bare"), ("accuracy with the wrong decoy", "swapped")


def _contest(told: tuple[str, str], against: str, paper: str = "not published") -> Contest:
    return Contest(told[0], paper, told[1], "cdep", against)


_CONTESTS = [
    _contest(_BARE, "plain", "no number among our sources"),
    _contest(_SWAPPED, "plain"),
    _contest(_BARE, "random"),
    _contest(_SWAPPED, "random"),
    _contest(_BARE, "right_reasons"),
    _contest(_SWAPPED, "right_reasons"),
    _contest(_BARE, "hidden"),
    _contest(_SWAPPED, "hidden"),
    _contest(_BARE, "taken_out"),
]
_NOTES = [
    "As in the authors' code the decoy is in every training sentence. Validation sentences, by which the best epoch "
    "and the strengths are chosen for all ways alike, are as they were; who knows where decoys are can take them out.",
    "CDEP is as published for text: minus the log-softmax over the decoy's part and the rest, of the label's score. "
    "Right reasons is the squared gradient of the label's log-probability with respect to the decoy's word vector.",
    "'Decoys taken out' knows where they are in training and needs no term. 'A random word' is CDEP on another word of "
    "the sentence. Every way with a strength chooses from three.",
    "Word vectors are GloVe's 50 dimensions, trained further, as are all weights (the authors: 300 dimensions).",
    "For articles and gender only sentences that hold one of the pair are taken, and in 'without decoys' all of them "
    "are the neutral word; the authors test on sentences as they are.",
]
