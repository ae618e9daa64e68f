"""Right-hand sides that prepare their weights once for a whole solve."""

import pytest
import torch
from ode_problems import OURS, Prepared, double

from bloodseg.ode import solve


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("method", ["bosh3", "dopri8", "euler"])
def test_prepared_weights_give_the_same_solution_and_gradient(gradient, method):
    class Plain(Prepared):
        prepare = property()  # raises AttributeError: as if there were none

    y0 = double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0], [0.0, 0.1, 2.0]])
    common = {"method": method, "gradient": gradient}
    func, plain = Prepared(), Plain()
    expected, solution = solve(plain, y0, **common), solve(func, y0, **common)
    assert (plain.n_prepared, func.n_prepared) == (0, 1)
    assert torch.allclose(solution.y, expected.y, rtol=1e-12)
    assert solution.n_evaluations.tolist() == expected.n_evaluations.tolist()
    assert solution.y.requires_grad
    for got in solution.y, expected.y:
        (got**2).sum().backward()
    for name in ("weight", "bias"):
        got, truth = getattr(func, name).grad, getattr(plain, name).grad
        assert got is not None
        assert torch.allclose(got, truth, rtol=1e-10)
    assert func.frozen.grad is None


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("gradient", OURS)
def test_prepared_weights_have_the_precision(precision, gradient):
    func = Prepared(torch.float32)
    y0 = torch.ones(2, 3, requires_grad=True)
    end = solve(func, y0, gradient=gradient, precision=precision).y
    end.sum().backward()
    assert func.computed == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
    assert end.dtype == y0.grad.dtype == func.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_prepared_weights_serve_prediction(context):
    func, y0 = Prepared(), double([[0.3, -0.2, 0.9]])
    expected = solve(func, y0, gradient="checkpoint").y.detach()
    with context():
        assert torch.allclose(solve(func, y0, gradient="checkpoint").y, expected)


@pytest.mark.parametrize("gradient", OURS)
def test_hooks_see_each_call_of_a_function_that_prepares_its_weights(gradient):
    y0 = double([[0.3, -0.2, 0.9]])
    plain, func, seen = Prepared(), Prepared(), []
    expected = solve(plain, y0, gradient=gradient).y
    handle = func.register_forward_hook(lambda *given: seen.append(given))
    with torch.no_grad():
        solution = solve(func, y0, gradient=gradient)
    assert len(seen) == solution.n_evaluations[0]
    got = solve(func, y0, gradient=gradient).y
    assert torch.allclose(got, expected, rtol=1e-12)
    for end in expected, got:
        end.sum().backward()
    assert torch.allclose(func.weight.grad, plain.weight.grad, rtol=1e-10)
    handle.remove()
    seen.clear()
    solve(func, y0, gradient=gradient)
    assert not seen
