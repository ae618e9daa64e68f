"""Rows of the head that begin anew, beside those that go on from trained weights."""

import pytest
import torch
from fits import break_in
from messages import raises
from torch import nn

from bloodseg.training._callbacks import NewRows

FOUR = ("background", "white", "red", "platelet")
RATE = 1e-4


def move(head, images, targets, *, rates, rows=None):
    """Make three steps of AdamW at these rates, and let rows begin anew."""
    callback = NewRows(head, rows, rates[0]) if rows else None
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.5)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(images), targets).backward()
        if callback:
            callback.on_grad_computed(None, head.named_parameters())
        optimizer.step()
        if callback:
            callback.on_batch_end(None, training=True)
            callback.on_batch_end(None, training=False)  # an image of validation


def test_a_new_row_moves_as_at_a_rate_of_its_own():
    torch.manual_seed(0)
    images, targets = torch.randn(2, 5, 8, 8), torch.randint(0, 4, (2, 8, 8))
    start = nn.Conv2d(5, 4, 1).state_dict()
    slow, fast, both = (nn.Conv2d(5, 4, 1) for _ in range(3))
    for head in (slow, fast, both):
        head.load_state_dict(start)
    # After one step: later gradients are those of other weights.
    move(slow, images, targets, rates=[RATE])
    move(fast, images, targets, rates=[0.1])
    move(both, images, targets, rates=[RATE], rows=[1, 3])
    for name, weight in both.named_parameters():
        assert torch.equal(weight[[0, 2]], slow.get_parameter(name)[[0, 2]])
        wanted = fast.get_parameter(name)[[1, 3]]
        torch.testing.assert_close(weight[[1, 3]], wanted, rtol=0, atol=1e-4)
        assert (weight - start[name])[[1, 3]].abs().min() > 0.05


@pytest.mark.parametrize(("rate", "stretch"), [(1e-9, 1000), (0.05, 2), (0.5, 1)])
def test_the_stretch_has_limits(rate, stretch):
    assert NewRows(nn.Conv2d(5, 4, 1), [3], rate).stretch == pytest.approx(stretch)


@pytest.fixture
def start(tiny, smears, tmp_path):
    tiny(max_epochs=1).fit(smears.images, smears.masks).save(tmp_path / "three")
    return tmp_path / "three"


def with_platelets(smears):
    masks = smears.masks.copy()
    masks[:, 10:16, 10:16] = 3
    return smears.images, masks


def test_what_is_new_learns_faster_and_the_history_has_the_networks_rate(tiny, smears, start):
    def head_and_rates(learning_rate, classes, masks):
        fit = tiny(pretrained=start, learning_rate=learning_rate, classes=classes)
        fit.fit(smears.images, masks)
        weight = fit.network_.head.weight.detach()
        return weight, [row["learning_rate"] for row in fit.history_]

    masks = with_platelets(smears)[1]
    begun, _ = head_and_rates(1e-12, FOUR, masks)
    weight, rates = head_and_rates(1e-4, FOUR, masks)
    _, rates_of_known_classes = head_and_rates(1e-4, FOUR[:3], smears.masks)
    moved = (weight - begun).abs().amax(dim=(1, 2, 3))
    assert 0 < moved[:3].max() < 4e-4  # two epochs of two steps
    assert moved[3] > 100 * moved[:3].max()
    assert rates == rates_of_known_classes


def test_every_layer_that_scores_has_such_rows(tiny, smears, tmp_path):
    tiny(network="fcn", max_epochs=1).fit(smears.images, smears.masks).save(tmp_path / "three")
    images, masks = with_platelets(smears)
    begun, moved = (
        tiny(network="fcn", pretrained=tmp_path / "three", classes=FOUR, learning_rate=rate)
        .fit(images, masks)
        .network_.scorers
        for rate in (1e-12, 1e-4)
    )
    assert list(moved) == ["head", "finer.0", "finer.1"]
    for name, layer in moved.items():
        steps = (layer.weight.detach() - begun[name].weight.detach()).abs().amax(dim=(1, 2, 3))
        assert steps[3] > 100 * steps[:3].max() > 0


def test_a_killed_training_goes_on_to_the_same_new_row(
    tiny, smears, start, monkeypatch, tmp_path, same_weights
):
    def model(folder):
        return tiny(
            pretrained=start,
            classes=FOUR,
            max_epochs=3,
            batch_size=2,
            checkpoint_dir=tmp_path / folder,
        )

    data = with_platelets(smears)
    with monkeypatch.context() as patch:
        break_in(patch, 2, OSError("the power went"))
        with raises("the power went", OSError):
            model("a").fit(*data)
    assert same_weights(model("a").fit(*data), model("b").fit(*data))


def test_accelerate_moves_a_new_row_alike(tiny, smears, start, same_weights):
    pytest.importorskip("accelerate")
    fits = [
        tiny(pretrained=start, classes=FOUR, accelerator=given).fit(*with_platelets(smears))
        for given in (None, True)
    ]
    assert same_weights(*fits)
