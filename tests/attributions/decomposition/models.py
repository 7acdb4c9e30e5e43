"""Models that contextual decomposition is held against: one of every kind, in float64, with weights that matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.problems import DOUBLE, draws, normal


class Written(nn.Module):
    """A model in functions: ``forward(self, x)`` is given, and the layers and parameters that it names."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | tuple[int, ...]) -> None:
        super().__init__()
        self.written = forward
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(torch.empty(part)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.written(self, *args, **kwargs)


@dataclass(frozen=True)
class Case:
    """A model in eval mode and a batch of two or three examples."""

    model: nn.Module
    inputs: Any
    #: (*F) of an example in the space
    shape: tuple[int, ...]


def calibrated(model: nn.Module, inputs: Any, seed: int = 0) -> nn.Module:
    """Float64, weights of which each layer keeps the size of what it gets, biases that are not zero, statistics of
    the data: an untrained net can give zeros or 1e11, and then a check of relative errors says nothing."""
    model.double()
    generator = draws(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=DOUBLE)
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            norm_weight = parameter.ndim == 1 and bool((parameter == 1).all())
            parameter.copy_(1 + 0.3 * noise if norm_weight else noise * (1.4 / fan**0.5 if parameter.ndim > 1 else 0.3))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        before = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 1.0
        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        for m, momentum in zip(norms, before, strict=True):
            m.momentum = momentum
    return model.eval()


def vectors(model: nn.Module, *shape: int, batch: int = 3) -> Case:
    inputs = normal(batch, *shape, seed=20)
    return Case(calibrated(model, inputs), inputs, shape)


def tokens(model: nn.Module, length: int = 6, batch: int = 3, words: int = 11) -> Case:
    inputs = torch.randint(1, words, (batch, length), generator=draws(21))
    return Case(calibrated(model, inputs), inputs, (length,))


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.short(x)
        return self.relu(out)


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        Block(4, 4, 1), Block(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


class MnistNet(nn.Module):
    """The digits network of the authors' package, on smaller pictures."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, 3), nn.Dropout2d()
        self.width = 6 * (((size - 4) // 2 - 2) // 2) ** 2
        self.fc1, self.fc2 = nn.Linear(self.width, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.view(-1, self.width)))
        return self.fc2(F.dropout(x, training=self.training))


class Squeeze(nn.Module):
    """Depthwise separable with squeeze and excitation and hard-swish, as in the mobile nets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.deep(x)
        y = y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        return self.head((x + self.point(y)).mean([2, 3]))


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(2, 6, 2, 2), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.wide, self.back = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.scale, self.head = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.back(F.gelu(self.wide(self.norm(self.deep(x).permute(0, 2, 3, 1)))))
        x = x + (self.scale * y).permute(0, 3, 1, 2)
        return self.head(x.mean((-2, -1)))


class Vision(nn.Module):
    """A vision transformer: a class token, positions, pre-norm blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(2, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.place = nn.Parameter(torch.zeros(1, 5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=True, norm_first=True)
        self.body, self.norm, self.head = (
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.body(x))[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: str = "LSTM", vocabulary: bool = True, packed: bool = False, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5) if vocabulary else nn.Identity()
        self.rnn = getattr(nn, kind)(5, 4, batch_first=True, **options)
        self.packed = packed
        self.head = nn.Linear(self.rnn.hidden_size * (2 if self.rnn.bidirectional else 1), 3)
        if options.get("proj_size"):
            self.head = nn.Linear(options["proj_size"], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        if self.packed:
            lengths = torch.tensor([4, 6, 3])[: len(x)]
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        hidden, last = self.rnn(x)
        if self.packed:
            hidden, _ = nn.utils.rnn.pad_packed_sequence(hidden, batch_first=True)
        last = last[0] if isinstance(last, tuple) else last
        return self.head(hidden.mean(1) + hidden[:, -1]) + last.sum((0, 2))[:, None]


class Cells(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell, self.head = getattr(nn, kind)(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Bag(nn.Module):
    def __init__(self, mode: str, padding: int | None = None) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(11, 5, mode=mode, padding_idx=padding), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.bag(tokens)))


class Decoder(nn.Module):
    """Token and position embeddings, causal attention written out, RMS norm by hand, a gated MLP, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.ones(8))

    def norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale

    def forward(self, tokens: Tensor) -> Tensor:
        size = tokens.shape[1]
        x = self.words(tokens) + self.places(torch.arange(size))
        q, k, v = (part.view(*part.shape[:2], 2, 4).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        scores = q @ k.transpose(-2, -1) / 2
        scores = scores + torch.full((size, size), torch.finfo(scores.dtype).min, dtype=scores.dtype).triu(1)
        scores = scores.masked_fill((tokens == 0)[:, None, None], torch.finfo(scores.dtype).min)
        weights = F.dropout(F.softmax(scores, dim=-1), 0.1, self.training)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(x.shape))
        y = self.norm(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return F.linear(self.norm(x)[:, -1], self.words.weight)


def encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, norm_first=norm_first)
    return Written(
        lambda self, x: self.head(self.body(x).mean(1)),
        body=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), head=nn.Linear(8, 3),
    )  # fmt: skip


