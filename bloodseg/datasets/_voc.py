"""Boxes in Pascal VOC's XML."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from sklearn.utils import Bunch

from .._images import CLASS_NAMES, check_classes
from ._files import (
    check_class_map,
    check_folder,
    check_labels_known,
    class_of,
    find_annotations,
    find_pictures,
    read_bytes,
    read_table,
)
from ._slides import read_as_drawn_on
from ._weak import within_image
from ._xml import parse_xml

_MAX_XML_BYTES = 2**24
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LOGGER = logging.getLogger("bloodseg")


def load_voc(
    path: str | os.PathLike,
    images: str | os.PathLike | None = None,
    class_names: Mapping[str, str | int] | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> Bunch:
    """Load images and boxes around cells, annotated in the format of Pascal VOC.

    Parameters
    ----------
    path : str or path-like
        A folder with ``annotations/*.xml`` (or ``Annotations``, or the XML files themselves). A
        file ``split.csv`` with the columns image, group and fold may say which images belong
        together and to which fold.
    images : str or path-like, optional
        Folder of the images; by default ``images`` or ``JPEGImages`` in ``path``, or else ``path``
        itself, as LabelImg leaves images beside their XML files. An image goes
        with the XML file of its own name; the paths inside of the XML files are not followed.
    class_names : mapping from str to str or int, optional
        Classes of object names, or their numbers, beside those that are known: RBC, WBC, Platelets
        (where they are no class, background), and the like; see `load_labelme`.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        images : list of ndarray of shape (H, W, 3)
            RGB, uint8; or float32 in [0, 1] for files of 16 bits a channel.
        boxes : list of ndarray of shape (k, 4), float64
            xmin, ymin, xmax, ymax in pixels as the file has them, cut off at the image's borders.
        labels : list of ndarray of shape (k,), int
            Places in ``classes``: by default 0 background (platelets), 1 white cells, 2 red cells.
        counts : ndarray of shape (n, n_classes - 1), int
            Boxes of each class, by default of white and red cells.
        n_dropped : ndarray of shape (n,), int
            Boxes without area inside the image, which are left out: stray clicks.
        names : list of str
            Names of the XML files without suffix; all lists are sorted by them.
        groups : ndarray of str of shape (n,), or None
            Which images belong together; None without ``split.csv``.
        fold : ndarray of int of shape (n,), or None
            Fold of each image for cross-validation; None without ``split.csv``.
        target_names : tuple of str
            ``classes``.

    Raises
    ------
    FileNotFoundError
        If a folder or an image is missing.
    ValueError
        If a file is damaged, not Pascal VOC's, or declares entities, sizes differ, or a name has
        no class.

    Warns
    -----
    UserWarning
        If an image is to be turned for display, and its XML file does not tell whether its boxes
        were drawn on it so.

    References
    ----------
    .. [1] M. Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, International
       Journal of Computer Vision 88 (2010), 303-338.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import load_voc
    >>> box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    >>> text = f"<annotation><object><name>WBC</name>{box}</object></annotation>"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "images").mkdir()
    ...     imsave(f"{folder}/images/a.png", np.zeros((9, 9), np.uint8), check_contrast=False)
    ...     _ = (Path(folder) / "a.xml").write_text(text)
    ...     data = load_voc(folder)
    >>> data.boxes[0], data.counts
    (array([[1., 2., 5., 6.]]), array([[1, 0]]))
    """
    names = check_classes(classes)
    known = check_class_map(class_names, names, name="class_names")
    folder = check_folder(path, holds="annotations/*.xml and images")
    files = _find_annotations(folder)
    pictures = find_pictures(folder, images)
    for name, file in files.items():
        if name not in pictures:
            raise FileNotFoundError(f"{file} has no image: there is no image {name}. Add it.")
    objects = {name: _read_objects(file) for name, file in files.items()}
    found = [label for _, items in objects.values() for label, _ in items]
    check_labels_known(found, known, names, name="class_names")
    data = Bunch(images=[], boxes=[], labels=[])
    dropped = []
    for name, (declared, items) in objects.items():
        image = read_as_drawn_on(pictures[name], declared, told_by=files[name])
        _check_declared_size(files[name], declared, image.shape[:2])
        labels = [class_of(label, known) or 0 for label, _ in items]
        boxes, kept, n_dropped = within_image([box for _, box in items], labels, image.shape[:2])
        data.images.append(image)
        data.boxes.append(boxes)
        data.labels.append(kept)
        dropped.append(n_dropped)
        if dropped[-1]:
            _LOGGER.info("%s: %d boxes without area left out.", files[name], dropped[-1])
    counts = [np.bincount(labels, minlength=len(names))[1:] for labels in data.labels]
    data.update(counts=np.array(counts, np.int64), n_dropped=np.array(dropped, np.int64))
    data.update(names=list(files), target_names=names, **_read_split(folder, list(files)))
    return data


def _find_annotations(folder: Path) -> dict[str, Path]:
    places = [folder / "annotations", folder / "Annotations", folder]
    place = next(place for place in places if place.is_dir())
    return find_annotations(place, ".xml", holds="annotations/*.xml and images", kind="XML file")


def _read_objects(file: Path) -> tuple[tuple[int, int] | None, list[tuple[str, list[float]]]]:
    """Return the declared (height, width), if any, and each object's name and box."""
    root = parse_xml(read_bytes(file, limit=_MAX_XML_BYTES), name=str(file))
    if root.tag != "annotation":
        raise ValueError(
            f"{file} must have annotation as its outermost element, as Pascal VOC's files do; "
            f"got {root.tag[:60]}. Move other XML files out of the folder."
        )
    size = root.find("size")
    declared = None
    if size is not None:
        height, width = (_number(size, field, f"{file}, size") for field in ("height", "width"))
        declared = (int(height), int(width))
    objects = []
    for index, item in enumerate(root.findall("object")):
        where = f"{file}, object {index}"
        name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        if not name or box is None:
            raise ValueError(f"{where} must have a name and a bndbox.")
        corners = [_number(box, corner, where) for corner in _CORNERS]
        if corners[0] > corners[2] or corners[1] > corners[3]:
            raise ValueError(
                f"{where} must have xmin <= xmax and ymin <= ymax; got {corners}. "
                "Swap the corners if they were written in the wrong order."
            )
        objects.append((name, corners))
    return declared, objects


def _number(parent: ElementTree.Element, field: str, where: str) -> float:
    text = parent.findtext(field)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} must have a number as {field}; got {(text or '')[:60]!r}.")
    return value


def _check_declared_size(
    file: Path, declared: tuple[int, int] | None, actual: tuple[int, ...]
) -> None:
    # (0, 0) is how some tools write "unknown".
    if declared is not None and declared != (0, 0) and declared != actual:
        raise ValueError(
            f"{file} must declare the size of its image, {tuple(actual)} (height, width); "
            f"got {declared}. Its boxes belong to another size of the image."
        )


def _read_split(folder: Path, names: list[str]) -> dict[str, np.ndarray | None]:
    table = folder / "split.csv"
    if not table.exists():
        return {"groups": None, "fold": None}
    columns = read_table(table, ["group", "fold"], names)
    try:
        fold = columns["fold"].astype(np.int64)
    except ValueError as error:
        raise ValueError(f"{table} must have integers in the column fold: {error}.") from error
    return {"groups": columns["group"], "fold": fold}
