"""Which layers and functions of the installed torch contextual decomposition takes: the reference page, by trying.

python -m rightly.workflows.operators > docs/reference/decomposition.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightly.attributions.decomposition import RULES, contextual_decomposition, coverage
from rightly.attributions.decomposition.table import ANYTHING, TOKEN_RULES
from rightly.core import seeding
from rightly.core.errors import RightlyError

_BATCH = 2
#: how far the parts of a region and of its complement may be from the output, relative, in float64
_CLOSE = 1e-9

_V, _SERIES, _IMAGE, _VOLUME, _WORDS = (6,), (4, 8), (4, 8, 8), (2, 4, 4, 4), (5, 6)

Sample = tuple[Callable[[], nn.Module], tuple[int, ...]]


def _each(kinds: str, shapes: dict[str, tuple[int, ...]], *args: Any) -> dict[str, Sample]:
    """Layers with the same arguments, for one, two and three dimensions."""
    made: dict[str, Sample] = {}
    for kind in kinds.split():
        for dims, shape in shapes.items():
            made[kind + dims] = (partial(getattr(nn, kind + dims), *args), shape)
    return made


_DIMS = {"1d": _SERIES, "2d": _IMAGE, "3d": _VOLUME}
_ACTIVATIONS = (
    "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Sigmoid Tanh Softplus Softsign LogSigmoid Hardtanh "
    "Hardsigmoid Hardswish Hardshrink Softshrink Tanhshrink GLU"
)

#: layers of torch.nn, how they are made, and the shape of an example
LAYERS: dict[str, Sample] = {
    "Linear": (lambda: nn.Linear(6, 4), _V),
    "Bilinear": (lambda: _Pair(nn.Bilinear(6, 6, 4)), _V),
    "Identity": (nn.Identity, _V),
    "Flatten": (nn.Flatten, _SERIES),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), _V),
    **_each("Conv ConvTranspose", {"1d": _SERIES, "2d": _IMAGE}, 4, 3, 3, 2),
    **_each("Conv ConvTranspose", {"3d": _VOLUME}, 2, 3, 2),
    "Unfold": (lambda: nn.Unfold(2), _IMAGE),
    "Fold": (lambda: nn.Fold((4, 4), 2, stride=2), (8, 4)),
    **_each("MaxPool AvgPool AdaptiveMaxPool AdaptiveAvgPool", _DIMS, 2),
    **_each("LPPool", _DIMS, 2, 2),
    **_each("FractionalMaxPool", {"2d": _IMAGE, "3d": _VOLUME}, 2, 2),
    "MaxUnpool2d": (lambda: _Unpooled(), _IMAGE),
    **_each("BatchNorm InstanceNorm", {"1d": _SERIES, "2d": _IMAGE}, 4),
    **_each("BatchNorm InstanceNorm", {"3d": _VOLUME}, 2),
    "LayerNorm": (lambda: nn.LayerNorm(6), _WORDS),
    "RMSNorm": (lambda: nn.RMSNorm(6), _WORDS),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), _IMAGE),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2), _IMAGE),
    **_each(_ACTIVATIONS, {"": _V}),
    "Threshold": (lambda: nn.Threshold(0.1, 0.5), _V),
    **_each("Softmax Softmin LogSoftmax", {"": _V}, 1),
    "Softmax2d": (nn.Softmax2d, _IMAGE),
    **_each("Dropout", {"": _V, **_DIMS}),
    **_each("AlphaDropout FeatureAlphaDropout", {"": _V}),
    "MultiheadAttention": (lambda: _Self(nn.MultiheadAttention(6, 2, batch_first=True)), _WORDS),
    "TransformerEncoderLayer": (lambda: _encoder(), _WORDS),
    "TransformerEncoder": (lambda: nn.TransformerEncoder(_encoder(), 2), _WORDS),
    "TransformerDecoderLayer": (lambda: _Pair(_decoder()), _WORDS),
    "TransformerDecoder": (lambda: _Pair(nn.TransformerDecoder(_decoder(), 1)), _WORDS),
    "Transformer": (lambda: _Pair(nn.Transformer(6, 2, 1, 1, 8, batch_first=True)), _WORDS),
    "LSTM": (lambda: _First(nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)), _WORDS),
    "GRU": (lambda: _First(nn.GRU(6, 4, 2, batch_first=True)), _WORDS),
    "RNN": (lambda: _First(nn.RNN(6, 4, batch_first=True)), _WORDS),
    "LSTMCell": (lambda: _First(nn.LSTMCell(6, 4)), _V),
    **_each("GRUCell RNNCell", {"": _V}, 6, 4),
    **_each("Embedding EmbeddingBag", {"": ()}, 9, 4),
    **_each("ReflectionPad ReplicationPad ZeroPad CircularPad", _DIMS, 1),
    **_each("ConstantPad", _DIMS, 1, 0.3),
    "Upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), _IMAGE),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(scale_factor=2), _IMAGE),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), _IMAGE),
    **_each("PixelShuffle PixelUnshuffle ChannelShuffle", {"": _IMAGE}, 2),
    "CosineSimilarity": (lambda: _Pair(nn.CosineSimilarity()), _V),
    "PairwiseDistance": (lambda: _Pair(nn.PairwiseDistance()), _V),
}

#: functions of torch that models call, beside those that the layers call
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "x + y, x - y, 2 - x": lambda x: (x + x.flip(1)) - (2 - x) + 0.5,
    "x * y, x / y, 1 / x": lambda x: x * x.flip(1) / (2 + x.abs()) / 3 + 1 / (3 + x**2),
    "x @ y, bmm, einsum": lambda x: torch.einsum("bi,bj->bij", x, x).bmm(x[:, :, None])[..., 0] @ _ones(x, 6, 2),
    "addmm, addcmul, addcdiv": lambda x: torch.addcdiv(
        torch.addcmul(torch.addmm(_ones(x, 6), x, _ones(x, 6, 6)), x, x), x, 2 + x.abs()
    ),
    "cat, stack, hstack, split, chunk, unbind": lambda x: torch.hstack(
        [*torch.cat([x, torch.ones_like(x)], 1).chunk(2, 1), torch.stack(x.unbind(1), 1).split(3, 1)[0]]
    ),
    "indexing, gather, index_select, roll, flip": lambda x: (
        x[:, [0, 2, 4]] + x.gather(1, _zeros(x, 3)) + x.roll(1, 1).flip(1).index_select(1, torch.arange(3))
    ),
    "masked_fill, where, clamp, maximum": lambda x: torch.maximum(
        torch.where(x > 0, x, 0.1 * x).masked_fill(x > 1, 1.0), x.clamp(-0.5, 0.5)
    ),
    "scatter, index_add, index_copy": lambda x: (
        x.scatter(1, _zeros(x, 1), 0.3 * torch.ones_like(x[:, :1]))
        .index_add(1, torch.tensor([1]), x[:, :1])
        .index_copy(1, torch.tensor([2]), x[:, 3:4])
    ),
    "y[i] = x, y[i] += x": lambda x: _written(x),
    "sum, mean, var, std, norm": lambda x: torch.stack([x.sum(1), x.mean(1), x.var(1), x.std(1), x.norm(dim=1)], 1),
    "max, amin, topk, sort": lambda x: torch.cat(
        [x.max(1).values[:, None], x.amin(1, True), x.topk(2, 1).values, x.sort(1).values[:, :2]], 1
    ),
    "cumsum, cumprod, prod, logsumexp": lambda x: x.cumsum(1) + x.cumprod(1) + x.prod(1, True) + x.logsumexp(1, True),
    "exp, log, sqrt, rsqrt, pow": lambda x: (
        (x.exp() + 1).log() + (x.abs() + 1).sqrt() + (x**2 + 1).rsqrt() + (x.abs() + 1) ** 1.5
    ),
    "sin, cos, atan, erf, round, sign": lambda x: x.sin() + x.cos() + x.atan() + x.erf() + x.round() + x.sign(),
    "fft.rfft, fft.irfft": lambda x: torch.fft.irfft(torch.fft.rfft(x)[..., :3], n=6),
    "normalize, softplus, logsigmoid": lambda x: F.normalize(x) + F.softplus(x) + F.logsigmoid(x),
    "grid_sample, pad": lambda x: F.pad(
        F.grid_sample(x.reshape(-1, 1, 2, 3), _ones(x, len(x), 2, 2, 2) / 3, align_corners=False), (1, 1), value=0.2
    ),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(
        x.reshape(-1, 1, 3, 2), x.reshape(-1, 1, 3, 2), x.reshape(-1, 1, 3, 2) + 1, is_causal=True
    ),
    "cdist, cosine_similarity": lambda x: (
        torch.cdist(x.reshape(-1, 3, 2), x.reshape(-1, 3, 2) + 1).flatten(1)
        + F.cosine_similarity(x[:, :3], x[:, 3:])[:, None]
    ),
}


def _ones(like: Tensor, *shape: int) -> Tensor:
    return torch.ones(shape, dtype=like.dtype, device=like.device)


def _zeros(like: Tensor, width: int) -> Tensor:
    return torch.zeros(len(like), width, dtype=torch.long, device=like.device)


def _encoder() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)


def _decoder() -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(6, 2, 8, batch_first=True)


def _written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] += 1
    y[:, 1:3] = 2 * x[:, 2:4]
    return y


class _Around(nn.Module):
    """A layer that is called in another way than with one tensor for one tensor."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


