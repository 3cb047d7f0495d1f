"""Curvature of a loss: the largest eigenvalue of its Hessian, and its ratio to the fifth largest, by Lanczos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

CURVATURE_METRICS = ("hessian_top", "hessian_condition")


def curvature(
    loss: Tensor, parameters: Iterable[nn.Parameter], products: int, start: torch.Generator
) -> dict[str, float]:
    """`CURVATURE_METRICS` of `loss` [], which must allow a second derivative; NaN if it is not finite.

    `hessian_top` is the largest eigenvalue of the Hessian H with respect to `parameters`. `hessian_condition` is its
    ratio to the fifth largest, as in Jastrzebski et al. 2020 and Foret et al. 2021; NaN if the fifth is not positive.
    The condition number itself is not useful here, because ReLU networks have eigenvalues of 0. Both are computed by
    Lanczos's iteration with `products` Hessian-vector products, from a random vector of `start`. The memory needed is
    `products` times that of the parameters.
    """
    params = [param for param in parameters if param.requires_grad]
    gradients = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    gradient = torch.cat([each.flatten() for each in gradients])
    first = torch.randn(gradient.numel(), generator=start, dtype=torch.float64).to(gradient)
    first /= first.norm()
    if not gradient.isfinite().all():
        return dict.fromkeys(CURVATURE_METRICS, math.nan)

    def times_hessian(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # the loss is linear, or constant
            return torch.zeros_like(vector)
        given = torch.autograd.grad(gradient, params, vector, retain_graph=True, materialize_grads=True)
        return torch.cat([each.flatten() for each in given])

    values = lanczos(times_hessian, first, min(products, first.numel()))
    fifth = values[-5].item() if len(values) >= 5 else 0.0
    condition = values[-1].item() / fifth if fifth > 0.0 else math.nan
    return dict(zip(CURVATURE_METRICS, (values[-1].item(), condition), strict=True))


def lanczos(product: Callable[[Tensor], Tensor], first: Tensor, steps: int) -> Tensor:
    """Ritz values [K], ascending, of a symmetric matrix; K is at most `steps`. The outer ones converge first.

    `product` multiplies the matrix with a vector [P]. `first` [P] has norm 1. Each new vector is orthogonalized twice
    against all previous ones. Otherwise rounding would produce copies of the largest eigenvalue. K is smaller than
    `steps` if the Krylov space of `first` has a smaller dimension.
    """
    basis = first.new_empty(steps, first.numel())
    diagonal, beside = [], []
    vector = first
    for step in range(steps):
        basis[step] = vector
        image = product(vector)
        diagonal.append(image.dot(vector).item())
        known = basis[: step + 1]
        for _ in range(2):
            image = image - known.T @ (known @ image)
        norm = image.norm().item()
        if not norm > 1e-6 * max(map(abs, diagonal)):
            break
        beside.append(norm)
        vector = image / norm
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for place, value in enumerate(beside[: len(diagonal) - 1]):
        matrix[place, place + 1] = matrix[place + 1, place] = value
    if not matrix.isfinite().all():  # LAPACK would raise
        return torch.full((1,), math.nan)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values
