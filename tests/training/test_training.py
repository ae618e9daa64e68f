"""Crops, loss, learning rate and checkpoints, each against what it should be."""

import math
import re
import threading

import numpy as np
import pytest
import torch
from fits import PixelNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from bloodseg.networks import image_tensor
from bloodseg.training import (
    Checkpoint,
    choose_batch_size,
    make_accelerator,
    scale_learning_rate,
    share_seed,
)
from bloodseg.training._callbacks import BestWeights, ClippedGradients, CosineSchedule
from bloodseg.training._data import (
    VALIDATION_BLOCK,
    EpochSampler,
    LoadedAhead,
    TrainingCrops,
    ValidationBlocks,
)
from bloodseg.training._loss import SegmentationLoss
from bloodseg.training._net import derive_seed


def coded(height, width):
    """An image that says of each pixel where it was, and labels that go with it."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, rows % 3], axis=-1), (rows + columns) % 3


def crops_of(*sizes, crop_size=32, seed=0):
    images, masks = zip(*(coded(*size) for size in sizes), strict=True)
    return TrainingCrops(
        images, masks, np.arange(1.0, len(sizes) + 1), crop_size=crop_size, seed=seed
    )


def places(item):
    """Return the pixels' rows and columns that an item of a coded image holds."""
    return (255 * item[0][:2]).round().long()


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize(
    ("size", "n_crops"), [((32, 32), 1), ((33, 32), 2), ((64, 64), 4), ((100, 70), 7), ((1, 1), 1)]
)
def test_as_many_crops_as_cover_the_image(size, n_crops):
    assert len(crops_of(size)) == n_crops
    assert len(crops_of(size, (32, 32))) == n_crops + 1


@pytest.mark.parametrize("size", [(100, 70), (32, 32), (20, 50), (5, 200), (1, 1)])
def test_a_crop_is_a_piece_of_image_and_mask(size):
    crops = crops_of(size, (32, 32))
    for number in range(len(crops)):
        image, (mask, weight) = crops[number]
        assert image.shape == (3, 32, 32)
        assert mask.shape == (32, 32)
        assert image.dtype == torch.float32
        assert mask.dtype == torch.int64
        assert weight == (2 if number == len(crops) - 1 else 1)
        rows, columns = places((image, mask))
        assert torch.equal((rows + columns) % 3, mask)
        for axis, found in enumerate([rows[:, 0], columns[0]]):
            if size[axis] >= 32 or weight == 2:
                assert torch.equal(found.diff(), torch.ones(31, dtype=torch.int64))
            else:  # mirrored: all of it, neighbours at most one pixel apart
                assert set(found.tolist()) == set(range(size[axis]))
                assert (found.diff().abs() <= 1).all()


def test_a_crop_depends_on_seed_epoch_and_number_only():
    crops, others = crops_of((100, 70)), crops_of((100, 70), seed=1)
    forward = [places(crops[i]) for i in range(len(crops))]
    backward = [places(crops[i]) for i in reversed(range(len(crops)))][::-1]
    assert all(map(torch.equal, forward, backward))
    assert len({tuple(place[:, 0, 0].tolist()) for place in forward}) > 4
    assert not all(torch.equal(forward[i], places(others[i])) for i in range(7))
    crops.epoch = 1
    assert not all(torch.equal(forward[i], places(crops[i])) for i in range(7))
    crops.epoch = 0
    assert all(torch.equal(forward[i], places(crops[i])) for i in range(7))


def test_crops_reach_every_pixel():
    crops = crops_of((50, 40))
    seen = torch.zeros(50, 40, dtype=torch.bool)
    for crops.epoch in range(600):
        for number in range(len(crops)):
            rows, columns = places(crops[number])
            seen[rows, columns] = True
    assert seen.all()


def test_sampler():
    crops = crops_of((100, 100))
    sampler = EpochSampler(crops)
    orders = []
    for crops.epoch in (0, 1, 0):
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(len(crops)))
    assert len(sampler) == len(crops)
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != list(range(len(crops)))


