"""Neural networks: layers of every parameterization, their initialization, Q-networks, optimizers, instruments."""
