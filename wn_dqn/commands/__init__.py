"""The commands of ``wn-dqn``, by subject: each module turns arguments into calls and outcomes into text."""
