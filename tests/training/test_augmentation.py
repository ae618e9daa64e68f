"""Changes of training images: what they keep, what they draw, and kornia's as the standard."""

import math
import sys
import warnings

import numpy as np
import pytest
import torch
from imports import imported_anew
from skimage.color import hed_from_rgb, rgb_from_hed

from bloodseg.training._augmentation import (
    Augmentation,
    ColourJiggle,
    Noise,
    StainShift,
)


@pytest.fixture(scope="module", params=[False, True], ids=["usual", "strong"])
def augmentation(request):
    return Augmentation(32, strong=request.param)


def blobs(n, size=32):
    """Smooth label maps, and images that show them in plain colours."""
    rows, columns = np.mgrid[:size, :size]
    rng = np.random.default_rng(0)
    masks = np.zeros((n, size, size), dtype=np.int64)
    for mask in masks:
        for label in (1, 2):
            y, x = rng.integers(6, size - 6, 2)
            mask[(rows - y) ** 2 + (columns - x) ** 2 < 36] = label
    colours = np.array([[0.9, 0.9, 0.9], [0.3, 0.2, 0.6], [0.8, 0.4, 0.4]], dtype=np.float32)
    return torch.from_numpy(colours[masks].transpose(0, 3, 1, 2).copy()), torch.from_numpy(masks)


def test_image_and_mask_stay_together(augmentation):
    images, masks = blobs(32)
    changed, labels = augmentation(images, masks, seed=3)
    moved = 0
    agreements = []
    for before, image, label in zip(masks, changed, labels, strict=True):
        moved += not torch.equal(before, label)
        # Whatever the colours have become: label each pixel by the mean colour that is nearest.
        present = label.unique()
        means = torch.stack([image[:, label == each].median(dim=1).values for each in present])
        nearest = (image[None] - means[:, :, None, None]).pow(2).sum(1).argmin(0)
        agreements.append((present[nearest] == label).float().mean().item())
    assert moved > 16
    assert np.mean(agreements) > 0.97
    # The test can tell: labels of the image before the change agree much less.
    assert (labels != masks).float().mean() > 0.1


def test_augmentation_keeps_to_the_range_and_to_the_labels(augmentation):
    images, masks = blobs(16)
    masks[masks == 1] = 255
    given = images.clone(), masks.clone()
    for seed in range(3):
        changed, labels = augmentation(images, masks, seed=seed)
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert labels.dtype == masks.dtype
        assert set(labels.unique().tolist()) <= {0, 2, 255}
        assert not torch.equal(changed, images)
    assert torch.equal(images, given[0])
    assert torch.equal(masks, given[1])


def test_augmentation_is_fixed_by_its_seed(augmentation):
    images, masks = blobs(4)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = augmentation(images, masks, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    np.random.seed(0)  # noqa: NPY002
    second, third = (augmentation(images, masks, seed=seed) for seed in (5, 6))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], third[0])


