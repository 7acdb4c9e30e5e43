"""Changed inputs: noise, gradient steps, occlusion, whole or inside a region; for training and for attacks."""

from rightly.perturbations.base import Perturbation
from rightly.perturbations.gradient import FGSM, PGD, answers, iterated_tgsm, unsaturated
from rightly.perturbations.library import JSMA, AutoPGD, Square
from rightly.perturbations.noise import Noise
from rightly.perturbations.occlude import Occlude
from rightly.perturbations.strongest import FirstToFool, auto_attack

__all__ = [
    "FGSM",
    "JSMA",
    "PGD",
    "AutoPGD",
    "FirstToFool",
    "Noise",
    "Occlude",
    "Perturbation",
    "Square",
    "answers",
    "auto_attack",
    "iterated_tgsm",
    "unsaturated",
]
