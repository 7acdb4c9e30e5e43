"""notMNIST (Bulatov 2011): the letters A to J in many typefaces; the user's own copy."""

from __future__ import annotations

from pathlib import Path

from rightly.core.errors import DataError
from rightly.data.images import Images, read_images

LETTERS = tuple("ABCDEFGHIJ")


def read_notmnist(folder: str | Path) -> Images:
    """Read ``folder/A/*.png`` to ``folder/J/*.png``, such as notMNIST_small: (N, 1, 28, 28) in [0, 1].

    The published archives hold two pictures that cannot be opened; remove what the error names.

    Raises:
        DataError: a letter's folder is missing, there are others, the pictures are in colour, or one is damaged.
        MissingExtraError: Pillow is not installed.
    """
    root = Path(folder)
    missing = [letter for letter in LETTERS if not (root / letter).is_dir()]
    if missing:
        raise DataError(
            f"{root} does not look like notMNIST",
            expected="sub-folders A to J with grey pictures of 28 x 28 pixels",
            got=f"no folder '{missing[0]}'",
            mend="unpack notMNIST_small and name its folder (rightly reproduce: --data-dir)",
        )
    found = read_images(root, size=28)
    if found.classes != LETTERS or found.inputs.shape[1] != 1:
        raise DataError(
            f"{root} does not look like notMNIST",
            expected="sub-folders A to J and nothing else, all pictures grey",
            got=f"{', '.join(found.classes)}; {found.inputs.shape[1]} colour channels",
            mend="move other folders away",
        )
    return found
