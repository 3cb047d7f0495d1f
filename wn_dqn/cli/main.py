"""The ``wn-dqn`` command: its subcommands, and the reporting of errors."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

import click

from wn_dqn import __version__
from wn_dqn.cli.cmd_agents import agents
from wn_dqn.cli.cmd_card import card
from wn_dqn.cli.cmd_checkpoint import checkpoint
from wn_dqn.cli.cmd_doctor import doctor
from wn_dqn.cli.cmd_evaluate import evaluate
from wn_dqn.cli.cmd_export import export
from wn_dqn.cli.cmd_games import games
from wn_dqn.cli.cmd_import import import_
from wn_dqn.cli.cmd_paper import paper
from wn_dqn.cli.cmd_play import play
from wn_dqn.cli.cmd_plot import plot
from wn_dqn.cli.cmd_push import push
from wn_dqn.cli.cmd_report import report
from wn_dqn.cli.cmd_settings import settings
from wn_dqn.cli.cmd_sweep import sweep
from wn_dqn.cli.cmd_train import train
from wn_dqn.errors import RunError, UsageError
from wn_dqn.system.text import printable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="wn-dqn")
def cli() -> None:
    """DQN for Atari with standard or weight-normalized layers (Salimans & Kingma, 2016).

    \b
    wn-dqn train --config quick                          learn a game in minutes on two CPU cores
    wn-dqn train --game SpaceInvaders --param wn         the paper's experiment
    wn-dqn evaluate runs/SpaceInvaders-wn-seed0          test the best network of a run
    tensorboard --logdir runs                            watch the training

    Completion of commands and options for your shell: eval "$(_WN_DQN_COMPLETE=bash_source wn-dqn)", or
    zsh_source, fish_source.
    """


for command in (
    *(train, sweep, checkpoint, evaluate, play, agents, paper),
    *(plot, report, card, export, import_, push),
    *(games, settings, doctor),
):
    cli.add_command(command)


def main() -> None:
    """Run the command. An error is reported by one line and the exit status, without a traceback."""
    _open_closed_streams()
    try:
        _run()
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drop_unwritten(stream)


def _open_closed_streams() -> None:
    """Open missing standard streams on the null device.

    Otherwise a checkpoint's file could get the descriptor of a standard stream, and messages would be written into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opens the lowest free descriptor
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _drop_unwritten(stream: TextIO) -> None:
    """Drop text that `stream` cannot write. Python would try again at its exit, and change the exit status."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _print_error(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        click.echo(printable(f"wn-dqn: {text}"), err=True)


def _run() -> None:
    try:
        status = cli.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError, ValueError):
            error.show()
        sys.exit(2)
    except click.ClickException as error:
        _print_error(error.format_message())
        sys.exit(error.exit_code)
    except UsageError as error:
        _print_error(str(error))
        sys.exit(error.exit_status)
    except RunError as error:
        _print_error(str(error))
        sys.exit(1)
    except OSError as error:  # for instance, the disk is full or was removed
        _print_error(f"{error}; everything saved before is intact")
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        _print_error("interrupted; the same command begins again")
        sys.exit(130)
