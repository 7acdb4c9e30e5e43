"""Eighteen ablation metrics (Erion et al. 2019, table 1): expected gradients rank features better than other methods.

A small network learns a linear outcome of 60 features, correlated in groups or independent. Methods explain test rows,
and features are kept or removed in the order that an explanation gives them. Table 1 of the 2019 paper, that of its
supplement, and the first three columns of table 1 of the 2021 article (which are RPM, RNM and RAM of the former).
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import rightly as rt
from rightly.evaluation import ABLATION_METRICS, ablation, adjust, binomial, compare, local_accuracy, score
from rightly.workflows.reproduce import Claim, Outcome, Settings, over, run_entry

SETS = {"corrgroups60": rt.data.corrgroups60, "independentlinear60": rt.data.independentlinear60}
SET_NAMES = {"corrgroups60": "correlated groups", "independentlinear60": "independent features"}
#: the papers' methods, expected gradients as published: references and positions drawn independently
PUBLISHED = {
    "expected_gradients": "Expected gradients, as published",
    "integrated_gradients": "Integrated gradients",
    "input_x_gradient": "Input times gradient",
    "gradient": "Gradient",
    "random": "Random",
}
FURTHER = {
    "lattice": "Expected gradients, lattice",
    "lattice_quarter": "Expected gradients, lattice, a quarter of the draws",
    "limit": "Expected gradients, all references",
    "deep_lift": "DeepLIFT against the mean (captum)",
}
TITLES = PUBLISHED | FURTHER
#: metrics by their definition, or with everything that the published code did otherwise
PROTOCOLS = {"defined": "as defined", "published": "as the published code measures"}
TEST, DRAWS = 100, 200

#: the papers' tables, in the order of ABLATION_METRICS: KPM, KPR, KPI, KNM, ..., RAI
PAPER = {
    "corrgroups60": {
        "expected_gradients": "3.731 3.800 3.973 3.615 3.551 3.873 0.906 0.903 0.919 "
        "3.612 3.575 3.525 3.759 3.830 3.683 0.897 0.885 0.880",
        "integrated_gradients": "3.667 3.736 3.920 3.543 3.476 3.808 0.905 0.899 0.920 "
        "3.539 3.503 3.365 3.687 3.754 3.543 0.872 0.859 0.822",
        "input_x_gradient": "3.633 3.698 3.881 3.473 3.412 3.732 0.904 0.897 0.920 "
        "3.474 3.442 3.273 3.655 3.718 3.457 0.869 0.854 0.812",
        "gradient": "0.096 0.122 0.099 0.076 -0.112 0.052 0.838 0.823 0.887 "
        "0.035 -0.098 -0.020 0.110 0.105 0.108 0.729 0.712 0.616",
        "random": "0.033 0.106 0.077 -0.012 -0.093 -0.053 0.593 0.583 0.715 "
        "-0.053 -0.100 -0.106 0.034 0.092 0.111 0.400 0.400 0.275",
    },
    "independentlinear60": {
        "expected_gradients": "4.096 4.179 4.264 4.014 3.835 4.153 0.941 0.946 0.938 "
        "4.079 3.941 4.210 4.203 4.260 4.356 0.992 0.977 1.019",
        "integrated_gradients": "4.055 4.112 4.176 3.949 3.753 4.070 0.941 0.945 0.938 "
        "4.013 3.854 4.113 4.157 4.186 4.259 0.973 0.966 0.995",
        "input_x_gradient": "3.992 4.066 4.122 3.896 3.715 4.023 0.939 0.942 0.935 "
        "3.960 3.820 4.065 4.094 4.137 4.199 0.984 0.971 1.009",
        "gradient": "0.044 0.107 0.029 0.155 -0.150 0.172 0.902 0.905 0.902 "
        "0.110 -0.125 0.133 0.057 0.080 0.041 0.947 0.936 0.985",
        "random": "-0.152 0.102 -0.152 0.111 -0.126 0.060 0.470 0.482 0.438 "
        "0.012 -0.124 0.059 0.035 0.101 0.070 0.504 0.521 0.527",
    },
}
PAPER_FIRST = {"corrgroups60": "17 of 18, p = 7.2e-05", "independentlinear60": "all 18 (16 by the digits printed)"}


class Sizes(NamedTuple):
    """Splits, epochs, test rows, draws of a full explanation, and the references and nodes of the limit."""

    splits: int = 10
    epochs: int = 30
    test: int = TEST
    draws: int = DRAWS
    references: int = 900
    nodes: int = 16


class Split(NamedTuple):
    """A network and the rows it has seen or not."""

    model: nn.Sequential
    train: Tensor
    test: Tensor
    labels: Tensor


def run(settings: Settings) -> Outcome:
    """Every data set, protocol and split; each trains one network, explains it with all methods and ablates all."""
    sizes = settings.sized(smoke=Sizes(1, 1, 6, 8, 30, 2), reduced=Sizes(splits=5), full=Sizes())
    trained = cache(lambda name, number: _split(name, number, sizes, settings.seed))

    def work(key: dict[str, Any]) -> dict[str, Any]:
        split = trained(key["set"], key["split"])
        # the published code trained one network, and tested it on every split
        model = split.model if key["protocol"] == "defined" else trained(key["set"], 0).model
        return measure(key, split._replace(model=model), trained(key["set"], 0).train, sizes)

    keys = [
        {"protocol": protocol, "set": name, "split": split}
        for protocol in PROTOCOLS
        for name in SETS
        for split in range(sizes.splits)
    ]
    return _outcome(settings, settings.trials.run("splits", keys, work), sizes)


def _split(name: str, number: int, sizes: Sizes, seed: int) -> Split:
    """The published split of this number: scikit-learn's, which takes the first of a permutation as test rows."""
    data = SETS[name]()
    order = np.random.RandomState(number).permutation(len(data.inputs))
    inputs, labels = (torch.from_numpy(part).float() for part in (data.inputs, data.labels))
    test, train = order[: sizes.test], order[TEST:]
    model = network(inputs[train], labels[train], sizes.epochs, seed * 1000 + number)
    return Split(model, inputs[train], inputs[test], labels[test])


