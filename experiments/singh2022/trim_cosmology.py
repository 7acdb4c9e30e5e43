"""TRIM cosmology (Singh, Ha, Yu 2022, figures 8 and 9): which scales of a mass map tell a network how much matter is.

Simulated maps of weak lensing cannot be had; ours are lognormal fields drawn from spectra of 25 cosmologies. A
convolutional network predicts Omega_m, and rings of frequencies are scored by contextual decomposition, divided by
the prediction, as in the paper; beside it other attributions in the same space, the exact value of a ring against all
others, and what the network's R2 loses when a ring is taken from another map.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import rightly as rt
from rightly.evaluation import compare, exact_shapley, interval, randomised_copy, rank_correlation, without_biases
from rightly.workflows.cosmology_study import (
    DEGREES,
    SIDE,
    Reader,
    described,
    draw_maps,
    fresh_network,
    told,
    train_reader,
)
from rightly.workflows.exact_study import Explain, nearness, summed
from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, bounded, compared, over, run_entry, shown
from rightly.workflows.wording import in_sentence, mean_told

WIDTH, RINGS = 300, 12
#: the last of equal width: the corners' ring is wider, and holds more modes
LAST = RINGS - 2
METHODS = {
    "cd": "Contextual decomposition",
    "cd_shapley": "Contextual decomposition, Shapley convention",
    "cd_reference": "Contextual decomposition from the empty map, biases apart (ours)",
    "exact": "Exact value of a ring against all others",
    "ig": "Integrated gradients (30 steps from the empty map)",
    "eg": "Expected gradients (references from other maps)",
    "gradient_x_input": "Gradient times input",
    "occlusion": "Occlusion (the ring set to zero)",
}
#: what an explanation without a share of the biases is compared in
CHECKED = ("cd", "cd_shapley", "cd_reference", "ig", "gradient_x_input", "occlusion")


def run(settings: Settings) -> Outcome:
    """Every seed: maps, a network, and the rings."""
    counts = settings.sized(smoke=(2, 1, 1), reduced=(40, 10, 20), full=(400, 60, 80))
    epochs = settings.sized(smoke=1, reduced=20, full=40)
    seeds = [settings.seed + i for i in range(settings.sized(smoke=2, reduced=5, full=10))]
    rows = settings.trials.run(
        "maps", [{"seed": seed} for seed in seeds], lambda key: trial(key["seed"], counts, epochs, settings)
    )
    return _outcome(settings, rows, counts, epochs)


def trial(seed: int, counts: tuple[int, ...], epochs: int, settings: Settings) -> dict[str, Any]:
    """One set of maps and one network."""
    draws = torch.Generator().manual_seed(seed)
    drawn = draw_maps(counts, draws, settings.data_dir)
    maps = drawn.maps
    model = own_units(train_reader(seed, drawn, epochs))
    x, true = maps["test"], drawn.truth["test"][:, 0].float()
    rings = ring_masks()
    space = rt.spaces.Fourier(dims=2)
    said = _said(model, x)
    whole = _r2(said, true)
    ways = explainers(rings, maps["train"])
    scores = {name: explain(model, x) for name, explain in ways.items()}
    found: dict[str, Any] = {"r2": whole, "dull": _r2(_said(fresh_network(seed).eval(), x), true)}
    shares = {name: score / said[:, None] for name, score in scores.items()}
    found |= {f"share_{name}": share.mean(0).tolist() for name, share in shares.items()}
    found["matter"] = sorted({round(float(value), 4) for value in true})
    found["share_by_matter"] = [shares["cd"][(true - value).abs() < 1e-4].mean(0).tolist() for value in found["matter"]]
    # rings are chosen on maps of their own
    chosen = (ways["cd"](model, maps["validation"]) / _said(model, maps["validation"])[:, None]).mean(0)
    peak = int(chosen[: LAST + 1].argmax())
    found |= {"peak": peak, "inside": 1 + int(chosen[1:LAST].argmax())}
    found["peak_matter"] = float(rank_correlation(shares["cd"][:, peak][None], true[None]))
    found["peak_said"] = float(rank_correlation(shares["cd"][:, peak][None], said[None]))
    # reality: what a prediction loses without the ring's own content
    coordinates = space.encode(x)
    others = coordinates[torch.randperm(len(x), generator=draws)]
    exchanged, emptied = [], []
    for ring in rings:
        for kept, instead in ((exchanged, others), (emptied, torch.zeros_like(coordinates))):
            changed = space.decode(torch.where(ring, instead, coordinates), (SIDE, SIDE))
            kept.append(whole - _r2(_said(model, changed), true))
    found |= {"loss_exchanged": exchanged, "loss_emptied": emptied}
    # about so many maps for what is asked of several networks: as trained, at random, without biases
    some = x[:: max(1, len(x) // settings.sized(smoke=5, reduced=50, full=50))]
    few = {name: explain(model, some) for name, explain in ways.items()}
    random = randomised_copy(model, seed=seed)
    for name, score in scores.items():
        sizes = score.abs().mean(0)
        for kind, loss in (("exchanged", exchanged), ("emptied", emptied)):
            found[f"agrees_{kind}_{name}"] = float(rank_correlation(sizes[None], torch.tensor(loss)[None]))
        found[f"exact_{name}"] = float(rank_correlation(score, scores["exact"]).mean())
        found[f"random_net_{name}"] = float(rank_correlation(few[name], ways[name](random, some)).mean())
    # whether what differs from the exact values is what biases get
    unbiased = without_biases(model)
    bare = {name: ways[name](unbiased, some) for name in ("exact", *CHECKED)}
    for case, values in (("as_is", few), ("unbiased", bare)):
        for name in CHECKED:
            found[f"{case}_rank_{name}"], found[f"{case}_error_{name}"] = nearness(values[name], values["exact"])
    return found


def ring_masks() -> Tensor:
    """(RINGS, SIDE, SIDE) boolean: of WIDTH multipoles each, the last with all that is left in the corners."""
    step = math.radians(DEGREES) / SIDE
    edges = [ring * WIDTH * step / (2 * math.pi) for ring in range(RINGS)]
    return rt.spaces.Fourier(dims=2).bands((SIDE, SIDE), [*edges, 1.0])


def own_units(reader: Reader) -> nn.Module:
    """The network, its last layer saying Omega_m itself."""
    model = reader.network
    with torch.no_grad():
        model[-1].weight.mul_(reader.spread)
        model[-1].bias.mul_(reader.spread).add_(reader.mean)
    return model


def explainers(rings: Tensor, references: Tensor) -> dict[str, Explain]:
    """Ways to say what each ring adds to the prediction, by name."""
    space = rt.spaces.Fourier(dims=2)

    def rules(convention: str) -> Explain:
        method = rt.ContextualDecomposition(rings, convention=convention, space=space, target=0)
        return lambda model, x: method(model, x, diagnostics=False).attributions

    def exact(model: Any, x: Tensor) -> Tensor:
        def value(points: Tensor) -> Tensor:
            return _said(model, space.decode(points, (SIDE, SIDE)))

        return exact_shapley(value, space.encode(x), rings, players="two")

    def without(model: Any, x: Tensor) -> Tensor:
        coordinates, whole = space.encode(x), _said(model, x)
        left = [_said(model, space.decode(coordinates * ~ring, (SIDE, SIDE))) for ring in rings]
        return whole[:, None] - torch.stack(left, 1)

    others = rt.references.Sample(references)
    return {
        "cd": rules("first"),
        "cd_shapley": rules("shapley"),
        "cd_reference": rules("reference"),
        "exact": exact,
        "ig": summed(rt.IntegratedGradients(n_steps=30, space=space, target=0), rings),
        "eg": summed(rt.ExpectedGradients(others, n_samples=50, space=space, target=0), rings),
        "gradient_x_input": summed(rt.InputXGradient(space=space, target=0), rings),
        "occlusion": without,
    }


@torch.no_grad()
def _said(model: nn.Module, maps: Tensor) -> Tensor:
    return torch.cat([model(part)[:, 0] for part in maps.split(256)])


def _r2(said: Tensor, truth: Tensor) -> float:
    return float(1 - (said - truth).square().mean() / truth.var(correction=0))


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _outcome(settings: Settings, rows: Rows, counts: tuple[int, ...], epochs: int) -> Outcome:
    size = told(len(rows), counts)
    full = "10 seeds, 400 / 60 / 80 maps, 40 epochs"
    return Outcome(
        title="The scales that tell how much matter there is",
        question="Which rings of frequencies does a network read Omega_m from, and do attributions say so?",
        reduction=f"{size}, {epochs} epochs." if settings.size == "full" else f"Reduced: {size} (full: {full}).",
        data=described(counts),
        runs={("plain" if name == "cd" else name): _run(name, rows) for name in METHODS},
        comparison={
            "agreement with loss": {
                **compared(rows, "agrees_exchanged_occlusion", "agrees_exchanged_cd").as_dict(),
                "run": "plain",
                "against": "occlusion",
                "higher_is_better": True,
            }
        },
        claims=_claims(rows),
        notes=_NOTES,
        figures={"curves": _curves(rows), "tables": [_table(rows), _biases(rows), _rings(rows)]},
    )


_NOTES = [
    "Lognormal fields of 64 x 64 pixels instead of ray-traced simulations of 256 x 256, and a small network instead of "
    "a ResNet-18. Our maps end at a multipole of 3,291 along their sides (4,654 in the corners): the paper's peak near "
    "10,000 cannot be seen. What can be compared is the form of the curve and how it moves with Omega_m.",
    "A lognormal field of a given cosmology knows its spectrum and little else; clusters, to which the paper ascribes "
    "the peak, are not in it.",
    "Nothing dims our maps at small scales, neither noise nor a limit of resolution, and there the modes are most: the "
    "paper's reason for a decay beyond the peak is not in them.",
    "Eleven rings of 300 multipoles, and one for what is left in the corners, which is wider and no candidate for the "
    "peak. The paper slides wider bands. The ring between the first and the last is chosen on validation maps.",
    "Scores are divided by the predicted value, as in the paper. Contextual decomposition shares the last layer's bias "
    "out among the parts, so that its shares contain most of the mean of Omega_m; the others explain the prediction "
    "less that of the empty map (of other maps, for expected gradients).",
    "Why contextual decomposition is far from the exact values: the biases. Each layer's are divided among the parts "
    "by their size (eq. 5), and so is what the network says of an empty map, which is most of Omega_m and nobody's in "
    "a Shapley value. Its scores are tested again with the same weights and all biases zero. An absent ring is the "
    "same for all but expected gradients: zero, where the maps have their mean.",
    "The exact value of a ring against all others is the mean of occlusion and of the ring alone: two passes a ring, "
    "as many as contextual decomposition takes.",
    "Error: sum of absolute differences over the sum of absolute exact values.",
    "Exchanged: the ring's coordinates are taken from another test map, so that each ring looks as rings do. Agreement "
    "is the rank correlation over rings of the mean absolute score with the loss in R2. It asks what the network as a "
    "whole reads, where a score says what a single prediction is made of: the two need not agree.",
    "Whose peak ring grows with Omega_m is judged on test maps; the ring is that of the validation maps. Verdicts on "
    "comparisons are corrected for their number (Benjamini, Hochberg).",
]


def _run(name: str, rows: Rows) -> dict[str, Any]:
    keys = {"agreement with loss": f"agrees_exchanged_{name}", "agreement with the exact value": f"exact_{name}"}
    entry = run_entry(rows, {"r2": "r2"}, keys, weight=None)
    entry["seconds"] /= len(METHODS)
    return {**entry, "title": METHODS[name]}


def _middle(ring: int) -> int:
    return WIDTH * ring + WIDTH // 2


#: what is asked again without biases
BIASED = ("cd", "cd_shapley")


def _claims(rows: Rows) -> list[Claim]:
    peaks = [row["peak"] for row in rows]
    inside, first, last = (
        [row["share_cd"][at] for row, at in zip(rows, rings, strict=True)]
        for rings in ([row["inside"] for row in rows], [0] * len(rows), [LAST] * len(rows))
    )
    ends = [shown(test) for test in adjusted([compare(first, inside), compare(last, inside)])]
    claims = [
        Claim(
            "The network predicts Omega_m accurately",
            "not given",
            f"R2 {mean_told(rows, 'r2')}; fresh weights {mean_told(rows, 'dull')}",
            None,
        ),
        Claim(
            "Shares peak at a scale in the middle and decay for higher frequencies",
            "peak near 10,000",
            f"peak at {', '.join(str(_middle(peak)) for peak in peaks)}; share {interval(inside).mean:.3f} in the "
            f"highest ring between, {interval(first).mean:.3f} in the first and {interval(last).mean:.3f} in the last",
            # a peak beyond our last ring would agree with the paper's too
            True if all(ends) else None,
        ),
        Claim(
            "The share of the peak grows with Omega_m",
            "yes (figure 9)",
            f"rank correlation {mean_told(rows, 'peak_matter')} over test maps",
            bounded(over(rows, "peak_matter"), least=0.0),
        ),
    ]
    asked = [(kind, other) for kind in ("agrees_exchanged_{}", "exact_{}") for other in METHODS if other != "cd"]
    asked.remove(("exact_{}", "exact"))
    tests = adjusted([compared(rows, kind.format(other), kind.format("cd")) for kind, other in asked])
    words = {
        "agrees_exchanged_{}": "Which rings matter agrees with the loss in R2 better than that of",
        "exact_{}": "Scores of a map agree with the exact values better than those of",
    }
    for (kind, other), test in zip(asked, tests, strict=True):
        ours, theirs = (mean_told(rows, kind.format(name)) for name in ("cd", other))
        claim = f"{words[kind]}: {in_sentence(METHODS[other])}"
        claims.append(Claim(claim, "not given", f"{ours} against {theirs}", shown(test)))
    tests = adjusted([compared(rows, f"as_is_rank_{name}", f"unbiased_rank_{name}") for name in BIASED])
    for name, test in zip(BIASED, tests, strict=True):
        claims.append(
            Claim(
                f"Scores are nearer to the exact values once all biases are zero: {METHODS[name]}",
                "not given",
                f"rank correlation {mean_told(rows, f'unbiased_rank_{name}')} against "
                f"{mean_told(rows, f'as_is_rank_{name}')}",
                shown(test),
            )
        )
    claims.append(
        Claim(
            "Scores change with the network",
            "not given",
            f"rank correlation over rings {mean_told(rows, 'random_net_cd')} with a random network's; that of the "
            f"exact values is {mean_told(rows, 'random_net_exact')}",
            bounded(over(rows, "random_net_cd"), most=0.5),
        )
    )
    return claims


def _curve(name: str, several: list[list[float]]) -> dict[str, Any]:
    found = [interval(values) for values in zip(*several, strict=True)]
    return {
        "name": name,
        "x": [_middle(ring) for ring in range(len(found))],
        "y": [each.mean for each in found],
        "low": [each.low for each in found],
        "high": [each.high for each in found],
    }


def _curves(rows: Rows) -> list[dict[str, Any]]:
    axes = {"x_label": "multipole", "y_label": "share of the prediction"}
    by_matter = [
        _curve(f"Omega_m = {value}", [row["share_by_matter"][number] for row in rows])
        for number, value in enumerate(rows[0]["matter"])
    ]
    methods = [_curve(METHODS[name], [row[f"share_{name}"] for row in rows]) for name in ("exact", "ig", "occlusion")]
    return [
        {
            "title": "Contextual decomposition (figure 8)",
            **axes,
            "series": [_curve("all", [r["share_cd"] for r in rows])],
        },
        {"title": "The same by cosmology (figure 9)", **axes, "series": by_matter},
        {"title": "Other attributions", **axes, "series": methods},
        {
            "title": "What the network loses",
            **axes,
            "y_label": "loss in R2",
            "series": [_curve("ring of another map", [row["loss_exchanged"] for row in rows])],
        },
    ]


def _table(rows: Rows) -> dict[str, Any]:
    keys = ("agrees_exchanged_{}", "agrees_emptied_{}", "exact_{}", "random_net_{}")
    body = [[title, *(mean_told(rows, key.format(name)) for key in keys)] for name, title in METHODS.items()]
    columns = ["Method", "Loss, ring exchanged", "Loss, ring emptied", "Exact values", "Random network's"]
    return {"title": "Rank correlations over rings, with 95% intervals over seeds.", "columns": columns, "rows": body}


def _biases(rows: Rows) -> dict[str, Any]:
    keys = [f"{case}_{what}_{{}}" for case in ("as_is", "unbiased") for what in ("rank", "error")]
    body = [[METHODS[name], *(mean_told(rows, key.format(name)) for key in keys)] for name in CHECKED]
    columns = ["Method", "Rank correlation", "Error", "Rank correlation, no biases", "Error, no biases"]
    return {
        "title": "Against the exact values, as trained and with all biases set to zero.",
        "columns": columns,
        "rows": body,
    }


def _rings(rows: Rows) -> dict[str, Any]:
    body = []
    for ring in range(RINGS):
        numbers = [interval([row[f"share_{name}"][ring] for row in rows]).mean for name in METHODS]
        losses = [interval([row[f"loss_{kind}"][ring] for row in rows]).mean for kind in ("exchanged", "emptied")]
        body.append([f"from {WIDTH * ring}", *numbers, *losses])
    columns = ["Ring", *METHODS, "R2 lost, exchanged", "R2 lost, emptied"]
    return {"title": "Share of the prediction by ring of multipoles, mean.", "columns": columns, "rows": body}
