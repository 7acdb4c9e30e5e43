"""Folders of pictures: shapes, colours, sizes and regions, and one clear error for each bad folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rightly.core.errors import ArgumentError, DataError
from rightly.data import read_images

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")


def draw(path: Path, value: object, size: tuple[int, int] = (6, 4), mode: str = "L") -> Path:
    """A picture of one colour; ``size`` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), value).save(path)
    return path


def folder(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 5, suffix: str = ".png") -> Path:
    for index, name in enumerate(classes):
        for number in range(count):
            draw(root / name / f"{number}{suffix}", 40 * index + number)
    return root


def region(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    """White in the upper half, black below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, dtype=np.uint8)
    pixels[: size[0] // 2] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_a_folder_per_class_is_read_in_order_of_names(tmp_path):
    images = read_images(folder(tmp_path))
    assert images.inputs.shape == (10, 1, 6, 4)
    assert images.inputs.dtype == np.float32
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0] * 5 + [1] * 5
    assert images.classes == ("cat", "dog")
    assert images.names[:2] == ("cat/0.png", "cat/1.png")
    np.testing.assert_array_equal(images.inputs[6], np.float32(41) / np.float32(255) * np.ones((1, 6, 4), np.float32))
    assert images.annotation is None
    assert images.notes == ()


def test_reading_twice_gives_the_same_bits(tmp_path):
    one, two = read_images(folder(tmp_path)), read_images(tmp_path)
    assert one.inputs.tobytes() == two.inputs.tobytes()
    assert one.names == two.names


def test_one_coloured_picture_makes_all_coloured(tmp_path):
    draw(folder(tmp_path) / "cat" / "0.png", (255, 0, 51), mode="RGB")
    images = read_images(tmp_path)
    assert images.inputs.shape == (10, 3, 6, 4)
    np.testing.assert_allclose(images.inputs[0, :, 0, 0], [1, 0, 0.2], rtol=1e-6)
    assert np.ptp(images.inputs[1], axis=0).max() == 0


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("LA", (255, 9)), ("I;16", 65535)])
def test_every_kind_of_grey_is_one_channel(tmp_path, mode, value):
    draw(folder(tmp_path) / "cat" / "0.png", value, mode=mode)
    images = read_images(tmp_path)
    assert images.inputs.shape[1] == 1
    assert (images.inputs[0] == 1).all()


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (255, 0, 0, 255)), ("P", 0), ("CMYK", (0, 255, 255, 0))])
def test_every_kind_of_colour_is_three_channels(tmp_path, mode, value):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    draw(folder(tmp_path) / "cat" / f"9{suffix}", value, mode=mode)
    assert read_images(tmp_path).inputs.shape == (11, 3, 6, 4)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    path = folder(tmp_path) / "cat" / "0.png"
    picture = Image.new("P", (4, 6), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(path, transparency=b"\x00\xff")
    np.testing.assert_allclose(read_images(tmp_path).inputs[0, :, 0, 0], [1, 0, 0])


def test_other_sizes_are_brought_to_the_most_frequent_one(tmp_path):
    draw(folder(tmp_path) / "dog" / "0.png", 200, size=(12, 8))
    images = read_images(tmp_path)
    assert images.inputs.shape == (10, 1, 6, 4)
    assert images.notes == ("1 of 10 pictures were resized to 6 x 4 pixels (height x width)",)
    np.testing.assert_allclose(images.inputs[5], 200 / 255, rtol=1e-6)


@pytest.mark.parametrize(("size", "shape"), [(8, (8, 8)), ((3, 5), (3, 5))])
def test_a_size_that_is_given_is_taken(tmp_path, size, shape):
    images = read_images(folder(tmp_path), size=size)
    assert images.inputs.shape == (10, 1, *shape)
    assert "10 of 10" in images.notes[0]


def test_pictures_are_turned_upright(tmp_path):
    path = folder(tmp_path) / "cat" / "0.png"
    turned = Image.new("L", (6, 4), 9)
    tags = Image.Exif()
    tags[0x0112] = 6
    turned.save(path, exif=tags)
    assert read_images(tmp_path).notes == ()


def test_what_is_no_picture_is_ignored_and_told(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / ".thumb.png").write_text("x")
    images = read_images(tmp_path)
    assert len(images.labels) == 10
    assert images.notes == ("2 entries that are no pictures were ignored, for example 'README.md'",)


def test_regions_belong_to_the_pictures_of_their_names(tmp_path):
    folder(tmp_path / "in", suffix=".jpg")
    region(tmp_path / "regions" / "dog" / "3.png")
    images = read_images(tmp_path / "in", annotations=tmp_path / "regions", kind="relevant")
    assert images.kind == "relevant"
    assert images.annotation.shape == (10, 1, 6, 4)
    assert images.annotation.dtype == np.float32
    assert images.annotation[8, 0].tolist() == [[1] * 4] * 3 + [[0] * 4] * 3
    assert np.isnan(np.delete(images.annotation, 8, axis=0)).all()


def test_regions_are_resized_with_their_pictures_and_stay_black_and_white(tmp_path):
    draw(folder(tmp_path / "in") / "dog" / "0.png", 200, size=(12, 8))
    region(tmp_path / "regions" / "dog" / "0.png", size=(12, 8))
    images = read_images(tmp_path / "in", annotations=tmp_path / "regions")
    assert images.annotation[5, 0].tolist() == [[1] * 4] * 3 + [[0] * 4] * 3


def test_only_more_than_half_bright_is_inside(tmp_path):
    folder(tmp_path / "in")
    draw(tmp_path / "regions" / "cat" / "0.png", 127)
    draw(tmp_path / "regions" / "cat" / "1.png", 128)
    images = read_images(tmp_path / "in", annotations=tmp_path / "regions")
    assert images.annotation[:2].mean(axis=(1, 2, 3)).tolist() == [0, 1]


def test_an_annotation_folder_among_the_classes_is_no_class(tmp_path):
    folder(tmp_path)
    region(tmp_path / "annotations" / "cat" / "0.png")
    images = read_images(tmp_path, annotations=tmp_path / "annotations")
    assert images.classes == ("cat", "dog")
    assert images.notes == ()


def absent(root: Path) -> Path:
    return root / "absent"


def a_file(root: Path) -> Path:
    return draw(root / "a.png", 1)


def empty(root: Path) -> Path:
    return root


def loose(root: Path) -> Path:
    for number in range(6):
        draw(root / f"{number}.png", number)
    return root


def one_class(root: Path) -> Path:
    return folder(root, classes=("cat",))


def empty_class(root: Path) -> Path:
    folder(root)
    (root / "bird").mkdir()
    return root


def small_class(root: Path) -> Path:
    folder(root)
    draw(root / "bird" / "0.png", 1)
    return root


def junk(root: Path) -> Path:
    folder(root)
    (root / "cat" / "2.png").write_bytes(b"no picture")
    return root


def cut(root: Path) -> Path:
    path = folder(root) / "cat" / "2.png"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:500])
    return root


BAD = {
    "absent": (absent, ["there is no folder", "check the path"]),
    "file": (a_file, ["is not a folder"]),
    "empty": (empty, ["is empty", "one sub-folder"]),
    "no classes": (loose, ["has no class folders", "6 pictures directly inside", "sort the pictures"]),
    "one class": (one_class, ["only one class", "'cat'"]),
    "empty class": (empty_class, ["'bird'", "holds no pictures"]),
    "small class": (small_class, ["'bird'", "too few pictures", "at least 5", "1 pictures"]),
    "junk": (junk, ["cannot be read", "2.png"]),
    "cut": (cut, ["cannot be read", "2.png"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_gives_one_clear_error(tmp_path, case):
    make, said = BAD[case]
    with pytest.raises(DataError) as caught:
        read_images(make(tmp_path))
    assert caught.value.mend
    for part in said:
        assert part in str(caught.value)


BAD_REGIONS = {
    "absent": (lambda d: None, ["there is no folder"]),
    "empty": (lambda d: d.mkdir(), ["no annotation", "matches a picture", "cat/0.png"]),
    "directly inside": (lambda d: region(d / "0.png"), ["no annotation", "the same sub-folders"]),
    "other size": (lambda d: region(d / "cat" / "0.png", (5, 4)), ["another size", "6 x 4", "5 x 4"]),
    "no picture": (lambda d: region(d / "cat" / "x.png"), ["no matching picture", "cat/x.*", "rename or remove"]),
    "no class": (lambda d: region(d / "bird" / "0.png"), ["no matching picture", "bird/0.*"]),
    "two regions": (
        lambda d: [region(d / "cat" / f"0.{suffix}") for suffix in ("png", "bmp")],
        ["does not belong to one picture alone"],
    ),
    "junk": (lambda d: (region(d / "cat" / "0.png"), (d / "cat" / "1.png").write_bytes(b"x")), ["cannot be read"]),
}


@pytest.mark.parametrize("case", BAD_REGIONS)
def test_bad_annotations_give_one_clear_error(tmp_path, case):
    make, said = BAD_REGIONS[case]
    make(tmp_path / "regions")
    with pytest.raises(DataError) as caught:
        read_images(folder(tmp_path / "in"), annotations=tmp_path / "regions")
    assert caught.value.mend
    for part in said:
        assert part in str(caught.value)


def test_two_pictures_cannot_share_a_region(tmp_path):
    draw(folder(tmp_path / "in") / "cat" / "0.bmp", 1)
    region(tmp_path / "regions" / "cat" / "0.png")
    with pytest.raises(DataError, match=r"0\.bmp, 0\.png"):
        read_images(tmp_path / "in", annotations=tmp_path / "regions")


def test_pictures_beyond_the_memory_are_refused_before_they_are_decoded(tmp_path):
    with pytest.raises(DataError, match="pass a smaller size"):
        read_images(folder(tmp_path), size=30_000)


def test_bad_arguments_are_told(tmp_path):
    folder(tmp_path)
    with pytest.raises(ArgumentError, match="relevant"):
        read_images(tmp_path, kind="mask")
    with pytest.raises(ArgumentError, match="positive"):
        read_images(tmp_path, size=0)
