"""The papers' networks: their shapes, their sizes, their seeds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError, DataError


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("n_in", "hidden", "n_out"),
    [(784, (50, 30), 10), (118, (512, 128, 32), 1), (3, (), 2), (5, [7], 1), (12, (4, 4), 3)],
)
def test_mlp_has_the_parameters_that_its_sizes_say(n_in, hidden, n_out):
    sizes = [n_in, *hidden, n_out]
    model = rt.models.mlp(n_in, hidden, n_out)
    assert count(model) == sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert model(torch.zeros(4, n_in)).shape == (4, n_out)
    layers = [part for part in model if isinstance(part, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(itertools.pairwise(sizes))
    assert isinstance(model[-1], nn.Linear)
    assert sum(isinstance(part, nn.ReLU) for part in model) == len(hidden)


def test_the_papers_sizes():
    assert count(rt.models.mlp(784, (50, 30), 10)) == 784 * 50 + 50 + 50 * 30 + 30 + 30 * 10 + 10 == 41_090
    assert count(rt.models.mlp(118, (512, 128, 32), 1)) == 130_753
    # two convolutions, three norms of two parameters a channel, two dense layers
    convolutions = 25 * 32 + 32 + 25 * 32 * 64 + 64
    assert count(rt.models.paper_cnn()) == convolutions + 2 * (32 + 64 + 1024) + 3136 * 1024 + 1024 + 1024 * 10 + 10


def test_mlp_flattens_and_drops_out_after_every_hidden_layer():
    model = rt.models.mlp(12, (5, 4), 2, dropout=0.25)
    assert model(torch.zeros(3, 3, 2, 2)).shape == (3, 2)
    assert [part.p for part in model if isinstance(part, nn.Dropout)] == [0.25, 0.25]
    assert not any(isinstance(part, nn.Dropout) for part in rt.models.mlp(12, (5, 4), 2))


@pytest.mark.parametrize(
    ("channels", "size", "width", "n_out"), [(1, 28, 16, 10), (3, 32, 8, 2), (1, 4, 3, 1), (2, 30, 5, 4), (1, 31, 5, 4)]
)
def test_paper_cnn_takes_images_of_any_size(channels, size, width, n_out):
    model = rt.models.paper_cnn(n_out, channels=channels, size=size, width=width)
    images = torch.zeros(3, channels, size, size)
    assert model(images).shape == (3, n_out)
    assert model[:3](images).shape == (3, 32, size, size)  # padding keeps the size
    assert model[:8](images).shape == (3, 64, size // 4, size // 4)


def test_paper_cnn_takes_other_filters():
    model = rt.models.paper_cnn(3, size=8, filters=(5, 7), width=4)
    assert [tuple(part.weight.shape[:2]) for part in model if isinstance(part, nn.Conv2d)] == [(5, 1), (7, 5)]
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_vgg16_has_the_published_layers():
    model = rt.models.vgg16()
    widths = [part.out_channels for part in model if isinstance(part, nn.Conv2d)]
    assert widths == [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    # thirteen convolutions and two dense layers, with biases, and two numbers a channel for each norm
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise([3, *widths]))
    assert count(model) == convolutions + 2 * (sum(widths) + 512) + 512 * 512 + 512 + 512 * 10 + 10
    assert [part.p for part in model if isinstance(part, nn.Dropout)] == [0.3, *[0.4] * 7, 0.5, 0.5]
    assert isinstance(model[-1], nn.Linear)


def test_vgg16_can_be_narrow_and_without_dropout():
    model = rt.models.vgg16(4, channels=1, width=2, dropout=False)
    assert model(torch.zeros(3, 1, 32, 32)).shape == (3, 4)
    assert not any(isinstance(part, nn.Dropout) for part in model)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in model) == 13


def test_resnet20_has_the_published_size_and_standardises():
    model = rt.models.ResNet20(seed=0).eval()
    assert count(model) == 269_722  # the published 0.27 million
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = []
    model.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert model(images).shape == (2, 10)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(seen[0], ((images.movedim(1, -1) - mean) / deviation).movedim(-1, 1), atol=1e-6)


def test_published_weights_fit_by_name_or_are_refused():
    state = {k: v.numpy() for k, v in rt.models.ResNet20(seed=3).state_dict().items() if "num_batches" not in k}
    model = rt.models.cifar_resnet20(state)
    assert torch.equal(model.linear.weight, torch.from_numpy(state["linear.weight"]))
    with pytest.raises(DataError, match="ResNet-20"):
        rt.models.cifar_resnet20({"a": state["linear.bias"]})
    with pytest.raises(DataError, match=r"conv1\.weight"):
        rt.models.cifar_resnet20({**state, "conv1.weight": state["conv1.weight"][:8]})


def test_the_catalogues_resnet_is_as_good_as_its_page_says():
    place = rt.data.available()["cifar10_resnet20"]
    if place.startswith("not here"):
        pytest.skip("the weights are not here: set RIGHTLY_DATA to a folder that holds cifar10_resnet20-12fca82f.npz")
    model = rt.models.cifar_resnet20(rt.data.load_arrays("cifar10_resnet20")).eval()
    images, labels = rt.data.cifar10_images(rt.data.load_arrays("cifar10_10k_2k_jpeg"), "test")
    with torch.no_grad():
        answers = model(torch.from_numpy(images[::4]) / 255).argmax(1)
    assert float((answers == torch.from_numpy(labels[::4])).double().mean()) == pytest.approx(0.816, abs=0.03)


def test_imagenets_vgg16_has_torchvisions_names_and_sizes(tmp_path):
    with torch.device("meta"):
        model = rt.models.ImageNetVGG16()
    assert count(model) == 138_357_544  # as published
    names = [name for name, _ in model.named_parameters()]
    assert names[:4] == ["features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias"]
    assert [name for name in names if name.startswith("classifier")][::2] == [
        f"classifier.{i}.weight" for i in (0, 3, 6)
    ]
    convolutions = [i for i, part in enumerate(model.features) if isinstance(part, nn.Conv2d)]
    assert convolutions == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    with pytest.raises(DataError, match="safetensors"):
        rt.models.imagenet_vgg16(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: rt.models.mlp(6, (5,), 2, seed=seed),
        lambda seed: rt.models.paper_cnn(2, size=8, width=4, seed=seed),
        lambda seed: rt.models.vgg16(2, width=2, seed=seed),
        lambda seed: rt.models.ResNet20(2, seed=seed),
    ],
)
def test_a_seed_decides_the_weights_and_leaves_the_global_state_alone(make):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = make(0), make(0), make(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    unseeded = make(None)
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(unseeded.parameters(), make(None).parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: rt.models.mlp(0, (5,), 2), "size"),
        (lambda: rt.models.mlp(4, (5, 0), 2), "size"),
        (lambda: rt.models.mlp(4, (5,), 2.0), "2.0"),
        (lambda: rt.models.paper_cnn(size=3), "size"),
        (lambda: rt.models.paper_cnn(channels=0), "channels"),
        (lambda: rt.models.paper_cnn(0), "n_out"),
        (lambda: rt.models.paper_cnn(width=0), "width"),
        (lambda: rt.models.paper_cnn(filters=(4, 0)), "filters"),
        (lambda: rt.models.vgg16(width=0), "width"),
        (lambda: rt.models.ResNet20(0), "n_out"),
    ],
)
def test_impossible_sizes_are_refused(make, word):
    with pytest.raises(ArgumentError, match=word):
        make()


def test_networks_can_be_differentiated_twice():
    for model, shape in ((rt.models.mlp(6, (5,), 2), (3, 6)), (rt.models.paper_cnn(2, size=8, width=4), (3, 1, 8, 8))):
        objective = rt.Objective(
            model,
            nn.functional.cross_entropy,
            [rt.Term(rt.Gradient(), rt.priors.L2(), 1.0)],
        )
        report = objective(torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0]))
        report.total.backward()
        assert report.terms["l2"].penalty > 0
