"""The one door for annotated images: finds out how they are annotated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from .._files import expanded
from .._images import CLASS_NAMES
from ._coco import is_coco, load_coco
from ._files import MASK_SUFFIXES, files_in, group_by_stem, read_json, read_table
from ._folder import list_pairs, load_folder
from ._geojson import load_geojson
from ._instances import load_instances, read_instances_of
from ._labelme import load_labelme
from ._voc import load_voc
from ._weak import masks_from_boxes

_ClassMap = Mapping[str, str | int] | None
_Loader = Callable[[Path, Any, Sequence[str]], Bunch]


def _load_voc(path: Path, class_names: _ClassMap, classes: Sequence[str]) -> Bunch:
    data = load_voc(path, class_names=class_names, classes=classes)
    return Bunch(
        masks=masks_from_boxes(data.images, data.boxes, data.labels, classes=classes),
        instances=None,
        **data,
    )


def _load_masks(path: Path, class_names: _ClassMap, classes: Sequence[str]) -> Bunch:
    data = load_folder(path, classes=classes)
    if not (path / "instances").is_dir():
        return data
    files = group_by_stem(path / "instances", MASK_SUFFIXES)
    known = [
        read_instances_of(pair.name, files, mask, pair.mask, len(classes))
        for pair, mask in zip(list_pairs(path), data.masks, strict=True)
    ]
    return Bunch(instances=[labels for labels, _ in known], **data)


_LOADERS: dict[str, _Loader] = {
    "masks": _load_masks,
    "instances": lambda path, names, classes: load_instances(path, names, classes=classes),
    "labelme": lambda path, names, classes: load_labelme(path, names, classes=classes),
    "voc": _load_voc,
    "coco": lambda path, names, classes: load_coco(path, class_names=names, classes=classes),
    "geojson": lambda path, names, classes: load_geojson(path, class_names=names, classes=classes),
}


def load_annotated(
    path: str | os.PathLike,
    class_names: Mapping[str, str | int] | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> Bunch:
    """Load annotated images, whichever way they are annotated.

    Parameters
    ----------
    path : str or path-like
        What one of `load_folder` (subfolders images and masks), `load_instances` (images and
        instances), `load_labelme`, `load_voc`, `load_coco` and `load_geojson` loads: a folder, or
        a file of LabelMe, COCO or GeoJSON. Which it is the folder's files say.
    class_names : mapping from str to str or int, optional
        Classes of label texts, beside those that are known; see `load_labelme`.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        format : {"masks", "instances", "labelme", "voc", "coco", "geojson"}
            How the images are annotated.
        images, masks : list of ndarray
            As from `load_folder`. Of boxes alone, masks are those of `masks_from_boxes`.
        instances : list of ndarray of shape (H, W), int32, or None
            Numbers of the single cells, where these are known; of label maps, where
            ``instances/NAME.png`` lie beside them.
        names, groups, target_names
            As from `load_folder`; groups are those of ``groups.csv`` in the folder, if it is there.
        boxes, labels
            Of boxes alone: as from `load_voc`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or it holds no annotations.
    ValueError
        If the annotations are of several formats, damaged, or hold labels that have no class.

    Examples
    --------
    >>> import tempfile
    >>> from bloodseg.datasets import load_annotated, make_smears, save_annotated
    >>> smears = make_smears(1, image_size=64, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_annotated(smears, folder, "coco")
    ...     data = load_annotated(folder)
    >>> data.format, bool((data.masks[0] == smears.masks[0]).all())
    ('coco', True)
    """
    place = expanded(path)
    kind = _find_format(place)
    data = _LOADERS[kind](place, class_names, classes)
    table = (place if place.is_dir() else place.parent) / "groups.csv"
    if data.groups is None and table.exists():
        data.groups = read_table(table, ["group"], data.names)["group"]
    return Bunch(format=kind, **{"instances": None, **data})


def _find_format(path: Path) -> str:
    """Return how the images of a folder, or of a file of annotations, are annotated."""
    if path.is_file():
        return _format_of([path]) or "labelme"
    if not path.is_dir():
        raise FileNotFoundError(f"path must be a folder of annotated images; {path} is not there.")
    for kind in ("masks", "instances"):
        if (path / kind).is_dir():
            return kind
    found: dict[str, Path] = {}
    for place in (path, path / "annotations", path / "Annotations"):
        for suffix in (".xml", ".geojson", ".json"):
            files = files_in(place, (suffix,)) if place.is_dir() else []
            format_ = _format_of(files)
            if format_:
                found.setdefault(format_, files[0])
    if len(found) > 1:
        raise ValueError(
            f"path must hold annotations of one format; {path} has "
            f"{' and '.join(f'{kind} ({file.name})' for kind, file in found.items())}. Move one "
            "away."
        )
    if not found:
        raise FileNotFoundError(
            f"path must hold annotated images: subfolders images and masks, or images and "
            f"instances, or files of LabelMe, Pascal VOC, COCO or GeoJSON; {path} has none."
        )
    return next(iter(found))


def _format_of(files: Sequence[Path]) -> str | None:
    """Return the format of files of one suffix, as the first says."""
    if not files:
        return None
    suffix = files[0].suffix.lower()
    if suffix == ".json":
        return "coco" if is_coco(read_json(files[0], "LabelMe or COCO")) else "labelme"
    return {".xml": "voc", ".geojson": "geojson"}.get(suffix)
