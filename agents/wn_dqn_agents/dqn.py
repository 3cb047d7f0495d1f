"""DQN (Mnih et al. 2015, algorithm 1) with a network of any parameterization."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.config.schema import Settings
from wn_dqn.errors import RunError
from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.cuda_graph import CudaGraph
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.instruments import (
    ACTIVATION_METRICS,
    TD_METRICS,
    UPDATE_METRICS,
    activation_metrics,
    td_metrics,
    update_metrics,
    weight_metrics,
)
from wn_dqn.nn.optimizers import OPTIMIZERS, load_optimizer_state, optimizer_state
from wn_dqn.nn.parameterization import PARAMETERIZATIONS, initializable_layers
from wn_dqn.nn.q_network import DuelingQNetwork, QNetwork
from wn_dqn.nn.uniform_init import UNIFORM_INITS, initialize_uniform
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.seeding import numpy_generator, torch_generator
from wn_dqn.training.agent import Measured, UpdateMetrics
from wn_dqn.training.q_learning import LOSSES, q_learning_target, td_error


class DQN:
    """An online and a target network, epsilon-greedy actions, clipped TD errors.

    See :class:`wn_dqn.training.agent.Agent`.

    Where a parameterization normalizes with statistics of the minibatch, they serve in one place only: the online
    network's forward pass that is learned from. Everything else sees running averages: acting, testing, and the
    target network, whose averages are copied with its parameters. So no target depends on which other transitions
    were drawn, and both networks are in evaluation mode but for that one pass.
    """

    def __init__(self, settings: Settings, num_actions: int, device: torch.device) -> None:
        self._settings = settings
        self._device = device
        self.num_actions = num_actions
        make_network = DuelingQNetwork if settings.network.dueling else QNetwork
        self.online = make_network(PARAMETERIZATIONS[settings.param], num_actions).to(device).eval()
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self._optimizer = OPTIMIZERS[settings.optimizer.name](list(self.online.parameters()), settings.optimizer)
        self._exploration = numpy_generator(settings.seed, "exploration")
        self._autocast = settings.learning.precision == "bf16"
        # On a GPU, the same two functions replayed from CUDA graphs; everything else stays as it is.
        self._run_update = CudaGraph(self._update) if device.type == "cuda" else self._update
        self._run_forward = CudaGraph(self._forward) if device.type == "cuda" else self._forward

    def initialize(self, obs: Tensor) -> Mapping[str, int]:
        """The initialization of the online network, by default the data-dependent one (section 3); target := online."""
        obs = obs.to(self._device)
        network, metrics = self._settings.network, {}
        generator = torch_generator(self._settings.seed, "init")
        if network.init == "data":
            report = initialize_from_data(self.online, obs, generator)
            metrics = {"batch_size": report.batch_size, "dead_units": sum(report.dead_units.values())}
        else:
            initialize_uniform(self.online, UNIFORM_INITS[network.init], generator)
        self.online.scale_q_values_(network.output_init_scale)
        adopt_batch_statistics(self.online, obs)
        self.update_target()
        return metrics

    def act(self, obs: Tensor, epsilon: float) -> NDArray[np.int64]:
        """Epsilon-greedy actions [N]. Draws the same random numbers whatever the network says."""
        explore = self._exploration.random(len(obs)) < epsilon
        action = self._exploration.integers(0, self.num_actions, len(obs))
        if not explore.all():
            greedy = self.q_values(obs).argmax(dim=1).cpu().numpy()
            action = np.where(explore, action, greedy)
        return action

    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values [B, A] of the online network."""
        return self._run_forward(obs.to(self._device))[0].clone()  # a graph's output lives until the next call

    @torch.inference_mode()
    def _forward(self, obs: Tensor) -> tuple[Tensor]:
        return (self._q(self.online, obs),)

    def update(self, batch: TransitionBatch) -> UpdateMetrics:
        """One gradient step on the TD error, clipped unless `learning.loss` says otherwise.

        What it returns is valid until the next call.
        """
        return self._run_update(*_given(batch))

    def _update(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        next_obs: Tensor,
        weight: Tensor | None = None,
    ) -> UpdateMetrics:
        with torch.no_grad():
            target = self._td_target(reward, discount, next_obs)
        self.online.train()
        q = self._q(self.online, obs)
        self.online.eval()
        learning = self._settings.learning
        loss = LOSSES[learning.loss](q, action, target, learning.loss_reduction, weight)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        q = q.detach()
        return UpdateMetrics(loss.detach(), q.amax(dim=1).mean(), td_error(q, action, target))

    def _td_target(self, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Tensor:
        """What Q(s, a) is moved towards, [B]. Runs without gradients, the online network in evaluation mode."""
        return q_learning_target(reward, discount, self._q(self.target, next_obs))

    def _q(self, network: QNetwork, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A]; matrix products and convolutions in bfloat16 if the settings say so."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False):
            q: Tensor = network(obs)
        return q.float() if self._autocast else q

    @torch.no_grad()
    def update_target(self) -> None:
        """Target := online, running statistics included."""
        for target, online in zip(_tensors(self.target), _tensors(self.online), strict=True):
            target.copy_(online)

    def diagnostics(self, measured: Measured | None) -> dict[str, float]:
        """What the instruments say (:mod:`wn_dqn.nn.instruments`), per layer and of the TD errors."""
        layers = initializable_layers(self.online)
        told = {name: weight_metrics(layer) for name, layer in layers.items()}
        if measured is None:
            td = dict.fromkeys(TD_METRICS, math.nan)
            for name in layers:
                told[name] |= dict.fromkeys((*UPDATE_METRICS, *ACTIVATION_METRICS), math.nan)
        else:
            updated, metrics = self._after_one_more_update(measured.batch)
            updated_layers = initializable_layers(updated.online)
            activations = activation_metrics(self.online, layers, measured.states.to(self._device))
            td = td_metrics(metrics.td_error)
            for name, layer in layers.items():
                told[name] |= {**update_metrics(layer, updated_layers[name]), **activations[name]}
        for name in self.online.OUTPUT_LAYERS:
            del told[name]["dead_share"]  # no ReLU follows
        return {
            **{f"td_error/{name}": value for name, value in td.items()},
            **{f"layers/{name}/{key}": value for name in layers for key, value in told[name].items()},
        }

    def histograms(self, measured: Measured | None) -> dict[str, Tensor]:
        """All parameters of the online network, and the TD errors of a minibatch."""
        tensors = {f"parameters/{name}": parameter.detach() for name, parameter in self.online.named_parameters()}
        if measured is not None:
            tensors["td_error/minibatch"] = self._after_one_more_update(measured.batch)[1].td_error
        return tensors

    def _after_one_more_update(self, batch: TransitionBatch) -> tuple[DQN, UpdateMetrics]:
        """What this agent would be after an update from `batch`, and what that observed. This agent stays as it is."""
        updated = copy.copy(self)
        updated.online, updated._optimizer = copy.deepcopy((self.online, self._optimizer))
        updated._optimizer._warned_capturable_if_run_uncaptured = True  # torch forgets it in copying; this is meant
        return updated, updated._update(*_given(batch))

    def check_finite(self) -> None:
        """RunError if a parameter or a running statistic of the online network is NaN or infinite."""
        for name, tensor in self.online.state_dict().items():
            if not tensor.isfinite().all():
                raise RunError(
                    f"parameter {name} is NaN or infinite; a smaller optimizer.learning_rate is the usual remedy"
                )

    def state_dict(self) -> dict[str, Any]:
        """Both networks, the optimizer and the exploration generator."""
        return {
            "num_actions": self.num_actions,
            "online": dict(self.online.state_dict()),
            "target": dict(self.target.state_dict()),
            "optimizer": optimizer_state(self._optimizer),
            "exploration": self._exploration.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer_state(self._optimizer, state.get("optimizer", {}))
        self._exploration.bit_generator.state = state["exploration"]


def _given(batch: TransitionBatch) -> list[Tensor]:
    """What a CUDA graph takes as inputs: the tensors that are there, in order; the weight comes last."""
    return [tensor for tensor in batch if tensor is not None]


def _tensors(network: QNetwork) -> list[Tensor]:
    """All that makes the function of a network: its parameters, and running statistics where it has any."""
    return [*network.parameters(), *network.buffers()]
