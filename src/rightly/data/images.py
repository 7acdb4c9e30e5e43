"""Folders of pictures, one sub-folder a class, with hand-drawn regions beside them: ``read_images``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rightly.core.errors import ArgumentError, DataError
from rightly.core.extras import require
from rightly.data.noted import note_listing
from rightly.data.pictures import SUFFIXES, Header, read_header, read_pixels

RegionKind = Literal["irrelevant", "relevant"]

MIN_PER_CLASS = 5
#: an annotation's pixel brighter than this (of 255) is inside the region
INSIDE = 127
#: more pixels than this would not fit into most machines' memory as float32
MAX_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Images:
    """N labelled pictures.

    Attributes:
        inputs: (N, C, H, W) float32 in [0, 1]; C is 1 if every picture is grey, else 3 (red, green, blue).
        labels: (N,) int64, indices in ``classes``.
        classes: the sub-folders' names, sorted.
        names: (N,) each picture's path below the folder, with ``/``.
        annotation: None, or (N, 1, H, W) float32: 1 inside the drawn region, 0 outside, NaN throughout where a
            picture has none.
        kind: what the region means: ``irrelevant`` (must not matter) or ``relevant`` (only this may matter).
        notes: sentences for a person: what was resized or ignored.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    annotation: np.ndarray | None
    kind: RegionKind
    notes: tuple[str, ...]


def read_images(
    folder: str | Path,
    *,
    annotations: str | Path | None = None,
    kind: RegionKind = "irrelevant",
    size: int | tuple[int, int] | None = None,
) -> Images:
    """Read a folder with one sub-folder of pictures for each class. Everything is sorted by name.

    Args:
        folder: holds the class folders.
        annotations: a folder with the same sub-folders; the picture there with the same name (suffix aside) is the
            region of that picture, white inside. Pictures without one are allowed.
        kind: what the regions mean.
        size: the height and width to bring all pictures to (an int for both); the most frequent one when None.

    Errors:
        DataError: a missing or empty folder or class, one class only, fewer than five pictures in a class, a
            damaged picture, or an annotation that fits no picture or has another size than its own.
        ArgumentError: an unknown ``kind`` or a size that is not positive.
        MissingExtraError: Pillow is not installed.
    """
    require("PIL.Image")
    if kind not in ("irrelevant", "relevant"):
        raise ArgumentError(
            "unknown kind of region", expected="'irrelevant' or 'relevant'", got=repr(kind), mend="choose one"
        )
    root, notes = Path(folder), list[str]()
    regions = None if annotations is None else Path(annotations)
    pictures = class_pictures(root, regions, notes)
    paths = [path for found in pictures.values() for path in found]
    drawn = {} if regions is None else _matched(root, regions, pictures)
    note_listing("pictures", [*paths, *drawn.values()])
    headers = [read_header(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        if path in drawn:
            _check_same_size(drawn[path], path, header)
    shape = _common_size(headers, size, notes)
    grey = all(header.grey for header in headers)
    _check_memory(root, len(paths), 1 if grey else 3, shape)
    return Images(
        inputs=_stack(paths, grey, shape),
        labels=np.repeat(np.arange(len(pictures)), [len(found) for found in pictures.values()]),
        classes=tuple(pictures),
        names=tuple(path.relative_to(root).as_posix() for path in paths),
        annotation=None if regions is None else _stack_regions(paths, drawn, shape),
        kind=kind,
        notes=tuple(notes),
    )


def class_pictures(root: Path, regions: Path | None, notes: list[str]) -> dict[str, list[Path]]:
    """Class name -> its pictures, both sorted. ``notes`` grows by what was ignored; see ``read_images`` for errors."""
    _check_folder(root)
    classes = [path for path in _listed(root) if path.is_dir() and not _same(path, regions)]
    if not classes:
        loose = [path for path in _listed(root) if _is_picture(path)]
        raise DataError(
            f"the folder {root} has no class folders" if loose else f"the folder {root} is empty",
            expected="one sub-folder of pictures for each class",
            got=f"{len(loose)} pictures directly inside" if loose else "no sub-folder",
            mend="sort the pictures into sub-folders named like the classes",
        )
    found = {path.name: [inner for inner in _listed(path) if _is_picture(inner)] for path in classes}
    if len(found) == 1:
        raise DataError(
            f"the folder {root} has only one class",
            expected="at least two sub-folders",
            got=f"'{classes[0].name}'",
            mend="add a sub-folder for every further class",
        )
    for name, paths in found.items():
        if len(paths) < MIN_PER_CLASS:
            raise DataError(
                f"the class folder '{name}' of {root} " + ("has too few pictures" if paths else "holds no pictures"),
                expected=f"at least {MIN_PER_CLASS} pictures ({', '.join(SUFFIXES)})",
                got=f"{len(paths)} pictures",
                mend="add pictures, or take the folder away",
            )
    ignored = [path for parent in (root, *classes) for path in _listed(parent) if not _is_picture(path)]
    ignored = [path for path in ignored if path not in classes and not _same(path, regions)]
    if ignored:
        notes.append(f"{len(ignored)} entries that are no pictures were ignored, for example '{ignored[0].name}'")
    return found


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}",
            expected="a folder with one sub-folder for each class",
            got="a file" if folder.exists() else "nothing at that place",
            mend="check the path and its spelling",
        )


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name, without hidden entries."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _is_picture(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and path.resolve() == other.resolve()


