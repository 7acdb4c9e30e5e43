"""Cases from tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from rightly.core.annotation import Annotation
from rightly.core.batch import tensors
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output
from rightly.data import Table, TableEncoder, split_indices
from rightly.objectives import Term
from rightly.objectives.term import Weight
from rightly.references import Sample
from rightly.rules import Rules
from rightly.workflows import networks
from rightly.workflows.case import Arm, Case, Settings
from rightly.workflows.choices import Choice, Question, choose
from rightly.workflows.ruled import Keeping, features_of


def table_case(
    table: Table, seed: int, *, prior: str, weight: Weight | None, irrelevant: Sequence[str], settings: Settings
) -> Case:
    """A split of a table with a plain arm and an arm with the prior.

    Args:
        table: labels included.
        seed: of the split and of the initial weights.
        prior: a name of ``choices.CHOICES``.
        weight: its strength; None takes the prior's default rule.
        irrelevant: columns that must not matter, for the right-reasons prior.
        settings: of the training.
    """
    choice = choose(prior, images=False)
    check_irrelevant(table, choice.needs, irrelevant)
    case = _plain_case(table, seed, irrelevant, settings)
    data = case.arms[0].data
    term = table_term(table, choice, tensors(data[0][0])[0], choice.weight if weight is None else weight)
    arm = Arm(prior, f"with the prior: {choice.title}", data, terms=(term,), about=choice.about(prior, term))
    return replace(case, arms=(*case.arms, arm))


def ruled_case(table: Table, seed: int, *, rules: Rules, settings: Settings) -> Case:
    """A split of a table with a plain arm and an arm with a term for each rule; arguments as for ``table_case``."""
    case = _plain_case(table, seed, (), settings, without="the rules")
    encoder = TableEncoder.from_json(case.attached["encoder"])
    keeping = Keeping(rules, features_of(encoder), table.classes)
    arm = Arm("rules", "with the rules", case.arms[0].data, terms=keeping.terms(), about=keeping.about())
    return replace(case, arms=(*case.arms, arm), rules=keeping)


def _plain_case(
    table: Table, seed: int, irrelevant: Sequence[str], settings: Settings, without: str = "the prior"
) -> Case:
    """The split and the plain arm."""
    classification = table.task == "classification"
    parts = split_indices(len(table.labels), seed=seed, labels=table.labels if classification else None)
    encoder = TableEncoder().fit(table.features.iloc[parts[0]], table.columns)
    groups = np.asarray(encoder.groups)
    names = tuple(column.name for column in table.columns)
    annotation = None
    if irrelevant:
        marked = np.isin(groups, [names.index(name) for name in irrelevant])
        annotation = Annotation(irrelevant=torch.from_numpy(marked)[None])
    labels, scale = _labels(table, parts[0])
    inputs = torch.from_numpy(encoder.transform(table.features))
    train, validation, test = ((inputs[rows], labels[rows], annotation) for rows in parts)
    n_out = len(table.classes) if classification and len(table.classes) > 2 else 1
    architecture = {"kind": "mlp", "n_in": len(groups), "hidden": [64, 32], "n_out": n_out}
    losses = {False: networks.squared_loss, True: networks.binary_loss if n_out == 1 else F.cross_entropy}
    return Case(
        arms=(Arm("plain", f"without {without}", (train, validation, test)),),
        make_model=partial(networks.build, architecture, seed),
        loss=losses[classification],
        task=table.task,
        settings=settings,
        architecture=architecture,
        features=names,
        groups=groups,
        shades=_shades(table, parts[2]),
        classes=table.classes,
        attached={"encoder": encoder.to_json(), "label": table.label, "label_scale": scale},
        resplit=True,
    )


def table_term(table: Table, choice: Choice, train: torch.Tensor, weight: Weight) -> Term:
    """The prior's term for a model of the table, compared with the training rows (N, F)."""
    output: Output = "logit" if table.task == "classification" else _value
    return choice.make(Question(Sample(train), output, "label"), weight)


def _value(outputs: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """What a regression explains: its value."""
    return outputs[:, 0]


def check_irrelevant(table: Table, needs: str, irrelevant: Sequence[str]) -> None:
    """The right-reasons prior needs columns, the others take none, and all of them have to exist."""
    names = [column.name for column in table.columns]
    if needs == "irrelevant" and not irrelevant:
        raise ArgumentError(
            "the right-reasons prior has to be told which columns must not matter",
            expected="--irrelevant COLUMN[,COLUMN...]",
            got="none",
        )
    if irrelevant and needs != "irrelevant":
        raise ArgumentError(
            "this prior reads no annotation", expected="--prior right-reasons with --irrelevant", got=list(irrelevant)
        )
    if unknown := [name for name in irrelevant if name not in names]:
        raise ArgumentError("no such feature column", expected=", ".join(names[:20]), got=", ".join(unknown))


def _labels(table: Table, train: np.ndarray) -> tuple[torch.Tensor, list[float]]:
    """Class numbers, or values standardised by the training rows with (mean, sd) to undo it."""
    if table.task == "classification":
        return torch.from_numpy(table.labels), [0.0, 1.0]
    mean, sd = float(table.labels[train].mean()), float(table.labels[train].std()) or 1.0
    return torch.from_numpy(((table.labels - mean) / sd).astype(np.float32)), [mean, sd]


def _shades(table: Table, rows: np.ndarray) -> np.ndarray:
    """How high each value is among the test rows, 0 to 1; NaN for categories and missing values."""
    shades = np.full((len(rows), len(table.columns)), np.nan)
    for position, column in enumerate(table.columns):
        if column.kind == "number":
            ranks = table.features[column.name].iloc[rows].rank(pct=True).to_numpy(dtype=float, na_value=np.nan)
            shades[:, position] = ranks
    return shades