def _functional(self: Any, x: Tensor) -> Tensor:
    x = self.first(x)
    if x.sum() > 0:
        x = x + 0.1
    x += self.inner(F.relu(x))
    gates = torch.sigmoid(self.gate(x))
    y = torch.cat([x * gates, x.tanh() ** 2, torch.ones_like(x[:, :1]) * self.shift], 1)
    w = F.softmax(self.mix(y), dim=1)
    y = (w.unsqueeze(-1) * torch.stack([x, x.abs(), F.elu(x)], 1)).sum(1)
    y = 1 / (2 + y.exp()) + (1 - y) * F.softplus(y) - y.clamp(-1, 0.7)
    y = torch.where(y > 0, y, 0.3 * self.shift) + F.leaky_relu(y, 0.1, inplace=True)
    y = y / (y.norm(dim=1, keepdim=True) + 1) + torch.maximum(y, x).minimum(self.shift)
    return self.last(F.normalize(y, dim=1) + y.var(1, keepdim=True).sqrt() + y.logsumexp(1, keepdim=True))


def _written_into(self: Any, x: Tensor) -> Tensor:
    x = self.first(x)
    y = x.clone()
    y[:, 0] += 1
    y[:, 1:3] = x[:, 3:5] * 2
    y[:, 5] = 0.5
    z = y.relu_()
    z = z.index_add(1, torch.tensor([0, 2]), x[:, :2]).scatter(
        1, torch.zeros(len(x), 1, dtype=torch.long), self.shift.expand(len(x), 1)
    )
    return self.last(F.pad(z, (1, 1), value=0.2)[:, 1:7] + F.glu(torch.hstack([z, x]), 1))


def _images(self: Any, x: Tensor) -> Tensor:
    x = F.interpolate(F.avg_pool2d(F.relu(self.first(x)), 2), scale_factor=2, mode="bilinear")
    x = self.turn(F.instance_norm(x)) + F.local_response_norm(x, 3)
    x = F.fold(F.unfold(x, 2, stride=2), x.shape[-2:], 2, stride=2)
    x = F.pixel_unshuffle(x, 2).amax((2, 3))
    best, _ = x.max(1)
    values, _ = x.topk(3, 1)
    return self.last(torch.cat([best[:, None], values, x.sort(1).values[:, :2]], 1))


def _bilinear(self: Any, x: Tensor) -> Tensor:
    left, right = x[:, :3], x[:, 3:]
    return self.last(self.two(left, right)) + torch.einsum("bi,bj,ij->b", left, right, self.w)[:, None]


