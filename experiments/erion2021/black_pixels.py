"""Black pixels (Erion et al. 2021, figure 1): integrated gradients from black cannot see them, expected gradients can.

The papers show it with pictures. Here it is measured, on digits and on photographs: how much of an attribution lies on
dark pixels, and whether the dark pixels that a method calls important are. For that, a method's first dark pixels are
replaced by those of other pictures, and the label's output is averaged over them. Integrated gradients from the mean
image, which are not blind to black, tell what is due to the baseline alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.evaluation import adjust, compare, interval
from rightly.workflows.reproduce import Claim, Outcome, Settings, shown

DATA = {"mnist": "MNIST", "cifar": "CIFAR-10"}
TITLES = {
    "eg": "EG",
    "ig_black": "IG from black",
    "ig_mean": "IG from the mean",
    "gradient_x_input": "Gradient x input",
    "random": "chance",
}
#: a dark pixel's channels are at most so bright; white is 1
DARK = 0.1
#: so many dark pixels are replaced; pictures with fewer are left out
COUNTS = [10, 20, 40]
HEADLINE = COUNTS.index(20)
SHOWN = 5


class Sizes(NamedTuple):
    """Pictures and passes a picture; pictures whose pixels replace; the digits' network and its training."""

    explained: int = 500
    samples: int = 200
    drawn: int = 50
    train: int = 55_000
    epochs: int = 10
    filters: tuple[int, int] = (32, 64)
    width: int = 1024


def run(settings: Settings) -> Outcome:
    """Explain the test pictures of both data sets with every method, and replace dark pixels."""
    sizes: dict[str, Sizes] = {
        "mnist": settings.sized(
            smoke=Sizes(6, 3, 2, 100, 1, (4, 4), 8), reduced=Sizes(150, 100, 10, 5000, 4, (16, 32), 256), full=Sizes()
        ),
        "cifar": settings.sized(smoke=Sizes(6, 3, 2), reduced=Sizes(100, 50, 10), full=Sizes()),
    }
    make = {"mnist": _digits, "cifar": _photographs}

    def work(key: dict[str, Any]) -> dict[str, Any]:
        data = key["data"]
        return measure(data, *make[data](settings, sizes[data]), sizes[data], key["seed"])

    keys = [{"data": data, "seed": settings.seed} for data in DATA]
    found = dict(zip(DATA, settings.trials.run("data sets", keys, work), strict=True))
    return _outcome(settings, found, sizes)


# ------------------------------------------------------------------------------------------------------------- measure


def measure(
    data: str, model: nn.Module, train: Tensor, test: tuple[Tensor, Tensor], sizes: Sizes, seed: int
) -> dict[str, Any]:
    """Shares on dark pixels, and changes by replacing them, of every picture; pixels in [0, 1].

    The first pictures that have enough dark pixels.
    """
    model.eval()
    inputs, labels = test
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in inputs.split(500)]) == labels
    dark = _region(data, inputs)
    chosen = (dark.flatten(1).sum(1) >= max(COUNTS)).nonzero()[: sizes.explained, 0]
    inputs, labels, dark = inputs[chosen], labels[chosen], dark[chosen]
    maps = _maps(model, inputs, labels, train, sizes)
    draws = torch.Generator().manual_seed(seed)
    others = train[torch.randint(len(train), (sizes.drawn,), generator=draws)]
    ranked = {**maps, "random": torch.zeros_like(maps["eg"])}
    noise = torch.rand(dark.shape, generator=draws, dtype=torch.float64)

    def drop(strength: Tensor, count: int) -> list[float]:
        return _fall(model, inputs, labels, _first(strength, dark, noise, count), others).mean(0).tolist()

    def change(strength: Tensor, count: int) -> list[float]:
        return _fall(model, inputs, labels, _first(strength, dark, noise, count), others).abs().mean(0).tolist()

    return {
        "accuracy": float(right.double().mean()),
        "dark": dark.flatten(1).double().mean(1).tolist(),
        "shares": {name: _share(drawn, dark).tolist() for name, drawn in maps.items()},
        "drops": {name: [drop(signed, n) for n in COUNTS] for name, signed in ranked.items()},
        "changes": {name: [change(signed.abs(), n) for n in COUNTS] for name, signed in ranked.items()},
        "maps": [_picture(inputs[i], labels[i], {name: m[i] for name, m in maps.items()}) for i in _shown(labels)],
    }


