"""``import rightly`` loads what torch loads and our own files: no optional or slow package comes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

HEAVY = {
    *("sklearn", "pandas", "scipy", "matplotlib", "PIL", "pyarrow", "rich", "typer", "jinja2"),
    *("torchvision", "captum", "lightning", "transformers", "ray", "optuna"),
}


def packages_after(statement: str) -> set[str]:
    """The top-level packages that a new Python holds once it has run the statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    began = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=240)
    assert answer.returncode == 0, answer.stderr
    print(f"{statement}: {time.monotonic() - began:.1f} s")
    return set(json.loads(answer.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def torch_alone() -> set[str]:
    return packages_after("import torch")


def test_rightly_loads_nothing_heavy(torch_alone: set[str]) -> None:
    loaded = packages_after("import rightly")
    assert {"rightly", "torch"} <= loaded
    assert not (loaded - torch_alone) & HEAVY


def test_a_heavy_import_would_be_seen(torch_alone: set[str]) -> None:
    """Every install has jinja2 and typer: were rightly to import them, the test above would fail."""
    loaded = packages_after("import torch, jinja2, typer")
    assert {"jinja2", "typer"} <= (loaded - torch_alone) & HEAVY
