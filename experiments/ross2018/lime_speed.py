"""Gradients against LIME (Ross 2018, table 2.1, figures 2.2 and 2.5 to 2.7): time an explanation takes, agreement.

The thesis' networks on its four data sets. LIME is its authors' (extra ``lime``): tabular with numbers (Iris-Cancer)
and with quartiles (toy colours), image (decoy MNIST), text (newsgroups). Gradients are taken for all test rows in one
call, and one row at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.evaluation import interval
from rightly.integrations.lime import check_installed, explain_image, explain_row, explain_text
from rightly.workflows.reproduce import Claim, Outcome, Settings, bounded, run_entry

#: table 2.1: seconds an explanation takes (LIME, gradients), and numbers an example has
PAPER = {
    "iris-cancer": (0.03, 0.000019, 34),
    "toy-colors": (1.03, 0.000013, 75),
    "decoy-mnist": (1.54, 0.000045, 784),
    "newsgroups": (2.59, 0.000520, 5000),
}
TITLES = {
    "iris-cancer": "Iris-Cancer (lime_tabular, numbers)",
    "toy-colors": "Toy colours (lime_tabular, quartiles)",
    "decoy-mnist": "Decoy MNIST (lime_image)",
    "newsgroups": "20 Newsgroups (lime_text)",
}
#: features compared: as many as LIME chooses by default (up to 6 it picks them by repeated fits, far more slowly)
TOP = 10


def run(settings: Settings) -> Outcome:
    """Every data set: train, explain with both, compare."""
    check_installed()
    sizes = {
        "explained": settings.sized(smoke=2, reduced=10, full=50),
        "samples": settings.sized(smoke=60, reduced=None, full=None),  # None: LIME's own defaults
        "rows": settings.sized(smoke=200, reduced=2000, full=20_000),
        "epochs": settings.sized(smoke=2, reduced=12, full=64),
    }
    work = partial(_work, sizes=sizes, data_dir=settings.data_dir)
    rows = settings.trials.run("lime-speed", [{"data": name, "seed": settings.seed} for name in PAPER], work)
    return _outcome(settings, {row["data"]: row for row in rows}, sizes)


def _work(key: dict[str, Any], sizes: dict[str, Any], data_dir: Any) -> dict[str, Any]:
    make: Callable[..., Any] = {
        "iris-cancer": _iris_cancer,
        "toy-colors": _toy_colors,
        "decoy-mnist": _decoy_mnist,
        "newsgroups": _newsgroups,
    }[key["data"]]
    model, inputs, explain = make(key["seed"], sizes, data_dir)
    found = _gradient_seconds(model, inputs)
    seconds, overlaps, signs = [], [], []
    for row in range(min(sizes["explained"], len(inputs))):
        start = time.perf_counter()
        weights, own = explain(row)
        seconds.append(time.perf_counter() - start)
        shared, agree = _agreement(weights, own())
        overlaps.append(shared)
        signs.append(agree)
    return {
        **found,
        "lime_seconds": float(np.mean(seconds)),
        "overlap": float(np.mean(overlaps)),
        "signs": float(np.mean(signs)),
        "examples": {"seconds": seconds, "overlap": overlaps, "signs": signs},
        "ratio": float(np.mean(seconds)) / max(found["batch_seconds"], 1e-9),
    }


def _gradient_seconds(model: nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    """Time an explanation takes: all rows at once, and one at a time."""
    few = inputs[:20]
    _gradients(model, few)  # what is done once is not counted
    start = time.perf_counter()
    _gradients(model, inputs)
    batch = (time.perf_counter() - start) / len(inputs)
    start = time.perf_counter()
    for row in few:
        _gradients(model, row[None])
    return {"batch_seconds": batch, "single_seconds": (time.perf_counter() - start) / len(few)}


def _gradients(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Of the predicted class' log-odds: its probability's own gradient underflows where a network is sure."""
    return rt.attribute(
        model, inputs, "gradient", target="predicted", output="log_odds", diagnostics=False
    ).attributions


def _agreement(weights: dict[Any, float], own: dict[Any, float]) -> tuple[float, float]:
    """Of LIME's top features, the share that are the gradients' top ones too, and the share with the same sign."""
    count = min(TOP, len(own))
    theirs, ours = (sorted(found, key=lambda name: -abs(found[name]))[:count] for found in (weights, own))
    signs = [weights[name] * own.get(name, 0.0) > 0 for name in theirs]
    return len(set(theirs) & set(ours)) / max(count, 1), sum(signs) / max(len(signs), 1)


# ---------------------------------------------------------------------------- networks, and what is explained of a row


