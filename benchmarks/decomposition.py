"""Contextual decomposition: many regions at once, hierarchies, a training step; against plain passes and ``acd``.

``acd`` 0.0.2 is the authors' package. It is found where it is installed, or on ``PYTHONPATH``
(``pip install --no-deps --target FOLDER acd``; it needs scipy and scikit-image). ``authors()`` lets it run here.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt
from benchmarks import networks
from benchmarks.harness import Effort, Refused, Step, measure, peak_megabytes, ratios, spread
from rightly.attributions import phrase_scores

_WORDS, _BATCH, _PENALTY = 20, 128, 1.0
#: of the candidates that grow, and rounds: what the authors use on digits
_PERCENTILE, _ROUNDS = 99.0, 5


class Digits(nn.Module):
    """The authors' network on (B, 1, 28, 28): pooled before ReLU, the only digits network that ``acd`` takes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5), nn.Dropout2d()
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.view(-1, 320)))
        return self.fc2(F.dropout(x, training=self.training))


class Words(nn.Module):
    """Token numbers (B, T) -> embedding, LSTM, two classes; without a bias at the end, which ``acd`` leaves out."""

    def __init__(self, words: int = 100, width: int = 50, hidden: int = 64) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(words, width), nn.LSTM(width, hidden, batch_first=True)
        self.hidden_to_label, self.hidden_dim = nn.Linear(hidden, 2, bias=False), hidden

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hidden_to_label(self.lstm(self.embed(tokens))[0][:, -1])


