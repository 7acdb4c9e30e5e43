"""Small models in float64 on which every engine is held against double backward, and models that none but it may take.

``FITS`` is piecewise linear and known to the frozen-mask engine; ``BENT`` looks like it, or is smooth, and has to be
refused; ``SMOOTH`` are those of them on which differences are measured. Each is (a function that makes the model, the
shape of an example).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.problems import DOUBLE, draws, initialised, normal

BATCH = 3
LABELS = torch.tensor([2, 0, 1])


@dataclass(frozen=True)
class Case:
    """A model with a batch of three examples."""

    model: nn.Module
    inputs: Any
    labels: Tensor


class Written(nn.Module):
    """A model in functions: ``forward(self, x)`` is given, and the layers and parameters that it names."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | tuple[int, ...]) -> None:
        super().__init__()
        self.written = forward
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(torch.empty(part)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.written(self, *args, **kwargs)


def vectors(forward: Callable[..., Any], **parts: Any) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """A functional model over (B, 6) between two linear layers: ``forward(self, h)`` maps (B, 6) to (B, 6)."""

    def whole(self: Any, x: Tensor) -> Tensor:
        return self.last(forward(self, self.first(x)).flatten(1))

    def make() -> nn.Module:
        fresh = {name: part() if callable(part) else part for name, part in parts.items()}
        return Written(whole, first=nn.Linear(6, 6), last=nn.Linear(fresh.pop("width", 6), 3), **fresh)

    return make, (6,)


def images(
    forward: Callable[..., Any], width: int, size: int = 6, **parts: Any
) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """``forward(self, h)`` of (B, 4, size, size) after a convolution and a ReLU; ``width`` numbers come out."""

    def whole(self: Any, x: Tensor) -> Tensor:
        return self.last(forward(self, F.relu(self.first(x))).flatten(1))

    def make() -> nn.Module:
        fresh = {name: part() if callable(part) else part for name, part in parts.items()}
        return Written(whole, first=nn.Conv2d(2, 4, 3, padding=1), last=nn.Linear(width, 3), **fresh)

    return make, (2, size, size)


class Block(nn.Module):
    """A residual block as torchvision writes it: in place, with a projection where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 1, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        Block(4, 4, 1),
        Block(4, 6, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def frozen_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    return model


def normed() -> nn.Module:
    weight = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
    return nn.Sequential(weight, nn.ReLU(), spectral, nn.ReLU(), nn.Linear(6, 3))


def linear(width: int = 6) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(6, width)


def _tie(self: Any, h: Tensor) -> Tensor:
    h = F.relu(F.linear(h, self.w, self.b))
    return F.relu(F.linear(h, self.w.t()))


def _split(self: Any, h: Tensor) -> Tensor:
    a, b, c = torch.split(h, 2, 1)
    d, e = torch.cat([b.relu(), a], 1).chunk(2, dim=1)
    f = torch.stack([d, e, c], 1)[:, :2]
    return torch.cat((f.flatten(1), c.clamp(min=0)), dim=-1)


def _shapes(self: Any, h: Tensor) -> Tensor:
    h = h.view(-1, 2, 3).permute(0, 2, 1).transpose(1, 2).unsqueeze(1).squeeze(1).contiguous()
    h = F.relu(h.reshape(h.size(0), -1)).unflatten(1, (3, 2)).flip(1).roll(1, 2)
    parts = h.unbind(1)
    return torch.hstack([parts[0], parts[1] + parts[2], parts[2].repeat(1, 1)])


def _branches(self: Any, h: Tensor) -> Tensor:
    h = torch.where(h > 0.1, h, 0.2 * h)
    h = torch.where(h < -0.5, self.p, h)
    return h.masked_fill(h.detach() > 1, 0.5).maximum(self.q - 1).minimum(h + 1) + 0.1 * h


def _kinks(self: Any, h: Tensor) -> Tensor:
    h = F.leaky_relu(h, 0.1, True)
    h = F.hardtanh(h, -0.8, 0.9) + F.relu6(h * 2) - F.threshold(h, 0.05, 0.3) + F.hardshrink(h, 0.2)
    h = torch.clamp(h, -2, 2) + h.clamp_min(-0.3) + torch.clip(h, max=0.7) + F.softshrink(h, 0.1)
    return h.abs() - torch.relu(h)


def _extremes(self: Any, h: Tensor) -> Tensor:
    zero = h - h.detach()  # a tie whose sides have different slopes
    h = h + torch.stack([zero, 2 * zero, zero - 1], 1).amax(1) + torch.maximum(zero, 3 * zero).minimum(-zero)
    h = h.reshape(-1, 3, 2)
    best, places = h.max(dim=1)
    low = h.min(-1, keepdim=True).values.squeeze(-1)
    return torch.cat([best, low[:, :2], h.amax(1) - h.amin((1,)), places.to(h.dtype)], 1)


def _numbers(self: Any, h: Tensor) -> Tensor:
    h = (1 - h) * 2 + 3 * h.relu() - h / 4 + (-h).relu().sub(0.1, alpha=2)
    h = torch.rsub(h, 1.0) + torch.add(h, h.relu(), alpha=0.5)
    h -= 0.3
    h *= 1.5
    h /= self.p
    return h / 2 + self.q


def _products(self: Any, h: Tensor) -> Tensor:
    h = torch.relu(h @ self.m)
    h = torch.addmm(self.q, h, self.m)
    h = torch.mm(h.relu(), self.m.t())
    t = h.reshape(3, -1, 2)
    t = torch.baddbmm(self.c, t.relu(), self.k)
    t = (torch.bmm(t, self.k).relu() @ self.k[0]).reshape(-1, 3, 2)
    t = torch.matmul(self.left, t) + t.matmul(self.k[1])
    return t.reshape(-1, 6) * self.q


def _sums(self: Any, h: Tensor) -> Tensor:
    h = h.relu() - h.mean(1, keepdim=True) + h.sum(-1, keepdim=True) - h.mean(0)
    h = torch.cumsum(h, 1)
    return torch.cat([torch.diff(h, dim=1), h.index_select(1, torch.tensor([2]))], 1).gather(
        1, torch.tensor([[0, 1, 2, 3, 5, 5]]).expand(len(h), -1)
    )


def _detaching(self: Any, h: Tensor) -> Tensor:
    return h * h.detach() + F.relu(h) * float(h.detach().sum()) + (h.round() - h).detach() + h


def _counting(self: Any, h: Tensor) -> Tensor:
    return F.relu(h) * (2.0 if bool((h > 0).any()) else 1.0) * len(h) + h.new_ones(6) + torch.zeros_like(h)


def _array(self: Any, h: Tensor) -> Tensor:
    return F.relu(h) * torch.from_numpy(np.tanh(h.detach().numpy()))


def _mlp(self: Any, x: Tensor, extra: Tensor) -> Any:
    return SimpleNamespace(logits=self.b(F.relu(self.a(x)) + extra), hidden=None)


def _image_functions(self: Any, h: Tensor) -> Tensor:
    h = F.pad(h, (1, 0, 0, 1), value=0.7) + F.pad(h, (1, 0, 1, 0), "replicate")
    h = F.interpolate(h, scale_factor=2, mode="bilinear") + F.interpolate(h, size=(14, 14), mode="nearest")
    h = F.pixel_unshuffle(F.pixel_shuffle(h, 2).relu(), 4)
    return F.dropout(h, 0.5, training=False)


def _pools(self: Any, h: Tensor) -> Tensor:
    parts = [
        F.max_pool2d(h, 2),
        F.max_pool2d(h, 3, 2, 1),
        F.max_pool2d(h, 2, ceil_mode=True),
        F.max_pool2d(h, 2, 1, dilation=2),
        F.avg_pool2d(h, 3, 2, 1),
        F.adaptive_max_pool2d(h, 3),
        F.adaptive_avg_pool2d(h, (2, 3)),
        nn.functional.unfold(h, 2).mean(2)[..., None, None],
    ]
    return torch.cat([part.flatten(1) for part in parts], 1)


def _ties(self: Any, h: Tensor) -> Tensor:
    flat = (h > 0).to(h) * self.p
    most = (h * 0).amax((2, 3)) + h.relu().amax(1)[:, :4, 0]
    return torch.cat([F.max_pool2d(F.relu(h * 0) + flat, 2).flatten(1), most], 1)


def _lengths(dims: int) -> Callable[[], nn.Module]:
    """Strides, dilation, groups, 'same' and other paddings, in 1, 2 or 3 dimensions."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1]
    last = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)[dims - 1]
    return lambda: nn.Sequential(
        conv(2, 4, 3, padding="same", dilation=2),
        norm(4),
        nn.PReLU(4),
        conv(4, 4, 3, stride=2, padding=1, groups=2),
        norm(4, affine=False),
        nn.LeakyReLU(0.2),
        conv(4, 4, 3, padding=1, padding_mode="reflect", bias=False),
        pool(2, 1),
        mean(2, 1, padding=1),
        last(2),
        nn.Flatten(),
        nn.Linear(4 * 2**dims, 3),
    )