def _trained(inputs: torch.Tensor, labels: torch.Tensor, classes: int, epochs: int, seed: int) -> nn.Module:
    """The thesis' network, weights and biases from N(0, 0.1^2)."""
    model = rt.models.mlp(inputs[0].numel(), (50, 30), classes, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draws))
    rt.fit(rt.Objective(model, cross_entropy, seed=seed), (inputs, labels), epochs=epochs, batch_size=256, seed=seed)
    return model.eval()


def _predict(model: nn.Module, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.as_tensor(rows, dtype=torch.float32)).softmax(1).double().numpy()


def _predicted(model: nn.Module, inputs: torch.Tensor, row: int) -> int:
    with torch.no_grad():
        return int(model(inputs[row : row + 1]).argmax(1))


def _iris_cancer(seed: int, sizes: dict[str, Any], data_dir: Any) -> Any:
    data = rt.data.iris_cancer()
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    inputs, labels = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    train, test = inputs[order[33:]], inputs[order[:33]]
    model = _trained(train, labels[order[33:]], 2, 200 if sizes["epochs"] > 2 else 2, seed)
    return model, test, partial(_tabular, model, train, test, sizes, False, seed)


def _toy_colors(seed: int, sizes: dict[str, Any], data_dir: Any) -> Any:
    data = rt.data.toy_colors(seed, sizes["rows"], 1000)
    train, test = (torch.from_numpy(part.inputs).flatten(1) for part in (data.train, data.test))
    model = _trained(train, torch.from_numpy(data.train.labels), 2, sizes["epochs"], seed)
    return model, test, partial(_tabular, model, train, test, sizes, True, seed)


def _tabular(
    model: nn.Module,
    train: torch.Tensor,
    test: torch.Tensor,
    sizes: dict[str, Any],
    discretize: bool,
    seed: int,
    row: int,
) -> Any:
    """LIME's weights are of standardised columns: so are the gradients they are held against."""
    weights = explain_row(
        partial(_predict, model),
        train.numpy().astype(np.float64),
        test[row].numpy().astype(np.float64),
        target=_predicted(model, test, row),
        n_features=TOP,
        n_samples=sizes["samples"] or 5000,
        discretize=discretize,
        seed=seed,
    )

    def own() -> dict[int, float]:
        scaled = _gradients(model, test[row : row + 1])[0] * train.std(0)
        return dict(enumerate(scaled.tolist()))

    return weights, own


def _decoy_mnist(seed: int, sizes: dict[str, Any], data_dir: Any) -> Any:
    mnist = rt.data.load_arrays("mnist", data_dir=data_dir)
    mnist = {name: values[: sizes["rows"]] for name, values in mnist.items()}
    digits = rt.data.decoy_mnist(mnist, seed)
    train, test = (torch.from_numpy(part.inputs) for part in (digits.train, digits.test))
    model = _trained(train, torch.from_numpy(digits.train.labels), 10, sizes["epochs"], seed)

    def grey(pictures: np.ndarray) -> np.ndarray:
        return _predict(model, pictures[..., 0][:, None])

    def explain(row: int) -> Any:
        picture = test[row, 0].numpy()
        target = _predicted(model, test, row)
        weights, pieces = explain_image(grey, picture, target=target, n_samples=sizes["samples"] or 1000, seed=seed)

        def own() -> dict[int, float]:
            """What the gradient expects of painting a piece in its mean, as LIME does."""
            gradient = _gradients(model, test[row : row + 1])[0, 0].numpy()
            parts = {piece: pieces == piece for piece in weights}
            return {piece: float((gradient * (picture - picture[at].mean()))[at].sum()) for piece, at in parts.items()}

        return weights, own

    return model, test, explain


