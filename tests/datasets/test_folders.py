"""Folders, tables and single image files."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from bloodseg.datasets import list_images, list_pairs, load_folder, read_image, read_pair

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared real images")

PICTURE = np.random.RandomState(0).randint(0, 256, (12, 10, 3)).astype(np.uint8)
LABELS = np.random.RandomState(1).randint(0, 3, (12, 10)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Make a valid folder with the images a and b."""
    for kind, pixels in (("images", PICTURE), ("masks", LABELS)):
        (tmp_path / kind).mkdir()
        for name in "ba":
            Image.fromarray(pixels).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def test_load_folder_returns_what_was_saved(folder):
    data = load_folder(folder)
    assert data.names == ["a", "b"]
    assert data.groups is None
    assert data.target_names == ("background", "white", "red")
    for image, mask in zip(data.images, data.masks, strict=True):
        np.testing.assert_array_equal(image, PICTURE)
        np.testing.assert_array_equal(mask, LABELS)
        assert mask.dtype == np.uint8
        assert image.flags.writeable


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".TIF", ".tiff", ".bmp"])
def test_load_folder_takes_suffixes_in_any_case(folder, suffix):
    (folder / "images/a.png").unlink()
    Image.fromarray(PICTURE).save(folder / f"images/a{suffix}")
    (folder / "images/.hidden.png").touch()
    (folder / "images/Thumbs.db").touch()
    assert load_folder(folder).names == ["a", "b"]


def test_palette_masks_give_their_indices(folder):
    mask = Image.fromarray(LABELS).convert("P")
    mask.putdata(LABELS.ravel().tolist())
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(folder / "masks/a.png")
    np.testing.assert_array_equal(load_folder(folder).masks[0], LABELS)


GREYS = [(0, 0, 0), (1, 1, 1), (2, 2, 2), (255, 255, 255)]


def _save_paletted(path, indices, colours):
    mask = Image.fromarray(indices.astype(np.uint8), "L").convert("P")
    mask.putpalette([value for colour in colours for value in colour])
    mask.putdata(indices.ravel().tolist())
    mask.save(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 1, 3), (3, 2, 1, 0), (1, 2, 3, 0)])
def test_greys_that_are_labels_are_what_they_say_in_any_order(folder, order, suffix):
    labels = np.array([0, 1, 2, 255], np.uint8)[np.random.RandomState(2).randint(0, 4, (12, 10))]
    place = {GREYS[number][0]: index for index, number in enumerate(order)}
    indices = np.vectorize(place.get)(labels)
    (folder / "masks/a.png").unlink()
    _save_paletted(folder / f"masks/a.{suffix}", indices, [GREYS[number] for number in order])
    np.testing.assert_array_equal(load_folder(folder).masks[0], labels)


def test_a_mask_made_small_by_quantising(folder):
    mask = Image.fromarray(LABELS).convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
    mask.save(folder / "masks/a.png")
    np.testing.assert_array_equal(load_folder(folder).masks[0], LABELS)


@pytest.mark.parametrize(
    "colours",
    [
        [(0, 0, 0), (127, 127, 127), (255, 255, 255)],  # in order, for the eye
        [(0, 0, 0), (255, 255, 255), (127, 127, 127)],
        [(0, 0, 0), (128, 0, 0), (0, 128, 0)],
    ],
)
def test_indices_are_labels_where_0_is_black(folder, colours):
    _save_paletted(folder / "masks/a.png", LABELS, colours)
    np.testing.assert_array_equal(load_folder(folder).masks[0], LABELS)


def test_indices_are_labels_where_greys_are_in_their_order(folder):
    _save_paletted(folder / "masks/a.png", LABELS, [(10, 10, 10), (120, 120, 120), (230, 230, 230)])
    np.testing.assert_array_equal(load_folder(folder).masks[0], LABELS)