def network(inputs: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Sequential:
    """The published network, 60-32-20-20-1, with Keras' initial weights and Adam."""
    model = rt.models.mlp(inputs.shape[1], (32, 20, 20), 1, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=draws)
            nn.init.zeros_(layer.bias)
    objective = rt.Objective(model, mse_loss, seed=seed)
    rt.fit(objective, (inputs, labels[:, None]), epochs=epochs, batch_size=32, seed=seed)
    return model.eval()


def measure(key: dict[str, Any], split: Split, scaled_by: Tensor, sizes: Sizes) -> dict[str, Any]:
    """The areas of every method, and how near each comes to the limit of expected gradients."""
    published = key["protocol"] == "published"
    phis = explain(split, sizes, key["split"])
    mean, deviation = scaled_by.mean(0), scaled_by.std(0, correction=0)

    def predict(rows: Tensor) -> Tensor:
        # the published wrapper standardises what it predicts, but not what it trains on or explains
        return split.model((rows - mean) / deviation if published else rows)

    def areas(phi: Tensor) -> dict[str, float]:
        curves = ablation(predict, split.test, phi, split.train, split.labels, seed=key["split"], published=published)
        return {name: curve.area for name, curve in curves.items()}

    with torch.no_grad():
        outputs = split.model(split.test)[:, 0]
    scale = float(phis["limit"].abs().mean())
    return {
        "areas": {method: areas(phi) for method, phi in phis.items()},
        "error": {method: float((phi - phis["limit"]).abs().mean()) / scale for method, phi in phis.items()},
        "local_accuracy": {method: local_accuracy(phi, outputs) for method, phi in phis.items()},
        "r2": score(split.labels.double().numpy(), outputs.double().numpy(), ["r2"])["r2"],
    }


def explain(split: Split, sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Attributions (N, 60) of the test rows by every method."""

    def by(method: str, **arguments: Any) -> Tensor:
        return rt.attribute(split.model, split.test, method, seed=seed, diagnostics=False, **arguments).attributions

    def lattice(draws: int) -> Tensor:
        reference = rt.references.Sample(split.train)
        return by("expected_gradients", reference=reference, n_samples=draws, design="lattice", recentred=True)

    independent = rt.references.Sample(split.train, replacement=True)
    every = rt.references.Sample(split.train[: sizes.references])
    found = {
        "expected_gradients": by(
            "expected_gradients", reference=independent, n_samples=sizes.draws, design="independent", recentred=False
        ),
        "integrated_gradients": by("integrated_gradients", n_steps=sizes.draws),
        "input_x_gradient": by("input_x_gradient"),
        "gradient": by("gradient"),
        "random": torch.randn(split.test.shape, generator=torch.Generator().manual_seed(seed)),
        "lattice": lattice(sizes.draws),
        "lattice_quarter": lattice(sizes.draws // 4),
        "limit": by("integrated_gradients", reference=every, n_samples=len(every), n_steps=sizes.nodes),
    }
    if _has_captum():
        from captum.attr import DeepLift

        baseline = split.train.mean(0, keepdim=True)
        found["deep_lift"] = DeepLift(split.model).attribute(split.test, baselines=baseline).detach()
    return found


def _has_captum() -> bool:
    return importlib.util.find_spec("captum") is not None


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


class Found(NamedTuple):
    """All areas, in the order of the splits."""

    rows: Rows
    methods: tuple[str, ...]

    def areas(self, protocol: str, name: str, method: str, metric: str) -> list[float]:
        """One a split."""
        return [row["areas"][method][metric] for row in self.of(protocol, name)]

    def of(self, protocol: str, name: str) -> Rows:
        return [row for row in self.rows if (row["protocol"], row["set"]) == (protocol, name)]

    def mean(self, *key: str) -> float:
        return float(np.mean(self.areas(*key)))

    def first(self, protocol: str, name: str) -> list[str]:
        """The metrics by which expected gradients are the best of the published methods, by their means."""
        return [
            metric
            for metric in ABLATION_METRICS
            if all(
                self.mean(protocol, name, "expected_gradients", metric) > self.mean(protocol, name, other, metric)
                for other in PUBLISHED
                if other != "expected_gradients"
            )
        ]

    def paired(self, protocol: str, name: str, method: str, against: str) -> dict[str, dict[str, Any]]:
        """The paired test of every metric over splits, with p-values adjusted for their number."""
        tests = {
            metric: compare(
                self.areas(protocol, name, against, metric), self.areas(protocol, name, method, metric)
            ).as_dict()
            for metric in ABLATION_METRICS
        }
        adjusted = adjust([test["p"] for test in tests.values()])
        return {metric: {**test, "p_adjusted": p} for (metric, test), p in zip(tests.items(), adjusted, strict=True)}


def _outcome(settings: Settings, rows: Rows, sizes: Sizes) -> Outcome:
    known = tuple(method for method in TITLES if all(method in row["areas"] for row in rows))
    found = Found(rows, known)
    size = "Full size" if settings.size == "full" else "Reduced"
    tests = {name: found.paired("defined", name, "expected_gradients", "integrated_gradients") for name in SETS}
    return Outcome(
        title="Eighteen ablation metrics: which explanations rank features best",
        question="Do expected gradients find the features that matter to a network better than other methods?",
        reduction=f"{size}: {sizes.splits} splits of 900 and {sizes.test} rows (the paper: 10 of 900 and 100).",
        data={
            "name": "correlated groups 60 and independent linear 60",
            "source": "made as published (rt.data.corrgroups60, rt.data.independentlinear60)",
            "kind": "table",
            "rows": 1000,
            "features": 60,
            "label": "a linear function of ten features",
            "task": "regression",
            "split": {"train": 900, "test": sizes.test},
        },
        runs={method: _run(found, method) for method in known},
        comparison={
            f"{name} {metric}": {
                **test,
                "run": "expected_gradients",
                "against": "integrated_gradients",
                "higher_is_better": True,
            }
            for name, metrics in tests.items()
            for metric, test in metrics.items()
        },
        claims=[claim for protocol in PROTOCOLS for name in SETS for claim in _claims(found, protocol, name)],
        notes=_notes(found),
        figures={
            "tables": [
                *[_paper_table(found, protocol, name) for name in SETS for protocol in PROTOCOLS],
                *[_sampler_table(found, name) for name in SETS],
            ]
        },
    )


def _notes(found: Found) -> list[str]:
    r2 = {name: over(found.of("defined", name), "r2")["mean"] for name in SETS}
    missing = [] if "deep_lift" in found.methods else ["captum is not installed here: DeepLIFT is left out."]
    return [
        "By definition: a network for each split, background rows from all training rows, attributions ranked as they "
        "are. As the published code measures: the network of the first split explains and is tested on every split, so "
        "that most test rows were trained on; it is trained on raw rows and predicts standardised ones; background "
        "rows are the first 100 training rows; ties are broken by noise of 1e-6.",
        f"R2 of the networks on test rows: {', '.join(f'{r2[name]:.3f} ({SET_NAMES[name]})' for name in SETS)}.",
        "Integrated gradients start from zero, which is the mean of the data, and take as many gradients as expected "
        "gradients draw. The papers do not say what theirs took.",
        "The lattice orders the references by the network's output: one more pass over the 900 training rows for all "
        "explanations together, not counted as gradient evaluations.",
        "The limit takes every training row as reference, with Gauss-Legendre nodes along each path.",
        "In the paper's table for independent features two metrics are ties with integrated gradients (keep absolute "
        "mask and impute) and one differs by 0.001. Absolute metrics compare with labels, not with what is explained.",
        *missing,
    ]


def _run(found: Found, method: str) -> dict[str, Any]:
    """One run a method; its measures are named by data set and metric."""
    splits = sorted({row["split"] for row in found.rows})
    rows = [{"seed": split, "seconds": 0.0} for split in splits]
    for row, split in zip(rows, splits, strict=True):
        for trial in found.rows:
            if trial["split"] == split and trial["protocol"] == "defined":
                row["seconds"] += trial["seconds"] / len(found.methods)
                row |= {f"{trial['set']} {metric}": area for metric, area in trial["areas"][method].items()}
                row |= {f"{trial['set']} {key}": trial[key][method] for key in ("error", "local_accuracy")}
    metrics = [f"{name} {metric}" for name in SETS for metric in ABLATION_METRICS]
    extra = [f"{name} {key}" for name in SETS for key in ("error", "local_accuracy")]
    return run_entry(rows, {key: key for key in metrics}, {key: key for key in extra}, title=TITLES[method])


def _claims(found: Found, protocol: str, name: str) -> list[Claim]:
    where = f"{SET_NAMES[name]}, {PROTOCOLS[protocol]}"
    first = found.first(protocol, name)
    total = len(ABLATION_METRICS)
    tests = found.paired(protocol, name, "expected_gradients", "integrated_gradients")
    better, worse = _counts(tests)
    but = [metric for metric in ABLATION_METRICS if metric not in first]
    claims = [
        Claim(
            f"Expected gradients are first by at least 15 of 18 metrics ({where})",
            PAPER_FIRST[name],
            f"{len(first)} of {total}, p = {binomial(len(first), total):.2g}"
            + (f"; not by {', '.join(but)}" if but else ""),
            len(first) >= 15,
        ),
        Claim(
            f"They are better than integrated gradients, split by split ({where})",
            "not tested",
            f"{better} metrics better, {worse} worse (paired t-tests, adjusted p < 0.05)",
            better > worse if better or worse else None,
        ),
    ]
    for method in ("lattice", "lattice_quarter"):
        tests = found.paired(protocol, name, method, "expected_gradients")
        better, worse = _counts(tests)
        higher = sum(test["difference"] > 0 for test in tests.values())
        errors = [
            np.mean([row["error"][m] for row in found.of(protocol, name)]) for m in (method, "expected_gradients")
        ]
        claims.append(
            Claim(
                f"{TITLES[method]}: not worse than as published with all draws ({where})",
                "ours alone",
                f"{better} metrics better, {worse} worse (adjusted p < 0.05), {higher} of {total} higher; "
                f"error against the limit {errors[0]:.1%} instead of {errors[1]:.1%}",
                worse == 0 and binomial(total - higher, total) >= 0.05,
            )
        )
    return claims


def _counts(tests: dict[str, dict[str, Any]]) -> tuple[int, int]:
    """How many metrics are shown to be better, and worse."""
    shown = [t["difference"] for t in tests.values() if t["p_adjusted"] is not None and t["p_adjusted"] < 0.05]
    return sum(d > 0 for d in shown), sum(d < 0 for d in shown)


def _paper_table(found: Found, protocol: str, name: str) -> dict[str, Any]:
    paper = {method: [float(value) for value in line.split()] for method, line in PAPER[name].items()}
    body: list[list[Any]] = []
    for at, metric in enumerate(ABLATION_METRICS):
        ours = [found.mean(protocol, name, method, metric) for method in PUBLISHED]
        theirs = [paper[method][at] for method in PUBLISHED]
        body.append([metric.replace("_", " "), *ours, *theirs])
    short = ["EG", "IG", "input x gradient", "gradient", "random"]
    columns = ["Metric", *short, *(f"paper: {method}" for method in short)]
    return {"title": f"Areas, {SET_NAMES[name]}, {PROTOCOLS[protocol]}.", "columns": columns, "rows": body}


def _sampler_table(found: Found, name: str) -> dict[str, Any]:
    """The published sampler against ours with a quarter of its draws."""
    tests = found.paired("defined", name, "lattice_quarter", "expected_gradients")
    body = [
        [
            metric.replace("_", " "),
            *(found.mean("defined", name, method, metric) for method in ("expected_gradients", "lattice", "limit")),
            *(test[key] for key in ("difference", "low", "high", "p", "p_adjusted")),
        ]
        for metric, test in tests.items()
    ]
    columns = [
        "Metric",
        "As published",
        "Lattice",
        "All references",
        "Quarter, difference",
        "95% from",
        "to",
        "p",
        "adjusted",
    ]
    return {"title": f"Samplers of expected gradients, {SET_NAMES[name]}.", "columns": columns, "rows": body}
