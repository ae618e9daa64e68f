"""
From a slide to QuPath
======================

A slide of any size goes in by its path, TIFF, OME-TIFF or Zarr. It is read by strips and goes
through the network in tiles, so that memory stays bounded. Cells come out with outlines in GeoJSON:
drag the file onto the image in QuPath.

The shell does the same: ``bloodseg measure slide.ome.tif -o cells --format csv,geojson``.
"""

import json
import tempfile
from pathlib import Path

import tifffile

from bloodseg import BloodCellSegmenter
from bloodseg.cells import to_geojson
from bloodseg.datasets import make_smears, open_slide
from bloodseg.plotting import InstanceDisplay

# A small slide, for the example: 0.2 micrometres a pixel.
folder = Path(tempfile.mkdtemp())
pixels = make_smears(1, 320, random_state=8, white_cells=(1, 1)).images[0]
tifffile.imwrite(
    folder / "slide.ome.tif",
    pixels,
    photometric="rgb",
    tile=(128, 128),
    metadata={
        "axes": "YXS",
        "PhysicalSizeX": 0.2,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.2,
        "PhysicalSizeYUnit": "µm",
    },
)

# %%
slide = open_slide(folder / "slide.ome.tif")
slide.shape, slide.pixel_size

# %%
segmenter = BloodCellSegmenter.from_pretrained(tile_size=192)
cells = segmenter.measure([folder / "slide.ome.tif"], outlines=True)
cells.drop(columns="outline").head().T

# %%
# What QuPath will show:
display = InstanceDisplay.from_estimator(segmenter, pixels)

# %%
features = to_geojson(cells)
(folder / "slide.geojson").write_text(json.dumps(features))
len(features["features"]), features["features"][0]["properties"]

# %%
# The class map itself is written strip by strip:
segmenter.predict_file(folder / "slide.ome.tif", folder / "map.tif")
