"""A training that was stopped anywhere and resumed ends with the bits of the one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.core.errors import CheckpointError
from rightly.training import checkpoint
from training import training_job
from training.training_job import job
from training.training_problems import bits, classification, objective, same

EPOCHS = 6


class Stop(Exception):
    """Thrown by a callback."""


def stopper(at: int):
    def callback(epoch, entry):
        if epoch == at:
            raise Stop

    return callback


def outcome(run: rt.Run) -> tuple:
    return run.history, run.best_epoch, run.best_value, run.stopped, run.weights, run.choices, run.engines


@pytest.mark.parametrize("weight", [0.3, "balance", "auto"])
def test_stopped_after_any_epoch(tmp_path, weight):
    whole, settings = job(8, weight)
    expected = rt.fit(whole, **settings, epochs=EPOCHS)
    for at in range(EPOCHS) if weight != "auto" else (0, 3):
        folder = tmp_path / str(at)
        stopped, settings = job(8, weight)
        with pytest.raises(Stop):
            rt.fit(stopped, **settings, epochs=EPOCHS, checkpoint=folder, callback=stopper(at))
        resumed, settings = job(8, weight)
        run = rt.fit(resumed, **settings, epochs=EPOCHS, checkpoint=folder, resume=True)
        assert same(bits(resumed), bits(whole))
        assert outcome(run) == outcome(expected)
        assert run.engines["sparsity"].startswith("frozen-masks: ")
        assert resumed.step == whole.step


@pytest.mark.parametrize("again", [2, 4], ids=["nothing left", "two epochs left"])
def test_what_was_said_of_an_engine_is_carried_over(tmp_path, again):
    x, y = classification()

    def trained(epochs, *, resume):
        settings = {"epochs": epochs, "batch_size": 30, "checkpoint": tmp_path, "resume": resume}
        return rt.fit(objective(), (x, y), **settings).engines

    first = trained(2, resume=False)
    assert first["sparsity"].startswith("frozen-masks: a plain stack")
    path = tmp_path / "checkpoint.safetensors"
    tensors, facts = checkpoint.read(path)
    facts["run"]["engines"] = {"sparsity": "frozen-masks: said before"}
    checkpoint.write(path, tensors, facts)
    assert trained(again, resume=True) == {"sparsity": "frozen-masks: said before"}


def test_stopped_in_the_middle_of_every_epoch_again_and_again(tmp_path):
    whole, settings = job(8, 0.3)
    rt.fit(whole, **settings, epochs=EPOCHS)
    calls = {"left": 7}

    def loss(outputs, labels):
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Stop
        return F.cross_entropy(outputs, labels)

    for _ in range(40):
        resumed, settings = job(8, 0.3)
        resumed.loss = loss
        calls["left"] = 9  # an epoch is five steps and a validation
        try:
            rt.fit(resumed, **settings, epochs=EPOCHS, checkpoint=tmp_path, resume=True)
            break
        except Stop:
            continue
    assert same(bits(resumed), bits(whole))


SCHEDULERS = {
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=EPOCHS),
    "milestones": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 3, 4], gamma=0.3),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.7**epoch),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.3, threshold=0.5),
    "restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "in turn": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2), torch.optim.lr_scheduler.ExponentialLR(o, 0.5)],
        [2],
    ),
}
OPTIMIZERS = {
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "two groups": lambda p: torch.optim.Adam([{"params": p[:2], "lr": 0.1}, {"params": p[2:]}], lr=0.01),
}


@pytest.mark.parametrize(
    "settings",
    [{"scheduler": one} for one in SCHEDULERS.values()] + [{"optimizer": one} for one in OPTIMIZERS.values()],
    ids=[*SCHEDULERS, *OPTIMIZERS],
)
def test_the_state_of_schedulers_and_optimizers_is_carried_over(tmp_path, settings):
    x, y = classification()
    settings = {"epochs": EPOCHS, "batch_size": 30, **settings}
    trained = [objective() for _ in range(3)]
    rt.fit(trained[0], (x, y), **settings)
    with pytest.raises(Stop):
        rt.fit(trained[1], (x, y), **settings, checkpoint=tmp_path, callback=stopper(2))
    rt.fit(trained[2], (x, y), **settings, checkpoint=tmp_path, resume=True)
    assert same(bits(trained[2]), bits(trained[0]))
    assert not same(bits(trained[2]), bits(trained[1]))


def test_running_statistics_and_tied_weights_are_carried_over(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.relu(self.norm(self.first(x))))[:, :2]

    x, y = classification()
    settings = {"epochs": 4, "batch_size": 30, "validation": (x[:20], y[:20])}
    found = []
    for folder, at in ((tmp_path / "whole", None), (tmp_path / "parts", 1)):
        for _ in range(2):
            torch.manual_seed(0)
            trained = rt.Objective(Tied(), F.cross_entropy)
            try:
                rt.fit(trained, (x, y), **settings, checkpoint=folder, resume=True, callback=stopper(at))
            except Stop:
                at = None
        assert trained.model.first.weight is trained.model.second.weight
        found.append(bits(trained))
    assert same(*found)
    assert found[0]["model.norm.num_batches_tracked"] > 0


def test_more_epochs_go_on_where_fewer_ended(tmp_path):
    trained = [job(8, 0.3) for _ in range(4)]
    rt.fit(trained[0][0], **trained[0][1], epochs=6)
    first = rt.fit(trained[1][0], **trained[1][1], epochs=2, checkpoint=tmp_path)
    run = rt.fit(trained[2][0], **trained[2][1], epochs=6, checkpoint=tmp_path, resume=True)
    assert same(bits(trained[2][0]), bits(trained[0][0]))
    assert len(run.history) == 6
    assert run.history[:2] == first.history
    assert run.seconds > first.seconds
    again = rt.fit(trained[3][0], **trained[3][1], epochs=6, checkpoint=tmp_path, resume=True)
    assert same(bits(trained[3][0]), bits(trained[0][0]))  # nothing left to do, and the best weights are there
    assert outcome(again) == outcome(run)


def test_a_run_that_patience_stopped_stays_stopped(tmp_path):
    x, y = classification()
    numbers = iter([1.0, 2.0, 3.0])
    settings = {"patience": 2, "checkpoint": tmp_path, "epochs": 9}
    trained, resumed = objective(), objective()
    run = rt.fit(trained, (x, y), (x, y), monitor=lambda o, labels: next(numbers), **settings)
    again = rt.fit(resumed, (x, y), (x, y), monitor=lambda o, labels: 0.0, resume=True, **settings)
    assert run.stopped == again.stopped == "patience"
    assert len(again.history) == 3
    assert again.best_epoch == 0
    assert same(bits(resumed.model), bits(trained.model))


def test_without_resume_a_checkpoint_is_written_anew(tmp_path):
    x, y = classification()
    trained = [objective() for _ in range(3)]
    rt.fit(trained[0], (x, y), epochs=2)
    rt.fit(trained[1], (x, y), epochs=3, checkpoint=tmp_path / "a" / "b")
    run = rt.fit(trained[2], (x, y), epochs=2, checkpoint=tmp_path / "a" / "b")
    assert len(run.history) == 2
    assert same(bits(trained[2]), bits(trained[0]))


def other_objective(**changes) -> rt.Objective:
    model = rt.models.mlp(6, [changes.get("width", 12), 8], 2, dropout=0.3, seed=0)
    terms = changes.get("terms", [rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity(), changes.get("weight", 0.5))])
    return rt.Objective(model, F.cross_entropy, terms, seed=changes.get("draws", 0))


@pytest.mark.parametrize(
    ("changes", "settings", "differs"),
    [
        ({}, {"seed": 1}, "seed"),
        ({}, {"batch_size": 31}, "batch_size"),
        ({}, {"lr": 0.02}, "optimizers"),
        ({}, {"weight_decay": 0.1}, "optimizers"),
        ({}, {"optimizer": "sgd"}, "optimizers"),
        ({}, {"schedule": "alternate"}, "schedule"),
        ({}, {"schedule": "alternate", "prior_optimizer": "adam"}, "optimizers"),
        ({}, {"precision": "bfloat16"}, "precision"),
        ({}, {"scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)}, "scheduler"),
        ({"width": 13}, {}, "model"),
        ({"terms": []}, {}, "terms"),
        ({"weight": 0.6}, {}, "terms"),
        ({"weight": "balance"}, {}, "terms"),
        ({"draws": 1}, {}, "draws"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, changes, settings, differs):
    x, y = classification()
    usual = {"epochs": 1, "batch_size": 30, "lr": 0.01, "checkpoint": tmp_path}
    rt.fit(other_objective(), (x, y), **usual)
    file = tmp_path / "checkpoint.safetensors"
    before = file.read_bytes()
    other = other_objective(**changes)
    state = bits(other.model)
    with pytest.raises(CheckpointError, match="another run") as caught:
        rt.fit(other, (x, y), **{**usual, **settings}, resume=True)
    assert differs in caught.value.expected
    assert "another folder" in caught.value.mend
    assert file.read_bytes() == before
    assert same(bits(other.model), state)
    assert other.step == 0
    rt.fit(other_objective(), (x, y), **usual, resume=True)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:100], lambda b: b"", lambda b: b[:-9] + b"\x01" * 9])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    x, y = classification()
    rt.fit(objective(), (x, y), epochs=1, checkpoint=tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        rt.fit(objective(), (x, y), epochs=2, checkpoint=tmp_path, resume=True)
    assert "delete it" in caught.value.mend


class Killable:
    """Trainings in processes of their own, started by one parent."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, training_job.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, folder: Path, *, epochs: int, width: int, slow: float = 0.0) -> int:
        """Start one; returns its process number."""
        self.parent.stdin.write(f"{folder}\t{width}\t{epochs}\t{slow}\n")
        self.parent.stdin.flush()
        return self.said(lambda line: not line.startswith("ended"), numbers=True)

    def said(self, wanted, *, numbers: bool = False):
        """Read on to the first line that is wanted."""
        while line := self.parent.stdout.readline():
            if wanted(line):
                return int(line) if numbers else line
        raise AssertionError("the parent of the trainings died")

    def ended(self) -> int:
        """Wait for the end; returns the exit status."""
        return int(self.said(lambda line: line.startswith("ended")).split()[1])


