"""The command ``./run bench``."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases
from benchmarks.harness import metadata, stamp
from benchmarks.page import target_table
from benchmarks.schema import validate

_BUILD = Path(__file__).parents[1] / "build"


#: keeps freed memory in the process: a fresh page from the system costs more than what is computed in it, in some
#: machines ten times as much, and which step is given fresh pages is chance
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked, writing the file after every case; 2 for a wrong argument."""
    asked = _parser().parse_args(argv)
    if asked.list:
        _say("\n".join(cases.names()))
        return 0
    torch.set_num_threads(asked.threads or torch.get_num_threads())
    device = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    settings = cases.Settings(asked.quick, device, asked.options, asked.peer)
    out = asked.out or _BUILD / f"benchmarks-{device.type}{'-quick' * asked.quick}.json"
    head = {"schema": 1, "quick": asked.quick, "machine": metadata(device), "peers": _peers(asked.peer)}
    results: dict[str, Any] = {**head, "cases": {}}
    if out.exists():
        results = json.loads(out.read_text(encoding="utf-8"))
        validate(results)
        if differ := [key for key in head if results[key] != head[key]]:
            _say(f"{out} was measured otherwise ({', '.join(differ)}): give another --out")
            return 2
    for name in asked.only or [name for name in cases.names() if name not in results["cases"]]:
        _say(f"{name} ...")
        began = time.monotonic()
        found = cases.run(name, settings)
        results["cases"][name] = {**found, **stamp(), "seconds": round(time.monotonic() - began, 1)}
        results["cases"] = {known: results["cases"][known] for known in cases.names() if known in results["cases"]}
        validate(results)
        _write(out, results)
        _say(_short(found))
    _say("\n".join(["", *target_table(results), "", f"written to {out}"]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench", description="Speed and memory; see docs/benchmarks.md.")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="few repeats: a look, not a measurement")
    parser.add_argument(
        "--only", action="append", choices=cases.names(), metavar="NAME", help="this case, also anew; repeatable"
    )
    parser.add_argument("--out", type=Path, help="result file; finished cases in it are kept (default: build/)")
    parser.add_argument("--peer", type=Path, metavar="FILE", help="pytorch_ops.py of suinleelab/attributionpriors")
    parser.add_argument("--options", action="store_true", help="also bf16, channels-last and compiled steps")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    return parser


def _peers(file: Path | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("captum", "shap", "acd"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["attributionpriors"] = file and "sha256 " + hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return found


def _short(found: dict[str, Any]) -> str:
    lines = []
    for name, variant in found["variants"].items():
        if "refused" in variant:
            text = f"refused: {variant['refused']}"
        elif "ratio" in variant:
            error = variant.get("gradient_error")
            text = f"{variant['ratio']['median']:6.2f} x {found.get('base', 'plain')}"
            text += f" {variant['megabytes']:8.1f} MB" if "megabytes" in variant else ""
            text += "" if error is None else f"   error {error:.1e}"
        elif "rate" in variant:
            text = f"{variant['rate']['median']:.3g} {found['unit']}, {variant.get('evaluations', '')}"
        else:
            text = ", ".join(f"{n}: {e:.3f}" for n, e in zip(variant["evaluations"], variant["error"], strict=True))
        lines.append(f"  {name:30} {text}")
    if "floor" in found:
        lines.append(f"  {'(floor)':30} {found['floor']:6.2f} x plain")
    return "\n".join(lines)


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.platform == "linux" and not set(_MEMORY) <= set(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], {**_MEMORY, **os.environ})
    sys.exit(main())
