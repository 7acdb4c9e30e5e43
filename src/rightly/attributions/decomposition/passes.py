"""Passes of a model over split inputs: many regions at once, as many as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.split import Run, Singular, Split
from rightly.core import autodiff, seeding
from rightly.core.batch import outputs_of
from rightly.core.errors import DecompositionError
from rightly.core.intercept import Unsupported

Unknown = Literal["error", "shapley"]
Progress = Callable[[int, int], None]

#: numbers of the largest tensor, times regions, in one pass: each pass computes the totals again
_NUMBERS_A_PASS = 2**22
#: how much larger the largest tensor is taken to be than the input, before it was met
_GROWTH = 4


class Outputs(NamedTuple):
    """What passes give.

    Attributes:
        relevant: (R, B, *O).
        total: (B, *O), the plain outputs.
        reference: (B, *O), where biases are kept apart: those of the reference.
    """

    relevant: Tensor
    total: Tensor
    reference: Tensor | None


def choices(coordinates: Tensor) -> Tensor:
    """What regions choose from: coordinates; of token numbers, each token once, in double precision where there is."""
    if coordinates.is_floating_point():
        return coordinates
    return torch.ones_like(coordinates, dtype=torch.float32 if coordinates.device.type == "mps" else torch.float64)


def split_outputs(
    forward: Callable[[Split], Any],
    total: Tensor,
    blocks: Tensor,
    own: Tensor,
    make: Callable[[Tensor], Tensor],
    convention: Convention,
    reference: Tensor | None = None,
    *,
    unknown: Unknown = "error",
    chunk_size: int | None = None,
    graph: bool = False,
    guard: bool = True,
    progress: Progress | None = None,
    used: dict[str, str] | None = None,
) -> Outputs:
    """Send ``total`` through ``forward`` with many relevant parts at once.

    Args:
        forward: split input -> what the model returns.
        total: (B, *F).
        blocks: (R, ...), of which ``make`` makes the relevant parts (B, *F).
        own: (R,) or (R, B), how much of the space each is.
        reference: (B, *F), where biases are kept apart, of all but token numbers.
        guard: draw the same random numbers in every chunk, and leave the global state as it was.
        progress: called with (regions done, regions in all).
        used: is told how each operation was decomposed.
    """
    used = {} if used is None else used
    largest = _GROWTH * total.numel()
    own = own.to(choices(total[:0]))

    def one(block: Tensor, own: Tensor, watch: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        nonlocal largest
        run = Run(convention, own, unknown, graph, used, watch=watch)
        output = outputs_of(forward(Split(total, make(block), run, reference=reference)))
        if not isinstance(output, Split) or not output.total.is_floating_point():
            raise DecompositionError(
                "the decomposition got lost: the model returned a plain tensor",
                expected="an output that is computed from the input by operations with rules",
                got=f"after {', '.join(run.used) or 'no operation'}",
                mend="let the model return scores, not decisions; look for what leaves PyTorch",
            )
        output.check_fresh("the model's end", (output,), {})
        largest = run.largest
        return output.relevant, (output.total,) if output.reference is None else (output.total, output.reference)

    count, done = len(blocks), 0
    found: list[tuple[Tensor, tuple[Tensor, ...]]] = []
    with _named_errors():
        while done < count:
            now = slice(done, min(done + (chunk_size or max(1, _NUMBERS_A_PASS // largest)), count))
            with seeding.guarded("decomposition") if guard else nullcontext(lambda: False) as drawn:
                if now.stop - now.start == 1:
                    part, plain = one(blocks[done], own[done])
                    found.append((part.unsqueeze(0), plain))
                else:
                    found.append(autodiff.over_parts(one, blocks[now], own[now]))
                if drawn():
                    used["random numbers"] = "drawn"
            part, (outputs, *start) = found[-1]
            lost = _without_number(part, outputs)
            if lost is not None:
                if guard:  # once more, to find out where
                    with seeding.guarded("decomposition"):
                        one(blocks[done + lost], own[done + lost], watch=True)
                if start and not bool(start[0].isfinite()[outputs.isfinite()].all()):
                    raise Singular("what it makes of the reference is not a finite number")
                raise Unsupported(f"a part is not a finite number, although the output is, after {', '.join(used)}")
            done = now.stop
            if progress:
                progress(done, count)
    relevant = [part for part, _ in found]
    outputs, *rest = found[0][1]
    return Outputs(relevant[0] if len(relevant) == 1 else torch.cat(relevant), outputs, rest[0] if rest else None)


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
    except Singular as reason:
        raise DecompositionError(
            "the model cannot be decomposed from this reference",
            expected="a finite output at the reference",
            got=str(reason),
            mend="choose another reference, as rt.references.Sample(data) or Constant(value)",
        ) from reason
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
