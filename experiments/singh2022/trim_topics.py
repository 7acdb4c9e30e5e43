"""TRIM topics (Singh, Ha, Yu 2022, figure 5): what a text classifier decides by, told in topics instead of words.

The paper's fake news cannot be had; here a network tells posts of two newsgroups apart, atheism from Christianity. A
topic model of the training posts gives the space; each topic is scored, taken away as a check, and compared with how
far its words are those of headers. Then a prior in the same space forbids the topics of headers.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.core.extras import require
from rightly.evaluation import interval, rank_correlation
from rightly.workflows.contests import paired
from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, bounded, compared, over, run_entry, shown
from rightly.workflows.wording import in_sentence, mean_told

METHODS = {
    "cd": "Contextual decomposition",
    "ig": "Integrated gradients (30 steps from no topic)",
    "eg": "Expected gradients (references from training posts)",
    "gradient_x_input": "Gradient times input",
}
ARMS = {
    "plain": "Plain",
    "topics": "Topics of headers forbidden",
    "random": "As many other topics forbidden",
    "words": "Words of headers forbidden",
}
#: a topic is one of headers if its ten foremost words stand there in more than this share of their occurrences; and
#: a word is, by MOSTLY
FOREMOST, SHARE, MOSTLY = 10, 0.4, 0.5
#: topics that are taken away together; validation rows, a share of the training posts
TAKEN, HELD = 3, 0.15
_FIT: dict[str, Any] = {"batch_size": 256, "weight_decay": 2e-4 / 256}


def run(settings: Settings) -> Outcome:
    """The topic model once; all arms and seeds on it."""
    seeds = [settings.seed + i for i in range(settings.sized(smoke=2, reduced=6, full=10))]
    weights = settings.sized(smoke=[1.0, 10.0], reduced=[1e-5, 1e-4, 1e-3], full=[1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    tried = dict.fromkeys(ARMS, weights) | {
        "plain": [0.0],
        # single words need stronger weights than directions made of many
        "words": [weight if settings.size == "smoke" else 100 * weight for weight in weights],
    }
    epochs = settings.sized(smoke=8, reduced=24, full=64)

    @cache
    def study() -> Topics:
        words, topics = settings.sized(smoke=(200, 5), reduced=(5000, 20), full=(5000, 20))
        return Topics(rt.data.newsgroups(words=words, data_dir=settings.data_dir), topics)

    keys = [{"arm": arm, "weight": weight, "seed": seed} for seed in seeds for arm in ARMS for weight in tried[arm]]
    rows = settings.trials.run("posts", keys, lambda key: trial(key, study(), epochs, settings.engine))
    return _outcome(settings, rows, study(), seeds, tried, epochs)


class Topics:
    """Posts, and the topics of the training ones by non-negative matrix factorisation."""

    def __init__(self, posts: Any, count: int) -> None:
        self.posts = posts
        fitted = require("sklearn.decomposition").NMF(count, init="nndsvda", max_iter=400, random_state=0)
        fitted.fit(posts.train.inputs.astype(np.float64))
        self.space = rt.spaces.Linear.fitted(fitted)
        foremost = fitted.components_.argsort(1)[:, ::-1][:, :FOREMOST]
        self.words = [[posts.words[at] for at in own] for own in foremost]
        self.in_headers = torch.tensor(posts.in_headers[foremost].mean(1))
        # where no topic is above the share, the first among them
        self.marked = self.in_headers >= min(SHARE, float(self.in_headers.max()))
        self.train, self.train_bare, self.labels = _tensors(posts.train)
        self.test, self.test_bare, self.test_labels = _tensors(posts.test)

    def split(self, seed: int) -> tuple[Tensor, Tensor]:
        """Training and validation rows."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        held = round(HELD * len(order))
        return order[held:].sort().values, order[:held].sort().values


