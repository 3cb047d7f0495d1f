"""DRAW: attention, LSTMs and the bound."""

from __future__ import annotations

import pytest
import torch

from wn_dqn.nn.recurrent import WeightNormLSTM
from wn_dqn.paper.bounds import binarized
from wn_dqn.paper.draw import Draw, PlainLSTM, filter_banks, lstm_step
from wn_dqn.paper.settings import make_paper_settings


def draw(param: str, *, attention: bool = True, glimpses: int = 3) -> Draw:
    """A small DRAW, started."""
    network = Draw(make_paper_settings("draw", param, None, width=8, glimpses=glimpses, attention=attention))
    network.start_(torch.zeros(1), torch.Generator().manual_seed(0))
    return network


def test_every_filter_sums_to_1_wherever_it_lies() -> None:
    params = torch.tensor([[0.0] * 5, [5.0, -7.0, -3.0, 1.0, 2.0], [0.1, 0.2, 3.0, -1.0, 0.0]])
    fy, fx, gamma = filter_banks(params, 5, 28)
    assert fy.shape == fx.shape == (3, 5, 28)
    for bank in (fy, fx):
        torch.testing.assert_close(bank.sum(dim=2), torch.ones(3, 5))
    torch.testing.assert_close(gamma[:, 0], params[:, 4].exp())


def test_a_narrow_glimpse_reads_pixels_where_its_centres_are() -> None:
    """N = 3 on 9 pixels: with g = 0 and log stride = 0 the centres are the pixels 0, 4 and 8."""
    fy, fx, _ = filter_banks(torch.tensor([[0.0, 0.0, -10.0, 0.0, 0.0]]), 3, 9)
    expected = torch.zeros(3, 9)
    expected[[0, 1, 2], [0, 4, 8]] = 1.0
    torch.testing.assert_close(fy[0], expected)
    torch.testing.assert_close(fx[0], expected)


def test_the_gradients_of_the_filters() -> None:
    params = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: filter_banks(p, 3, 7), (params,))


@pytest.mark.parametrize("kind", [PlainLSTM, WeightNormLSTM])
def test_a_step_is_torchs(kind: type) -> None:
    lstm = kind(4, 6)
    lstm.initialize_(torch.Generator().manual_seed(0))
    if kind is WeightNormLSTM:
        with torch.no_grad():  # w = g v/||v|| whatever the length of v
            lstm.v_hh.mul_(3.0)
    cell = torch.nn.LSTMCell(4, 6)
    with torch.no_grad():
        cell.weight_ih.copy_(lstm.weight_ih)
        cell.weight_hh.copy_(lstm.weight_hh)
        cell.bias_ih.copy_(lstm.bias)
        cell.bias_hh.zero_()
    x, h, c = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(2))
    step = lstm_step(x[:, :4], (h, c), lstm.weight_ih, lstm.weight_hh, lstm.bias)
    torch.testing.assert_close(step, cell(x[:, :4], (h, c)))


@pytest.mark.parametrize("attention", [True, False])
def test_both_arms_start_as_the_same_function(attention: bool) -> None:
    x = torch.randint(0, 256, (6, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    binary, bounds = binarized(x, torch.Generator().manual_seed(1)), []
    for param in ("standard", "wn"):
        network = draw(param, attention=attention)
        bounds.append(network.bound(binary, torch.Generator().manual_seed(2))[0].detach())
        kl = network.bound(binary, torch.Generator().manual_seed(2))[2]
        assert (kl > 0).all()
    torch.testing.assert_close(bounds[0], bounds[1], rtol=1e-5, atol=0)


def test_every_weight_vector_is_normalized_and_the_gradient_along_v_is_zero() -> None:
    network = draw("wn")
    x = torch.randint(0, 2, (4, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()
    network.bound(x, torch.Generator().manual_seed(0))[0].mean().backward()
    directions = {name: p for name, p in network.named_parameters() if name.rpartition(".")[2].startswith("v")}
    assert len(directions) == 8  # two of each LSTM, and four linear layers
    matrices = [name for name, p in network.named_parameters() if p.ndim == 2]
    assert sorted(matrices) == sorted(directions)
    for name, v in directions.items():
        assert v.grad is not None
        assert (v * v.grad).sum(dim=1).abs().max() <= 1e-4 * (1 + v.grad.norm()), name


def test_the_canvas_is_a_sum_of_as_many_glimpses_as_asked_for() -> None:
    network = draw("wn", glimpses=5)
    canvases, kl, places = network.unroll(None, torch.randn(5, 2, 100, generator=torch.Generator().manual_seed(0)))
    assert len(canvases) == 5
    assert places.shape == (5, 2, 5)
    assert kl.tolist() == [0.0, 0.0]  # nothing but the prior


def test_the_paper_takes_64_glimpses() -> None:
    assert make_paper_settings("draw", "wn", "some/folder").glimpses == 64
