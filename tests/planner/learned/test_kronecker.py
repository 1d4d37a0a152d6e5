"""Kronecker-factored maps against the dense matrix."""

import pytest
import torch

from planner.learned.kronecker import KroneckerMap, cayley, nearest_factors


def disturbed(n):
    made = KroneckerMap(n)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.mark.parametrize(("n", "factors"), [(96, (8, 12)), (7, (1, 7)), (64, (8, 8)), (1, (1, 1))])
def test_factors_are_as_near_as_there_are(n, factors):
    assert nearest_factors(n) == factors


def test_it_starts_as_the_identity():
    x = torch.randn(3, 24)
    made = KroneckerMap(24)
    torch.testing.assert_close(made.inputs(x), x)
    torch.testing.assert_close(made.weights(x), x)


@pytest.mark.parametrize("n", [24, 7, 96])
def test_it_is_the_kronecker_product_and_weights_get_its_inverse(n):
    made = disturbed(n)
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(5, n, generator=generator) for _ in range(2))
    dense = torch.kron(made.first.matrix(), made.second.matrix())
    torch.testing.assert_close(made.inputs(x), x @ dense, rtol=1e-4, atol=1e-4)
    inverse = torch.linalg.inv(dense.double()).float()
    torch.testing.assert_close(made.weights(weight), weight @ inverse.T, rtol=1e-3, atol=1e-3)
    product = made.inputs(x) @ made.weights(weight).T
    torch.testing.assert_close(product, x @ weight.T, rtol=1e-3, atol=1e-3)


def test_cayley_is_orthogonal():
    made = cayley(torch.randn(9, 9, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(made @ made.T, torch.eye(9), rtol=1e-4, atol=1e-5)
