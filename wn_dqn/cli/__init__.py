"""The ``wn-dqn`` command: one module a command. Each turns arguments into calls and outcomes into text.

Modules here import nothing heavy at their top: a command imports torch and its like inside its function, so that a
help text or a mistake costs nobody a second.
"""
