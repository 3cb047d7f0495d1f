"""Runs on disk: experiments, checkpoints, replay files, tables, trained policies and their tests."""
