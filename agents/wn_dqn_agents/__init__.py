"""Agents that the loop of wn_dqn trains."""

from wn_dqn_agents.double_dqn import DoubleDQN
from wn_dqn_agents.dqn import DQN

__all__ = ["AGENTS", "DQN", "DoubleDQN"]

AGENTS: dict[str, type[DQN]] = {"dqn": DQN, "double-dqn": DoubleDQN}
"""Agents by the name that ``--agent`` gives them."""
