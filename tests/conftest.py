"""What all tests share."""

from __future__ import annotations

import os

# The networks here see a handful of observations at a time, and tests run side by side: a second thread would only
# wait for a core. Programs that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
