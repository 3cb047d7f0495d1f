"""Lets ``python -m wn_dqn`` do what the ``wn-dqn`` command does."""

from wn_dqn.cli.main import main

if __name__ == "__main__":
    main()
