"""Small models and batches that the contract tests share, and one instance of every registered component."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt
from rightly.core import registry

DOUBLE = torch.float64


def draws(seed: int) -> torch.Generator:
    """A seeded generator; the tests never touch the global one."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=draws(seed), dtype=DOUBLE)


def initialised(model: nn.Module, seed: int = 0, scale: float = 0.5) -> nn.Module:
    """Float64, every parameter drawn anew, running statistics that are not those of a fresh layer, training mode."""
    model.double().train()
    generator = draws(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=DOUBLE))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator, dtype=DOUBLE))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator, dtype=DOUBLE))
    return model


def vector_model(classes: int = 3, features: int = 6, seed: int = 0) -> nn.Module:
    return initialised(
        nn.Sequential(
            nn.Linear(features, 8),
            nn.BatchNorm1d(8),
            nn.Softplus(),
            nn.Dropout(0.5),
            nn.Linear(8, 8),
            nn.Tanh(),
            nn.Linear(8, classes),
        ),
        seed,
    )


def image_model(channels: int = 2, classes: int = 3, seed: int = 1) -> nn.Module:
    return initialised(
        nn.Sequential(
            nn.Conv2d(channels, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(3 * 36, classes),
        ),
        seed,
        0.4,
    )


def kinked_model(seed: int = 2) -> nn.Module:
    """ReLU in place and max pooling: piecewise linear, checked away from its kinks."""
    return initialised(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.ReLU(inplace=True),
            nn.Linear(8, 3),
        ),
        seed,
    )


class Recurrent(nn.Module):
    """Token numbers -> embedding -> LSTM (a layer that returns a tuple) -> classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embedding(tokens))
        return self.head(hidden[:, -1])


class Attentive(nn.Module):
    """One transformer layer over (B, 5, 8), mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, activation="gelu", batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


@dataclass(frozen=True)
class Problem:
    """A model with a batch, and the space in which it is explained."""

    name: str
    model: nn.Module
    inputs: Any
    labels: Tensor
    space: Any
    images: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (*F) of an example's coordinates."""
        with torch.no_grad():
            return tuple(self.space.open(self.model, self.inputs).coordinates.shape[1:])

    def rows(self, index: list[int]) -> Problem:
        """The same with these examples only."""
        return Problem(self.name, self.model, self.inputs[index], self.labels[index], self.space, self.images)


def vectors(batch: int = 4, space: Any = None) -> Problem:
    inputs = normal(batch, 6, seed=10)
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 0, 1])[:batch]
    return Problem("vectors", vector_model(), inputs, labels, space or rt.spaces.Input(), False)


def images(batch: int = 3, space: Any = None) -> Problem:
    inputs = normal(batch, 2, 6, 6, seed=11)
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 0, 1])[:batch]
    return Problem("images", image_model(), inputs, labels, space or rt.spaces.Input(), True)


def tokens(batch: int = 3, layer: str = "embedding") -> Problem:
    model = initialised(Recurrent(), 3)
    inputs = torch.randint(11, (batch, 4), generator=draws(12))
    labels = torch.tensor([1, 0, 2, 0])[:batch]
    return Problem("tokens", model, inputs, labels, rt.spaces.Layer(layer), False)


def sequences(batch: int = 3, space: Any = None) -> Problem:
    model = initialised(Attentive(), 4)
    inputs = normal(batch, 5, 8, seed=13)
    labels = torch.tensor([1, 0, 2, 0])[:batch]
    return Problem("sequences", model, inputs, labels, space or rt.spaces.Input(), False)


def space_of(entry: registry.Entry, shape: tuple[int, ...]) -> Any:
    return entry.cls(**entry.example(shape))


def reference_of(entry: registry.Entry, shape: tuple[int, ...]) -> Any:
    return entry.cls(**entry.example(shape))


def attribution_of(entry: registry.Entry, shape: tuple[int, ...], space: Any, **arguments: Any) -> Any:
    known = inspect.signature(entry.cls).parameters
    wanted = {name: value for name, value in arguments.items() if name in known}
    return entry.cls(**{**entry.example(shape), "space": space, **wanted})


def prior_of(entry: registry.Entry, shape: tuple[int, ...], **arguments: Any) -> Any:
    prior = entry.cls(**{**entry.example(shape), **arguments})
    if prior.module is not None:
        prior.module.double()  # as an objective would make it, with these models
    return prior


def annotation_for(prior: Any, like: Tensor, seed: int = 20) -> rt.Annotation:
    """Every field that the prior reads, drawn in the shape of the attributions ``like``."""
    fields: dict[str, Tensor] = {}
    for position, name in enumerate(prior.needs):
        noise = torch.randn(like.shape, generator=draws(seed + position), dtype=DOUBLE)
        fields[name] = noise if name == "targets" else noise > 0
    return rt.Annotation(**fields)


def components(family: str) -> list[registry.Entry]:
    return list(registry.family(family).values())  # type: ignore[arg-type]


def names(family: str) -> list[str]:
    return [entry.name for entry in components(family)]


def fitting(space: registry.Entry, *others: registry.Entry) -> bool:
    """Whether they can be combined: what wants images cannot be had in a space without a layout, and what compares
    examples (or blurred ones) cannot be had where all have the same coordinates."""
    if "relative" in space.traits and any(
        "sampled" in other.traits or other.name in ("blur", "in_batch") for other in others
    ):
        return False
    return "vectors" not in space.traits or not any("images" in other.traits for other in others)


def problems_in(space: registry.Entry) -> list[Problem]:
    """The smooth problems on which a space can be tried."""
    return [
        vectors(space=space_of(space, (6,))),
        images(space=space_of(space, (2, 6, 6))),
    ]


@dataclass(frozen=True)
class Combination:
    """attribution x prior x space on one problem, with everything built."""

    name: str
    problem: Problem
    attribution: Any
    prior: Any
    annotation: rt.Annotation

    def term(self, weight: float = 1.0) -> rt.Term:
        return rt.Term(self.attribution, self.prior, weight)


def combinations() -> Iterator[tuple[str, str, str, bool]]:
    """Names of (attribution, prior, space, images) for everything registered."""
    for space in components("space"):
        for attribution in components("attribution"):
            for prior in components("prior"):
                picture = "images" in attribution.traits | prior.traits
                if not fitting(space, attribution, prior):
                    continue
                yield attribution.name, prior.name, space.name, picture


def combine(attribution: str, prior: str, space: str, picture: bool) -> Combination:
    shape = (2, 6, 6) if picture else (6,)
    there = space_of(registry.find("space", space), shape)
    problem = images(space=there) if picture else vectors(space=there)
    method = attribution_of(registry.find("attribution", attribution), problem.shape, there)
    with torch.no_grad():
        like = method(problem.model, problem.inputs, problem.labels, diagnostics=False).attributions
    penalty = prior_of(registry.find("prior", prior), tuple(like.shape[1:]))
    name = f"{attribution}-{prior}-{space}"
    return Combination(name, problem, method, penalty, annotation_for(penalty, like))


def objective(problem: Problem, *terms: rt.Term, **arguments: Any) -> rt.Objective:
    return rt.Objective(problem.model, F.cross_entropy, terms, **arguments)
