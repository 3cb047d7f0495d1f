"""Atari games: names and published scores, the fast environment, and the reference environment."""
