"""Random changes of images on the fly, label maps along with them, on the device that they are on.

The few numbers that an image's change is made of are drawn on the CPU, whatever the device, so that
nothing waits for it; noise for each pixel is drawn where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Generator, Tensor
from torch.nn import functional

from ..networks import DrawnFrom

_STAIN_SHIFT = 0.02  # absolute change of each stain, in optical density
_LIGHT_SHIFT = 0.15  # the same of each colour channel: between 71 and 141 % of its light

Change = Callable[[Tensor, Generator], Tensor]
"""From images (n, 3, H, W) in [0, 1] and what to draw from to changed images in [0, 1]."""


class _ChangeOfSome:
    """Change a share ``p`` of the images, each in its own way."""

    p: float

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return changed images (n, 3, H, W) in [0, 1]."""
        chosen = (torch.rand(len(images), generator=generator) < self.p).nonzero()[:, 0]
        numbers = self.draw(len(images), generator)[chosen]
        rows = chosen.to(images.device, non_blocking=True)
        changed = self.change(images[rows], numbers.to(images, non_blocking=True))
        return images.index_copy(0, rows, changed.clamp_(0, 1))

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Return the numbers that change n images: (n, ...)."""
        raise NotImplementedError

    def change(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Return changed images, in memory of their own."""
        raise NotImplementedError


class StainShift(_ChangeOfSome):
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
        self.scale, self.p = scale, p

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Return relative and absolute changes of the stains, and changes of the light: each 3."""
        greatest = torch.tensor([self.scale, _STAIN_SHIFT, _LIGHT_SHIFT])
        return _uniform((n, 3, 3), -1, 1, generator) * greatest[:, None]

    def change(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Return images of other density: of rows, ``((d S) (1 + scale) + shift) S^-1 + light``."""
        scale, shift, light = numbers.unbind(dim=1)
        to_stains, to_density = (
            torch.as_tensor(each).to(images, non_blocking=True)
            for each in (hed_from_rgb, rgb_from_hed)
        )
        # All three are one affine map of the three channels.
        matrix = (to_stains * (1 + scale)[:, None]) @ to_density
        offset = shift @ to_density + light
        density = images.clamp_min(1e-3).log10_().flatten(2)
        density = torch.baddbmm(offset[..., None], matrix.mT, density, beta=-1)
        return torch.pow(10.0, density).view_as(images)