def test_the_next_batch_is_cut_ahead():
    cut = []

    class Numbers(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, number):
            cut.append(threading.get_ident())
            if number == failing:
                raise OSError("the disk went")
            return number

    failing = None
    loader = LoadedAhead(Numbers(), batch_size=2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
    assert threading.get_ident() not in cut
    failing = 3
    batches = iter(loader)
    assert next(batches).tolist() == [0, 1]
    with pytest.raises(OSError, match="the disk went"):
        next(batches)


sizes = st.tuples(
    st.sampled_from([1, 17, VALIDATION_BLOCK - 1, VALIDATION_BLOCK, VALIDATION_BLOCK + 1, 1300]),
    st.sampled_from([1, 33, VALIDATION_BLOCK, 2 * VALIDATION_BLOCK + 5]),
)


@settings(deadline=None, max_examples=20)
@given(st.lists(sizes, min_size=1, max_size=3))
def test_validation_blocks_hold_every_pixel_once(sizes):
    images, masks, n = [], [], 0
    for height, width in sizes:
        values = np.arange(n, n + height * width).reshape(height, width)
        images.append(np.stack([values >> 16, values >> 8 & 255, values & 255], -1).astype("u1"))
        masks.append((values % 3).astype(np.uint8))
        n += height * width
    weights = np.arange(1.0, len(sizes) + 1)
    seen = np.zeros(n, dtype=int)
    blocks = ValidationBlocks(images, masks, weights)
    ends = np.cumsum([height * width for height, width in sizes])
    for number in range(len(blocks)):
        image, (mask, weight) = blocks[number]
        assert max(mask.shape) <= VALIDATION_BLOCK
        high, middle, low = (255 * image).round().long().numpy()
        values = (high << 16) + (middle << 8) + low
        assert np.array_equal(values % 3, mask)
        assert weight == 1 + np.searchsorted(ends, values.flat[0], side="right")
        np.add.at(seen, values, 1)
    assert (seen == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, bool])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_image_tensor(dtype, channels):
    rng = np.random.default_rng(0)
    unit = rng.random((5, 7, *channels))
    if channels == (4,):
        unit[..., 3] = 1
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    image = (unit > 0.5) if dtype is bool else (unit * top).astype(dtype)
    image.flags.writeable = False
    tensor = image_tensor(image)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    expected = image.astype(float) / top
    expected = expected[..., :3] if channels else expected[..., None]
    expected = np.broadcast_to(expected, (5, 7, 3)).transpose(2, 0, 1)
    assert np.allclose(tensor, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("n_crops", "crop_size", "width", "gigabytes", "n_processes", "expected"),
    [
        (10**6, 128, 32, None, 1, 4),  # a CPU
        (10**6, 128, 32, 80, 1, 32),
        (10**6, 256, 32, 80, 1, 8),
        (10**6, 512, 32, 80, 1, 4),
        (2047, 128, 32, 80, 1, 16),  # 32 would leave fewer than 64 steps
        (2048, 128, 32, 80, 1, 32),
        (2048, 128, 32, 80, 4, 8),
        (60, 128, 32, 80, 1, 4),
        (10**6, 128, 32, 1, 1, 8),
        (10**6, 128, 128, 1, 1, 4),
    ],
)
def test_the_batch_of_auto(n_crops, crop_size, width, gigabytes, n_processes, expected):
    memory = None if gigabytes is None else gigabytes * 2**30
    shapes = [(crop_size, crop_size, 3)] * (n_crops - 1) + [(crop_size, 1)]
    facts = {"memory": memory, "n_processes": n_processes}
    assert choose_batch_size(shapes, crop_size, width, **facts) == expected
    assert scale_learning_rate(2e-3, expected) == pytest.approx(1e-3 * expected**0.5)


# ---------------------------------------------------------------- loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 3, 4, 5), generator=generator)
    masks = torch.randint(0, 3, (3, 4, 5), generator=generator)
    return logits, masks


@pytest.mark.parametrize("class_weight", [None, [1.0, 5.0, 0.5], [1.0, 0.0, 2.0]])
def test_cross_entropy_is_torchs(batch, class_weight):
    logits, masks = batch
    weight = None if class_weight is None else torch.tensor(class_weight)
    loss = SegmentationLoss("cross_entropy", weight)(logits, (masks, torch.ones(3)))
    expected = nn.functional.cross_entropy(logits, masks, weight=weight, reduction="sum")
    assert loss.item() == pytest.approx(expected.item() / masks.numel(), rel=1e-5)


def test_sample_weights_by_hand(batch):
    logits, masks = batch
    weights = torch.tensor([1.0, 0.0, 3.0])
    each = [
        nn.functional.cross_entropy(logits[i : i + 1], masks[i : i + 1]).item() for i in range(3)
    ]
    loss = SegmentationLoss()(logits, (masks, weights))
    assert loss.item() == pytest.approx((each[0] + 3 * each[2]) / 3, rel=1e-5)
    # A weight acts in a batch of one image, too.
    alone = SegmentationLoss()(logits[2:], (masks[2:], weights[2:]))
    assert alone.item() == pytest.approx(3 * each[2], rel=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "cross_entropy+dice"])
