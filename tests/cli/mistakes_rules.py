"""Mistakes in rules, and in what they are combined with."""

from __future__ import annotations

from pathlib import Path

from cli.mistakes import CASES, Bad, Make, bad, fit, saved
from workflows.made import module, pictures

FINE = 'ignore feature "a"'


def ruled(folder: Path, text: str, *arguments: str) -> list[str]:
    """``rightly fit`` with rules; a weight of its own would be refused."""
    (folder / "rules.toml").write_text(f"rules = '''\n{text}\n'''", encoding="utf-8")
    typed = fit(saved(folder), "--rules", "rules.toml", *arguments)
    at = typed.index("--weight")
    return typed[:at] + typed[at + 2 :]


def _text(text: str) -> Make:
    return lambda folder: ruled(folder, text)


for _name, _text_of, _words in (
    ("unreadable", 'feature "a" raises "yes"', ("line 2", '"a" cannot be followed by raises', "increases")),
    ("unknown_column", f'{FINE}\nfeature "aa" increases "yes"', ("line 3", 'no feature "aa"', 'did you mean "a"')),
    ("unknown_class", 'feature "a" increases "maybe"', ("line 2", 'no class "maybe"', '"no", "yes"')),
    ("of_a_category", 'feature "colour" increases "yes"', ("line 2", "no order", '"colour=blue"')),
    ("of_a_regression", 'feature "a" increases the prediction', ("line 2", "a regression's")),
    ("unknown_concept", f'{FINE} unless concept "old"', ("line 2", 'no concept "old"')),
    ("of_examples", 'examples "a" and "b" are alike', ("line 2", 'no example "a"', "not given")),
    ("twice", f"{FINE}\n{FINE}", ("line 3", "said in line 2 already")),
    ("unknown_level", 'feature "colour=violet" increases "yes"', ("line 2", 'no feature "colour=violet"')),
    ("of_a_weight", f"{FINE} (weight heavy)", ("line 2", "weight cannot be heavy")),
    ("none", "# later", ("line 2", "there is no rule")),
):
    CASES.append(Bad(f"rule_{_name}", _words, _text(_text_of)))


@bad("rules cannot be read", "No such file")
def rules_that_are_not_there(folder: Path) -> list[str]:
    (folder / "table.csv").unlink(missing_ok=True)
    return [argument if argument != "rules.toml" else "none.toml" for argument in ruled(folder, FINE)]


@bad("line 1", "no TOML")
def rules_that_are_no_toml(folder: Path) -> list[str]:
    typed = ruled(folder, FINE)
    (folder / "rules.toml").write_text(FINE, encoding="utf-8")
    return typed


@bad("--rules cannot be combined with --prior", "ignore feature")
def rules_and_a_prior(folder: Path) -> list[str]:
    return ruled(folder, FINE, "--prior", "sparsity")


@bad("--rules cannot be combined with --weight, --irrelevant")
def rules_and_what_they_say_themselves(folder: Path) -> list[str]:
    return ruled(folder, FINE, "--irrelevant", "a", "--weight", "2")


@bad("--rules", "belong to tables")
def rules_for_images(folder: Path) -> list[str]:
    return fit(pictures(folder / "images"), "--rules", "rules.toml", label=None)


@bad("--rules", "brings its own data")
def rules_for_a_function(folder: Path) -> list[str]:
    return ["fit", module(folder, "mine"), "--rules", "rules.toml", "--out", "run"]
