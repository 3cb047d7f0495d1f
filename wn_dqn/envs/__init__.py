"""Environments and their spec: Atari, the reference implementation for tests of Atari, Catch, external environments."""
