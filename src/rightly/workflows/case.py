"""One split of one data set, ready to be trained in several arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, rows
from rightly.core.types import Space
from rightly.objectives.model_term import AnyTerm
from rightly.objectives.term import EngineName
from rightly.spaces import Input
from rightly.workflows.ruled import Keeping

Task = Literal["classification", "regression"]
Part = tuple[Inputs, Tensor, Annotation | None]
Data = tuple[Part, Part, Part]


@dataclass(frozen=True)
class Settings:
    """How every arm is trained; the same loop and numbers for all of them."""

    epochs: int = 60
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    patience: int | None = 10
    #: references an example in explanations, and rows explained, when a trained model is looked at
    explain_samples: int = 100
    explain_rows: int = 300


@dataclass(frozen=True)
class Arm:
    """One way to train: data and terms.

    Attributes:
        name: key in the record, ``"plain"`` or the prior's.
        title: for a reader.
        data: training, validation and test part, each (inputs, labels, annotation).
        terms: empty for plain training.
        about: the record's description of the prior; None for plain training.
    """

    name: str
    title: str
    data: Data
    terms: tuple[AnyTerm, ...] = ()
    about: Mapping[str, str] | None = None

    @property
    def train(self) -> Part:
        """The training part."""
        return self.data[0]

    @property
    def validation(self) -> Part:
        """The validation part, for early stopping and choices."""
        return self.data[1]

    @property
    def test(self) -> Part:
        """The test part, looked at once."""
        return self.data[2]


@dataclass(frozen=True)
class Case:
    """One split.

    Attributes:
        arms: plain first.
        make_model: a fresh network with this seed's weights; the same for every arm.
        architecture: JSON-able description from which ``networks.build`` makes the network again; None for a
            user's own.
        loss: (outputs, labels) -> scalar.
        task: decides the metrics.
        features: names of the original columns; empty for images.
        groups: (F,) column of every encoded feature, for tables.
        shades: (N_test, columns) in [0, 1] or NaN, how high each test value is in its column, for the beeswarm.
        space: where explanations live when they are reported.
        attached: JSON-able facts saved beside the model, such as the encoder.
        rules: that every arm is held against, whether it was trained by them or not.
        resplit: every seed splits one data set anew, so that the seeds' parts share rows; False where the parts are
            given.
    """

    arms: tuple[Arm, ...]
    make_model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    task: Task
    settings: Settings
    architecture: dict[str, Any] | None = None
    features: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    shades: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    space: Space = field(default_factory=Input)
    attached: dict[str, Any] = field(default_factory=dict)
    rules: Keeping | None = None
    resplit: bool = False

    @property
    def test_share(self) -> float | None:
        """The share of a split's rows that are tested, as ``compare`` takes it; None where parts are given."""
        if not self.resplit:
            return None
        sizes = [rows(part[0]) for part in self.arms[0].data]
        return sizes[-1] / sum(sizes)

    def with_engine(self, engine: EngineName | None) -> Case:
        """The same with another engine in every term; None leaves them as they are."""
        if engine is None:
            return self
        terms = [tuple(term.with_engine(engine) for term in arm.terms) for arm in self.arms]
        return replace(self, arms=tuple(replace(arm, terms=new) for arm, new in zip(self.arms, terms, strict=True)))