def test_nothing_of_weight_gives_no_gradient_and_no_nan(batch, kind):
    logits, masks = batch
    logits.requires_grad_()
    loss = SegmentationLoss(kind)(logits, (masks, torch.zeros(3)))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad == 0).all()
    only = SegmentationLoss("cross_entropy", torch.tensor([1.0, 0.0, 1.0]))
    assert only(logits, (torch.ones_like(masks), torch.ones(3))).item() == 0


@pytest.mark.parametrize("kind", ["cross_entropy", "cross_entropy+dice"])
def test_pixels_without_a_label_add_nothing(batch, kind):
    (logits, masks), weights = batch, torch.tensor([1.0, 0.5, 1.5])
    logits.requires_grad_()
    partial = masks.clone()
    partial[:, :2] = 255
    loss = SegmentationLoss(kind)(logits, (partial, weights))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).any()
    if kind == "cross_entropy":
        losses = nn.functional.cross_entropy(logits, masks, reduction="none")
        losses = losses * weights[:, None, None]
        assert torch.allclose(loss, losses[:, 2:].sum() / masks.numel())


def test_dice_by_hand():
    # One image of two pixels, labels 0 and 1; the network gives 0.5 to classes 0 and 1 each.
    logits = torch.tensor([0.0, 0.0, -1e4]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    masks = torch.tensor([[[0, 1]]])
    target = masks, torch.ones(1)
    dice = SegmentationLoss("cross_entropy+dice")(logits, target) - SegmentationLoss()(
        logits, target
    )
    # (2 * 0.5 + 1) / (1 + 1 + 1) twice, and (0 + 1) / (0 + 0 + 1) for the absent class
    assert dice.item() == pytest.approx(1 - (2 / 3 + 2 / 3 + 1) / 3, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_dice_with_sample_weights(batch, weight):
    logits, masks = batch
    target = masks, torch.tensor([1.0, weight, 1.0])
    dice = SegmentationLoss("cross_entropy+dice")(logits, target) - SegmentationLoss()(
        logits, target
    )
    copies = torch.tensor([0, 2] if weight == 0 else [0, 1, 1, 2])
    same = masks[copies], torch.ones(len(copies))
    repeated = SegmentationLoss("cross_entropy+dice")(logits[copies], same) - SegmentationLoss()(
        logits[copies], same
    )
    assert dice.item() == pytest.approx(repeated.item(), rel=1e-4)


def test_a_perfect_prediction_costs_nothing():
    masks = torch.tensor([[[0, 1, 2, 2]]])
    logits = 100.0 * nn.functional.one_hot(masks, 3).movedim(-1, 1)
    loss = SegmentationLoss("cross_entropy+dice")(logits, (masks, torch.ones(1)))
    assert loss.item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------- schedule, seeds, checkpoints


def test_cosine_schedule():
    schedule = CosineSchedule(0.01, steps_per_epoch=10, max_epochs=20)
    rates = [schedule.rate(step) for step in range(200)]
    assert rates[0] == pytest.approx(0.001, rel=1e-3)  # a tenth of the way up in ten steps
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[100] == pytest.approx(0.01 * (0.01 + 0.99 * 0.5))
    assert schedule.rate(200) == schedule.rate(300) == pytest.approx(1e-4)


def test_a_short_training_warms_up_at_once():
    assert CosineSchedule(0.01, 1, 1).rate(0) == pytest.approx(0.01)


@pytest.mark.parametrize(("norm", "expected"), [(10.0, 1.0), (0.5, 0.5)])
def test_a_large_gradient_is_scaled_to_one(norm, expected):
    weight = nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), norm / 2)
    ClippedGradients().on_grad_computed(None, [("weight", weight)])
    assert weight.grad.tolist() == pytest.approx([expected / 2] * 4)


def test_derived_seeds_differ():
    seeds = {derive_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, 4) == derive_seed(3, 4)


def test_of_equal_losses_the_first_is_the_best():
    best = BestWeights(nn.Linear(1, 1), patience=None)
    for epoch, loss in enumerate((2.0, 1.0, 1.0), start=1):
        best.update({"valid_loss": loss}, epoch)
    assert (best.best_epoch, best.best_loss) == (2, 1.0)


def test_best_weights_patience():
    best = BestWeights(nn.Linear(1, 1), patience=2)
    best.best_epoch = 3
    assert [best.is_out_of_patience(n) for n in (3, 4, 5, 6)] == [False, False, True, True]
    best.patience = None
    assert not best.is_out_of_patience(99)