def test_augmentation_depends_on_nothing_but_its_seed():
    images, masks = blobs(4)
    first, second = (Augmentation(32)(images, masks, seed=5)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_strong_augmentation_changes_colours_more():
    images, masks = blobs(32)
    usual, strong = (
        Augmentation(32, strong=strong)(images, masks, seed=0)[0].mean(dim=(2, 3)).std()
        for strong in (False, True)
    )
    assert strong > 1.2 * usual


def test_each_image_is_changed_in_its_own_way(augmentation):
    images, masks = blobs(1)
    changed, _ = augmentation(images.repeat(6, 1, 1, 1), masks.repeat(6, 1, 1), seed=0)
    # Every change has its chance, so a few images may stay as they were.
    assert len({tuple(image.flatten()[:50].tolist()) for image in changed}) >= 4


def test_pixels_and_labels_are_read_at_the_same_places(augmentation):
    # Images and labels that say where they were: whatever was turned, warped or mirrored.
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    image = torch.stack([rows / 31, columns / 31, torch.zeros(32, 32)])
    places = Augmentation(32)
    places._look = []
    images, labels = places(
        image.repeat(64, 1, 1, 1), (32 * rows + columns).repeat(64, 1, 1), seed=4
    )
    read = torch.stack([labels // 32, labels % 32], dim=1)
    assert (31 * images[:, :2] - read).abs().max() <= 0.5 + 1e-3
    kept = (31 * images[:, :2] - read).abs().flatten(1).amax(dim=1) < 1e-3
    assert 16 <= kept.sum() <= 36  # flips and right angles alone: 0.4 of the images
    assert all(len(each.unique()) == 32 * 32 for each in labels[kept])


@pytest.mark.parametrize(("strong", "least", "most"), [(False, 0.8, 1.25), (True, 0.7, 1.4)])
def test_turns_scales_and_flips(strong, least, most):
    """As kornia's flips, RandomRotation90 with p=0.75 and RandomAffine with p=0.5 drew them."""
    generator = torch.Generator().manual_seed(0)
    turns = Augmentation(32, strong=strong)._draw_turns(20000, generator)
    scales = 1 / turns.det().abs().sqrt()
    assert torch.allclose(turns @ turns.mT, scales[:, None, None] ** -2 * torch.eye(2), atol=1e-5)
    free = (turns - turns.round()).abs().amax(dim=(1, 2)) > 1e-6
    assert free.float().mean() == pytest.approx(0.5, abs=0.015)
    assert [scales.min().item(), scales.max().item()] == pytest.approx([least, most], abs=2e-3)
    assert scales[free].mean() == pytest.approx((least + most) / 2, abs=0.01)
    eight, counts = turns[~free].round().unique(dim=0, return_counts=True)
    assert len(eight) == 8
    shares = counts / counts.sum()
    expected = torch.where(eight[:, 0, 0] == 0, 0.375 / 4, 0.625 / 4)
    assert torch.allclose(shares, expected, atol=0.015)
    # Angles within a symmetry lie within 45 degrees, evenly.
    largest = turns[free].abs().amax(dim=(1, 2)) * scales[free]
    angles = largest.clamp(max=1).acos() * 180 / math.pi
    assert angles.max() == pytest.approx(45, abs=0.1)
    assert angles.mean() == pytest.approx(22.5, abs=0.4)
    turned = turns[free & (turns.det() > 0)]
    way = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]) * 180 / math.pi
    assert ((way + 45) % 90 - 45).mean() == pytest.approx(0, abs=1)  # as often left as right


def test_the_warp_is_kornias():
    from kornia.geometry.transform import elastic_transform2d

    noise = 2 * torch.rand((1, 2, 64, 64), generator=torch.Generator().manual_seed(0)) - 1
    right, down = Augmentation(64)._smooth_noise(noise)[0]
    ramps = torch.stack(torch.meshgrid(*[torch.arange(64.0)] * 2, indexing="xy"))
    # By corners, for up to kornia 0.8 no shift is none only so; then a side is 63 pixels long.
    warp = {"kernel_size": (17, 17), "sigma": (4.0, 4.0), "alpha": (1.5, 1.5)}
    moved = elastic_transform2d(ramps[None], noise, **warp, align_corners=True)[0] - ramps
    inner = slice(8, -8), slice(8, -8)  # places beyond the border are mirrored
    for shift, move in zip((right, down), moved, strict=True):
        assert torch.allclose(63 / 2 * shift[inner], move[inner], atol=1e-3)
        assert shift[inner].abs().max() > 1 / 32


def test_colours_are_jiggled_as_kornia_does():
    from kornia.enhance import adjust_hue, adjust_saturation

    generator = torch.Generator().manual_seed(0)
    images = torch.rand((12, 3, 8, 8), generator=generator)
    images[0], images[1], images[2] = 0, 1, images[2, :1]  # no hue, no saturation
    jiggle = ColourJiggle(0.2, 0.3, 0.4, 0.05)
    numbers = jiggle.draw(12, generator)
    added, contrast, saturation, hue = numbers.T
    column = (slice(None), None, None, None)
    expected = (images * (1 + contrast[column]) + added[column]).clamp(0, 1)
    expected = adjust_hue(adjust_saturation(expected, 1 + saturation), hue * 2 * math.pi)
    assert torch.allclose(jiggle.change(images, numbers), expected, atol=1e-5)
    drawn = jiggle.draw(20000, generator)
    many, starker = drawn.abs(), drawn[:, 1] > 0
    assert torch.allclose(many.mean(dim=0), torch.tensor([0.1, 0.15, 0.2, 0.025]), rtol=0.03)
    # Half of what is added comes first, and is then multiplied by 1.15 or 0.85 on average.
    ratio = many[starker, 0].mean() / many[~starker, 0].mean()
    assert ratio == pytest.approx(1.075 / 0.925, rel=0.03)
    assert torch.allclose(many.amax(dim=0), torch.tensor([0.26, 0.3, 0.4, 0.05]), rtol=0.03)


def test_a_share_of_the_images_is_changed():
    images, _ = blobs(1)
    many, generator = images.repeat(200, 1, 1, 1), torch.Generator().manual_seed(0)
    for change, share in ((StainShift(), 0.5), (ColourJiggle(p=0.8), 0.8), (StainShift(p=0.0), 0)):
        changed = (change(many, generator) != many).flatten(1).any(dim=1)
        assert changed.float().mean() == pytest.approx(share, abs=0.1)
    assert torch.equal(many[0], images[0])


def test_noise_is_of_its_width_and_of_each_channel():
    images = torch.full((400, 3, 16, 16), 0.5)
    noise = Noise(std=0.05, p=0.25)(images, torch.Generator().manual_seed(0)) - images
    changed = noise[noise.flatten(1).any(dim=1)]
    assert len(changed) == pytest.approx(100, abs=25)
    assert changed.std() == pytest.approx(0.05, rel=0.02)
    assert changed.mean() == pytest.approx(0, abs=1e-3)
    correlations = torch.corrcoef(changed.transpose(0, 1).flatten(1)) - torch.eye(3)
    assert correlations.abs().max() < 0.02
    bright = Noise(std=0.05, p=1.0)(torch.ones_like(images), torch.Generator().manual_seed(0))
    assert bright.max() == 1


def test_stain_shift_changes_stains_and_light():
    images, _ = blobs(4)
    images[0] *= 0.01  # nearly as dark as there is
    shift, generator = StainShift(p=1.0), torch.Generator().manual_seed(0)
    numbers = shift.draw(4, generator)
    changed = shift.change(images, numbers)
    # By hand, a pixel: density to stains, stains changed, and back.
    density = -np.log10(images[1, :, 5, 5].numpy())
    scale, absolute, light = numbers[1].numpy()
    stains = density @ hed_from_rgb * (1 + scale) + absolute
    expected = 10 ** -(stains @ rgb_from_hed + light)
    assert np.allclose(changed[1, :, 5, 5], expected, atol=1e-5)
    assert torch.allclose(shift.change(images, torch.zeros(4, 3, 3)), images, atol=1e-5)
    many = shift.draw(5000, generator).abs()
    greatest = torch.tensor([0.15, 0.02, 0.15])
    assert torch.allclose(many.amax(dim=(0, 2)), greatest, rtol=0.01)
    assert torch.allclose(many.mean(dim=(0, 2)), greatest / 2, rtol=0.03)


def test_kornia_is_imported_for_strong_changes_only(monkeypatch):
    with imported_anew("bloodseg", "kornia"):
        import bloodseg.cli
        import bloodseg.study
        import bloodseg.training

        bloodseg.training.Augmentation(32)
        assert "bloodseg.training._augmentation" in sys.modules
        assert "kornia" not in sys.modules
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(
        ImportError, match=r"need kornia \(.*\): pip install kornia, or train with "
    ):
        Augmentation(32, strong=True)


def test_augmentation_says_nothing():
    images, masks = blobs(8)
    augmentation = Augmentation(32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(5):
            augmentation(images, masks, seed=seed)