FITS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 3), (6,)),
    "mlp": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), (2, 3)),  # noqa: E501
    "mlp without biases": (lambda: nn.Sequential(nn.Linear(6, 8, False), nn.ReLU(True), nn.Linear(8, 3, False)), (6,)),
    "mlp of sequences": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(10, 3)), (2, 6)),
    "normalised mlp": (lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)), (6,)),  # noqa: E501
    "frozen weights": (frozen_first, (6,)),
    "weight and spectral norm": (normed, (6,)),
    "1-D": (_lengths(1), (2, 9)),
    "2-D": (_lengths(2), (2, 9, 8)),
    "3-D": (_lengths(3), (2, 6, 6, 6)),
    "residual": (residual, (2, 9, 9)),
    "one channel": (lambda: nn.Sequential(nn.Conv2d(1, 4, 5, 2, 1, bias=True), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)), (1, 9, 9)),  # noqa: E501
    "pools": images(_pools, 404, 7),
    "pool of four": images(lambda self, h: F.max_pool2d(h, 2).relu(), 36),
    "ties": images(_ties, 40, p=(1,)),
    "image functions": images(_image_functions, 784),
    "layer scale": images(lambda self, h: h + self.p[None, :, None, None] * self.c(h).relu(), 144, p=(4,), c=lambda: nn.Conv2d(4, 4, 1)),  # noqa: E501
    "positions": images(lambda self, h: (h.flatten(2).transpose(1, 2) + self.p).relu(), 144, p=(1, 36, 4)),
    "tied": vectors(_tie, w=(6, 6), b=(6,)),
    "pieces": vectors(_split),
    "shapes": vectors(_shapes),
    "branches": vectors(_branches, p=(6,), q=(6,)),
    "kinks": vectors(_kinks),
    "prelu": vectors(lambda self, h: F.prelu(F.prelu(h, self.p), self.q), p=(1,), q=(6,)),
    "extremes": vectors(_extremes, width=lambda: 8),
    "numbers": vectors(_numbers, p=(6,), q=(1,)),
    "products": vectors(_products, m=(6, 6), q=(6,), c=(3, 1, 2), k=(3, 2, 2), left=(3, 3)),
    "sums": vectors(_sums),
    "detached": vectors(_detaching),
    "counting": vectors(_counting),
    "numpy": vectors(_array),
    "scaled by a sum": vectors(lambda self, h: h.relu() * h.sum().item() + h * float(h.sum().detach())),
    "precision kept": vectors(lambda self, h: (h > 0).to(h) * h.double() + h.to(torch.float64, copy=True).relu_() - h),
    "skips": vectors(lambda self, h: sum([h.relu(), self.a(h).relu(), h]), a=linear()),
    "used twice": vectors(lambda self, h: self.a(self.a(h).relu()).relu(), a=linear()),
    "unused head": vectors(lambda self, h: (self.a(h), h.relu())[1], a=linear()),
}  # fmt: skip


