"""A user's copy of ISIC: its layout is checked before anything is trained, and masks belong to their pictures."""

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import DataError


def write(folder, classes=("benign", "malignant"), masks=("benign",), count=40, colour=True):
    """Pictures of 24 x 32 pixels; every other one of the ``masks`` classes has a patch in its upper left corner."""
    image = pytest.importorskip("PIL.Image")
    draws = np.random.default_rng(0)
    for name in classes:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(count):
            pixels = draws.integers(0, 255, (24, 32, 3) if colour else (24, 32)).astype(np.uint8)
            image.fromarray(pixels).save(folder / "images" / name / f"{number:02}.png")
    for name in masks:
        (folder / "patches" / name).mkdir(parents=True)
        for number in range(0, count, 2):
            mask = np.zeros((24, 32), np.uint8)
            mask[:12, :8] = 255
            image.fromarray(mask).save(folder / "patches" / name / f"{number:02}.png")
    return folder


def test_pictures_and_masks_are_read(tmp_path):
    found = rt.data.read_isic(write(tmp_path), size=16)
    assert found.inputs.shape == (80, 3, 16, 16)
    assert found.classes == ("benign", "malignant")
    known = ~np.isnan(found.annotation).any(axis=(1, 2, 3))
    assert known.tolist() == [True, False] * 20 + [False] * 40
    assert (found.annotation[known].sum(axis=(1, 2, 3)) == 8 * 4).all()
    assert (found.annotation[known][:, 0, :8, :4] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"classes": ("benign",)}, "no folder 'images/malignant'"), ({"masks": ()}, "no folder 'patches/benign'"),
     ({"colour": False}, "1 colour"), ({"classes": ("benign", "malignant", "unknown")}, "nothing else")],
)  # fmt: skip
def test_another_layout_is_named(arguments, said, tmp_path):
    with pytest.raises(DataError, match=said):
        rt.data.read_isic(write(tmp_path, **arguments))


def test_the_recipe_takes_the_users_copy(tmp_path):
    from rightly.report import read_record
    from rightly.workflows.reproduce import reproduce

    with pytest.raises(DataError, match="--data-dir"):
        reproduce("cdep-patches", out=tmp_path / "none", dataset="isic", smoke=True, progress=False)
    folder = write(tmp_path / "lesions")
    made = reproduce("cdep-patches", out=tmp_path / "run", dataset="isic", data_dir=folder, smoke=True, progress=False)
    record = read_record(made)
    assert record["data"]["name"].startswith("ISIC")
    assert record["data"]["split"] == {"train": 64, "validation": 8, "test": 8}
    # nobody has pictures with the patch on the other class
    assert set(record["runs"]["cdep"]["metrics"]["test"]) == {"auc_all", "auc_bare", "f1_all", "f1_bare"}
