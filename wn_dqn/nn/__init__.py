"""Neural networks: parameterizations, their initialization, and the Nature DQN network."""