class ColourJiggle(_ChangeOfSome):
    """Vary brightness, contrast, and saturation and hue as HSV has them.

    Parameters
    ----------
    brightness : float
        The most that is added to all channels or taken from them.
    contrast, saturation : float
        Greatest relative changes of all channels, and of the saturation.
    hue : float
        Greatest shift of the hue, in turns of the circle.
    p : float
        Share of the images that are changed.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.03,
        p: float = 0.5,
    ):
        self.greatest = brightness, contrast, saturation, hue
        self.p = p

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Return changes of brightness, contrast, saturation and hue."""
        numbers = _uniform((n, 4), -1, 1, generator) * torch.tensor(self.greatest)
        # Either may come first: what is added first is multiplied, too.
        first = torch.rand(n, generator=generator) < 0.5
        numbers[first, 0] *= 1 + numbers[first, 1]
        return numbers

    def change(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Return images of other colours.

        Of a pixel of hue h (in sixths of the circle), greatest channel V and least one V - C, the
        channels are ``V - C * clip(min(k, 4 - k), 0, 1)`` with ``k = (n + h) mod 6`` and n = 5, 3
        and 1 for red, green and blue; the saturation is C / V.
        """
        added, contrast, saturation, hue = numbers.T[..., None, None, None]
        images = torch.addcmul(added, images, 1 + contrast).clamp_(0, 1)
        red, green, blue = images.split(1, dim=1)
        greatest, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
        extent = greatest - least
        of_green = torch.where(greatest == green, blue - red + 2 * extent, red - green + 4 * extent)
        angle = torch.where(greatest == red, green - blue, of_green) / extent.clamp_min(1e-8)
        offsets = torch.arange(5, 0, -2, device=images.device)[:, None, None]
        places = (angle + 6 * hue + offsets).remainder_(6)
        shares = torch.minimum(places, 4 - places).clamp_(0, 1)
        extent = torch.minimum(extent * (1 + saturation), greatest)
        return torch.addcmul(greatest, extent, shares, value=-1)


class Noise:
    """Add noise to some images, in each channel of each pixel for itself, as a camera does.

    Parameters
    ----------
    std : float
        Standard deviation; white is 1.
    p : float
        Share of the images that are changed.
    """

    def __init__(self, std: float, p: float):
        self.std, self.p = std, p

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return changed images (n, 3, H, W) in [0, 1]."""
        chosen = (torch.rand(len(images), generator=generator) < self.p).nonzero()[:, 0]
        rows = chosen.to(images.device, non_blocking=True)
        noise = torch.randn(
            (len(chosen), *images.shape[1:]),
            dtype=images.dtype,
            device=images.device,
            generator=_on(images.device, generator),
        )
        return images.index_add(0, rows, noise, alpha=self.std).clamp_(0, 1)


class Augmentation:
    """Flips, right angles, rotation, scale, elastic warp, brightness, colour and stain.

    All that moves pixels is one map of places, by which images and label maps are read once: images
    between pixels, label maps at the nearest one; beyond the border they are mirrored.

    Parameters
    ----------
    crop_size : int
        Side of the crops in pixels.
    strong : bool
        Whether images shall differ as those of many laboratories do: wider ranges, and gamma, blur,
        noise and JPEG too.
    """

    def __init__(self, crop_size: int, *, strong: bool = False):
        self._scales = (0.7, 1.4) if strong else (0.8, 1.25)
        self._smooth = _make_smoother(crop_size, crop_size / 16)
        self._look = _make_laboratory_changes() if strong else [ColourJiggle(), StainShift()]

    @torch.no_grad()
    def __call__(self, images: Tensor, masks: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Return changed images (n, 3, S, S) in [0, 1] and their label maps (n, S, S).

        S is the crops' size. The same seed gives the same change on the same kind of device;
        torch's global generator is left as it was.
        """
        generator = Generator().manual_seed(seed)
        places = self._draw_places(len(images), images.device, generator)
        labels = masks[:, None].to(images.dtype)
        images, labels = (
            functional.grid_sample(
                values, places, mode=mode, padding_mode="reflection", align_corners=False
            )
            for values, mode in ((images, "bilinear"), (labels, "nearest"))
        )
        # Means of numbers up to 1 may be above it by a rounding error.
        images = _change_all(images.clamp_(0, 1), self._look, generator)
        return images, labels[:, 0].to(masks.dtype)

    def _draw_places(self, n: int, device: torch.device, generator: Generator) -> Tensor:
        """Return where each pixel of n images comes from: (n, S, S, 2), x and y in [-1, 1]."""
        side = len(self._smooth)
        ticks = (torch.arange(side, device=device) + 0.5) * (2 / side) - 1
        x, y = (each.expand(n, -1, -1) for each in torch.meshgrid(ticks, ticks, indexing="xy"))
        # The last change of an image comes first, for places are traced back.
        warped = (torch.rand(n, generator=generator) < 0.2).nonzero()[:, 0]
        if len(warped):
            noise = torch.rand(
                (2, len(warped), side, side), device=device, generator=_on(device, generator)
            )
            right, down = self._smooth_noise(2 * noise - 1)
            rows = warped.to(device, non_blocking=True)
            x, y = x.index_add(0, rows, right), y.index_add(0, rows, down)
        turns = self._draw_turns(n, generator).to(device, non_blocking=True).permute(1, 2, 0)
        (xx, xy), (yx, yy) = turns[..., None, None]
        return torch.stack([xx * x + xy * y, yx * x + yy * y], dim=-1)

    def _smooth_noise(self, noise: Tensor) -> Tensor:
        """Return shifts (..., S, S) of places, in halves of a side, from noise in [-1, 1]."""
        smooth = self._smooth.to(noise.device, non_blocking=True)
        return smooth @ noise @ smooth.mT * 1.5

    def _draw_turns(self, n: int, generator: Generator) -> Tensor:
        """Return matrices (n, 2, 2) that turn, scale and flip places."""
        free = torch.rand(n, generator=generator) < 0.5
        angles = _uniform((n,), -math.pi / 4, math.pi / 4, generator) * free
        scales = _uniform((n,), *self._scales, generator).where(free, torch.ones(()))
        cosines, sines = angles.cos() / scales, angles.sin() / scales
        matrices = torch.stack([cosines, -sines, sines, cosines], dim=-1).view(n, 2, 2)
        # Flips, and a quarter of a turn in three of eight images, which is a flip more or less.
        turned = torch.rand(n, generator=generator) < 0.375
        matrices = torch.where(turned[:, None, None], matrices.flip(1), matrices)
        signs = 1.0 - 2 * (torch.rand((n, 2, 1), generator=generator) < 0.5)
        return signs * matrices


class WholeImageAugmentation:
    """Flips, right angles, brightness, colour and stain: what changes no number of cells."""

    def __init__(self) -> None:
        self._look = [ColourJiggle(), StainShift()]

    @torch.no_grad()
    def __call__(self, images: Tensor, targets: Any, *, seed: int) -> tuple[Tensor, Any]:
        """Return changed images (n, 3, H, W), or (n, 3, W, H), in [0, 1], and the targets.

        The same seed gives the same change; torch's global generator is left as it was.
        """
        generator = Generator().manual_seed(seed)
        flips = torch.rand((2, len(images), 1, 1, 1), generator=generator) < 0.5
        flips = flips.to(images.device, non_blocking=True)
        for axis, flipped in zip((-2, -1), flips, strict=True):
            images = torch.where(flipped, images.flip(axis), images)
        # The whole batch, so that its images stay of one size.
        if torch.rand((), generator=generator) < 0.5:
            images = images.transpose(-2, -1)
        return _change_all(images, self._look, generator), targets


class _KorniaChange:
    """A change of kornia's, which takes no generator."""

    def __init__(self, change: Any):
        self.change = change

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        with DrawnFrom(_draw_seed(generator)):
            # Drawn before, for this context makes all else slower.
            params = self.change.forward_parameters(images.shape)
        changed: Tensor = self.change(images, params=params)
        return changed.clamp(0, 1)


def _change_all(images: Tensor, changes: Iterable[Change], generator: Generator) -> Tensor:
    """Change images (n, 3, H, W) one way after the other."""
    for change in changes:
        images = change(images, generator)
    return images


def _make_laboratory_changes() -> list[Change]:
    """Return what changes images as stain, lamp, focus, camera and file format do.

    Raises
    ------
    ImportError
        If kornia is not installed.
    """
    try:  # a quarter of a second that nothing else needs
        import kornia.augmentation as kornia
    except ImportError as error:
        raise ImportError(
            f"strong random changes of images need kornia ({error}): pip install kornia, or train "
            "with augment=True."
        ) from error
    of_kornia = [
        kornia.RandomGamma((0.7, 1.4), p=0.4),
        kornia.RandomGaussianBlur((9, 9), (0.3, 1.8), p=0.25),
        kornia.RandomJPEG((40.0, 90.0), p=0.2),
    ]
    gamma, blur, jpeg = map(_KorniaChange, of_kornia)
    # kornia's own noise takes no numbers that were drawn before, up to 0.8.
    noise = Noise(std=0.03, p=0.25)
    jiggle = ColourJiggle(brightness=0.2, contrast=0.3, saturation=0.4, hue=0.05, p=0.7)
    return [StainShift(scale=0.3, p=0.8), jiggle, gamma, blur, noise, jpeg]


def _make_smoother(side: int, sigma: float) -> Tensor:
    """Return the matrix (side, side) that smooths an axis by a Gaussian, cut off at 2 sigma."""
    places = torch.arange(side)
    distances = (places - places[:, None]).abs()
    weights = torch.exp(-0.5 * (distances / sigma) ** 2) * (distances <= int(2 * sigma))
    return weights / weights.sum(dim=1).max()


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _draw_seed(generator: Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _on(device: torch.device, generator: Generator) -> Generator:
    """Return a generator for a device, seeded by another."""
    return Generator(device).manual_seed(_draw_seed(generator))
