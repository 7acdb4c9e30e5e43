"""The Split: a tensor that carries, beside its total, the part of it that a region of the input stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rightly.attributions.decomposition.composites import without_override
from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.table import ANYTHING, RULES, TOKEN_RULES, Args, Entry, Kwargs
from rightly.core import autodiff
from rightly.core.intercept import Carrier, Rule, Unsupported, carriers, replaced
from rightly.core.kernels.share import share


class Singular(Unsupported):
    """The model has no value at the reference."""


#: constants beyond this are masks (minus infinity for what must not be attended to), which no part is credited with
HUGE = 1e18


class Part:
    """A relevant part, made when it is asked for: most of what leads to frozen attention weights never is."""

    def __init__(self, value: Any, make: Callable[[], Any] | None = None) -> None:
        self._value, self._make = value, make

    @property
    def waits(self) -> bool:
        """Whether it was not made yet."""
        return self._value is None

    def item(self, number: int) -> Part:
        """Of several, one."""
        return Part(None, lambda: self()[number]) if self.waits else Part(self()[number])

    def __call__(self) -> Any:
        if self._value is None and self._make is not None:
            self._value, self._make = self._make(), None
        if self._value is None:
            raise Unsupported("a part is made of itself")
        return self._value


@dataclass
class Run:
    """One pass of a model over split inputs.

    Attributes:
        convention: the open choices.
        own: (), or (B,) where examples have regions of their own: the fraction of the space that the region is. What
            gets of a constant that meets nothing but zeros.
        unknown: what happens to an operation without a rule.
        graph: whether the parts will be trained through.
        used: how each operation was decomposed, by name: "rule", "body" or "shapley".
        largest: numbers in the largest tensor met.
        watch: look for the operation whose parts are no numbers.
    """

    convention: Convention
    own: Tensor
    unknown: Literal["error", "shapley"] = "error"
    graph: bool = False
    used: dict[str, str] = field(default_factory=dict)
    largest: int = 0
    watch: bool = False

    @property
    def apart(self) -> bool:
        """Whether splits carry their value at the reference."""
        return self.convention.bias == "apart"

    def share(
        self,
        part: Tensor,
        total: Tensor,
        shift: Tensor,
        dims: Sequence[int],
        whole: Tensor | None = None,
        *,
        spent: bool = False,
    ) -> Tensor:
        """``part`` with its share of the constant ``shift``, which ``total`` has in it; a layer is what spans ``dims``.

        ``whole`` is the total without it, where that is known without taking it off. A ``spent`` part may be written
        over. See ``core.kernels``.
        """
        chosen = self.convention.share
        shape = total.shape
        if part.shape != shape:
            part = part.expand(shape)
        if total.is_complex():
            given = (part, total, shift) if whole is None else (part, total, shift, whole)
            one, both, added, *alone = (torch.view_as_real(x.to(total.dtype).expand(shape)) for x in given)
            made = self.share(one, both, added, [dim % total.ndim for dim in dims], *alone)
            return torch.view_as_complex(made.contiguous())
        if chosen == "layer":
            layer = tuple(sorted({dim % total.ndim for dim in dims})) if total.ndim else ()
            own = self.place(total, layer)
            return share(part, total, shift, own, layer or None, self.convention.soft, whole, spent=spent)
        known = torch.full((), 0.5 if chosen == "half" else 0.0, dtype=total.dtype, device=total.device)
        return share(part, total, shift, known, None, self.convention.soft, whole, spent=spent)

    def alone(self, constant: Tensor) -> Tensor:
        """The part of a constant that meets nothing."""
        dims = (-1,) if constant.ndim > 1 else ()
        return self.share(self.nothing(constant), constant, constant, dims, torch.zeros_like(constant))

    def nothing(self, like: Tensor) -> Tensor:
        """The zero of a part, which is a zero for each of the regions."""
        return torch.zeros_like(like) + (self.own.sum() * 0).to(like.dtype)

    def place(self, like: Tensor, dims: tuple[int, ...] = ()) -> Tensor:
        """``own`` so that it meets this tensor example by example, averaged where none is to be seen."""
        own = self.own.to(like.dtype)
        if own.ndim == 0:
            return own
        for dim, size in enumerate(like.shape):
            if size == len(own) and dim not in dims:
                return own.reshape(-1, *(1,) * (like.ndim - dim - 1))
        return own.mean()


class Split(Carrier):
    """Total and relevant part.

    The irrelevant part is their difference and is never stored: that the two add up to the total is no matter of
    rules or of rounding. Regions are not to be seen here: many are the batch of a ``vmap`` over the relevant parts,
    while the total is computed once.

    Attributes:
        total: the plain value. Of token numbers, whose part is the 0/1 choice of tokens.
        relevant: in its shape.
        run: the pass it belongs to.
        weights: whether these are attention weights, straight from a softmax.
        reference: where biases are kept apart, what comes of the reference, and belongs to neither part; None of token
            numbers, which then are nothing.
        under: from a reference, what this is one over: a product with it is a quotient.
    """

    rules: ClassVar[dict[str, Entry]] = RULES
    run: Run
    weights: bool
    reference: Tensor | None
    under: Split | None
    index: Any = None  # where in another one it is, when it was taken out of it

    @staticmethod
    def __new__(
        cls, total: Tensor, part: Tensor | Part, run: Run, weights: bool = False, reference: Tensor | None = None
    ) -> Split:
        return Carrier.__new__(cls, total)  # type: ignore[return-value]

    def __init__(
        self, total: Tensor, part: Tensor | Part, run: Run, weights: bool = False, reference: Tensor | None = None
    ) -> None:
        super().__init__(total)
        if run.graph and not torch.is_grad_enabled():
            raise Unsupported("a part of the model runs without gradients: torch.no_grad(), or a Function of its own")
        self.part = part if isinstance(part, Part) else Part(part)
        self.run, self.weights, self.reference, self.under = run, weights, reference, None
        run.largest = max(run.largest, total.numel())

    @property
    def relevant(self) -> Tensor:
        part: Tensor = self.part()
        return part

    @property
    def start(self) -> Tensor:
        """The reference, where there is one."""
        if self.reference is None:
            raise Unsupported("an operation on what has no value at the reference")
        return self.reference

    def made(self, total: Tensor, part: Tensor | Part, weights: bool = False, reference: Tensor | None = None) -> Split:
        """What an operation makes of this one. Of token numbers that are nothing, it makes zeros."""
        if self.run.apart and reference is None and numeric(total):
            if numeric(self.total):
                raise Unsupported("an operation that does not say what becomes of the reference")
            reference = torch.zeros_like(total)
        return Split(total, part, self.run, weights, reference)

    def viewed(self, other: Split) -> Split:
        """What was made of this one; where PyTorch made it a view, it shares what is done to either in place."""
        if other.total.untyped_storage().data_ptr() == self.total.untyped_storage().data_ptr():
            other.shares(self)
        return other

    def lazily(self, make: Callable[[], Tensor]) -> Part:
        """A part that waits if this one's does."""
        return Part(None, make) if self.part.waits else Part(make())

    @classmethod
    def check_fresh(cls, name: str, args: Args, kwargs: Mapping[str, Any]) -> None:
        """As for every carrier; ``y[i] += x`` changes a view of y and then writes it back where it came from."""
        if name == "setitem" and isinstance(args[2], Split):
            target, index, value = args
            if isinstance(target, Split) and value.index is index and value.memory is target.memory:
                return
        super().check_fresh(name, args, kwargs)

    @classmethod
    def rule_of(cls, name: str, func: Callable[..., Any]) -> Rule:
        """The rule from the table; else a Python function's own body; else the error, or two-player Shapley."""
        return lambda plain, args, kwargs: _dispatch(name, func, plain, args, kwargs)