@pytest.mark.parametrize(
    "colours",
    [
        [(255, 255, 255), (127, 127, 127), (0, 0, 0)],
        [(128, 0, 0), (0, 0, 0), (0, 128, 0)],
        [(255, 255, 255), (200, 0, 0), (0, 0, 200)],
    ],
)
def test_palettes_whose_indices_are_perhaps_no_labels(folder, colours):
    _save_paletted(folder / "masks/a.png", LABELS, colours)
    with pytest.raises(ValueError, match=r"masks/a\.png has a palette whose first colour is .*not"):
        load_folder(folder)


def test_palettes_that_contradict_each_other(folder):
    """As quantising leaves coloured masks: black first, the others in any order."""
    black, red, blue = (0, 0, 0), (200, 0, 0), (0, 0, 200)
    _save_paletted(folder / "masks/a.png", LABELS, [black, red, blue])
    _save_paletted(folder / "masks/b.png", LABELS % 2, [black, red])
    assert load_folder(folder).masks[1].max() == 1
    _save_paletted(folder / "masks/b.png", LABELS % 2, [black, blue])
    with pytest.raises(
        ValueError, match=r"a\.png and .*b\.png give label 1 the colours \(200, 0, "
    ):
        load_folder(folder)


@pytest.mark.parametrize("rows", ["a,p\nb,q\n", "b.png,q\na.JPG,p\nzz,r\n", "a , p\n b,q\na,p\n"])
def test_groups_are_read_in_the_order_of_the_names(folder, rows):
    (folder / "groups.csv").write_text("\ufeffimage,group\n" + rows, encoding="utf-8")
    assert load_folder(folder).groups.tolist() == ["p", "q"]


@pytest.mark.parametrize("sign", [";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_of_spreadsheets_without_commas(folder, sign, end):
    rows = [
        ("image", "remark", "group"),
        ("a", "more, than, signs, there, are, in, all", "p"),
        ("b", "", "Nr. 2, links"),
    ]
    text = "".join(sign.join(row) + end for row in rows)
    (folder / "groups.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert load_folder(folder).groups.tolist() == ["p", "Nr. 2, links"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,group\na,p\n", r"groups\.csv must have a row for every image; got none for b"),
        ("name,group\na,p\n", r"must have the columns image, group; got name, group"),
        ("image,group\n", r"must have the columns image, group; got no rows"),
        ("image,group\na,p\na,q\nb,q\n", r"one thing about each image; row 3 says another about a"),
        ("image,group\na,\nb,q\n", r"row 2 must fill the columns"),
        ("image,group\na\nb,q\n", r"row 2 must fill the columns"),
    ],
)
def test_wrong_groups_are_refused(folder, text, message):
    (folder / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_folder(folder)


def test_groups_that_are_no_text_are_refused(folder):
    (folder / "groups.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(
        ValueError, match=r"groups\.csv cannot be read as a CSV file in UTF-8: .*CSV UTF-8\."
    ):
        load_folder(folder)


def _remove_masks(folder):
    for file in (folder / "masks").iterdir():
        file.unlink()
    (folder / "masks").rmdir()


def _remove_images(folder):
    for file in (folder / "images").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "masks/a.png").unlink(), r"images/a\.png has no label map: .*masks/a\.png"),
        (_remove_masks, r"path must be a folder with files, .*masks does not exist"),
        (_remove_images, r"images must hold at least one image"),
    ],
)
def test_missing_files_are_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(FileNotFoundError, match=message):
        load_folder(folder)


@pytest.mark.parametrize("name", ["a_mask.png", "a-1.tif", "a.jpg"])
def test_label_maps_of_other_names_are_named(folder, name):
    (folder / "masks/a.png").rename(folder / "masks" / name)
    with pytest.raises(FileNotFoundError, match=f"There is {name}, though: give a label map the"):
        load_folder(folder)


def test_a_path_that_is_no_folder_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="path must be a folder with subfolders images"):
        load_folder(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_folder(folder / "images/a.png")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (LABELS[:-1], r"a\.png must have the size of its image, \(12, 10\); got \(11, 10\)"),
        (LABELS * 127, r"labels 0 .* and 2 \(red\), or 255 .*; got 0, 127, 254\. Map your values"),
        (LABELS + np.uint8(1), r"got 1, 2, 3\. Map your values"),
        (PICTURE, r"one channel with a label a pixel; got an image of mode RGB"),
    ],
)
def test_wrong_masks_are_refused(folder, mask, message):
    Image.fromarray(mask).save(folder / "masks/a.png")
    with pytest.raises(ValueError, match=message):
        load_folder(folder)


