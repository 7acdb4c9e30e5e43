"""Published methods under their published names; each returns a term (the mixed prior two)."""

from rightly.objectives.recipes import (
    double_backpropagation,
    graph_attribution_prior,
    l1_attribution_prior,
    l1_weights,
    mixed_sparse_attribution_prior,
    neural_lasso,
    pixel_attribution_prior,
    right_for_the_right_reasons,
    sparse_attribution_prior,
    sparse_gradient_prior,
    sparse_group_lasso,
)

__all__ = [
    "double_backpropagation",
    "graph_attribution_prior",
    "l1_attribution_prior",
    "l1_weights",
    "mixed_sparse_attribution_prior",
    "neural_lasso",
    "pixel_attribution_prior",
    "right_for_the_right_reasons",
    "sparse_attribution_prior",
    "sparse_gradient_prior",
    "sparse_group_lasso",
]