ZOO: dict[str, Callable[[], Case]] = {
    "mlp": lambda: vectors(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 3)), 6),
    "in place": lambda: vectors(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(True), nn.Linear(8, 8), nn.LeakyReLU(0.1, True), nn.Linear(8, 3)), 6
    ),
    "smooth": lambda: vectors(
        nn.Sequential(
            nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 8),
            nn.Softplus(), nn.Linear(8, 8), nn.Mish(), nn.Linear(8, 3),
        ),
        6,
    ),
    "digits": lambda: vectors(MnistNet(), 1, 16, 16, batch=2),
    "residual": lambda: vectors(resnet(), 2, 12, 12),
    "squeeze": lambda: vectors(Squeeze(), 2, 8, 8),
    "convnext": lambda: vectors(ConvNext(), 2, 8, 8),
    "vision transformer": lambda: vectors(Vision(), 2, 8, 8, batch=2),
    "1-D": lambda: vectors(
        nn.Sequential(
            nn.Conv1d(2, 6, 3, padding=1), nn.BatchNorm1d(6), nn.GELU(), nn.MaxPool1d(2), nn.Conv1d(6, 6, 3),
            nn.GroupNorm(2, 6), nn.SiLU(), nn.AdaptiveMaxPool1d(2), nn.Flatten(), nn.Linear(12, 3),
        ),
        2, 12,
    ),
    "3-D": lambda: vectors(
        nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.ELU(), nn.MaxPool3d(2),
            nn.ConvTranspose3d(4, 2, 2, 2), nn.ReLU(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(16, 3),
        ),
        1, 4, 4, 4,
    ),
    "upwards": lambda: vectors(
        nn.Sequential(
            nn.Linear(6, 12), nn.Unflatten(1, (3, 4)), nn.ConvTranspose1d(3, 2, 2, 2), nn.Tanh(),
            nn.Upsample(scale_factor=2), nn.ReflectionPad1d(1), nn.Flatten(), nn.Linear(36, 3), nn.LogSoftmax(1),
        ),
        6,
    ),
    "functional": lambda: vectors(
        Written(
            _functional, first=nn.Linear(6, 5), inner=nn.Linear(5, 5), gate=nn.Linear(5, 5), mix=nn.Linear(11, 3),
            shift=(1,), last=nn.Linear(5, 3),
        ),
        6,
    ),
    "written into": lambda: vectors(Written(_written_into, first=nn.Linear(6, 6), shift=(1,), last=nn.Linear(6, 3)), 6),
    "images": lambda: vectors(
        Written(
            _images, first=nn.Conv2d(2, 4, 3, padding=1), turn=nn.ConvTranspose2d(4, 4, 1), last=nn.Linear(6, 3)
        ),
        2, 8, 8,
    ),
    "bilinear": lambda: vectors(
        Written(_bilinear, two=nn.Bilinear(3, 3, 4), w=(3, 3), last=nn.Linear(4, 3)), 6
    ),
    "post-norm": lambda: vectors(encoder(False), 5, 8),
    "pre-norm": lambda: vectors(encoder(True), 5, 8),
    "attention": lambda: vectors(
        Written(
            lambda self, x: self.head(self.body(x, x, x)[0].mean(1)),
            body=nn.MultiheadAttention(8, 2, batch_first=True), head=nn.Linear(8, 3),
        ),
        5, 8,
    ),
    "decoder": lambda: tokens(Decoder()),
    "lstm": lambda: tokens(Recurrent()),
    "lstm, two layers, both ways": lambda: tokens(Recurrent(num_layers=2, bidirectional=True, dropout=0.2)),
    "lstm, projected": lambda: tokens(Recurrent(proj_size=2)),
    "lstm, packed": lambda: tokens(Recurrent(packed=True, bidirectional=True)),
    "gru": lambda: vectors(Recurrent("GRU", False, num_layers=2), 6, 5),
    "gru, packed": lambda: tokens(Recurrent("GRU", packed=True)),
    "rnn": lambda: vectors(Recurrent("RNN", False, bidirectional=True), 6, 5),
    "rnn, relu": lambda: tokens(Recurrent("RNN", nonlinearity="relu")),
    "lstm cell": lambda: vectors(Cells("LSTMCell"), 6, 5),
    "gru cell": lambda: vectors(Cells("GRUCell"), 6, 5),
    "rnn cell": lambda: vectors(Cells("RNNCell"), 6, 5),
    "bag, mean": lambda: tokens(Bag("mean", 2)),
    "bag, sum": lambda: tokens(Bag("sum")),
    "bag, max": lambda: tokens(Bag("max")),
}  # fmt: skip
