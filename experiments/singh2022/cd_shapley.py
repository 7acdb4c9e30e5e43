"""CD against exact Shapley values: how near the rules of contextual decomposition come to the truth on small cases.

A reality check of what Singh, Ha and Yu (2022) build on. Four small networks (dense, convolutional, LSTM, attention)
tell unusual heart beats; seven stretches of the signal are the groups, so that all 128 coalitions can be evaluated.
Every set of rules and other attributions are compared with Shapley values of a group against all the rest, and of the
groups among each other; with randomised networks, other examples' truth and random groups as controls. What keeps the
rules from the truth is asked of the same networks without biases, and of small signals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rightly as rt
from rightly.evaluation import exact_shapley, others_regions, randomised_copy, rank_correlation, without_biases
from rightly.workflows.exact_study import Explain, nearness, summed
from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, bounded, compared, over, run_entry, shown
from rightly.workflows.wording import mean_told

LENGTH, GROUPS, STEP = 140, 7, 4
NETWORKS = {"mlp": "dense", "cnn": "convolutional", "lstm": "LSTM", "attention": "attention"}
METHODS = {
    "first": "CD, as published (eq. 7)",
    "shapley": "CD, Shapley convention",
    "published": "CD, biases as in the authors' package",
    "reference": "CD from a reference, biases apart (ours)",
    "ig": "Integrated gradients (50 steps from zero)",
    "eg": "Expected gradients (references from the data)",
    "gradient_x_input": "Gradient times input",
    "occlusion": "Occlusion (the group set to zero)",
    "build_up": "Build-up (the group alone)",
    "both": "Mean of occlusion and build-up",
}
RULES = ("first", "shapley", "published", "reference")
TRUTHS = {"two": "a group against all the rest", "all": "seven groups among each other"}
PLACES = {"stretch": "stretches of 20 steps", "random": "20 steps anywhere"}
CASES = {"two_stretch": "as trained", "unbiased": "all biases zero", "small": "signals of a tenth of their size"}
#: what is asked in all of them
CHECKED = ("first", "shapley", "reference", "ig", "occlusion")
#: of the rows, drawn anew for each seed: training, validation, test
SHARES = (0.5, 0.25, 0.25)
#: test rows among those that are tested or trained on: all seeds split the same signals
TESTED = SHARES[2] / (SHARES[0] + SHARES[2])


def run(settings: Settings) -> Outcome:
    """Every network and seed."""
    seeds = range(settings.seed, settings.seed + settings.sized(smoke=1, reduced=5, full=20))
    epochs = settings.sized(smoke=1, reduced=60, full=100)
    examples = settings.sized(smoke=4, reduced=100, full=125)
    arrays = rt.data.load_arrays("ecg5000_train", data_dir=settings.data_dir)
    signals = torch.from_numpy(np.asarray(arrays["x"], dtype=np.float32))
    signals = (signals - signals.mean(1, keepdim=True)) / signals.std(1, keepdim=True)
    labels = torch.from_numpy((arrays["y"] != 1).astype(np.float32))
    rows = settings.trials.run(
        "networks",
        [{"network": network, "seed": seed} for seed in seeds for network in NETWORKS],
        lambda key: trial(key["network"], key["seed"], signals, labels, epochs, examples),
    )
    return _outcome(settings, rows, len(signals), epochs, examples)


class Lstm(nn.Module):
    """Reads four steps at a time; its last state is told apart linearly."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(STEP, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.unflatten(1, (-1, STEP)))[0][:, -1])


