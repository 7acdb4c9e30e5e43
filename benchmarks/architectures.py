"""Which published architectures contextual decomposition takes unmodified: a page, made by trying.

    python -m benchmarks.architectures > docs/reference/decomposition-models.md

It needs torchvision and transformers, which the library does not: where one is missing, its table says so. Weights are
as drawn by the package, in float64; biases and weights of norms are moved by noise, and statistics are those of a
batch: an untrained net can give zeros or 1e11, and then relative errors say nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import rightly as rt
from rightly.attributions.decomposition.convention import Convention
from rightly.core.errors import RightlyError

#: of the largest output: how far the parts may be from it, how far where a model takes its means of squares in float32,
#: and what is too small for a check to say anything
CLOSE, SINGLE, LEAST = 1e-10, 1e-5, 1e-3
#: those that do
IN_SINGLE = ("Llama", "Mistral", "Qwen2", "T5 encoder")
#: everything divided evenly, and a share of biases as smooth as the networks are: the default's amplifies rounding
SMOOTH = Convention(relu="shapley", attention="shapley", gates="shapley", soft=1.0)
_SIDE, _WORDS, _LENGTH = 64, 30, 7


@dataclass(frozen=True)
class Tried:
    """What came out for one model, gaps over the largest output.

    Attributes:
        total: parts of a region and of its complement, each found on its own, from the output (``SMOOTH``).
        steep: the same in the ``"shapley"`` convention as it is.
        apart: the same from a reference of zeros, together with what is the reference's.
        empty, full: the part of an empty region from nothing, of a full one from the output (both conventions).
        part: how large the part of the region is.
        unknown: operations without a rule, which had to be given their two-player Shapley value.
        problem: why it could not be decomposed.
        close: how far the parts may be from the output.
    """

    total: float = float("nan")
    steep: float = float("nan")
    apart: float = float("nan")
    empty: float = float("nan")
    full: float = float("nan")
    part: float = float("nan")
    unknown: tuple[str, ...] = ()
    problem: str | None = None
    close: float = CLOSE

    @property
    def ok(self) -> bool:
        """Whether everything adds up, by rules alone, and the check says something."""
        exact = max(self.total, self.empty, self.full) <= self.close and self.part >= LEAST
        return self.problem is None and not self.unknown and exact


def calibrated(model: nn.Module, inputs: Tensor, seed: int = 0) -> nn.Module:
    """Float64, biases that matter, statistics of the data."""
    model.double()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
            if parameter.ndim < 2:
                parameter.add_(0.1 * noise)
            elif not bool(parameter.any()):  # heads that start at nothing
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            model.train()(inputs)
    return model.eval()


def try_model(model: nn.Module, inputs: Tensor, regions: tuple[int, ...], close: float = CLOSE) -> Tried:
    """Decompose the first example, the others being there for statistics; ``regions`` is their shape."""
    calibrated(model, inputs)
    one = inputs[:1]
    chosen = torch.rand(1, *regions, generator=torch.Generator().manual_seed(1)) < 0.5
    nothing = torch.zeros_like(chosen)
    masks = torch.cat([chosen, ~chosen, nothing, ~nothing])
    try:
        even = rt.contextual_decomposition(model, one, masks, convention=SMOOTH, unknown="shapley")
        steep = rt.contextual_decomposition(model, one, masks[:2], convention="shapley", unknown="shapley")
        first = rt.contextual_decomposition(model, one, masks[2:], unknown="shapley")
        apart = rt.contextual_decomposition(model, one, masks[:2], convention="reference", unknown="shapley")
    except (RightlyError, RuntimeError) as problem:
        return Tried(problem=str(getattr(problem, "got", problem)).split("\n")[0])
    size = float(even.outputs.abs().max())

    def gap(difference: Tensor) -> float:
        return float(difference.abs().max()) / size

    parts, outputs = even.relevant, even.outputs
    return Tried(
        total=gap(parts[:, 0] + parts[:, 1] - outputs),
        steep=gap(steep.relevant.sum(1) - outputs),
        apart=gap(apart.irrelevant[:, 0] - apart.relevant[:, 1]),
        empty=max(gap(parts[:, 2]), gap(first.relevant[:, 0])),
        full=max(gap(parts[:, 3] - outputs), gap(first.relevant[:, 1] - outputs)),
        part=gap(parts[:, 0]),
        unknown=tuple(sorted(name for name, how in even.operations.items() if how == "shapley")),
        close=close,
    )


#: torchvision: the smallest of each family -> what it is made with
TORCHVISION: dict[str, dict[str, Any]] = {
    "alexnet": {}, "vgg11_bn": {}, "resnet18": {}, "resnext50_32x4d": {}, "densenet121": {}, "squeezenet1_1": {},
    "googlenet": {"aux_logits": False, "init_weights": False}, "inception_v3": {"aux_logits": False,
    "init_weights": False}, "shufflenet_v2_x0_5": {}, "mobilenet_v2": {}, "mobilenet_v3_small": {}, "mnasnet0_5": {},
    "efficientnet_b0": {}, "efficientnet_v2_s": {}, "regnet_x_400mf": {}, "regnet_y_400mf": {}, "convnext_tiny": {},
    "vit_b_16": {"image_size": _SIDE}, "swin_t": {}, "swin_v2_t": {},
    "maxvit_t": {"input_size": (224, 224)},
}  # fmt: skip
#: sides of images, where 64 pixels are too few
_SIDES = {"inception_v3": 96, "maxvit_t": 224}

_TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "vocab_size": _WORDS, "max_position_embeddings": 32, "num_labels": 3, "pad_token_id": 0}  # fmt: skip
_CAUSAL = {**_TEXT, "num_key_value_heads": 1, "use_cache": False}
_VISION = {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 24, "num_labels": 3}  # fmt: skip
#: transformers: (name of the model's class, of its configuration, settings, side of images or None for tokens)
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any], int | None]] = {
    "BERT": ("BertForSequenceClassification", "BertConfig", _TEXT, None),
    "DistilBERT": ("DistilBertForSequenceClassification", "DistilBertConfig",
                   {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": _WORDS,
                    "max_position_embeddings": 32, "num_labels": 3}, None),
    "RoBERTa": ("RobertaForSequenceClassification", "RobertaConfig", _TEXT, None),
    "ELECTRA": ("ElectraForSequenceClassification", "ElectraConfig", {**_TEXT, "embedding_size": 16}, None),
    "ALBERT": ("AlbertForSequenceClassification", "AlbertConfig", {**_TEXT, "embedding_size": 8}, None),
    "DeBERTa v2": ("DebertaV2ForSequenceClassification", "DebertaV2Config",
                   {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                    "max_relative_positions": 8}, None),
    "GPT-2": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": _WORDS,
              "n_positions": 32, "use_cache": False}, None),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", _CAUSAL, None),
    "Mistral": ("MistralForCausalLM", "MistralConfig", _CAUSAL, None),
    "Qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _CAUSAL, None),
    "GPT-NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_TEXT, "use_cache": False}, None),
    "OPT": ("OPTForCausalLM", "OPTConfig", {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": _WORDS, "max_position_embeddings": 32,
            "word_embed_proj_dim": 16, "use_cache": False}, None),
    "T5 encoder": ("T5EncoderModel", "T5Config", {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2,
                   "num_heads": 2, "vocab_size": _WORDS}, None),
    "ViT": ("ViTForImageClassification", "ViTConfig", _VISION, 16),
    "DeiT": ("DeiTForImageClassification", "DeiTConfig", _VISION, 16),
    "Swin": ("SwinForImageClassification", "SwinConfig", {"image_size": 16, "patch_size": 2, "embed_dim": 8,
             "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "num_labels": 3}, 16),
    "ConvNeXt": ("ConvNextForImageClassification", "ConvNextConfig", {"hidden_sizes": [8, 8], "depths": [1, 1],
                 "num_stages": 2, "num_labels": 3, "patch_size": 2}, 16),
    "ResNet": ("ResNetForImageClassification", "ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 8],
               "depths": [1, 1], "layer_type": "basic", "num_labels": 3}, 16),
}  # fmt: skip


def try_torchvision(name: str) -> Tried:
    """A classifier of ``TORCHVISION``; ``ImportError`` without the package."""
    made = importlib.import_module("torchvision.models")
    side = _SIDES.get(name, _SIDE)
    with _seeded():
        model = made.get_model(name, weights=None, num_classes=10, **TORCHVISION[name])
    return try_model(model, _draws(4, 3, side, side), (1, side, side))


class _Answer(nn.Module):
    """The tensor of what a Hugging Face model returns."""

    def __init__(self, model: nn.Module, given: str) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(**{self.given: x})
        return found.logits if hasattr(found, "logits") else found.last_hidden_state


def try_transformers(name: str) -> Tried:
    """An architecture of ``TRANSFORMERS`` with random weights; ``ImportError`` without the package."""
    made = importlib.import_module("transformers")
    cls, config, settings, side = TRANSFORMERS[name]
    with _seeded():
        model = getattr(made, cls)(getattr(made, config)(**settings))
    if side:
        return try_model(_Answer(model, "pixel_values"), _draws(4, 3, side, side), (1, side, side))
    tokens = torch.randint(3, _WORDS, (4, _LENGTH), generator=torch.Generator().manual_seed(2))
    return try_model(_Answer(model, "input_ids"), tokens, (_LENGTH,), SINGLE if name in IN_SINGLE else CLOSE)


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _draws(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def page() -> Iterator[str]:
    """The reference page, line by line."""
    yield "# Contextual decomposition of published architectures"
    yield ""
    yield "Made by trying: `python -m benchmarks.architectures > docs/reference/decomposition-models.md`."
    version = torch.__version__.split("+")[0]
    yield f"Torch {version}, unmodified models, eval mode, float64, random weights, biases, and statistics of a"
    yield "batch. Gaps are over the largest output: of the parts of a region and of its complement, each found on its"
    yield "own, from the output (everything divided evenly, with `soft=1`, with the default, 0.01, and with biases"
    yield "apart from a reference of zeros, which shares nothing out and needs no `soft`); of the part of an empty"
    yield "region from nothing, and of that of a full one from the output (`first`, and evenly with `soft=1`)."
    yield f"`yes`: none but those with 0.01 and from a reference above {CLOSE:.0e} ({SINGLE:.0e} where the model takes"
    yield f"its means of squares in float32: {', '.join(IN_SINGLE)}), the part of the region at least"
    yield f"{LEAST:g} of the output, and every operation decomposed by a rule or by its own body."
    yield ""
    yield "In deep networks of small steps the default amplifies rounding (decision 13): take `Convention(soft=0.1)` of"
    yield "`rightly.attributions.decomposition` there, above all in float32, and look at `stability=True`; or keep"
    yield "biases apart."
    yield ""
    yield "Models without biases make nothing of zeros, and their norms divide by next to nothing there: each amplifies"
    yield "what rounding leaves a thousandfold (Llama, Mistral). They want another reference, as a mean word"
    yield "(`space=rt.spaces.Layer(...)`, `reference=rt.references.Sample(...)`)."
    tables: list[tuple[str, Iterable[str], Callable[[str], Tried]]] = [
        ("torchvision", TORCHVISION, try_torchvision),
        ("transformers", TRANSFORMERS, try_transformers),
    ]
    for package, names, trial in tables:
        yield ""
        yield f"## {package}"
        yield ""
        try:
            found = importlib.import_module(package).__version__.split("+")[0]
        except ImportError as problem:
            yield f"Not tried: {problem}."
            continue
        yield f"Version {found}."
        yield ""
        yield "| | taken | two parts | with 0.01 | biases apart | empty | full | the part | operations without a rule |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for name in names:
            yield _line(name, trial(name))


def _line(name: str, found: Tried) -> str:
    if found.problem is not None:
        return f"| {name} | **no**: {found.problem} | | | | | | | |"
    told = "yes" if found.ok else "**no**"
    gaps = " | ".join(f"{gap:.0e}" for gap in (found.total, found.steep, found.apart, found.empty, found.full))
    return f"| {name} | {told} | {gaps} | {found.part:.2f} | {', '.join(found.unknown) or '-'} |"


if __name__ == "__main__":
    for line in page():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