def test_masks_may_leave_pixels_open(folder):
    open_ = LABELS.copy()
    open_[:3] = 255
    Image.fromarray(open_).save(folder / "masks" / "a.png")
    assert (load_folder(folder).masks[0][:3] == 255).all()


def test_masks_of_cells_alone_are_not_taken_for_open_ones(folder):
    for name in "ab":
        Image.fromarray(np.where(LABELS > 0, 255, 0).astype(np.uint8)).save(
            folder / "masks" / f"{name}.png"
        )
    with pytest.raises(ValueError, match=r"must have cells in its label maps.*got only 0 and 255"):
        load_folder(folder)


def test_masks_of_fractions_are_told_from_coloured_pictures(folder):
    (folder / "masks/a.png").unlink()
    Image.fromarray(LABELS.astype(np.float32)).save(folder / "masks/a.tif")
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        load_folder(folder)
    assert str(raised.value) == (
        f"{folder / 'masks/a.tif'} must hold whole numbers, one label a pixel; got floating point. "
        "Save the labels as integers, for instance with .astype(np.uint8)."
    )


def test_files_that_do_not_pair_are_refused(folder):
    Image.fromarray(LABELS).save(folder / "masks/c.png")
    with pytest.raises(ValueError, match=r"c\.png has no image"):
        load_folder(folder)
    Image.fromarray(PICTURE).save(folder / "images/a.bmp")
    with pytest.raises(ValueError, match=r"one file a name; got a\.bmp and a\.png"):
        load_folder(folder)


def test_list_pairs_reports_what_does_not_pair_and_goes_on(folder):
    Image.fromarray(LABELS).save(folder / "masks/c.png")
    Image.fromarray(PICTURE).save(folder / "images/a.bmp")
    Image.fromarray(PICTURE).save(folder / "images/d.png")
    errors = {}
    pairs = list_pairs(folder, on_error=lambda name, error: errors.update({name: str(error)}))
    assert [pair.name for pair in pairs] == ["b"]
    image, mask = read_pair(pairs[0])
    np.testing.assert_array_equal(image, PICTURE)
    np.testing.assert_array_equal(mask, LABELS)
    assert set(errors) == {"a", "c", "d"}
    assert "must hold one file a name; got a.bmp and a.png" in errors["a"]
    assert "c.png has no image" in errors["c"]
    assert "d.png has no label map" in errors["d"]


@needs_shared
def test_real_folders_load():
    train = load_folder(SHARED / "smear256" / "train")
    assert len(train.images) == 64
    assert len(set(train.groups)) < 64
    assert {image.shape for image in train.images} == {(256, 256, 3)}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depth_and_channels_survive(tmp_path, suffix, depth, channels):
    pixels = PICTURE.astype(depth) * depth(257 if depth == np.uint16 else 1)
    if channels == 1:
        stored, expected = pixels[..., 0], np.repeat(pixels[..., :1], 3, axis=2)
    else:
        opaque = np.full((12, 10, channels - 3), np.iinfo(depth).max, depth)
        stored, expected = np.concatenate([pixels[..., ::-1], opaque], axis=2), pixels
    path = tmp_path / f"image{suffix}"
    assert cv2.imwrite(str(path), stored)
    image = read_image(path)
    assert image.shape == (12, 10, 3)
    if depth == np.uint8:
        np.testing.assert_array_equal(image, expected)
    else:
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected / 65535, atol=1e-6)