class Batched(nn.Module):
    """Batch norm with the statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), nn.Linear(6, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Recurrent(nn.Module):
    """An LSTM over (B, 4, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    """A transformer encoder over (B, 4, 8)."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Reversed(torch.autograd.Function):
    """Gradient reversal: an identity whose backward is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class Lying(torch.autograd.Function):
    """A Function in operations that all have rules, whose backward is another one's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * grad


def _half_recorded(self: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        other = h * 2
    return torch.relu(h + other)


def _view_of(self: Any, h: Tensor) -> Tensor:
    part = h[:, :3]
    part.relu_()
    return h


def _whole_of(self: Any, h: Tensor) -> Tensor:
    part = h[:, :3]
    h.mul_(2.0)
    return torch.cat([part, part], 1)


def _lent(self: Any, h: Tensor) -> Tensor:
    mask = h.detach()
    h.add_(1.0)
    return h.relu() * mask


def _even(self: Any, h: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch pads a copy
        return F.conv2d(h, self.k, padding="same")


def _hooked(self: Any, h: Tensor) -> Tensor:
    if h.requires_grad:
        h.register_hook(lambda grad: 2 * grad)
    return h.relu()


def _pulled(model: nn.Module) -> nn.Module:
    model[2].register_full_backward_hook(lambda module, grads, outputs: (2 * grads[0],))
    return model


def _mlp_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


def _compiled(how: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated, and still met
        return nn.Sequential(how(_mlp_model()), nn.ReLU(), nn.Linear(3, 3))


class Keeping(nn.Module):
    """A model that keeps an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen[:] = [self.a(x).relu()]
        return self.b(self.seen[0])


SMOOTH: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "gelu": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)), (6,)),
    "softplus": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)), (6,)),
    "transformer": (Attending, (4, 8)),
    "lstm": (Recurrent, (4, 6)),
}

