"""``python -m wn_dqn.sweeps.tied PARENT ARGS...`` runs `wn-dqn ARGS...`, and stops it when its parent process ends.

This needs Linux. On other systems, the run continues, and a later `sweep run` waits for it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, *args = sys.argv[1:]
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it, but a sweep stops runs with it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
        if os.getppid() != int(parent):
            sys.exit("its parent process has ended")
    sys.argv = ["wn-dqn", *args]
    runpy.run_module("wn_dqn", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