class _Pair(_Around):
    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x.flip(1))


class _Self(_Around):
    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x, x)[0]


class _First(_Around):
    def forward(self, x: Tensor) -> Any:
        return self.layer(x)[0]


class _Unpooled(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), [2, 2])


@dataclass(frozen=True)
class Support:
    """How one layer or group of functions was taken.

    Attributes:
        operations: by name, as in ``Coverage``.
        problem: None where the parts of a region and of its complement are the output.
    """

    operations: dict[str, str]
    problem: str | None


def try_layer(name: str) -> Support:
    """A layer of ``LAYERS`` in eval mode."""
    make, shape = LAYERS[name]
    with seeding.guarded("operators", name):
        layer = make().double().eval()
    draws = seeding.generator("operators", name)
    if not shape:
        return _tried(layer, torch.randint(9, (_BATCH, 5), generator=draws))
    return _tried(layer, torch.randn(_BATCH, *shape, generator=draws, dtype=torch.float64))


def try_function(name: str) -> Support:
    """Functions of ``FUNCTIONS``."""
    inputs = torch.randn(_BATCH, 6, generator=seeding.generator("operators", name), dtype=torch.float64)
    return _tried(FUNCTIONS[name], inputs)


def _tried(model: Callable[[Tensor], Tensor], inputs: Tensor) -> Support:
    found = coverage(model, inputs)
    if not found.ok:
        return Support(found.operations, found.problem or "an operation without a rule")
    regions = torch.rand(3, *inputs.shape[1:], generator=seeding.generator("regions")) < 0.5
    try:
        one, other = (
            contextual_decomposition(model, inputs, each, convention="shapley") for each in (regions, ~regions)
        )
    except (RightlyError, RuntimeError) as problem:
        return Support(found.operations, str(problem).split("\n")[0])
    gap = (one.relevant + other.relevant - one.outputs.unsqueeze(1)).abs().max() / one.outputs.abs().max()
    exact = bool(gap < _CLOSE) and found.gap < _CLOSE
    return Support(
        found.operations, None if exact else f"the parts miss the output by {max(float(gap), found.gap):.0e}"
    )


