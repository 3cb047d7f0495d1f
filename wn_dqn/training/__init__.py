"""The training loop, its state, and the interface of an agent."""
