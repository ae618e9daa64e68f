"""Images as networks take them."""

from __future__ import annotations

import numpy as np
import torch

from .._images import to_rgb


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """Return a checked image (H, W[, C]) as a float32 tensor (3, H, W) in [0, 1]."""
    rgb = to_rgb(image)
    scaled = rgb.astype(np.float32) / np.float32(255) if rgb.dtype == np.uint8 else rgb
    # A copy: torch takes no negative strides, which a mirrored column of pixels would keep.
    return torch.from_numpy(np.array(scaled.transpose(2, 0, 1), order="C"))