class Attention(nn.Module):
    """One transformer layer on pieces of four steps, and the mean over them."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Linear(STEP, 16)
        self.places = nn.Parameter(0.1 * torch.randn(LENGTH // STEP, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.pieces(x.unflatten(1, (-1, STEP))) + self.places).mean(1))


def made(network: str, seed: int) -> nn.Module:
    """A network with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if network == "lstm":
            return Lstm()
        if network == "attention":
            return Attention()
        if network == "cnn":
            return nn.Sequential(
                *(nn.Unflatten(1, (1, LENGTH)), nn.Conv1d(1, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool1d(2)),
                *(nn.Conv1d(8, 16, 5, 1, 2), nn.ReLU(), nn.AdaptiveAvgPool1d(5), nn.Flatten(), nn.Linear(80, 1)),
            )
        return nn.Sequential(nn.Linear(LENGTH, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))


def trial(network: str, seed: int, signals: Tensor, labels: Tensor, epochs: int, examples: int) -> dict[str, Any]:
    """A trained network, and how far every method is from the truth on unseen signals."""
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(signals), generator=draws)
    train, valid, test = order.split(sizes(len(order)))
    model = made(network, seed)
    rt.fit(
        rt.Objective(model, binary_cross_entropy_with_logits, [], seed=seed),
        (signals[train], labels[train, None]),
        (signals[valid], labels[valid, None]),
        epochs=epochs,
        batch_size=32,
        lr=5e-3,
        seed=seed,
    )
    model.eval()
    with torch.no_grad():
        right = ((model(signals[test])[:, 0] > 0) == labels[test].bool()).float().mean()
    x = signals[test[:examples]]
    places = {
        "stretch": torch.arange(LENGTH) // (LENGTH // GROUPS),
        "random": torch.randperm(LENGTH, generator=draws) // (LENGTH // GROUPS),
    }
    found: dict[str, Any] = {"accuracy": float(right)}
    random = randomised_copy(model, seed=seed)
    for place, member in places.items():
        groups = member == torch.arange(GROUPS)[:, None]
        truths = {players: exact_shapley(lambda x: model(x)[:, 0], x, groups, players=players) for players in TRUTHS}
        ways = explainers(groups, signals[train])
        for name, explain in ways.items():
            scores = explain(model, x)
            if place == "stretch":
                found[f"random_net_{name}"] = float(rank_correlation(scores, explain(random, x)).mean())
            for players, truth in truths.items():
                key = f"{name}_{players}_{place}"
                found[f"rank_{key}"], found[f"error_{key}"] = nearness(scores, truth)
                other = others_regions(truth, seed=seed)
                found[f"other_{key}"] = float(rank_correlation(scores, other).mean())
        if place == "stretch":
            for case, network, points in (("unbiased", without_biases(model), x), ("small", model, 0.1 * x)):
                truth = ways["exact"](network, points)
                for name in CHECKED:
                    key = f"{name}_{case}"
                    found[f"rank_{key}"], found[f"error_{key}"] = nearness(ways[name](network, points), truth)
    return found


def sizes(count: int) -> list[int]:
    """Rows to train, to choose and to test."""
    held = [int(share * count) for share in SHARES[:2]]
    return [*held, count - sum(held)]


def explainers(groups: Tensor, references: Tensor) -> dict[str, Explain]:
    """Ways to score the groups, by name."""

    @torch.no_grad()
    def without(model: Any, x: Tensor) -> Tensor:
        return torch.stack([model(x)[:, 0] - model(x * ~group)[:, 0] for group in groups], 1)

    @torch.no_grad()
    def alone(model: Any, x: Tensor) -> Tensor:
        return torch.stack([model(x * group)[:, 0] - model(0 * x)[:, 0] for group in groups], 1)

    def rules(convention: str) -> Explain:
        return lambda model, x: rt.contextual_decomposition(model, x, groups, convention=convention).relevant[..., 0]

    return {
        "exact": lambda model, x: exact_shapley(lambda x: model(x)[:, 0], x, groups, players="two"),
        **{convention: rules(convention) for convention in RULES},
        "ig": summed(rt.IntegratedGradients(n_steps=50, target=0), groups),
        "eg": summed(rt.ExpectedGradients(rt.references.Sample(references), n_samples=100, target=0), groups),
        "gradient_x_input": summed(rt.InputXGradient(target=0), groups),
        "occlusion": without,
        "build_up": alone,
        "both": lambda model, x: (without(model, x) + alone(model, x)) / 2,
    }


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _by_seed(rows: Rows) -> Rows:
    """The mean over the four networks of a seed: they share its split, and are one repeat."""
    found = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        own = [row for row in rows if row["seed"] == seed]
        keys = [key for key, value in own[0].items() if isinstance(value, float)]
        found.append({"seed": seed} | {key: sum(row[key] for row in own) / len(own) for key in keys})
    return found


