"""Fits at the same time: each comes to what it comes to alone."""

from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional

from bloodseg import BloodCellCounter, BloodCellSegmenter

SMALL = {"width": 2, "max_epochs": 2, "batch_size": 2, "ode_positions": (5,)}


class Dropping(nn.Module):
    """A network of one's own, which draws from torch's global generator as it likes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.last(functional.dropout(self.first(x), 0.5, self.training))


def make(kind, seed):
    if kind == "counter":
        return BloodCellCounter(random_state=seed, scale=1.0, **SMALL)
    more = {"own network": {"network": Dropping}, "strong": {"augment": "strong"}}.get(kind, {})
    return BloodCellSegmenter(random_state=seed, crop_size=32, dropout=0.3, **SMALL, **more)


@pytest.mark.parametrize("kind", ["segmenter", "strong", "counter", "own network"])
def test_fits_in_threads_are_the_fits_alone(smears, kind, same_weights):
    targets = smears.counts if kind == "counter" else smears.masks

    def fit(seed):
        return make(kind, seed).fit(smears.images, targets)

    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = [fit(seed) for seed in range(3)]
    assert not same_weights(alone[0], alone[1])
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(fit, [0, 1, 2] * 2))
    assert torch.equal(before, torch.get_rng_state())
    for seed, model in zip([0, 1, 2] * 2, together, strict=True):
        assert same_weights(model, alone[seed])
        assert model.history_[-1]["train_loss"] == alone[seed].history_[-1]["train_loss"]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_fits_of_joblibs_workers_are_the_fits_alone(smears, backend, same_weights):
    model = make("segmenter", 0)
    alone = clone(model).fit(smears.images, smears.masks)
    with joblib.parallel_config(backend, n_jobs=2):
        fits = joblib.Parallel()(
            joblib.delayed(clone(model).fit)(smears.images, smears.masks) for _ in range(3)
        )
    assert all(same_weights(each, alone) for each in fits)


def test_threads_may_share_checkpoints(smears, tmp_path, same_weights):
    def fit(seed):
        model = make("segmenter", seed).set_params(checkpoint_dir=tmp_path)
        return model.fit(smears.images, smears.masks)

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(fit, [0, 0, 0, 1, 1, 1]))
    alone = [make("segmenter", seed).fit(smears.images, smears.masks) for seed in (0, 1)]
    assert all(same_weights(model, alone[number // 3]) for number, model in enumerate(together))
    assert {file.suffix for file in tmp_path.iterdir()} == {".pt"}
    assert all(same_weights(fit(seed), alone[seed]) for seed in (0, 1))


def test_what_others_draw_meanwhile_changes_nothing(smears, same_weights):
    alone = make("segmenter", 0).fit(smears.images, smears.masks)
    stop = False

    def draw():
        torch.manual_seed(0)
        expected = torch.rand(10_000)
        torch.manual_seed(0)
        drawn = []
        while not stop and len(drawn) < 10_000:
            drawn.append(torch.rand(1))
        return torch.cat(drawn), expected

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(draw)
        model = make("segmenter", 0).fit(smears.images, smears.masks)
        stop = True
    drawn, expected = other.result()
    assert same_weights(model, alone)
    assert torch.equal(drawn, expected[: len(drawn)])
