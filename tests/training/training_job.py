"""A training that can be killed; ``python training_job.py`` starts one for every line it reads.

A line is FOLDER WIDTH EPOCHS SLOW, separated by tabs. The answer is the number of the process, its epochs one by
one, and ``ended`` with its exit status. One parent forks all of them, because importing torch takes seconds.

Dropout, Adam and an Adam of its own for the terms, a scheduler, a balanced weight, patience, the best weights.
``SLOW`` seconds pass between the two halves of writing a checkpoint, so that a kill can hit it there.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import rightly as rt
from rightly.core import seeding
from rightly.training import checkpoint


def job(width: int, weight: float | str = "balance") -> tuple[rt.Objective, dict]:
    """An objective and how to train it."""
    draws = seeding.generator("job")
    x = torch.randn(120, 6, generator=draws)
    y = (x[:, 0] - x[:, 1] > 0).long()
    model = rt.models.mlp(6, [width, 8], 2, dropout=0.3, seed=1)
    term = rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity(), weight, schedule=rt.Schedule(every=2, warmup=5))
    settings = {
        "train": (x[:90], y[:90]),
        "validation": (x[90:], y[90:]),
        "batch_size": 20,
        "lr": 0.01,
        "schedule": "alternate",
        "prior_optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
        "patience": 50,
        "seed": 4,
    }
    return rt.Objective(model, F.cross_entropy, [term], seed=2), settings


def train(folder: str, width: str, epochs: str, slow: str) -> None:
    def slowly(tensors, path, metadata):
        save_file(tensors, path, metadata)
        whole = Path(path).read_bytes()
        with Path(path).open("wb") as handle:
            handle.write(whole[: len(whole) // 2])
            handle.flush()
            time.sleep(float(slow))
            handle.write(whole[len(whole) // 2 :])

    if float(slow):
        checkpoint.save_file = slowly
    objective, settings = job(int(width))
    rt.fit(
        objective,
        **settings,
        epochs=int(epochs),
        checkpoint=folder,
        resume=True,
        callback=lambda epoch, entry: print(epoch, flush=True),  # noqa: T201 (the test listens)
    )
    save_file(objective.state_dict(), Path(folder) / "final.safetensors")


def serve() -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # the first optimizer would import it, in every child again
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                train(*line.rstrip("\n").split("\t"))
            except BaseException:  # noqa: BLE001 (a fork must not return)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)  # noqa: T201
        print("ended", os.waitpid(child, 0)[1], flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
