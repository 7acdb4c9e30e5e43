"""Models trained at once end where rt.fit brings each of them alone, up to rounding, also when they end early."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.core.stacked import Streams
from rightly.objectives.blocks import PerBlock, UnstackableError
from rightly.training import together
from rightly.training.settings import Settings
from rightly.training.stacked import stack, weights_of
from rightly.training.together import Member, train_together
from training.training_problems import classification, regression

X, Y = (part.double() if part.is_floating_point() else part for part in classification())
VALID = (X[:31] + 0.1, Y[:31])
MARKED = rt.Annotation(irrelevant=torch.tensor([[1, 0, 0, 1, 0, 0]], dtype=torch.bool))
ROWWISE = rt.Annotation(irrelevant=(torch.arange(540).reshape(90, 6) % 3 == 0))
EXPECTED = rt.ExpectedGradients
Case = dict


def mlp(seed: int, dropout: float = 0.0) -> nn.Module:
    return rt.models.mlp(6, [12, 8], 2, dropout=dropout, seed=seed).double()


def smooth(seed: int) -> nn.Module:
    torch.manual_seed(seed)  # inside a fork, see ``trained``
    norm = nn.LayerNorm(7)
    nn.init.normal_(norm.weight)
    inner = nn.Sequential(nn.Linear(6, 7), norm, nn.Tanh())
    return nn.Sequential(inner, nn.Dropout(0.1), nn.Linear(7, 7, bias=False), nn.GELU(), nn.Linear(7, 2)).double()


def sparse(w: float) -> list[rt.Term]:
    return [rt.Term(EXPECTED(), rt.priors.Sparsity(), w)]


CASES: dict[str, Case] = {
    "plain": {"terms": lambda w: []},
    "in batch, level batch": {"terms": sparse},
    "dropout": {"terms": sparse, "model": lambda seed: mlp(seed, 0.3)},
    "dropout without terms": {"terms": lambda w: [], "model": lambda seed: mlp(seed, 0.5)},
    "patience": {"terms": sparse, "model": lambda seed: mlp(seed, 0.3), "patience": 2, "epochs": 40},
    "the last weights": {"terms": sparse, "restore_best": False, "patience": 2, "epochs": 40},
    "sample, level example, two terms": {
        "terms": lambda w: [
            rt.Term(EXPECTED(rt.references.Sample(X), n_samples=3), rt.priors.L1(), w),
            rt.Term(rt.Gradient(output="log_prob_sum"), rt.priors.L2(), w),
        ],
        "optimizer": "adamw",
        "weight_decay": 0.1,
    },
    "one annotation for all": {
        "terms": lambda w: [rt.Term(rt.Gradient(output="loss"), rt.priors.Irrelevant(), w)],
        "train": (X, Y, MARKED),
        "optimizer": "sgd",
    },
    "an annotation each": {
        "terms": lambda w: [rt.Term(rt.InputXGradient(), rt.priors.Irrelevant(), w)],
        "train": (X, Y, ROWWISE),
    },
    "noise and a scheduler": {
        "terms": lambda w: [rt.Term(rt.SmoothGrad(n_samples=3, kind="square"), rt.priors.L1(), w)],
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2),
    },
    "a term that rests, an odd last batch": {
        "terms": lambda w: [
            rt.Term(rt.IntegratedGradients(n_steps=3), rt.priors.L1(), w, schedule=rt.Schedule(every=2, warmup=3))
        ],
        "batch_size": 31,
    },
    "a term that rests beside one that draws": {
        "terms": lambda w: [
            rt.Term(rt.Gradient(), rt.priors.L1(), w, schedule=rt.Schedule(every=2)),
            rt.Term(EXPECTED(rt.references.Sample(X)), rt.priors.L2(), w),
        ],
    },
    "weights": {"terms": lambda w: [rt.WeightTerm("sparse_group_lasso", weight=0.01 * w)], "model": smooth},
    "weights of the first layer beside a prior": {
        "terms": lambda w: [rt.WeightTerm("l1", "first", w), *sparse(w), rt.WeightTerm("l2", weight=0.1 * w)],
        "model": lambda seed: mlp(seed, 0.3),
    },
    "smooth, with layer norm": {"terms": sparse, "model": smooth},
    "no validation": {"terms": sparse, "validation": None},
    "a monitor": {"terms": sparse, "monitor": lambda outputs, labels: -float((outputs.argmax(1) == labels).sum())},
    "a batch of one for the prediction": {
        "terms": lambda w: [rt.Term(rt.Gradient(target="predicted"), rt.priors.L2(), w)],
        "batch_size": 90,
    },
}


def trained(case: Case) -> tuple[list[Member], list[tuple[rt.Objective, rt.Run]]]:
    """Four members trained at once, and the same four alone."""
    case = {"model": mlp, "train": (X, Y), "validation": VALID, "loss": F.cross_entropy} | case
    train, validation = case["train"], case["validation"]
    members, alone = [], []
    for seed, weight in [(0, 0.1), (1, 0.5), (2, 2.0), (0, 0.3)]:
        settings = Settings(
            epochs=case.get("epochs", 6),
            batch_size=case.get("batch_size", 30),
            optimizer=case.get("optimizer", "adam"),
            lr=0.02,
            weight_decay=case.get("weight_decay", 0.0),
            scheduler=case.get("scheduler"),
            schedule="joint",
            prior_optimizer=None,
            monitor=case.get("monitor"),
            patience=case.get("patience"),
            restore_best=case.get("restore_best", True),
            precision="float32",
            device=None,
            seed=seed,
        )
        made = []
        for _ in range(2):
            with torch.random.fork_rng():
                model = case["model"](seed)
            made.append(rt.Objective(model, case["loss"], case["terms"](weight), seed=seed))
        alone.append((made[0], rt.fit(made[0], train, validation, **vars(settings))))
        members.append(Member(made[1], settings, *settings.batches(train, validation)))
    train_together(members)
    return members, alone


def disagreement(members: list[Member], alone: list[tuple[rt.Objective, rt.Run]]) -> float:
    """Largest difference of any weight and any number of the histories."""
    worst = 0.0
    for member, (objective, run) in zip(members, alone, strict=True):
        found = member.run
        assert (found.stopped, found.best_epoch, len(found.history)) == (run.stopped, run.best_epoch, len(run.history))
        assert member.objective.step == objective.step
        weights = member.objective.model.state_dict()
        for name, value in objective.model.state_dict().items():
            worst = max(worst, float((value - weights[name]).abs().max()))
        for mine, theirs in zip(found.history, run.history, strict=True):
            assert mine.keys() == theirs.keys()
            assert mine["terms"].keys() == theirs["terms"].keys()
            pairs = [(mine["task"], theirs["task"]), (mine["validation"] or 0.0, theirs["validation"] or 0.0)]
            pairs += zip(mine["terms"].values(), theirs["terms"].values(), strict=True)
            worst = max(worst, *(abs(a - b) for a, b in pairs))
    return worst


@pytest.mark.parametrize("name", CASES)
def test_together_is_alone(name: str) -> None:
    assert disagreement(*trained(CASES[name])) < 1e-9


def test_early_stopping_lets_them_go_one_by_one() -> None:
    members, _ = trained(CASES["patience"])
    assert len({len(member.run.history) for member in members}) > 1
    assert {member.run.stopped for member in members} == {"patience"}


def test_a_regression_agrees_too() -> None:
    x, y = regression()

    def linear(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Linear(4, 1).double()

    terms = [rt.Term(EXPECTED(rt.references.Sample(x)), rt.priors.Sparsity(), 0.5)]
    case = {"terms": lambda w: terms, "model": linear, "train": (x, y), "validation": (x[:9], y[:9])}
    assert disagreement(*trained(case | {"loss": F.mse_loss})) < 1e-9


# ---- the comparison can fail


def shared(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The first model's draws for all of them."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        if name == "draws":
            right = together.Together._draws
            wrong = lambda self, position: [right(self, position)[0] for _ in self.members]  # noqa: E731
            monkeypatch.setattr(together.Together, "_draws", wrong)
        elif name == "streams":
            right = Streams.start
            wrong = lambda self, seeds, epoch: right(self, [seeds[0]] * len(seeds), epoch)  # noqa: E731
            monkeypatch.setattr(Streams, "start", wrong)
        elif name == "optimizer state":
            right = together.shrink
            wrong = lambda model, positions: right(model, [0] * len(positions))  # noqa: E731
            monkeypatch.setattr(together, "shrink", wrong)
        else:
            right = together.Together._settle

            def wrong(self: together.Together) -> None:
                right(self)
                for prior in self.priors:
                    prior.weights = prior.weights.mean().expand(len(self.members))

            monkeypatch.setattr(together.Together, "_settle", wrong)

    return plant


@pytest.mark.parametrize(
    ("defect", "case"),
    [
        ("draws", "in batch, level batch"),
        ("streams", "dropout"),
        ("optimizer state", "patience"),
        ("weights", "in batch, level batch"),
    ],
)
def test_the_comparison_sees(defect: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared(defect)(monkeypatch)
    try:
        found = disagreement(*trained(CASES[case]))
    except AssertionError:
        return
    assert found > 1e-9


# ---- stacking itself


def test_a_stack_is_its_models_and_gives_them_back() -> None:
    models = [mlp(seed) for seed in range(3)]
    stacked = stack(models, Streams())
    assert torch.allclose(stacked(X), torch.cat([m(x) for m, x in zip(models, X.chunk(3), strict=True)]), atol=1e-14)
    for position, model in enumerate(models):
        found = weights_of(stacked, position)
        assert found.keys() == model.state_dict().keys()
        assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def hooked() -> nn.Module:
    layer = nn.Linear(6, 2)
    layer.register_forward_hook(lambda *_: None)
    return layer


def tied() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 2).requires_grad_(False), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "BatchNorm1d cannot hold"),
        (lambda: nn.Sequential(Own(), nn.Linear(6, 2)), "Own cannot hold"),
        (lambda: nn.Sequential(nn.Flatten(0), nn.Linear(6, 2)), "Flatten cannot hold"),
        (hooked, "hook"),
        (tied, "share their weights"),
        (frozen, "frozen"),
        (lambda: nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 2).double()), "several types"),
        (Own, "several types"),
    ],
)
def test_what_cannot_be_stacked_says_why(make: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(UnstackableError, match=why):
        stack([make(), make()], Streams())


def test_models_that_differ_are_not_stacked() -> None:
    with pytest.raises(UnstackableError, match="differ"):
        stack([nn.Linear(6, 2), nn.Linear(6, 3)], Streams())
    with pytest.raises(UnstackableError, match="differ"):
        stack([nn.Sequential(nn.Linear(6, 2)), nn.Sequential(nn.Linear(6, 2), nn.ReLU())], Streams())


@pytest.mark.parametrize(
    ("attributions", "why"),
    [
        ([rt.Gradient(space=rt.spaces.Layer("1"))] * 2, "only the input's space"),
        ([rt.Gradient(target=torch.zeros(30).long())] * 2, "a target given as a tensor"),
        ([rt.Gradient(), rt.Gradient(output="loss")], "different attributions"),
        ([EXPECTED(n_samples=2), EXPECTED(n_samples=3)], "different attributions"),
        ([rt.Gradient(), EXPECTED()], "different attributions"),
    ],
)
def test_attributions_that_cannot_share_a_pass_say_why(attributions: list, why: str) -> None:
    with pytest.raises(UnstackableError, match=why):
        PerBlock(lambda: attributions, list)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_cheap_engine_of_the_models_serves_the_stack(dropout: float) -> None:
    """A stack that fell back to double backward would give the same numbers, slowly."""
    members, _ = trained({"terms": sparse, "model": lambda seed: mlp(seed, dropout), "epochs": 1})
    stacked = together.Together(members)
    stacked.start(0)
    stacked.joint_step(next(stacked.batches(0)))
    assert stacked.objective.engines.choices["sparsity"].name == "frozen-masks"


def test_a_term_that_sees_a_part_of_a_batch_is_not_stacked() -> None:
    """One draw over the joint rows would give a model rows of another."""
    terms = lambda w: [rt.Term(EXPECTED(), rt.priors.Sparsity(), w, "sparsity", fraction=0.5)]  # noqa: E731
    with pytest.raises(UnstackableError, match="part of a batch"):
        trained({"terms": terms, "epochs": 1})
