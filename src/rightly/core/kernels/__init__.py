"""Functions of torch with a cheap and exact second derivative, put under an unmodified model."""

from rightly.core.kernels.mode import cheap_second_derivatives as cheap_second_derivatives
