"""Contextual decomposition of any model: what regions of the input contribute to every output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rightly.attributions.base import check_space
from rightly.attributions.decomposition.convention import Convention, Name, convention_of
from rightly.attributions.decomposition.split import Run, Split
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, Model, call, convert, outputs_of, rows
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, DecompositionError, ShapeError
from rightly.core.intercept import Unsupported
from rightly.core.types import Space, View
from rightly.spaces import Input

Unknown = Literal["error", "shapley"]
Progress = Callable[[int, int], None]

#: numbers of the largest tensor, times regions, in one pass: each pass computes the totals again
_NUMBERS_A_PASS = 2**22
#: how much larger the largest tensor is taken to be than the input, before it was met
_GROWTH = 4


@dataclass(frozen=True)
class Decomposition:
    """What regions contribute to the outputs.

    Attributes:
        relevant: (B, R, *O) for outputs (B, *O): the part of each region.
        outputs: (B, *O), the model's own.
        stability: (B, R), where it was asked for: how far the relevant parts move when ``soft`` is doubled, over the
            largest output. Large where rounding errors or conventions, not the model, decide who gets the biases.
        operations: how each operation was decomposed, by name: "rule" from the table, "body" of a Python function,
            "shapley" for an operation without a rule. "random numbers" are among them, as "drawn", where the model
            drew some that no mode turns off: the same ones at every call.
    """

    relevant: Tensor
    outputs: Tensor
    stability: Tensor | None
    operations: dict[str, str]

    @property
    def irrelevant(self) -> Tensor:
        """(B, R, *O), the part of everything else: together they are the outputs."""
        return self.outputs.unsqueeze(1) - self.relevant


def contextual_decomposition(
    model: Model,
    inputs: Inputs,
    regions: Tensor | Callable[[Tensor], Tensor],
    *,
    convention: Name | Convention = "first",
    space: Space | None = None,
    unknown: Unknown = "error",
    chunk_size: int | None = None,
    create_graph: bool = False,
    training: bool = False,
    stability: bool = False,
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
            ``"published"``, as ``"first"``, biases as in the authors' package; or a ``Convention``.
        space: what is split; the (first) input by default.
        unknown: what happens to an operation without a rule: an error, or its two-player Shapley value, which needs
            two more evaluations.
        chunk_size: regions a pass; memory only.
        create_graph: keep the graph to the parameters, and to inputs that require gradients.
        training: read the model in the mode that it is in: one dropout mask for all parts, and batch norm moves its
            statistics once. Otherwise dropout is off and batch norm frozen, and nothing is changed.
        stability: measure it, at the price of a second pass.

    Raises:
        DecompositionError: an operation has no rule, or the decomposition did not reach the output.
        ArgumentError, ShapeError: an argument cannot be used.

    Source: Murdoch et al. (2018) for recurrent nets, Singh et al. (2022), section 2.1, for all others.
    """
    given = regions if callable(regions) else check_regions(regions)

    def parts(coordinates: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        whole = choices(coordinates)
        masks = check_regions(given(coordinates)) if callable(given) else given
        return *spread(masks, coordinates), lambda mask: whole * mask

    return _decomposed(model, inputs, parts, convention, space, unknown, chunk_size, create_graph, training, stability)


def decompose(
    model: Model,
    inputs: Inputs,
    parts: Tensor,
    *,
    convention: Name | Convention = "first",
    space: Space | None = None,
    unknown: Unknown = "error",
    chunk_size: int | None = None,
    create_graph: bool = False,
    training: bool = False,
    stability: bool = False,
) -> Decomposition:
    """``contextual_decomposition`` into parts of the input that are no regions: frequencies, colours, differences.

    Args:
        parts: (R, B, *F), the relevant part of each example in the space, R times. The rest of the input is the
            irrelevant part: of a difference to a baseline, ``mask * (x - baseline)``, the baseline is.

    The other arguments, results and errors are those of ``contextual_decomposition``.
    """

    def given(coordinates: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        if parts.shape[1:] != coordinates.shape or not parts.is_floating_point() or not len(parts):
            raise ShapeError(
                "the parts do not fit the space",
                expected=f"floating point, (R, {', '.join(map(str, coordinates.shape))})",
                got=f"{parts.dtype} {tuple(parts.shape)}",
            )
        size = parts.detach().abs().flatten(2).sum(2)
        rest = (coordinates - parts).detach().abs().flatten(2).sum(2)
        return parts, size / (size + rest).clamp_min(torch.finfo(size.dtype).tiny), lambda part: part

    return _decomposed(model, inputs, given, convention, space, unknown, chunk_size, create_graph, training, stability)


#: coordinates (B, *F) -> blocks (R, ...), own (R,) or (R, B), and how the relevant part is made of a block
Parts = Callable[[Tensor], tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]]


def _decomposed(
    model: Model,
    inputs: Inputs,
    parts: Parts,
    convention: Name | Convention,
    space: Space | None,
    unknown: Unknown,
    chunk_size: int | None,
    create_graph: bool,
    training: bool,
    stability: bool,
) -> Decomposition:
    _check(model, unknown, chunk_size, training, space)
    chosen = convention_of(convention)
    used: dict[str, str] = {}
    with _mode(model, training), nullcontext() if create_graph else torch.no_grad():
        view = open_view(model, inputs, space)
        blocks, own, make = parts(view.coordinates)
        chunk = len(blocks) if training else chunk_size
        index = torch.arange(len(view.coordinates), device=view.coordinates.device)
        once = partial(
            split_outputs, lambda points: view.rest(points, index), view.coordinates, blocks, own, make,
            unknown=unknown, chunk_size=chunk, graph=create_graph, guard=not training, used=used,
        )  # fmt: skip
        relevant, outputs = once(chosen)
        moved = None
        if stability:
            with torch.no_grad():
                again = once(replace(chosen, soft=2 * chosen.soft or 1e-6))[0]
                size = outputs.detach().abs().flatten(1).amax(1).clamp_min(1e-30)
                moved = (again - relevant.detach()).abs().flatten(2).amax(2).T / size[:, None]
    return Decomposition(relevant.transpose(0, 1), outputs, moved, used)


def split_outputs(
    forward: Callable[[Split], Any],
    total: Tensor,
    blocks: Tensor,
    own: Tensor,
    make: Callable[[Tensor], Tensor],
    convention: Convention,
    *,
    unknown: Unknown = "error",
    chunk_size: int | None = None,
    graph: bool = False,
    guard: bool = True,
    progress: Progress | None = None,
    used: dict[str, str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Send ``total`` through ``forward`` with many relevant parts at once.

    Args:
        forward: split input -> what the model returns.
        total: (B, *F).
        blocks: (R, ...), of which ``make`` makes the relevant parts (B, *F).
        own: (R,) or (R, B), how much of the space each is.
        guard: draw the same random numbers in every chunk, and leave the global state as it was.
        progress: called with (regions done, regions in all).
        used: is told how each operation was decomposed.

    Returns:
        Relevant parts (R, B, *O) and outputs (B, *O).
    """
    used = {} if used is None else used
    largest = _GROWTH * total.numel()
    own = own.to(choices(total[:0]))

    def one(block: Tensor, own: Tensor, watch: bool = False) -> tuple[Tensor, Tensor]:
        nonlocal largest
        run = Run(convention, own, unknown, graph, used, watch=watch)
        output = outputs_of(forward(Split(total, make(block), run)))
        if not isinstance(output, Split) or not output.total.is_floating_point():
            raise DecompositionError(
                "the decomposition got lost: the model returned a plain tensor",
                expected="an output that is computed from the input by operations with rules",
                got=f"after {', '.join(run.used) or 'no operation'}",
                mend="let the model return scores, not decisions; look for what leaves PyTorch",
            )
        largest = run.largest
        return output.relevant, output.total

    count, done = len(blocks), 0
    found: list[tuple[Tensor, Tensor]] = []
    with _named_errors():
        while done < count:
            now = slice(done, min(done + (chunk_size or max(1, _NUMBERS_A_PASS // largest)), count))
            with seeding.guarded("decomposition") if guard else nullcontext(lambda: False) as drawn:
                if now.stop - now.start == 1:
                    part, outputs = one(blocks[done], own[done])
                    found.append((part.unsqueeze(0), outputs))
                else:
                    found.append(autodiff.over_parts(one, blocks[now], own[now]))
                if drawn():
                    used["random numbers"] = "drawn"
            lost = _without_number(*found[-1])
            if lost is not None:
                if guard:  # once more, to find out where
                    with seeding.guarded("decomposition"):
                        one(blocks[done + lost], own[done + lost], watch=True)
                raise Unsupported(f"a part is not a finite number, although the output is, after {', '.join(used)}")
            done = now.stop
            if progress:
                progress(done, count)
    relevant = [part for part, _ in found]
    return relevant[0] if len(relevant) == 1 else torch.cat(relevant), found[0][1]


def _without_number(relevant: Tensor, outputs: Tensor) -> int | None:
    """The first region whose part is not finite where the output is."""
    good = relevant.isfinite()
    if bool(good.all()):
        return None
    missing = (outputs.isfinite() & ~good).flatten(1).any(1)
    return int(missing.nonzero()[0]) if bool(missing.any()) else None


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except Unsupported as reason:
        raise DecompositionError(
            "the model cannot be decomposed",
            expected="operations with a rule",
            got=str(reason),
            mend="enter a rule with rightly.attributions.decomposition.rule(name, formula=..., source=...), or pass "
            "unknown='shapley' to give operations without one their two-player Shapley value",
        ) from reason
    except RuntimeError as reason:
        if "autograd.Function" not in str(reason):
            raise
        raise DecompositionError(
            "the model cannot be decomposed",
            expected="operations with a rule",
            got="an autograd.Function of the model's own, of which only its inside can be seen",
            mend="write that part with torch's functions; chunk_size=1 decomposes its inside, without a gradient",
        ) from reason


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


def choices(coordinates: Tensor) -> Tensor:
    """What regions choose from: coordinates; of token numbers, each token once, in double precision where there is."""
    if coordinates.is_floating_point():
        return coordinates
    return torch.ones_like(coordinates, dtype=torch.float32 if coordinates.device.type == "mps" else torch.float64)


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
    own = found.flatten(2).double().mean(2)
    return found.expand(len(found), *wanted[1:]), own if each else own[:, 0]
