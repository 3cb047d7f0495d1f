"""The ``wn-dqn`` command: its subcommands, and how mistakes are reported."""

from __future__ import annotations

import sys

import click

from wn_dqn import __version__
from wn_dqn.cli.cmd_card import card
from wn_dqn.cli.cmd_checkpoint import checkpoint
from wn_dqn.cli.cmd_doctor import doctor
from wn_dqn.cli.cmd_evaluate import evaluate
from wn_dqn.cli.cmd_export import export
from wn_dqn.cli.cmd_games import games
from wn_dqn.cli.cmd_import import import_
from wn_dqn.cli.cmd_play import play
from wn_dqn.cli.cmd_plot import plot
from wn_dqn.cli.cmd_report import report
from wn_dqn.cli.cmd_settings import settings
from wn_dqn.cli.cmd_train import train
from wn_dqn.errors import RunError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="wn-dqn")
def cli() -> None:
    """DQN for Atari with standard or weight-normalized layers (Salimans & Kingma, 2016).

    \b
    wn-dqn train --config quick                          learn a game in ten minutes on two CPU cores
    wn-dqn train --game SpaceInvaders --param wn         the paper's experiment
    wn-dqn evaluate runs/SpaceInvaders-wn-seed0          test the best network of a run
    tensorboard --logdir runs                            watch

    Completion of commands and options for your shell: eval "$(_WN_DQN_COMPLETE=bash_source wn-dqn)", or
    zsh_source, fish_source.
    """


for command in (train, checkpoint, evaluate, play, plot, report, card, export, import_, games, settings, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command; mistakes are one line and an exit status, never a traceback."""
    try:
        status = cli.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"wn-dqn: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except UsageError as error:
        click.echo(f"wn-dqn: {error}", err=True)
        sys.exit(2)
    except RunError as error:
        click.echo(f"wn-dqn: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a disk that is full or gone, past what a run can bear
        click.echo(f"wn-dqn: {error}; what was saved before is intact", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
