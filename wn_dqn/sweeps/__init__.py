"""Sweeps: a study in one file; its cells are runs, trained by `wn-dqn train` here, on Ray or on SLURM."""
