"""From a trained model to another: adaptive wavelets, shallow trees, soft labels."""

from rightly.distillation.cached import PathGradients, input_gradients, path_gradients
from rightly.distillation.lattice import angles_of, filter_of
from rightly.distillation.peaks import NearestCounts, map_kernels, peak_counts
from rightly.distillation.predictors import WaveletPredictor, fit_predictor
from rightly.distillation.result import DistilledWavelet, WaveletFunctions, cascade, compression, filter_distance
from rightly.distillation.soft import soft_labels, tempered
from rightly.distillation.trees import DistilledTree, distill_tree
from rightly.distillation.wavelets import distill_wavelet

__all__ = [
    "DistilledTree",
    "DistilledWavelet",
    "NearestCounts",
    "PathGradients",
    "WaveletFunctions",
    "WaveletPredictor",
    "angles_of",
    "cascade",
    "compression",
    "distill_tree",
    "distill_wavelet",
    "filter_distance",
    "filter_of",
    "fit_predictor",
    "input_gradients",
    "map_kernels",
    "path_gradients",
    "peak_counts",
    "soft_labels",
    "tempered",
]
