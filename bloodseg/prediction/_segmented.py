"""What a prediction says of one image: its class map, its cells, and what makes it doubtful."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .._files import ArrayFile
from .._images import (
    CLASS_NAMES,
    every_nth,
    to_bytes,
    turned,
    turned_corners,
    turned_shape,
)
from ..cells import (
    EXCLUDED_SIDES,
    SHOWN_SIDE,
    Cells,
    KeptBlocks,
    Radii,
    assemble,
    count_cells,
    count_in_frame,
    label_into,
    measure_blocks,
    to_html,
    typical_radii,
)
from ..ode import warn_caller
from ._doubts import doubts, doubts_of_agreement, doubts_of_pixel_size
from ._picture import Picture

_SHOWN_PIXELS = 2**24  # of an image whose cells a notebook shows


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Segmented:
    """An image and what the network says of it.

    Attributes
    ----------
    name : str or int
        What tables call the image: the path as it was given, or its place in the batch.
    image : ndarray of shape (H, W[, C]), or Slide
        As the caller gave it. Of a file, it and both maps are read by rows, as ``image[0:512]``, or
        by rows and columns, as ``image[0:512, 100:300]``.
    class_map : array-like of shape (H, W), uint8
        Labels, places in ``classes``: of most models 0 background, 1 white cells, 2 red cells.
    confidence : array-like of shape (H, W), uint8
        Probability of each pixel's class in 255ths.
    pixel_size : float or None
        Side of a pixel in micrometres, where it is known; of one that is not square, that of a
        square of its area.
    pixel_aspect : float
        Height of a pixel over its width.
    picture : Picture, optional
        What of the image was looked at; by default all.
    label : str
        What messages call the image.
    evaluations : dict of int to int
        Evaluations of f at each ODE-position; of an image in tiles, the most of any tile.
    expected_diameter : float or None
        How wide red cells are, in pixels, if the image was scaled rightly for the network.
    guessed_diameter : bool
        Whether only the network could tell that.
    measured_diameter : bool
        Whether it was measured in the image, and given by nobody.
    classes : tuple of str
        Names of the labels.
    agreement : float or None
        Mean IoU of the class map and that of the mirrored image, in its middle, or in several
        places of a large one; None where the network is so sure that it was not asked again.
    adapted : bool
        Whether the network was so unsteady about the image that its normalisation was leant
        towards it, which made it steadier.
    smoothed : bool
        Whether it was so noisy that the network was shown a smoothed copy.
    orientation : int
        How viewers turn the image to show it, as EXIF has it, from 1, not at all, to 8. Both maps,
        and coordinates in tables, are those of the pixels as they are stored.

    Examples
    --------
    >>> from bloodseg import BloodCellSegmenter
    >>> from bloodseg.datasets import make_smears
    >>> smears = make_smears(1, image_size=256, random_state=0)
    >>> for found in BloodCellSegmenter.from_pretrained().segment(smears.images):
    ...     print(found.class_map.shape, len(found.measure()) == len(found.cells()))
    (256, 256) True
    """

    name: str | int
    image: Any
    class_map: Any
    confidence: Any
    pixel_size: float | None
    pixel_aspect: float = 1.0
    picture: Picture | None = None
    label: str = "the image"
    evaluations: Mapping[int, int] = field(default_factory=dict)
    expected_diameter: float | None = None
    guessed_diameter: bool = False
    measured_diameter: bool = False
    classes: tuple[str, ...] = CLASS_NAMES
    agreement: float | None = None
    adapted: bool = False
    smoothed: bool = False
    orientation: int = 1

    def __repr__(self) -> str:
        """Return what it is of, without the arrays."""
        height, width = self.class_map.shape
        confidence = f"mean_confidence={self.mean_confidence:.3f}"
        return f"Segmented({self.name!r}, {height} x {width} pixels, {confidence})"

    @property
    def pixel_sides(self) -> tuple[float, float] | None:
        """Height and width of a pixel in micrometres, where they are known."""
        if self.pixel_size is None:
            return None
        root = math.sqrt(self.pixel_aspect)
        return self.pixel_size * root, self.pixel_size / root

    @cached_property
    def radii(self) -> Radii | None:
        """Radii of typical cells, in pixels."""
        return typical_radii(self.class_map, self.expected_diameter, classes=self.classes)

    @cached_property
    def _blocks(self) -> KeptBlocks:
        return KeptBlocks(
            self.class_map,
            self.radii,
            self.classes,
            outside=self.outside,
            n_threads=torch.get_num_threads(),
        )

    @cached_property
    def mean_confidence(self) -> float:
        """Mean probability of the pixels' classes, in [0, 1]; of those of the picture."""
        height, width = self.class_map.shape
        total, n_pixels = 0, height * width
        for top in range(0, height, 512):
            total += int(np.asarray(self.confidence[top : top + 512]).sum(dtype=np.int64))
            if self.outside is not None:  # there confidence is 0
                n_pixels -= int(np.count_nonzero(self.outside[top : top + 512]))
        return total / (255 * max(n_pixels, 1))

    @property
    def outside(self) -> Any:
        """What surrounds the picture, array-like of shape (H, W), bool; None where nothing does."""
        return None if self.picture is None else self.picture.outside

    @property
    def share_left_out(self) -> float:
        """Share of the pixels that are no picture: a surround, transparent ones, writing."""
        return 0.0 if self.picture is None else self.picture.share_left_out

    @property
    def frame_area(self) -> int:
        """Square pixels of the usual counting frame, see `bloodseg.cells.CountingFrame`."""
        return self._blocks.frame(EXCLUDED_SIDES).area

    @property
    def _looked_at(self) -> Any:
        return self.image if self.picture is None else self.picture.pixels

    def doubts(self) -> list[str]:
        """Return why what was found in the image is perhaps wrong, in words; none if all is well.

        It may be no stained smear in focus, or a pixel's size cannot be what it is said to be. It
        is judged as a smear of any laboratory, whatever the model was trained on.
        """
        steadiness = doubts_of_agreement(self.agreement, self.adapted)
        return self._doubts_of_looks + steadiness + self._doubts_of_pixel_size()

    @cached_property
    def _doubts_of_looks(self) -> list[str]:
        """Those of the doubts that come from the picture and from what was found in it."""
        found = doubts(
            self._looked_at,
            self.class_map,
            self.confidence,
            self.radii,
            self.expected_diameter,
            guessed=self.guessed_diameter,
            measured=self.measured_diameter,
            outside=self.outside,
            classes=self.classes,
        )
        return [*found, "it is noisy, and was smoothed"] if self.smoothed else found

    def _mirrored(self, agreement: float, *, adapted: bool) -> Segmented:
        """Return the same with what the mirrored image tells; what has been found out is kept."""
        # Not by dataclasses.replace, which would forget radii and doubts.
        copied = copy.copy(self)
        vars(copied).update(agreement=agreement, adapted=adapted)
        return copied

    def _doubts_of_pixel_size(self) -> list[str]:
        """Return those of the doubts that no picture is needed for: they hold for any model."""
        if self.pixel_size is None:  # then nobody has to measure cells for it
            return []
        radius = None if self.radii is None else self.radii.red
        return doubts_of_pixel_size(self.pixel_size, radius, self.pixel_aspect)

    def cells(self, *, excluded_sides: Sequence[str] = EXCLUDED_SIDES) -> Cells:
        """Return the single cells.

        Parameters
        ----------
        excluded_sides : sequence of {"top", "bottom", "left", "right"}
            Sides at which cells that reach beyond the counting frame are not counted in it, see
            `bloodseg.cells.CountingFrame`.

        Returns
        -------
        bloodseg.cells.Cells
            Their label image, classes, scores and counts.
        """
        return assemble(self._blocks, self.confidence, excluded_sides=excluded_sides)

    def count(self, *, excluded_sides: Sequence[str] | None = None) -> dict[str, Any]:
        """Return a row of the table of counts.

        Parameters
        ----------
        excluded_sides : sequence of {"top", "bottom", "left", "right"}, optional
            Sides at which cells that reach beyond the counting frame are not counted in it, see
            `bloodseg.cells.CountingFrame`. Without it, cells are counted in a frame only where the
            size of a pixel is known.

        Returns
        -------
        dict
            The columns of `bloodseg.BloodCellSegmenter.count`.
        """
        row: dict[str, Any] = {"image": self.name, **count_cells(self._blocks)}
        if self.pixel_size is not None or excluded_sides is not None:
            frame = self._blocks.frame(EXCLUDED_SIDES if excluded_sides is None else excluded_sides)
            counts = count_in_frame(self._blocks, frame)
            row |= {f"{name}_in_frame": count for name, count in counts.items()}
            if self.pixel_size is not None:
                mm2 = self.pixel_size**2 / 1e6
                height, width = self.class_map.shape
                row["area_mm2"] = (1 - self.share_left_out) * height * width * mm2
                row["frame_mm2"] = frame.area * mm2
                for name, count in counts.items():
                    row[f"{name}_per_mm2"] = count / row["frame_mm2"] if frame.area else np.nan
        return row | {"confidence": self.mean_confidence, "doubts": "; ".join(self.doubts())}

    def measure(
        self, *, outlines: bool = False, excluded_sides: Sequence[str] = EXCLUDED_SIDES
    ) -> Any:
        """Return the table of this image's cells.

        Parameters
        ----------
        outlines : bool
            Whether a column ``outline`` has the points of each cell's outline, which
            `bloodseg.cells.to_geojson` takes.
        excluded_sides : sequence of {"top", "bottom", "left", "right"}
            Sides at which cells that reach beyond the counting frame are not counted in it, see
            `bloodseg.cells.CountingFrame`.

        Returns
        -------
        pandas.DataFrame
            A row a cell, with the columns of `bloodseg.BloodCellSegmenter.measure`.
        """
        table = measure_blocks(
            self._blocks,
            self.confidence,
            self._looked_at,
            excluded_sides=excluded_sides,
            pixel_size=self.pixel_size,
            outlines=outlines,
        )
        table.insert(0, "image", self.name)
        before_outline = len(table.columns) - outlines
        table.insert(before_outline, "doubts", "; ".join(self.doubts()))
        return table

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the image with its cells outlined, counts and doubts."""
        height, width = self.class_map.shape
        doubts = [f"In doubt: {doubt}" for doubt in self.doubts()]
        photo = to_bytes(every_nth(self.image, height, -(-max(height, width) // (2 * SHOWN_SIDE))))
        outlines, names, counts = [], [], {}
        if height * width <= _SHOWN_PIXELS:  # what is shown at once must not take minutes
            table = self.measure(outlines=True)
            outlines = [
                turned_corners(outline, (height, width), self.orientation)
                for outline in table["outline"]
            ]
            names = table["class"].tolist()
            counts = count_cells(self._blocks)
        else:
            doubts.insert(0, "Large images are not counted here: call count().")
        return to_html(
            self.label if isinstance(self.name, int) else str(self.name),
            outlines,
            names,
            shape=turned_shape((height, width), self.orientation),
            counts=counts,
            classes=self.classes,
            photo=turned(photo, self.orientation),
            notes=doubts,
        )


def warn_of_doubts(segmented: Segmented, *, of_size_only: bool) -> Segmented:
    """Return what was found in an image, with a warning if that is doubtful.

    With ``of_size_only`` a pixel's size alone is warned of, for models of one laboratory.
    """
    found = segmented._doubts_of_pixel_size() if of_size_only else segmented.doubts()
    if found:
        warn_caller(
            f"{segmented.label} looks unlike a stained smear in focus: {'; '.join(found)}. Look at "
            "what was found in it before you use it.",
            each_time=True,
        )
    return segmented


@dataclass(frozen=True)
class LabelRows:
    """The label image of a class map of any size: made on disk, read by strips of rows."""

    labels: ArrayFile
    number: np.ndarray

    @classmethod
    def of(cls, segmented: Segmented) -> LabelRows:
        """Find the cells and write their labels."""
        labels = ArrayFile(segmented.class_map.shape, np.int32)
        number, *_ = label_into(labels, segmented._blocks)
        return cls(labels, number)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.labels.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.number[self.labels[rows]]
