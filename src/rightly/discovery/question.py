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
from rightly.core.batch import Inputs, call, device_of, outputs_of, placed, rows, take, tensors
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError, CheckpointError
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.discovery.explanations import check_cutoff, gradient_similarity, largest_gradient_mask, mask_overlap
from rightly.discovery.result import Discovery, Finding, distinct
from rightly.discovery.scores import better_than_constant, check_scorable, default_score, meaning
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
            check_scorable(self._outputs(model, take(inputs, few), labels), labels)

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
        """(M, *F), of the training examples ``index`` (M,); where the labels are, as what outputs are held against."""
        inputs, labels = self.train
        found = [
            self.explain(
                model,
                placed(take(inputs, part), device_of(model)),
                class_numbers(placed(labels[part.to(labels.device)], device_of(model))),
                diagnostics=False,
            ).attributions.to(labels.device)
            for part in index.split(_PIECE)
        ]
        return torch.cat(found)

    def mask(self, model: nn.Module) -> Tensor:
        """(N, *F): the largest gradients of every training example."""
        every = torch.arange(rows(self.train[0])).split(_PIECE)
        return torch.cat([largest_gradient_mask(self.gradients(model, p), self.cutoff) for p in every])

    def scores(self, model: nn.Module) -> dict[str, Any]:
        """What a ``Finding`` says of how good a model is."""
        trained = self._outputs(model, *self.train)
        held = None if self.validation is None else self._outputs(model, *self.validation)
        score = self.score or default_score
        outputs, labels = (trained, self.train[1]) if held is None else (held, self.validation[1])
        return {
            "train": float(score(trained, self.train[1])),
            "validation": None if held is None else float(score(held, self.validation[1])),
            "better": None if self.score else better_than_constant(outputs, labels, self.train[1].to(labels.device)),
        }

    @staticmethod
    def _outputs(model: nn.Module, inputs: Inputs, labels: Tensor) -> Tensor:
        """The model's outputs, where the labels are."""
        parts = torch.arange(rows(inputs)).split(_PIECE)
        device = device_of(model)
        with autodiff.reading(model, trainable=False), torch.no_grad():
            found = [outputs_of(call(model, placed(take(inputs, part), device))) for part in parts]
            return torch.cat(found).to(labels.device)

    def likeness(self, models: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
        """(M, M) twice: how similar gradients are, and how much masks overlap, on some training examples."""
        found = torch.stack([self.gradients(model, self.compared) for model in models]).cpu()
        masks = torch.stack([largest_gradient_mask(each, self.cutoff) for each in found])
        return gradient_similarity(found.double()), mask_overlap(masks)

    def result(self, findings: Sequence[Finding], stopped: str) -> Discovery:
        """The models with what tells them apart."""
        similarity, overlap = self.likeness([finding.model for finding in findings])
        chosen = distinct(findings, similarity, self.tolerance, self.alike)
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
