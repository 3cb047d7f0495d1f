"""An LSTM with weight normalization of every weight vector, as the paper has in DRAW (section 5.3)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.weight_norm import norm_of, norm_of_direction_


class WeightNormLSTM(nn.Module):
    """One LSTM layer (Hochreiter & Schmidhuber 1997) whose input and recurrent weights are w = g v/||v||.

    Each of the 4 gates of each unit has two weight vectors, one for the input and one for the hidden state. Each has
    its own norm and g. Rows and gates are in torch's order: input, forget, cell, output.

    Recurrent layers have no data-dependent initialization: the paper uses a standard one (section 3). So this class is
    not a :class:`wn_dqn.nn.layers.Layer`, and :func:`wn_dqn.nn.layers.layers_of` skips it only if it is named.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        rows = 4 * hidden_size

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))

        self.v_ih, self.g_ih = parameter(rows, input_size), parameter(rows)
        self.v_hh, self.g_hh = parameter(rows, hidden_size), parameter(rows)
        self.bias = parameter(rows)
        for v in (self.v_ih, self.v_hh):
            norm_of_direction_(v.detach())

    @property
    def weight_ih(self) -> Tensor:
        """The weights of the input, [4 hidden, input]."""
        return _normalized(self.v_ih, self.g_ih)

    @property
    def weight_hh(self) -> Tensor:
        """The weights of the hidden state, [4 hidden, hidden]."""
        return _normalized(self.v_hh, self.g_hh)

    @torch.no_grad()
    def set_weights_(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> None:
        """Set the weights [4 hidden, input] and [4 hidden, hidden], as v := w and g := ||w||, and the bias [4 hidden].

        The bias is the sum of torch's two. A row of zeros gets g = 0.
        """
        for v, g, weight in ((self.v_ih, self.g_ih, weight_ih), (self.v_hh, self.g_hh, weight_hh)):
            v.copy_(weight)
            g.copy_(norm_of_direction_(v))
        self.bias.copy_(bias)

    def initialize_(self, generator: torch.Generator) -> None:
        """Weights and bias uniform on +-1/sqrt(hidden), torch's range, drawn from a CPU generator."""
        self.set_weights_(*_uniform(self.hidden_size, (self.v_ih, self.v_hh, self.bias), generator))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Hidden states [T, B, hidden] from inputs [T, B, input], and the state (h, c), both [B, hidden], after them.

        `state` is the initial state; None means zeros.
        """
        h, c = state or (x.new_zeros(x.shape[1], self.hidden_size),) * 2
        weight_hh = self.weight_hh
        outputs = []
        for from_input in F.linear(x, self.weight_ih, self.bias):
            h, c = _gated(from_input + F.linear(h, weight_hh), c)
            outputs.append(h)
        return torch.stack(outputs), (h, c)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"{self.input_size}, {self.hidden_size}"


class PlainLSTM(nn.Module):
    """The parameters of an LSTM without weight normalization, in the order of :class:`WeightNormLSTM`."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.zeros(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))

    @torch.no_grad()
    def initialize_(self, generator: torch.Generator) -> None:
        """Weights and bias as :meth:`WeightNormLSTM.initialize_` draws them."""
        parameters = self.weight_ih, self.weight_hh, self.bias
        for parameter, value in zip(parameters, _uniform(self.hidden_size, parameters, generator), strict=True):
            parameter.copy_(value)


def lstm_step(
    x: Tensor, state: tuple[Tensor, Tensor], weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The state (h, c), both [B, hidden], after the input x [B, input], from plain weights and the bias of an LSTM."""
    return torch.lstm_cell(x, state, weight_ih, weight_hh, bias, torch.zeros_like(bias))  # one kernel on a GPU


def _gated(sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c [B, hidden] after a step, from the gates' sums [B, 4 hidden] and c [B, hidden] before it."""
    i, f, g, o = sums.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _uniform(hidden_size: int, like: Iterable[Tensor], generator: torch.Generator) -> list[Tensor]:
    """A tensor of the shape of each in `like`, uniform on +-1/sqrt(hidden), drawn from a CPU generator."""
    bound = 1.0 / math.sqrt(hidden_size)
    return [torch.empty(each.shape).uniform_(-bound, bound, generator=generator) for each in like]


def _normalized(v: Tensor, g: Tensor) -> Tensor:
    weight: Tensor = v * (g / norm_of(v)).unsqueeze(1)
    return weight
