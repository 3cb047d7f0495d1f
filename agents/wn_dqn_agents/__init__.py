"""Agents for the training loop of wn_dqn, one file each. :mod:`wn_dqn.config.registry` has their names."""
