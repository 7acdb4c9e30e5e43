"""Checkpoints: one safetensors file, written aside and renamed, so that a kill leaves the old one or the new one."""

from __future__ import annotations

import copy
import json
import os
import zlib
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
    copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps(facts)
    save_file(copies, aside, {"facts": text, "checksum": _checksum(copies, text)})
    with aside.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(aside, path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write`` saved. Raises ``CheckpointError`` when it cannot be read or is not what was written."""
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (no mapping)
            saved = handle.metadata() or {}
        facts = json.loads(saved["facts"])
        if saved.get("checksum") != _checksum(tensors, saved["facts"]):
            raise ValueError("the checksum does not match: the file was changed after it was written")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint {path.name} cannot be read",
            got=str(error).split("\n")[0],
            mend="delete it to start anew",
        ) from error
    return tensors, facts


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    found = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def flatten(prefix: str, state: Any, tensors: dict[str, Tensor]) -> Any:
    """Move every tensor of a nested state into ``tensors`` and return the JSON-able rest, with the names in place."""
    if isinstance(state, Tensor):
        name = prefix
        while name in tensors:  # {"a.b": x} and {"a": {"b": y}} would share a name
            name += "'"
        tensors[name] = state
        return {"tensor": name}
    if isinstance(state, Mapping):
        if wrong := [key for key in state if not isinstance(key, str | int)]:
            raise CheckpointError(f"{prefix} cannot be saved", expected="text or numbers as keys", got=wrong[0])
        # keys keep their type: optimizers number their parameters
        return {"items": [[key, flatten(f"{prefix}.{key}", value, tensors)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        kind = "list" if isinstance(state, list) else "tuple"
        return {kind: [flatten(f"{prefix}.{i}", value, tensors) for i, value in enumerate(state)]}
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
    if "tuple" in state:
        return tuple(restore(value, tensors) for value in state["tuple"])
    return state["value"]


def clone_state(module: torch.nn.Module) -> dict[str, Any]:
    """A copy of a module's state that later steps do not touch."""
    return copy.deepcopy(module.state_dict())
