"""Environments and their spec: Atari, the reference that Atari is tested against, and Catch."""
