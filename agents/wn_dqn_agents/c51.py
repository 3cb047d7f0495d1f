"""C51 (Bellemare, Dabney & Munos 2017): learns the distribution of the return on fixed atoms."""

from __future__ import annotations

from torch import Tensor

from wn_dqn.nn.networks import QNetwork
from wn_dqn.training.agent import AgentParts, UpdateMetrics
from wn_dqn.training.categorical import categorical_target, divergence
from wn_dqn.training.q_learning import td_error
from wn_dqn_agents.dqn import DQN


class C51(DQN):
    """DQN with a network that outputs logits [B, A, N]. It acts by the means of the distributions, the Q-values.

    The priority of a transition is its KL divergence, as in Rainbow.
    """

    def __init__(self, parts: AgentParts) -> None:
        """`parts.network` must have atoms, and `parts.loss` must be a loss of distributions."""
        super().__init__(parts)
        assert parts.network.support is not None, "C51 needs a network with atoms"
        self._support = parts.network.support

    def _outputs(self, network: QNetwork, obs: Tensor) -> Tensor:
        """Logits float32 [B, A, N]."""
        return self._run(network.outputs, obs)

    def _td_target(self, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Tensor:
        """Target probabilities [B, N]."""
        logits = self._outputs(self.target, next_obs)
        return categorical_target(reward, discount, logits, self._support.q_values(logits), self._support)

    def _observed(self, loss: Tensor, outputs: Tensor, action: Tensor, target: Tensor) -> UpdateMetrics:
        q = self._support.q_values(outputs)
        error = td_error(q, action, self._support.mean(target))
        return UpdateMetrics(loss, q.amax(dim=1).mean(), error, divergence(outputs, action, target))
