"""A large table does not need a large machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import csv

ROWS, COLUMNS, MOST_GIB = 100_000, 50, 4.0


@pytest.mark.slow
def test_a_hundred_thousand_rows(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    columns = {f"x{i}": draws.normal(size=ROWS).astype(np.float32) for i in range(COLUMNS - 1)}
    columns["y"] = (columns["x0"] + columns["x1"] > 0).astype(np.int64)
    csv.write_csv(arrow.table(columns), tmp_path / "large.csv")
    arguments = ["--label", "y", "--seeds", "1", "--weight", "1", "--epochs", "1", "--out", "run", "--quiet"]
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "rightly", "fit", "large.csv", *arguments],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    # of this child alone; RUSAGE_CHILDREN would hold the largest of all earlier ones
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    sys.stdout.write(f"{ROWS} x {COLUMNS}: peak {peak:.2f} GiB, {time.monotonic() - start:.0f} s\n")
    assert process.returncode == 0
    assert (tmp_path / "run" / "record.json").exists()
    assert peak < MOST_GIB
