"""Agents for :mod:`wn_dqn`."""
