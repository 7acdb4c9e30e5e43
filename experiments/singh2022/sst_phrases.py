"""What a sentiment network thinks of phrases, against what people say of them (Singh et al. 2022, table 1).

An LSTM learns from whole sentences only. Every phrase of sentences that it has not seen is scored by contextual
decomposition and by other methods, and the scores are compared with the labels that people gave to these phrases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, compared, over, run_entry, shown
from rightly.workflows.sentiment_study import TREEBANK, Corpus, Reader, Scorer, scorers, train_reader
from rightly.workflows.wording import p_told

METHODS = {
    "cd": "Contextual decomposition",
    "cd_shapley": "Contextual decomposition, Shapley convention",
    "cd_reference": "Contextual decomposition from no words, biases apart (ours)",
    "expected_gradients": "Expected gradients (100 draws of words)",
    "integrated_gradients": "Integrated gradients (50 steps from zero)",
    "gradient_x_input": "Gradient times input",
    "occlusion": "Occlusion (words replaced by zero)",
    "build_up": "Build-up (the phrase alone)",
}
#: whose claims are judged
CLAIMED = {"cd": "CD", "cd_reference": "CD from no words"}
#: phrases by their number of words, both ends included
LENGTHS = {"1": (1, 1), "2": (2, 2), "3 to 4": (3, 4), "5 to 8": (5, 8), "9 to 16": (9, 16)}
LISTED = (1, 3, 5)


def run(settings: Settings) -> Outcome:
    """A network a seed."""
    seeds = settings.sized(smoke=2, reduced=5, full=10)
    keys = [{"seed": settings.seed + seed} for seed in range(seeds)]
    rows = settings.trials.run("networks", keys, lambda key: study(key["seed"], settings))
    return _outcome(settings, rows)


def study(seed: int, settings: Settings) -> dict[str, Any]:
    """Train, score the phrases of unseen sentences, and list the highest of the validation sentences."""
    held_out, listed = settings.sized(smoke=20, reduced=500, full=1000), settings.sized(smoke=5, reduced=300, full=900)
    corpus = Corpus.load(settings.data_dir, held_out, seed, settings.sized(smoke=200, reduced=None, full=None))
    model, accuracies = train_reader(corpus, seed, epochs=settings.sized(smoke=1, reduced=5, full=10))
    ways = scorers(corpus, seed)
    phrases = {name: labelled(model, corpus, way) for name, way in ways.items()}
    correlations = {
        f"{method}, {name}": _correlation(found, *ends)
        for method, found in phrases.items()
        for name, ends in LENGTHS.items()
    }
    means = {
        f"mean_{method}": float(np.mean([correlations[f"{method}, {name}"] for name in LENGTHS])) for method in METHODS
    }
    counts = {f"phrases, {name}": int(_within(phrases["cd"], *ends).sum()) for name, ends in LENGTHS.items()}
    return {**accuracies, **correlations, **means, **counts, "top": top(model, corpus, ways["cd"], listed)}


def labelled(model: Reader, corpus: Corpus, scorer: Scorer) -> np.ndarray:
    """Of every labelled phrase in the unseen sentences: its length, its grade and its score, (P, 3).

    A phrase that stands in several sentences counts each time: its score differs, as do its surroundings.
    """
    found = []
    for text in corpus.held_out.texts:
        table = scorer(model, corpus.numbers(text))
        for first in range(len(text)):
            # the whole sentence is no phrase: its score is the prediction, whatever the method
            for last in range(first, len(text) - (first == 0)):
                grade = corpus.bank.phrases.get(" ".join(text[first : last + 1]))
                if grade is not None:
                    found.append((last - first + 1, grade, float(table[first, last])))
    return np.array(found)


def top(model: Reader, corpus: Corpus, scorer: Scorer, sentences: int) -> dict[str, list[str]]:
    """The most positive and the most negative phrases of the validation sentences, by number of words."""
    best: dict[int, list[tuple[float, str]]] = {length: [] for length in LISTED}
    for text in corpus.validation.texts[:sentences]:
        table = scorer(model, corpus.numbers(text))
        for length in LISTED:
            for first in range(len(text) - length + 1):
                phrase = " ".join(text[first : first + length])
                best[length].append((float(table[first, first + length - 1]), phrase))
    found = {}
    for length, scored in best.items():
        unique = sorted({phrase: score for score, phrase in scored}.items(), key=lambda pair: pair[1])
        found[f"positive, {length}"] = [phrase for phrase, _ in unique[:-6:-1]]
        found[f"negative, {length}"] = [phrase for phrase, _ in unique[:5]]
    return found


def _within(phrases: np.ndarray, least: int, most: int) -> np.ndarray:
    found: np.ndarray = (phrases[:, 0] >= least) & (phrases[:, 0] <= most)
    return found


def _correlation(phrases: np.ndarray, least: int, most: int) -> float:
    kept = phrases[_within(phrases, least, most)]
    return float(spearmanr(kept[:, 1], kept[:, 2]).statistic)


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(settings: Settings, rows: list[dict[str, Any]]) -> Outcome:
    others = [method for method in METHODS if not method.startswith("cd")]
    pairs = [(own, other) for own in CLAIMED for other in others]
    against = dict(zip(pairs, adjusted([_less(rows, *pair) for pair in pairs]), strict=True))
    return Outcome(
        title="Phrases of film reviews: what a network thinks of them, and what people say",
        question="Do the scores of contextual decomposition agree with people, and better than other methods' do?",
        reduction=f"{len(rows)} seeds; unseen sentences a seed: {settings.sized(smoke=20, reduced=500, full=1000)}.",
        data={
            **TREEBANK,
            "notes": ["5 grades for every phrase of the training sentences; neutral sentences are left out."],
        },
        runs={
            method: run_entry(
                rows,
                {"accuracy": "test"},
                {"correlation": f"mean_{method}"},
                title=title,
            )
            for method, title in METHODS.items()
        },
        comparison={
            "correlation": {
                **_less(rows, "cd", "integrated_gradients").as_dict(),
                "run": "cd",
                "against": "integrated_gradients",
            }
        },
        claims=[
            Claim(
                "An LSTM on sentences",
                "not given here",
                f"{100 * over(rows, 'test')['mean']:.1f} % of test sentences",
                None,
            ),
            *(
                Claim(
                    f"{CLAIMED[own]} agrees with people better than: {METHODS[method]}",
                    "not in the paper",
                    f"{over(rows, f'mean_{own}')['mean']:.3f} against {over(rows, f'mean_{method}')['mean']:.3f} "
                    f"(mean rank correlation over lengths; difference {found.difference:+.3f}, "
                    f"{found.low:+.3f} to {found.high:+.3f}{p_told(found)})",
                    shown(found),
                )
                for (own, method), found in against.items()
            ),
        ],
        notes=_NOTES,
        figures={"tables": [_table(rows), _listed(rows[0])]},
    )


_NOTES = [
    "The network learns from sentences only, and the phrases that are compared stand in sentences of the training part "
    "that it did not see: people labelled the phrases of that part.",
    "A score is the part of the log-odds of a positive review that a method gives to the phrase: that of the span for "
    "contextual decomposition, occlusion and build-up, the sum over its words for the others. The correlation is "
    "Spearman's, between scores and grades (0 to 4), within phrases of similar length.",
    "The paper shows phrases only: the highest and lowest of each length in the validation set, here from one network.",
]


def _less(rows: list[dict[str, Any]], own: str, method: str) -> Any:
    """The mean correlation of a form of contextual decomposition, less another method's."""
    return compared(rows, f"mean_{method}", f"mean_{own}")


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    body = []
    for method, title in METHODS.items():
        mean = over(rows, f"mean_{method}")
        each = [over(rows, f"{method}, {name}")["mean"] for name in LENGTHS]
        body.append([title, *each, mean["mean"], mean["low"], mean["high"]])
    counts = [round(over(rows, f"phrases, {name}")["mean"]) for name in LENGTHS]
    return {
        "title": "Rank correlation with people's grades, by words of the phrase.",
        "columns": ["Score", *LENGTHS, "Mean", "95% from", "to"],
        "rows": [*body, ["phrases a seed", *counts, None, None, None]],
    }


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    body = [
        [length, ", ".join(row["top"][f"positive, {length}"]), ", ".join(row["top"][f"negative, {length}"])]
        for length in LISTED
    ]
    return {
        "title": "Validation phrases with the highest and lowest scores of contextual decomposition (table 1).",
        "columns": ["Words", "Positive", "Negative"],
        "rows": body,
    }
