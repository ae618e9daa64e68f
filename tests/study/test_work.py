"""What ODE-blocks do, measured without a trace in the model."""

import copy
import pickle

import numpy as np
import pytest
import torch

from bloodseg import BloodCellSegmenter
from bloodseg.metrics import mean_iou
from bloodseg.networks import image_tensor
from bloodseg.study import work_of_blocks


@pytest.fixture(scope="module")
def model(smears):
    segmenter = BloodCellSegmenter(
        preprocessor=None,
        width=4,
        max_epochs=1,
        crop_size=32,
        random_state=0,
        precision="float32",
        ode_positions=(4, 5),
        predict_ode_tol=1e-2,
    )
    return segmenter.fit(smears.images, smears.masks)


def test_work_is_that_of_the_network(model, smears):
    network = copy.deepcopy(model.network_)
    for block in network.ode_blocks.values():
        block.predict_tol = 1e-2
    moved = {4: [], 5: []}
    for position, block in network.ode_blocks.items():
        block.register_forward_hook(
            lambda block, inputs, output, found=moved[position]: found.append(
                ((output - inputs[0]).norm() / inputs[0].norm()).item()
            )
        )
    with torch.no_grad():
        for image in smears.images:
            network(image_tensor(image)[None])
        network.ode_blocks[4].register_forward_hook(lambda block, inputs, output: inputs[0])
        without = [network(image_tensor(image)[None]).argmax(1)[0] for image in smears.images]
    work = work_of_blocks(model, smears.images, smears.masks)
    assert list(work) == [4, 5]
    for position, found in moved.items():
        assert work[position]["relative_change"] == pytest.approx(np.mean(found[:6]), rel=1e-3)
        assert work[position]["relative_change"] > 0
    expected = mean_iou(smears.masks, torch.stack(without).numpy())
    assert work[4]["mean_iou_without"] == pytest.approx(expected)


def test_the_model_is_left_as_it_is(model, smears):
    model.predict(smears.images[:2])
    before = pickle.dumps(model)
    maps = model.predict(smears.images)
    model.predict(smears.images[:2])
    seen = vars(model).copy()
    work_of_blocks(model, smears.images, smears.masks)
    assert pickle.dumps(model) == before
    assert all(vars(model)[name] is value for name, value in seen.items())
    assert np.array_equal(model.predict(smears.images), maps)


def test_a_network_without_blocks_does_no_such_work(tiny, smears):
    model = tiny(network="unet", max_epochs=1).fit(smears.images, smears.masks)
    assert work_of_blocks(model, smears.images, smears.masks) == {}