def _outcome(settings: Settings, rows: Rows, count: int, epochs: int, examples: int) -> Outcome:
    told = f"{len(rows)} networks of four kinds, {epochs} epochs, {examples} unseen signals each"
    repeats = _by_seed(rows)
    return Outcome(
        title="Contextual decomposition against exact Shapley values",
        question="How near do the rules come to what a group of features is worth by all coalitions?",
        reduction=f"{told}." if settings.size == "full" else f"Reduced: {told} (full: 80, 100, 125).",
        data={
            "name": "ECG5000 (heart beats, 140 steps; normal or one of four disorders)",
            "source": "UCR archive",
            "kind": "custom",
            "rows": count,
            "features": LENGTH,
            "label": "unusual",
            "task": "classification",
            "split": dict(zip(("train", "validation", "test"), sizes(count), strict=True)),
            "notes": ["A random split a seed.", "Every signal has mean 0 and variance 1."],
        },
        runs={("plain" if name == "first" else name): _run(name, repeats) for name in METHODS},
        comparison={
            "rank correlation": {
                **compared(repeats, "rank_shapley_two_stretch", "rank_first_two_stretch", test_share=TESTED).as_dict(),
                "run": "plain",
                "against": "shapley",
                "higher_is_better": True,
            }
        },
        claims=_claims(repeats),
        notes=_NOTES,
        figures={
            "tables": [
                *(_table(repeats, players) for players in TRUTHS),
                _by_network(rows),
                _causes(rows),
                _controls(repeats),
            ]
        },
    )


_NOTES = [
    "A check of our own, not an experiment of the paper, which gives no numbers for it.",
    "An absent group is zero, the mean of every signal: what the decomposition takes for nothing, and where integrated "
    "gradients start. Expected gradients start from other signals and so answer another question.",
    "Error: sum of absolute differences over the sum of absolute values of the truth, over groups and signals. Rank "
    "correlation: Spearman's over the seven groups, averaged over signals.",
    "Why the rules lose the values of groups: biases. In the exact values what a network makes of nothing belongs to "
    "nobody. The rules divide it among the groups: each bias by the sizes of the parts that meet it (eq. 5), in an "
    "LSTM what the biases write into the state by whose step it is (Murdoch et al. 2018), and the LSTM carries it "
    "through 35 pieces. Where signals are small, biases are most of what is divided, and errors of the rules grow. "
    "That is most of the error in the convolutional network and the LSTM (the table 'What keeps the rules from the "
    "truth'), and little of it in the other two: in the attention network learned positions do what biases do, and "
    "its attention weights are held, without credit.",
    "The mean over networks is mostly the LSTM's, whose errors are the largest. In the dense network the Shapley "
    "convention is nearer to the truth than integrated gradients are, in the other three it is not.",
    "The rule of the LSTM is the published one: it gives the numbers of a slow program written from the paper's "
    "equations, and of the authors' package, to 1e-12 (tests/attributions/decomposition).",
    "From a reference, the zero signal, what the network makes of it belongs to nobody, at every step: our convention, "
    "not the papers'.",
    "The mean of occlusion and build-up *is* the exact value of a group against all the rest, at the price of two "
    "passes a group, as many as contextual decomposition takes.",
    "A repeat is a seed: the four networks of a seed share its split, and their mean is taken; the table by network "
    "tells them apart. Intervals are over seeds. Comparisons are paired by seed, with the corrected resampled t-test, "
    "since all seeds split the same signals, and corrected for their number (Benjamini, Hochberg).",
    "Random networks: rank correlation with the scores after all layers were randomised. Other signal's truth: "
    "correlation with the Shapley values of another signal: what place alone tells.",
]


def _run(name: str, rows: Rows) -> dict[str, Any]:
    keys = {
        f"{word}, {told}": f"{what}_{name}_{players}_stretch"
        for what, word in (("rank", "rank correlation"), ("error", "error"))
        for players, told in TRUTHS.items()
    }
    entry = run_entry(rows, {"accuracy": "accuracy"}, keys, weight=None)
    entry["seconds"] *= len(NETWORKS) / len(METHODS)
    return {**entry, "title": METHODS[name]}