@pytest.fixture(scope="module")
def processes():
    if not hasattr(os, "fork"):
        pytest.skip("processes cannot be forked and killed here")
    made = Killable()
    yield made
    made.parent.stdin.close()
    made.parent.wait(timeout=60)
    made.parent.stdout.close()


def uninterrupted(width: int, epochs: int) -> bytes:
    trained, settings = job(width)
    rt.fit(trained, **settings, epochs=epochs)
    return safetensors.torch.save(trained.state_dict())


def test_a_process_killed_at_random_moments_resumes_to_the_same_bits(tmp_path, processes):
    chance = random.Random(1)
    for _ in range(6):
        child = processes.start(tmp_path, epochs=45, width=8)
        for _ in range(chance.randint(1, 6)):
            processes.said(lambda line: True)
        time.sleep(0.03 * chance.random())
        os.kill(child, signal.SIGKILL)
        assert processes.ended() == signal.SIGKILL
    assert not (tmp_path / "final.safetensors").exists()
    assert len(checkpoint.read(tmp_path / "checkpoint.safetensors")[1]["run"]["history"]) >= 6
    processes.start(tmp_path, epochs=45, width=8)
    assert processes.ended() == 0
    assert (tmp_path / "final.safetensors").read_bytes() == uninterrupted(8, 45)


def test_a_process_killed_while_it_writes_resumes_to_the_same_bits(tmp_path, processes):
    half = tmp_path / "checkpoint.safetensors.part"
    for done in (0, 1, 3):
        if done:
            processes.start(tmp_path, epochs=done, width=64)
            assert processes.ended() == 0
        child = processes.start(tmp_path, epochs=5, width=64, slow=100.0)
        size = -1
        while size <= 0 or size != half.stat().st_size:  # until it stands still, half written
            size = half.stat().st_size if half.exists() else -1
            time.sleep(0.2)
        os.kill(child, signal.SIGKILL)
        assert processes.ended() == signal.SIGKILL
        with pytest.raises(CheckpointError):
            checkpoint.read(half)
        assert (tmp_path / "checkpoint.safetensors").exists() == bool(done)
    processes.start(tmp_path, epochs=5, width=64)
    assert processes.ended() == 0
    assert (tmp_path / "final.safetensors").read_bytes() == uninterrupted(64, 5)
    assert not half.exists()
