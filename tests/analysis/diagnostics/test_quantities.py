"""Closed forms on quadratic losses f_i(w) = a_i ||w - t_i||^2 / 2, whose gradients are a_i (w - t_i)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from harmofl.analysis.diagnostics.curvature import flat_vector, hessian_product, loss_rise, top_eigenvalue
from harmofl.analysis.diagnostics.quantities import bound, cosines, dissimilarity, gram


def vectors(*rows: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


def test_gram_is_all_products_summed_in_float64() -> None:
    """In float32 the sum of 3 million ones times 0.1^2 is off in the fourth digit."""
    assert gram(vectors([1, 2, 3], [0, 1, -1])).tolist() == [[14, -1], [-1, 2]]
    assert gram([torch.full((3_000_000,), 0.1)])[0, 0] == pytest.approx(3e6 * float(torch.tensor(0.1)) ** 2, rel=1e-10)


def test_cosines() -> None:
    found = cosines(vectors([1, 0], [1, 1], [-2, 0], [0, 0]))
    assert found[0, :3].tolist() == pytest.approx([1, math.sqrt(0.5), -1])
    assert np.isnan(found[3]).all()


def test_dissimilarity_of_quadratics_at_zero() -> None:
    """Gradients -t_i = (3, 0), (0, 3), (0, -3): F's is (1, 0)."""
    found = dissimilarity([vectors([3, 0]), vectors([0, 3]), vectors([0, -3])])
    assert found.gradient == pytest.approx(1)
    assert found.of_sites == pytest.approx((3, 3, 3))
    assert found.square == pytest.approx(9)
    assert found.spread == pytest.approx(8)
    assert found.relative == pytest.approx(8 / 9)
    assert found.epsilon == pytest.approx(6)
    assert all(map(math.isnan, found.variances))
    assert math.isnan(found.spread_unbiased)


def test_equal_sites_are_not_dissimilar() -> None:
    found = dissimilarity([vectors([1, 2], [3, 4]), vectors([1, 2], [3, 4])])
    assert found.spread == found.epsilon == 0
    assert found.relative == 0
    assert found.variances == pytest.approx((4, 4))  # ||(2, 2)||^2 / 2


def test_spread_is_unbiased_and_variance_too() -> None:
    """Site gradients (2, 0, ...) and (0, ...), each batch with noise of variance 0.25 in 50 dimensions."""
    generator, noise, count = torch.Generator().manual_seed(0), 0.5, 50
    truth = [torch.zeros(count), torch.zeros(count)]
    truth[0][0] = 2
    found = [
        dissimilarity([[t + noise * torch.randn(count, generator=generator) for _ in range(2)] for t in truth])
        for _ in range(400)
    ]
    sigma2 = noise**2 * count
    assert np.mean([f.variances for f in found]) == pytest.approx(sigma2, rel=0.03)
    assert np.mean([f.spread_unbiased for f in found]) == pytest.approx(1, abs=0.2)
    assert np.mean([f.spread for f in found]) == pytest.approx(1 + sigma2 / 2 / 2, rel=0.05)  # two batches, two sites


def test_bound_by_hand() -> None:
    """K eta = 1: 4 * 3 + 4 * 2^2 * (2/3)^2 + 2 * 5 / 10."""
    found = bound(steps=10, lr=0.1, square=3, epsilon=2, variance=5, sites=3)
    assert (found.gradients, found.dissimilarity, found.variance) == pytest.approx((12, 64 / 9, 1))
    assert found.total == pytest.approx(12 + 64 / 9 + 1)


def test_bound_holds_for_gradient_descent_on_quadratics() -> None:
    """Small steps, no noise: Gamma is below what Theorem 3.1 allows, and not by orders of magnitude."""
    lr, steps, targets = 0.01, 5, vectors([1, 2], [-3, 1], [0, -2])
    paths = [[(1 - (1 - lr) ** k) * t for k in range(1, steps + 1)] for t in targets]
    found = dissimilarity([[-t] for t in targets])
    limit = bound(steps=steps, lr=lr, square=found.square, epsilon=found.epsilon, variance=0, sites=3)
    gamma = np.mean([[float(w.square().sum()) for w in path] for path in paths])
    assert 0.01 * limit.total < gamma < limit.total


class Quadratic(nn.Module):
    """w' A w / 2 + b' w, over two params."""

    A = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, -6.0]])
    b = torch.tensor([3.0, 0.0, 4.0])

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

    def forward(self) -> torch.Tensor:
        w = torch.cat([self.u, self.v])
        return w @ self.A @ w / 2 + self.b @ w


def test_rise_on_a_quadratic() -> None:
    """At 0 the gradient is b, of norm 5: the rise is 5 alpha + alpha^2 b'Ab / (2 * 25)."""
    f, alpha = Quadratic(), 0.1
    params = list(f.parameters())
    gradient = torch.autograd.grad(f(), params)
    with torch.no_grad():
        found = loss_rise(f, params, gradient, lambda: float(f()), 0.0, alpha)
    assert found == pytest.approx(5 * alpha + alpha**2 * float(f.b @ f.A @ f.b) / 50, rel=1e-5)
    assert all(not param.any() for param in params)


def test_hessian_product_of_a_quadratic_and_of_a_linear_loss() -> None:
    f, vector = Quadratic(), torch.tensor([1.0, -1.0, 2.0])
    assert hessian_product(f(), list(f.parameters()), vector).tolist() == pytest.approx((f.A @ vector).tolist())
    w = nn.Parameter(torch.ones(3))
    assert not hessian_product(2 * w.sum(), [w], torch.ones(3)).any()


def test_top_eigenvalue_is_exact_after_as_many_steps_as_dimensions() -> None:
    value, residual = top_eigenvalue(lambda v: Quadratic.A @ v, torch.ones(3))
    assert value == pytest.approx(float(torch.linalg.eigvalsh(Quadratic.A)[-1]), rel=1e-5)
    assert residual < 1e-4


def test_few_steps_give_a_lower_bound_with_an_honest_residual() -> None:
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(60, 60, generator=generator)
    A = (A + A.T) / 2
    eigenvalues = torch.linalg.eigvalsh(A)
    for steps in (1, 3, 6, 12):
        value, residual = top_eigenvalue(lambda v: A @ v, torch.ones(60), steps)
        assert value <= float(eigenvalues[-1]) + 1e-4
        assert float((eigenvalues - value).abs().min()) <= residual + 1e-4


def test_what_is_not_finite_has_no_eigenvalue() -> None:
    assert all(map(math.isnan, top_eigenvalue(lambda v: v * math.inf, torch.ones(3))))


def test_flat_is_in_the_order_of_the_dimensions() -> None:
    x = torch.arange(24.0).reshape(1, 4, 2, 3)
    assert torch.equal(flat_vector([x.to(memory_format=torch.channels_last)]), torch.arange(24.0))
