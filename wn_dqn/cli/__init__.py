"""The ``wn-dqn`` command: each module turns arguments into calls and outcomes into text."""