def _region(data: str, inputs: Tensor) -> Tensor:
    """Dark pixels (B, H, W): of a photograph all, of a digit those inside the box around it."""
    dark = inputs.amax(1) <= DARK
    if data == "cifar":
        return dark
    lit = ~dark
    rows, columns = lit.any(2), lit.any(1)
    inside = rows.cummax(1).values & rows.flip(1).cummax(1).values.flip(1)
    across = columns.cummax(1).values & columns.flip(1).cummax(1).values.flip(1)
    return dark & inside[:, :, None] & across[:, None, :]


def _maps(model: nn.Module, inputs: Tensor, labels: Tensor, train: Tensor, sizes: Sizes) -> dict[str, Tensor]:
    """(B, H, W) each, channels summed."""
    n, mean = sizes.samples, train.mean(0)
    methods = {
        "eg": rt.ExpectedGradients(rt.references.Sample(train), n_samples=n),
        "ig_black": rt.IntegratedGradients(rt.references.Constant(0.0), n_steps=n),
        "ig_mean": rt.IntegratedGradients(rt.references.Constant(mean), n_steps=n),
        "gradient_x_input": rt.InputXGradient(),
    }
    return {
        name: rt.attribute(model, inputs, method, labels=labels, diagnostics=False).attributions.sum(1)
        for name, method in methods.items()
    }


def _share(drawn: Tensor, dark: Tensor) -> Tensor:
    """Share of each map's absolute attribution that lies on the dark pixels, over their share of the area: (B,)."""
    sizes = drawn.abs().double().flatten(1)
    inside = (sizes * dark.flatten(1)).sum(1) / sizes.sum(1).clamp_min(1e-30)
    return inside / dark.flatten(1).double().mean(1)


def _first(strength: Tensor, dark: Tensor, noise: Tensor, count: int) -> Tensor:
    """The ``count`` strongest dark pixels, ties at random: (B, H, W)."""
    order = strength.double().masked_fill(~dark, -1.0).flatten(1)
    # by noise first, then stably by strength: equal ones stay in the noise's order
    shuffled = noise.flatten(1).argsort(1)
    ranked = order.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    rows = shuffled.gather(1, ranked)[:, :count]
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, rows, True).reshape(dark.shape)


@torch.no_grad()
def _fall(model: nn.Module, inputs: Tensor, labels: Tensor, gone: Tensor, others: Tensor) -> Tensor:
    """How far the label's logit falls when the pixels that are gone come from each of the others: (K, B)."""
    before = _logit(model, inputs, labels)
    falls = [before - _logit(model, torch.where(gone[:, None], other, inputs), labels) for other in others]
    return torch.stack(falls).double()


