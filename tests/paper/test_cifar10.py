"""The classifier of section 5.1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wn_dqn.nn.layers import layers_of
from wn_dqn.paper import reference_code
from wn_dqn.paper.cifar10 import Cifar10, Whitening, dropout
from wn_dqn.paper.settings import ARMS, make_paper_settings


def model(param: str, width: int = 4, epochs: int = 200) -> Cifar10:
    """The classifier, its parameters not set yet."""
    return Cifar10(make_paper_settings("cifar10", param, None, width=width, epochs=epochs))


def test_parameters_by_hand() -> None:
    """Table 1: 3x3 convolutions 3-96-96-96, 192-192-192, 192, then two of 1x1, and ten outputs."""
    convolutions = [(3, 96, 9), (96, 96, 9), (96, 96, 9), (96, 192, 9), *[(192, 192, 9)] * 3, *[(192, 192, 1)] * 2]
    by_hand = sum(i * o * k + o for i, o, k in convolutions) + 192 * 10 + 10
    assert by_hand == 1_406_794
    with torch.device("meta"):
        assert sum(p.numel() for p in model("standard", 96).parameters()) == by_hand


def test_shapes_are_those_of_table_1() -> None:
    network = model("standard")
    shapes: list[tuple[int, ...]] = []
    for layer in layers_of(network).values():
        layer.register_forward_hook(lambda _layer, _x, y: shapes.append(tuple(y.shape[1:])))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [*[(4, 32, 32)] * 3, *[(8, 16, 16)] * 3, *[(8, 6, 6)] * 3, (10,)]


def test_all_arms_start_as_the_same_function() -> None:
    x = torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits = {}
    for param in ARMS["cifar10"]:
        network = model(param)
        network.start_(x, torch.Generator().manual_seed(0))
        logits[param] = network.eval()(x).detach()
        torch.testing.assert_close(network.train()(x).detach(), logits[param], rtol=0, atol=1e-5)
    for param, values in logits.items():
        torch.testing.assert_close(values, logits["standard"], rtol=0, atol=1e-5, msg=param)
    torch.testing.assert_close(logits["wn"].std(dim=0, correction=0), torch.ones(10), rtol=0, atol=1e-4)


def test_the_reference_codes_standard_layers_start_alike_and_keep_their_gain() -> None:
    """w = g W with W as it was drawn: the gradient of W is g times that of w, and g does not move."""
    x = torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    settings = make_paper_settings("cifar10", "standard", None, width=4, reference_code=True)
    ours, plain, x = Cifar10(settings).double(), model("standard").double(), x.double()
    for network in (ours, plain):
        network.start_(x, torch.Generator().manual_seed(0))
        network(x).square().sum().backward()
    torch.testing.assert_close(ours(x), plain(x))
    pairs = list(zip(layers_of(ours).values(), layers_of(plain).values(), strict=True))
    gains = [layer.gain.clone() for layer, _ in pairs]
    for layer, other in pairs:
        gain = layer.gain.view(-1, *[1] * (layer.weight.ndim - 1))
        torch.testing.assert_close(layer.weight * gain, other.weight)
        torch.testing.assert_close(layer.weight.grad, other.weight.grad * gain)
        assert layer.weight.std().item() == pytest.approx(0.05, rel=0.3)
    ours.make_optimizer().step()
    assert all(torch.equal(layer.gain, gain) for (layer, _), gain in zip(pairs, gains, strict=True))


def test_the_reference_codes_adam_by_hand() -> None:
    """Two steps with gradients 2e-4 and 0, epsilon 1e-8 beside a square of 4e-8 and then of about 2e-8."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = reference_code.Adam([x], lr=0.1, betas=(0.5, 0.75))  # type: ignore[list-item]
    x.grad = torch.tensor([2e-4], dtype=torch.float64)
    optimizer.step()
    first = -0.1 * 2e-4 / (4e-8 + 1e-8) ** 0.5
    assert x.item() == pytest.approx(first, rel=1e-12)
    x.grad = torch.zeros(1, dtype=torch.float64)
    optimizer.step()
    mean, square = 0.5 * 1e-4 / (1 - 0.25), 0.75 * 1e-8 / (1 - 0.5625)
    assert x.item() == pytest.approx(first - 0.1 * mean / (square + 1e-8) ** 0.5, rel=1e-12)


def test_whitening_against_numpy() -> None:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(12, 12))
    bytes_ = (127 + 20 * generator.normal(size=(400, 12)) @ mixing).clip(0, 255).astype(np.uint8)
    images = torch.from_numpy(bytes_).view(400, 3, 2, 2)
    x = (bytes_.astype(np.float64) - 127.5) / 128
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    expected = (x - x.mean(0)) @ vectors @ np.diag((values + 1e-5) ** -0.5) @ vectors.T
    whitened = Whitening(images, 1e-5)(images).view(400, 12).numpy()
    np.testing.assert_allclose(whitened, expected, atol=1e-4)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(12), atol=0.01)


def test_whitening_is_fitted_on_the_training_set_alone() -> None:
    images = torch.randint(0, 256, (50, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whiten = Whitening(images, 0.01)
    before = whiten.matrix.clone()
    whiten(255 - images)
    assert torch.equal(before, whiten.matrix)


@pytest.mark.parametrize(
    ("epoch", "rate", "momentum"), [(0, 1, 0.9), (99.99, 1, 0.9), (100, 1, 0.5), (150, 0.5, 0.5), (200, 0, 0.5)]
)
def test_the_schedule_of_section_5_1(epoch: float, rate: float, momentum: float) -> None:
    """With the paper's rates; on the photos two arms have another."""
    for param, data, learning_rate in (
        *(("wn", "/data/cifar", 0.003), ("standard", "/data/cifar", 0.0003)),
        *(("wn", None, 0.0005), ("wn-mean-only-bn", None, 0.003), ("standard", None, 0.003)),
    ):
        system = Cifar10(make_paper_settings("cifar10", param, data, width=2, epochs=200))
        assert system.schedule(epoch) == pytest.approx((learning_rate * rate, momentum))


def test_dropout_keeps_the_mean() -> None:
    x = torch.ones(100_000)
    y = dropout(x, 0.5, torch.Generator().manual_seed(0))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropout(x, 0.5, None) is x
