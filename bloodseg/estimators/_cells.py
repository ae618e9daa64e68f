"""What an estimator says of cells, one by one and in tables, once it segments images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cells import EXCLUDED_SIDES, Cells, check_excluded_sides
from ..datasets import open_slide
from ..prediction import LabelRows, Segmented, Sources, check_output, write_map

if TYPE_CHECKING:
    import pandas as pd


class CellsMixin:
    """Methods about cells for an estimator that has `segment`."""

    def segment(self, images: Sources) -> Iterator[Segmented]:
        """Predict images one by one."""
        raise NotImplementedError

    def predict_instances(
        self, images: Sources, *, excluded_sides: Sequence[str] = EXCLUDED_SIDES
    ) -> list[Cells]:
        """Find the single cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.
        excluded_sides : sequence of str, default=("bottom", "right")
            Sides of the counting frame whose cells do not count in it, see
            `bloodseg.cells.CountingFrame`.

        Returns
        -------
        list of Cells
            One an image: ``labels`` (H, W), int32, and for each cell its class, its score, which
            sides of the picture it touches and whether it counts in the frame; see
            `bloodseg.cells.Cells`.
        """
        excluded = check_excluded_sides(excluded_sides)
        return [segmented.cells(excluded_sides=excluded) for segmented in self.segment(images)]

    def count(
        self, images: Sources, *, excluded_sides: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Count the cells.

        Cells that the border cuts count whole, so that more of them show in a photo than belong to
        its area: the smaller the photo, the more. Densities are therefore those of an unbiased
        frame (see `bloodseg.cells.CountingFrame`), which leaves out the cells at two sides; they do
        not depend on the size of the photo.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.
        excluded_sides : sequence of str, optional
            Sides whose cells do not count in the frame: one of "top" and "bottom" and one of "left"
            and "right". None is the usual rule of counting chambers, ("bottom", "right"); () counts
            all cells, over all of the picture.

        Returns
        -------
        DataFrame
            One row an image: ``image`` (the path, or the place in the batch); ``white`` and
            ``red``, or a column for each other class of cells: all that show; ``confidence``, the
            mean probability of the pixels' classes; ``doubts``, why the numbers are perhaps wrong,
            in words: empty where all is well. Those are there whatever the model, see `segment` for
            when they are warned of.

            Where the size of a pixel is known, ``area_mm2``, of the picture, and of the frame
            ``white_in_frame``, ``red_in_frame``, ``frame_mm2``, and the one over the other,
            ``white_per_mm2`` and ``red_per_mm2`` (NaN where a frame finds no room in the picture).
            Where it is not, ``white_in_frame`` and ``red_in_frame`` if ``excluded_sides`` is given.

        Raises
        ------
        ValueError
            If an argument is not as described.
        """
        import pandas as pd

        excluded = None if excluded_sides is None else check_excluded_sides(excluded_sides)
        rows = [segmented.count(excluded_sides=excluded) for segmented in self.segment(images)]
        return pd.DataFrame(rows)

    def measure(
        self,
        images: Sources,
        *,
        outlines: bool = False,
        excluded_sides: Sequence[str] = EXCLUDED_SIDES,
    ) -> pd.DataFrame:
        """Measure the cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.
        outlines : bool
            Add the cells' outlines, for `bloodseg.cells.to_geojson` and `bloodseg.cells.to_coco`.
        excluded_sides : sequence of str, default=("bottom", "right")
            Sides of the counting frame whose cells do not count in it (column ``in_frame``), see
            `bloodseg.cells.CountingFrame`.

        Returns
        -------
        DataFrame
            One row a cell: ``image`` (the path, or the place in the batch) and the columns of
            `bloodseg.cells.measure_cells`. Sizes are in micrometres where the size of a pixel is
            known. ``doubts`` says of each cell's image what it does in `count`.
        """
        import pandas as pd

        excluded = check_excluded_sides(excluded_sides)
        tables = [
            segmented.measure(outlines=outlines, excluded_sides=excluded)
            for segmented in self.segment(images)
        ]
        return pd.concat(tables, ignore_index=True)

    def predict_file(self, path: Any, output: Any, *, kind: str = "classes") -> None:
        """Label an image of any size from file to file, in bounded memory.

        Parameters
        ----------
        path : path
            TIFF, OME-TIFF, Zarr or another image; see `bloodseg.datasets.open_slide`.
        output : path
            File to write: ``*.tif`` (compressed), ``*.ome.tif`` or ``*.zarr``, which is OME-NGFF
            with a pyramid of coarser levels. The size of a pixel and the names of the classes go
            with it.
        kind : {"classes", "instances"}
            The class map, uint8, or the label image of `predict_instances`, int32.

        Raises
        ------
        FileExistsError
            If the output is there already.
        ValueError
            If an argument is not as described.
        """
        if kind not in ("classes", "instances"):
            raise ValueError(f"kind must be 'classes' or 'instances'; got {kind!r}.")
        output = check_output(output)
        (segmented,) = self.segment([open_slide(path)])
        sides = segmented.pixel_sides
        if kind == "classes":
            rows, names = segmented.class_map, segmented.classes
            write_map(output, rows, dtype=np.uint8, pixel_sides=sides, classes=names)
        else:
            write_map(output, LabelRows.of(segmented), dtype=np.int32, pixel_sides=sides)
