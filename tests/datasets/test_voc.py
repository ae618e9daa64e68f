"""Pascal VOC: boxes, classes and splits; XML that is hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bloodseg.datasets import load_voc

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared real images")

HEIGHT, WIDTH = 20, 30
PICTURE = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
FOUR = ("background", "white", "red", "platelet")


def _object(name="RBC", box=(1, 2, 11, 12)):
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"


@pytest.fixture
def voc(tmp_path):
    """Save one image and its annotation; return the folder."""
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.fromarray(PICTURE).save(tmp_path / "images/a.png")

    def write(body, head="", name="a"):
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"{head}<annotation>{size}{body}</annotation>"
        (tmp_path / "annotations" / f"{name}.xml").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_on_the_picture_that_has_their_size(voc, save_turned, orientation):
    folder = voc(_object())
    save_turned(folder / "images/a.png", PICTURE, orientation)
    if orientation in (2, 3, 4):
        with pytest.warns(UserWarning, match=r"a\.png is to be turned for display, .* assumed"):
            data = load_voc(folder)
    else:
        data = load_voc(folder)
    np.testing.assert_array_equal(data.images[0], PICTURE)


def test_boxes_on_a_picture_as_it_is_stored(voc):
    folder = voc(_object())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(folder / "images/a.png", exif=exif)
    np.testing.assert_array_equal(load_voc(folder).images[0], PICTURE)


def test_boxes_are_read_clipped_and_counted(voc):
    boxes = [(1, 2, 11, 12), (-5, 3, 10, 99), (4, 4, 4, 4), (40, 1, 50, 9), (0.5, 1, 2, 3)]
    names = ("RBC", "WBC", "RBC", "RBC", "Platelets")
    folder = voc("".join(_object(n, b) for n, b in zip(names, boxes, strict=True)))
    data = load_voc(folder)
    np.testing.assert_array_equal(
        data.boxes[0], [[1, 2, 11, 12], [0, 3, 10, HEIGHT], [0.5, 1, 2, 3]]
    )
    assert data.labels[0].tolist() == [2, 1, 0]
    assert data.counts.tolist() == [[1, 1]]
    assert data.n_dropped.tolist() == [2]
    assert data.names == ["a"]
    assert data.groups is None
    assert data.fold is None


def test_images_without_objects_have_empty_boxes(voc):
    data = load_voc(voc(""))
    assert data.boxes[0].shape == (0, 4)
    assert data.labels[0].shape == (0,)
    assert data.counts.tolist() == [[0, 0]]


def test_other_folders_and_names_can_be_given(voc, tmp_path_factory):
    folder = voc(_object("band cell"))
    with pytest.raises(ValueError, match="class_names must say what 'band cell' is"):
        load_voc(folder)
    elsewhere = tmp_path_factory.mktemp("pictures")
    (folder / "images/a.png").rename(elsewhere / "a.png")
    data = load_voc(folder / "annotations", images=elsewhere, class_names={"Band_Cell": 1})
    assert data.counts.tolist() == [[1, 0]]
    with pytest.raises(FileNotFoundError, match=r"a\.xml has no image: there is no image a"):
        load_voc(folder, class_names={"Band_Cell": 1})
    with pytest.raises(FileNotFoundError, match="images must be a folder"):
        load_voc(folder, images=folder / "nowhere")


def test_images_may_lie_beside_their_annotations(voc):
    folder = voc(_object())
    for file in [*(folder / "annotations").iterdir(), *(folder / "images").iterdir()]:
        file.rename(folder / file.name)
    for each in ("annotations", "images"):
        (folder / each).rmdir()
    assert load_voc(folder).counts.sum() == 1


def test_groups_and_folds_come_from_split_csv(voc):
    folder = voc("")
    (folder / "split.csv").write_text("image,group,fold\na.jpg,g,3\n")
    data = load_voc(folder)
    assert data.groups.tolist() == ["g"]
    assert data.fold.tolist() == [3]
    (folder / "split.csv").write_text("image,group,fold\na,g,x\n")
    with pytest.raises(ValueError, match=r"split\.csv must have integers in the column fold"):
        load_voc(folder)


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        ("", LAUGHS, r"a\.xml must not declare a document type or entities"),
        ("", '<!DOCTYPE x SYSTEM "file:///etc/passwd">', "must not declare a document type"),
        ("<", "", r"a\.xml cannot be read as XML"),
        ("", '<?xml version="1.0" encoding="klingon"?>', "cannot be read as XML"),
        ("<object><name>RBC</name></object>", "", "object 0 must have a name and a bndbox"),
        ("<object><bndbox/></object>", "", "object 0 must have a name and a bndbox"),
        (_object(box=(1, 2, 3, "x")), "", "object 0 must have a number as ymax; got 'x'"),
        (_object(box=(1, 2, 3, "nan")), "", "must have a number as ymax"),
        (_object(box=(9, 2, 3, 4)), "", r"must have xmin <= xmax and ymin <= ymax; got \[9\.0"),
        ("<object><name>RBC</name><bndbox/></object>", "", "a number as xmin; got ''"),
    ],
)
def test_wrong_xml_is_refused(voc, body, head, message):
    with pytest.raises(ValueError, match=message):
        load_voc(voc(body, head))


def test_xml_of_other_kinds_is_refused(voc):
    file = voc("") / "annotations/a.xml"
    file.write_text("<svg><object/></svg>")
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        load_voc(file.parents[1])
    assert str(raised.value) == (
        f"{file} must have annotation as its outermost element, as Pascal VOC's files do; got svg. "
        "Move other XML files out of the folder."
    )


def test_document_types_are_found_in_any_encoding(voc):
    folder = voc("")
    file = folder / "annotations/a.xml"
    text = '<?xml version="1.0" encoding="utf-16"?>' + LAUGHS + "<annotation/>"
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="must not declare a document type"):
        load_voc(folder)


def test_a_size_of_zero_is_not_known(voc):
    folder = voc(_object())
    file = folder / "annotations" / "a.xml"
    unknown = file.read_text().replace(f">{WIDTH}<", ">0<").replace(f">{HEIGHT}<", ">0<")
    file.write_text(unknown)
    assert load_voc(folder).counts.tolist() == [[0, 1]]


def test_sizes_must_be_those_of_the_images(voc):
    folder = voc("")
    Image.fromarray(PICTURE[:, :-1]).save(folder / "images/a.png")
    with pytest.raises(ValueError, match=r"size of its image, \(20, 29\) .*; got \(20, 30\)"):
        load_voc(folder)


def test_large_and_missing_xml_is_refused(voc):
    folder = voc("")
    with (folder / "annotations/a.xml").open("r+b") as stream:
        stream.truncate(2**24 + 1)
    with pytest.raises(ValueError, match="must have at most 16,777,216 bytes"):
        load_voc(folder)
    (folder / "annotations/a.xml").unlink()
    with pytest.raises(FileNotFoundError, match="path must hold at least one XML file"):
        load_voc(folder)


@needs_shared
def test_all_of_bccd_loads():
    data = load_voc(SHARED / "bccd")
    assert len(data.images) == 299
    assert data.n_dropped.sum() == 2  # two clicks without extent
    assert data.counts.sum(axis=0).tolist() == [309, 3423]
    assert set(data.fold.tolist()) == {0, 1, 2, 3, 4}


def test_boxes_may_have_further_classes(voc):
    box = "<bndbox><xmin>{0}</xmin><ymin>2</ymin><xmax>{1}</xmax><ymax>6</ymax></bndbox>"
    body = "".join(
        f"<object><name>{name}</name>{box.format(left, left + 3)}</object>"
        for name, left in (("WBC", 1), ("Platelets", 5), ("Platelets", 9))
    )
    folder = voc(body)
    assert load_voc(folder).labels[0].tolist() == [1, 0, 0]
    data = load_voc(folder, classes=FOUR)
    assert data.labels[0].tolist() == [1, 3, 3]
    assert data.counts.tolist() == [[1, 0, 2]]
    assert data.target_names == FOUR
