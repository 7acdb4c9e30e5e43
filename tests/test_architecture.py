"""The walls between the rooms, and what no room does: rules over the syntax trees of ``src/rightly``.

A rule takes a path inside ``src/rightly`` and the source text, and returns what breaks it. To add one: write the
function, give it a line in ``RULES``, and plant a defect in ``tests/controls/architecture.py`` that it must find.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from controls.architecture import KEPT, PLANTED

SOURCE = Path(__file__).resolve().parents[1] / "src" / "rightly"

#: Which rooms a room may import; core and itself it always may. Moving a wall needs a note in docs/decisions/.
WALLS: dict[str, set[str]] = {
    "core": set(),
    "data": set(),
    "spaces": set(),
    "references": set(),
    "models": set(),
    "perturbations": set(),
    "attributions": {"spaces", "references"},
    "priors": set(),
    "objectives": {"spaces", "references", "attributions", "priors", "perturbations"},
    "rules": {"spaces", "references", "attributions", "priors", "objectives"},
    "training": {"objectives", "models"},
    "discovery": {"objectives", "training", "attributions", "spaces"},
    "distillation": {"objectives", "training", "attributions", "spaces"},
    "evaluation": {"spaces", "references", "attributions", "perturbations"},
    "report": set(),
}
LIBRARY = set(WALLS)
WALLS["workflows"] = LIBRARY  # the jobs that a command runs
OUTER = {"integrations", "studio", "cli"}
WALLS |= {room: {*LIBRARY, "workflows", *OUTER} for room in OUTER}

#: Files outside the rooms, for users; no room imports them.
FACADES = {"__init__.py", "__main__.py", "recipes.py", "functional.py"}

#: Optional or slow to import: loaded when first used, so that ``import rightly`` costs what torch costs.
HEAVY = {
    *("sklearn", "pandas", "scipy", "matplotlib", "PIL", "pyarrow", "pywt", "rich", "typer", "jinja2"),
    *("torchvision", "captum", "zennit", "lightning", "pytorch_lightning", "transformers", "skorch", "ray", "optuna"),
    *("art", "gseapy", "inmoose", "lime", "skimage"),
}
HEAVY_ALLOWED = {"cli": HEAVY, "integrations": HEAVY, "report": {"jinja2"}}

DIFFERENTIATES = {
    *("torch.autograd.grad", "torch.autograd.backward", "torch.autograd.functional", "torch.autograd.forward_ad"),
    *("torch.autograd.gradcheck", "torch.autograd.gradgradcheck", "torch.func", "functorch"),
}
PICKLES = {
    *("pickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib.load", "joblib.dump"),
    *("torch.load", "torch.save", "torch.jit.load", "torch.jit.save", "pandas.read_pickle"),
}
GLOBAL_RANDOM = {
    *("torch.manual_seed", "torch.seed", "torch.set_rng_state", "torch.random", "numpy.random", "random"),
    *("torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.cuda.seed", "torch.cuda.set_rng_state"),
}
OWN_RANDOM = {
    *("numpy.random.default_rng", "numpy.random.Generator", "numpy.random.BitGenerator", "numpy.random.PCG64"),
    *("numpy.random.SeedSequence", "numpy.random.RandomState", "random.Random"),
}
DRAWS = {
    *("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.normal", "torch.bernoulli"),
    *("torch.multinomial", "torch.poisson", "torch.rand_like", "torch.randn_like", "torch.randint_like"),
}
NEVER_RUN = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
MAX_LINES = 400


# ---- reading a source


class Import(NamedTuple):
    """One imported thing: ``from a import b`` is ``a.b``, a relative import is spelt out."""

    line: int
    name: str
    deferred: bool  # inside a function: not run when the module is imported
    typing_only: bool  # under ``if TYPE_CHECKING``: never run


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def room_of(path: str) -> str:
    """The folder directly under ``src/rightly``; empty for a file that stands there itself."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: str, source: str) -> Iterator[Import]:
    yield from _imports(parsed(source), path, deferred=False, typing_only=False)


