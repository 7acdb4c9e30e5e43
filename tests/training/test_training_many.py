"""Sweeps: what is trained in which order, the folder that a kill leaves whole, pruning, and the choice of a weight."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError, CheckpointError, MissingExtraError, ShapeError
from rightly.objectives.blocks import UnstackableError
from rightly.training import Trial, sizes
from training.training_problems import bits, classification, same

X, Y = classification()
VALID = (X[:30], Y[:30])
TERMS = [rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity())]
SMALL = {"epochs": 3, "batch_size": 30, "lr": 0.02}


def mlp(seed: int) -> nn.Module:
    return rt.models.mlp(6, [8], 2, dropout=0.2, seed=seed)


def sweep(**arguments: Any) -> list[Trial]:
    """Two weights and three seeds, unless said otherwise."""
    given = {"grid": {"weight": [0.1, 1.0]}, "seeds": range(3), "at_once": 2} | SMALL | arguments
    model, terms = given.pop("model", mlp), given.pop("terms", TERMS)
    train, valid = given.pop("train", (X, Y)), given.pop("validation", VALID)
    return rt.fit_many(model, F.cross_entropy, terms, train, valid, **given)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def alike(first: list[Trial], second: list[Trial]) -> bool:
    """The same trials to the bit, times aside."""
    return len(first) == len(second) and all(
        (a.setting, a.seed, a.status, a.run.history) == (b.setting, b.seed, b.status, b.run.history)
        and (a.model is None) == (b.model is None)
        and (a.model is None or b.model is None or same(bits(a.model), bits(b.model)))
        for a, b in zip(first, second, strict=True)
    )


# ---- what is trained


def alone(seed: int, weight: float, **settings: Any) -> tuple[rt.Objective, rt.Run]:
    term = rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity(), weight)
    objective = rt.Objective(mlp(seed), F.cross_entropy, [term], seed=seed)
    return objective, rt.fit(objective, (X, Y), VALID, seed=seed, **SMALL, **settings)


@pytest.mark.parametrize("at_once", [1, 2, 3, None])
def test_a_trial_is_what_fit_gives_alone(at_once: int | None) -> None:
    trials = sweep(at_once=at_once)
    assert [(t.setting["weight"], t.seed) for t in trials] == [(w, s) for w in (0.1, 1.0) for s in range(3)]
    for trial in trials:
        objective, run = alone(trial.seed, trial.setting["weight"])
        assert trial.status == "trained"
        assert trial.run.weights == run.weights
        assert trial.model is not None
        if trial.together == 1:
            assert same(bits(trial.model), bits(objective.model))
            assert trial.run.history == run.history
        else:
            for name, value in objective.model.state_dict().items():
                assert torch.allclose(trial.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": lambda seed: nn.Sequential(mlp(seed), nn.BatchNorm1d(2))}, "BatchNorm1d cannot hold"),
        ({"optimizer": torch.optim.Adam}, "an optimizer of one's own"),
        ({"schedule": "alternate"}, "only joint steps"),
        ({"train": torch.utils.data.TensorDataset(X, Y)}, "tensor in memory"),
        ({"grid": {"weight": ["balance"]}}, "a weight is still open"),
        ({"terms": [rt.Term(rt.Gradient(space=rt.spaces.Layer("1")), rt.priors.L1())]}, "only the input's space"),
        ({"terms": [rt.Term(rt.Gradient(), rt.priors.L1(), engine="two-phase")]}, "two-phase takes passes of its own"),
        ({"scheduler": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o)}, "plateau"),
    ],
)
@pytest.mark.parametrize("at_once", [2, None])
def test_what_cannot_be_one_model_is_trained_one_after_the_other(changes: dict, why: str, at_once: int | None) -> None:
    trials = sweep(seeds=range(2), **{"at_once": at_once, "grid": {"weight": [0.1]}} | changes)
    assert all(trial.together == 1 and why in trial.reason for trial in trials)
    assert alike(trials, sweep(seeds=range(2), **{"grid": {"weight": [0.1]}} | changes | {"at_once": 1}))


def test_resting_terms_are_stacked_apart() -> None:
    trials = sweep(grid={"weight": [0, 1.0]}, at_once=6)
    assert [trial.together for trial in trials] == [3] * 6
    assert all(entry["terms"] == {"sparsity": 0.0} for trial in trials[:3] for entry in trial.run.history)


def test_stacks_are_even() -> None:
    assert [t.together for t in sweep(seeds=range(5), grid={"weight": [0.1]}, at_once=4)] == [2, 2, 3, 3, 3]


def test_the_number_at_once_is_measured_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_alone", lambda member: 5.0)
    monkeypatch.setattr(sizes, "_stacked", lambda members: {4: 2.0, 6: 2.1}[len(members)])
    (reason,) = {t.reason for t in sweep(at_once=None, epochs=100)}
    assert reason == "4 at once: a step of a model took 5000.00 ms at 1, 2000.00 ms at 4, 2100.00 ms at 6"
    monkeypatch.setattr(sizes, "_alone", lambda member: 1.0)
    assert {t.together for t in sweep(at_once=None, epochs=100)} == {1}


def test_priors_splits_and_weights_by_name_come_in_a_stable_order() -> None:
    l1, l2 = (rt.Term(rt.Gradient(), prior, 0.1) for prior in (rt.priors.L1(), rt.priors.L2()))
    seen = []

    def drawn(train: Any) -> list[rt.Term]:
        seen.append(len(train[0]))
        return [rt.Term(rt.ExpectedGradients(rt.references.Sample(train[0])), rt.priors.Sparsity())]

    trials = rt.fit_many(
        mlp,
        F.cross_entropy,
        {"plain": [], "two": [l1, l2], "drawn": drawn},
        splits={"a": ((X, Y), VALID), "b": ((X[:60], Y[:60]), VALID)},
        grid={"l2": [0.5, 1.0], "sparsity": [3.0]},
        seeds=[7],
        **SMALL,
    )
    expected = [{"prior": "plain", "split": s} for s in "ab"]
    expected += [{"prior": "two", "split": s, "l2": w} for s in "ab" for w in (0.5, 1.0)]
    expected += [{"prior": "drawn", "split": s, "sparsity": 3.0} for s in "ab"]
    assert [trial.setting for trial in trials] == expected
    assert trials[2].run.weights == {"l1": 0.1, "l2": 0.5}
    assert trials[-1].run.weights == {"sparsity": 3.0}
    assert set(seen) == {90, 60}


def test_a_function_gives_every_seed_its_split() -> None:
    trials = rt.fit_many(
        mlp,
        F.cross_entropy,
        TERMS,
        splits=lambda seed: ((X[seed : seed + 60], Y[seed : seed + 60]), VALID),
        seeds=[3, 5],
        **SMALL,
    )
    for trial in trials:
        one = rt.Objective(mlp(trial.seed), F.cross_entropy, TERMS, seed=trial.seed)
        part = slice(trial.seed, trial.seed + 60)
        run = rt.fit(one, (X[part], Y[part]), VALID, seed=trial.seed, **SMALL)
        assert trial.run.best_value == pytest.approx(run.best_value, rel=1e-5)


def test_a_factory_that_reads_the_global_state_is_reproducible_and_leaves_it() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = [sweep(model=lambda seed: nn.Linear(6, 2)) for _ in range(2)]
    assert alike(*found)
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0][0].model is not None
    assert found[0][0].model.training


def test_what_diverges_is_told_and_the_others_go_on() -> None:
    # the squared gradient of a linear model grows without bound under this weight only
    terms = [rt.Term(rt.Gradient(), rt.priors.L2())]
    for at_once in (1, 4):
        trials = sweep(terms=terms, grid={"weight": [0.1, 1e30]}, seeds=range(2), optimizer="sgd", at_once=at_once)
        assert [trial.status for trial in trials] == ["trained"] * 2 + ["diverged"] * 2
        assert [trial.model is None for trial in trials] == [False, False, True, True]


# ---- the folder


def test_a_line_a_trial_and_the_models_beside_them(tmp_path: Path) -> None:
    trials = sweep(folder=tmp_path / "new" / "sweep")
    found = lines(tmp_path / "new" / "sweep")
    assert [line["number"] for line in found] == list(range(6))
    for line, trial in zip(found, trials, strict=True):
        assert (line["setting"], line["seed"], line["status"]) == (trial.setting, trial.seed, "trained")
        assert line["epoch"] == 2
        assert line["run"]["history"] == trial.run.history
    assert len(list((tmp_path / "new" / "sweep" / "models").iterdir())) == 6
    assert alike(trials, sweep(folder=tmp_path / "new" / "sweep", resume=True))


@pytest.mark.parametrize("at_once", [1, 2, 4, None])
@pytest.mark.parametrize("killed_at", [1, 4, 6])
def test_a_killed_sweep_goes_on_to_the_same_bits(tmp_path: Path, at_once: int | None, killed_at: int) -> None:
    whole = sweep(folder=tmp_path / "whole", at_once=at_once)
    made: list[int] = []

    def dying(seed: int) -> nn.Module:
        made.append(seed)
        if len(made) == killed_at:
            raise KeyboardInterrupt
        return mlp(seed)

    with pytest.raises(KeyboardInterrupt):
        sweep(model=dying, folder=tmp_path / "killed", at_once=at_once)
    done = len(lines(tmp_path / "killed")) if (tmp_path / "killed" / "trials.jsonl").exists() else 0
    assert done < 6
    made.clear()

    def counting(seed: int) -> nn.Module:
        made.append(seed)
        return mlp(seed)

    resumed = sweep(model=counting, folder=tmp_path / "killed", at_once=at_once, resume=True)
    if at_once is not None:  # a measured number may differ between two folders, and with it the rounding
        assert alike(whole, resumed)
        assert len(made) == 6
    assert [line["number"] for line in lines(tmp_path / "killed")] == list(range(6))


def test_a_half_written_last_line_is_written_again(tmp_path: Path) -> None:
    trials = sweep(folder=tmp_path)
    path = tmp_path / "trials.jsonl"
    for cut in (1, 30, len(path.read_text().splitlines()[-1])):
        path.write_text(path.read_text()[:-cut])
        assert alike(trials, sweep(folder=tmp_path, resume=True))
        assert [line["number"] for line in lines(tmp_path)] == list(range(6))


def test_a_measured_number_is_kept_for_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = sweep(folder=tmp_path, at_once=None)
    (tmp_path / "trials.jsonl").unlink()
    monkeypatch.setattr("rightly.training.many.measured_size", lambda make, most: (1, "measured anew"))
    assert alike(trials, sweep(folder=tmp_path, at_once=None, resume=True))


def test_models_need_not_be_kept(tmp_path: Path) -> None:
    assert all(trial.model is None for trial in sweep(folder=tmp_path, keep_models=False))
    assert not (tmp_path / "models").exists()
    assert all(trial.model is None for trial in sweep(folder=tmp_path, keep_models=False, resume=True))


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    sweep(folder=tmp_path)
    with pytest.raises(ArgumentError, match="not empty"):
        sweep(folder=tmp_path)
    with pytest.raises(CheckpointError, match="another sweep") as caught:
        sweep(folder=tmp_path, resume=True, epochs=4)
    assert "settings" in str(caught.value)
    with pytest.raises(CheckpointError, match="another sweep"):
        sweep(folder=tmp_path, resume=True, terms=[rt.Term(rt.Gradient(), rt.priors.L1(), name="sparsity")])
    with pytest.raises(CheckpointError, match="do not fit the model"):
        sweep(folder=tmp_path, resume=True, model=lambda seed: rt.models.mlp(6, [9], 2, seed=seed))
    (tmp_path / "models" / "3.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"3\.safetensors cannot be read"):
        sweep(folder=tmp_path, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="names a folder"):
        sweep(folder=tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be read"):
        sweep(folder=tmp_path / "other", resume=True)


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"status": "trained", "run": 3, "number": 0}', "[1]"])
def test_a_damaged_line_is_an_error_that_names_the_file(tmp_path: Path, line: str) -> None:
    sweep(folder=tmp_path)
    path = tmp_path / "trials.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(CheckpointError, match=r"trials\.jsonl"):
        sweep(folder=tmp_path, resume=True)


# ---- pruning


def hopeless(at_once: int, **more: Any) -> list[Trial]:
    """Three sound settings, then one under which nothing is learnt, with two seeds."""
    terms = [rt.Term(rt.Gradient(), rt.priors.L2())]
    given = {"terms": terms, "grid": {"weight": [0.0, 1e-4, 1e-3, 1e4]}, "seeds": range(2), "epochs": 12}
    return sweep(**given | {"at_once": at_once, "pruner": "median", "batch_size": 45} | more)


@pytest.mark.parametrize("at_once", [1, 2])
def test_hopeless_settings_are_pruned_and_recorded(tmp_path: Path, at_once: int) -> None:
    trials = hopeless(at_once, folder=tmp_path)
    pruned = [trial for trial in trials if trial.status == "pruned"]
    assert [(trial.setting["weight"], trial.seed) for trial in pruned] == [(1e4, 0), (1e4, 1)]
    for trial, line in zip(trials, lines(tmp_path), strict=True):
        assert line["status"] == trial.status
        assert line["epoch"] == trial.run.history[-1]["epoch"]
        assert (trial.status == "pruned") == (trial.run.stopped == "pruned")
        if trial.status == "pruned":
            assert 12 // 4 <= line["epoch"] < 11
            assert trial.model is None
    # what ran on is what would have run without a pruner
    plain = hopeless(at_once, pruner=None)
    for a, b in zip(trials, plain, strict=True):
        assert a.run.history == b.run.history[: len(a.run.history)]
    assert alike(trials, hopeless(at_once, folder=tmp_path, resume=True))


def test_a_resumed_sweep_prunes_as_it_would_have(tmp_path: Path) -> None:
    whole = hopeless(1)
    hopeless(1, folder=tmp_path)
    path = tmp_path / "trials.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    assert alike(whole, hopeless(1, folder=tmp_path, resume=True))


def test_any_pruner_of_the_tuner_s_serves() -> None:
    optuna = pytest.importorskip("optuna")
    level = optuna.logging.get_verbosity()
    trials = hopeless(1, pruner=optuna.pruners.ThresholdPruner(upper=1e-9))
    assert [trial.status for trial in trials] == ["pruned"] * 8
    assert [len(trial.run.history) for trial in trials] == [1] * 8
    assert {trial.status for trial in hopeless(1, pruner="halving")} == {"trained", "pruned"}
    assert {trial.status for trial in hopeless(1, pruner=optuna.pruners.NopPruner())} == {"trained"}
    assert optuna.logging.get_verbosity() == level


def test_without_the_tuner_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match="optuna"):
        hopeless(1)
    assert hopeless(1, pruner=None, epochs=1, seeds=[0])


# ---- mistakes


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"grid": {"weight": []}}, "is a list of weights"),
        ({"grid": {"weight": "auto"}}, "is a list of weights"),
        ({"grid": {"weight": 3.0}}, "is a list of weights"),
        ({"grid": {"weight": [1, 1.0]}}, "names a weight twice"),
        ({"grid": {"weight": [-1.0]}}, "unusable weight"),
        ({"grid": {"l7": [1.0]}}, "names what is no term"),
        ({"terms": [TERMS[0], rt.Term(rt.Gradient(), rt.priors.L1())]}, "any of several terms"),
        ({"terms": {}}, "no alternative"),
        ({"terms": TERMS[0]}, "terms come in a list"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": [0.5]}, "whole numbers"),
        ({"splits": {"a": ((X, Y), VALID)}}, "data come in one way"),
        ({"splits": {}, "train": None}, "there is no split"),
        ({"train": None}, "data come in one way"),
        ({"patience": 2, "validation": None}, "patience watches"),
        ({"pruner": "median", "validation": None}, "pruner watches"),
        ({"pruner": "middle"}, "unknown pruner"),
        ({"pruner": 3}, "unknown pruner"),
        ({"at_once": 0}, "at_once counts"),
        ({"resume": True}, "nothing to resume"),
        ({"epochs": 0}, "epochs counts"),
        ({"model": lambda seed: "model"}, "model_factory makes models"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(changes: dict, match: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=match):
        sweep(**changes)


def test_a_mistake_in_the_loss_is_the_usual_one() -> None:
    with pytest.raises(ShapeError, match="the loss must be one number"):
        rt.fit_many(
            mlp, lambda o, y: F.cross_entropy(o, y, reduction="none"), TERMS, (X, Y), at_once=2, seeds=[0, 1], **SMALL
        )


# ---- weight="auto"


def test_auto_trains_its_candidates_at_once_and_chooses_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["rightly.training.fit"]
    right = module.train_together

    def choice(train: Any) -> tuple[rt.Run, dict[str, torch.Tensor]]:
        monkeypatch.setattr(module, "train_together", train)
        term = rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity(), "auto")
        objective = rt.Objective(mlp(0), F.cross_entropy, [term])
        return rt.fit(objective, (X, Y), VALID, **SMALL), bits(objective.model)

    sizes_seen = []

    def counting(members: Any) -> None:
        sizes_seen.append(len(members))
        right(members)

    def refusing(members: Any) -> None:
        raise UnstackableError("not today")

    together, first = choice(counting)
    one_by_one, second = choice(refusing)
    assert sizes_seen[0] == 4
    (a,), (b,) = together.choices.values(), one_by_one.choices.values()
    assert a.weight == b.weight
    assert same(first, second)  # the training that follows is the same one
    for mine, theirs in zip(a.candidates, b.candidates, strict=True):
        assert mine.weight == theirs.weight
        assert mine.mean == pytest.approx(theirs.mean, rel=1e-5)
    assert choice(right)[0].choices == together.choices  # to the bit, whatever a clock says
