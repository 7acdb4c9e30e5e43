"""What ``rightly explain`` runs: a run's model on other data."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rightly.attributions import attribute
from rightly.core.errors import ArgumentError, CheckpointError, DataError
from rightly.core.types import Reference
from rightly.data import TableEncoder, read_frame, read_images
from rightly.evaluation import global_importance
from rightly.references import Constant, Sample
from rightly.workflows import networks
from rightly.workflows.case import predictions

#: with fewer rows than this, the training mean is the reference instead of the rows themselves
_ENOUGH = 20


def explain_run(run: Path, data: Path, out: Path, *, samples: int, seed: int, progress: bool) -> str:
    """Write a CSV with one row an example (prediction, then the attribution of each column) and return a summary.

    Examples are compared with one another (expected gradients); fewer than 20 with the training mean. For images
    the attributions go to an npz file beside the CSV.
    """
    if samples < 1:
        raise ArgumentError("samples are counted", expected="at least 1", got=samples)
    model, facts = load_model(run)
    inputs, names = _inputs(facts, data)
    reference: Reference = Sample(inputs) if len(inputs) >= _ENOUGH else Constant(0.0)
    found = attribute(
        model, inputs, reference=reference, n_samples=samples, target="predicted", seed=seed, progress=progress
    )
    with torch.no_grad():
        predicted = predictions(model(inputs), facts["task"])
    columns = _prediction_columns(facts, predicted)
    features = tuple(facts["features"])
    if features:
        groups = TableEncoder.from_json(facts["encoder"]).groups
        values = _grouped(found.attributions, groups, len(features))
        columns |= {name: values[:, i] for i, name in enumerate(features)}
        importance = global_importance(found.attributions, list(groups)).values.numpy()
        top = [f"  {features[i]:30} {importance[i]:.4g}" for i in np.argsort(-importance)[:10]]
    else:
        _write_npz(out.with_suffix(".npz"), found.attributions.numpy())
        top = [f"  attributions: {out.with_suffix('.npz')}"]
    _write_csv(out, names, columns)
    gap = float(found.completeness_gap.abs().mean()) if found.completeness_gap is not None else 0.0
    head = f"{len(inputs)} examples explained; mean completeness gap {gap:.2g}; written to {out}"
    return "\n".join([head, "mean absolute attribution:", *top])


def load_model(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A run's model in eval mode, and the facts saved beside it. Nothing is unpickled."""
    described, weights = run / "model.json", run / "model.safetensors"
    if not described.exists() or not weights.exists():
        raise CheckpointError(
            "this folder holds no finished run", expected="model.json and model.safetensors", got=str(run)
        )
    try:
        facts: dict[str, Any] = json.loads(described.read_text(encoding="utf-8"))
        if facts["architecture"] is None:
            raise CheckpointError(
                "the model came from your own function", mend="load model.safetensors into it and call rt.attribute"
            )
        model = networks.build(facts["architecture"])
        model.load_state_dict(load_file(weights))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError("the saved model cannot be read", got=str(error).split("\n")[0]) from error
    return model.eval(), facts


def _inputs(facts: dict[str, Any], data: Path) -> tuple[Tensor, list[str]]:
    if "encoder" in facts:
        reading = read_frame(data)
        encoder = TableEncoder.from_json(facts["encoder"])
        encoded = torch.from_numpy(encoder.transform(reading.frame))
        if len(encoded) == 0:
            raise DataError("there is no row to explain", got=str(data))
        return encoded, [str(i) for i in range(len(encoded))]
    images = read_images(data, size=tuple(facts["shape"][1:]))
    if images.inputs.shape[1:] != tuple(facts["shape"]):
        raise DataError("these images do not fit the model", expected=facts["shape"], got=images.inputs.shape[1:])
    return torch.from_numpy(images.inputs), list(images.names)


def _prediction_columns(facts: dict[str, Any], predicted: np.ndarray) -> dict[str, Any]:
    if facts["task"] == "regression":
        mean, sd = facts.get("label_scale", (0.0, 1.0))
        return {"prediction": predicted * sd + mean}
    best = predicted.argmax(1)
    return {"prediction": [facts["classes"][i] for i in best], "probability": predicted.max(1)}


def _grouped(attributions: Tensor, groups: np.ndarray, count: int) -> np.ndarray:
    flat = attributions.flatten(1)
    summed: np.ndarray = flat.new_zeros(len(flat), count).index_add(1, torch.as_tensor(groups), flat).numpy()
    return summed


def _write_csv(out: Path, names: list[str], columns: dict[str, Any]) -> None:
    aside = out.with_name(out.name + ".part")
    try:
        with aside.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["example", *columns])
            writer.writerows([name, *(column[i] for column in columns.values())] for i, name in enumerate(names))
    except OSError as error:
        raise DataError("the explanations cannot be written", got=str(error), mend="choose another --out") from None
    os.replace(aside, out)


def _write_npz(out: Path, attributions: np.ndarray) -> None:
    aside = out.with_name(out.name + ".part.npz")
    np.savez_compressed(aside, attributions=attributions)
    os.replace(aside, out)
