"""Published methods under their published names; each returns a ``Term``."""

from rightly.objectives.recipes import (
    double_backpropagation,
    graph_attribution_prior,
    pixel_attribution_prior,
    right_for_the_right_reasons,
    sparse_attribution_prior,
)

__all__ = [
    "double_backpropagation",
    "graph_attribution_prior",
    "pixel_attribution_prior",
    "right_for_the_right_reasons",
    "sparse_attribution_prior",
]