STATE = {
    "network": {"weight": torch.arange(3.0)},
    "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]},
    "history": [{"epoch": 1, "loss": math.pi}],
    "best": {"state": None, "loss": math.inf, "epoch": 0},
}


def test_checkpoint_round_trip(tmp_path):
    path = tmp_path / "deep" / "name.pt"
    first = Checkpoint(path, seed=7)
    assert (first.state, first.seed) == (None, 7)
    first.save(**STATE)
    second = Checkpoint(path, seed=99)
    assert second.seed == 7
    assert second.state.keys() == {"seed", *STATE}
    assert torch.equal(second.state["network"]["weight"], STATE["network"]["weight"])
    assert second.state["history"] == STATE["history"]
    assert second.state["best"] == STATE["best"]
    assert [file.name for file in path.parent.iterdir()] == ["name.pt"]


@pytest.mark.parametrize("key", ["seed", "network", "optimizer", "history", "best", "checksum"])
def test_a_checkpoint_without_one_of_its_parts_is_none(tmp_path, key):
    path = tmp_path / "name.pt"
    Checkpoint(path, seed=7).save(**STATE)
    state = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in state.items() if name != key}, path)
    with pytest.raises(ValueError, match=re.escape(f"{path} ") + ".*Delete it to train from the"):
        Checkpoint(path, seed=7)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 8},
        {"network": {"weight": torch.tensor([0.0, 1.0, 2.0000002])}},
        {"network": {"weight": torch.arange(3)}},
        {"network": {"other": torch.arange(3.0)}},
        {"network": {"weight": torch.arange(3.0).reshape(3, 1)}},
        {"history": "[]"},
        {"best": {"loss": 1.0}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_checkpoint_that_was_changed_is_none(tmp_path, changed):
    path = tmp_path / "name.pt"
    Checkpoint(path, seed=7).save(**STATE)
    torch.save({**torch.load(path, weights_only=True), **changed}, path)
    text = f"{path} was damaged after it was written: its checksum does not fit. Delete it to train"
    with pytest.raises(ValueError, match=re.escape(text)):
        Checkpoint(path, seed=7)


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "name.pt"
    Checkpoint(path, seed=7).save(**STATE)
    whole = path.read_bytes()
    weights = whole.index(np.arange(3, dtype=np.float32).tobytes())
    noticed = {}
    for place in [*range(weights, weights + 12), *range(0, len(whole), 7)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x04
        path.write_bytes(damaged)
        try:
            state = Checkpoint(path, seed=1).state
        except ValueError:
            noticed[place] = True
        else:  # a byte of padding, or one of the zip that torch does not look at
            assert torch.equal(state["network"]["weight"], STATE["network"]["weight"])
            assert state["seed"] == 7
            assert state["history"] == STATE["history"]
            noticed[place] = False
    assert all(noticed[weights + k] for k in range(12))
    assert sum(noticed.values()) > 50


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "name.pt"
    Checkpoint(path, seed=1).save(**STATE)
    before = path.read_bytes()

    def save_half(state, file):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.warns(UserWarning, match=r"name\.pt was not written: No space left on device"):
        Checkpoint(path, seed=2).save(**STATE)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["name.pt"]


@pytest.mark.parametrize("content", [b"", b"junk", b".", b"K\x01.", b"(", b"\x80\x02}q\x00."])
def test_junk_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "name.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} cannot be read as a checkpoint (")):
        Checkpoint(path, seed=0)


def test_no_accelerator():
    assert make_accelerator(None) is None
    assert make_accelerator(False) is None
    given = object()
    assert make_accelerator(given) is given
    state = np.random.RandomState(0)
    assert share_seed(state, None) != share_seed(state, None)
    assert share_seed(np.random.RandomState(0), None) == share_seed(np.random.RandomState(0), None)


def test_accelerate_that_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    text = "accelerator=True needs Hugging Face Accelerate: pip install 'bloodseg[distributed]'."
    with pytest.raises(ImportError, match=re.escape(text)):
        make_accelerator(True)


# ---------------------------------------------------------------- weight decay


class NetWithIdleWeight(PixelNet):
    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return super().forward(x) + 0 * self.idle


def test_a_weight_that_the_loss_asks_nothing_of_decays(tiny, smears):
    segmenter = tiny(network=NetWithIdleWeight, learning_rate=0.1)
    segmenter.fit(smears.images, smears.masks)
    assert 0.9 < segmenter.network_.idle.item() < 1
