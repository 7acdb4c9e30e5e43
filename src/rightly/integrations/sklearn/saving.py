"""Estimators on disk: one safetensors file with JSON in it, written aside and renamed; nothing is unpickled."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from rightly.core import registry
from rightly.core.errors import ArgumentError, CheckpointError
from rightly.data import TableEncoder
from rightly.integrations.sklearn.learning import Network
from rightly.models import mlp
from rightly.training import Candidate, WeightChoice, checkpoint

FILE = "estimator.safetensors"
SCHEMA = 1

_E = TypeVar("_E")
Tensors = dict[str, Tensor]

#: fitted attributes that JSON holds as they are, and those that are arrays; an estimator has some of them
_PLAIN = ("n_features_in_", "weight_", "history_", "n_iter_", "seed_", "layers_", "y_mean_", "y_scale_")
_ARRAYS = ("background_", "feature_importances_")


def save(estimator: Any, folder: Path) -> Path:
    """Write a fitted estimator. Raises ``ArgumentError`` for an argument that cannot be described."""
    if estimator.layers_ is None:
        raise ArgumentError(
            "a network of one's own cannot be saved as data",
            expected="network=None with hidden=(...), which describe the network",
            got="a function",
            mend="pickle the estimator, or keep network_.state_dict() and the function",
        )
    tensors: Tensors = {f"network.{key}": value for key, value in estimator.network_.inner.state_dict().items()}
    for name in _ARRAYS:
        tensors[name] = torch.tensor(getattr(estimator, name))
    parameters = estimator.get_params(deep=False)
    facts = {
        "rightly": "sklearn",
        "schema": SCHEMA,
        "class": type(estimator).__name__,
        "arguments": {name: _describe(name, value, tensors) for name, value in parameters.items()},
        "encoder": estimator.encoder_.to_json(),
        "fitted": {name: getattr(estimator, name) for name in _PLAIN if hasattr(estimator, name)},
        "choice": None if estimator.weight_choice_ is None else asdict(estimator.weight_choice_),
        "classes": _labels(getattr(estimator, "classes_", None)),
        "names": list(getattr(estimator, "feature_names_in_", [])),
    }
    checkpoint.write(folder / FILE, tensors, facts)
    return folder / FILE


def load(cls: type[_E], folder: Path) -> _E:
    """The estimator in ``folder``. Raises ``CheckpointError`` for anything but a ``cls`` that ``save`` wrote."""
    if not (folder / FILE).is_file():
        raise CheckpointError("there is no saved estimator here", expected=f"a folder with {FILE}", got=str(folder))
    tensors, facts = checkpoint.read(folder / FILE)
    found = (facts.get("rightly"), facts.get("schema"), facts.get("class"))
    if found != ("sklearn", SCHEMA, cls.__name__):
        raise CheckpointError(
            "this is another kind of file", expected=f"a {cls.__name__}, schema {SCHEMA}", got=f"{found[2]} {found[1]}"
        )
    try:
        return _restored(cls, tensors, facts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            "the saved estimator is damaged", got=f"{type(error).__name__}: {error}", mend="fit and save it again"
        ) from error


def _restored(cls: type[_E], tensors: Tensors, facts: dict[str, Any]) -> _E:
    estimator: Any = cls(**{name: _rebuild(value, tensors) for name, value in facts["arguments"].items()})
    for name, value in facts["fitted"].items():
        if name in _PLAIN:
            setattr(estimator, name, value)
    for name in _ARRAYS:
        setattr(estimator, name, tensors[name].numpy())
    if facts["names"]:
        estimator.feature_names_in_ = np.array(facts["names"], dtype=object)
    if facts["classes"] is not None:
        estimator.classes_ = np.array(facts["classes"]["values"], dtype=facts["classes"]["dtype"])
    estimator.weight_choice_ = _choice(facts["choice"])
    estimator.encoder_ = TableEncoder.from_json(facts["encoder"])
    layers = estimator.layers_
    inner = mlp(layers["n_in"], layers["hidden"], layers["n_out"], seed=0).double()
    inner.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("network.")})
    estimator.network_ = Network(inner, layers["n_out"]).eval()
    return estimator  # type: ignore[no-any-return]


def _choice(saved: dict[str, Any] | None) -> WeightChoice | None:
    if saved is None:
        return None
    tried = tuple(Candidate(**candidate) for candidate in saved["candidates"])
    return WeightChoice(saved["weight"], saved["reason"], tried)


def _labels(classes: np.ndarray | None) -> dict[str, Any] | None:
    if classes is None:
        return None
    values = classes.tolist()
    if classes.dtype.kind not in "biufUO" or not all(isinstance(v, str | int | float) for v in values):
        raise ArgumentError(
            "these classes cannot be saved", expected="text, numbers or truth values", got=classes.dtype
        )
    return {"values": values, "dtype": "O" if classes.dtype.kind == "O" else classes.dtype.str}


def _describe(name: str, value: Any, tensors: Tensors) -> Any:
    """An argument as JSON; tensors go to ``tensors``. Components are described by their registered names."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_describe(f"{name}.{index}", part, tensors) for index, part in enumerate(value)]}
    if isinstance(value, Tensor):
        tensors[f"arguments.{name}"] = value
        return {"tensor": f"arguments.{name}"}
    family = next((f for f in get_args(registry.Family) if _registered(f, value)), None)
    known = [] if family is None else list(inspect.signature(type(value)).parameters)
    if family is None or not all(hasattr(value, argument) for argument in known):
        raise ArgumentError(
            f"the argument {name} cannot be saved as data",
            expected="numbers, text, tensors, and rightly's own components that keep their arguments",
            got=type(value).__name__,
            mend="pickle the estimator, or choose the component by its name",
        )
    arguments = {argument: _describe(f"{name}.{argument}", getattr(value, argument), tensors) for argument in known}
    return {"family": family, "name": registry.name_of(value), "arguments": arguments}


def _registered(family: registry.Family, value: Any) -> bool:
    entry = registry.family(family).get(registry.name_of(value))
    return entry is not None and entry.cls is type(value)


def _rebuild(saved: dict[str, Any], tensors: Tensors) -> Any:
    """The inverse of ``_describe``."""
    if "value" in saved:
        return saved["value"]
    if "tuple" in saved:
        return tuple(_rebuild(part, tensors) for part in saved["tuple"])
    if "list" in saved:
        return [_rebuild(part, tensors) for part in saved["list"]]
    if "tensor" in saved:
        return tensors[saved["tensor"]]
    arguments = {name: _rebuild(value, tensors) for name, value in saved["arguments"].items()}
    return registry.find(saved["family"], saved["name"]).cls(**arguments)
