"""Optional dependencies: imported when first used, and named with their extra when they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from rightly.core.errors import MissingExtraError

#: which extra brings which importable package
EXTRAS = {
    "art": "attacks",
    "gseapy": "genomics",
    "inmoose": "genomics",
    "lime": "lime",
    "matplotlib": "plot",
    "optuna": "sweep",
    "pandas": "tables",
    "PIL": "images",
    "pyarrow": "tables",
    "pywt": "wavelets",
    "scipy": "sklearn",
    "sklearn": "sklearn",
}


def require(name: str) -> ModuleType:
    """Import ``name`` (dotted names allowed) or raise ``MissingExtraError`` naming the extra to install."""
    package = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise MissingExtraError(package, EXTRAS.get(package, "all")) from None
