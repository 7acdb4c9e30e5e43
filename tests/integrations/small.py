"""Small tables and short trainings that the tests of the scikit-learn estimators share."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: a training of about 0.1 s; the weight is given, so that there is one training and not ten
QUICK = {"weight": 0.05, "n_samples": 1, "hidden": (16,), "epochs": 15, "lr": 0.02, "batch_size": 32, "random_state": 0}


def numbers(rows: int = 120, columns: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) normal numbers; the class is decided by the first two."""
    X = np.random.default_rng(seed).normal(size=(rows, columns))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


def mixed(rows: int = 160, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Columns of every kind with missing entries; the class hangs on ``age``, ``smoker`` and ``town``."""
    draws = np.random.default_rng(seed)
    age = draws.normal(50, 10, rows)
    town = draws.choice(["Bern", "Genf", "Zug"], rows)
    smoker = draws.random(rows) < 0.5
    score = (age - 50) / 10 + smoker * 1.0 + (town == "Zug") * 1.5 - 1
    frame = pd.DataFrame(
        {
            "age": np.where(draws.random(rows) < 0.1, np.nan, age),
            "town": pd.Series(town, dtype=object).where(draws.random(rows) > 0.1, None),
            "smoker": smoker,
            "grade": pd.Categorical(draws.choice(["low", "high"], rows)),
            "visits": pd.array(draws.integers(0, 5, rows), dtype="Int64"),
            "constant": 7,
        }
    )
    return frame, np.where(score > 0, "ill", "well")


def shortcut(rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Column 0 tells the class nearly always, column 1 often, column 2 never."""
    draws = np.random.default_rng(seed)
    y = draws.integers(0, 2, rows)
    signs = 2.0 * y - 1
    X = draws.normal(size=(rows, 3))
    X[:, 0] += 3 * signs
    X[:, 1] += signs
    return X, y
