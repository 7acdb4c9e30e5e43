"""A penalty on what contextual decomposition credits regions with: CDEP, on pixels, words, or parts of the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from rightly.attributions.base import check_space
from rightly.attributions.decomposition import Convention, contextual_decomposition
from rightly.attributions.decomposition.contextual import check_regions, chosen_for
from rightly.attributions.decomposition.convention import Name, usual
from rightly.attributions.decomposition.passes import Unknown, choices
from rightly.core import seeding
from rightly.core.annotation import Annotation, needed
from rightly.core.checks import check_count
from rightly.core.errors import AnnotationError, ArgumentError, ShapeError
from rightly.core.scalar import Target, check_target, resolve_target, single
from rightly.core.types import Reference, Space
from rightly.objectives.engines import class_numbers
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors import GroupContribution
from rightly.priors.base import Level
from rightly.priors.contribution import GroupLoss


@dataclass(frozen=True, eq=False)
class RandomRegions:
    """Regions that are drawn anew for every example at every step (which ``objective.compile()`` cannot compile).

    Args:
        count: regions an example; none of them in the same place.
        size: side of a region along each of the dimensions that it lies in.
        dims: how many trailing dimensions of the space those are: 2 for squares of an image, through all its channels;
            None for all of them.
        weights: (*places) how likely each place is, in any scale; even by default. A place is a region's first corner,
            so that there are length - size + 1 of them along each dimension: with ``size=1`` one a pixel.
    """

    count: int = 1
    size: int = 1
    dims: int | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        check_count("count", self.count)
        check_count("size", self.size)
        if self.dims is not None:
            check_count("dims", self.dims)
        weights = self.weights
        if weights is not None:
            usable = isinstance(weights, Tensor) and weights.is_floating_point()
            if not usable or not bool(((weights >= 0) & weights.isfinite()).all()):
                raise ArgumentError(
                    "unusable weights of places", expected="a floating tensor, >= 0, finite", got=repr(weights)
                )
            if int((weights > 0).sum()) < self.count:
                raise ArgumentError(
                    "too few places can be drawn",
                    expected=f"at least {self.count} with a weight above zero",
                    got=int((weights > 0).sum()),
                )

    def draw(self, coordinates: Tensor, generator: torch.Generator) -> Tensor:
        """Regions (B, R, *F) of coordinates (B, *F), bool; leading dimensions that a region goes through have size 1.

        Raises:
            ShapeError: the space has fewer dimensions, no room for the regions, or other places than the weights.
        """
        shape = coordinates.shape[1:]
        dims = len(shape) if self.dims is None else self.dims
        grid = tuple(shape[len(shape) - dims :])
        places = tuple(length - self.size + 1 for length in grid)
        if dims > len(shape) or min(places) < 1:
            raise ShapeError("the regions do not fit the space", expected=f"{dims} sides of {self.size}", got=shape)
        weights = torch.ones(places) if self.weights is None else self.weights.cpu()
        if weights.shape != places or weights.numel() < self.count:
            raise ShapeError(
                "the weights do not fit the places" if weights.shape != places else "there are too few places",
                expected=places if weights.shape != places else f"at least {self.count}",
                got=tuple(weights.shape),
            )
        drawn = weights.flatten().expand(len(coordinates), -1).multinomial(self.count, generator=generator)
        region = torch.ones(len(coordinates), self.count, *(1,) * len(shape), dtype=torch.bool)
        for dim, start in enumerate(torch.unravel_index(drawn, places)):
            along = torch.arange(grid[dim])
            first = start[..., None]
            inside = (along >= first) & (along < first + self.size)
            before, behind = len(shape) - dims + dim, dims - dim - 1
            region = region & inside.reshape(*drawn.shape, *(1,) * before, -1, *(1,) * behind)
        return region.to(coordinates.device)


Regions = Tensor | Literal["irrelevant", "regions"] | RandomRegions


@dataclass(frozen=True, eq=False)
class ContributionTerm(ModelTerm):
    """``weight * rt.priors.GroupContribution`` of what contextual decomposition gives to regions of the input.

    One pass of the parts with dropout off and batch norm frozen, like attributions, and one backward pass: no gradient
    of the input is taken, and none is differentiated again.

    Args:
        regions: bool (R, *F), the same for all examples, where 1 stands for all of a dimension; ``"irrelevant"``, what
            the annotation marks so, one region an example; ``"regions"``, the annotation's (B, R, *F); or
            ``RandomRegions``, drawn anew at every step. Empty regions count zero, and so does an example of which the
            annotation says nothing.
        loss, target: see ``rt.priors.GroupContribution``. Annotated targets are (B, R), or (B, classes, R).
        classes: ``"all"`` outputs, or one of each example: ``"label"``, ``"predicted"``, a number or a tensor (B,).
        interactions: penalise what two regions do together, part(A and B) - part(A) - part(B), for every two regions
            in the order of ``itertools.combinations``, instead of the regions themselves. They should not overlap.
        space: what the regions are of; the (first) input by default, where token numbers may be chosen as they are.
            With ``rt.spaces.Parts(rt.spaces.grey_and_colour)``, the region ``torch.tensor([[False, True]])`` is colour.
        convention, reference, unknown: see ``rt.contextual_decomposition``. With ``"first"``, as published, all that a
            region does together with the rest is the rest's, where the penalty does not see it; ``"shapley"`` and
            ``"reference"`` share it.
        weight, name, schedule: as in ``rt.Term``.

    Source: Rieger et al. (2020); Singh et al. (2022), section 3.1, eq. 9 and 10.
    """

    regions: Regions
    loss: GroupLoss = "softmax"
    target: float | Literal["annotation"] = 0.0
    classes: Literal["all"] | Target = "all"
    interactions: bool = False
    space: Space | None = None
    convention: Name | Convention | None = None
    reference: Reference | None = None
    unknown: Unknown = "error"
    weight: Weight = 1.0
    name: str = "contribution"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if isinstance(self.regions, str):
            if self.regions not in ("irrelevant", "regions"):
                raise ArgumentError("unknown regions", expected="'irrelevant' or 'regions'", got=repr(self.regions))
        elif not isinstance(self.regions, RandomRegions):
            check_regions(self.regions)
        GroupContribution(self.loss, target=self.target)
        if not (isinstance(self.classes, str) and self.classes == "all"):
            check_target(self.classes)
        if self.space is not None:
            check_space(self.space)
        chosen_for(self.convention, self.reference)
        check_weight(self.weight)

    @property
    def level(self) -> Level:
        """A number an example."""
        return "example"

    @property
    def about(self) -> str:
        """In words."""
        what = "interactions" if self.interactions else "contributions"
        convention = f"{self.convention or usual(self.reference)} convention"
        if self.reference is not None:
            convention += f" from {type(self.reference).__name__}"
        return f"{self.loss} of {what} of {_told(self.regions)} to {self.classes}, {convention}"

    @property
    def gives_outputs(self) -> bool:
        """The parts are carried by a plain pass."""
        return True

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The penalty of each example (B,), before the weight: see ``with_outputs``."""
        return self.with_outputs(model, batch)[0]

    def with_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The penalty of each example (B,), before the weight, and the outputs that it is of.

        None in their place where the model draws random numbers by itself: the pass draws the same at every step.

        Raises:
            DecompositionError: an operation of the model has no rule.
            AnnotationError: the annotation does not have the regions or targets, or they do not fit.
            ArgumentError, ShapeError: regions that do not fit the space, or labels that name no class.
        """
        chosen: list[Tensor] = []

        def regions(coordinates: Tensor) -> Tensor:
            masks = self._regions(choices(coordinates), batch)
            if masks.ndim not in (coordinates.ndim, coordinates.ndim + 1):
                raise ShapeError(
                    "the regions do not fit the space",
                    expected=f"(R, *F) or (B, R, *F), F = {tuple(coordinates.shape[1:])}",
                    got=tuple(masks.shape),
                )
            # (R,) or (B, R): of what is empty nothing is asked
            there = masks.flatten(1 - coordinates.ndim).any(-1)
            if self.interactions:
                first, second = _pairs(masks, coordinates.ndim)
                masks = torch.cat([masks, first | second], -coordinates.ndim)
            chosen.append(there.unsqueeze(-2))
            return masks

        found = contextual_decomposition(
            model,
            batch.inputs,
            regions,
            convention=self.convention,
            reference=self.reference,
            space=self.space,
            unknown=self.unknown,
            create_graph=torch.is_grad_enabled(),
            generator=batch.generator if self.reference is not None else None,
        )
        both = found.outputs if found.reference is None else found.outputs - found.reference
        outputs, relevant = self._explained(both, found.relevant, found.outputs, class_numbers(batch.labels))
        wide = torch.promote_types(outputs.dtype, torch.float32)
        outputs, relevant = outputs.to(wide), relevant.to(wide)
        there = chosen[0].to(relevant.device)
        if self.interactions:
            count = there.shape[-1]
            first, second = _pairs(relevant[..., :count], 1)
            relevant = relevant[..., count:] - first - second
            there = torch.logical_and(*_pairs(there, 1))
        parts = torch.stack([relevant, outputs - relevant], -1)
        prior = GroupContribution(self.loss, target=self.target)
        own = None if "random numbers" in found.operations else found.outputs
        return prior.penalty(parts, batch.annotation, None, there), own

    def _regions(self, whole: Tensor, batch: Batch) -> Tensor:
        """Bool (R, *F) or (B, R, *F) of a space (B, *F)."""
        if isinstance(self.regions, Tensor):
            return self.regions.to(whole.device)
        if isinstance(self.regions, RandomRegions):
            return self.regions.draw(whole, batch.generator or seeding.generator("regions"))
        if self.regions == "irrelevant":
            return (needed(batch.annotation, "irrelevant", whole)[0] > 0).unsqueeze(1)
        given = (batch.annotation or Annotation()).given().get("regions")
        if given is not None and given.ndim != whole.ndim + 1:
            raise AnnotationError(
                "annotation.regions do not fit the space",
                expected=f"(B, R, {', '.join(map(str, whole.shape[1:]))}), where 1 stands for all",
                got=tuple(given.shape),
            )
        count = 1 if given is None else given.shape[1]
        return needed(batch.annotation, "regions", whole.unsqueeze(1).expand(-1, count, *whole.shape[1:]))[0] > 0

    def _explained(
        self, both: Tensor, relevant: Tensor, outputs: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of all parts together (B, *O) and of regions (B, R, *O) what is penalised, (B, C, 1) and (B, C, R)."""
        batch, count = relevant.shape[:2]
        flat, parts = both.reshape(batch, -1, 1), relevant.reshape(batch, count, -1).transpose(1, 2)
        if (isinstance(self.classes, str) and self.classes == "all") or single(outputs):
            return flat, parts
        if outputs.ndim != 2:
            raise ShapeError("one class of scores is wanted", expected="(B, classes)", got=tuple(outputs.shape))
        if isinstance(self.classes, str) and self.classes == "predicted":
            target = outputs.argmax(1)
        else:
            target = resolve_target(self.classes, labels, *outputs.shape).to(outputs.device)
        rows = torch.arange(batch, device=outputs.device)
        return flat[rows, target][:, None], parts[rows, target][:, None]


def _told(regions: Regions) -> str:
    if isinstance(regions, RandomRegions):
        return f"{regions.count} random regions of {regions.size}"
    return f"regions {tuple(regions.shape)}" if isinstance(regions, Tensor) else f"the annotation's {regions}"


def _pairs(regions: Tensor, behind: int) -> tuple[Tensor, Tensor]:
    """Every two of R regions: (..., R, *F) -> twice (..., R (R - 1) / 2, *F); R is dimension ``-behind``."""
    count = regions.shape[-behind]
    if count < 2:
        raise ShapeError("interactions are between regions", expected="at least two regions", got=count)
    first, second = torch.tensor(list(combinations(range(count), 2)), device=regions.device).T
    return regions.index_select(-behind, first), regions.index_select(-behind, second)
