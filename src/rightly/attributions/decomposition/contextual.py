"""Contextual decomposition of any model: what regions of the input contribute to every output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from rightly.attributions.base import check_reference, check_space
from rightly.attributions.decomposition.convention import Convention, Name, convention_of, usual
from rightly.attributions.decomposition.passes import Unknown, choices, split_outputs
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, Model, call, convert, outputs_of, rows
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.types import Reference, Space, View
from rightly.references import Constant
from rightly.spaces import Input


@dataclass(frozen=True)
class Decomposition:
    """What regions contribute to the outputs.

    Attributes:
        relevant: (B, R, *O) for outputs (B, *O): the part of each region.
        outputs: (B, *O), the model's own.
        reference: (B, *O), where biases are kept apart: the outputs at the reference, which belong to no part. Choices
            that the model makes on its way (``where``, statistics of a batch) are those of the example there too.
        stability: (B, R), where it was asked for: how far the relevant parts move when ``soft`` is doubled, over the
            largest output. Large where rounding errors or conventions, not the model, decide who gets the biases.
        operations: how each operation was decomposed, by name: "rule" from the table, "body" of a Python function,
            "shapley" for an operation without a rule. "random numbers" are among them, as "drawn", where the model
            drew some that no mode turns off: the same ones at every call.
    """

    relevant: Tensor
    outputs: Tensor
    reference: Tensor | None
    stability: Tensor | None
    operations: dict[str, str]

    @property
    def irrelevant(self) -> Tensor:
        """(B, R, *O), the part of everything else: together they are the outputs, less those at a reference."""
        both = self.outputs if self.reference is None else self.outputs - self.reference
        return both.unsqueeze(1) - self.relevant


def contextual_decomposition(
    model: Model,
    inputs: Inputs,
    regions: Tensor | Callable[[Tensor], Tensor],
    *,
    convention: Name | Convention | None = None,
    reference: Reference | None = None,
    space: Space | None = None,
    unknown: Unknown = "error",
    chunk_size: int | None = None,
    create_graph: bool = False,
    training: bool = False,
    stability: bool = False,
    generator: torch.Generator | None = None,
) -> Decomposition:
    """Split every output into what regions of the input contribute and what everything else does.

    The model is called unchanged, once for all regions (once a chunk); the inputs it sees carry, beside their total,
    each region's part, and every function it calls meets a rule for the two. An empty region gets nothing, a full
    one everything.

    Args:
        model: a module or a callable.
        inputs: a tensor (B, ...), or a tuple or dict of such tensors. Token numbers (B, T) can be split as they are:
            a region is a choice of tokens.
        regions: bool, (R, *F) for all examples or (B, R, *F) for each its own, where an example of the space has the
            shape (*F). Dimensions of size 1 stand for all of theirs: (R, 1, H, W) for all channels. Or a function that
            makes them of the coordinates (B, *F).
        convention: who gets what two parts do together: ``"first"``, as published; ``"shapley"``, averaged;
            ``"published"``, as ``"first"``, biases as in the authors' package; ``"reference"``, averaged, and what the
            model makes of a reference is nobody's (of these the nearest to Shapley values in our checks); or a
            ``Convention``. By default ``"first"``, and ``"reference"`` where one is given.
        reference: that of ``convention="reference"``, one an example; zero by default. Of token numbers it always is
            nothing, which has a vector of zeros. It should be a point where the model is tame: a norm that is written
            out may divide by next to nothing where everything is zero, and make parts as large of everything.
        space: what is split; the (first) input by default.
        unknown: what happens to an operation without a rule: an error, or its two-player Shapley value, which needs
            two more evaluations.
        chunk_size: regions a pass; memory only.
        create_graph: keep the graph to the parameters, and to inputs that require gradients.
        training: read the model in the mode that it is in: one dropout mask for all parts, and batch norm moves its
            statistics once. Otherwise dropout is off and batch norm frozen, and nothing is changed.
        stability: measure it, at the price of a second pass; not with biases apart, where there is nothing to it.
        generator: of the reference's draws; by default they are the same at every call.

    Raises:
        DecompositionError: an operation has no rule, or the decomposition did not reach the output.
        ArgumentError, ShapeError: an argument cannot be used.

    Source: Murdoch et al. (2018) for recurrent nets, Singh et al. (2022), section 2.1, for all others.
    """
    given = regions if callable(regions) else check_regions(regions)

    def parts(coordinates: Tensor, start: Tensor | None) -> Parts:
        whole = choices(coordinates) if start is None else coordinates - start
        masks = check_regions(given(coordinates)) if callable(given) else given
        return *spread(masks, coordinates), lambda mask: whole * mask

    return _decomposed(
        *(model, inputs, parts, convention, reference, space, unknown, chunk_size, create_graph, training, stability),
        generator,
    )


def decompose(
    model: Model,
    inputs: Inputs,
    parts: Tensor,
    *,
    convention: Name | Convention | None = None,
    reference: Reference | None = None,
    space: Space | None = None,
    unknown: Unknown = "error",
    chunk_size: int | None = None,
    create_graph: bool = False,
    training: bool = False,
    stability: bool = False,
    generator: torch.Generator | None = None,
) -> Decomposition:
    """``contextual_decomposition`` into parts of the input that are no regions: frequencies, colours, differences.

    Args:
        parts: (R, B, *F), the relevant part of each example in the space, R times. The rest of the input is the
            irrelevant part: of a difference to a baseline, ``mask * (x - baseline)``, the baseline is.

    The other arguments, results and errors are those of ``contextual_decomposition``.
    """

    def given(coordinates: Tensor, start: Tensor | None) -> Parts:
        if parts.shape[1:] != coordinates.shape or not parts.is_floating_point() or not len(parts):
            raise ShapeError(
                "the parts do not fit the space",
                expected=f"floating point, (R, {', '.join(map(str, coordinates.shape))})",
                got=f"{parts.dtype} {tuple(parts.shape)}",
            )
        size = parts.detach().abs().flatten(2).sum(2)
        rest = (coordinates - parts).detach().abs().flatten(2).sum(2)
        return parts, size / (size + rest).clamp_min(torch.finfo(size.dtype).tiny), lambda part: part

    return _decomposed(
        *(model, inputs, given, convention, reference, space, unknown, chunk_size, create_graph, training, stability),
        generator,
    )


#: blocks (R, ...), own (R,) or (R, B), and how the relevant part is made of a block
Parts = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]


def _decomposed(
    model: Model,
    inputs: Inputs,
    parts: Callable[[Tensor, Tensor | None], Parts],
    convention: Name | Convention | None,
    reference: Reference | None,
    space: Space | None,
    unknown: Unknown,
    chunk_size: int | None,
    create_graph: bool,
    training: bool,
    stability: bool,
    generator: torch.Generator | None,
) -> Decomposition:
    _check(model, unknown, chunk_size, training, space)
    chosen = chosen_for(convention, reference)
    if stability and chosen.bias == "apart":
        raise ArgumentError(
            "with biases apart nothing is shared out, whose stability could be measured",
            expected="stability=False, or another convention",
            got="stability=True with convention='reference'",
        )
    used: dict[str, str] = {}
    with _mode(model, training), nullcontext() if create_graph else torch.no_grad():
        view = open_view(model, inputs, space)
        draws = generator or seeding.generator("decomposition", "reference")
        start = start_of(view, chosen, reference, draws)
        blocks, own, make = parts(view.coordinates, start)
        chunk = len(blocks) if training else chunk_size
        index = torch.arange(len(view.coordinates), device=view.coordinates.device)
        once = partial(
            split_outputs, lambda points: view.rest(points, index), view.coordinates, blocks, own, make,
            reference=start, unknown=unknown, chunk_size=chunk, graph=create_graph, guard=not training, used=used,
        )  # fmt: skip
        found = once(chosen)
        moved = None
        if stability:
            with torch.no_grad():
                again = once(replace(chosen, soft=2 * chosen.soft or 1e-6)).relevant
                size = found.total.detach().abs().flatten(1).amax(1).clamp_min(1e-30)
                moved = (again - found.relevant.detach()).abs().flatten(2).amax(2).T / size[:, None]
    return Decomposition(found.relevant.transpose(0, 1), found.total, found.reference, moved, used)


def start_of(
    view: View, convention: Convention, reference: Reference | None, generator: torch.Generator
) -> Tensor | None:
    """The reference (B, *F), where biases are kept apart; None where they are not, and of token numbers.

    Raises:
        ArgumentError: token numbers have none.
    """
    x = view.coordinates
    if reference is not None and not x.is_floating_point():
        raise ArgumentError(
            "token numbers have no other reference than nothing",
            expected="no reference=, or the space of their vectors",
            got=x.dtype,
            mend="space=rt.spaces.Layer(name of the embedding)",
        )
    if convention.bias != "apart" or not x.is_floating_point():
        return None
    rows = torch.arange(len(x), device=x.device)
    return (reference or Constant(0.0)).draw(view, 1, generator).gather(rows, torch.zeros_like(rows))


def chosen_for(convention: Name | Convention | None, reference: Reference | None) -> Convention:
    """The convention that is asked for. Raises ``ArgumentError`` for a reference that nothing is compared to."""
    chosen = convention_of(usual(reference) if convention is None else convention)
    if reference is not None and check_reference(reference) and chosen.bias != "apart":
        raise ArgumentError(
            "a reference that nothing is compared to",
            expected="reference= with convention='reference'",
            got=repr(convention),
            mend="leave out convention=",
        )
    return chosen


@contextmanager
def _mode(model: Model, training: bool) -> Iterator[None]:
    if training:
        with torch.enable_grad():
            yield
    else:
        with autodiff.reading(model, trainable=False):
            yield


def open_view(model: Model, inputs: Inputs, space: Space | None) -> View:
    """The model seen from the space, by default that of its (first) input; token numbers are seen as they are."""
    given = convert(inputs, autodiff.recordable)
    rows(given)
    if space is not None:
        return space.open(model, given)
    named = {0: given} if isinstance(given, Tensor) else given if isinstance(given, Mapping) else dict(enumerate(given))
    name, chosen = next(iter(named.items()))
    if chosen.is_floating_point():
        return Input(name).open(model, given)

    def rest(points: Tensor, index: Tensor) -> Tensor:
        changed = {**named, name: points}
        return outputs_of(call(model, changed if isinstance(given, Mapping) else tuple(changed.values())))

    return View(given, chosen, lambda inputs: chosen, rest)


def _check(model: object, unknown: str, chunk_size: int | None, training: bool, space: Space | None) -> None:
    if not callable(model):
        raise ArgumentError("the model is called", expected="a module, or a callable", got=type(model).__name__)
    if unknown not in ("error", "shapley"):
        raise ArgumentError("unknown policy for operations", expected="'error' or 'shapley'", got=repr(unknown))
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    if space is not None:
        check_space(space)
    if training and (chunk_size is not None or space is not None):
        raise ArgumentError(
            "in training mode the model is read once",
            expected="no chunk_size= and no space=",
            got="training=True with " + ("chunk_size=" if chunk_size is not None else "space="),
            mend="fewer regions at once, or training=False",
        )


def check_regions(regions: object) -> Tensor:
    """Raise ``ArgumentError`` unless they are bool, with features."""
    if isinstance(regions, Tensor) and regions.dtype == torch.bool and regions.ndim > 1:
        return regions
    got = f"{regions.dtype} {tuple(regions.shape)}" if isinstance(regions, Tensor) else type(regions).__name__
    raise ArgumentError(
        "regions choose features", expected="a bool tensor (R, *F) or (B, R, *F)", got=got, mend="regions.bool()"
    )


def spread(regions: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Regions as (R, 1 or B, *F), without taking memory for what is repeated, and how much each is: (R,) or (R, B)."""
    shape = coordinates.shape
    each = regions.ndim > coordinates.ndim
    found = regions.transpose(0, 1) if each else regions.unsqueeze(1)
    wanted = (len(found), len(coordinates) if each else 1, *shape[1:])
    fits = found.ndim == len(wanted) and all(
        own in (1, size) for own, size in zip(found.shape[1:], wanted[1:], strict=True)
    )
    if not fits or not len(found):
        raise ShapeError(
            "the regions do not fit the space",
            expected=f"(R, {', '.join(map(str, shape[1:]))}), or with the {shape[0]} examples first; 1 stands for all",
            got=tuple(regions.shape),
        )
    found = found.to(coordinates.device)
    own = found.flatten(2).sum(2).double() / math.prod(found.shape[2:])
    return found.expand(len(found), *wanted[1:]), own if each else own[:, 0]
