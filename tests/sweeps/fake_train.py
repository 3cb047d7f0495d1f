"""A stand-in for `wn-dqn train` that takes no time: what it does stands in the --param of its command.

It is called as a child of a sweep is: PARENT train ... --run-dir FOLDER.
"""

import json
import os
import signal
import sys
import time

folder, param = sys.argv[sys.argv.index("--run-dir") + 1], sys.argv[sys.argv.index("--param") + 1]
asked = []
for name in ("SIGHUP", "SIGTERM", "SIGINT"):
    signal.signal(getattr(signal, name), lambda number, _frame: asked.append(signal.Signals(number).name))
os.makedirs(folder, exist_ok=True)


def say(status, steps, **details):
    with open(folder + "/status.json", "w") as file:
        json.dump({"status": status, "steps": steps, "saved_steps": steps, **details}, file)


def starts():
    """How often it was started, this time included."""
    with open(folder + "/starts", "a+") as file:
        file.write(os.environ["WN_DQN_CORES"] + "\n")
        file.seek(0)
        return len(file.readlines())


count = starts()
if param == "standard":  # finishes
    say("finished", 100)
    sys.exit(0)
if param == "wn":  # is stopped the first time
    say("paused" if count == 1 else "finished", 50 if count == 1 else 100)
    sys.exit(3 if count == 1 else 0)
if param == "bn":  # fails the first time
    say("failed" if count == 1 else "finished", 100 if count > 1 else 10, error="the emulator is ill")
    sys.stdout.write("wn-dqn: the emulator is ill\n")
    sys.exit(1 if count == 1 else 0)
if param == "wn-exp":  # is killed every time, and has always saved the same
    say("running", 10)
    os.kill(os.getpid(), signal.SIGKILL)
say("running", 10)  # goes on until it is asked to stop
os.write(1, b"ready\n")
while not asked:
    time.sleep(0.01)
say("paused", 20, reason=",".join(asked))
sys.exit(3)
