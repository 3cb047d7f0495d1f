"""Run directories: experiments, checkpoints, tables, policies and their tests."""
