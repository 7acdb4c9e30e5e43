"""What ``rightly explain`` runs: a run's model on other data."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rightly.attributions import attribute
from rightly.core.errors import ArgumentError, CheckpointError, DataError, RightlyError
from rightly.core.types import AttributionResult, Reference
from rightly.data import TableEncoder, read_frame
from rightly.evaluation import global_importance, predictions
from rightly.references import Constant, Sample
from rightly.workflows import networks
from rightly.workflows.loose import loose_pictures

#: with fewer rows than this, the training mean is the reference instead of the rows themselves
ENOUGH = 20
_FACTS = ("task", "classes", "features")

Columns = list[tuple[str, Any]]


@dataclass(frozen=True)
class _Data:
    """What is explained: ``inputs`` (N, ...), a name for each example, and notes for the user."""

    inputs: Tensor
    names: Sequence[str]
    notes: Sequence[str] = ()


def explain_run(run: Path, data: Path, out: Path, *, samples: int, seed: int, progress: bool) -> str:
    """Write a CSV with one row an example and return a summary.

    A row holds the prediction, then for tables the attribution of each column, then ``explained`` (the number that is
    explained: the predicted class's score before the softmax, the positive class's if there are two, or a
    regression's value), ``base`` (its average over the references) and ``gap``; the attributions sum to
    ``explained - base + gap``. For images the attributions go to an npz file beside the CSV.

    Examples are compared with one another (expected gradients); fewer than 20 with the training mean (a table's), or
    with black (images').
    """
    if samples < 1:
        raise ArgumentError("--samples cannot be used", expected="at least 1", got=samples)
    model, facts = load_model(run)
    table, arrays = out if out.suffix != ".npz" else out.with_suffix(".csv"), out.with_suffix(".npz")
    _check_out(table)
    given = _data(facts, data)
    inputs = given.inputs
    reference: Reference = Sample(inputs) if len(inputs) >= ENOUGH else Constant(0.0)
    found = attribute(
        model, inputs, reference=reference, n_samples=samples, target="predicted", seed=seed, progress=progress
    )
    with torch.no_grad():
        outputs = torch.cat([model(part) for part in inputs.split(256)])
    columns: Columns = [("example", given.names), *_prediction_columns(facts, predictions(outputs, facts["task"]))]
    mean, unit = facts.get("label_scale", (0.0, 1.0))
    features = tuple(facts["features"])
    if features:
        groups = TableEncoder.from_json(facts["encoder"]).groups
        values = unit * _grouped(found.attributions, groups, len(features))
        taken = {name for name, _ in columns} | {"explained", "base", "gap"}
        columns += [(f"{f} (column)" if f in taken else f, values[:, i]) for i, f in enumerate(features)]
        importance = unit * global_importance(found.attributions, list(groups)).values.numpy()
        top = [f"  {features[i]:30} {importance[i]:.4g}" for i in np.argsort(-importance)[:10]]
        top = ["mean absolute attribution:", *top]
    else:
        _write_npz(arrays, found.attributions.numpy(), given.names)
        top = [f"attributions: {arrays}"]
    columns += _sum_columns(outputs, found, mean, unit)
    _write_csv(table, columns)
    gap = np.abs(columns[-1][1]).mean()
    head = f"{len(inputs)} examples explained; mean completeness gap {gap:.2g}; written to {table}"
    return "\n".join([*given.notes, head, *top])


def load_model(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A run's model in eval mode, and the facts saved beside it. Nothing is unpickled."""
    described, weights = run / "model.json", run / "model.safetensors"
    if not described.exists() or not weights.exists():
        raise CheckpointError(
            "this folder holds no finished run",
            expected="model.json and model.safetensors",
            got=str(run),
            mend="give the folder that rightly fit printed",
        )
    try:
        facts: dict[str, Any] = json.loads(described.read_text(encoding="utf-8"))
        if facts["architecture"] is None:
            raise CheckpointError(
                "the model came from your own function", mend="load model.safetensors into it and call rt.attribute"
            )
        if missing := [name for name in _FACTS if name not in facts]:
            raise ValueError(f"model.json lacks {', '.join(missing)}")
        model = networks.build(facts["architecture"])
        model.load_state_dict(load_file(weights))
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"the model saved in {run} cannot be read",
            expected="model.json and model.safetensors as rightly fit wrote them",
            got=error.what if isinstance(error, RightlyError) else str(error).split("\n")[0],
            mend="run rightly fit again",
        ) from error
    return model.eval(), facts


def _data(facts: dict[str, Any], data: Path) -> _Data:
    if "encoder" not in facts:
        return _Data(*loose_pictures(data, tuple(facts["shape"])))
    encoder = TableEncoder.from_json(facts["encoder"])
    encoded = torch.from_numpy(encoder.transform(read_frame(data).frame))
    return _Data(encoded, [str(i) for i in range(len(encoded))])


def _prediction_columns(facts: dict[str, Any], predicted: np.ndarray) -> Columns:
    if facts["task"] == "regression":
        mean, sd = facts.get("label_scale", (0.0, 1.0))
        return [("prediction", predicted * sd + mean)]
    best = predicted.argmax(1)
    return [("prediction", [facts["classes"][i] for i in best]), ("probability", predicted.max(1))]


def _sum_columns(outputs: Tensor, found: AttributionResult, mean: float, unit: float) -> Columns:
    """What the attributions sum to, in the label's unit for a regression."""
    # a single output is explained whatever the target
    target = outputs.new_zeros(len(outputs), dtype=torch.long) if outputs.shape[1] == 1 else outputs.argmax(1)
    explained = outputs.double().gather(1, target[:, None])[:, 0]
    gap = explained.new_zeros(len(explained)) if found.completeness_gap is None else found.completeness_gap.double()
    base = explained - found.attributions.double().flatten(1).sum(1) + gap
    return [
        ("explained", (explained * unit + mean).numpy()),
        ("base", (base * unit + mean).numpy()),
        ("gap", (gap * unit).numpy()),
    ]


def _grouped(attributions: Tensor, groups: np.ndarray, count: int) -> np.ndarray:
    flat = attributions.flatten(1)
    summed: np.ndarray = flat.new_zeros(len(flat), count).index_add(1, torch.as_tensor(groups), flat).numpy()
    return summed


def _check_out(out: Path) -> None:
    """Found before the work, not after it."""
    aside = out.with_name(out.name + ".part")
    try:
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder")
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise DataError("the explanations cannot be written", got=str(error), mend="choose another --out") from None


def _write_csv(out: Path, columns: Columns) -> None:
    aside = out.with_name(out.name + ".part")
    with aside.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow([name for name, _ in columns])
        writer.writerows(zip(*(values for _, values in columns), strict=True))
    os.replace(aside, out)


def _write_npz(out: Path, attributions: np.ndarray, names: Sequence[str]) -> None:
    aside = out.with_name(out.name + ".part.npz")
    np.savez_compressed(aside, attributions=attributions, names=np.array(names))
    os.replace(aside, out)
