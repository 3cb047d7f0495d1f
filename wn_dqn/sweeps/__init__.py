"""Sweeps: studies of many runs. A file describes the cells, and `wn-dqn train` trains them locally, on Ray or SLURM."""
