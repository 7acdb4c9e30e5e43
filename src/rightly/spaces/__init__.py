"""Where an explanation lives: the inputs themselves, or what a layer makes of them."""

from rightly.spaces.input import Input
from rightly.spaces.layer import Layer

__all__ = ["Input", "Layer"]
