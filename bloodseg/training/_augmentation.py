"""Random changes of images on the fly, label maps along with them; kornia does the geometry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor, nn

from ..networks import DrawnFrom

_STAIN_SHIFT = 0.02  # absolute change of each stain, in optical density
_LIGHT_SHIFT = 0.15  # the same of each colour channel: between 71 and 141 % of its light


class RandomStainShift(nn.Module):
    """Vary the density of each stain (Tellez et al. [1]_, "HED-light") and the colour of the light.

    Romanowsky stains are an eosin and azure dyes, which haematoxylin and eosin come close to. The
    light stands for white balance, lamp and glass, which differ far more between smears.

    Parameters
    ----------
    scale : float
        Greatest relative change of a stain's density.
    p : float
        Share of the images that are changed.

    References
    ----------
    .. [1] Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3 as a
       reference to train distilled stain-invariant convolutional networks", IEEE Transactions on
       Medical Imaging 37(9), 2018.
    """

    def __init__(self, scale: float = 0.15, p: float = 0.5):
        super().__init__()
        self.scale, self.p = scale, p

    def forward_parameters(self, shape: torch.Size) -> dict[str, Tensor]:
        """Draw what changes images of a shape (n, 3, H, W); named as kornia does."""
        return {
            "factors": 2 * torch.rand(3, shape[0], 3, 1, 1) - 1,
            "changed": torch.rand(shape[0], 1, 1, 1) < self.p,
        }

    def forward(self, images: Tensor, params: dict[str, Tensor] | None = None) -> Tensor:
        """Return changed images (n, 3, H, W) in [0, 1]."""
        params = self.forward_parameters(images.shape) if params is None else params
        to_stains = torch.as_tensor(hed_from_rgb, dtype=images.dtype, device=images.device)
        to_density = torch.as_tensor(rgb_from_hed, dtype=images.dtype, device=images.device)
        scale, shift, light = params["factors"].to(images)
        density = -torch.log10(images.clamp_min(1e-3))
        stains = torch.einsum("nihw,ij->njhw", density, to_stains)
        stains = stains * (1 + self.scale * scale) + _STAIN_SHIFT * shift
        density = torch.einsum("nihw,ij->njhw", stains, to_density) + _LIGHT_SHIFT * light
        changed = params["changed"].to(images.device)
        return torch.where(changed, torch.pow(10.0, -density).clamp(0, 1), images)


class Augmentation:
    """Flips, right angles, rotation, scale, elastic warp, brightness, colour and stain.

    Parameters
    ----------
    crop_size : int
        Side of the crops in pixels: the elastic warp scales with it.
    strong : bool
        Whether images shall differ as those of many laboratories do: wider ranges, and gamma, blur,
        noise and JPEG too.
    """

    def __init__(self, crop_size: int, *, strong: bool = False):
        kornia = _import_kornia()
        from kornia.constants import DataKey, Resample

        sigma = crop_size / 16
        kernel = 2 * int(2 * sigma) + 1
        mirrored: dict[str, Any] = {"padding_mode": "reflection", "align_corners": False}
        self._together = kornia.AugmentationSequential(
            kornia.RandomHorizontalFlip(p=0.5),
            kornia.RandomVerticalFlip(p=0.5),
            kornia.RandomRotation90(times=(0, 3), p=0.75),
            kornia.RandomAffine(
                degrees=45.0, scale=(0.7, 1.4) if strong else (0.8, 1.25), p=0.5, **mirrored
            ),
            kornia.RandomElasticTransform(
                kernel_size=(kernel, kernel),
                sigma=(sigma, sigma),
                alpha=(1.5, 1.5),
                p=0.2,
                **mirrored,
            ),
            *([] if strong else [_make_colour_jiggle()]),
            data_keys=["input", "mask"],
            # kornia's own adds align_corners=None, on which torch warns time and again.
            extra_args={DataKey.MASK: {"resample": Resample.NEAREST}},
        )
        self._look = _make_laboratory_changes() if strong else [RandomStainShift()]

    @torch.no_grad()
    def __call__(self, images: Tensor, masks: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Return changed images (n, 3, H, W) in [0, 1] and their label maps (n, H, W).

        The same seed gives the same change; torch's global generator is left as it was.
        """
        draws = DrawnFrom(seed)
        with draws:
            params = self._together.forward_parameters(images.shape)
        images, maps = self._together(images, masks[:, None].to(images.dtype), params=params)
        images = _change_all(images.clamp(0, 1), self._look, draws).clamp(0, 1)
        return images, maps[:, 0].round().to(masks.dtype)


class WholeImageAugmentation:
    """Flips, right angles, brightness, colour and stain: what changes no number of cells."""

    def __init__(self) -> None:
        self._look = [_make_colour_jiggle(), RandomStainShift()]

    @torch.no_grad()
    def __call__(self, images: Tensor, targets: Any, *, seed: int) -> tuple[Tensor, Any]:
        """Return changed images (n, 3, H, W), or (n, 3, W, H), in [0, 1], and the targets.

        The same seed gives the same change; torch's global generator is left as it was.
        """
        draws = DrawnFrom(seed)
        with draws:
            flips = torch.rand(2, len(images), 1, 1, 1).to(images.device) < 0.5
            # The whole batch, so that its images stay of one size.
            turned = torch.rand(()) < 0.5
        for axis, flipped in zip((-2, -1), flips, strict=True):
            images = torch.where(flipped, images.flip(axis), images)
        images = images.transpose(-2, -1) if turned else images
        return _change_all(images, self._look, draws), targets


def _change_all(images: Tensor, changes: Iterable[Any], draws: DrawnFrom) -> Tensor:
    """Change images (n, 3, H, W) one way after the other.

    Parameters are drawn before, for the context in which they are makes all else slower.
    """
    for change in changes:
        with draws:
            params = change.forward_parameters(images.shape)
        images = change(images.clamp(0, 1), params=params)
    return images


def _make_laboratory_changes() -> list[Any]:
    """Return what changes images as stain, lamp, focus, camera and file format do."""
    kornia = _import_kornia()
    return [
        RandomStainShift(scale=0.3, p=0.8),
        kornia.ColorJiggle(brightness=0.2, contrast=0.3, saturation=0.4, hue=0.05, p=0.7),
        kornia.RandomGamma((0.7, 1.4), p=0.4),
        kornia.RandomGaussianBlur((9, 9), (0.3, 1.8), p=0.25),
        kornia.RandomGaussianNoise(std=0.03, p=0.25),
        kornia.RandomJPEG((40.0, 90.0), p=0.2),
    ]


def _make_colour_jiggle() -> Any:
    kornia = _import_kornia()
    return kornia.ColorJiggle(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03, p=0.5)


def _import_kornia() -> Any:
    """Return kornia's augmentations: a quarter of a second that only training needs.

    Raises
    ------
    ImportError
        If kornia is not installed.
    """
    try:
        from kornia import augmentation
    except ImportError as error:
        raise ImportError(
            f"random changes of images need kornia ({error}): pip install kornia, or train with "
            "augment=False."
        ) from error
    return augmentation
