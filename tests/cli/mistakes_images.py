"""Mistakes in folders of pictures and in functions of one's own."""

from __future__ import annotations

from pathlib import Path

from cli.mistakes import CASES, Bad, bad, fit
from workflows.made import module, pictures

# images and annotations


@bad("no annotation", "matches a picture")
def annotations_of_nothing(folder: Path) -> list[str]:
    (folder / "regions").mkdir()
    return fit(pictures(folder / "images"), "--annotations", "regions", label=None)


@bad("there is no folder regions")
def annotations_absent(folder: Path) -> list[str]:
    return fit(pictures(folder / "images"), "--annotations", "regions", label=None)


@bad("another size")
def annotations_of_another_size(folder: Path) -> list[str]:
    pictures(folder / "other", height=9, annotations=folder / "regions")
    return fit(pictures(folder / "images"), "--annotations", "regions", label=None)


@bad("no matching picture")
def annotations_of_other_pictures(folder: Path) -> list[str]:
    pictures(folder / "other", each=12, annotations=folder / "regions")
    return fit(pictures(folder / "images"), "--annotations", "regions", label=None)


@bad("relevant", "--regions relevant")
def annotations_of_the_wrong_kind(folder: Path) -> list[str]:
    images = pictures(folder / "images", annotations=folder / "regions")
    return fit(images, "--annotations", "regions", "--prior", "energy", label=None)


@bad("cannot be read", "3.png")
def image_corrupt(folder: Path) -> list[str]:
    images = pictures(folder / "images")
    (images / "cat" / "3.png").write_bytes(b"\x89PNG and then nonsense")
    return fit(images, label=None)


@bad("cannot be read", "3.png")
def image_cut_short(folder: Path) -> list[str]:
    images = pictures(folder / "images", height=40, width=40)
    path = images / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:300])
    return fit(images, label=None)


@bad("holds no pictures", "cow")
def class_folder_empty(folder: Path) -> list[str]:
    images = pictures(folder / "images")
    (images / "cow").mkdir()
    return fit(images, label=None)


@bad("only one class")
def class_alone(folder: Path) -> list[str]:
    return fit(pictures(folder / "images", classes=("cat",)), label=None)


@bad("no class folders")
def images_loose(folder: Path) -> list[str]:
    return fit(pictures(folder / "images") / "cat", label=None)


# module:function


@bad("no module 'absent'")
def module_absent(folder: Path) -> list[str]:
    return ["fit", "absent:make_objective", "--out", "run"]


def _own(name: str, *words: str, **places: str) -> None:
    def make(folder: Path) -> list[str]:
        return ["fit", module(folder, f"bad_{name}", **places), "--seeds", "1", "--epochs", "1", "--out", "run"]

    CASES.append(Bad(f"module_{name}", words, make))


@bad("no function 'make'")
def module_without_function(folder: Path) -> list[str]:
    module(folder, "bad_functionless")
    return ["fit", "bad_functionless:make", "--out", "run"]


@bad("no module", "leave out the .py")
def module_with_suffix(folder: Path) -> list[str]:
    module(folder, "bad_suffix")
    return ["fit", "bad_suffix.py:make_objective", "--out", "run"]


@bad("no module ''")
def module_unnamed(folder: Path) -> list[str]:
    return ["check", ":make_objective"]


@bad("--prior", "own data and terms")
def module_with_prior(folder: Path) -> list[str]:
    return ["fit", module(folder, "bad_prior"), "--prior", "sparsity", "--out", "run"]


_own("returns_none", "returns something else", "NoneType", **{"return": "return None"})
_own("returns_two", "returns something else", "tuple of 2", **{"return": "return objective, (x, y)"})
_own("returns_bare_tensors", "a batch cannot be read", **{"return": "return objective, x, x, x"})
_own("without_terms", "no term", terms="[]")
_own("nan_labels", "labels", "not finite", labels="x[:, 0] * float('nan')")
_own("nan_inputs", "inputs", "not finite", labels="(x.fill_(float('inf'))[:, 0] > 0).long()")
_own("more_labels", "labels do not fit", **{"return": "return objective, (x[:9], y), (x, y), (x, y)"})
_own("wide_labels", "labels do not fit", labels="torch.ones(90, 3)")
_own("class_not_tested", "every class from 0 to 2", model="torch.nn.Linear(4, 3)")
_own("loss_unreduced", "one number", loss="torch.nn.CrossEntropyLoss(reduction='none')")
_own("regression_of_two", "one number an example", labels="x[:, 0]", loss="lambda o, y: ((o[:, 0] - y) ** 2).mean()")
_own(
    "term_detached",
    "does not depend",
    model="type('M', (torch.nn.Linear,), {'forward': lambda s, x: torch.nn.Linear.forward(s, x.detach())})(4, 2)",
)
_LINEAR = "torch.nn.Linear.forward(s, x)"
_own(
    "term_beside_parameters",
    "does not reach the parameters",
    model=f"type('M', (torch.nn.Linear,), {{'forward': lambda s, x: x[:, :2] * 3 + {_LINEAR}.detach()}})(4, 2)",
)
_own("bad_weight", "unusable weight", terms="[rt.Term(rt.Gradient(), rt.priors.L1(), weight=-1.0)]")
