"""How a sentiment network builds its answer from phrases (Singh et al. 2022, section 2.2 and figure 2).

Sentences with a negation are looked up in the test set, not chosen: whether the hierarchy of contextual
decomposition joins "not" to what it negates, and whether the score turns, beside occlusion, build-up and methods that
add up words. Hierarchies are compared between a sentence and the same with a small change of its word vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import rightly as rt
from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, bounded, compared, over, run_entry, shown
from rightly.workflows.sentiment_study import (
    EMBEDDING,
    TREEBANK,
    Corpus,
    Reader,
    log_odds,
    negations,
    rows_of,
    scorers,
    train_reader,
)
from rightly.workflows.wording import p_told

METHODS = {
    "cd": "Contextual decomposition",
    "cd_shapley": "Contextual decomposition, Shapley convention",
    "cd_reference": "Contextual decomposition from no words, biases apart (ours)",
    "occlusion": "Occlusion (words replaced by zero)",
    "build_up": "Build-up (the phrase alone)",
    "integrated_gradients": "Integrated gradients (50 steps from zero)",
}
#: whose claims are judged
CLAIMED = {"cd": "CD", "cd_reference": "CD from no words"}
#: change of the word vectors against which a hierarchy should stand, over their own size
NOISE = 0.05


def run(settings: Settings) -> Outcome:
    """A network a seed."""
    seeds = settings.sized(smoke=2, reduced=5, full=10)
    keys = [{"seed": settings.seed + seed} for seed in range(seeds)]
    rows = settings.trials.run("networks", keys, lambda key: study(key["seed"], settings))
    return _outcome(rows)


def study(seed: int, settings: Settings) -> dict[str, Any]:
    """Train; score negated phrases of the test sentences; draw a few hierarchies and shake them."""
    corpus = Corpus.load(settings.data_dir, 20, seed, settings.sized(smoke=200, reduced=None, full=None))
    model, accuracies = train_reader(corpus, seed, epochs=settings.sized(smoke=1, reduced=5, full=10))
    ways = scorers(corpus, seed)
    most = settings.sized(smoke=4, reduced=200, full=None)
    # not the validation sentences, which chose the epoch
    found = [(text, place) for text in corpus.test.texts for place in negations(text)][:most]
    turned = {f"turned_{method}": _turned(model, corpus, ways[method], found) for method in METHODS}
    shaken = settings.sized(smoke=2, reduced=50, full=200)
    stable = {
        f"stable_{score}": _stability(model, corpus, [text for text, _ in found[:shaken]], score, seed)
        for score in ("contextual_decomposition", "occlusion", "build_up")
    }
    pictures = [_picture(model, corpus, text) for text, _ in found[:4]]
    return {**accuracies, **turned, **stable, "negations": len(found), "pictures": pictures}


def _turned(model: Reader, corpus: Corpus, scorer: Any, found: list[tuple[list[str], tuple[int, int]]]) -> float:
    """Share of negated phrases whose score with "not" lies on the other side of that without, or nearer to zero."""
    turned = []
    for text, (first, last) in found:
        table = scorer(model, corpus.numbers(text))
        without, alone = float(table[first + 1, last]), float(table[first, last])
        turned.append(np.sign(without) * alone < abs(without))
    return float(np.mean(turned))


def _tree(model: Any, tokens: Tensor, score: Any) -> rt.attributions.Hierarchy:
    return rt.hierarchy(model, tokens, score=score, space=EMBEDDING, output=log_odds, percentile=99.5, signed=False)


def _stability(model: Reader, corpus: Corpus, texts: list[list[str]], score: str, seed: int) -> float:
    """Share of the groups of a hierarchy that are found again when its word vectors are shaken a little."""
    draws = torch.Generator().manual_seed(seed)
    shares = []
    for text in texts:
        tokens = corpus.numbers(text)
        before = _groups(_tree(model, tokens, score))
        with torch.no_grad():
            vectors = model.embedding.weight
            kept = vectors[tokens[0]].clone()
            noise = torch.randn(kept.shape, generator=draws)
            vectors[tokens[0]] += NOISE * noise * kept.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
            after = _groups(_tree(model, tokens, score))
            vectors[tokens[0]] = kept
        shares.append(len(before & after) / len(before | after))
    return float(np.mean(shares))


def _groups(tree: rt.attributions.Hierarchy) -> set[tuple[int, ...]]:
    return {tuple(node.atoms.nonzero()[:, 0].tolist()) for node in tree.nodes if node.parts}


def _picture(model: Reader, corpus: Corpus, text: list[str]) -> dict[str, Any]:
    tokens = corpus.numbers(text)
    with torch.no_grad():
        odds = float(log_odds(model.eval()(tokens), None))
    tree = _tree(model, tokens, "contextual_decomposition")
    return {"title": f"log-odds {odds:+.1f}", "words": text, "phrases": rows_of(tree)}


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(rows: list[dict[str, Any]]) -> Outcome:
    others = [method for method in METHODS if not method.startswith("cd")]
    pairs = [(own, other) for own in CLAIMED for other in others]
    against = dict(zip(pairs, adjusted([_less(rows, *pair) for pair in pairs]), strict=True))
    return Outcome(
        title="Hierarchies of phrases: what 'not' does to what follows",
        question="Does the hierarchy find negations, and does it stand when the input is shaken?",
        reduction=f"{len(rows)} seeds, {rows[0]['negations']} negated phrases each.",
        data=TREEBANK,
        runs={
            method: run_entry(rows, {"accuracy": "test"}, {"negations_turned": f"turned_{method}"}, title=title)
            for method, title in METHODS.items()
        },
        comparison={
            "negations_turned": {**_less(rows, "cd", "occlusion").as_dict(), "run": "cd", "against": "occlusion"},
        },
        claims=[
            *(
                Claim(
                    f"{told} tells that a negation turns or weakens what it negates",
                    "shown on one phrase" if own == "cd" else "not in the paper",
                    f"{100 * over(rows, f'turned_{own}')['mean']:.0f} % of the negated phrases",
                    bounded(over(rows, f"turned_{own}"), least=0.5),
                )
                for own, told in CLAIMED.items()
            ),
            *(
                Claim(
                    f"{CLAIMED[own]} more often than: {METHODS[method]}",
                    "not in the paper",
                    f"{100 * over(rows, f'turned_{own}')['mean']:.0f} % against "
                    f"{100 * over(rows, f'turned_{method}')['mean']:.0f} % "
                    f"(difference {100 * found.difference:+.0f} points{p_told(found)})",
                    shown(found),
                )
                for (own, method), found in against.items()
            ),
            Claim(
                f"The hierarchy stands when word vectors move by {NOISE:.0%} of their size",
                "not in the paper",
                f"{100 * over(rows, 'stable_contextual_decomposition')['mean']:.0f} % of the groups are found again "
                f"(occlusion {100 * over(rows, 'stable_occlusion')['mean']:.0f} %, "
                f"build-up {100 * over(rows, 'stable_build_up')['mean']:.0f} %)",
                None,
            ),
        ],
        notes=[
            "Negated phrases are found by search, none is picked: 'not', 'never', 'no', \"n't\", 'hardly' or 'without' "
            "and the words after it up to the next mark or connective, at most four.",
            "Turned means that the score of the whole phrase lies on the other side of zero from that of the words "
            "without the negation, or nearer to it.",
            "Hierarchies rank by size at the 99.5th percentile, the published setting for text.",
            "The paper tells in words that hierarchies of images stand under attacks; that phrases' stand when word "
            "vectors are shaken is asked here.",
        ],
        figures={"sentences": rows[0]["pictures"]},
    )


def _less(rows: list[dict[str, Any]], own: str, method: str) -> Any:
    """Negations turned by a form of contextual decomposition, less those by another method."""
    return compared(rows, f"turned_{method}", f"turned_{own}")
