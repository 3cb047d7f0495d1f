"""Evaluation of agents: protocols, games played in parallel, diagnostics."""