def untried() -> list[str]:
    """Layers of the installed torch that have no line in ``LAYERS``; containers, losses and lazy ones apart."""
    other = ("Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Container")
    names = []
    for name, cls in vars(nn).items():
        layer = isinstance(cls, type) and issubclass(cls, nn.Module) and not name.startswith(("Lazy", "_"))
        if layer and name not in LAYERS and name not in other and not name.endswith(("Loss", "Loss2d")):
            names.append(name)
    return sorted(names)


def page() -> Iterator[str]:
    """The reference page, line by line."""
    version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    yield "# Contextual decomposition: what it takes"
    yield ""
    yield "What was not tried here is not proved: `rightly check` tries your own model on a half of its input."
    yield ""
    yield "Made by running the library: `python -m rightly.workflows.operators > docs/reference/decomposition.md`."
    yield f"Torch {version}, eval mode, float64. `yes`: the parts of random regions and of their complements,"
    yield f"each found on its own under the `shapley` convention, add up to the output to {_CLOSE:.0e} of it."
    yield ""
    yield 'With `convention="reference"` what comes of the reference, r, is kept apart. Rules with an (r) know it, and'
    yield "share no constant out; in place of all others there is the game of two from r on,"
    yield "1/2 (f(r + b) - f(r) + f(t) - f(t - b)). Functions without a value everywhere have one slope for both parts,"
    yield "(f(t) - f(r)) / (t - r). All layers and functions of this page but `FractionalMaxPool` are taken."
    yield ""
    for title, names, trial in (("Layers", LAYERS, try_layer), ("Functions", FUNCTIONS, try_function)):
        yield f"## {title}"
        yield ""
        yield "| | taken | operations |"
        yield "|---|---|---|"
        for name in names:
            found = trial(name)
            yield f"| `{name}` | {found.problem or 'yes'} | {', '.join(sorted(found.operations))} |"
        yield ""
    yield f"Not tried: {', '.join(untried())}."
    yield ""
    yield "## Rules"
    yield ""
    yield "t is the total, b the relevant part, g = t - b, c a constant, s(b, g) = |b| / (|b| + |g|)."
    for title, table in (("", RULES), (", of token numbers", TOKEN_RULES)):
        grouped: dict[tuple[str, str, bool], list[str]] = {}
        for name, entry in table.items():
            grouped.setdefault((entry.formula, entry.source, entry.apart), []).append(name)
        yield ""
        yield f"| operations{title} | relevant part | source |"
        yield "|---|---|---|"
        for (formula, source, apart), members in grouped.items():
            listed = ", ".join(name if name == ANYTHING else f"`{name}`" for name in members)
            told = f"{source} (r)" if apart else source
            yield f"| {listed} | {formula.replace('|', chr(92) + '|')} | {told} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(page()) + "\n")
