"""DQN for Atari with standard or weight-normalized layers (Mnih et al. 2015; Salimans & Kingma 2016)."""

__version__ = "0.1.0"