def test_labels_of_an_unusual_type(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.fromarray(PICTURE).save(tmp_path / "images/a.png")
    tifffile.imwrite(tmp_path / "masks/a.tif", LABELS.astype(np.int64))
    with pytest.raises(ValueError, match="its pixels are of an unusual type"):
        load_folder(tmp_path)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_inverted_tiffs_are_turned_round(tmp_path, depth):
    ink = PICTURE[..., 0].astype(depth)
    tifffile.imwrite(tmp_path / "ink.tif", ink, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "light.tif", ~ink, photometric="minisblack")
    np.testing.assert_array_equal(
        read_image(tmp_path / "ink.tif"), read_image(tmp_path / "light.tif")
    )


def test_unusual_modes_become_rgb(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(PICTURE).convert("P").save(path)
    assert read_image(path).dtype == np.uint8
    Image.fromarray(LABELS > 0).save(path)
    assert set(np.unique(read_image(path))) == {0, 255}
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "image.jpg")
    assert read_image(tmp_path / "image.jpg").shape == (12, 10, 3)
    transparent = np.zeros((12, 10, 2), np.uint8)
    Image.fromarray(transparent).save(path)
    assert (read_image(path) == 1).all()  # laid over white


def test_exif_rotation_is_ignored(tmp_path):
    image = Image.fromarray(PICTURE)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    image.save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), PICTURE)


def _png_bytes(path):
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_files_cut_off_are_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    data = _png_bytes(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"image\{suffix} cannot be read as an image: "):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_files_cut_off_are_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 65536, (64, 64, 3)).astype("u2"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as an image: "):
        read_image(path)


@pytest.mark.parametrize("data", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a" * 9])
def test_foreign_files_are_refused(tmp_path, data):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot be read as an image: it is not a PNG, JPEG, TIFF"):
        read_image(path)


@pytest.mark.parametrize(("side", "said"), [(12_000, "12000 x 12000"), (60_000, "too many")])
def test_decompression_bombs_are_refused_by_their_header(side, said, tmp_path):
    path = tmp_path / "bomb.png"
    data = bytearray(_png_bytes(path))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = _crc(data[12:29])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"it declares {said} pixels and at most"):
        read_image(path)


def _crc(chunk):
    return zlib.crc32(bytes(chunk)).to_bytes(4, "big")


def test_several_pages_are_refused(tmp_path):
    path = tmp_path / "stack.tif"
    page = Image.fromarray(PICTURE)
    page.save(path, save_all=True, append_images=[page])
    with pytest.raises(
        ValueError, match=r"it holds 2 pages \(12 x 10, 12 x 10 pixels\) .* Save the page"
    ):
        read_image(path)


def test_read_image_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_image(tmp_path)


def test_list_images(folder):
    assert [file.name for file in list_images(folder / "images")] == ["a.png", "b.png"]
    assert list_images(str(folder / "images/a.png")) == [folder / "images/a.png"]
    with pytest.raises(FileNotFoundError, match="path must hold at least one image"):
        list_images(folder)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_images(folder / "nowhere")


FOUR = ("background", "white", "red", "platelet")


def test_further_classes_are_read_from_grey_and_paletted_label_maps(folder):
    labels = np.arange(120).reshape(12, 10) % 4
    Image.fromarray(labels.astype(np.uint8)).save(folder / "masks/a.png")
    _save_paletted(folder / "masks/b.png", labels, [(k, k, k) for k in (3, 1, 0, 2)])
    data = load_folder(folder, classes=FOUR)
    assert data.target_names == FOUR
    np.testing.assert_array_equal(data.masks[0], labels)
    np.testing.assert_array_equal(data.masks[1], np.array([3, 1, 0, 2])[labels])
    with pytest.raises(
        ValueError,
        match=r"a\.png must hold the labels 0 \(background\), 1 \(white\) and 2 \(red\), or 255 "
        r"where the class is not known; got 0, 1, 2, 3\. Map your values to these labels and save "
        r"it again, or name further classes\.",
    ):
        load_folder(folder)
    with pytest.raises(ValueError, match=r"0 \(background\) and 1 \(parasite\), or 255"):
        load_folder(folder, classes=("background", "parasite"))
    with pytest.raises(ValueError, match="classes must hold 2 to 255 different names"):
        load_folder(folder, classes=("parasite", "background"))
