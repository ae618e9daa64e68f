"""Slides of every kind, as files that tests write."""

import numpy as np
import tifffile
import zarr

PIXELS = np.random.default_rng(0).integers(0, 256, (133, 201, 3)).astype(np.uint8)
PER_CM = {"resolution": (1e5, 1e5), "resolutionunit": "CENTIMETER"}  # 0.1 micrometres
OME = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}


def write_pyramid(path):
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, subifds=1, tile=(64, 64), metadata={"axes": "YXS"})
        file.write(PIXELS[::2, ::2], subfiletype=1, tile=(64, 64))


def write_zarr(path, pixels=PIXELS, chunks=(64, 64, 3)):
    zarr.open_array(str(path), mode="w", shape=pixels.shape, chunks=chunks, dtype=pixels.dtype)[
        :
    ] = pixels


def write_ome_zarr(path):
    group = zarr.open_group(str(path), mode="w")
    write_zarr(path / "0", np.moveaxis(PIXELS, -1, 0)[np.newaxis], (1, 3, 64, 64))
    axes = [{"name": name, "unit": "micrometer"} for name in "tcyx"]
    scale = [{"type": "scale", "scale": [1, 1, 0.2, 0.2]}]
    group.attrs["multiscales"] = [
        {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]


def write_tiff(path, pixels=PIXELS, **options):
    tifffile.imwrite(path, pixels, **options)