def _matched(root: Path, regions: Path, pictures: dict[str, list[Path]]) -> dict[Path, Path]:
    """Picture -> its annotation. Every annotation must belong to exactly one picture."""
    _check_folder(regions)
    owners: dict[tuple[str, str], list[Path]] = {}
    for name, paths in pictures.items():
        for path in paths:
            owners.setdefault((name, path.stem), []).append(path)
    drawn: dict[Path, Path] = {}
    folders = [path for path in _listed(regions) if path.is_dir()]
    for region in (path for inner in folders for path in _listed(inner) if _is_picture(path)):
        owner = owners.get((region.parent.name, region.stem), [])
        if len(owner) != 1 or owner[0] in drawn:
            raise DataError(
                f"the annotation {region} has no matching picture"
                if not owner
                else f"the annotation {region} does not belong to one picture alone",
                expected=f"one picture '{region.parent.name}/{region.stem}.*' in {root}, with one annotation",
                got=", ".join(path.name for path in owner) or "no picture of that name",
                mend="rename or remove the annotation",
            )
        drawn[owner[0]] = region
    if not drawn:
        raise DataError(
            f"no annotation in {regions} matches a picture",
            expected=f"pictures such as '{_example(root, pictures)}' in it",
            got="no picture in its sub-folders",
            mend="give it the same sub-folders and names as the pictures, or leave annotations out",
        )
    return drawn


def _example(root: Path, pictures: dict[str, list[Path]]) -> str:
    return next(iter(pictures.values()))[0].relative_to(root).as_posix()


def _check_same_size(region: Path, path: Path, header: Header) -> None:
    drawn = read_header(region).size
    if drawn != header.size:
        raise DataError(
            f"the annotation {region} has another size than its picture",
            expected=f"{_times(header.size)} pixels, as {path}",
            got=f"{_times(drawn)} pixels",
            mend="draw the region on the picture in its own size",
        )


def _common_size(headers: list[Header], size: int | tuple[int, int] | None, notes: list[str]) -> tuple[int, int]:
    """The size asked for, or the most frequent one (of equally frequent ones the largest)."""
    counts = Counter(header.size for header in headers)
    if size is None:
        shape = max(counts, key=lambda each: (counts[each], each[0] * each[1], each))
    else:
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise ArgumentError(
                "size must be positive", expected="an int or (height, width)", got=size, mend="for example 64"
            )
        shape = (int(height), int(width))
    resized = len(headers) - counts[shape]
    if resized:
        notes.append(f"{resized} of {len(headers)} pictures were resized to {_times(shape)} pixels (height x width)")
    return shape


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _check_memory(root: Path, count: int, channels: int, shape: tuple[int, int]) -> None:
    needed = 4 * count * channels * shape[0] * shape[1]
    if needed > MAX_BYTES:
        raise DataError(
            f"the pictures of {root} do not fit into memory in their full size",
            expected=f"at most {MAX_BYTES / 2**30:.0f} GiB",
            got=f"{count} pictures of {_times(shape)} pixels, {needed / 2**30:.1f} GiB",
            mend="pass a smaller size, for example size=224",
        )


def _stack(paths: list[Path], grey: bool, shape: tuple[int, int]) -> np.ndarray:
    inputs = np.empty((len(paths), 1 if grey else 3, *shape), dtype=np.float32)
    for row, path in enumerate(paths):
        inputs[row] = read_pixels(path, grey=grey, size=shape)
    inputs /= 255
    return inputs


def _stack_regions(paths: list[Path], drawn: dict[Path, Path], shape: tuple[int, int]) -> np.ndarray:
    regions = np.full((len(paths), 1, *shape), np.nan, dtype=np.float32)
    for row, path in enumerate(paths):
        if path in drawn:
            regions[row] = read_pixels(drawn[path], grey=True, size=shape, nearest=True) > INSIDE
    return regions
