"""What both methods of discovery share: data, models, scores, explanations, checkpoints."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rightly.attributions import Gradient
from rightly.attributions.bulk import described
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, call, outputs_of, rows, take, tensors
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError, CheckpointError
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.discovery.explanations import check_cutoff, gradient_similarity, largest_gradient_mask, mask_overlap
from rightly.discovery.result import Discovery, Finding, distinct
from rightly.discovery.scores import check_scorable, default_score, meaning
from rightly.objectives import Objective, Term
from rightly.objectives.engines import class_numbers
from rightly.objectives.model_term import AnyTerm
from rightly.objectives.objective import Loss
from rightly.training import Run, fit
from rightly.training import checkpoint as files

Score = Callable[[Tensor, Tensor], float]

#: examples a pass, and training examples on which the models' explanations are compared
_PIECE, _COMPARED = 1024, 1000
_IDENTITY = "discovery.safetensors"


@dataclass(frozen=True, kw_only=True)
class Question:
    """The arguments of ``find_another_explanation`` that both methods read, and what they do with models.

    Raises ``ArgumentError`` for one that cannot be used.
    """

    model_factory: Callable[[int], nn.Module]
    loss: Loss
    train: Any
    validation: Any
    space: Space | None
    cutoff: float
    mask_output: Output
    mask_target: Target
    tolerance: float
    alike: float
    score: Score | None
    seed: int
    folder: Path | None
    resume: bool
    progress: bool
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_cutoff(self.cutoff)
        for name in ("tolerance", "alike"):
            check_number(name, getattr(self, name), positive=False)
        _check_in_memory(self.train, "train")
        if self.validation is not None:
            _check_in_memory(self.validation, "validation")
        if self.score is None:
            for data in (self.train, self.validation) if self.validation is not None else (self.train,):
                meaning(data[1])
        if self.folder is None and self.resume:
            raise ArgumentError("there is nothing to resume from", expected="folder=...", got=None)
        _ = self.explain  # checks output and target

    @cached_property
    def explain(self) -> Gradient:
        """What masks are made from."""
        return Gradient(space=self.space, output=self.mask_output, target=self.mask_target)

    @cached_property
    def compared(self) -> Tensor:
        """Numbers of the training examples on which the models' explanations are compared."""
        order = torch.randperm(rows(self.train[0]), generator=seeding.generator(self.seed, "compared"))
        return order[:_COMPARED].sort().values

    def identify(self, further: Mapping[str, Any]) -> None:
        """Write what makes this discovery this one into its folder, or compare it with what is there."""
        if self.folder is None:
            return
        same = ("cutoff", "tolerance", "alike", "seed")
        identity = {
            **further,
            **{name: getattr(self, name) for name in same},
            "space": described(self.space),
            "mask": described([self.mask_output, self.mask_target]),
            "training": {name: value for name, value in self.training.items() if _plain(value)},
            "data": _contents(self.train),
            "validation": None if self.validation is None else _contents(self.validation),
        }
        identity = json.loads(json.dumps(identity))
        path = self.folder / _IDENTITY
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            if not self.resume:
                raise ArgumentError(
                    "the folder of the discovery is not empty",
                    expected="a new folder",
                    got=str(self.folder),
                    mend="choose another, or go on with resume=True",
                )
            found = files.read(path)[1]
            if found != identity:
                differ = [key for key in identity if identity[key] != found.get(key)]
                raise CheckpointError(
                    "the folder holds another discovery",
                    expected={key: found.get(key) for key in differ},
                    got={key: identity[key] for key in differ},
                    mend="resume with the same arguments, or choose another folder",
                )
        files.write(path, {}, identity)

    def seed_of(self, number: int) -> int:
        """The given seed for the first model, derived ones for the others; small enough for any library."""
        return self.seed if number == 0 else seeding.mix(self.seed, "model", number) % 2**31

    def model(self, number: int) -> nn.Module:
        """An untrained one."""
        seed = self.seed_of(number)
        with seeding.guarded(seed, "model"):
            model = self.model_factory(seed)
        if not isinstance(model, nn.Module):
            raise ArgumentError("model_factory makes models", expected="a torch.nn.Module", got=type(model).__name__)
        if number == 0 and self.score is None:
            self._check_scorable(model)
        return model

    def _check_scorable(self, model: nn.Module) -> None:
        """Tell outputs that cannot be scored before training, not after."""
        inputs, labels = self.train
        few = torch.arange(min(2, len(labels)))
        with seeding.guarded():
            check_scorable(self._outputs(model, take(inputs, few)), labels)

    def fit(
        self, model: nn.Module, loss: Loss, terms: Sequence[AnyTerm], number: int, data: tuple[Any, ...] | None = None
    ) -> Run:
        """Train in place; checkpoints lie in a folder of their own."""
        seed = self.seed_of(number)
        # a loss with a state (rt.GroupDRO) is each training's own
        loss = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
        return fit(
            Objective(model, loss, terms, seed=seed),
            data or self.train,
            self.validation,
            seed=seed,
            checkpoint=None if self.folder is None else self.folder / f"model-{number + 1}",
            resume=self.resume,
            progress=self.progress,
            **self.training,
        )

    def penalised(self, term: Term, output: Output) -> Term:
        """The term on this discovery's space and another output."""
        return Term(Gradient(space=self.space, output=output), term.prior, term.weight, term.name)

    def gradients(self, model: nn.Module, index: Tensor) -> Tensor:
        """(M, *F), of the training examples ``index`` (M,)."""
        inputs, labels = self.train
        found = [
            self.explain(
                model, take(inputs, part), class_numbers(labels[part.to(labels.device)]), diagnostics=False
            ).attributions
            for part in index.split(_PIECE)
        ]
        return torch.cat(found)

    def mask(self, model: nn.Module) -> Tensor:
        """(N, *F): the largest gradients of every training example."""
        every = torch.arange(rows(self.train[0])).split(_PIECE)
        return torch.cat([largest_gradient_mask(self.gradients(model, p), self.cutoff) for p in every])

    def scores(self, model: nn.Module) -> tuple[float, float | None]:
        """On the training and the validation data."""
        return self._scored(model, *self.train), self.validation and self._scored(model, *self.validation)

    def _scored(self, model: nn.Module, inputs: Inputs, labels: Tensor) -> float:
        return float((self.score or default_score)(self._outputs(model, inputs), labels))

    @staticmethod
    def _outputs(model: nn.Module, inputs: Inputs) -> Tensor:
        parts = torch.arange(rows(inputs)).split(_PIECE)
        with autodiff.reading(model, trainable=False), torch.no_grad():
            return torch.cat([outputs_of(call(model, take(inputs, part))) for part in parts])

    def likeness(self, models: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
        """(M, M) twice: how similar gradients are, and how much masks overlap, on some training examples."""
        found = torch.stack([self.gradients(model, self.compared) for model in models]).cpu()
        masks = torch.stack([largest_gradient_mask(each, self.cutoff) for each in found])
        return gradient_similarity(found.double()), mask_overlap(masks)

    def result(self, findings: Sequence[Finding], stopped: str) -> Discovery:
        """The models with what tells them apart."""
        similarity, overlap = self.likeness([finding.model for finding in findings])
        scores = [finding.score for finding in findings]
        chosen = distinct(scores, similarity, self.tolerance, self.alike)
        return Discovery(tuple(findings), similarity, overlap, chosen, stopped)


def _check_in_memory(data: Any, name: str) -> None:
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor) and rows(data[0]) == len(data[1]):
        return
    raise ArgumentError(
        f"{name} cannot be read: what one model marks is kept for every example",
        expected="(inputs, labels) in memory, as many labels as inputs",
        got=type(data).__name__ + (f" of {len(data)}" if isinstance(data, tuple) else ""),
        mend="annotations are what discovery does without: with them, use rt.recipes.right_for_the_right_reasons",
    )


def _plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _contents(data: tuple[Inputs, Tensor]) -> object:
    return described([*tensors(data[0]), data[1]])