def _logit(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return torch.cat([model(part) for part in inputs.split(500)]).gather(1, labels[:, None])[:, 0]


def _shown(labels: Tensor) -> list[int]:
    """The first picture of each of the first classes."""
    classes = labels.unique().tolist()[:SHOWN]
    return [int((labels == label).nonzero()[0, 0]) for label in classes]


def _picture(image: Tensor, label: Tensor, maps: dict[str, Tensor]) -> dict[str, Any]:
    shades = image[0] if len(image) == 1 else image.movedim(0, -1)
    return {
        "image": shades.double().round(decimals=3).tolist(),
        "label": int(label),
        "runs": {n: {"map": [[float(f"{v:.3g}") for v in line] for line in m.tolist()]} for n, m in maps.items()},
    }


# ---------------------------------------------------------------------------------------------------- the two networks


def _digits(settings: Settings, sizes: Sizes) -> tuple[nn.Module, Tensor, tuple[Tensor, Tensor]]:
    """The papers' network, trained on MNIST; pixels in [0, 1]."""
    mnist = rt.data.load_arrays("mnist", data_dir=settings.data_dir)
    order = torch.randperm(len(mnist["y_train"]), generator=torch.Generator().manual_seed(settings.seed)).numpy()

    def part(name: str, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(mnist[f"x_{name}"][rows])[:, None] / 255
        return images, torch.from_numpy(mnist[f"y_{name}"][rows]).long()

    train = part("train", order[: sizes.train])
    model = rt.models.paper_cnn(filters=sizes.filters, width=sizes.width, seed=settings.seed)
    objective = rt.Objective(model, cross_entropy, [], seed=settings.seed)
    rt.fit(objective, train, epochs=sizes.epochs, batch_size=50, lr=1e-4, seed=settings.seed)
    return model, train[0], part("test", np.arange(min(4 * sizes.explained, len(mnist["y_test"]))))


def _photographs(settings: Settings, sizes: Sizes) -> tuple[nn.Module, Tensor, tuple[Tensor, Tensor]]:
    """The catalogue's ResNet-20, trained on CIFAR-10 by others; pixels in [0, 1]."""
    model = rt.models.cifar_resnet20(rt.data.load_arrays("cifar10_resnet20", data_dir=settings.data_dir))
    arrays = rt.data.load_arrays("cifar10_10k_2k_jpeg", data_dir=settings.data_dir)
    images, labels = rt.data.cifar10_images(arrays, "test")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(settings.seed))
    train = torch.from_numpy(rt.data.cifar10_images(arrays, "train")[0]) / 255
    return model, train, (torch.from_numpy(images)[order] / 255, torch.from_numpy(labels)[order])


# ---------------------------------------------------------------------------------------------------- what is reported

Found = dict[str, dict[str, Any]]


def _at_headline(found: dict[str, Any], name: str, what: str = "drops") -> list[float]:
    values: list[float] = found[what][name][HEADLINE]
    return values


def _outcome(settings: Settings, found: Found, sizes: dict[str, Sizes]) -> Outcome:
    count = {DATA[data]: len(part["dark"]) for data, part in found.items()}
    told = ", ".join(
        f"{len(part['dark'])} pictures of {DATA[data]} with {sizes[data].samples} passes each"
        for data, part in found.items()
    )
    return Outcome(
        title="Black pixels: what integrated gradients from black cannot see",
        question="Do expected gradients find the dark pixels that matter, which integrated gradients from black miss?",
        reduction=f"{settings.size.capitalize()} size: {told} (the papers: pictures of ImageNet, 200 passes).",
        data={
            "name": "MNIST and CIFAR-10",
            "source": "LeCun, Cortes and Burges; Krizhevsky 2009, re-encoded",
            "kind": "images",
            "rows": sum(count.values()),
            "label": "class",
            "task": "classification",
            "split": {"test": sum(count.values())},
        },
        runs={name: _run(found, name, settings.seed) for name in TITLES},
        comparison=_comparison(found),
        claims=_claims(found),
        notes=_NOTES,
        figures={
            "maps": [{**entry, "title": DATA[d]} for d, part in found.items() for entry in part["maps"]],
            "curves": [_curve(data, part, what) for what in _MEASURES for data, part in found.items()],
            "tables": [_share_table(found), _paired_table(found)],
        },
    )


def _comparison(found: Found) -> dict[str, dict[str, Any]]:
    tests = [compare(_at_headline(part, "ig_black"), _at_headline(part, "eg")) for part in found.values()]
    corrected = adjust([test.p for test in tests])
    return {
        f"fall_of_logit_{data}": {
            **test.as_dict(),
            "p_adjusted": p,
            "run": "eg",
            "against": "ig_black",
            "higher_is_better": True,
        }
        for data, test, p in zip(found, tests, corrected, strict=True)
    }


_NOTES = [
    "One network each: the papers' convolutional network trained on MNIST, a trained ResNet-20 for CIFAR-10 (a copy of "
    "CIFAR-10 that went through JPEG). Intervals are over pictures, those with at least 40 dark pixels, "
    "recognised or not.",
    "Dark: at most a tenth of white in every channel; in MNIST only inside the box around the digit.",
    "A method's first dark pixels are replaced by those of training pictures. Fall: of the label's logit, averaged "
    "over these pictures, when pixels are ranked by signed attribution (the published removal of positive features by "
    "resampling). Absolute change: averaged over them, when pixels are ranked by absolute attribution. Channels are "
    "summed, ties drawn: for integrated gradients from black all wholly black pixels tie at 0.",
    "The network trained on MNIST is smaller in the reduced run than the papers'. It was made so, and a count of 5 "
    "pixels dropped, after a first run had been seen.",
    "The first run measured the absolute change alone. It does not tell the methods apart on photographs, where any "
    "pixel from elsewhere is a disturbance; the fall was added after that was seen. Both are told.",
    "Concentration: the share of the absolute attribution that lies on dark pixels over their share of the area; 1 is "
    "what an even map has.",
]


def _run(found: Found, name: str, seed: int) -> dict[str, Any]:
    def entry(values: list[float]) -> dict[str, Any]:
        told = interval(values)
        return {"mean": told.mean, "low": told.low, "high": told.high, "values": [told.mean]}

    metrics = {f"fall_of_logit_{data}": entry(_at_headline(part, name)) for data, part in found.items()}
    shares = {f"concentration_on_dark_{d}": entry(p["shares"][name]) for d, p in found.items() if name in p["shares"]}
    return {
        "seeds": [seed],
        "weight": None,
        "title": TITLES[name],
        "metrics": {"test": metrics},
        "explanations": shares,
        "seconds": sum(part["seconds"] for part in found.values()) / len(TITLES),
        "engines": {},
    }


def _claims(found: Found) -> list[Claim]:
    pairs = [(data, "share", "ig_black", "eg") for data in found]
    pairs += [(data, "drops", low, "eg") for low in ("ig_black", "random", "ig_mean") for data in found]
    pairs += [(data, "changes", low, "eg") for low in ("ig_black", "random") for data in found]
    values = [_values(found[data], what, low, high) for data, what, low, high in pairs]
    tests = [compare(*each) for each in values]
    claims = []
    for (data, what, low, high), each, test, p in zip(
        pairs, values, tests, adjust([test.p for test in tests]), strict=True
    ):
        numbers = [interval(part) for part in reversed(each)]
        ours = " against ".join(f"{n.mean:.2f} ({n.low:.2f} to {n.high:.2f})" for n in numbers)
        ours += "" if p is None else f", p = {p:.1g}, n = {test.n}"
        better, worse, n = TITLES[high], TITLES[low], COUNTS[HEADLINE]
        name = {
            "share": f"attribution concentrates on dark pixels more in {better} than {worse}",
            "drops": f"the {n} dark pixels that {better} says speak for the label do so more than those of {worse} "
            "(fall of the logit)",
            "changes": f"the {n} dark pixels that {better} calls largest matter more than those of {worse} (absolute "
            "change of the logit)",
        }[what]
        paper = "pictures (figure 1b, c)" if low == "ig_black" else "not stated"
        verdict = shown(test) if p is not None and p < 0.05 else None
        claims.append(Claim(f"{DATA[data]}: {name}", paper, ours, verdict))
    return claims


def _values(part: dict[str, Any], what: str, low: str, high: str) -> tuple[list[float], list[float]]:
    if what == "share":
        return part["shares"][low], part["shares"][high]
    return _at_headline(part, low, what), _at_headline(part, high, what)


_MEASURES = {
    "drops": ("fall of the label's logit when the dark pixels that speak most for it are replaced", "mean fall"),
    "changes": ("change of the label's logit when the largest dark pixels are replaced", "mean absolute change"),
}


def _curve(data: str, part: dict[str, Any], what: str) -> dict[str, Any]:
    series = []
    for name, found in part[what].items():
        levels = [interval(values) for values in found]
        ends = {"low": [level.low for level in levels], "high": [level.high for level in levels]}
        series.append({"name": name, "x": COUNTS, "y": [level.mean for level in levels], **ends})
    title, label = _MEASURES[what]
    return {
        "title": f"{DATA[data]}: {title}",
        "x_label": "dark pixels replaced, the method's first",
        "y_label": label,
        "series": series,
    }


def _share_table(found: Found) -> dict[str, Any]:
    body = []
    for data, part in found.items():
        for name, shares in part["shares"].items():
            told = interval(shares)
            area = float(np.mean(part["dark"]))
            body.append([DATA[data], TITLES[name], round(told.mean, 3), round(told.low, 3), round(told.high, 3), area])
    columns = ["Data", "Method", "Concentration on dark pixels", "95% from", "to", "Their share of the area"]
    return {"title": "Attribution on dark pixels over their share of the area.", "columns": columns, "rows": body}


def _paired_table(found: Found) -> dict[str, Any]:
    """Expected gradients less every other, at every number of pixels; p corrected over the table."""
    others = [name for name in TITLES if name != "eg"]
    keys = [(what, d, name, i) for what in _MEASURES for d in found for name in others for i in range(len(COUNTS))]
    tests = [compare(found[d][what][name][i], found[d][what]["eg"][i]) for what, d, name, i in keys]
    corrected = adjust([test.p for test in tests])
    body = [
        [_MEASURES[what][1], DATA[d], TITLES[name], COUNTS[i], *(test.difference, test.low, test.high, test.effect, p)]
        for (what, d, name, i), test, p in zip(keys, tests, corrected, strict=True)
    ]
    columns = ["Measure", "Data", "Against", "Pixels", "Difference", "95% from", "to", "Effect (d)", "p corrected"]
    return {
        "title": "Expected gradients' dark pixels less another's, paired over pictures.",
        "columns": columns,
        "rows": body,
    }
