"""Bounds of what a model answers, and of its input gradients, over a box of inputs: interval arithmetic.

Sound up to rounding, and exact on linear models; on deeper ones looser with every layer.
"""

from rightly.core.intervals import activations, rules  # the imports fill the table
from rightly.core.intervals.bounded import Bounded, gradient_bounds, output_bounds

__all__ = ["Bounded", "activations", "gradient_bounds", "output_bounds", "rules"]
