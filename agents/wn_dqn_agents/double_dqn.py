"""Double DQN (van Hasselt et al. 2016): the online network chooses the next action, the target network evaluates it."""

from __future__ import annotations

from torch import Tensor

from wn_dqn.training.q_learning import double_q_learning_target
from wn_dqn_agents.dqn import DQN


class DoubleDQN(DQN):
    """DQN with another target. The online network chooses in evaluation mode, as it does when it acts."""

    def _td_target(self, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Tensor:
        target_q, online_q = self._q(self.target, next_obs), self._q(self.online, next_obs)
        return double_q_learning_target(reward, discount, target_q, online_q)
