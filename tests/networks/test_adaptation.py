"""Statistics of normalisation that lean towards images."""

import pytest
import torch
from torch import nn

from bloodseg.networks import (
    FCN,
    FeedbackUNet,
    NODEsUNet,
    ResNetUNet,
    UNet,
    adapt_statistics,
    make_plain_body,
)
from bloodseg.ode import ODEBlock


class Normalising(nn.Module):
    """A right-hand side that normalises."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, t, h):
        return self.norm(h)


def with_normalising_function(**parameters):
    def body(position, channels):
        if position == 5:
            return ODEBlock(Normalising(channels), method="euler", n_steps=3)
        return make_plain_body(position, channels)

    return UNet(body=body, **parameters)


ONCE = [UNet, ResNetUNet, NODEsUNet, FCN]  # through each layer


@pytest.fixture(params=[*ONCE, FeedbackUNet, with_normalising_function])
def network(request):
    network = request.param(width=4).eval()
    for module in network.modules():  # others than those of a new network, which are 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(0))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    return network


IMAGES = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(2))


def test_a_share_of_nothing_changes_nothing(network):
    assert adapt_statistics(network, IMAGES, 0.0)(IMAGES).equal(network(IMAGES))


@pytest.mark.parametrize("network", ONCE, indirect=True)
def test_the_whole_way_is_what_training_normalises_by(network):
    adapted = adapt_statistics(network, IMAGES, 1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        torch.testing.assert_close(adapted(IMAGES), network(IMAGES), rtol=1e-3, atol=1e-4)


def test_a_share_lies_between(network):
    norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    means, variances = [], []
    for share in (0.0, 0.25, 1.0):
        adapted = adapt_statistics(network, IMAGES, share)
        first = next(m for m in adapted.modules() if isinstance(m, nn.BatchNorm2d))
        means.append(first.running_mean)
        variances.append(first.running_var)
    for given, values in ((norm.running_mean, means), (norm.running_var, variances)):
        assert values[0].equal(given)
        torch.testing.assert_close(values[1], 0.75 * values[0] + 0.25 * values[2])


def test_the_network_is_left_as_it_is(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    adapted = adapt_statistics(network, IMAGES, 0.5)
    assert not adapted(IMAGES).equal(network(IMAGES))
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in adapted.modules())
