"""Environments: Atari, the reference that Atari is tested against, and Catch."""
