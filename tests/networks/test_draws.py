"""Random numbers of one's own, beside a global generator that stays as it is."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional

from bloodseg.networks import DrawnFrom, UNet, make_network, seed_dropout, seed_globally
from bloodseg.networks._blocks import Dropout

ONES = torch.ones(9)
DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(2, 3, dtype=torch.float64),
    "randint": lambda: torch.randint(10**6, (4,)),
    "randint of two": lambda: torch.randint(5, 10**6, (4,)),
    "randperm": lambda: torch.randperm(20),
    "rand_like": lambda: torch.rand_like(ONES),
    "randn_like": lambda: torch.randn_like(ONES),
    "randint_like": lambda: torch.randint_like(ONES, 10**6),
    "normal": lambda: torch.normal(ONES, ONES),
    "bernoulli": lambda: torch.bernoulli(torch.full((64,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(64), 30),
    "poisson": lambda: torch.poisson(100 * torch.ones(9)),
    "uniform_": lambda: torch.empty(3).uniform_(),
    "exponential_": lambda: torch.empty(3).exponential_(),
    "dropout": lambda: functional.dropout(torch.ones(64)),
    "dropout2d": lambda: functional.dropout2d(torch.ones(1, 64, 1, 1)),
    "rrelu": lambda: functional.rrelu(-ONES, training=True),
    "gumbel": lambda: functional.gumbel_softmax(ONES),
    "kaiming": lambda: nn.init.kaiming_uniform_(torch.empty(3, 3)),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(3, 3)),
    "orthogonal": lambda: nn.init.orthogonal_(torch.empty(3, 3)),
    "Beta": lambda: torch.distributions.Beta(2.0, 3.0).sample((3,)),
    "gamma": lambda: torch.distributions.Gamma(2.0, 3.0).sample((3,)),
    "linear": lambda: nn.Linear(3, 3).weight.detach(),
    "network": lambda: make_network("nodes-unet", width=2).stages[3][1].func.first.direction,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_come_from_the_seed_and_leave_the_global_generator(draw):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        with DrawnFrom(seed):
            found.append((draw(), draw()))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[0][1])
    assert not torch.equal(found[0][0], found[2][0])
    torch.manual_seed(0)
    with DrawnFrom(1):
        assert torch.equal(draw(), found[0][0])  # wherever the global generator is


def test_a_generator_that_is_given_is_taken():
    given = torch.Generator().manual_seed(3)
    expected = torch.rand(3, generator=given)
    with DrawnFrom(1):
        assert torch.equal(torch.rand(3, generator=given.manual_seed(3)), expected)


def test_threads_draw_as_they_do_alone():
    def draw_all(seed):
        with DrawnFrom(seed):
            return [draw() for _ in range(5) for draw in DRAWS.values()]

    alone = [draw_all(seed) for seed in range(8)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw_all, range(8)))
    for first, second in zip(alone, together, strict=True):
        assert all(map(torch.equal, first, second))
    assert torch.equal(state, torch.get_rng_state())


def test_other_threads_draw_from_the_global_generator_meanwhile():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with DrawnFrom(1), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(torch.rand, 3).result(), expected)


def test_dropout_from_a_seed():
    network, image = UNet(width=4, dropout=0.5).train(), torch.ones(1, 3, 32, 32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        with seed_dropout(seed, network, torch.device("cpu")):
            found.append(network(image))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not any(getattr(layer, "generator", None) for layer in network.modules())
    network(image)
    assert not torch.equal(before, torch.get_rng_state())  # like any network of torch


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5])
def test_dropout_with_a_generator_of_its_own_is_torchs(p):
    layer, x = Dropout(p), torch.rand(100, 100, requires_grad=True)
    layer.generator = torch.Generator().manual_seed(0)
    dropped = layer(x)
    zeros = dropped == 0
    assert zeros.float().mean() == pytest.approx(p, abs=0.02)
    assert torch.allclose(dropped[~zeros], (x / (1 - p))[~zeros])
    dropped.sum().backward()
    assert torch.equal(x.grad == 0, zeros)
    assert torch.equal(layer.eval()(x), x)


def test_seeded_puts_the_global_generator_back():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with seed_globally(5):
        first = torch.rand(3)
    with pytest.raises(KeyError), seed_globally(5):
        {}[float(torch.rand(3)[0] - first[0])]
    assert torch.equal(before, torch.get_rng_state())


def test_threads_take_turns_with_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    barrier = threading.Barrier(4)

    def draw(seed):
        barrier.wait()
        with seed_globally(seed):
            return torch.stack([torch.rand(50) for _ in range(50)])

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    for seed, found in enumerate(together):
        with seed_globally(seed):
            assert torch.equal(found, torch.rand(50, 50))
    assert torch.equal(before, torch.get_rng_state())
