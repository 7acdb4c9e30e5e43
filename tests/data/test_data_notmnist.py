"""A user's copy of notMNIST: its layout is checked before anything is trained."""

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import DataError

LETTERS = "ABCDEFGHIJ"


def write(folder, letters=LETTERS, count=5, colour=False):
    image = pytest.importorskip("PIL.Image")
    draws = np.random.default_rng(0)
    for letter in letters:
        (folder / letter).mkdir(parents=True)
        for number in range(count):
            pixels = draws.integers(0, 255, (28, 28, 3) if colour else (28, 28)).astype(np.uint8)
            image.fromarray(pixels).save(folder / letter / f"{number}.png")
    return folder


def test_letters_are_read(tmp_path):
    found = rt.data.read_notmnist(write(tmp_path))
    assert found.inputs.shape == (50, 1, 28, 28)
    assert found.classes == tuple(LETTERS)
    assert (np.bincount(found.labels) == 5).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"letters": ""}, "no folder 'A'"), ({"letters": "ABC"}, "no folder 'D'"), ({"colour": True}, "3 colour"),
     ({"letters": LETTERS + "K"}, "nothing else")],
)  # fmt: skip
def test_another_layout_is_named(arguments, said, tmp_path):
    with pytest.raises(DataError, match=said):
        rt.data.read_notmnist(write(tmp_path, **arguments))


def test_the_recipe_takes_the_users_copy(tmp_path):
    from rightly.report import read_record
    from rightly.workflows.reproduce import reproduce

    with pytest.raises(DataError, match="--data-dir"):
        reproduce("notmnist-attacks", out=tmp_path / "none", dataset="notmnist", smoke=True, progress=False)
    folder = write(tmp_path / "letters", count=12)
    made = reproduce(
        "notmnist-attacks", out=tmp_path / "run", dataset="notmnist", data_dir=folder, smoke=True, progress=False
    )
    record = read_record(made)
    assert record["data"]["name"] == "notMNIST"
    assert record["data"]["split"] == {"train": 96, "validation": 12, "test": 12}
