"""NHANES I with deaths to 1992, as in the papers on attribution priors: ten-year mortality and its encoding.

Source: Erion et al., "Improving performance of deep learning models with axiomatic attribution priors and expected
gradients", Nature Machine Intelligence 2021, on the data set ``nhanes1_shap_subset`` of the catalogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rightly.core.errors import ArgumentError, DataError
from rightly.data.encoding import TableEncoder
from rightly.data.tables import Table, table_from_frame

if TYPE_CHECKING:
    from pandas import DataFrame

#: codes of the survey that are names
LEVELS = {
    "Race": {1: "white", 2: "black", 3: "other"},
    "Sex": {1: "male", 2: "female"},
}

QUANTILE_BINS = 5


def nhanes_mortality(frame: DataFrame, horizon: float = 10) -> Table:
    """Death within ``horizon`` years of the examination.

    A person counts as dead if they died after at most ``horizon`` years, as alive if they were seen alive then or
    later; who was lost from sight before is left out (397 of 9,932 people for ten years; 1,503 deaths among 9,535).

    Args:
        frame: ``load_frame("nhanes1_shap_subset")``: 18 measurements, ``time_years`` and ``died`` (0 or 1).
        horizon: years, positive.

    Errors:
        DataError: a column is absent, or nobody died within the horizon.
        ArgumentError: the horizon is not positive.
    """
    if not horizon > 0:
        raise ArgumentError("the horizon must be positive", expected="years", got=horizon, mend="for example 10")
    absent = [name for name in ("time_years", "died", *LEVELS) if name not in frame.columns]
    if absent:
        raise DataError(
            "this is not the NHANES I table",
            expected=f"columns {', '.join(absent)}",
            got=", ".join(map(str, frame.columns)),
            mend="pass load_frame('nhanes1_shap_subset')",
        )
    time = frame["time_years"].to_numpy(float)
    dead = (frame["died"].to_numpy() == 1) & (time <= horizon)
    known = dead | (time >= horizon)
    label = f"died within {horizon:g} years"
    rows = frame.loc[known].drop(columns=["time_years", "died"])
    for name, levels in LEVELS.items():
        rows[name] = rows[name].map(levels)
    rows[label] = np.where(dead[known], "yes", "no")
    lost = f"{int((~known).sum())} people were lost from sight alive before {horizon:g} years and left out"
    return table_from_frame(rows, label, task="classification", source="nhanes1_shap_subset", notes=[lost])


def nhanes_encoder() -> TableEncoder:
    """These columns with every number also in quintile bins: 106 features once fitted on enough training rows.

    16 standardised numbers, five bins of equal frequency for each (80), three races, two sexes and the flags of the
    five columns with missing entries. Means, bins and flags come from the rows given to ``fit``.
    """
    return TableEncoder(quantile_bins=QUANTILE_BINS)
