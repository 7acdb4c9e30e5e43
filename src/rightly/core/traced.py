"""A function written down as a graph of plain tensor operations, its own derivatives among them.

A graph does the same at every call. What may differ between calls is kept out of it: random draws go in as tensors, and
every question that Python asks of a tensor is answered as it was, with a sign in the results that says whether that is
still right. What cannot be kept out is ``Untraceable``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode

#: how to draw a tensor from the generators of a call
Drawing = Callable[[Sequence[torch.Generator]], Tensor]

#: ways to take numbers out of a tensor, which a graph would keep as they were when it was written down
_NUMBERS = ("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__index__", "__complex__")
_aten = torch.ops.aten


class Untraceable(Exception):
    """Why a function cannot be a graph."""


class noting(TorchFunctionMode):
    """Notes every draw that is made inside from the given generators, in ``draws``."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.generators = generators
        self.draws: list[Drawing] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not None:
            self.draws.append(self._drawing(func, args, dict(kwargs)))
        return func(*args, **kwargs)

    def _drawing(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Drawing:
        own = kwargs.pop("generator")
        if any(isinstance(arg, Tensor) for arg in (*args, *kwargs.values())):
            raise Untraceable(f"{func.__name__} draws what depends on a tensor")
        for number, generator in enumerate(self.generators):
            if generator is own:
                return lambda generators: func(*args, **kwargs, generator=generators[number])
        raise Untraceable("a random draw comes from a generator of its own")


class _Playing(TorchFunctionMode):
    """Gives draws that were made before, and notes what was asked of tensors.

    Attributes:
        same: for every answer that was given, whether it is the right one.
    """

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self.drawn = iter(drawn)
        self.same: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            return next(self.drawn)
        if func.__name__ in _NUMBERS:
            raise Untraceable(f"a number is taken out of a tensor ({func.__name__})")
        if func.__name__ != "__bool__":
            return func(*args, **kwargs)
        with disable_proxy_modes_tracing():
            answer = bool(args[0])
        self.same.append((args[0].reshape(()) != 0) == answer)
        return answer


def traced(
    function: Callable[[], Sequence[Tensor]], given: Sequence[Tensor], drawn: Sequence[Tensor]
) -> tuple[GraphModule, list[Drawing]]:
    """The graph of a function.

    Args:
        function: reads the tensors ``given``, which may require gradients; any other tensor is taken for a constant.
        given: all that changes from call to call.
        drawn: in place of the draws that ``noting`` notes.

    Returns:
        The graph, (*given, *drawn, *masks) -> [whether the answers that were given are right, *results]; and how to
        draw the masks of dropout, from the global generator.

    Raises:
        Untraceable: it would be wrong at another call.
    """

    def whole(*arguments: Tensor) -> list[Tensor]:
        with _Playing(drawn) as playing:
            results = function()
        same = torch.stack(playing.same).all() if playing.same else torch.ones((), dtype=torch.bool)
        return [same, *(result.detach() for result in results)]

    try:
        graph = make_fx(whole)(*given, *drawn)
    except RuntimeError as reason:
        if "_local_scalar_dense" in str(reason):
            raise Untraceable("a number is taken out of a tensor") from reason
        raise
    masks = _masks_out(graph)
    for node in graph.graph.nodes:
        _check(graph, node)
    return graph, masks


def _masks_out(graph: GraphModule) -> list[Drawing]:
    """Make arguments of the masks that dropout draws."""
    masks: list[Drawing] = []
    nodes = list(graph.graph.nodes)
    start = next(node for node in nodes if node.op != "placeholder")
    for node in nodes:
        if node.target is _aten.bernoulli_.float and len(node.args[0].users) == 1 and not node.kwargs:
            with graph.graph.inserting_before(start):
                mask = graph.graph.placeholder(f"mask_{len(masks)}")
            node.replace_all_uses_with(mask)
            masks.append(_mask(node.meta["tensor_meta"], *node.args[1:]))
            graph.graph.erase_node(node)
    graph.recompile()
    return masks


def _mask(like: Any, chance: float = 0.5) -> Drawing:
    def draw(generators: Sequence[torch.Generator]) -> Tensor:
        return torch.empty_strided(like.shape, like.stride, dtype=like.dtype).bernoulli_(chance)

    return draw


def _check(graph: GraphModule, node: Node) -> None:
    """Raise ``Untraceable`` for an operation that would be wrong at another call."""
    if node.op == "get_attr":
        constant = getattr(graph, str(node.target))
        if isinstance(constant, Tensor) and constant.requires_grad:
            raise Untraceable("it uses a parameter that is not the model's, or something made of one before the step")
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags and _argument(node, "dropout_p") != 0:
        raise Untraceable(f"{node.target} draws random numbers")
    if torch.Tag.dynamic_output_shape in tags and not _by_numbers(node):
        raise Untraceable(f"the shape of what {node.target} gives depends on the data")


def _argument(node: Node, name: str) -> Any:
    """What a node passes to its operation under this name; None where there is none such."""
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            given = node.args[position] if position < len(node.args) else argument.default_value
            return node.kwargs.get(name, given)
    return None


def _by_numbers(node: Node) -> bool:
    """Whether this is indexing by numbers, which gives as many as there are; a mask gives as many as are true."""
    if node.target is not _aten.index.Tensor:
        return False
    indices: Any = node.args[1]
    return not any(
        index is not None and index.meta["tensor_meta"].dtype in (torch.bool, torch.uint8) for index in indices
    )
