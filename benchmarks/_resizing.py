"""Images at another magnification."""

import cv2


def resized(image, factor):
    """Return an image with ``factor`` times as many pixels along a side."""
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
