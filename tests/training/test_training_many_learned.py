"""Sweeps of terms that learn along with the model: every trial keeps what its own have learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule
from training.training_problems import bits, classification, same

X, Y = classification()
META = torch.linspace(-1, 1, X.shape[1])[:, None]
SMALL = {"epochs": 3, "batch_size": 30, "lr": 0.02}


@dataclass(frozen=True)
class Near(ModelTerm):
    """The first bias is near a number that is learned."""

    number: nn.Module
    weight: float = 1.0
    name: str = "near"
    schedule: Schedule = field(default_factory=Schedule)
    level = "batch"
    about = "near a learned number"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        return (
            (next(p for p in model.parameters() if p.ndim == 1)[0] - self.number(torch.ones(1).double())).square().sum()
        )

    @property
    def module(self) -> nn.Module:
        return self.number


def mlp(seed: int) -> nn.Module:
    return rt.models.mlp(X.shape[1], [8], 2, seed=seed).double()


def terms() -> list:
    prior, module = rt.priors.MetaFeatures(META), nn.Linear(1, 1)
    torch.nn.init.constant_(module.weight, 0.5)
    torch.nn.init.constant_(module.bias, 0.1)
    return [
        rt.Term(rt.Gradient(), prior, 0.1, name="first"),
        rt.Term(rt.InputXGradient(), prior, 0.2, name="second"),
        Near(module),
    ]


def sweep(given: list, **arguments) -> list:
    data = (X.double(), Y)
    return rt.fit_many(
        mlp, F.cross_entropy, given, data, grid={"first": [0.1, 1.0]}, seeds=[0, 1], **SMALL, **arguments
    )


def learned(trial) -> dict[str, Tensor]:
    """By the term's name."""
    modules = [trial.terms[0].prior.module, trial.terms[1].prior.module, trial.terms[2].module]
    return {f"{k}.{name}": value for k, part in enumerate(modules) for name, value in bits(part).items()}


def test_a_trial_carries_what_its_terms_learned_as_alone() -> None:
    given = terms()
    before = {**bits(given[0].prior.module), "number": given[2].module.weight.detach().clone()}
    trials = sweep(given)
    for trial in trials:
        own = terms()
        own[0] = own[0].with_weight(trial.setting["first"])
        objective = rt.Objective(mlp(trial.seed), F.cross_entropy, own, seed=trial.seed)
        rt.fit(objective, (X.double(), Y), seed=trial.seed, **SMALL)
        assert same(bits(trial.model), bits(objective.model))
        alone = type("Alone", (), {"terms": objective.terms})
        assert same(learned(trial), learned(alone))
        assert trial.terms[0].prior.expected().abs().sum() > 0
    assert not same(learned(trials[0]), learned(trials[1]))
    assert same(before, {**bits(given[0].prior.module), "number": given[2].module.weight})


def test_what_two_terms_share_they_share_in_every_trial() -> None:
    trials = sweep(terms())
    for trial in trials:
        assert trial.terms[0].prior is trial.terms[1].prior
    assert len({id(trial.terms[0].prior.module) for trial in trials}) == len(trials)
    objective = rt.Objective(mlp(0), F.cross_entropy, terms())
    assert len(objective.learned) == 2


def test_what_was_learned_is_read_back(tmp_path: Path) -> None:
    trials = sweep(terms(), folder=tmp_path)
    again = sweep(terms(), folder=tmp_path, resume=True)
    for one, other in zip(trials, again, strict=True):
        assert same(learned(one), learned(other))
        assert same(bits(one.model), bits(other.model))
        assert one.terms[0].prior.module.weight.dtype == torch.float64


def test_without_models_nothing_is_kept(tmp_path: Path) -> None:
    assert [trial.terms for trial in sweep(terms(), keep_models=False, folder=tmp_path)] == [()] * 4
    assert not (tmp_path / "models").exists()


def test_terms_that_learn_nothing_are_told_too() -> None:
    (trial,) = rt.fit_many(mlp, F.cross_entropy, [rt.WeightTerm(weight=0.5)], (X.double(), Y), **SMALL)
    assert [term.weight for term in trial.terms] == [0.5]