BENT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **SMOOTH,
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)), (6,)),
    "batch statistics": (Batched, (6,)),
    "square": vectors(lambda self, h: h * h),
    "gate": vectors(lambda self, h: h * h.relu()),
    "matrix square": vectors(lambda self, h: h @ h.t() @ h.detach()),
    "power": vectors(lambda self, h: h**2),
    "softmax": vectors(lambda self, h: h.softmax(1)),
    "quotient": vectors(lambda self, h: 1 / (h.abs() + 1)),
    "norm": vectors(lambda self, h: h / (1 + h.abs().sum(1, keepdim=True))),
    "hypernet": vectors(lambda self, h: F.linear(h.detach() + self.p, h.mean(0).expand(6, 6)), p=(6,)),
    "einsum": vectors(lambda self, h: torch.einsum("bi,ij->bj", h, self.m).relu(), m=(6, 6)),
    "written through a view": vectors(_view_of),
    "read through a view": vectors(_whole_of),
    "changed after detach": vectors(_lent),
    "half recorded": vectors(_half_recorded),
    "gradient reversal": vectors(lambda self, h: h + Reversed.apply(h).relu()),
    "a Function of known operations": vectors(lambda self, h: h + Lying.apply(h).relu()),
    "hook on a tensor": vectors(_hooked),
    "hook on gradients": (lambda: _pulled(_mlp_model()), (6,)),
    "difference from a constant": vectors(lambda self, h: torch.diff(h.relu(), prepend=self.p.expand(3, 1)), p=(1,)),
    "trained bounds": vectors(lambda self, h: torch.clamp(h, min=self.p), p=(6,)),
    "named arguments": vectors(lambda self, h: torch.mul(input=torch.relu(input=h), other=2.0)),
    "bias of rows": vectors(lambda self, h: F.linear(h, self.m, self.b).relu(), m=(6, 6), b=(1, 6)),
    "one row of weights": vectors(lambda self, h: F.linear(h, self.v)[:, None].relu() * self.m[0], v=(6,), m=(6, 6)),
    "written into a buffer": vectors(lambda self, h: torch.zeros(len(h), 6, dtype=h.dtype).add_(h.relu())),
    "keeps an activation": (Keeping, (6,)),
    "dropout that is always on": vectors(lambda self, h: F.dropout(h.relu(), 0.5)),
    "even kernel of the same size": images(_even, 144, k=(4, 4, 2, 2)),
    "scripted": (lambda: _compiled(torch.jit.script), (6,)),
    "traced": (lambda: _compiled(lambda model: torch.jit.trace(model, torch.zeros(3, 6))), (6,)),
}  # fmt: skip


def case(name: str, seed: int = 0, batch: int = BATCH) -> Case:
    """A model of the zoo in training mode, with parameters of our own, and a batch of three for it."""
    make, shape = (FITS | BENT)[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of what is drawn when a layer is made and is no parameter
        model = make()
    return Case(initialised(model, seed), normal(batch, *shape, seed=31), LABELS[:batch])


def several() -> Case:
    """Two inputs by name; only the layer's space is open to it. The output is a structure."""
    model = initialised(Written(_mlp, a=nn.Linear(6, 5), b=nn.Linear(5, 3)))
    return Case(model, {"x": normal(BATCH, 6, seed=31), "extra": normal(BATCH, 5, seed=32)}, LABELS)


def piecewise(seed: int = 0) -> Case:
    """The usual one: convolution, batch norm, ReLU, pooling, linear."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 3),
    )
    return Case(initialised(model, seed), normal(BATCH, 2, 6, 6, seed=31), LABELS)


__all__ = ["BENT", "DOUBLE", "FITS", "SMOOTH", "Case", "case", "draws", "piecewise", "several"]
