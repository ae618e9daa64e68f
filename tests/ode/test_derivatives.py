"""Derivatives beyond a plain backward: second ones, forward mode, batches, transforms."""

import pytest
import torch
from messages import raises
from ode_problems import Decay, Dense, Given, double
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, jacobian, jvp

from bloodseg.ode import FixedStepBlock, ODEBlock, solve

NO_SECOND = (
    "gradient='checkpoint' and gradient='adjoint' have no second derivatives: a gradient "
    "through them cannot be differentiated again. Take gradient='direct'."
)


class Solve(nn.Module):
    """A solve as a module, so that other weights can be swapped in."""

    def __init__(self, func, **settings):
        super().__init__()
        self.func, self.settings = func, settings

    def forward(self, y0):
        return solve(self.func, y0, **self.settings).y


# ---------------------------------------------------------------- second derivatives


def test_direct_can_be_differentiated_twice():
    def end(y0, rate, bias):
        return solve(Given(rate, bias), y0, method="bosh3", gradient="direct").y

    inputs = double([[0.3, -0.2]]), double(0.9), double([0.4, -0.6])
    assert torch.autograd.gradgradcheck(end, [each.requires_grad_() for each in inputs])


@pytest.mark.parametrize("loss", [torch.sum, lambda end: (end**2).sum()])
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_the_others_refuse_to_be_differentiated_twice(gradient, loss):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]]).requires_grad_()
    end = solve(func, y0, gradient=gradient).y
    (first,) = torch.autograd.grad(loss(end), y0, create_graph=True)
    with raises(NO_SECOND):
        (loss(end) + first.sum()).backward()


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("ask", [jvp, lambda end, y0, v: hessian(lambda y: end(y).sum(), y0)])
def test_the_others_refuse_where_only_some_derivatives_are_asked_for(gradient, ask):
    # These leave out what leads to no tensor that was asked for: they would find zeros.
    y0 = double([[0.3, -0.2, 0.9]])
    with raises(NO_SECOND):
        ask(Solve(Dense(), gradient=gradient), y0, torch.ones_like(y0))


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_a_gradient_that_records_a_graph_is_the_same(gradient):
    y0 = double([[0.3, -0.2, 0.9]]).requires_grad_()
    end = solve(Dense(), y0, gradient=gradient).y.sum()
    (plain,) = torch.autograd.grad(end, y0, retain_graph=True)
    (first,) = torch.autograd.grad(end, y0, create_graph=True)
    assert torch.equal(first, plain)


# ---------------------------------------------------------------- forward mode


def push_forward(end, y0, weights=None):
    """Return the derivative of a module's value along ones, of its input or of some weights."""
    with forward_ad.dual_level():
        if weights is None:
            value = end(forward_ad.make_dual(y0, torch.ones_like(y0)))
        else:
            duals = {k: forward_ad.make_dual(w, torch.ones_like(w)) for k, w in weights.items()}
            value = torch.func.functional_call(end, duals, (y0,))
        return forward_ad.unpack_dual(value).tangent


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_forward_mode_is_reverse_mode_with_direct(frozen, grad_mode):
    end = Solve(Dense().requires_grad_(not frozen), method="bosh3")
    y0 = double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])  # which take steps of their own
    expected = jacobian(end, y0).sum(dim=(2, 3))
    with grad_mode():
        got = push_forward(end, y0)
    assert torch.allclose(got, expected, rtol=1e-12)


def test_forward_mode_reaches_the_weights_with_direct():
    end, y0 = Solve(Decay().double(), rtol=1e-8, atol=1e-8), double([[1.0], [3.0]])
    got = push_forward(end, y0, {"func.rate": double(0.5)})
    assert torch.allclose(got, -y0 * double(-0.5).exp(), rtol=1e-6)


@pytest.mark.parametrize(
    ("gradient", "backend", "named"),
    [
        ("checkpoint", "bloodseg", "bloodseg"),
        ("adjoint", "bloodseg", "torchdiffeq"),
        ("direct", "torchdiffeq", "torchdiffeq"),
    ],
)
def test_the_others_refuse_forward_mode(gradient, backend, named):
    end = Solve(Dense().requires_grad_(False), gradient=gradient, backend=backend, name="block")
    with raises(
        f"block: gradient={gradient!r} with backend={named!r} has no forward-mode derivatives "
        "(torch.autograd.forward_ad). Take gradient='direct' and backend='bloodseg'."
    ):
        push_forward(end, double([[0.3, -0.2, 0.9]]))


# ---------------------------------------------------------------- batches of gradients


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_a_batch_of_gradients_is_each_of_them(gradient):
    end, y0 = Solve(Dense(), gradient=gradient), double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    assert torch.allclose(jacobian(end, y0, vectorize=True), jacobian(end, y0), rtol=1e-12)


def test_the_adjoint_refuses_a_batch_of_gradients():
    end, y0 = Solve(Dense(), gradient="adjoint"), double([[0.3, -0.2, 0.9]])
    with raises(
        "solve: gradient='adjoint' takes one gradient at a time, and no batch of them "
        "(is_grads_batched=True, jacobian with vectorize=True). Take gradient='checkpoint' or "
        "'direct'."
    ):
        jacobian(end, y0, vectorize=True)


# ---------------------------------------------------------------- torch.func


TRANSFORMS = {
    "vmap": lambda block, y0: torch.func.vmap(lambda y: block(y[None])[0])(y0),
    "grad": lambda block, y0: torch.func.grad(lambda y: block(y).sum())(y0),
    "jvp": lambda block, y0: torch.func.jvp(block, (y0,), (y0,)),
    "grad of the weights": lambda block, y0: torch.func.grad(
        lambda weights: torch.func.functional_call(block, weights, (y0,)).sum()
    )(dict(block.named_parameters())),
}


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_are_refused(transform, gradient):
    block = ODEBlock(Dense(), gradient=gradient)
    with raises(
        "ODEBlock: the transforms of torch.func (vmap, grad, jvp, jacrev, ...) hide the values "
        "that the steps follow from. For vmap, pass the samples as one batch; for grad and vjp "
        "call torch.autograd.grad, for jacrev torch.autograd.functional.jacobian with "
        "vectorize=True, for jvp torch.autograd.forward_ad with gradient='direct'."
    ):
        TRANSFORMS[transform](block, double([[0.3, -0.2, 0.9]]))


def test_transforms_pass_fixed_steps():
    block, y0 = FixedStepBlock(Dense(), "rk4", 2), double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    assert torch.allclose(TRANSFORMS["vmap"](block, y0), block(y0), rtol=1e-12)
    expected = jacobian(block, y0).sum(dim=(0, 1))
    assert torch.allclose(TRANSFORMS["grad"](block, y0), expected, rtol=1e-12)
