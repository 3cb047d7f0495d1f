"""A page about runs that updates while they are training."""
