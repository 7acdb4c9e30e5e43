"""Where an explanation lives: the inputs, what a layer makes of them, or either in other coordinates."""

from rightly.spaces.fourier import Fourier
from rightly.spaces.input import Input
from rightly.spaces.latent import Latent
from rightly.spaces.layer import Layer
from rightly.spaces.linear import Linear
from rightly.spaces.parts import Parts, grey_and_colour
from rightly.spaces.wavelet import Wavelet

__all__ = ["Fourier", "Input", "Latent", "Layer", "Linear", "Parts", "Wavelet", "grey_and_colour"]
