"""Agents that the loop of wn_dqn trains, one file each; :mod:`wn_dqn.config.registry` has their names."""
