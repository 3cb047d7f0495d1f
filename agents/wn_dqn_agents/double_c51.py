"""C51 with Double DQN's target (Hessel et al. 2018): the online network chooses, the target network evaluates."""

from __future__ import annotations

from torch import Tensor

from wn_dqn.training.categorical import categorical_target
from wn_dqn_agents.c51 import C51


class DoubleC51(C51):
    """C51 with another target. The online network chooses in evaluation mode, as it does when it acts."""

    def _td_target(self, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Tensor:
        logits, online_q = self._outputs(self.target, next_obs), self._q(self.online, next_obs)
        return categorical_target(reward, discount, logits, online_q, self._support)
