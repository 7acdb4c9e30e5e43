"""AWD heartbeats (Singh, Ha, Yu 2022, table 4): an LSTM of time series distilled into one wavelet and a linear model.

The paper's series, clathrin fluorescence of 40 steps, cannot be had. Stand-ins: heart beats (normal or not) and the gun
draws of the UCR archive, told by the area under the ROC curve in place of R2. Beside the LSTM and the distilled wavelet
stand the wavelet that the distillation starts from (DB5) and a linear model of the raw signal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rightly as rt
from rightly.evaluation import interval, score
from rightly.workflows.reproduce import Claim, Outcome, Settings, compared, over, run_entry, shown

DATASETS = ("ecg5000", "gunpoint", "mitbih")
NAMES = {
    "ecg5000": "ECG5000 (500 heart beats, 140 steps; normal or one of four disorders)",
    "gunpoint": "GunPoint (200 series, 150 steps; gun or finger)",
    "mitbih": "MIT-BIH record 100 (heart beats, 256 steps, every other one; normal or premature)",
}
START, LEVELS, LARGEST = "db5", 4, 6
TITLES = {
    "lstm": "LSTM",
    "awd": "Distilled wavelet",
    "db5": "DB5, not distilled",
    "raw": "Linear model of the raw signal",
}
#: table 4 of the paper
PAPER = {"awd": 0.262, "db5": 0.197, "lstm": 0.237, "compression": (0.574, 0.704), "seconds": (0.0002, 0.0449)}
KINDS = ("batch", "single")
#: test signals among those that are tested or trained on: all splits are of the same ones
TESTED = 0.25 / (0.25 + 0.5)
MARGINS = {"db5": 0.01, "lstm": 0.03}


def run(settings: Settings) -> Outcome:
    """Every split: the LSTM, its gradients, the wavelets along both strengths, and the linear models."""
    splits = settings.sized(smoke=2, reduced=5, full=20)
    effort = {
        "epochs": settings.sized(smoke=1, reduced=60, full=200),
        "steps": settings.sized(smoke=2, reduced=100, full=400),
        "sparsity": settings.sized(smoke=[0.0], reduced=[5e-4, 5e-3], full=np.geomspace(1e-4, 5e-3, 5).tolist()),
        "interpretation": settings.sized(
            smoke=[0.0, 1.0], reduced=[0.0, 0.01, 0.1, 1.0], full=[0.0, *np.geomspace(1e-3, 10, 20).tolist()]
        ),
        "width": settings.sized(smoke=4, reduced=40, full=40),
    }
    signals, labels = series(settings)
    seeds = [settings.seed + i for i in range(splits)]
    rows = settings.trials.run(
        "splits", [{"seed": seed} for seed in seeds], lambda key: trial(key["seed"], signals, labels, effort)
    )
    return _outcome(settings, signals, labels, rows, effort)


def series(settings: Settings) -> tuple[Tensor, Tensor]:
    """Signals (N, n), each of mean 0 and variance 1, and whether they are the unusual kind (N,)."""
    if settings.dataset == "gunpoint":
        arrays = rt.data.load_arrays("ucr_small", data_dir=settings.data_dir)
        values, unusual = arrays["GunPoint_x"], arrays["GunPoint_y"] == 1
    elif settings.dataset == "mitbih":
        arrays = rt.data.load_arrays("mitbih100_beats", data_dir=settings.data_dir)
        unusual = arrays["y"] != "N"
        kept = unusual | (np.arange(len(unusual)) % 2 == 0)
        values, unusual = arrays["x"][kept], unusual[kept]
    else:
        arrays = rt.data.load_arrays("ecg5000_train", data_dir=settings.data_dir)
        values, unusual = arrays["x"], arrays["y"] != 1
    signals = torch.from_numpy(np.asarray(values, dtype=np.float32))
    signals = (signals - signals.mean(1, keepdim=True)) / signals.std(1, keepdim=True)
    return signals, torch.from_numpy(unusual.astype(np.float32))


class Lstm(nn.Module):
    """One layer that reads a signal step by step; the mean of its hidden states is told apart linearly."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[..., None])[0].mean(1))


