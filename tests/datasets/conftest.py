"""Fixtures of the tests of data sets: pictures that are stored turned."""

import numpy as np
import pytest
from PIL import Image

STORED = {1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud}
STORED |= {5: lambda p: p.swapaxes(0, 1), 6: np.rot90, 7: lambda p: np.rot90(p, 2).swapaxes(0, 1)}
STORED |= {8: lambda p: np.rot90(p, 3)}


@pytest.fixture
def save_turned():
    """Return a function that saves a picture turned, so that it is shown as it is."""

    def save(path, picture, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = np.ascontiguousarray(STORED[orientation](picture))
        Image.fromarray(stored).save(path, exif=exif)

    return save
