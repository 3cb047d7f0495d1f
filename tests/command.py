"""The command as a person calls it, run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

import pytest

from wn_dqn.cli.main import main


def wn_dqn(*args: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["wn-dqn", *args]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out.getvalue(), err.getvalue()