def _tensors(part: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Posts, the same without their headers, labels."""
    return tuple(torch.from_numpy(array) for array in (part.inputs, part.bare, part.labels))


def trial(key: dict[str, Any], topics: Topics, epochs: int, engine: Any) -> dict[str, Any]:
    """One network: accuracy with and without headers, and how far it leans on each topic."""
    seed, arm = key["seed"], key["arm"]
    rows, held = topics.split(seed)
    model = rt.models.mlp(len(topics.posts.words), (50, 30), 2, seed=seed)
    marked, terms = topics.marked, []
    if arm == "random":
        others = (~marked).nonzero()[:, 0]
        few = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[: int(marked.sum())]]
        marked = torch.zeros_like(marked)
        marked[few] = True
    if arm == "words":
        marked = torch.from_numpy(topics.posts.in_headers > MOSTLY)
    if arm != "plain":
        space = {} if arm == "words" else {"space": topics.space}
        attribution = rt.Gradient(output="log_prob_sum", **space)
        terms = [rt.Term(attribution, rt.priors.Irrelevant(), weight=key["weight"], name="reasons", engine=engine)]
    objective = rt.Objective(model, cross_entropy, terms, seed=seed)
    batch = (topics.train[rows], topics.labels[rows], rt.Annotation(irrelevant=marked[None]))
    fitted = rt.fit(objective, batch, epochs=epochs, seed=seed, **_FIT)
    model.eval()
    parts = {
        "validation_bare": (topics.train_bare[held], topics.labels[held]),
        "test": (topics.test, topics.test_labels),
        "test_bare": (topics.test_bare, topics.test_labels),
    }
    with torch.no_grad():
        found: dict[str, Any] = {
            name: float((model(x).argmax(1) == labels).double().mean()) for name, (x, labels) in parts.items()
        }
    slopes = rt.attribute(model, topics.test, "gradient", output=_odds, space=topics.space, diagnostics=False)
    sizes = slopes.attributions.abs().mean(0)
    found["leans"] = float(sizes[topics.marked].sum() / sizes.sum())
    if arm == "plain":
        found |= scored(model, topics, rows, seed)
    return found | {"engines": fitted.engines}


def _odds(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs[:, 0] - outputs[:, 1]


def scored(model: nn.Module, topics: Topics, rows: Tensor, seed: int) -> dict[str, Any]:
    """Every method's scores by topic, of test posts rightly told as atheism, and what taking topics away does."""
    with torch.no_grad():
        right = (model(topics.test).argmax(1) == 0) & (topics.test_labels == 0)
    # a network of the smallest size may get none right
    x, space = topics.test[right if right.any() else topics.test_labels == 0], topics.space
    how: dict[str, Any] = {"space": space, "output": _odds}
    methods = {
        "cd": rt.ContextualDecomposition(**how),
        "ig": rt.IntegratedGradients(n_steps=30, **how),
        "eg": rt.ExpectedGradients(rt.references.Sample(topics.train[rows]), n_samples=50, **how),
        "gradient_x_input": rt.InputXGradient(**how),
    }
    shares, shape = space.encode(x), tuple(x.shape[1:])
    residual = x - space.decode(shares, shape)

    @torch.no_grad()
    def without(gone: Tensor) -> Tensor:
        return _odds(model(space.decode(shares * ~gone, shape) + residual), topics.test_labels)

    whole = without(torch.zeros_like(shares, dtype=torch.bool))
    alone = torch.stack([whole - without(one[None]) for one in torch.eye(shares.shape[1], dtype=torch.bool)], 1)
    draws = torch.rand(shares.shape, generator=torch.Generator().manual_seed(seed))
    chance = without(_highest(draws))
    found: dict[str, Any] = {
        "posts": len(x),
        "flipped_random": float((chance < 0).double().mean()),
        "lost_random": float((whole - chance).mean()),
        "shares": float(shares[:, topics.marked].abs().sum() / shares.abs().sum()),
    }
    for name, method in methods.items():
        scores = method(model, x, diagnostics=False).attributions
        left = without(_highest(scores))
        found |= {
            f"flipped_{name}": float((left < 0).double().mean()),
            f"lost_{name}": float((whole - left).mean()),
            f"agrees_{name}": float(rank_correlation(scores, alone).mean()),
            f"inside_{name}": float((scores[:, topics.marked].abs().sum(1) / scores.abs().sum(1)).mean()),
            f"mean_{name}": scores.mean(0).tolist(),
        }
    return found


def _highest(scores: Tensor) -> Tensor:
    """Each post's topics of the highest scores."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(TAKEN, 1).indices, True)


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _select(rows: Rows, arm: str, weight: float) -> Rows:
    return [row for row in rows if row["arm"] == arm and row["weight"] == weight]


def _chosen(rows: Rows, arm: str, weights: list[float]) -> float:
    """By the validation posts without their headers: of equals the largest."""
    return max(weights, key=lambda weight: (over(_select(rows, arm, weight), "validation_bare")["mean"], weight))


def _outcome(
    settings: Settings, rows: Rows, topics: Topics, seeds: list[int], tried: dict[str, list[float]], epochs: int
) -> Outcome:
    chosen = {arm: _chosen(rows, arm, tried[arm]) for arm in ARMS}
    arms = {arm: _select(rows, arm, weight) for arm, weight in chosen.items()}
    listed, words = (", ".join(f"{weight:g}" for weight in tried[arm]) for arm in ("topics", "words"))
    told = f"{len(seeds)} seeds, {len(topics.words)} topics, {epochs} epochs, weights {listed} (for words {words})"
    return Outcome(
        title="Topics that a text classifier decides by",
        question="Which topics carry the decision, and what is left when those of the headers may not?",
        reduction=f"{told}." if settings.size == "full" else f"Reduced: {told} (full: 10, 20, 64, five weights).",
        data={
            "name": "20 Newsgroups, two groups",
            "source": "Lang 1995",
            "kind": "custom",
            "rows": len(topics.labels) + len(topics.test_labels),
            "features": len(topics.posts.words),
            "label": "alt.atheism or soc.religion.christian",
            "task": "classification",
            "split": {"train": len(topics.labels), "test": len(topics.test_labels)},
            "notes": ["Split by date; 15 % of the training posts are held out for validation, others for each seed."],
        },
        runs={arm: _run(arm, own, chosen[arm]) for arm, own in arms.items()},
        comparison={
            "accuracy_without_headers": {
                **paired(arms, "plain", "topics", "test_bare", HELD).as_dict(),
                "run": "topics",
                "against": "plain",
                "higher_is_better": True,
            }
        },
        claims=_claims(arms, topics),
        notes=_NOTES,
        figures={"tables": [_topics(arms["plain"], topics), _checks(arms["plain"]), _trained(arms)]},
    )


_PRIOR = {
    "name": "Right reasons",
    "description": "Squared gradient of the summed log-probabilities by the forbidden topics (words), kept small.",
    "attribution": "gradient of the sum of log-probabilities",
    "citation": "Ross, Hughes and Doshi-Velez 2017",
}

_NOTES = [
    "Newsgroups instead of Kaggle's fake news, TF-IDF instead of counts, and non-negative matrix factorisation in "
    "place of latent Dirichlet allocation; a network of three layers as in the paper. Coefficients are those of least "
    "squares, and what topics cannot say stays with the post.",
    f"A topic counts as one of headers where its ten foremost words stand in headers in at least {SHARE:.0%} of their "
    "occurrences in training posts, on average. Scores are parts of the log-odds of atheism, of the test posts that "
    "are rightly told as atheism (the paper: as fake).",
    "Taking topics away leaves a text that nobody wrote; so does every zero reference.",
    "The prior forbids the gradient along a topic's direction, also in posts without it. Weights are chosen by the "
    "accuracy on validation posts without their headers. 'Words' forbids the words that stand mostly in headers: it "
    "knows more. What signatures at the end of a post repeat of the header stays in 'without headers'.",
    "The topics are made once, from all training posts: intervals are over networks and validation splits, not over "
    "topic models. The seeds share their test posts and most of what they train on: comparisons are paired by seed, "
    "with the corrected resampled t-test, and corrected for their number (Benjamini, Hochberg). That test is made for "
    "rows that are left out and tested; here it is a caution, since the posts that are tested are no other ones: the "
    "verdicts are about networks of these posts. Whether networks agree is measured on pairs of them, each in one.",
]


def _run(arm: str, rows: Rows, weight: float) -> dict[str, Any]:
    return run_entry(
        rows,
        {"accuracy": "test", "accuracy_without_headers": "test_bare"},
        {"leans on topics of headers": "leans"},
        weight=weight or None,
        title=ARMS[arm],
        prior=_PRIOR if arm != "plain" else None,
    )


#: a share in percent
_percent = partial(mean_told, scale=100.0, places=1)


def _stability(rows: Rows, method: str) -> list[float]:
    """Rank correlation of mean scores by topic, of networks two by two: each stands in one pair."""
    means = torch.tensor([row[f"mean_{method}"] for row in rows[: len(rows) // 2 * 2]])
    return rank_correlation(means[::2], means[1::2]).tolist()


def _claims(arms: dict[str, Rows], topics: Topics) -> list[Claim]:
    plain = arms["plain"]
    others = [name for name in (*METHODS, "random") if name != "cd"]
    # All seeds test on the same posts and leave out others of the same training posts. Given these posts their draws
    # are independent, and a plain paired test would do; of other posts no test over seeds can tell. The corrected one
    # is made for rows that are left out and tested (see ``compare``): it is taken here for caution alone, with the
    # share that is left out, and widens the intervals by half.
    asked = {
        "inside": compared(plain, "shares", "inside_cd", test_share=HELD),
        **{name: compared(plain, f"lost_{name}", "lost_cd", test_share=HELD) for name in others},
        **{f"bare_{arm}": paired(arms, arm, "topics", "test_bare", HELD) for arm in ARMS if arm != "topics"},
    }
    tests = dict(zip(asked, adjusted(list(asked.values())), strict=True))
    verdicts = {name: shown(test) for name, test in tests.items()}
    stable = interval(_stability(plain, "cd"))
    count = int(topics.marked.sum())
    claims = [
        Claim(
            "A topic that a person knows carries the decision",
            "the highest holds 'clinton', 'emails'",
            f"the highest holds {', '.join(topics.words[_order(plain)[0]][:4])}",
            None,
        ),
        Claim(
            "Topics of headers carry more of the decision than of the text (ours)",
            "-",
            f"{count} of {len(topics.words)} topics: {_percent(plain, 'inside_cd')} % of absolute scores, "
            f"{_percent(plain, 'shares')} % of absolute coefficients",
            verdicts["inside"],
        ),
        Claim(
            f"Without a post's {TAKEN} highest topics the log-odds fall further than without any {TAKEN} (ours)",
            "-",
            f"by {mean_told(plain, 'lost_cd')} against {mean_told(plain, 'lost_random')}; "
            f"{_percent(plain, 'flipped_cd')} % against {_percent(plain, 'flipped_random')} % change class",
            verdicts["random"],
        ),
    ]
    for name in METHODS:
        if name != "cd":
            claim = f"They fall further than by the topics of {in_sentence(METHODS[name])} (ours)"
            ours = f"by {mean_told(plain, 'lost_cd')} against {mean_told(plain, f'lost_{name}')}"
            claims.append(Claim(claim, "-", ours, verdicts[name]))
    claims.append(
        Claim(
            "Networks of other seeds lean on the same topics (ours)",
            "-",
            f"rank correlation of mean scores {stable.mean:.2f} ({stable.low:.2f} to {stable.high:.2f})",
            bounded(stable.as_dict(), least=0.5),
        )
    )
    for arm in ARMS:
        if arm != "topics":
            name = f"bare_{arm}"
            test = tests[name]
            ours = (
                f"{_percent(arms['topics'], 'test_bare')} % against {_percent(arms[arm], 'test_bare')} %"
                f"{'' if test.p is None else f', p = {test.p:.2g}'}; difference {100 * test.difference:+.1f} points"
            )
            claim = f"Without headers, forbidding their topics does better than: {in_sentence(ARMS[arm])} (ours)"
            claims.append(Claim(claim, "-", ours, verdicts[name]))
    return claims


def _order(rows: Rows) -> list[int]:
    means = np.mean([row["mean_cd"] for row in rows], 0)
    return [int(at) for at in np.argsort(-means)]


def _topics(rows: Rows, topics: Topics) -> dict[str, Any]:
    body = []
    for at in _order(rows):
        cells: list[Any] = []
        for name in ("cd", "ig"):
            found = interval([row[f"mean_{name}"][at] for row in rows])
            cells += [found.mean, found.low, found.high] if name == "cd" else [found.mean]
        body.append(
            [", ".join(topics.words[at]), *cells, float(topics.in_headers[at]), "yes" * bool(topics.marked[at])]
        )
    columns = ["Ten foremost words", "Mean CD", "95% from", "to", "Mean IG", "Share in headers", "Of headers"]
    return {"title": "Topics by their part of the log-odds of atheism (figure 5).", "columns": columns, "rows": body}


def _checks(rows: Rows) -> dict[str, Any]:
    body = []
    for name, title in METHODS.items():
        stable = interval(_stability(rows, name)).mean
        numbers = [over(rows, f"{key}_{name}")["mean"] for key in ("lost", "flipped", "agrees", "inside")]
        body.append([title, *numbers, stable])
    chance = [over(rows, f"{key}_random")["mean"] for key in ("lost", "flipped")]
    body.append(["Topics at random", *chance, None, None, None])
    columns = ["Topics by", "Log-odds lost", "Share that changes class", "Agrees with ablation", "On headers", "Seeds"]
    return {"title": f"Each post without its {TAKEN} highest topics, and stability.", "columns": columns, "rows": body}


def _trained(arms: dict[str, Rows]) -> dict[str, Any]:
    body = []
    for arm, rows in arms.items():
        keys = ("test", "test_bare", "leans")
        body.append([ARMS[arm], rows[0]["weight"] or None, *(_percent(rows, key) for key in keys)])
    columns = ["Training", "Weight", "Test accuracy (%)", "Without headers (%)", "Gradient on topics of headers (%)"]
    return {"title": "Trained without and with a prior.", "columns": columns, "rows": body}