def _imports(node: ast.AST, path: str, *, deferred: bool, typing_only: bool) -> Iterator[Import]:
    for name in _imported_names(node, path):
        yield Import(getattr(node, "lineno", 0), name, deferred, typing_only)
    for child in ast.iter_child_nodes(node):
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(node, ast.If) and child in node.body and ast.unparse(node.test) in NEVER_RUN
        yield from _imports(child, path, deferred=deferred or inside, typing_only=typing_only or guarded)


def _imported_names(node: ast.AST, path: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{_absolute(node, path)}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in ("import_module", "__import__", "require"):
            return [str(node.args[0].value)]
    return []


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if node.level == 0:
        return node.module or ""
    package = ["rightly", *PurePosixPath(path).parts[:-1]]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def uses(source: str) -> Iterator[tuple[int, str, ast.AST]]:
    """Every name that comes from an import, spelt out: after ``import numpy as np``, ``np.load`` is numpy.load."""
    tree, known = parsed(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            for alias, name in zip(node.names, _imported_names(node, ""), strict=True):
                whole = isinstance(node, ast.ImportFrom) or alias.asname
                known[alias.asname or alias.name.split(".")[0]] = name if whole else name.split(".")[0]
                yield node.lineno, name, node
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            head, *rest = ast.unparse(node).split(".")
            if head in known and all(part.isidentifier() for part in rest):
                yield node.lineno, ".".join([known[head], *rest]), node


def calls(source: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call))


def is_in(name: str, group: set[str]) -> bool:
    """Whether a dotted name is one of the group or lies inside one: torch.func.grad is in torch.func."""
    parts = name.split(".")
    return any(".".join(parts[:k]) in group for k in range(1, len(parts) + 1))


# ---- the rules


def walls(path: str, source: str) -> list[str]:
    room = room_of(path)
    if not room:
        return [] if path in FACADES else [f"{path}: a file outside the rooms that is no facade"]
    if room not in WALLS:
        return [f"{path}: {room}/ is no room of the table"]
    found = [(line, _wall(room, name)) for line, name, _, _ in imports(path, source)]
    return [f"{path}:{line} {wrong}" for line, wrong in found if wrong]


def _wall(room: str, name: str) -> str:
    head, *rest = name.split(".")
    if head != "rightly":
        return ""
    if not rest or rest[0] not in WALLS:
        return f"{room} imports the facade: {name}"
    return "" if rest[0] in {room, "core", *WALLS[room]} else f"{room} imports {rest[0]}: {name}"


def autodiff(path: str, source: str) -> list[str]:
    if path == "core/autodiff.py":
        return []
    return [f"{path}:{line} {name}" for line, name, _ in uses(source) if is_in(name, DIFFERENTIATES)]


def backward(path: str, source: str) -> list[str]:
    if path == "core/autodiff.py" or room_of(path) == "training":
        return []
    return [f"{path}:{call.lineno} {ast.unparse(call)}" for call in calls(source) if _method(call) == "backward"]


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def unpickled(path: str, source: str) -> list[str]:
    named = [f"{path}:{line} {name}" for line, name, _ in uses(source) if is_in(name, PICKLES)]
    written = [f"{path}:{call.lineno} to_pickle" for call in calls(source) if _method(call) == "to_pickle"]
    return named + written + [f"{path}:{line} allow_pickle" for line in _allow_pickle(source)]


def _allow_pickle(source: str) -> list[int]:
    words = [(call.lineno, word) for call in calls(source) for word in call.keywords]
    return [line for line, word in words if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"]


def evaluated(path: str, source: str) -> list[str]:
    names = {"eval", "exec", "builtins.eval", "builtins.exec"}
    return [f"{path}:{call.lineno} {ast.unparse(call)}" for call in calls(source) if ast.unparse(call.func) in names]


def asserts(path: str, source: str) -> list[str]:
    found = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.Assert)]
    return [f"{path}:{node.lineno} {ast.unparse(node)}" for node in found]