def _claims(rows: Rows) -> list[Claim]:
    known = [name for name in METHODS if name not in (*RULES, "both")]
    asked = [("shapley", other, players) for players in TRUTHS for other in ("first", *known)]
    asked += [("reference", other, players) for players in TRUTHS for other in (*RULES[:3], *known)]
    asked += [("reference", "both", "all")]
    asked += [("published", "first", "two")]
    # (claim, ours, what it is compared with, whether more is better)
    judged = [
        (
            f"{METHODS[name]} has the smaller error than: {METHODS[other]} ({TRUTHS[players]})",
            f"error_{name}_{players}_stretch",
            f"error_{other}_{players}_stretch",
            False,
        )
        for name, other, players in asked
    ]
    judged += [
        (
            f"Without biases the error is smaller: {METHODS[name]}",
            f"error_{name}_unbiased",
            f"error_{name}_two_stretch",
            False,
        )
        for name in CHECKED[:2]
    ]
    judged += [
        (
            f"Scores agree with their own signal's truth more than with another's: {METHODS[name]}",
            f"rank_{name}_two_stretch",
            f"other_{name}_two_stretch",
            True,
        )
        for name in RULES
    ]
    pairs = [(b, a) if more else (a, b) for _, a, b, more in judged]
    tests = adjusted([compared(rows, *pair, test_share=TESTED) for pair in pairs])
    return [
        *(
            Claim(claim, "not given", f"{mean_told(rows, ours)} against {mean_told(rows, theirs)}", shown(test))
            for (claim, ours, theirs, _), test in zip(judged, tests, strict=True)
        ),
        *(
            Claim(
                f"Scores change with the network: {METHODS[name]}",
                "not given",
                f"rank correlation {mean_told(rows, f'random_net_{name}')} with those of a random network; the "
                f"truth's own is {mean_told(rows, 'random_net_exact')}",
                bounded(over(rows, f"random_net_{name}"), most=0.5),
            )
            for name in RULES
        ),
    ]


def _table(rows: Rows, players: str) -> dict[str, Any]:
    body = []
    for name, title in METHODS.items():
        cells = [over(rows, f"{what}_{name}_{players}_stretch") for what in ("rank", "error")]
        body.append([title, *(cell[value] for cell in cells for value in ("mean", "low", "high"))])
    columns = ["Method", "Rank correlation", "95% from", "to", "Error", "95% from", "to"]
    return {"title": f"Against Shapley values of {TRUTHS[players]}.", "columns": columns, "rows": body}


def _by_network(rows: Rows) -> dict[str, Any]:
    body = []
    for name, title in METHODS.items():
        for what, word in (("rank", "rank correlation"), ("error", "error")):
            cells = []
            for network in NETWORKS:
                own = [row for row in rows if row["network"] == network]
                cells.append(over(own, f"{what}_{name}_two_stretch")["mean"])
            body.append([title, word, *cells])
    return {
        "title": "A group against all the rest, by kind of network.",
        "columns": ["Method", "Measure", *NETWORKS.values()],
        "rows": body,
    }


def _causes(rows: Rows) -> dict[str, Any]:
    body = []
    for network, kind in NETWORKS.items():
        own = [row for row in rows if row["network"] == network]
        for case, told in CASES.items():
            means = [over(own, f"error_{name}_{case}")["mean"] for name in CHECKED]
            body.append([kind, told, *means])
    return {
        "title": "What keeps the rules from the truth: error, a group against all the rest.",
        "columns": ["Network", "Case", *(METHODS[name] for name in CHECKED)],
        "rows": body,
    }


def _controls(rows: Rows) -> dict[str, Any]:
    body = []
    for name, title in (("exact", "The truth itself"), *METHODS.items()):
        keys = (f"rank_{name}_two_stretch", f"other_{name}_two_stretch", f"rank_{name}_two_random")
        body.append([title, *(over(rows, key)["mean"] for key in (*keys, f"random_net_{name}"))])
    return {
        "title": "Controls: rank correlation with the truth (a group against all the rest) and with a random network.",
        "columns": ["Method", "Own signal", "Another signal's truth", "Groups of 20 random steps", "Random network"],
        "rows": body,
    }
