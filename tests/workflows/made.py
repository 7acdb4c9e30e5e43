"""Small data made on the spot: tables, folders of pictures, and a module with an objective."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def table(rows: int = 120, *, seed: int = 0, noise: float = 0.2) -> pd.DataFrame:
    """Numbers ``a`` and ``b`` that matter, ``c`` that does not, a category and a score; no label yet."""
    draws = np.random.default_rng(seed)
    frame = pd.DataFrame({name: draws.normal(size=rows) for name in "abc"})
    frame["colour"] = draws.choice(["red", "green", "blue"], rows)
    frame["score"] = 2 * frame["a"] + frame["b"] + (frame["colour"] == "red") + noise * draws.normal(size=rows)
    return frame


def classes(rows: int = 120, *, seed: int = 0) -> pd.DataFrame:
    """The same with a label ``y`` in words instead of the score."""
    frame = table(rows, seed=seed)
    return frame.drop(columns="score").assign(y=np.where(frame["score"] > 0.3, "yes", "no"))


def pictures(
    root: Path,
    *,
    height: int = 8,
    width: int = 8,
    each: int = 10,
    classes: tuple[str, ...] = ("cat", "dog"),
    colour: bool = False,
    annotations: Path | None = None,
) -> Path:
    """A folder a class; the first class is bright in the middle, the others in a corner, which is the region."""
    draws = np.random.default_rng(0)
    for name in classes:
        for index in range(each):
            pixels = draws.integers(0, 60, (height, width, 3) if colour else (height, width)).astype(np.uint8)
            if name == classes[0]:
                pixels[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 220
            else:
                pixels[:3, :3] = 255
            _save(pixels, root / name / f"{index}.png")
            if annotations is not None:
                region = np.zeros((height, width), dtype=np.uint8)
                region[:3, :3] = 255
                _save(region, annotations / name / f"{index}.png")
    return root


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


#: a module for ``rightly fit module:make_objective``; the places in capitals are filled by ``module``
_MODULE = """
import torch
import rightly as rt

def make_objective(seed):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(90, 4, generator=draws)
    y = LABELS
    torch.manual_seed(0)
    model = MODEL
    terms = TERMS
    objective = rt.Objective(model, LOSS, terms)
    RETURN
"""


def module(folder: Path, name: str, **places: str) -> str:
    """Write ``name.py`` and return what names its function; ``labels``, ``model``, ``terms``, ... are code."""
    code = {
        "labels": "(x[:, 0] > 0).long()",
        "model": "torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))",
        "terms": "[rt.Term(rt.ExpectedGradients(rt.references.InBatch()), rt.priors.Sparsity(), weight=0.1)]",
        "loss": "torch.nn.functional.cross_entropy",
        "return": "return objective, (x[:50], y[:50]), (x[50:70], y[50:70]), (x[70:], y[70:])",
    } | places
    text = _MODULE
    for place, value in code.items():
        text = text.replace(place.upper(), value)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return f"{name}:make_objective"