def light(path: str, source: str) -> list[str]:
    forbidden = HEAVY - HEAVY_ALLOWED.get(room_of(path), set())
    run = [found for found in imports(path, source) if not (found.deferred or found.typing_only)]
    return [f"{path}:{found.line} {found.name}" for found in run if found.name.split(".")[0] in forbidden]


def length(path: str, source: str) -> list[str]:
    lines = len(source.splitlines())
    return [f"{path}: {lines} lines"] if lines > MAX_LINES else []


def global_random(path: str, source: str) -> list[str]:
    if path == "core/seeding.py":
        return []
    found = [(line, name) for line, name, _ in uses(source) if is_in(name, GLOBAL_RANDOM)]
    modules = {"random", "numpy.random", "torch.random"}  # importing one is fine, taking from it is not
    return [f"{path}:{line} {name}" for line, name in found if name not in modules and not is_in(name, OWN_RANDOM)]


def own_draws(path: str, source: str) -> list[str]:
    if room_of(path) == "models":  # layers are initialised as torch does it, from the global state
        return []
    drawn = {id(node): name for _, name, node in uses(source) if name in DRAWS}
    bare = [call for call in calls(source) if id(call.func) in drawn and not _has_generator(call)]
    return [f"{path}:{call.lineno} {drawn[id(call.func)]} without a generator" for call in bare]


def _has_generator(call: ast.Call) -> bool:
    return any(word.arg == "generator" and ast.unparse(word.value) != "None" for word in call.keywords)


Rule = Callable[[str, str], list[str]]
RULES: dict[Rule, str] = {
    walls: "a room imports only what the table lets it; no room imports a facade",
    autodiff: "only core/autodiff.py differentiates",
    backward: "only training/ calls .backward()",
    unpickled: "nothing is pickled or unpickled",
    evaluated: "no text is run as code",
    asserts: "user data meets named errors; an assert vanishes under python -O",
    light: "optional and slow packages are imported when first used",
    length: f"no file is longer than {MAX_LINES} lines",
    global_random: "the global random state belongs to the user; only core/seeding.py touches it",
    own_draws: "a draw takes its generator",
}
BY_NAME = {rule.__name__: rule for rule in RULES}


# ---- the tests


def library_files() -> dict[str, str]:
    paths = sorted(SOURCE.rglob("*.py"))
    return {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_library_keeps_the_rule(name: str) -> None:
    rule = BY_NAME[name]
    broken = [text for path, source in library_files().items() for text in rule(path, source)]
    assert not broken, f"{RULES[rule]}:\n" + "\n".join(broken)


def numbered(entries: list[tuple[str, str, str]]) -> list[object]:
    return [pytest.param(*entry, id=f"{entry[0]}-{number}") for number, entry in enumerate(entries)]


@pytest.mark.parametrize(("name", "path", "source"), numbered(PLANTED))
def test_the_rule_finds_what_is_planted(name: str, path: str, source: str) -> None:
    assert BY_NAME[name](path, source), f"{name} does not see: {source[:80]}"


@pytest.mark.parametrize(("name", "path", "source"), numbered(KEPT))
def test_the_rule_lets_honest_code_pass(name: str, path: str, source: str) -> None:
    assert not BY_NAME[name](path, source)


def test_every_rule_has_controls_of_both_kinds() -> None:
    assert {name for name, _, _ in PLANTED} == set(BY_NAME)
    assert {name for name, _, _ in KEPT} == set(BY_NAME)


def test_the_walk_sees_the_library() -> None:
    files = library_files()
    assert len(files) >= 60  # raise it as the library grows: a walk that sees nothing keeps every rule
    assert {"__init__.py", "core/errors.py", "core/autodiff.py", "core/seeding.py"} <= set(files)


def test_the_table_lets_nothing_run_back() -> None:
    """Among the library rooms the table has no cycle, and nothing but the outer rooms reaches an outer one."""
    reached: set[str] = set()
    while ready := {room for room in LIBRARY - reached if WALLS[room] <= reached}:
        reached |= ready
    assert reached == LIBRARY
    assert not any(WALLS[room] & {"workflows", *OUTER} for room in (*LIBRARY, "workflows"))
