"""DQN (Mnih et al. 2015, algorithm 1) with a network of any parameterization."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.errors import RunError
from wn_dqn.evaluation.epsilon_greedy import epsilon_greedy
from wn_dqn.nn.cuda_graph import CudaGraph, beside, wait_for
from wn_dqn.nn.curvature import curvature
from wn_dqn.nn.instruments import (
    ACTIVATION_METRICS,
    RANK_METRIC,
    RELU_METRICS,
    TD_METRICS,
    UPDATE_METRICS,
    activation_metrics,
    churn,
    td_metrics,
    update_metrics,
    weight_metrics,
)
from wn_dqn.nn.layers import layers_of
from wn_dqn.nn.networks import QNetwork
from wn_dqn.nn.noisy import Noise, Pass, noisy_layers
from wn_dqn.nn.optimizers import load_optimizer_state, optimizer_state
from wn_dqn.nn.weight_norm import first_order
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.training.agent import AgentParts, Measured, UpdateMetrics
from wn_dqn.training.q_learning import q_learning_target, td_error


class DQN:
    """An online and a target network, epsilon-greedy actions, TD errors. A :class:`wn_dqn.training.agent.Agent`.

    A parameterization may normalize with statistics of the minibatch. They are used only in the online network's
    forward pass that is differentiated. Acting, evaluation and the target network use running averages, which are
    copied to the target network with the parameters. So a target does not depend on the other transitions of its
    minibatch, and both networks are in evaluation mode except in that one pass.
    """

    def __init__(self, parts: AgentParts) -> None:
        self.online = parts.network
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.num_actions = self.online.num_actions
        self._initialize, self._optimizer, self._loss = parts.initialize, parts.optimizer, parts.loss
        self._exploration = parts.exploration
        self._noise = Noise(self.online, parts.noise) if noisy_layers(self.online) else None
        self._device = next(self.online.parameters()).device
        self._autocast = parts.precision == "bf16"
        self._differentiates_twice = False
        # On a GPU, the same two functions are replayed from CUDA graphs. Nothing else changes.
        on_gpu = self._device.type == "cuda"
        self._run_update = CudaGraph(self._update) if on_gpu else self._update
        self._run_forward = CudaGraph(self._forward) if on_gpu else self._forward
        self._run_noisy_forward = CudaGraph(self._noisy_forward) if on_gpu else self._noisy_forward
        # The small kernels leave most of a GPU idle. So the targets are computed concurrently with the pass that is
        # differentiated. Not with running statistics: that pass changes them, and Double DQN's targets depend on them.
        self._side = torch.cuda.Stream() if on_gpu and not list(self.online.buffers()) else None  # type: ignore[no-untyped-call]

    def initialize(self, obs: Tensor) -> Mapping[str, int]:
        """Initialize the online network from `obs` [B, *obs_shape], by default as in section 3; target := online."""
        metrics = self._initialize(self.online, obs.to(self._device))
        self.update_target()
        return metrics

    def act(self, obs: Tensor, epsilon: float) -> NDArray[np.int64]:
        """Epsilon-greedy actions [N] for `obs` [N, *obs_shape]. The random numbers do not depend on the network.

        Noisy layers add noise, with one sample for all N games; `q_values` is without noise.
        """
        explore = self._exploration.random(len(obs)) < epsilon
        random_action = self._exploration.integers(0, self.num_actions, len(obs))
        q_values = self.q_values if self._noise is None else self._noisy_q_values
        return epsilon_greedy(explore, random_action, q_values, obs).action

    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] of the online network for `obs` [B, *obs_shape], without gradients."""
        return self._run_forward(obs.to(self._device))[0].clone()  # the next call overwrites a graph's output

    @torch.inference_mode()
    def _forward(self, obs: Tensor) -> tuple[Tensor]:
        return (self._q(self.online, obs),)

    def _noisy_q_values(self, obs: Tensor) -> Tensor:
        assert self._noise is not None
        self._noise.draw_("acting")
        return self._run_noisy_forward(obs.to(self._device))[0]

    def _noisy_forward(self, obs: Tensor) -> tuple[Tensor]:
        with self._noisy(self.online, "acting"):
            return self._forward(obs)

    def _noisy(self, network: QNetwork, name: Pass) -> contextlib.AbstractContextManager[None]:
        """Inside this context, `network` adds the noise that was drawn for this pass, if it has noisy layers."""
        return contextlib.nullcontext() if self._noise is None else self._noise.of(network, name)

    def update(self, batch: TransitionBatch) -> UpdateMetrics:
        """One gradient step on the loss of the TD error. The returned tensors are valid until the next call."""
        self._draw_noise()
        return self._run_update(*_graph_inputs(batch))

    def _draw_noise(self) -> None:
        """Draw the noise of an update: one sample per network for all transitions, as Fortunato et al. and Rainbow do.

        The online network has separate samples for the differentiated pass and for Double DQN's choice of the action.
        """
        if self._noise is not None:
            self._noise.draw_("learning", "target", "choosing")

    def _update(self, obs: Tensor, action: Tensor, *others: Tensor) -> UpdateMetrics:
        """One gradient step on the tensors of a minibatch, in the order of :meth:`_learn`."""
        loss, outputs, target = self._learn(obs, action, *others)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return self._observed(loss.detach(), outputs.detach(), action, target)

    def _learn(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        next_obs: Tensor,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss [] to differentiate, the outputs that it was computed from, and the targets."""
        noise = self._noisy(self.target, "target"), self._noisy(self.online, "choosing")
        with torch.no_grad(), beside(self._side), noise[0], noise[1]:
            target = self._td_target(reward, discount, next_obs)
        self.online.train()
        with self._noisy(self.online, "learning"):
            outputs = self._outputs(self.online, obs)
        self.online.eval()
        wait_for(self._side)
        return self._loss(outputs, action, target, weight=weight), outputs, target

    def _observed(self, loss: Tensor, outputs: Tensor, action: Tensor, target: Tensor) -> UpdateMetrics:
        """The metrics of an update, without gradients, from its loss [], the network's outputs, and the target."""
        error = td_error(outputs, action, target)
        return UpdateMetrics(loss, outputs.amax(dim=1).mean(), error, error)

    def _td_target(self, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Tensor:
        """The targets y [B] of Q(s, a). Runs without gradients, and with the online network in evaluation mode."""
        return q_learning_target(reward, discount, self._q(self.target, next_obs))

    def _q(self, network: QNetwork, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] of `obs` [B, *obs_shape]."""
        return self._run(network, obs)

    def _outputs(self, network: QNetwork, obs: Tensor) -> Tensor:
        """The outputs that the loss takes, for `obs` [B, *obs_shape]: Q-values float32 [B, A]."""
        return self._run(network, obs)

    def _run(self, function: Callable[[Tensor], Tensor], obs: Tensor) -> Tensor:
        """The float32 result of a network's `function`, computed in bfloat16 if the precision is bf16."""
        with contextlib.nullcontext() if self._differentiates_twice else first_order():
            if not self._autocast:
                return function(obs)
            with torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False):
                outcome = function(obs)
        return outcome.float()

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate from now on."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # a CUDA graph reads it there
            else:
                group["lr"] = rate

    @torch.no_grad()
    def update_target(self) -> None:
        """Target := online, including running statistics."""
        for target, online in zip(_tensors(self.target), _tensors(self.online), strict=True):
            target.copy_(online)
        self._hold_target()

    def _hold_target(self) -> None:
        """Let the target network's layers cache values computed from parameters, which only this agent changes."""
        for layer in layers_of(self.target).values():
            layer.hold_()

    def diagnostics(self, measured: Measured | None) -> dict[str, float]:
        """The metrics of the instruments (:mod:`wn_dqn.nn.instruments`), per layer and of the TD errors, by tag."""
        layers = layers_of(self.online)
        nothing = dict.fromkeys((*UPDATE_METRICS, *ACTIVATION_METRICS, RANK_METRIC), math.nan)
        td, of_layer = dict.fromkeys(TD_METRICS, math.nan), dict.fromkeys(layers, nothing)
        greedy_churn = math.nan
        if measured is not None:
            updated, metrics = self._after_one_more_update(measured.batch)
            td = td_metrics(metrics.td_error)
            updated_layers = layers_of(updated.online)
            states = measured.states.to(self._device)
            with torch.no_grad():
                greedy_churn = churn(self._q(self.online, states), self._q(updated.online, states))
            activations = activation_metrics(self.online, layers, states, self.online.OUTPUT_LAYERS)
            for name, layer in layers.items():
                of_layer[name] = update_metrics(layer, updated_layers[name]) | activations[name]
        tagged = {f"td_error/{key}": value for key, value in td.items()} | {"train/greedy_churn": greedy_churn}
        for name, layer in layers.items():
            rows = weight_metrics(layer) | of_layer[name]
            meaningless = RELU_METRICS if name in self.online.OUTPUT_LAYERS else (RANK_METRIC,)
            tagged |= {f"layers/{name}/{key}": value for key, value in rows.items() if key not in meaningless}
        return tagged

    def curvature(self, batch: TransitionBatch, products: int, start: torch.Generator) -> dict[str, float]:
        """:func:`wn_dqn.nn.curvature.curvature` of the loss of `batch`, in float32. This agent does not change."""
        twin = copy.copy(self)
        twin.online, twin._noise = copy.deepcopy(self.online), copy.deepcopy(self._noise)
        twin._autocast, twin._differentiates_twice = False, True
        twin._draw_noise()
        loss, _, _ = twin._learn(*batch)
        return curvature(loss, twin.online.parameters(), products, start)

    def histograms(self, measured: Measured | None) -> dict[str, Tensor]:
        """All parameters of the online network, and the TD errors [B] of a minibatch, by tag."""
        tensors = {f"parameters/{name}": parameter.detach() for name, parameter in self.online.named_parameters()}
        if measured is not None:
            tensors["td_error/minibatch"] = self._after_one_more_update(measured.batch)[1].td_error
        return tensors

    def _after_one_more_update(self, batch: TransitionBatch) -> tuple[DQN, UpdateMetrics]:
        """A copy of this agent after an update from `batch`, and the update's metrics. This agent does not change."""
        updated = copy.copy(self)
        updated.online, updated._optimizer = copy.deepcopy((self.online, self._optimizer))
        updated._optimizer._warned_capturable_if_run_uncaptured = True  # deepcopy drops it; no graph is intended
        updated._noise = copy.deepcopy(self._noise)
        updated._draw_noise()
        return updated, updated._update(*_graph_inputs(batch))

    def check_finite(self) -> None:
        """Raise RunError if a parameter or a running statistic of a network is NaN or infinite."""
        for name, tensor in [*self.online.state_dict().items(), *self.target.state_dict().items()]:
            if not tensor.isfinite().all():
                raise RunError(
                    f"parameter {name} is NaN or infinite; a smaller optimizer.learning_rate is the usual remedy"
                )

    def state_dict(self) -> dict[str, Any]:
        """Both networks, the optimizer, and the generators of exploration and (if used) of noise."""
        noise = {} if self._noise is None else {"noise": self._noise.generator.bit_generator.state}
        return {
            "num_actions": self.num_actions,
            "online": dict(self.online.state_dict()),
            "target": dict(self.target.state_dict()),
            "optimizer": optimizer_state(self._optimizer),
            "exploration": self._exploration.bit_generator.state,
            **noise,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`. Without "optimizer", the optimizer's state is reset."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self._hold_target()
        load_optimizer_state(self._optimizer, state.get("optimizer", {}))
        self._exploration.bit_generator.state = state["exploration"]
        if self._noise is not None:
            self._noise.generator.bit_generator.state = state["noise"]


def _graph_inputs(batch: TransitionBatch) -> list[Tensor]:
    """The tensors of `batch` in order, without a weight that is None, because a CUDA graph takes only tensors."""
    return [tensor for tensor in batch if tensor is not None]


def _tensors(network: QNetwork) -> list[Tensor]:
    """All parameters and running statistics of a network."""
    return [*network.parameters(), *network.buffers()]