def _newsgroups(seed: int, sizes: dict[str, Any], data_dir: Any) -> Any:
    posts = rt.data.newsgroups(data_dir=data_dir)
    train, test = torch.from_numpy(posts.train.inputs), torch.from_numpy(posts.test.inputs)
    model = _trained(train, torch.from_numpy(posts.train.labels), 2, sizes["epochs"], seed)
    words = {word: at for at, word in enumerate(posts.words)}

    def read(texts: Any) -> np.ndarray:
        return _predict(model, posts.vectorize(texts))

    def explain(row: int) -> Any:
        found = explain_text(
            read,
            posts.test.texts[row],
            target=_predicted(model, test, row),
            n_features=TOP,
            n_samples=sizes["samples"] or 5000,
            seed=seed,
        )
        weights: dict[str, float] = {}
        for word, weight in found.items():  # the network reads lower case
            weights[word.lower()] = weights.get(word.lower(), 0.0) + weight

        def own() -> dict[str, float]:
            """What the gradient expects of taking a word away."""
            slopes = (_gradients(model, test[row : row + 1]) * test[row])[0]
            return {word: float(slopes[at]) for word, at in words.items() if test[row, at] > 0}

        return weights, own

    return model, test, explain


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(settings: Settings, rows: dict[str, dict[str, Any]], sizes: dict[str, Any]) -> Outcome:
    size = "Full size" if settings.size == "full" else "Reduced"
    samples = "LIME's default number of samples" if sizes["samples"] is None else f"{sizes['samples']} samples for LIME"
    return Outcome(
        title="Input gradients against LIME: time and agreement",
        question="How much faster is a gradient than LIME's explanation, and do they name the same features?",
        reduction=f"{size}: {sizes['explained']} examples a data set, {sizes['epochs']} epochs, {sizes['rows']} "
        f"training rows at most, {samples}, one seed (the thesis: one network each).",
        data={
            "name": "four data sets of the thesis",
            "source": "Iris and Breast Cancer Wisconsin, MNIST, 20 Newsgroups, and drawn colours",
            "kind": "custom",
            "task": "classification",
        },
        runs={
            name: run_entry(
                [row], {"top_features_shared": "overlap", "same_sign": "signs"}, title=TITLES[name], prior=None
            )
            for name, row in rows.items()
        },
        comparison={},
        claims=[
            *(
                Claim(
                    f"{TITLES[name]}: a gradient is thousands of times faster than LIME",
                    f"{PAPER[name][0] / PAPER[name][1]:,.0f} times",
                    f"{row['ratio']:,.0f} times ({row['batch_seconds']:.2g} s against {row['lime_seconds']:.2g} s)",
                    bounded(_examples(row, "seconds"), least=1000 * row["batch_seconds"]),
                )
                for name, row in rows.items()
            ),
            *_agreement_claims(rows),
        ],
        notes=_NOTES,
        figures={"tables": [_table(rows)]},
    )


def _agreement_claims(rows: dict[str, dict[str, Any]]) -> list[Claim]:
    text, iris = rows["newsgroups"], rows["iris-cancer"]
    others = [name for name in rows if name != "iris-cancer"]
    elsewhere = interval([rows[name]["overlap"] for name in others])
    # least of all: below each of the others
    ends = [_examples(rows[name], "overlap") for name in others]
    least = bounded(_examples(iris, "overlap"), most=min(end["low"] for end in ends))
    above = any(_examples(iris, "overlap")["low"] > end["high"] for end in ends)
    both = [bounded(_examples(text, "overlap"), least=0.5), bounded(_examples(text, "signs"), least=0.9)]
    return [
        Claim(
            "Gradients and LIME name the same words of a post, with the same signs",
            "shown as a figure",
            f"{100 * text['overlap']:.0f} % of the top {TOP} words, {100 * text['signs']:.0f} % of the signs",
            False if False in both else None if None in both else True,
        ),
        Claim(
            "They agree least on Iris-Cancer, whose columns are numbers of very different size",
            "shown as a figure",
            f"{100 * iris['overlap']:.0f} % of the top {TOP} columns; elsewhere {100 * elsewhere.mean:.0f} %",
            True if least else False if above else None,
        ),
    ]


def _examples(row: dict[str, Any], key: str) -> dict[str, Any]:
    """The 95 % interval of a mean over the examples explained; without bounds in runs that did not keep them."""
    if "examples" not in row:
        return {"low": -math.inf, "high": math.inf}
    return interval(row["examples"][key], (0.0, math.inf if key == "seconds" else 1.0)).as_dict()


_NOTES = [
    "Verdicts are judged by 95 % intervals over the examples explained, of one network each.",
    "Times are of this machine, while other work ran on it or not: only their order of magnitude says anything. "
    "Gradients are counted over all test rows in one call, divided by the rows; the table also has one row at a time.",
    "LIME needs its perturbations classified: its time grows with their number (5000 for tables and texts, 1000 for "
    "pictures, its defaults).",
    "Agreement compares like with like: LIME's weights of standardised columns with gradient times standard deviation, "
    "of words with gradient times input, of pieces of a picture with gradient times what painting them in their mean "
    "changes.",
    "LIME's pieces of a picture come from quickshift set for small pictures; with its defaults a digit is one piece.",
]


def _table(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    body = [
        [
            TITLES[name],
            PAPER[name][2],
            *(row[key] for key in ("lime_seconds", "batch_seconds", "single_seconds", "overlap", "signs")),
            *PAPER[name][:2],
        ]
        for name, row in rows.items()
    ]
    columns = [
        *("Data", "Numbers an example", "LIME (s)", "Gradient in a batch (s)", "Gradient alone (s)"),
        *(f"Top {TOP} shared", "Same sign", "Paper: LIME (s)", "Paper: gradient (s)"),
    ]
    return {"title": "Table 2.1: seconds an explanation takes, and agreement.", "columns": columns, "rows": body}