def trial(seed: int, signals: Tensor, labels: Tensor, effort: dict[str, Any]) -> dict[str, Any]:
    """One split, half to train, a quarter to stop the LSTM's training, a quarter to test."""
    order = torch.randperm(len(signals), generator=torch.Generator().manual_seed(seed))
    train, valid, test = order.split([len(order) // 2, len(order) // 4, len(order) - len(order) // 2 - len(order) // 4])
    known = torch.cat([train, valid])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Lstm(effort["width"])
    rt.fit(
        rt.Objective(model, binary_cross_entropy_with_logits, [], seed=seed),
        (signals[train], labels[train, None]),
        (signals[valid], labels[valid, None]),
        epochs=effort["epochs"],
        batch_size=32,
        lr=5e-3,
        seed=seed,
    )
    model.eval()
    gradients = rt.distillation.input_gradients(model, signals)
    found = rt.distill_wavelet(
        None,
        signals[known],
        gradients=gradients[known],
        sparsity=effort["sparsity"],
        interpretation=effort["interpretation"],
        wavelet=START,
        levels=LEVELS,
        steps=effort["steps"],
        restarts=1,
        seed=seed,
    )
    spaces = {
        "awd": [step.space() for step in found.path],
        "awd_signals_only": [step.space() for step in found.path if step.interpretation == 0],
        "db5": [rt.spaces.Wavelet(START, LEVELS)],
    }
    fitted = {
        name: rt.distillation.fit_predictor(
            several, signals[known], labels[known].long(), task="classification", largest=LARGEST, seed=seed
        )
        for name, several in spaces.items()
    }
    said: dict[str, Callable[[Tensor], Any]] = {name: predictor for name, (predictor, _) in fitted.items()}
    said |= {"lstm": lambda x: _outputs(model, x), "raw": raw_model(signals[known], labels[known], seed)}
    chosen = found.path[fitted["awd"][1]]
    result = {f"auc_{name}": auc(predict(signals[test]), labels[test]) for name, predict in said.items()}
    for name in ("awd", "db5"):
        space = spaces[name][fitted[name][1]]
        for threshold in (1e-3, 1e-2):
            share = rt.distillation.compression(space, signals[test], gradients[test], threshold)
            result[f"compression_{name}_{threshold:g}"] = share
    for name in ("awd", "lstm"):
        result[f"batch_seconds_{name}"] = seconds(said[name], signals[test])
        result[f"single_seconds_{name}"] = seconds(said[name], signals[test][:1])
    return result | {
        "sparsity": chosen.sparsity,
        "interpretation": chosen.interpretation,
        "low": [round(float(tap), 6) for tap in chosen.low],
        "test": len(test),
    }


@torch.no_grad()
def _outputs(model: nn.Module, signals: Tensor) -> np.ndarray:
    return model(signals)[:, 0].numpy()


def raw_model(signals: Tensor, labels: Tensor, seed: int) -> Callable[[Tensor], np.ndarray]:
    """Logistic regression of the signal itself, its strength chosen by the same cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    grid, split = {"C": np.logspace(-4, 3, 8)}, StratifiedKFold(5, shuffle=True, random_state=seed)
    search = GridSearchCV(LogisticRegression(max_iter=2000), grid, scoring="roc_auc", cv=split)
    best = search.fit(signals.numpy(), labels.numpy().astype(int)).best_estimator_
    return lambda x: best.decision_function(x.numpy())


def auc(said: np.ndarray, labels: Tensor) -> float:
    """Area under the ROC curve of log-odds."""
    # only their order counts
    ranks = (said - said.min()) / max(said.max() - said.min(), 1e-30)
    return score(labels.long().numpy(), np.stack([1 - ranks, ranks], 1), ["auc"])["auc"]


def seconds(predict: Callable[[Tensor], Any], signals: Tensor) -> float:
    """The least of 15 predictions."""
    least = np.inf
    for _ in range(15):
        begun = time.perf_counter()
        predict(signals)
        least = min(least, time.perf_counter() - begun)
    return float(least)


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _outcome(settings: Settings, signals: Tensor, labels: Tensor, rows: Rows, effort: dict[str, Any]) -> Outcome:
    name = str(settings.dataset)
    pairs = len(effort["sparsity"]) * len(effort["interpretation"])
    told = f"{len(rows)} splits, LSTM of {effort['width']} units, {effort['epochs']} epochs, {pairs} pairs of strengths"
    return Outcome(
        title="A network of time series as one wavelet",
        question="Does a wavelet distilled from an LSTM predict as well as the LSTM, in a fraction of the time?",
        reduction=f"{told}." if settings.size == "full" else f"Reduced: {told} (full: 20, 40, 200, 105).",
        data={
            "name": NAMES[name],
            "source": "UCR archive" if name != "mitbih" else "PhysioNet",
            "kind": "custom",
            "rows": len(signals),
            "features": signals.shape[1],
            "label": "unusual",
            "task": "classification",
            "class_counts": {"usual": int((labels == 0).sum()), "unusual": int((labels == 1).sum())},
            "split": {"train": len(signals) // 2, "validation": len(signals) // 4, "test": rows[0]["test"]},
            "notes": [f"{len(rows)} random splits.", "Every signal has mean 0 and variance 1."],
        },
        runs={("plain" if arm == "lstm" else arm): _run(arm, rows) for arm in TITLES},
        comparison={
            "auc": {
                **compared(rows, "auc_lstm", "auc_awd", test_share=TESTED).as_dict(),
                "run": "awd",
                "against": "plain",
                "higher_is_better": True,
            }
        },
        claims=_claims(rows),
        notes=_NOTES,
        figures={"curves": [_functions(rows)], "tables": [_table(rows)]},
    )


_NOTES = [
    "Another data set, another measure (area under the ROC curve of two classes, not R2) and a logistic in place of a "
    "linear regression: what is compared is how the models stand to each other, not the paper's numbers.",
    "The LSTM stops by its validation rows; the linear models see train and validation rows together and are chosen by "
    "five-fold cross-validation on them, and so is the wavelet, among all pairs of strengths.",
    "Features: the six largest coefficients of each of five scales, as in the paper. Compression: share of "
    "coefficients whose size and saliency both exceed the threshold (the paper: 0.001), on test signals.",
    "'Not worse' holds where the 95 % interval of the paired difference stays above -1 point (DB5), -3 points (LSTM). "
    "Intervals and tests are corrected for splits of the same signals (Nadeau, Bengio).",
    "Every path starts at DB5 itself, as the paper's did (no noise, no restarts). With 60 rough starts, tried first on "
    "three splits of ECG5000, the wavelets went further from DB5 and predicted no better.",
    "200 times is out of reach here: the predictor is one matrix product and one sort a scale (0.12 ms of CPU for 125 "
    "signals of 140 steps, each half of it), and torch's fused LSTM takes 5.8 ms for them.",
    "Times are the least of 15 runs on one core, while other work may have gone on: ratios are orders of size.",
]


def _run(arm: str, rows: Rows) -> dict[str, Any]:
    named = [{**row, "seconds": row["seconds"] / len(TITLES)} for row in rows]
    extra = {"compression": f"compression_{arm}_0.001"} if arm in ("awd", "db5") else {}
    entry = run_entry(named, {"auc": f"auc_{arm}"}, {}, weight=None)
    entry["explanations"] |= {what: over(rows, key) for what, key in extra.items()}
    return {**entry, "title": TITLES[arm]}


def _not_worse(found: Any, margin: float) -> bool | None:
    """True where the interval excludes a loss of the margin; False where it shows a loss; None between."""
    low = found.difference if found.low is None else found.low
    high = found.difference if found.high is None else found.high
    return True if low > -margin else False if high < 0 else None


def _claims(rows: Rows) -> list[Claim]:
    claims = []
    for other, word in (("db5", "not worse than DB5"), ("lstm", "within 3 points of the LSTM, or better")):
        found = compared(rows, f"auc_{other}", "auc_awd", test_share=TESTED)
        ours = (
            f"AUC {_mean(rows, 'auc_awd'):.3f} against {_mean(rows, f'auc_{other}'):.3f}, difference "
            f"{found.difference:+.3f}{_range(found)}"
        )
        claims.append(
            Claim(
                f"The distilled wavelet is {word}",
                f"R2 {PAPER['awd']} against {PAPER[other]}",
                ours,
                _not_worse(found, MARGINS[other]),
            )
        )
    found = compared(rows, "auc_awd_signals_only", "auc_awd", test_share=TESTED)
    claims.append(
        Claim(
            "The interpretation loss helps: without it the wavelet predicts worse",
            "R2 0.262 against 0.231",
            f"AUC {_mean(rows, 'auc_awd'):.3f} against {_mean(rows, 'auc_awd_signals_only'):.3f}{_range(found)}",
            shown(found),
        )
    )
    found = compared(rows, "compression_db5_0.001", "compression_awd_0.001", test_share=TESTED)
    claims.append(
        Claim(
            "Fewer coefficients matter than with DB5",
            "share {} against {}".format(*PAPER["compression"]),
            f"share {_mean(rows, 'compression_awd_0.001'):.3f} against {_mean(rows, 'compression_db5_0.001'):.3f}"
            f"{_range(found)}",
            None if found.p is None or found.p >= 0.05 else found.difference < 0,
        )
    )
    fast, slow = ({kind: _median(rows, f"{kind}_seconds_{arm}") for kind in KINDS} for arm in ("awd", "lstm"))
    claims.append(
        Claim(
            "At least 200 times faster than the LSTM",
            "{} s against {} s".format(*PAPER["seconds"]),
            f"{slow['batch'] / fast['batch']:.0f} times for all test signals at once "
            f"({1e3 * fast['batch']:.2f} against {1e3 * slow['batch']:.1f} ms), "
            f"{slow['single'] / fast['single']:.0f} times for one",
            slow["batch"] / fast["batch"] >= 200,
        )
    )
    return claims


def _mean(rows: Rows, key: str) -> float:
    return interval([row[key] for row in rows]).mean


def _median(rows: Rows, key: str) -> float:
    return float(np.median([row[key] for row in rows]))


def _range(found: Any) -> str:
    if found.low is None:
        return ""
    return f" (95 %: {found.low:+.3f} to {found.high:+.3f}, p = {found.p:.2g})"


def _table(rows: Rows) -> dict[str, Any]:
    body = []
    for arm in (*TITLES, "awd_signals_only"):
        found = interval([row[f"auc_{arm}"] for row in rows])
        shares = [_mean(rows, f"compression_{arm}_{t}") if arm in ("awd", "db5") else None for t in ("0.001", "0.01")]
        times = [1e3 * _median(rows, f"{kind}_seconds_{arm}") if arm in ("awd", "lstm") else None for kind in KINDS]
        title = TITLES.get(arm, "Distilled without the interpretation loss")
        body.append([title, found.mean, found.low, found.high, *shares, *times])
    columns = ["Model", "AUC", "95% from", "to", "Share > 0.001", "Share > 0.01", "Test set (ms)", "One signal (ms)"]
    return {"title": "Prediction, compression and time (table 4).", "columns": columns, "rows": body}


def _functions(rows: Rows) -> dict[str, Any]:
    """The first split's wavelet beside DB5 (figure 7)."""
    series = []
    for name, low in (("DB5", rt.spaces.Wavelet(START).bank.low), ("distilled", torch.tensor(rows[0]["low"]).double())):
        drawn = rt.distillation.cascade(low, 5)
        series.append({"name": name, "x": drawn.times.tolist(), "y": drawn.wavelet.tolist()})
    return {"title": "Wavelets (figure 7)", "x_label": "time", "y_label": "psi", "series": series}
