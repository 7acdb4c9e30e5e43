"""Sanity checks: an explanation that does not change with the model or the labels explains neither."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations

from rightly.core import seeding
from rightly.core.batch import Model
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.evaluation.similarity import rank_correlation

Similarity = Callable[[Tensor, Tensor], Tensor]
Mode = Literal["cascading", "independent"]


@dataclass(frozen=True)
class Randomised:
    """How alike explanations stayed, (B,), when ``layer`` (and all behind it, if cascading) was randomised."""

    layer: str
    similarity: Tensor


def randomisable(model: nn.Module) -> list[str]:
    """Layers with parameters of their own, the output's first (in the order of their definition, turned round)."""
    own = [name for name, part in model.named_modules() if any(True for _ in part.parameters(recurse=False))]
    return own[::-1]


def model_randomisation(
    model: nn.Module,
    explain: Callable[[Model], Tensor],
    *,
    mode: Mode = "cascading",
    similarity: Similarity = rank_correlation,
    seed: int = 0,
) -> list[Randomised]:
    """Explanations of the model against those of copies with random layers (Adebayo et al. 2018).

    Args:
        model: is not changed.
        explain: model -> attributions (B, *F), with the same draws and the same classes at every call.
        mode: ``"cascading"`` keeps what was randomised before, from the output to the input; ``"independent"``
            randomises one layer at a time.
        similarity: (first, second) -> (B,); see ``similarity``.
        seed: of the random layers.

    Returns:
        One entry a layer, the output's first. A method that explains the model drops to no similarity.

    A layer is initialised anew if it knows how (``reset_parameters``); otherwise its values change places at random.
    """
    if mode not in ("cascading", "independent"):
        raise ArgumentError("unknown mode", expected="cascading, independent", got=repr(mode))
    names, before = _layers(model), explain(model)
    changed, found = copy.deepcopy(model), []
    for name in names:
        if mode == "independent":
            changed = copy.deepcopy(model)
        _randomise(changed.get_submodule(name), seed, name)
        found.append(Randomised(name, similarity(before, explain(changed))))
    return found


def randomised_copy(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy with all layers randomised: the last model of the cascade, where the steps to it are not asked for."""
    changed = copy.deepcopy(model)
    for name in _layers(model):
        _randomise(changed.get_submodule(name), seed, name)
    return changed


def _layers(model: nn.Module) -> list[str]:
    if not isinstance(model, nn.Module) or not (names := randomisable(model)):
        raise ArgumentError("nothing to randomise", expected="a module with parameters", got=type(model).__name__)
    return names


def _randomise(layer: nn.Module, seed: int, name: str) -> None:
    reset = getattr(layer, "reset_parameters", None)
    with torch.no_grad(), seeding.guarded("random layer", seed, name):
        if callable(reset):
            reset()
            return
        generator = seeding.generator("random layer", seed, name)
        for parameter in layer.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def without_biases(model: nn.Module) -> nn.Module:
    """A copy whose biases are all zero: what explanations make of features alone.

    Methods that share biases out among features, as contextual decomposition does, can be far from Shapley values,
    which leave them to the empty input, for no other reason. Biases are told by their names (``bias``, ``bias_ih_l0``,
    ``in_proj_bias``, all of a list or dict of parameters ``biases``; a parametrised one is made an ordinary
    parameter). A bias by another name stays, and so do running means of batch norm and learned positions.

    Raises:
        ArgumentError: there is no bias.
    """
    changed = copy.deepcopy(model)
    for module in changed.modules():
        for name in [name for name in getattr(module, "parametrizations", {}) if "bias" in name]:
            remove_parametrizations(module, name)
    own = [value for name, value in _parameters(changed) if "bias" in name]
    if not own:
        raise ArgumentError("no bias to take away", expected="parameters named bias", got=type(model).__name__)
    with torch.no_grad():
        for value in own:
            value.zero_()
    return changed


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter by the name that its module gives it; one of a list or dict by that one's name as well."""
    for path, module in model.named_modules():
        listed = isinstance(module, nn.ParameterList | nn.ParameterDict)
        for name, value in module.named_parameters(recurse=False):
            yield f"{path.rpartition('.')[2]}.{name}" if listed else name, value


def label_randomisation(
    train: Callable[[Tensor], Model],
    labels: Tensor,
    explain: Callable[[Model], Tensor],
    *,
    similarity: Similarity = rank_correlation,
    seed: int = 0,
) -> Tensor:
    """Explanations of a model trained on true labels against one trained on the same labels in random order.

    Adebayo et al. (2018), data randomisation: both models have to be trained to fit their labels.

    Args:
        train: labels (N,) -> a trained model; has to be the same function of them at every call.
        labels: (N, ...), true ones.
        explain: model -> attributions (B, *F), with the same draws and the same classes at every call.

    Returns:
        (B,). A method that explains what was learned from the labels shows no similarity.
    """
    order = torch.randperm(len(labels), generator=seeding.generator("random labels", seed))
    return similarity(explain(train(labels)), explain(train(labels[order.to(labels.device)])))


@dataclass(frozen=True)
class Control:
    """A measure of place beside the same measure against regions that mean nothing.

    Attributes:
        values: (B,), against the annotation.
        control: (B,), mean over the repeats against random regions.
    """

    values: Tensor
    control: Tensor


def random_annotation_control(
    measure: Callable[[Tensor, Tensor], Tensor],
    attributions: Tensor,
    region: Tensor,
    *,
    kind: Literal["other", "place"] = "other",
    repeats: int = 10,
    seed: int = 0,
) -> Control:
    """What a measure of localisation gives for regions that do not belong to the example.

    Args:
        measure: (attributions (B, *F), region (B, *F)) -> (B,), such as ``energy_pointing_game``.
        attributions: (B, *F).
        region: (B, *F) boolean.
        kind: ``"other"`` takes the region of another example, which keeps what regions have in common (digits lie in
            the middle); ``"place"`` takes as many features anywhere.
        repeats: random regions an example.
    """
    check_count("repeats", repeats)
    made = {"other": others_regions, "place": placed_anywhere}
    if kind not in made:
        raise ArgumentError("unknown control", expected=", ".join(made), got=repr(kind))
    region = region.expand(attributions.shape)
    draws = [measure(attributions, made[kind](region, seed=seed + k)) for k in range(repeats)]
    return Control(measure(attributions, region), torch.stack(draws).nanmean(0))


def others_regions(region: Tensor, *, seed: int = 0) -> Tensor:
    """Regions (B, *F) dealt to other examples at random; nobody keeps his own (of one example, it does)."""
    order = torch.randperm(len(region), generator=seeding.generator("random annotation", seed)).to(region.device)
    # along a random round trip through all examples everyone gets the next one's
    dealt = torch.empty_like(region)
    dealt[order] = region[order.roll(1)]
    return dealt


def placed_anywhere(region: Tensor, *, seed: int = 0) -> Tensor:
    """As many features (B, *F) in random places."""
    flat = region.flatten(1)
    draws = torch.rand(flat.shape, generator=seeding.generator("random places", seed))
    return flat.gather(1, draws.argsort(1).to(flat.device)).reshape(region.shape)
