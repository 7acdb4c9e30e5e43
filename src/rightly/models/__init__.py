"""The papers' reference networks."""

from rightly.models.graph import GraphConvolution, GraphNetwork, gcn
from rightly.models.networks import mlp, paper_cnn
from rightly.models.resnet import ResNet20, cifar_resnet20
from rightly.models.smooth import Smoothed, smoothed
from rightly.models.vgg import ImageNetVGG16, imagenet_vgg16, vgg16

__all__ = [
    "GraphConvolution",
    "GraphNetwork",
    "ImageNetVGG16",
    "ResNet20",
    "Smoothed",
    "cifar_resnet20",
    "gcn",
    "imagenet_vgg16",
    "mlp",
    "paper_cnn",
    "smoothed",
    "vgg16",
]
