"""What ``rightly list`` and ``rightly show`` print, from the registry."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import get_args

from rightly.core import registry
from rightly.core.citations import CITATIONS
from rightly.core.errors import ArgumentError
from rightly.evaluation import MEASURES, Measure
from rightly.workflows import reproduce
from rightly.workflows.choices import CHOICES

FAMILIES: tuple[registry.Family, ...] = get_args(registry.Family)


def listing(family: str | None = None) -> str:
    """All components, or those of a family, a line each."""
    if family is not None and family.rstrip("s") not in FAMILIES:
        raise ArgumentError("unknown family", expected=", ".join(FAMILIES), got=family, mend="rightly list shows all")
    chosen = FAMILIES if family is None else tuple(f for f in FAMILIES if f == family.rstrip("s"))
    blocks = []
    for name in chosen:
        entries = registry.family(name).values()
        blocks.append("\n".join([f"{name}s", *(f"  {entry.name:22} {entry.summary}" for entry in entries)]))
    if family is None:
        lines = [f"  {name:22} {choice.description}" for name, choice in CHOICES.items()]
        blocks.append("\n".join(["for rightly fit --prior", *lines]))
        lines = [f"  {name:26} {measure.summary}" for name, measure in MEASURES.items()]
        blocks.append("\n".join(["for rightly evaluate --metrics", *lines]))
    return "\n\n".join(blocks)


def description(name: str) -> str:
    """A component, a prior of ``rightly fit`` or a reproduction in full."""
    every = {(f, key): entry for f in FAMILIES for key, entry in registry.family(f).items()}
    wanted = registry.snake_case(name).replace("-", "_")
    found = [_described(entry) for (_, key), entry in every.items() if key == wanted]
    if name in CHOICES:
        found.insert(0, _offered(name))
    if wanted in MEASURES:
        found.append(_measured(MEASURES[wanted]))
    published = reproduce.names()
    if name in published:
        found.append(f"reproduction {name}\n\n{published[name]}\n\nrightly reproduce {name}")
    if not found:
        near = difflib.get_close_matches(
            name, [*CHOICES, *MEASURES, *published, *(key for _, key in every)], n=3, cutoff=0.5
        )
        raise ArgumentError(
            f"there is no component {name!r}",
            expected=", ".join(near) or "a name that rightly list shows",
            got=name,
            mend="rightly list shows all",
        )
    return "\n\n".join(found)


def _offered(name: str) -> str:
    choice = CHOICES[name]
    data = " and ".join(kind for kind, fits in (("tables", choice.tables), ("images", choice.images)) if fits)
    needs = f"what is {choice.needs} has to be marked" if choice.needs else "nothing has to be marked"
    return (
        f"rightly fit --prior {name}\n\n{choice.title.capitalize()}: {choice.description}.\n\nfor {data}; {needs}\n"
        f"weight: {choice.weight} by default\nsource: {CITATIONS[choice.citation]}"
    )


def _measured(measure: Measure) -> str:
    better = {True: "higher is better", False: "lower is better", None: "neither way is better"}
    return (
        f"measure {measure.name}\n\n{measure.summary[:1].upper()}{measure.summary[1:]}.\n\n"
        f"{better[measure.higher_is_better]}\nsource: {CITATIONS[measure.citation]}"
    )


def _described(entry: registry.Entry) -> str:
    traits = ", ".join(sorted(entry.traits)) or "none"
    head = f"{entry.family} {entry.name}\n\n{_signature(entry)}"
    return f"{head}\n\n{inspect.getdoc(entry.cls)}\n\ntraits: {traits}\nsource: {CITATIONS[entry.citation]}"


def _signature(entry: registry.Entry) -> str:
    """The constructor as a person would write it: annotations without the quotes of postponed evaluation."""
    signature = inspect.signature(entry.cls).replace(return_annotation=inspect.Signature.empty)
    return entry.cls.__name__ + re.sub(r""": (['"])(.*?)\1(?= =|,|\))""", r": \2", str(signature))


def reference_page() -> str:
    """``docs/reference/components.md``, from the registry."""
    blocks = ["# Components\n\nMade from the registry by `python -m rightly.workflows.catalogue`; do not edit by hand."]
    for family in FAMILIES:
        blocks.append(f"## {family.capitalize()}s")
        for entry in registry.family(family).values():
            traits = ", ".join(sorted(entry.traits)) or "none declared"
            text = f"```text\n{_signature(entry)}\n\n{inspect.getdoc(entry.cls)}\n```"
            blocks.append(f"### `{entry.name}`\n\n{text}\n\nTraits: {traits}. Source: {CITATIONS[entry.citation]}")
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference_page())
