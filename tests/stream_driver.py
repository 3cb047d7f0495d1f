"""Runs commands with standard streams that lead elsewhere, in forks of one process that has imported everything.

    python tests/stream_driver.py < REQUESTS

A request is a line of JSON: the folder, the arguments, and what each standard stream is (null, file, full, broken or
closed). The answer is one, too: the exit status, and what was written to standard error where that is a file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import fuzz

fuzz.import_everything()
for line in sys.stdin:
    folder, args, streams = json.loads(line)
    os.chdir(folder)
    try:
        ended = fuzz.command(*args, streams=streams)
        answer = [ended.status, ended.err]
    except fuzz.Failure as failure:
        answer = [None, str(failure)]
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
