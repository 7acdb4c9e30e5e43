"""Skin lesions of the ISIC archive, half of the benign ones with a coloured patch beside them; the user's own copy."""

from __future__ import annotations

from pathlib import Path

from rightly.core.errors import DataError
from rightly.data.images import Images, read_images

_LAYOUT = (
    "images/benign/*, images/malignant/* and patches/benign/*: for every picture with a patch a mask of its name and "
    "size, white on the patch"
)


def read_isic(folder: str | Path, *, size: int = 160) -> Images:
    """Read a folder laid out as named below: ``annotation`` is where the patch is, NaN throughout where there is none.

    The paper (Singh et al. 2022, section 4.3) found the patches by SLIC segmentation.

        images/benign/*      images/malignant/*      pictures
        patches/benign/*     masks of the pictures that have a patch, by the same names

    Args:
        folder: the one that holds both.
        size: height and width that all pictures are brought to; all 21,654 of them at 160 x 160 are 6.6 GB.

    Raises:
        DataError: a folder is missing, there are other classes, no picture has a patch, or a picture is damaged.
        MissingExtraError: Pillow is not installed.
    """
    root = Path(folder)
    missing = [name for name in ("images/benign", "images/malignant", "patches/benign") if not (root / name).is_dir()]
    if missing:
        raise DataError(
            f"{root} does not look like ISIC with patches",
            expected=_LAYOUT,
            got=f"no folder '{missing[0]}'",
            mend="lay it out so, and name it (rightly reproduce: --data-dir)",
        )
    found = read_images(root / "images", annotations=root / "patches", size=size)
    if found.classes != ("benign", "malignant") or found.inputs.shape[1] != 3:
        raise DataError(
            f"{root}/images does not look like ISIC",
            expected="sub-folders benign and malignant and nothing else, with pictures in colour",
            got=f"{', '.join(found.classes)}; {found.inputs.shape[1]} colour channels",
            mend="move other folders away",
        )
    return found