def _dispatch(name: str, func: Callable[..., Any], plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    split = first(args, kwargs)
    run = split.run
    table = RULES if numeric(split.total) else TOKEN_RULES
    found = table.get(name)
    another_game = found is not None and run.apart and not found.apart and table is RULES
    if another_game or (found is None and table is TOKEN_RULES):
        found = table[ANYTHING]
    entry: Rule | None = found
    how = "rule"
    if entry is None:
        entry, how = without_override(func), "body"
    if entry is None:
        if run.unknown == "error":
            raise Unsupported(f"no rule for {name}")
        entry, how = table[ANYTHING], "shapley"
    run.used[name] = how
    try:
        result = entry(plain, args, kwargs)
    except RecursionError:
        raise Unsupported(f"{name}, whose own body calls it again") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as problem:
        if how == "body" or "autograd.Function" in str(problem) or isinstance(problem, torch.OutOfMemoryError):
            raise
        called(plain, args, kwargs, total_of)  # a mistake of the model's own is told by PyTorch
        raise Unsupported(f"{name}, called in a way that its rule does not know ({problem})") from problem
    if run.watch:
        _watch(name, result)
    return result


def _watch(name: str, result: Any) -> None:
    for made in splits((result,), {}):
        if made.reference is not None and bool((made.total.isfinite() & ~made.reference.isfinite()).any()):
            raise Singular(f"{name}: of the reference it makes what is not a finite number")
        if bool((made.total.isfinite() & ~made.relevant.isfinite()).any()):
            raise Unsupported(f"{name}: a part of its result is not a finite number, although the result is")


def splits(args: Args, kwargs: Kwargs) -> Iterator[Split]:
    """The splits among arguments, also inside lists of tensors."""
    return carriers(args, kwargs)  # type: ignore[return-value]


def first(args: Args, kwargs: Kwargs) -> Split:
    """The first of them."""
    return next(splits(args, kwargs))


def carried(*items: Any) -> bool:
    """Whether any of these is split."""
    return next(splits(items, {}), None) is not None


def called(func: Callable[..., Any], args: Args, kwargs: Kwargs, take: Callable[[Any], Any]) -> Any:
    """``func`` with every split replaced by what ``take`` makes of it."""
    return func(*(replaced(arg, take) for arg in args), **{name: replaced(arg, take) for name, arg in kwargs.items()})


def total_of(split: Any) -> Any:
    """The total of a split, anything else as it is."""
    return split.total if isinstance(split, Split) else split


def reference_of(split: Any) -> Any:
    """What comes of the reference in the place of a split, anything else as it is."""
    return split.start if isinstance(split, Split) else split


def linear(func: Callable[..., Any], args: Args, kwargs: Kwargs, *, weights: bool = False) -> Any:
    """What is linear in all its splits together does to the parts what it does to the totals.

    With ``weights``, what it makes of attention weights are attention weights.
    """
    source = first(args, kwargs)
    parts = {id(split): split.part for split in splits(args, kwargs)}  # as they are now

    def run() -> Any:
        return called(func, args, kwargs, lambda split: parts[id(split)]())

    total = called(func, args, kwargs, total_of)
    check_kinds(splits(args, kwargs), total)
    part = Part(None, run) if any(part.waits for part in parts.values()) else Part(run())
    start = called(func, args, kwargs, reference_of) if source.reference is not None else None
    kept = weights and source.weights
    if isinstance(total, Tensor):
        return source.viewed(source.made(total, part, kept, start))
    starts = [None] * len(total) if start is None else start
    return tuple(
        source.viewed(source.made(each, part.item(number), kept, starts[number])) for number, each in enumerate(total)
    )


def dropout_mask(func: Callable[..., Tensor], like: Tensor, p: float) -> Tensor:
    """The mask that a dropout of ``like`` draws in a plain pass."""
    with autodiff.outside_blocks():
        return func(torch.ones_like(like), p, True)


def affine(
    total: Tensor, source: Split, run: Callable[[Tensor], Tensor], shift: Tensor | None, dims: Sequence[int]
) -> Split:
    """A linear map of ``source`` plus ``shift``: its part goes through the map, and gets its share of the shift.

    ``total`` is the operation's own result: to the last bit, and in its layout, by which dropout draws its mask.
    ``run`` makes a new tensor.
    """
    part = run(source.relevant)
    if source.run.apart:
        start = run(source.start)
        return source.made(total, part, reference=start if shift is None else start + shift)
    if shift is not None:
        part = source.run.share(part, total, shift, dims, spent=True)
    return source.made(total, part)


def joint(func: Callable[..., Tensor], *items: Any, dims: Sequence[int] = (-1,)) -> Split:
    """``func(*items)``, linear in all items together: those that are not split are constants, shared like a bias.

    The shares are those of what is split, over ``dims`` of the result. Of token numbers, of which there is a choice in
    the place of a part, the choice of the others is shared.
    """
    source = first(items, {})
    if all(isinstance(item, Split) for item in items):
        return linear(func, items, {})  # type: ignore[no-any-return]
    total = func(*map(total_of, items))
    check_kinds(splits(items, {}), total)
    parts = {id(split): split.part for split in splits(items, {})}  # as they are now

    def among(take: Callable[[Split], Tensor]) -> Tensor:
        return func(*(take(item) if isinstance(item, Split) else torch.zeros_like(item) for item in items))

    def made() -> Tensor:
        part = among(lambda split: parts[id(split)]())
        if source.run.apart and numeric(total):
            return part
        if numeric(total):
            whole = among(total_of)
            shift = total - whole
            credited = torch.where(shift.abs() < HUGE, shift, torch.zeros_like(shift))
        else:
            whole = among(lambda split: torch.ones_like(split.total, dtype=split.relevant.dtype))
            credited = 1 - whole
        return source.run.share(part, whole + credited, credited, dims, whole)

    start = func(*map(reference_of, items)) if source.reference is not None else None
    part = Part(None, made) if any(part.waits for part in parts.values()) else made()
    return source.made(total, part, reference=start)


def check_kinds(given: Iterator[Split], total: Any) -> None:
    """Raise ``Unsupported`` where numbers are made of token numbers, whose part is a choice."""
    if isinstance(total, Tensor) and numeric(total) and not all(numeric(split.total) for split in given):
        raise Unsupported("token numbers beside numbers; make numbers of them first, with .float()")


def numeric(total: Tensor) -> bool:
    """Whether these are numbers with parts, and no token numbers."""
    return total.is_floating_point() or total.is_complex()


def constant(value: Any, like: Tensor) -> Any:
    """A number as a tensor in the precision of ``like``; tensors as they are."""
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=like.dtype, device=like.device)
