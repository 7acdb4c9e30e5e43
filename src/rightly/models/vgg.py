"""VGG16, the network of the papers' experiments with photographs: for CIFAR-10, and as published for ImageNet."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.checks import check_count
from rightly.core.errors import DataError
from rightly.models.networks import Standardised, load_published

#: for each block of convolutions how many times ``width`` their filters are, and the dropout after all but the last
_BLOCKS = (((1, 1), 0.3), ((2, 2), 0.4), ((4, 4, 4), 0.4), ((8, 8, 8), 0.4), ((8, 8, 8), 0.4))


def vgg16(
    n_out: int = 10, *, channels: int = 3, width: int = 64, dropout: bool = True, seed: int | None = None
) -> nn.Sequential:
    """VGG16 as Liu and Deng (2015) changed it for CIFAR-10: (B, channels, 32, 32) -> (B, n_out).

    Thirteen 3 x 3 convolutions in five blocks, each block halved by pooling, and one hidden layer; batch norm after
    every layer, dropout between the convolutions of a block (0.3, then 0.4) and around the hidden layer (0.5). Erion
    et al. (2021, methods) name that reference and no further details.

    Args:
        n_out: classes.
        channels: of the images.
        width: filters of the first block, 64 in the paper; the hidden layer has eight times as many.
        dropout: False leaves it out, which a narrow network can ill afford.
        seed: as in ``mlp``.

    Raises:
        ArgumentError: a size is not a positive whole number.
    """
    for name, value in (("n_out", n_out), ("channels", channels), ("width", width)):
        check_count(name, value)
    with seeding.guarded(seed, "vgg16") if seed is not None else nullcontext():
        layers: list[nn.Module] = []
        before = channels
        for multiples, share in _BLOCKS:
            for i, multiple in enumerate(multiples):
                after = multiple * width
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
                if dropout and i < len(multiples) - 1:
                    layers.append(nn.Dropout(share))
                before = after
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(before, before), nn.BatchNorm1d(before), nn.ReLU()]
        if dropout:
            layers.insert(-4, nn.Dropout(0.5))
            layers.append(nn.Dropout(0.5))
        return nn.Sequential(*layers, nn.Linear(before, n_out))


class ImageNetVGG16(nn.Module):
    """VGG16 of Simonyan and Zisserman (2015): colour pictures (B, 3, 224, 224) in [0, 1] -> (B, n_out).

    It standardises them itself. Names and order of the layers are torchvision's, so that its weights fit.

    Args:
        n_out: classes.
        seed: as in ``mlp``.

    Raises:
        ArgumentError: ``n_out`` is not a positive whole number.
    """

    def __init__(self, n_out: int = 1000, *, seed: int | None = None) -> None:
        super().__init__()
        check_count("n_out", n_out)
        with seeding.guarded(seed, "imagenet_vgg16") if seed is not None else nullcontext():
            layers: list[nn.Module] = []
            before = 3
            for multiples, _ in _BLOCKS:
                for multiple in multiples:
                    layers += [nn.Conv2d(before, 64 * multiple, 3, padding=1), nn.ReLU()]
                    before = 64 * multiple
                layers.append(nn.MaxPool2d(2))
            self.standardised, self.features = Standardised(), nn.Sequential(*layers)
            hidden = [nn.Linear(7 * 7 * before, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
            self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(4096, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, n_out)."""
        outputs: Tensor = self.classifier(self.features(self.standardised(x)).flatten(1))
        return outputs


def imagenet_vgg16(path: str | Path) -> ImageNetVGG16:
    """The published network with weights under torchvision's names; as many classes as they have.

    Args:
        path: a safetensors file.

    Raises:
        DataError: there is no such file, it is damaged, or it does not hold the weights of a VGG16.
    """
    mend = "save torchvision.models.vgg16(weights='DEFAULT').state_dict() with safetensors.torch.save_file"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the weights {path} cannot be read", expected="a safetensors file", got=str(error), mend=mend
        ) from error
    last = weights.get("classifier.6.bias")
    model = ImageNetVGG16(1000 if last is None else len(last), seed=0)
    load_published(model, weights, "a VGG16", mend)
    return model
