"""Checkpoints: one safetensors file, written aside and renamed, so that a kill leaves the old one or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rightly.core.errors import CheckpointError


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Save tensors and JSON-able facts together, atomically."""
    aside = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    # clones: safetensors refuses tensors that share memory (tied weights)
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, aside, {"facts": json.dumps(facts)}
    )
    with aside.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(aside, path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write`` saved. Raises ``CheckpointError`` when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (no mapping)
            facts = json.loads((handle.metadata() or {})["facts"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint {path.name} cannot be read",
            got=str(error).split("\n")[0],
            mend="delete it to start anew",
        ) from error
    return tensors, facts


def flatten(prefix: str, state: Any, tensors: dict[str, Tensor]) -> Any:
    """Move every tensor of a nested state into ``tensors`` and return the JSON-able rest, with the names in place."""
    if isinstance(state, Tensor):
        tensors[prefix] = state
        return {"tensor": prefix}
    if isinstance(state, Mapping):
        # keys keep their type: optimizers number their parameters
        return {"items": [[key, flatten(f"{prefix}.{key}", value, tensors)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        return {"list": [flatten(f"{prefix}.{i}", value, tensors) for i, value in enumerate(state)]}
    if state is None or isinstance(state, bool | int | float | str):
        return {"value": state}
    raise CheckpointError(f"{prefix} cannot be saved", expected="tensors, numbers, text", got=type(state).__name__)


def restore(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``flatten``."""
    if "tensor" in state:
        return tensors[state["tensor"]].clone()
    if "items" in state:
        return {key: restore(value, tensors) for key, value in state["items"]}
    if "list" in state:
        return [restore(value, tensors) for value in state["list"]]
    return state["value"]


def clone_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state that later steps do not touch."""
    return {key: value.detach().clone() for key, value in module.state_dict().items()}