class Colours(nn.Module):
    """The digits network of a training step, for (B, 3, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 256), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def authors() -> types.SimpleNamespace:
    """``acd`` as it can be called here: ``cd``, ``cd_text``, ``agglomerate``, and the last ``without_merging``.

    It asks for ``np.int``, which NumPy no longer has, and its scores of tiles want a GPU whatever they are told.
    """
    vars(np).setdefault("int", int)
    from acd.agglomeration import agg_2d
    from acd.scores import cd, score_funcs

    if not isinstance(score_funcs.get_scores_2d, functools.partial):
        score_funcs.get_scores_2d = functools.partial(score_funcs.get_scores_2d, device="cpu")

    def without_merging(*args: Any, **kwargs: Any) -> Any:
        merge = agg_2d.agglomerate_final
        agg_2d.agglomerate_final = lambda lists, *rest, **more: lists
        try:
            return agg_2d.agglomerate(*args, **kwargs)
        finally:
            agg_2d.agglomerate_final = merge

    return types.SimpleNamespace(
        cd=cd.cd, cd_text=cd.cd_text, agglomerate=agg_2d.agglomerate, without_merging=without_merging
    )


def _image() -> Tensor:
    """A blob on black, as a digit is."""
    place = torch.arange(28.0) - 13.5
    ring = ((place[:, None] ** 2 + place**2).sqrt() - 8).abs()
    return (1 - ring / 3).clamp_min(0)[None, None]


def regions() -> dict[str, Callable[[], Step]]:
    """784 single pixels of one image."""
    model, image = networks.seeded(Digits).eval(), _image()
    pixels = torch.eye(784, dtype=torch.bool).reshape(784, 1, 28, 28)
    images = image.expand(784, 1, 28, 28).contiguous()

    def plain() -> Step:
        def step() -> None:
            with torch.no_grad():
                model(images)

        return step

    def theirs(graph: bool) -> Step:
        cd, masks = authors().cd, pixels.float().numpy()

        def step() -> None:
            with torch.set_grad_enabled(graph):
                for mask in masks:
                    cd(image, model, mask=mask[None], model_type="mnist", device="cpu")

        return step

    return {
        "plain": plain,
        "rightly": lambda: lambda: rt.contextual_decomposition(model, image, pixels),
        "rightly, biases apart": lambda: (
            lambda: rt.contextual_decomposition(model, image, pixels, convention="reference")
        ),
        "acd": lambda: theirs(True),
        "acd, no_grad": lambda: theirs(False),
    }


def spans(hidden: int) -> dict[str, Callable[[], Step]]:
    """All 210 spans of a sentence of 20 words."""
    model = networks.seeded(lambda: Words(hidden=hidden)).eval()
    tokens = torch.randint(100, (1, _WORDS), generator=torch.Generator().manual_seed(0))

    def plain() -> Step:
        sentences = tokens.expand(_WORDS * (_WORDS + 1) // 2, -1).contiguous()

        def step() -> None:
            with torch.no_grad():
                model(sentences)

        return step

    def theirs() -> Step:
        cd_text, batch = authors().cd_text, types.SimpleNamespace(text=tokens.T)

        def step() -> None:
            for first in range(_WORDS):
                for last in range(first, _WORDS):
                    cd_text(batch, model, start=first, stop=last)

        return step

    space = rt.spaces.Layer("embed")
    return {
        "plain": plain,
        "rightly": lambda: lambda: phrase_scores(model, tokens, space=space),
        "acd": theirs,
    }


def hierarchy() -> dict[str, Callable[[], Step]]:
    """A hierarchy of the pixels of one image."""
    model, image = networks.seeded(Digits).eval(), _image()
    label = int(model(image).argmax())

    def theirs(name: str) -> Step:
        agglomerate = getattr(authors(), name)
        settings = {"num_iters": _ROUNDS, "im_torch": image, "model_type": "mnist", "device": "cpu"}
        return lambda: agglomerate(
            model, None, _PERCENTILE, "cd", 1, image[0, 0].numpy().astype(float), label, **settings
        )

    def ours(rounds: int | None) -> Step:
        return lambda: rt.hierarchy(model, image, percentile=_PERCENTILE, rounds=rounds)

    return {
        "rightly": lambda: ours(_ROUNDS),
        "rightly, until all is joined": lambda: ours(None),
        "acd": lambda: theirs("agglomerate"),
        "acd, without merging at the end": lambda: theirs("without_merging"),
    }


def step() -> dict[str, Callable[[], Step]]:
    """A training step with a penalty on what one region of each example contributes."""
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(_BATCH, 3, 28, 28, generator=draws)
    labels = torch.randint(10, (_BATCH,), generator=draws)
    places = torch.randint(784, (_BATCH,), generator=draws)
    chosen = F.one_hot(places, 784).bool().reshape(_BATCH, 1, 1, 28, 28)
    first = networks.seeded(Colours)

    def training(loss: Callable[[nn.Module], Tensor]) -> Step:
        model = networks.seeded(Colours).train()
        model.load_state_dict(first.state_dict())
        optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)

        def one() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(model).backward()
            optimizer.step()

        return one

    def penalised(model: nn.Module, convention: Any = "first") -> Tensor:
        found = rt.contextual_decomposition(
            model, inputs, chosen, convention=convention, create_graph=True, training=True
        )
        penalty = (found.relevant - found.irrelevant).sigmoid().mean()
        return F.cross_entropy(found.outputs, labels) + _PENALTY * penalty

    def two_passes(model: nn.Module) -> Tensor:
        found = rt.contextual_decomposition(model, inputs, chosen, create_graph=True)
        penalty = (found.relevant - found.irrelevant).sigmoid().mean()
        return F.cross_entropy(model(inputs), labels) + _PENALTY * penalty

    return {
        "plain": lambda: training(lambda model: F.cross_entropy(model(inputs), labels)),
        "rightly": lambda: training(penalised),
        "rightly, biases apart": lambda: training(functools.partial(penalised, convention="reference")),
        "rightly, the task in a pass of its own": lambda: training(two_passes),
    }


#: name -> (title, what everything is divided by, variants, whether memory is measured)
CASES: dict[str, tuple[str, str, Callable[[], dict[str, Callable[[], Step]]], bool]] = {
    "regions": ("decomposition: 784 single-pixel regions of a digit", "plain", regions, True),
    **{
        f"spans-{hidden}": (
            f"decomposition: all spans of a sentence of {_WORDS} words, LSTM of {hidden}",
            "rightly",
            functools.partial(spans, hidden),
            False,
        )
        for hidden in (64, 128)
    },
    "hierarchy": (
        f"decomposition: hierarchy of a 28 x 28 image, the best {100 - _PERCENTILE:.0f} % in each of {_ROUNDS} rounds",
        "rightly",
        hierarchy,
        False,
    ),
    "step": (f"decomposition: a training step with one region an example, batch of {_BATCH}", "plain", step, True),
}


def run_decomposition(which: str, quick: bool, device: torch.device) -> dict[str, Any]:
    """Milliseconds of every variant, and the ratio to the base, round by round. On a processor: ``acd`` is made so."""
    if device.type != "cpu":
        raise ValueError("decomposition is compared on a processor: --device cpu")
    title, base, variants, memory = CASES[which]
    effort = Effort(seconds=2.0, least=2, most=3) if quick else Effort(seconds=30.0, least=5, most=200)
    timings, steps = measure(variants(), effort, device)
    first = timings[base]
    if isinstance(first, Refused):
        raise RuntimeError(f"{base} itself does not run: {first.reason}")
    found: dict[str, Any] = {}
    for name, seconds in timings.items():
        if isinstance(seconds, Refused):
            found[name] = {"refused": seconds.reason}
            continue
        found[name] = {
            "milliseconds": spread([1e3 * s for s in seconds]),
            "ratio": ratios(seconds, first),
            "repeats": len(seconds),
        }
        if memory and not name.startswith("acd"):
            found[name]["megabytes"] = round(peak_megabytes(steps[name], device), 2)
    return {"kind": "ratios", "title": title, "base": base, "variants": found}
