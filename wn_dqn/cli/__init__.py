"""The ``wn-dqn`` command, with one module per subcommand. Each turns arguments into calls, and outcomes into text.

No module here imports anything slow at its top. A command imports torch and similar packages inside its function, so
that a help text or an error message appears at once.
"""
